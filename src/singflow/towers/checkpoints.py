"""Read checkpoints as tensors only, and load the part of a checkpoint that belongs to a model."""

import argparse
import hashlib
import re
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from singflow.config.registry import ModelEntry
from singflow.errors import InputError, brief, printable

State = dict[str, torch.Tensor]

TENSORS = "torch.save(model.state_dict(), ...) or safetensors keep tensors alone"
_NUMPY = [np.dtype, *(type(np.dtype(kind)) for kind in "fdil")]
_SCALAR = np.float64(0).__reduce__()[0]
# Training scripts write these beside tensors: arguments, and numbers of NumPy by old and new names.
HARMLESS: list[Any] = [
    argparse.Namespace,
    *_NUMPY,
    _SCALAR,
    (_SCALAR, "numpy.core.multiarray.scalar"),
]
ANEW = (
    "name as `id` the architecture that was trained, as `checkpoint_key` what stands before the "
    "names of its tensors, as in state_dict.model, and as `head_weights` a head that it lacks"
)
SHOWN = 6  # names in a message
# Archives that unpack to this many bytes are read; larger ones, if they are packed this much.
SMALL, MOST_PACKED = 2**28, 100


def some(names: Iterable[Any]) -> str:
    """The first few names, for a message, and how many more there are."""
    listed = [str(name)[:100] for name in names]
    return printable(", ".join(listed[:SHOWN])) + (
        f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    )


def check_unpacked(path: Path) -> None:
    """Raise ValueError for a zip archive that unpacks to far more bytes than tensors would."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as file:
        size = sum(member.file_size for member in file.infolist())
    if size > max(SMALL, MOST_PACKED * path.stat().st_size):
        raise ValueError(f"it unpacks to {size} bytes, as no tensors do")


def read_checkpoint(path: Path, read: Callable[[str], Any] | None = None) -> Any:
    """The content of a weight file, or what `read`, a reader of tensors alone, takes of it."""
    if not path.is_file():
        raise InputError(f"{path}: no such weight file")
    with path.open("rb") as file:
        start = file.read(512)
    if reason := _not_a_checkpoint(start):
        raise InputError(f"{path}: {reason}")
    try:
        check_unpacked(path)
        with torch.serialization.safe_globals(HARMLESS), warnings.catch_warnings(action="ignore"):
            return (read or _whole)(str(path))
    except Exception as error:  # noqa: BLE001 (damaged archives and refused pickles raise anything)
        raise InputError(f"{path}: not readable as tensors: {_in_words(error)}") from None


def _whole(path: str) -> Any:
    if path.endswith(".safetensors"):
        from safetensors.torch import load_file

        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


OTHER_FILES = {  # beginnings of files that are no checkpoints
    b"version https://git-lfs": (
        "a pointer of git-LFS, not the weights: run `git lfs pull` in the repository that it "
        "comes from"
    ),
    b"<": "a web page, not weights: open the address in a browser, and save the file itself",
}


def _not_a_checkpoint(start: bytes) -> str:
    """Why a file with this start is no checkpoint. Empty if it may be one."""
    if not start:
        return "not readable as tensors: an empty file: copy or download it again"
    for beginning, reason in OTHER_FILES.items():
        if start.lstrip().startswith(beginning):
            return reason
    if start.isascii() and b"".join(start.split()).decode().isprintable():
        return f"a text, not weights; it begins {printable(start[:60].decode())!r}"
    return ""


def _in_words(error: Exception) -> str:
    """Explain why a file cannot be loaded, without PyTorch's advice to load it nevertheless."""
    message = str(error)
    if "TorchScript" in message:
        return (
            "a program of TorchScript: torch.jit.load it where it comes from, and save its "
            f"state_dict() ({TENSORS})"
        )
    if found := re.search(r"GLOBAL (\S+)", message):
        return (
            f"it holds a pickled {printable(found[1])}, which only running code of the file would "
            "bring back, as a whole module saved by torch.save(model) does: save it anew where it "
            f"comes from ({TENSORS})"
        )
    return f"damaged, cut short, or of another kind ({brief(error)}): copy or download it again"


def flat(content: Any, prefix: str = "") -> State:
    """The tensors in nested mappings, by the keys on the way to them, joined by dots."""
    if isinstance(content, torch.Tensor):
        return {prefix.rstrip("."): content}
    if not isinstance(content, Mapping):
        return {}
    parts = (flat(value, f"{prefix}{key}.") for key, value in content.items())
    return {name: tensor for part in parts for name, tensor in part.items()}


def _state(path: Path, key: str | None) -> State:
    """The tensors of a model in a checkpoint: what timm takes, or what is below a dotted key."""
    import timm

    if key is None:
        return read_checkpoint(path, timm.models.load_state_dict)
    tensors = flat(read_checkpoint(path))
    below = {name: name.removeprefix(f"{key}.") for name in tensors if name.startswith(f"{key}.")}
    if not below:
        raise InputError(
            f"{path}: has nothing below checkpoint_key {key!r}; it has {some(tensors)}: correct it"
        )
    return timm.models.clean_state_dict({inner: tensors[name] for name, inner in below.items()})


def load_checkpoint(model: nn.Module, path: Path, entry: ModelEntry, heads: list[str]) -> None:
    """Load a checkpoint into a model, in place, without `heads` if the entry has head_weights."""
    own, state = model.state_dict(), _state(path, entry.checkpoint_key)
    if entry.head_weights:
        of_head = tuple(f"{head}." for head in heads)
        state = {name: tensor for name, tensor in state.items() if not name.startswith(of_head)}
        state |= {name: tensor for name, tensor in own.items() if name.startswith(of_head)}
    for name in (f"{head}.weight" for head in heads):
        shape: tuple[int, ...] = getattr(state.get(name), "shape", ())
        if name in own and shape[1:] == own[name].shape[1:] and shape[0] != len(own[name]):
            raise InputError(
                f"{path}: its head has {shape[0]} classes, and its class list {len(own[name])}: "
                "name a file with them, one a line in their order, as `class_list` of its entry"
            )
    try:
        model.load_state_dict(state)
    except (RuntimeError, AttributeError) as error:
        raise InputError(
            f"{path}: not {entry.id} with {entry.head_classes} classes ({brief(error)}); it has "
            f"{some(state)}: {ANEW}"
        ) from None


def check_finite(model: nn.Module, name: str) -> None:
    """Refuse NaN and infinite parameters, and NaN in buffers. Masks in buffers may be infinite."""
    parameters = dict(model.named_parameters())
    for key, tensor in model.state_dict().items():
        damaged = ~torch.isfinite(tensor) if key in parameters else torch.isnan(tensor)
        if damaged.any():
            raise InputError(
                f"{name}: the weights hold NaN or infinite values, in {key}: they are damaged: "
                "copy or download them again"
            )


def weights_sha256(model: nn.Module) -> str:
    """SHA-256 of the names and values of all parameters and buffers, in order of names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
