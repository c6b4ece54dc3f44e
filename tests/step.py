"""A step for 100% of the tests: says that it is at work, writes a file, and ends as it is told."""

import os
import time
from pathlib import Path

from singflow import cli
from singflow.artifacts.files import atomic
from singflow.errors import InputError
from singflow.parallel import map_ahead


class Flags(cli.Command):
    end: str = "well"
    output: Path = Path("made")
    user: int = os.getuid()


def refuse():
    raise InputError("images.csv: no such file: write it")


def err():
    raise KeyError("absent")


def spin(_):
    while True:
        sum(range(1000))


class Swallowing:
    """Python tells what is raised here to `sys.unraisablehook`, and goes on."""

    def __del__(self):
        time.sleep(1)


def heed_nothing():
    while True:
        Swallowing()


ENDS = {
    "well": lambda: None,
    "refuses its input": refuse,
    "has a defect": err,
    "waits": lambda: time.sleep(9999),
    "waits for its threads": lambda: list(map_ahead(spin, range(9), 2)),
    "heeds nothing": heed_nothing,
}


def main(flags):
    os.setuid(flags.user)
    print(os.environ["HF_HUB_OFFLINE"])
    cli.log.info("at work")
    with atomic(flags.output) as temporary:
        temporary.write_bytes(b"x" * 100_000)
        ENDS[flags.end]()


if __name__ == "__main__":
    cli.run_step(main, Flags)
