"""Which process of an engine is at work in a folder."""

import fcntl
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import psutil

from singflow.study import PARAMS


def running_snakemake(folder: Path, params: Path | None = None) -> int | None:
    """PID of a Snakemake that runs in `folder`, here and on this file (None: any); or None."""
    named = [] if params == PARAMS else [str(params)]

    def wanted(command: list[str]) -> bool:
        files = [file for option, file in pairwise(command) if option == "--configfile"]
        main = _program("snakemake", command) and "--mode" not in command
        return main and (params is None or files == named)

    return _running(folder, wanted)


def running_dvc(folder: Path) -> int | None:
    """PID of a DVC that runs the study of params.yaml in `folder`, here; or None.

    The lock of DVC does not tell it: DVC releases it while a step is at work.
    """
    return _running(folder, lambda command: _program("dvc", command) and "repro" in command)


def lock_holder(path: Path) -> str:
    """The process that holds this lock file of DVC, in words; "" if none does."""
    with suppress(FileNotFoundError), path.open(encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return file.read().strip() or "unknown"
    return ""


def _program(name: str, command: list[str]) -> bool:
    return name in [Path(word).name for word in command[:2]]


def _running(folder: Path, wanted: Callable[[list[str]], bool]) -> int | None:
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if wanted(process.cmdline()) and Path(process.cwd()) == folder:
                return process.pid
    return None
