"""Build the manifest of a study: draw its images, decode them once, and split them into folds."""

from __future__ import annotations

import hashlib
import importlib.metadata
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from singflow.cli import log, progress
from singflow.config.sections import outside, phrases
from singflow.data.images import Unusable, decode, read_image
from singflow.data.parameters import Data
from singflow.data.reading import read_table
from singflow.errors import InputError
from singflow.parallel import map_ahead

if TYPE_CHECKING:
    import pandas as pd

PACKAGED_IMAGES = ("foolbox", "foolbox/data")
VOWEL = re.compile(
    r"(?!eu|ewe|one\b|once\b|u(ni(?!n|m)|[st][aei]|[ks]\b))[aeiou]|8|hour|heir|honest|honou?r",
    re.IGNORECASE,
)
MANIFEST_COLUMNS = (
    *("image_id", "path", "label", "class_index", "prompt", "split"),
    *("fold", "width", "height", "sha256"),
)
ARCHIVED = ("archive", "offset", "bytes")  # columns that images of archives have too
GROUPED = "group"  # a column of images in groups: of the group, else the sha256
INTEGERS = dict.fromkeys(("class_index", "fold", "width", "height"), "int32")
MOST_REASONS = 4  # in a message


@dataclass(frozen=True)
class Classes:
    """The heads' classes in order."""

    names: list[str]
    index: dict[str, int]  # by synset and by name, in lower case and with spaces

    def find(self, text: str) -> int:
        """Index of a synset or class name, in any case, with spaces or underscores. -1: unknown."""
        return self.index.get(_normal(text), -1)

    def label_of(self, text: str) -> tuple[str, int]:
        """The name of the class, or the text in plain words if no class has it; and the index."""
        index = self.find(text)
        return (self.names[index] if index >= 0 else in_plain_words(text)), index


class Candidate(NamedTuple):
    """An image file before it is opened."""

    path: str  # relative to the data root, or the archive's path and the image's name in it
    label: str
    class_index: int
    prompt: str
    split: str = ""  # empty: it is to be drawn
    archive: str = ""  # its path
    offset: int = 0  # the image's first byte in a tar, or its row in a Parquet file
    bytes: int = -1  # its size in an archive, if known
    group: str = ""  # images of one group share a fold; empty: its copies alone do


class Inspected(NamedTuple):
    """Facts of an image that was read and decoded whole: upright size, hash and bytes."""

    width: int
    height: int
    sha256: str
    bytes: int


Rejected = list[tuple[str, str]]


def in_plain_words(label: str) -> str:
    return label.replace("_", " ").strip()


def _normal(text: str) -> str:
    return text.strip().lower().replace("_", " ")


def data_root(source: str, root: str) -> Path:
    """Folder that the manifest's paths are relative to. `root` is not used for packaged images."""
    if source == "packaged":
        name, folder = PACKAGED_IMAGES
        try:
            return Path(str(importlib.metadata.distribution(name).locate_file(folder)))
        except importlib.metadata.PackageNotFoundError:
            raise InputError(
                f"data.source packaged needs the distribution {name}: pip install {name}"
            ) from None
    path = outside(root)
    if not path.is_dir():
        raise InputError(f"data.root {root}: no such folder: correct data.root")
    return path


def read_classes(path: Path) -> Classes:
    """Read a class list, whose class_index must count 0, 1, 2, ... and whose names must differ."""
    rows = read_table(path, dict.fromkeys(("class_index", "synset", "name"), ""))
    if rows["class_index"].to_list() != [str(i) for i in range(len(rows))]:
        raise InputError(f"{path}: class_index must count 0, 1, 2, ... in order, as the heads do")
    if rows.empty:
        raise InputError(f"{path}: holds no classes")
    try:
        names = phrases(rows["name"].to_list(), "row")
    except ValueError as error:
        raise InputError(f"{path}: {error}: every class needs a name of its own") from None
    index = {_normal(name): i for i, name in enumerate(names)}
    for i, synset in enumerate(map(_normal, rows["synset"])):
        if synset and index.setdefault(synset, i) != i:
            raise InputError(
                f"{path}: {synset} stands for two classes, {names[index[synset]]!r} and "
                f"{names[i]!r}"
            )
    return Classes(names, index)


def head_classes(manifest: pd.DataFrame, names: list[str] | None) -> np.ndarray:
    """The head's row for the class of every image, -1 for none; no names: the study's classes."""
    if names is None:
        return manifest["class_index"].to_numpy(np.int32)
    return np.array(head_rows(manifest["label"], names), dtype=np.int32)


def head_rows(labels: Iterable[str], names: list[str]) -> list[int]:
    """The head's row for the class of every label, -1 for none."""
    index = {_normal(name): row for row, name in enumerate(names)}
    return [index.get(_normal(label), -1) for label in labels]


def prompt_of(label: str) -> str:
    """The paper's prompt for a label (section 3.4)."""
    return fill("an image of a {}", label)


def fill(template: str, name: str) -> str:
    """The text of a template; in `a(n) {}`, the article is `an` before the sound of a vowel."""
    article = "an" if VOWEL.match(unicodedata.normalize("NFD", name)) else "a"
    return template.replace("a(n) {}", f"{article} {{}}").replace("{}", name)


def _rank(seed: int, purpose: str, key: str) -> bytes:
    return hashlib.blake2b(f"{seed}|{purpose}|{key}".encode(), digest_size=16).digest()


def inspect(root: Path, image: Candidate, max_pixels: int) -> Inspected | str:
    """Decode an image once. If the image is unusable, the result is the reason."""
    try:
        content = read_image(root, image, max_pixels)
        decoded = decode(content, max_pixels)
    except OSError as error:
        return f"unreadable: {error.strerror}"
    except Unusable as error:
        return str(error)
    return Inspected(*decoded.size, hashlib.sha256(content).hexdigest(), len(content))


def build_manifest(
    root: Path,
    candidates: list[Candidate],
    rejected: Rejected,
    data: Data,
    *,
    folds: int,
    seed: int,
    threads: int,
    referenced: bool = False,
    known: Mapping[str, Inspected] | None = None,
) -> tuple[pd.DataFrame, Rejected]:
    """Build the manifest, and list every file that is left out with its reason.

    Images are drawn per label and split, in an order that seed and path decide. An unusable image
    is replaced by the next one. Folds are drawn by seed and content. If the source has no split,
    fold 0 is held out. Copies of an image, and images of one group, are in the same fold and on the
    same side of the split.

    `referenced` means that translators are fitted on a reference, so that one image is enough.
    known: facts by path, of images whose features were imported; no file is opened then.
    """
    pools: dict[tuple[str, str], list[Candidate]] = {}
    for candidate in sorted(candidates, key=lambda c: _rank(seed, "draw", c.path)):
        pools.setdefault((candidate.label, candidate.split), []).append(candidate)
    accepted: list[tuple[Candidate, Inspected]] = []
    unusable, copies = list(rejected), {}
    while batch := _draw(pools, data.per_class, accepted):
        results: Iterable[Inspected | str]
        if known is None:
            results = map_ahead(lambda c: inspect(root, c, data.max_pixels), batch, threads)
        else:
            results = (known[c.path] for c in batch)
        shown = progress(results, len(batch), unit="images", description="decode")
        for candidate, result in zip(batch, shown, strict=True):
            if isinstance(result, Inspected):
                accepted.append((candidate, result))
            else:
                unusable.append((candidate.path, result))
        held_out = {image.sha256: c.path for c, image in accepted if c.split == "validation"}
        for candidate, image in accepted:
            if candidate.split == "train" and image.sha256 in held_out:
                copies[candidate.path] = f"a copy of {held_out[image.sha256]}, which is held out"
        accepted = [(c, image) for c, image in accepted if c.path not in copies]
    judged = len(accepted) + len(copies) + len(unusable)
    if len(unusable) > data.max_rejected_fraction * judged or not accepted:
        told = [
            f"{len(unusable)} of {judged} files are unusable, more than "
            f"data.max_rejected_fraction ({data.max_rejected_fraction}) allows: fix or remove "
            f"them, correct the folder above them (data.root: {root}), or raise the limit",
            *_reasons(unusable),
        ]
        raise Refusal("\n  ".join(told), sorted(unusable))
    if copies:
        log.warning(
            "%d images of train are left out: they are copies, byte for byte, of images that are "
            "held out",
            len(copies),
        )
    if len({image.sha256 for _, image in accepted}) == 1 and not referenced:
        raise InputError(
            f"1 image{f' in {len(accepted)} copies' * (len(accepted) > 1)}, {accepted[0][0].path}: "
            "at least 2 are needed, because an image is scored by a translator that was fitted on "
            "others: add images, or write translator.reference: packaged, or the results folder of "
            "a study with the same models and spaces"
        )
    reason = f"not drawn: data.per_class is {data.per_class}"
    undrawn = [(c.path, reason) for waiting in pools.values() for c in waiting]
    return _frame(accepted, folds, seed), sorted([*unusable, *copies.items(), *undrawn])


def _draw(
    pools: dict[tuple[str, str], list[Candidate]],
    per_class: int | None,
    accepted: list[tuple[Candidate, Inspected]],
) -> list[Candidate]:
    """Take out of the pools what their labels and splits still lack, in the order of archives."""
    counts = Counter((candidate.label, candidate.split) for candidate, _ in accepted)
    batch = []
    for key, waiting in pools.items():
        take = len(waiting) if per_class is None else per_class - counts[key]
        batch += waiting[:take]
        del waiting[:take]
    return sorted(batch, key=lambda c: (c.archive, c.offset))  # archives are read from the start


class Refusal(InputError):
    """Too many files are unusable: `rejected` lists all, the message the most common reasons."""

    def __init__(self, message: str, rejected: Rejected) -> None:
        super().__init__(message)
        self.rejected = rejected


def _reasons(unusable: Rejected) -> Iterator[str]:
    """A line for each of the most common reasons. Numbers do not tell reasons apart."""
    alike: dict[str, Rejected] = {}
    for path, reason in sorted(unusable):
        alike.setdefault(re.sub(r"\d+", "0", reason), []).append((path, reason))
    common = sorted(alike.values(), key=len, reverse=True)
    for (path, reason), *others in common[:MOST_REASONS]:
        yield f"{path}{f' and {len(others)} others' if others else ''}: {reason}"
    if rest := common[MOST_REASONS:]:
        yield f"{sum(map(len, rest))} more for {len(rest)} other reasons"


def _frame(accepted: list[tuple[Candidate, Inspected]], folds: int, seed: int) -> pd.DataFrame:
    import pandas as pd

    accepted = sorted(accepted, key=lambda pair: pair[0].path)
    frame = pd.DataFrame([candidate for candidate, _ in accepted])
    frame = frame.assign(**pd.DataFrame([image for _, image in accepted]))
    columns = [*MANIFEST_COLUMNS, *(ARCHIVED if frame["archive"].any() else ())]
    columns += [GROUPED] if frame[GROUPED].any() else []
    together = frame[GROUPED].where(frame[GROUPED] != "", frame["sha256"])
    _check_groups(frame.assign(together=together))
    frame = frame.assign(image_id=range(len(frame)), fold=0, **{GROUPED: together})
    frame = frame[columns].astype(INTEGERS)
    given = {image.sha256: candidate.split for candidate, image in accepted if candidate.split}
    frame["split"] = [given.get(sha256, "") for sha256 in frame["sha256"]]
    held_out = frame["split"] == "validation"
    for rows, numbers in ((~held_out, range(folds)), (held_out, range(1, folds))):
        fold_of = _folds(frame[rows].assign(together=together[rows]), numbers, seed)
        frame.loc[rows, "fold"] = together[rows].map(fold_of).astype("int32")
    drawn = frame["split"] == ""
    frame.loc[drawn, "split"] = np.where(frame.loc[drawn, "fold"] == 0, "validation", "train")
    for split in ("train", "validation") if together.nunique() > 1 else ():
        if not (frame["split"] == split).any():
            raise InputError(
                f"no image is in the split {split}: a translator needs both; add images or a "
                f"{split} folder"
            )
    return frame


def _check_groups(frame: pd.DataFrame) -> None:
    """Refuse copies in different groups, and a group on both sides of a given split."""
    sides = frame[frame["split"] != ""].groupby("together")["split"].nunique()
    for group in sides.index[sides > 1]:
        raise InputError(f"group {group!r}: has images in train and in val: put all into one")
    groups = frame.groupby("sha256")["together"].nunique()
    for sha256 in groups.index[groups > 1]:
        paths = frame.loc[frame["sha256"] == sha256, "path"].tolist()
        raise InputError(f"{paths[0]} and {paths[1]} are copies: give both the same group")


def _folds(frame: pd.DataFrame, numbers: range, seed: int) -> dict[str, int]:
    """The fold of each key in `together`, dealt out label by label."""
    label_of = dict(zip(frame["together"][::-1], frame["label"][::-1], strict=True))
    order = sorted(
        label_of, key=lambda key: (_rank(seed, "label", label_of[key]), _rank(seed, "fold", key))
    )
    used = numbers[: len(order)]
    first = int.from_bytes(_rank(seed, "first", ""))
    drawn = set(frame["together"][frame["split"] == ""])
    places = [place for place, key in enumerate(order) if key in drawn]
    if places and all((first + place) % len(used) for place in places):  # none got the first fold
        first = -places[0]
    return {key: used[(first + place) % len(used)] for place, key in enumerate(order)}
