"""What a killed `make demo` left locked."""

import platform
from pathlib import Path

from singflow.cli import log
from singflow.commands.options import PARAMS
from singflow.errors import InputError

OWNER = Path(".snakemake/demo")
LOCKS = Path(".snakemake/locks")


def clear_lock() -> None:
    """Take away what a killed `make demo` left locked, so that the next one goes on where it stopped.

    A lock that a demo of this machine did not make is left alone. Ends with an error while Snakemake is at work in this folder.
    """
    from singflow.artifacts.files import write_bytes
    from singflow.planning.slurm import running_snakemake

    if process := running_snakemake(Path.cwd(), PARAMS):
        raise InputError(f"Snakemake is at work in this folder already (process {process}): wait for its end, then run make demo again")
    here = platform.node()
    locks = list(LOCKS.glob("*.lock"))
    if locks and OWNER.is_file() and OWNER.read_text(encoding="utf-8") == here:
        log.info("the demo before was killed: going on where it stopped")
        for lock in locks:
            lock.unlink()
    write_bytes(OWNER, here.encode())
