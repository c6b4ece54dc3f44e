"""The Slurm jobs of one study, found again after the Snakemake that started them was killed."""

import re
import shutil
from pathlib import Path

from singflow.errors import InputError
from singflow.system import ask

RUN = re.compile(r"SLURM run ID: (\S+)")
PATIENCE = 60  # seconds in which Slurm has to answer


def ask_slurm(*command: str) -> str:
    """The output of a Slurm command; InputError if Slurm is missing, refuses or does not answer."""
    if not shutil.which(command[0]):
        raise InputError(f"{command[0]}: no such command: is this machine part of a Slurm cluster?")
    answer = ask(*command, seconds=PATIENCE)
    if not answer.ok:
        raise InputError(
            f"{' '.join(command)}: {answer.message}: try again when the cluster answers"
        )
    return answer.out


def foreign_runs(logs: Path, study: str) -> set[str]:
    """Run IDs (job names in Slurm) in these logs, of runs that are not of the study."""
    names: set[str] = set()
    for path in logs.glob("*.snakemake.log"):
        text = path.read_text(encoding="utf-8", errors="replace")
        if f"results/{study}/" not in text:
            names.update(RUN.findall(text))
    return names


def own_jobs(folder: Path, study: str) -> dict[str, str]:
    """Your jobs in the queue that Snakemake submitted from `folder` for the study.

    Returns what each job does, by job number. The jobs of a run without a log count as the study's,
    so that no job is overlooked.
    """
    foreign = foreign_runs(folder / ".snakemake/log", study)
    listed = ask_slurm("squeue", "--me", "--noheader", "--format", "%i|%j|%k|%Z")
    return {
        number: comment
        for number, name, comment, place in (line.split("|") for line in listed.splitlines())
        if Path(place) == folder and comment.startswith("rule_") and name not in foreign
    }
