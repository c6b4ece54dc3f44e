"""The machine: answers of its programs, its folders and sizes."""

import fcntl
import os
import platform
import re
import subprocess
import tempfile
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from singflow.errors import InputError

DEVICES, DRIVER = Path("/dev"), Path("/proc/driver/nvidia/version")  # of NVIDIA
_chosen: list[str] = []  # the GPU that choose_gpu() took, where nobody named any


class Answer(NamedTuple):
    """The outcome of a command."""

    ok: bool  # it ended with status 0 in time
    out: str
    message: str  # its complaint in one line


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


def _named_gpus() -> list[str] | None:
    """The GPUs that CUDA_VISIBLE_DEVICES names, as CUDA reads it; None where it is not set."""
    if (value := os.environ.get("CUDA_VISIBLE_DEVICES")) is None:
        return None
    names = (name.strip() for name in value.split(","))
    return [*takewhile(re.compile(r"\d+|(GPU|MIG)-[\w/-]+").fullmatch, names)]


def gpu_count() -> int:
    """NVIDIA GPUs that this process may use, counted without PyTorch."""
    named = _named_gpus()
    return len([*DEVICES.glob("nvidia[0-9]*")]) if named is None else len(named)


def given_gpus() -> str:
    """The GPUs that a scheduler or the user gave to this process; "" if none were given."""
    named = None if _chosen else _named_gpus()
    return os.environ.get("SLURM_JOB_GPUS", "") if named is None else ",".join(named)


def choose_gpu() -> None:
    """Of several GPUs, let CUDA show this process one alone.

    It is the one with the most free memory that no other process chose, or else the one with the
    most free memory. A lock tells other processes, until this one ends.
    """
    if gpu_count() < 2:
        return
    query = "--query-gpu=uuid,memory.free"
    listed = ask("nvidia-smi", query, "--format=csv,noheader,nounits").out
    free = {gpu: int(size) for gpu, size in re.findall(r"^(GPU-[\w-]+), (\d+)$", listed, re.M)}
    named = _named_gpus()
    gpus = sorted(free if named is None else named, key=lambda gpu: -free.get(gpu, 0))
    if gpu := next(filter(_lock, gpus), gpus[0] if gpus else None):
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
        _chosen.extend([gpu] if named is None else [])


def _lock(gpu: str) -> bool:
    """Lock a GPU until this process ends, unless another process of this user did."""
    folder = Path(tempfile.gettempdir(), f"singflow-gpus-{os.getuid()}")
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        handle = os.open(folder / gpu.replace("/", "-"), flags, mode=0o600)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return False
    return True


def nvidia_driver() -> str:
    """The NVIDIA driver of this machine, in words."""
    known = re.search(r"\d+\.[\d.]+", DRIVER.read_text() if DRIVER.exists() else "")
    return f"NVIDIA driver {known[0]}" if known else "no NVIDIA driver"


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
