"""What a check of the doctor found, and what its checks share."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple


@dataclass(frozen=True)
class Finding:
    """What a check found. status: ok | warn (it works, with a drawback) | fail (it will not work) | absent (there is nothing to check)."""

    name: str
    status: Literal["ok", "warn", "fail", "absent"]
    found: str
    mend: str = ""

    def __str__(self) -> str:
        """One aligned line, and how to mend it below."""
        indent = "\n" + " " * 24
        return f"{self.status:<8}{self.name:<16}" + self.found.replace("\n", indent) + (f"{indent}-> {self.mend}" if self.mend else "")


class Answer(NamedTuple):
    """What a command said. ok: it ended with status 0 in time; out: its output; words: its complaint in one line."""

    ok: bool
    out: str
    words: str


def ask(*command: str, seconds: float = 10) -> Answer:
    """Run a command that must answer within so many seconds; its words say so where it does not."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=seconds, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return Answer(False, "", f"{command[0]} gave no answer within {seconds:g} s")
    except OSError as error:
        return Answer(False, "", f"{command[0]}: {error.strerror}")
    return Answer(done.returncode == 0, done.stdout, "; ".join(dict.fromkeys((done.stderr or done.stdout).split("\n"))).strip("; "))


def existing(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    return next(each for each in (path, *path.absolute().parents) if each.exists())


def writable(folder: Path) -> bool:
    """Whether it is a folder in which this user may write."""
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK, effective_ids=True)


def in_bytes(count: float) -> str:
    """Bytes in the unit that suits them, to three digits."""
    units = ("kB", "MB", "GB", "TB")
    power = next((power for power in range(1, 4) if count < 1000 ** (power + 1)), 4)
    return f"{count / 1000**power:.3g} {units[power - 1]}"
