import os
import subprocess
import time
from pathlib import Path
from typing import Annotated

import typer

from singflow.cli import log
from singflow.commands.options import PARAMS, Params
from singflow.errors import InputError

POLL = 2.0  # seconds between two looks at the queue


def resume(
    params: Params = PARAMS,
    profile: Annotated[str, typer.Option(help="Profile of Snakemake.")] = "slurm",
    wait: Annotated[
        bool, typer.Option(help="Let queued and running jobs finish, instead of cancelling them.")
    ] = False,
) -> None:
    """Continue a study on Slurm after its Snakemake was killed. No job runs twice."""
    from singflow.engines.at_work import running_snakemake
    from singflow.planning.slurm import ask_slurm, own_jobs
    from singflow.study import read_params

    study = read_params(params).study
    folder = Path.cwd()
    alive = running_snakemake(folder, params)
    if alive:
        raise InputError(
            f"Snakemake (process {alive}) is at work on this study: leave it alone, "
            f"or stop it with: kill -INT {alive}"
        )
    jobs = own_jobs(folder, study)
    for number, work in jobs.items():
        log.info("%s job %s (%s)", "waiting for" if wait else "cancelling", number, work)
    if jobs and not wait:
        ask_slurm("scancel", "--quiet", *jobs)  # no error if some have ended meanwhile
    while own_jobs(folder, study):
        time.sleep(POLL)
    command = ["snakemake", "--profile", profile]
    command += [] if params == PARAMS else ["--configfile", str(params)]
    subprocess.run([*command, "--unlock"], check=True, stdout=subprocess.DEVNULL)
    os.execvp(command[0], command)  # noqa: S606
