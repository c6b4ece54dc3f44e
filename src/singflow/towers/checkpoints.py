"""Read checkpoints as tensors only, and load the part of a checkpoint that belongs to a model."""

import argparse
import hashlib
import logging
import re
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from singflow.config.registry import ModelEntry
from singflow.errors import InputError, brief, printable

log = logging.getLogger("singflow")

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
    "name as `id` the architecture that was trained, or save the state_dict() of that model alone"
)
DEEPEST = 5  # prefixes that are tried for a name: none, and one to four words, as in a.b.c.d.
SHOWN = 6  # names in a message
# Archives that unpack to this many bytes are read; larger ones, if they are packed this much.
SMALL, MOST_PACKED = 2**28, 100
AVERAGED = re.compile(r"(^|[._-])(ema|swa|averaged?)([._-]|$)")


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


def read_checkpoint(path: Path) -> Any:
    """Read a weight file of PyTorch or safetensors. A file with code is refused, and never run."""
    if not path.is_file():
        raise InputError(f"{path}: no such weight file")
    with path.open("rb") as file:
        start = file.read(512)
    if reason := _not_a_checkpoint(start):
        raise InputError(f"{path}: {reason}")
    try:
        if start[8:9] == b"{":
            from safetensors.torch import load_file

            return load_file(path)
        check_unpacked(path)
        with (
            path.open("rb") as file,
            torch.serialization.safe_globals(HARMLESS),
            warnings.catch_warnings(action="ignore"),
        ):
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 (damaged archives and refused pickles raise anything)
        raise InputError(f"{path}: not readable as tensors: {_in_words(error)}") from None


OTHER_FILES = {  # beginnings of files that are no checkpoints
    (b"version https://git-lfs",): (
        "a pointer of git-LFS, not the weights: run `git lfs pull` in the repository that it "
        "comes from"
    ),
    (b"<",): "a web page, not weights: open the address in a browser, and save the file itself",
    (b"\x89HDF", b"\x1f\x8b", b"7z", b"Rar!"): (
        "not PyTorch's or safetensors': unpack it, or convert it in the library that wrote "
        f"it ({TENSORS})"
    ),
}


def _not_a_checkpoint(start: bytes) -> str:
    """Why a file with this start is no checkpoint. Empty if it may be one."""
    if not start:
        return "not readable as tensors: an empty file: copy or download it again"
    for beginnings, reason in OTHER_FILES.items():
        if start.lstrip().startswith(beginnings):
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


def state_dicts(content: Any) -> dict[str, State]:
    """The tensors of a checkpoint, by the key of their dict; "" for those in the content itself."""
    if not isinstance(content, Mapping):
        return {}
    inside = {str(key): value for key, value in content.items() if isinstance(value, Mapping)}
    tensors = {
        key: {str(name): value for name, value in state.items() if isinstance(value, torch.Tensor)}
        for key, state in {"": content, **inside}.items()
    }
    return {key: state for key, state in tensors.items() if state}


@dataclass(frozen=True)
class _Misfit:
    """What keeps tensors from fitting a model."""

    missing: list[str]
    more: list[str]
    shapes: dict[str, tuple[torch.Size, torch.Size]]  # by name: found, wanted

    @property
    def names(self) -> list[str]:
        return [*self.missing, *self.more, *self.shapes]

    def explained(self, heads: tuple[str, ...]) -> str:
        """The misfit in words, with a fix."""
        shapes, of_head = self.shapes.values(), all(name.startswith(heads) for name in self.names)
        if of_head and self.names == self.missing:
            return f"it has no head ({some(self.names)}): give one as `head_weights` of its entry"
        as_wide = all(a and a[1:] == b[1:] for a, b in shapes)
        if of_head and self.names == [*self.shapes] and as_wide:
            ((rows, *_), _), *_ = shapes
            return (
                f"its head has {rows} classes: name a file with them, one a line in their order, "
                "as `class_list` of its entry"
            )
        others = [f"{name} is {tuple(a)}, not {tuple(b)}" for name, (a, b) in self.shapes.items()]
        said = {"it lacks": self.missing, "it has besides": self.more, "of another shape:": others}
        problems = "; ".join(f"{words} {some(names)}" for words, names in said.items() if names)
        return f"{problems}: {ANEW}"


@dataclass(frozen=True)
class _Part:
    """Tensors that may belong to a model."""

    place: str  # key and prefix of the tensors, joined by dots
    state: State  # tensors, by names without the prefix
    left: list[str]  # names in the same dict that are not among them

    def misfit(self, own: State) -> _Misfit:
        shapes = {
            name: (tensor.shape, own[name].shape)
            for name, tensor in self.state.items()
            if name in own and tensor.shape != own[name].shape
        }
        needed = [name for name in own if not name.endswith("num_batches_tracked")]
        missing = [name for name in needed if name not in self.state]
        return _Misfit(missing, [name for name in self.state if name not in own], shapes)


def _prefixes(name: str, own: State) -> list[str]:
    """Prefixes of a name without which it is one of the model's."""
    ends = [0, *(dot.end() for dot in re.finditer(r"\.", name))]
    return [name[:end] for end in ends[:DEEPEST] if name[end:] in own]


def _parts(content: Any, own: State, replaced: tuple[str, ...]) -> list[_Part]:
    """The parts of a checkpoint, each below one prefix, that have most names of a model."""
    found: list[tuple[int, _Part]] = []
    for key, state in state_dicts(content).items():
        prefixes = dict.fromkeys(prefix for name in state for prefix in _prefixes(name, own))
        for prefix in prefixes:
            below = {name: name.removeprefix(prefix) for name in state if name.startswith(prefix)}
            taken = {
                inner: state[name]
                for name, inner in below.items()
                if not inner.startswith(replaced)
            }
            left = [name for name in state if name not in below]
            left += [inner for inner in below.values() if inner not in taken]
            place = ".".join(words for words in (key, prefix.rstrip(".")) if words)
            found.append((len(own.keys() & taken.keys()), _Part(place, taken, left)))
    most = max((common for common, _ in found), default=0)
    return [part for common, part in found if common == most]


def load_checkpoint(model: nn.Module, path: Path, entry: ModelEntry, heads: list[str]) -> None:
    """Load the part of a checkpoint that fits the model, in place, and log which part it was.

    Averaged weights (ema, swa) give way to a single other part that fits. If the entry has
    head_weights, `heads` are not loaded.
    """
    content, of_heads = read_checkpoint(path), tuple(f"{head}." for head in heads)
    replaced = of_heads if entry.head_weights else ()
    whole = model.state_dict()
    own = {name: tensor for name, tensor in whole.items() if not name.startswith(replaced)}
    parts = _parts(content, own, replaced)
    if entry.checkpoint_key is not None:
        there = ", ".join(repr(part.place) for part in parts)
        parts = [part for part in parts if f"{part.place}.".startswith(f"{entry.checkpoint_key}.")]
        if not parts and there:
            raise InputError(
                f"{path}: {entry.id} is not under checkpoint_key {entry.checkpoint_key!r}, but "
                f"under {there}: correct it"
            )
    if not parts:
        top = some(content) if isinstance(content, Mapping) else f"a {type(content).__name__}"
        raise InputError(
            f"{path}: holds no tensor of {entry.id}, as {some(own)}; it holds {top}: {ANEW}"
        )
    misfits = [part.misfit(own) for part in parts]
    least = min(len(misfit.names) for misfit in misfits)
    fitting = [
        part for part, misfit in zip(parts, misfits, strict=True) if len(misfit.names) == least
    ]
    plain = [part for part in fitting if not AVERAGED.search(part.place)]
    if not least and len(fitting) > 1 and len(plain) != 1:
        places = " and ".join(repr(part.place) for part in fitting)
        raise InputError(
            f"{path}: {entry.id} is in it as {places}: choose one as `checkpoint_key` of its "
            "entry in config/models.yaml"
        )
    part = plain[0] if len(plain) == 1 else fitting[0]
    kept = {name: tensor for name, tensor in whole.items() if name not in own}
    try:
        model.load_state_dict(kept | part.state)
    except RuntimeError as error:
        where = f" (under {part.place!r})" if part.place else ""
        misfit = part.misfit(own)
        why = misfit.explained(of_heads) if misfit.names else brief(error)
        raise InputError(
            f"{path}{where}: not {entry.id} with {entry.head_classes} classes: {why}"
        ) from None
    left = [*part.left, *(other.place for other in fitting if other is not part)]
    if part.place or left:
        took = repr(part.place) if part.place else "all"
        log.info("%s: took %s; left out: %s", path, took, some(left) if left else "nothing")


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
