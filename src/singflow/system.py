"""The machine: answers of its programs, its folders and sizes."""

import os
import platform
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

from singflow.errors import InputError


class Answer(NamedTuple):
    """The outcome of a command."""

    ok: bool  # it ended with status 0 in time
    out: str
    words: str  # its complaint in one line


def ask(*command: str, seconds: float = 10) -> Answer:
    """Run a command; if it cannot run or takes longer than `seconds`, the answer says so."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return Answer(False, "", f"{command[0]} gave no answer within {seconds:g} s")
    except OSError as error:
        return Answer(False, "", f"{command[0]}: {error.strerror}")
    return Answer(
        done.returncode == 0,
        done.stdout,
        "; ".join(dict.fromkeys((done.stderr or done.stdout).split("\n"))).strip("; "),
    )


def usable_cores() -> int:
    """Cores that this process may use; all, where the system does not tell."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor() -> str:
    """The name of the processor; of its architecture where the system does not tell."""
    info = Path("/proc/cpuinfo")
    named = re.search(r"^model name.*?:(.*)", info.read_text() if info.exists() else "", re.M)
    return named[1].strip() if named else platform.machine()


def regular(path: Path) -> Path:
    """The path itself; InputError for a pipe or a device, which may never end."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise InputError(f"{path}: not a regular file, but a pipe or a device: name a file")
    return path


def existing(path: Path) -> Path:
    """The path, or the nearest existing folder above it."""
    return next(place for place in (path, *path.absolute().parents) if place.exists())


def writable(folder: Path) -> bool:
    """Whether the path is a folder in which this user may write."""
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK, effective_ids=True)


def in_bytes(count: float) -> str:
    """A number of bytes to three digits, with a unit from kB to TB (powers of 1000)."""
    units = ("kB", "MB", "GB", "TB")
    power = next((power for power in range(1, 4) if count < 1000 ** (power + 1)), 4)
    return f"{count / 1000**power:.3g} {units[power - 1]}"
