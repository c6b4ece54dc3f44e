"""Choose the device that towers run on."""

import logging
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch

from singflow.errors import InputError
from singflow.system import given_gpus, nvidia_driver
from singflow.towers.parameters import Precision

log = logging.getLogger("singflow")

BUILD = "install a build of PyTorch for this driver and GPU (docs/installation.md, GPUs)"


def pick_device(wanted: str) -> torch.device:
    """The CPU or an NVIDIA GPU. auto takes the GPU if there is one."""
    if wanted == "cpu":
        return torch.device("cpu")
    if torch.cuda.is_available():
        if reason := misfit():
            raise InputError(f"{reason}: {BUILD}, or choose device cpu")
        return torch.device("cuda")
    if given := given_gpus():
        raise InputError(
            f"this job was given GPU {given}, but {unseen()}: {BUILD}, or choose device cpu"
        )
    if wanted == "cuda":
        raise InputError(f"device is cuda, but {unseen()}: write auto or cpu")
    return torch.device("cpu")


def _build() -> str:
    cuda = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
    return f"{torch.__version__}, built {cuda}"


def unseen() -> str:
    """That PyTorch sees no GPU, and the versions that decide it."""
    return f"PyTorch sees no GPU (version {_build()}; {nvidia_driver()})"


def misfit(index: int | None = None) -> str:
    """Why this build of PyTorch cannot run on a GPU, by default the current one; "" if it can."""
    built = torch.cuda.get_arch_list() if torch.version.cuda else []
    if not built:
        return ""
    own = torch.cuda.get_device_capability(index)
    for kind, number in re.findall(r"(sm|compute)_(\d+)", " ".join(built)):
        known = divmod(int(number), 10)
        # Machine code runs on later cards of its generation, PTX on all later cards.
        if own >= known and (kind == "compute" or own[0] == known[0]):
            return ""
    return (
        f"{torch.cuda.get_device_name(index)} has compute capability {own[0]}.{own[1]}, but "
        f"PyTorch {_build()}, has code for {', '.join(built)} alone"
    )


def name_of(device: torch.device) -> str:
    """The name of a GPU, or the instructions that PyTorch uses on a CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU ({torch.backends.cpu.get_cpu_capability()})"


def recorded(device: torch.device) -> dict[str, str]:
    """The device, for the metadata of an artifact. It is logged, too."""
    name = name_of(device)
    log.info("device: %s", name)
    return {"device": name}


def use_tf32(on: bool) -> None:
    """Whether this process multiplies float32 matrices on a GPU with 10 bits of mantissa."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = on


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Autocast to the precision; none to float32 and TF32."""
    half = {"float16": torch.float16, "bfloat16": torch.bfloat16}.get(precision)
    return torch.autocast(device.type, half, enabled=half is not None)


@contextmanager
def in_float32(device: torch.device) -> Iterator[None]:
    """Compute in float32 on the device, where autocast or TF32 may be on."""
    with torch.autocast(device.type, enabled=False), without_tf32(device):
        yield


_LOCK = threading.Lock()
_FOUND: list[list[tuple[Any, str, Any]]] = []  # by the blocks that are open


@contextmanager
def without_tf32(device: torch.device) -> Iterator[None]:
    """Multiply float32 matrices in full precision. Blocks may overlap in threads."""
    if device.type != "cuda":
        yield
        return
    with _LOCK:
        _FOUND.append(_tf32_flags())
        use_tf32(False)
    try:
        yield
    finally:
        with _LOCK:
            before = _FOUND.pop()
            for place, name, value in before if not _FOUND else ():
                setattr(place, name, value)


def _tf32_flags() -> list[tuple[Any, str, Any]]:
    """The flags of TF32; those of old versions cannot be read where those of 2.9 were set."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    places = [(matmul, "allow_tf32"), (cudnn, "allow_tf32"), (matmul, "fp32_precision")]
    places += [(getattr(cudnn, part, None), "fp32_precision") for part in ("conv", "rnn")]
    found = []
    for place, name in places:
        with suppress(AttributeError, RuntimeError):
            found.append((place, name, getattr(place, name)))
    return found


@contextmanager
def seeded() -> Iterator[None]:
    """Draw the same random numbers every time; those of the process go on as if none was drawn."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield


def place_of(model: torch.nn.Module, device: str = "auto") -> torch.device:
    """The device of a name; auto: that of the model's parameters."""
    if not isinstance(model, torch.nn.Module):
        raise InputError(f"model is {type(model).__name__}, not a torch.nn.Module: wrap it in one")
    if device == "auto":
        tensors = (*model.parameters(), *model.buffers())
        return tensors[0].device if tensors else torch.device("cpu")
    kind = device.partition(":")[0]
    if kind not in ("cpu", "cuda"):
        raise InputError(f"device is {device!r}: write auto, cpu or cuda")
    pick_device(kind)
    return torch.device(device)


def prepare(device: str, threads: int) -> torch.device:
    """Pick the device; fix threads, TF32 and algorithms, so that PyTorch is reproducible."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads)
    use_tf32(False)
    torch.use_deterministic_algorithms(True, warn_only=True)
    return pick_device(device)
