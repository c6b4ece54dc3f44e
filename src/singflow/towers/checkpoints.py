"""Read checkpoints as tensors only, and load the part of a checkpoint that belongs to a model."""

import argparse
import logging
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from singflow.config.registry import ModelEntry
from singflow.errors import InputError, printable

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
AVERAGED = re.compile(r"(^|[._-])(ema|swa|averaged?)([._-]|$)")


def brief(error: Exception) -> str:
    """An error in one line, for a message. The text is cut to 300 characters.

    PyTorch's advice to run the code in a file is left out.
    """
    words = (
        "it is not one of tensors alone"
        if "weights_only" in str(error)
        else " ".join(str(error).split())[:300]
    )
    return printable(f"{type(error).__name__}: {words}")


def some(names: Iterable[Any]) -> str:
    """The first few names, for a message, and how many more there are."""
    listed = [str(name)[:100] for name in names]
    return printable(", ".join(listed[:SHOWN])) + (
        f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    )


def read_checkpoint(path: Path) -> Any:
    """Read a weight file of PyTorch or safetensors. A file with code is refused, and never run."""
    if not path.is_file():
        raise InputError(f"{path}: no such weight file")
    with path.open("rb") as file:
        start = file.read(512)
    if reason := _is_none(start):
        raise InputError(f"{path}: {reason}")
    try:
        if start[8:9] == b"{":
            from safetensors.torch import load_file

            return load_file(path)
        with (
            path.open("rb") as file,
            torch.serialization.safe_globals(HARMLESS),
            warnings.catch_warnings(action="ignore"),
        ):
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 (damaged archives and refused pickles raise anything)
        raise InputError(f"{path}: not readable as tensors: {_in_words(error)}") from None


def _is_none(start: bytes) -> str:
    """Why a file with this start is no checkpoint. Empty if it may be one."""
    if not start:
        return "not readable as tensors: an empty file: copy or download it again"
    if start.startswith(b"version https://git-lfs"):
        return (
            "a pointer of git-LFS, not the weights: run `git lfs pull` in the repository that it "
            "comes from"
        )
    if start.lstrip().startswith(b"<"):
        return "a web page, not weights: open the address in a browser, and save the file itself"
    if (
        start.isascii()
        and start.decode().replace("\n", "").replace("\r", "").replace("\t", "").isprintable()
    ):
        return f"a text, not weights; it begins {printable(start[:60].decode())!r}"
    if start.startswith((b"\x89HDF", b"\x1f\x8b", b"7z", b"Rar!")):
        return (
            "not PyTorch's or safetensors': unpack it, or convert it in the library that wrote "
            f"it ({TENSORS})"
        )
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
    """The tensors of a checkpoint, by the key of the dict that holds them.

    The key "" is for tensors in the content itself. Dicts without tensors are left out.
    """
    if not isinstance(content, Mapping):
        return {}
    inside = {
        "": content,
        **{str(key): value for key, value in content.items() if isinstance(value, Mapping)},
    }
    tensors = {
        key: {str(name): value for name, value in state.items() if isinstance(value, torch.Tensor)}
        for key, state in inside.items()
    }
    return {key: state for key, state in tensors.items() if state}


@dataclass(frozen=True)
class _Part:
    """Tensors that may belong to a model.

    place: key and prefix of the tensors, joined by dots; state: tensors, by names without the
    prefix; beside: names in the same dict that do not have the prefix.
    """

    place: str
    state: State
    beside: list[str]


def _parts(content: Any, own: State) -> list[_Part]:
    """The parts of a checkpoint that have most names of a model.

    A part is a dict of the checkpoint, as it is or below one prefix.
    """
    found: list[tuple[int, _Part]] = []
    for key, state in state_dicts(content).items():
        ends = {
            name: [0, *(dot.end() for dot in re.finditer(r"\.", name))][:DEEPEST] for name in state
        }
        for prefix in dict.fromkeys(
            name[:end] for name in state for end in ends[name] if name[end:] in own
        ):
            inside = {
                name.removeprefix(prefix): tensor
                for name, tensor in state.items()
                if name.startswith(prefix)
            }
            beside = [name for name in state if not name.startswith(prefix)]
            place = ".".join(words for words in (key, prefix.rstrip(".")) if words)
            found.append((len(own.keys() & inside.keys()), _Part(place, inside, beside)))
    most = max((common for common, _ in found), default=0)
    return [part for common, part in found if common == most > 0]


def load_checkpoint(model: nn.Module, path: Path, entry: ModelEntry, heads: list[str]) -> None:
    """Load the part of a checkpoint that fits the model, in place, and log which part it was.

    The part may be a dict in the checkpoint, names with a prefix, or both. InputError is raised if
    no part fits, or several. Averaged weights (ema, swa) give way to a single other part that fits.
    If the entry has head_weights, `heads` are not loaded.
    """
    content, of_heads = read_checkpoint(path), tuple(f"{head}." for head in heads)
    replaced = of_heads if entry.head_weights else ()
    own = {
        name: tensor for name, tensor in model.state_dict().items() if not name.startswith(replaced)
    }
    kept = {
        name: tensor for name, tensor in model.state_dict().items() if name.startswith(replaced)
    }
    parts = _parts(content, own)
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
    misfits = [_misfit(part, own, replaced) for part in parts]
    least = min(map(len, misfits))
    fitting = [part for part, misfit in zip(parts, misfits, strict=True) if len(misfit) == least]
    plain = [part for part in fitting if not AVERAGED.search(part.place)]
    if not least and len(fitting) > 1 and len(plain) != 1:
        places = " and ".join(repr(part.place) for part in fitting)
        raise InputError(
            f"{path}: {entry.id} is in it as {places}: choose one as `checkpoint_key` of its "
            "entry in config/models.yaml"
        )
    part = plain[0] if len(plain) == 1 else fitting[0]
    state = {name: tensor for name, tensor in part.state.items() if not name.startswith(replaced)}
    try:
        model.load_state_dict(kept | state)
    except RuntimeError as error:
        where = f" (under {part.place!r})" if part.place else ""
        why = _explained(_misfit(part, own, replaced), of_heads) or brief(error)
        raise InputError(
            f"{path}{where}: not {entry.id} with {entry.head_classes} classes: {why}"
        ) from None
    others = [candidate.place for candidate in fitting if candidate is not part]
    left = [*part.beside, *(name for name in part.state if name.startswith(replaced)), *others]
    if part.place or left:
        log.info(
            "%s: took %s; left out: %s",
            path,
            repr(part.place) if part.place else "all",
            some(left) if left else "nothing",
        )


Misfit = dict[str, str | tuple[tuple[int, ...], tuple[int, ...]]]


def _misfit(part: _Part, own: State, replaced: tuple[str, ...]) -> Misfit:
    """What keeps a part from fitting a model, by name.

    "missing", "more", or, for another shape, the found and the wanted shape.
    """
    state = {name: tensor for name, tensor in part.state.items() if not name.startswith(replaced)}
    misfit: Misfit = dict.fromkeys(
        (name for name in own if name not in state and not name.endswith("num_batches_tracked")),
        "missing",
    )
    misfit |= dict.fromkeys((name for name in state if name not in own), "more")
    both = {
        name: (tuple(tensor.shape), tuple(own[name].shape))
        for name, tensor in state.items()
        if name in own
    }
    return misfit | {
        name: (found, wanted) for name, (found, wanted) in both.items() if found != wanted
    }


def _explained(misfit: Misfit, heads: tuple[str, ...]) -> str:
    """A misfit in words, with a fix. Empty if there is no misfit."""
    shapes = {name: problem for name, problem in misfit.items() if isinstance(problem, tuple)}
    missing, more = (
        [name for name, problem in misfit.items() if problem == kind]
        for kind in ("missing", "more")
    )
    if misfit and all(name.startswith(heads) for name in misfit):
        if len(shapes) == len(misfit) and all(
            found[1:] == wanted[1:] for found, wanted in shapes.values()
        ):
            rows = next(iter(shapes.values()))[0][0]
            return (
                f"its head has {rows} classes: name a file with them, one a line in their order, "
                "as `class_list` of its entry"
            )
        if len(missing) == len(misfit):
            return f"it has no head ({some(missing)}): give one as `head_weights` of its entry"
    others = [f"{name} is {found}, not {wanted}" for name, (found, wanted) in shapes.items()]
    said = {"it lacks ": missing, "it has besides ": more, "of another shape: ": others}
    return "; ".join(f"{words}{some(names)}" for words, names in said.items() if names) + (
        f": {ANEW}" if misfit else ""
    )
