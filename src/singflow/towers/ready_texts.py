"""Import text embeddings that others have computed, and read those of a space."""

import io
import json
import pickletools
import re
import zipfile
from collections.abc import Callable, Iterable
from itertools import dropwhile
from pathlib import Path

import numpy as np

from singflow.artifacts.tensors import SCHEMA_VERSION, read_tensors, write_tensors
from singflow.config.registry import SpaceEntry
from singflow.config.sections import LOCAL
from singflow.data.arrays import read_npy_header
from singflow.data.manifest import fill
from singflow.errors import InputError, printable, readable_as
from singflow.system import regular
from singflow.towers.checkpoints import check_unpacked

MOST_LETTERS = 1000  # in a text
SAMPLE = 64  # texts that are embedded again, to check that the file belongs to the space
MEAN = "mean"  # the name of the mean over prompts in the authors' release
BESIDE_TEXTS = (  # other instructions in the pickle of an array of texts
    "EMPTY_LIST|MARK|APPENDS?|PUT|BINPUT|LONG_BINPUT|MEMOIZE|FRAME|TUPLE|BUILD|STOP"
)
Texts = dict[str, np.ndarray]
Encode = Callable[[list[str]], np.ndarray]


def _texts(file: zipfile.ZipFile, name: str) -> list[str]:
    stream = io.BytesIO(file.read(f"{name}.npy"))
    shape, _, kind = read_npy_header(stream)
    if kind.kind != "O":
        stream.seek(0)
        texts = np.load(stream, allow_pickle=False)
        if (kind.kind, len(shape)) != ("U", 1):
            raise ValueError(f"{name} is {kind} {shape}, and not a list of texts")
        return list(texts.tolist())
    found = _listed(stream)
    if shape != (len(found),):
        raise ValueError(f"{name} is of shape {shape}, but lists {len(found)} texts")
    return found


def _listed(stream: io.BytesIO) -> list[str]:
    """The texts of a pickled array, read from the pickle's instructions. No instruction is run."""
    instructions = ((opcode.name, argument) for opcode, argument, _ in pickletools.genops(stream))
    found = []
    for name, argument in dropwhile(lambda step: step[0] != "EMPTY_LIST", instructions):
        if name.endswith("UNICODE"):
            found.append(str(argument))
        elif not re.fullmatch(BESIDE_TEXTS, name):
            raise ValueError("it is no list of texts")
    return found


def _printable(texts: Iterable[str]) -> list[str]:
    """The texts; ValueError at the first that is too long or cannot be shown."""
    found = []
    for text in texts:
        if len(text) > MOST_LETTERS or text != printable(text):
            raise ValueError(
                f"{text[:50]!r} holds control characters, or more than {MOST_LETTERS} characters"
            )
        found.append(text)
    return found


def _at_unit_norm(path: Path, embeddings: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.sqrt(np.einsum("...m,...m->...", embeddings, embeddings))
    if not (np.isfinite(lengths) & (lengths > 0)).all():
        raise InputError(
            f"{path}: holds NaN, infinite values or an embedding of zeros: the file is damaged"
        )
    return embeddings / lengths[..., None]


def read_npz(path: Path) -> Texts:
    """Read an .npz of text embeddings, as in the authors' release and for Text-to-concept.

    `embeddings` are (C, m) for `classes` or for `prompts`, or (C, P, m) for both. Then every prompt
    with a {} is filled with every class. Without a {}, a class gets the embedding of the prompt
    `mean`, or the mean over its prompts. Pickled code is never run.
    """
    fix = "it must be an .npz of embeddings, and of classes or prompts"
    with readable_as("text embeddings", path, fix):
        check_unpacked(regular(path))
        with zipfile.ZipFile(path) as file:
            names = {member.removesuffix(".npy") for member in file.namelist()}
            embeddings = np.load(io.BytesIO(file.read("embeddings.npy")), allow_pickle=False)
            if embeddings.dtype.kind != "f":
                raise ValueError(f"embeddings is {embeddings.dtype}, and not floats")
            embeddings = embeddings.astype(np.float64)
            classes, prompts = (
                _printable(_texts(file, name) if name in names else [])
                for name in ("classes", "prompts")
            )
    texts = classes or prompts
    shape = (len(texts), *([len(prompts)] if embeddings.ndim == 3 else []))
    if embeddings.ndim not in (2, 3) or embeddings.shape[:-1] != shape or not embeddings.size:
        raise InputError(
            f"{path}: embeddings has shape {embeddings.shape}, but there are {len(classes)} "
            f"classes and {len(prompts)} prompts"
        )
    embeddings = _at_unit_norm(path, embeddings)
    if embeddings.ndim == 3 and all("{}" in prompt for prompt in prompts):
        try:
            texts = _printable(fill(prompt, label) for label in classes for prompt in prompts)
        except ValueError as error:
            raise InputError(f"{path}: {error}: shorten classes or prompts") from None
        embeddings = embeddings.reshape(-1, embeddings.shape[-1])
    elif embeddings.ndim == 3:
        mean = embeddings[:, prompts.index(MEAN)] if MEAN in prompts else embeddings.mean(axis=1)
        embeddings = _at_unit_norm(path, mean)
    if len({*texts}) < len(texts):
        raise InputError(f"{path}: repeats a text: remove one of the two")
    return dict(zip(texts, embeddings.astype(np.float32), strict=True))


def check_texts(
    path: Path, texts: Texts, name: str, entry: SpaceEntry, embed: Encode | None
) -> str | None:
    """Refuse texts of another space; a warning if only their width could be checked, else None."""
    width = len(next(iter(texts.values())))
    if width != entry.dim:
        raise InputError(
            f"{path}: its embeddings have {width} dimensions, but {name} has {entry.dim}: name "
            "the space that they are of"
        )
    chosen = list(texts)[:SAMPLE]
    if embed is None or len(chosen) < 2:
        why = "one text is too few to tell"
        if embed is None:
            why = f"the text tower of {name} is not here to embed some of them again"
        return (
            f"{path}: that its embeddings are of {name} is your word: {why}, so their width, "
            f"{width}, is all that was compared"
        )
    nearest = (embed(chosen) @ np.stack([texts[text] for text in chosen]).T).argmax(axis=1)
    same = int((nearest == np.arange(len(chosen))).sum())
    if 2 * same <= len(chosen):
        raise InputError(
            f"{path}: only {same} of {len(chosen)} texts are nearest to themselves when {name} "
            "embeds them: they are of another space"
        )
    return None


def ready_path(space: str, name: str) -> Path:
    return Path(LOCAL) / "texts" / space / f"{name}.safetensors"


def write_ready(path: Path, texts: Texts, identity: str) -> None:
    """Keep texts for a space, whose entry has this `identity`."""
    metadata = {
        "schema_version": SCHEMA_VERSION,
        "space_identity": identity,
        "texts": json.dumps(list(texts)),
    }
    write_tensors(path, {"embeddings": np.stack(list(texts.values()))}, metadata)


def read_ready(space: str, entry: SpaceEntry) -> Texts:
    """All imported texts of a space: unit embeddings, by text."""
    found: Texts = {}
    for path in sorted(ready_path(space, "x").parent.glob("*.safetensors")):
        tensors, made = read_tensors(path, ["embeddings"])
        names, shape = made.parsed("texts", list), tensors["embeddings"].shape
        if made["space_identity"] != entry.identity or shape != (len(names), entry.dim):
            raise InputError(
                f"{path}: is of another space than {space} is now: remove it, or import it again "
                "for its own"
            )
        found |= dict(zip(names, tensors["embeddings"], strict=True))
    return found
