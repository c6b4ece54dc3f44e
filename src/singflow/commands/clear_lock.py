"""Take away what a killed `make demo` left locked, so that the next one goes on where it stopped."""

import platform
from pathlib import Path

from singflow import cli
from singflow.cluster import DEFAULT, running_snakemake
from singflow.errors import InputError
from singflow.store import write_bytes

OWNER = Path(".snakemake/demo")
LOCKS = Path(".snakemake/locks")


class Flags(cli.Command):
    """Take away what a killed `make demo` left locked, so that the next one goes on where it stopped.

    A lock that a demo of this machine did not make is left alone. Ends with an error while Snakemake is at work in this folder.
    """


def main(flags: Flags) -> None:
    if process := running_snakemake(Path.cwd(), DEFAULT):
        raise InputError(f"Snakemake is at work in this folder already (process {process}): wait for its end, then run make demo again")
    here = platform.node()
    locks = list(LOCKS.glob("*.lock"))
    if locks and OWNER.is_file() and OWNER.read_text(encoding="utf-8") == here:
        cli.log.info("the demo before was killed: going on where it stopped")
        for lock in locks:
            lock.unlink()
    write_bytes(OWNER, here.encode())


if __name__ == "__main__":
    cli.run(main, Flags)
