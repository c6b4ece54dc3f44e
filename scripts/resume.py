"""Go on with a study on Slurm after its Snakemake was killed: no job of it runs twice."""

import os
import subprocess
from pathlib import Path

from pydantic import Field

from singflow import cli
from singflow.cluster import DEFAULT, cancel, own_jobs, running_snakemake, wait
from singflow.config import check, read_yaml
from singflow.errors import InputError


class Flags(cli.Command):
    """Go on with a study on Slurm after its Snakemake was killed: no job of it runs twice."""

    params: Path = Field(DEFAULT, description="the study, as --configfile names it")
    profile: str = Field("slurm", description="profile of Snakemake")
    wait: bool = Field(False, description="let jobs that are queued or running end, instead of cancelling them")


def main(flags: Flags) -> None:
    study = check(read_yaml(flags.params), str(flags.params)).study
    folder = Path.cwd()
    alive = running_snakemake(folder, flags.params)
    if alive:
        raise InputError(f"Snakemake (process {alive}) is at work on this study: leave it alone, or stop it with: kill -INT {alive}")
    jobs = own_jobs(folder, study)
    for number, work in jobs.items():
        cli.log.info("%s job %s (%s)", "waiting for" if flags.wait else "cancelling", number, work)
    if not flags.wait:
        cancel(list(jobs))
    wait(folder, study)
    command = ["snakemake", "--profile", flags.profile, *(["--configfile", str(flags.params)] if flags.params != DEFAULT else [])]
    subprocess.run([*command, "--unlock"], check=True, stdout=subprocess.DEVNULL)
    os.execvp(command[0], command)  # noqa: S606


if __name__ == "__main__":
    cli.run(main, Flags)
