"""The Slurm jobs of one study, found again after the Snakemake that started them was killed."""

import re
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import psutil

from singflow.errors import InputError
from singflow.system import ask

RUN = re.compile(r"SLURM run ID: (\S+)")
DEFAULT = Path("params.yaml")
PATIENCE = 60  # seconds in which Slurm has to answer
POLL = 2.0  # seconds between two looks at the queue


def ask_slurm(*command: str) -> str:
    """The output of a Slurm command; InputError if Slurm is missing, refuses or does not answer."""
    if not shutil.which(command[0]):
        raise InputError(f"{command[0]}: no such command: is this machine part of a Slurm cluster?")
    answer = ask(*command, seconds=PATIENCE)
    if not answer.ok:
        raise InputError(f"{' '.join(command)}: {answer.words}: try again when the cluster answers")
    return answer.out


def runs(logs: Path, study: str) -> tuple[set[str], set[str]]:
    """Run IDs, from the logs in .snakemake/log: of runs of the study, and of all other runs.

    The jobs of a run have its ID as their name in Slurm.
    """
    named: tuple[set[str], set[str]] = set(), set()
    for path in logs.glob("*.snakemake.log"):
        text = path.read_text(encoding="utf-8", errors="replace")
        named[f"results/{study}/" not in text].update(RUN.findall(text))
    return named


def own_jobs(folder: Path, study: str) -> dict[str, str]:
    """Your jobs in the queue that Snakemake submitted from `folder` for the study.

    Returns what each job does, by job number. The jobs of a run without a log count as the study's,
    so that no job is overlooked.
    """
    _, foreign = runs(folder / ".snakemake/log", study)
    listed = [
        line.split("|")
        for line in ask_slurm(
            "squeue", "--me", "--noheader", "--format", "%i|%j|%k|%Z"
        ).splitlines()
    ]
    return {
        number: comment
        for number, name, comment, place in listed
        if Path(place) == folder and comment.startswith("rule_") and name not in foreign
    }


def running_snakemake(folder: Path, params: Path | None = None) -> int | None:
    """PID of a Snakemake on this machine that runs in `folder` on a study's file, or None.

    params: the file as the command line names it; None: any file.
    """
    named = [] if params == DEFAULT else [str(params)]
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            command = process.cmdline()
            main = (
                any(Path(word).name == "snakemake" for word in command[:2])
                and "--mode" not in command
            )
            asked = (
                params is None or [b for a, b in pairwise(command) if a == "--configfile"] == named
            )
            if main and asked and Path(process.cwd()) == folder:
                return process.pid
    return None


def cancel(jobs: Sequence[str]) -> None:
    """Cancel jobs; it is no error if some have ended meanwhile."""
    if jobs:
        ask_slurm("scancel", "--quiet", *jobs)


def wait(folder: Path, study: str) -> None:
    """Return once the study has no job in the queue."""
    while own_jobs(folder, study):
        time.sleep(POLL)
