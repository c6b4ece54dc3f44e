"""Build the manifest of a study: its images with their labels, splits and folds.

Images come from a folder, a table, archives, or the packaged images.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.metadata
import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from singflow.cli import log
from singflow.config.sections import outside, phrases
from singflow.data.archives import (
    SIDECARS,
    TAR,
    Damaged,
    Member,
    archive_fingerprint,
    find_archives,
    is_image,
    is_parquet,
    parquet_rows,
    tar_members,
)
from singflow.data.images import Unusable, decode, read_image
from singflow.data.reading import (
    SPLIT_FOLDERS,
    below_splits,
    is_litter,
    iterate_rows,
    of_system,
    subfolders,
)
from singflow.errors import InputError, printable
from singflow.parallel import map_ahead

if TYPE_CHECKING:
    import pandas as pd

PACKAGED_IMAGES = ("foolbox", "foolbox/data")
ABSENT = f"unreadable: {os.strerror(errno.ENOENT)}"
OUTSIDE = "outside the data root: paths are relative to it and without .."
VOWEL = re.compile(
    r"(?!eu|ewe|one\b|once\b|u(ni(?!n|m)|[st][aei]|[ks]\b))[aeiou]|8|hour|heir|honest|honou?r",
    re.IGNORECASE,
)
MOST_REASONS = 4  # in a message
TRIED = 50  # missing files that are looked for elsewhere


@dataclass(frozen=True)
class Classes:
    """The heads' classes in order.

    `index` finds a class by its synset and by its name, in lower case and with spaces.
    """

    names: list[str]
    index: dict[str, int]

    def find(self, text: str) -> int:
        """Index of a synset or class name, in any case, with spaces or underscores. -1: unknown."""
        return self.index.get(_normal(text), -1)


@dataclass(frozen=True, slots=True)
class Candidate:
    """An image file before it is opened.

    path: relative to the data root, or the archive's path and the image's name in it; split: empty
    if it is to be drawn; archive: the archive's path, or empty; offset: the image's first byte in a
    tar, or its row in a Parquet file; bytes: its size in an archive, -1 if unknown.
    """

    path: str
    label: str
    class_index: int
    prompt: str
    split: str = ""
    archive: str = ""
    offset: int = 0
    bytes: int = -1


Rejected = list[tuple[str, str]]


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
        raise InputError(f"data.root {root}: no such folder: correct data.root in params.yaml")
    return path


def read_classes(path: Path) -> Classes:
    """Read a class list, whose class_index must count 0, 1, 2, ... and whose names must differ."""
    rows = [
        row for _, row in iterate_rows(path, dict.fromkeys(("class_index", "synset", "name"), ""))
    ]
    if [row["class_index"] for row in rows] != [str(i) for i in range(len(rows))]:
        raise InputError(f"{path}: class_index must count 0, 1, 2, ... in order, as the heads do")
    if not rows:
        raise InputError(f"{path}: holds no classes")
    try:
        names = phrases([row["name"] for row in rows], "row")
    except ValueError as error:
        raise InputError(f"{path}: {error}: every class needs a name of its own") from None
    index = {_normal(name): i for i, name in enumerate(names)}
    for i, synset in enumerate(_normal(row["synset"]) for row in rows):
        if synset and index.setdefault(synset, i) != i:
            raise InputError(
                f"{path}: {synset} stands for two classes, {names[index[synset]]!r} and "
                f"{names[i]!r}"
            )
    return Classes(names, index)


def head_classes(manifest: pd.DataFrame, names: list[str] | None) -> np.ndarray:
    """The head's row (int32) for the class of every image, -1 if the head has no such class.

    The row is found by the label among `names`. None means that the head has the study's classes.
    """
    if names is None:
        return manifest["class_index"].to_numpy(np.int32)
    index = {_normal(name): row for row, name in enumerate(names)}
    return np.array([index.get(_normal(label), -1) for label in manifest["label"]], dtype=np.int32)


def prompt_of(label: str) -> str:
    """The paper's prompt for a label (section 3.4)."""
    return fill("an image of a {}", label)


def fill(template: str, name: str) -> str:
    """The text of a template for a name.

    `{}` stands for the name. `a(n) {}` stands for the name after `an` if VOWEL says that it begins
    with the sound of a vowel, as `hour` and `8` do, and otherwise after `a`, as for `European`,
    `user` and `one`.
    """
    letters = unicodedata.normalize("NFD", name)
    return template.replace("a(n) {}", f"{'an' if VOWEL.match(letters) else 'a'} {{}}").replace(
        "{}", name
    )


def list_folder(root: Path, classes: Classes) -> tuple[list[Candidate], Rejected]:
    """List the images of a folder with one subfolder per class, perhaps below train and val.

    A subfolder that is named after a class (by synset or name) gets the class's name as label. Any
    other subfolder gets its own name as label, and class_index -1. Hidden files and files of the
    operating system are skipped. Files outside of class folders are rejected.
    """
    top = subfolders(root)
    splits = {SPLIT_FOLDERS.get(subfolder.name.lower()) for subfolder in top} - {None}
    others = [
        printable(subfolder.name)
        for subfolder in top
        if subfolder.name.lower() not in SPLIT_FOLDERS
    ]
    if len(splits) == 2 and others:
        raise InputError(
            f"data.root {root}: holds other folders beside train and val: {', '.join(others)}: "
            "move them out of it"
        )
    depth = int(below_splits(top))
    found: list[Candidate] = []
    skipped: Counter[str] = Counter()
    rejected: Rejected = []
    visited: set[str] = set()

    def unlisted(error: OSError) -> None:
        rejected.append(
            (
                printable(str(Path(error.filename).relative_to(root))),
                f"unreadable: {error.strerror}",
            )
        )

    for folder, folders, files in os.walk(root, followlinks=True, onerror=unlisted):
        real = os.path.realpath(folder)
        parts = Path(folder).relative_to(root).parts
        if real in visited:
            folders.clear()
            rejected.append(
                (printable(str(PurePosixPath(*parts))), "a link to a folder that is listed already")
            )
            continue
        visited.add(real)
        skipped.update(filter(is_litter, (*folders, *files)))
        folders[:] = sorted(child for child in folders if not is_litter(child))
        label, index = _label_of(parts[depth], classes) if len(parts) > depth else ("", -1)
        prompt = prompt_of(label)
        for name in sorted(file for file in files if not is_litter(file)):
            path = str(PurePosixPath(*parts, name))
            if path != printable(path):
                rejected.append(
                    (
                        printable(path),
                        "name is not UTF-8 or holds control characters: rename the file",
                    )
                )
            elif len(parts) <= depth:
                rejected.append((path, "not in a class folder"))
            elif not label:
                rejected.append((path, "no printable label"))
            else:
                found.append(
                    Candidate(
                        path, label, index, prompt, SPLIT_FOLDERS[parts[0].lower()] if depth else ""
                    )
                )
    _tell_skipped(skipped)
    if not found:
        loose = (
            f"; {len(rejected)} of its files lie in none: name the folder above as data.root, or "
            "move them"
            if rejected
            else ""
        )
        raise InputError(
            f"data.root {root}: holds no images in class folders (<root>/<class>/<image>){loose}"
        )
    return found, rejected


def _tell_skipped(skipped: Counter[str]) -> None:
    if skipped:
        named = ", ".join(
            printable(name) for name in sorted(skipped, key=lambda name: (-skipped[name], name))[:5]
        )
        log.info(
            "%d files and folders skipped that are hidden or an operating system's own: %s",
            skipped.total(),
            named,
        )


def _label_of(folder: str, classes: Classes) -> tuple[str, int]:
    index = classes.find(folder)
    return (classes.names[index] if index >= 0 else _in_plain_words(folder)), index


def _in_plain_words(label: str) -> str:
    return label.replace("_", " ").strip()


def list_table(
    table: Path, label_column: str, classes: Classes
) -> tuple[list[Candidate], Rejected]:
    """List the images of a CSV or Parquet table with one image per row.

    Without class_index, the label is looked up among the classes. A row without a label gets the
    name of its class. Rows that cannot be used are rejected with a reason.
    """
    found: list[Candidate] = []
    rejected: Rejected = []
    prompts: dict[str, str] = {}
    listed: set[str] = set()
    skipped: Counter[str] = Counter()
    needed = {"path": "the image's path relative to data.root", label_column: "data.label_column"}
    for number, row in iterate_rows(table, needed, ("class_index", "prompt", "split")):
        where = f"{table}: line {number} ({row['path']})"
        if litter := next(filter(of_system, row["path"].replace("\\", "/").split("/")), None):
            skipped[litter] += 1
            continue
        index = (
            _class_index(row["class_index"], where, classes)
            if row.get("class_index", "").strip()
            else None
        )
        label = row[label_column]
        if index is None:
            index = classes.find(label)
            label = classes.names[index] if index >= 0 else label
        label = _in_plain_words(label) or (classes.names[index] if index >= 0 else "")
        split = row.get("split", "").strip().lower()
        if split not in ("", *SPLIT_FOLDERS):
            raise InputError(
                f"{where}: split {row['split']!r} is neither train nor validation (val): write "
                "one of them, or nothing"
            )
        reason = _refusal(row["path"], label, listed)
        if reason:
            rejected.append((printable(row["path"]), reason))
            continue
        listed.add(str(PurePosixPath(row["path"])))
        prompt = row.get("prompt") or prompt_of(label)
        if prompts.setdefault(label, prompt) != prompt:
            raise InputError(
                f"{where}: label {label!r} has two prompts, {prompts[label]!r} and {prompt!r}: "
                "give it one"
            )
        found.append(Candidate(row["path"], label, index, prompt, SPLIT_FOLDERS.get(split, "")))
    _tell_skipped(skipped)
    if not found and not rejected:
        raise InputError(f"{table}: holds no rows")
    return found, rejected


def _class_index(text: str, where: str, classes: Classes) -> int:
    try:
        index = int(float(text)) if float(text).is_integer() else None
    except ValueError:
        index = None
    if index is None or not -1 <= index < len(classes.names):
        raise InputError(
            f"{where}: class_index {text!r} is outside the {len(classes.names)} classes (0 to "
            f"{len(classes.names) - 1}, or -1)"
        )
    return index


def _refusal(path: str, label: str, listed: set[str]) -> str:
    parts = PurePosixPath(path).parts
    if not path or PurePosixPath(path).is_absolute() or ".." in parts:
        return OUTSIDE
    if path != printable(path):
        return "name is not printable UTF-8: rename the file"
    if not label or not label.isprintable():
        return "no printable label"
    return "listed twice" if str(PurePosixPath(path)) in listed else ""


# A split in the path of an archive.
OF_SPLIT = re.compile(rf"(?:^|[/_.-])({'|'.join(SPLIT_FOLDERS)})(?=[/_.-])", re.IGNORECASE)
NO_CLASS = "not in a class folder"


@dataclass(frozen=True, slots=True)
class _Image:
    """An image in a tar.

    folders: the folders above it, including the names of archives; stated: the label in its
    sidecar, or None.
    """

    archive: str
    path: str
    offset: int
    bytes: int
    folders: tuple[str, ...]
    stated: str | None


def list_archives(
    root: Path, patterns: list[str], label_column: str, classes: Classes
) -> tuple[list[Candidate], Rejected, str]:
    """List the images in tar and Parquet files: candidates, rejected files, and the fingerprint.

    The label is that of the image's row in a Parquet file. In tars it is that of the sidecar (.cls
    or .json) if any image has one, else that of the folder, as in list_folder(). Splits are those
    of the folders, or those in the archives' paths if these name both train and val.
    """
    archives = find_archives(root, patterns)
    rejected: Rejected = []
    skipped: Counter[str] = Counter()
    splits = {
        archive: SPLIT_FOLDERS[named[1].lower()]
        for archive in archives
        if (named := OF_SPLIT.search(archive))
    }
    if len(set(splits.values())) < 2:
        splits = {}
    candidates: list[Candidate] = []
    prompts: dict[str, tuple[str, str]] = {}
    images: list[_Image] = []
    damaged = []
    for archive in archives:
        try:
            if is_parquet(archive):
                found = parquet_rows(root / archive, label_column)
                names = (
                    found.names
                    if found.names and not _count_classes(found.names, classes)
                    else None
                )
                for row, value in enumerate(found.labels):
                    path, (label, index) = f"{archive}/{row:09d}", _of_cell(value, names, classes)
                    if index is None:
                        rejected.append((path, label))
                    else:
                        # one text in memory for many images
                        label, prompt = prompts.setdefault(label, (label, prompt_of(label)))
                        candidates.append(
                            Candidate(
                                path, label, index, prompt, splits.get(archive, ""), archive, row
                            )
                        )
            else:
                images += _images(
                    archive, tar_members(root / archive), label_column, rejected, skipped
                )
        except Damaged as error:
            damaged.append(f"{root / archive}: {error}")
        except OSError as error:
            damaged.append(f"{root / archive}: not readable: {error.strerror}")
    _tell_skipped(skipped)
    if damaged:
        more = f" and {len(damaged) - MOST_REASONS} more" if len(damaged) > MOST_REASONS else ""
        raise InputError("\n".join(damaged[:MOST_REASONS]) + more)
    candidates += _label_images(images, classes, splits, prompts, rejected)
    if not candidates and not rejected:
        raise InputError(
            f"data.archives: {', '.join(archives[:MOST_REASONS])}: no image in them: name "
            "archives of images"
        )
    return candidates, rejected, archive_fingerprint(root, archives)


def _images(
    archive: str,
    members: Iterable[Member],
    label_column: str,
    rejected: Rejected,
    skipped: Counter[str],
) -> Iterator[_Image]:
    """Images of a tar. Other members are counted in `skipped`, or `rejected` with a reason."""
    found: dict[str, Member] = {}
    stated: dict[tuple[str, str], str] = {}
    known: dict[tuple[str, ...], tuple[str, ...]] = {}  # one tuple in memory for many images
    for member in members:
        parts = [part for part in member.name.split("/") if part not in ("", ".")]
        name = "/".join(parts)
        place = printable(f"{archive}/{name}")
        if litter := next(filter(is_litter, filter("..".__ne__, parts)), None):
            skipped[litter] += 1
        elif ".." in parts or not parts:
            rejected.append((place, OUTSIDE))
        elif place != f"{archive}/{name}":
            rejected.append(
                (place, "name is not UTF-8 or holds control characters: rename the file")
            )
        elif member.unusable:
            rejected.append((place, member.unusable))
        else:
            if name in found:
                rejected.append((place, "a later member of the tar has its name, and replaces it"))
            found[name] = Member(name, member.offset, member.size)
            if (text := _stated(member, label_column)) is not None:
                stated[_sample(name), PurePosixPath(name).suffix.lower()] = text
    samples = {_sample(name) for name in found if is_image(name)}
    # A tar without folders holds one class and has its name, as in ImageNet.
    of_one_class = not any("/" in name for name in found)
    own = (_without_ending(PurePosixPath(archive).name),) if of_one_class else ()
    for name, member in found.items():
        sample = _sample(name)
        if not is_image(name) and sample in samples:
            skipped[f"*{PurePosixPath(name).suffix.lower()}"] += 1
            continue
        label = next(
            (stated[sample, suffix] for suffix in SIDECARS if (sample, suffix) in stated), None
        )
        folders = tuple(_without_ending(folder) for folder in PurePosixPath(name).parts[:-1]) or own
        yield _Image(
            archive,
            f"{archive}/{name}",
            member.offset,
            member.size,
            known.setdefault(folders, folders),
            label,
        )


def _without_ending(folder: str) -> str:
    return folder[: -len(TAR[0])] if folder.lower().endswith(TAR) else folder


def _sample(name: str) -> str:
    """What the members of a WebDataset sample have in common: the name up to the first dot."""
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.partition(".")[0]


def _stated(member: Member, label_column: str) -> str | None:
    """The label in a .cls, or under the key `label_column` of a .json. None if there is none."""
    try:
        if member.name.lower().endswith(".cls"):
            return member.head.decode().strip() or None
        value = json.loads(member.head)[label_column] if member.head else None
        return str(value) if isinstance(value, int | str) and not isinstance(value, bool) else None
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return None


def _label_images(
    images: list[_Image],
    classes: Classes,
    splits: dict[str, str],
    prompts: dict[str, tuple[str, str]],
    rejected: Rejected,
) -> Iterator[Candidate]:
    """Candidates from images, which are removed from the list to save memory.

    Images without a label go to `rejected`. `prompts` collects the prompts by label.
    """
    stated = any(image.stated is not None for image in images)
    above, depth = _above({image.folders for image in images} - {()})
    images.reverse()
    while images:
        image = images.pop()
        folders = image.folders[above:]
        split = splits.get(image.archive, "")
        if stated:
            label, index = (
                _of_number(image.stated, classes)
                if image.stated is not None
                else ("no label: no .cls or .json beside it", None)
            )
        else:
            label, index = (
                _label_of(folders[depth], classes) if len(folders) > depth else (NO_CLASS, None)
            )
            split = SPLIT_FOLDERS[folders[0].lower()] if depth and folders else split
        if index is None:
            rejected.append((image.path, label))
        elif not label:
            rejected.append((image.path, "no printable label"))
        else:
            label, prompt = prompts.setdefault(label, (label, prompt_of(label)))
            yield Candidate(
                image.path, label, index, prompt, split, image.archive, image.offset, image.bytes
            )


def _above(folders: set[tuple[str, ...]]) -> tuple[int, int]:
    """How many folders are above all class folders, and whether (0, 1) train and val come next."""
    shared = sum(
        1 for _ in takewhile(lambda level: len(set(level)) == 1, zip(*folders, strict=False))
    )
    above = shared - 1 if len(folders) == 1 else shared
    tops = {parts[above].lower() for parts in folders if len(parts) > above}
    return above, int(bool(tops) and tops <= SPLIT_FOLDERS.keys() and len(folders) > 1)


def _of_number(text: str, classes: Classes) -> tuple[str, int | None]:
    """Label and class index of a text that is the number of a class, or a name.

    For an unusable text: the reason and None.
    """
    text = text.strip()
    if re.fullmatch(r"[+-]?[0-9]+", text):
        number = int(text) if len(text) < 10 else -1
        if not 0 <= number < len(classes.names):
            return (
                f"no label: {printable(text[:20])} is none of the {len(classes.names)} classes of "
                "data.classes",
                None,
            )
        return classes.names[number], number
    return _of_text(text, classes)


def _of_text(text: str, classes: Classes) -> tuple[str, int | None]:
    """Label and class index of a name. For a name that cannot be printed: the reason and None."""
    label, index = _label_of(text, classes)
    return (label, index) if label and label.isprintable() else ("no printable label", None)


def _of_cell(value: Any, names: list[str] | None, classes: Classes) -> tuple[str, int | None]:
    """Label and class index of a cell. A number counts the names, or without names the classes.

    For an unusable value: the reason and None.
    """
    if isinstance(value, str):
        return _of_text(value, classes)
    if not isinstance(value, int) or isinstance(value, bool):
        return "no label: neither a number nor a text", None
    if names is None:
        return _of_number(str(value), classes)
    return (
        _of_text(names[value], classes)
        if 0 <= value < len(names)
        else (f"no label: {value} is none of its column's {len(names)}", None)
    )


def _count_classes(names: list[str], classes: Classes) -> bool:
    """Whether names are those of the heads' classes in their order.

    Fewer than half may be spelled differently. `tench, Tinca tinca` counts as `tench`.
    """
    same = sum(
        number in (classes.find(name), classes.find(name.partition(",")[0]))
        for number, name in enumerate(names)
    )
    return len(names) == len(classes.names) and 2 * same > len(names)


def _rank(seed: int, purpose: str, key: str) -> bytes:
    return hashlib.blake2b(f"{seed}|{purpose}|{key}".encode(), digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class Inspected:
    """Facts of an image that was read and decoded whole: upright size, hash and bytes."""

    width: int
    height: int
    sha256: str
    bytes: int


def inspect(root: Path, image: Candidate, max_pixels: int) -> Inspected | str:
    """Decode an image once. If the image is unusable, the result is the reason."""
    try:
        content = read_image(root, image, max_pixels)
        decoded = decode(content, max_pixels)
    except OSError as error:
        return f"unreadable: {error.strerror}"
    except Unusable as error:
        return str(error)
    return Inspected(
        decoded.width, decoded.height, hashlib.sha256(content).hexdigest(), len(content)
    )


def build_manifest(
    root: Path,
    candidates: list[Candidate],
    rejected: Rejected,
    *,
    per_class: int | None,
    folds: int,
    max_pixels: int,
    max_rejected_fraction: float,
    seed: int,
    threads: int,
    progress: Callable[[Iterable[Inspected | str], int], Iterable[Inspected | str]],
    referenced: bool = False,
) -> tuple[pd.DataFrame, Rejected]:
    """Build the manifest, and list every file that is left out with its reason.

    Images are drawn per label and split (`per_class` None: all), in an order that seed and path
    decide. An unusable image is replaced by the next one.

    Folds are drawn by seed and content. Folds differ as little as possible in their size and in
    their share of every label. If the source has no split, fold 0 is held out.

    Copies of an image are in the same fold and on the same side of the split. If the source has
    copies on both sides, those in train are left out. A copy without a split gets the split of the
    other copies.

    `referenced` means that translators are fitted on a reference, so that one image is enough.
    """
    pools: dict[tuple[str, str], list[Candidate]] = {}
    for candidate in sorted(candidates, key=lambda c: _rank(seed, "draw", c.path)):
        pools.setdefault((candidate.label, candidate.split), []).append(candidate)
    accepted: list[tuple[Candidate, Inspected]] = []
    counts: Counter[tuple[str, str]] = Counter()
    unusable, copies = list(rejected), {}
    while True:
        batch = []
        for key, waiting in pools.items():
            take = len(waiting) if per_class is None else min(per_class - counts[key], len(waiting))
            batch += waiting[:take]
            del waiting[:take]
        if not batch:
            break
        batch.sort(key=lambda c: (c.archive, c.offset))  # archives are read from start to end
        results = map_ahead(lambda c: inspect(root, c, max_pixels), batch, threads)
        for candidate, result in zip(batch, progress(results, len(batch)), strict=True):
            if isinstance(result, Inspected):
                accepted.append((candidate, result))
                counts[candidate.label, candidate.split] += 1
            else:
                unusable.append((candidate.path, result))
        held_out = {
            image.sha256: candidate.path
            for candidate, image in accepted
            if candidate.split == "validation"
        }
        for candidate, image in accepted:
            if candidate.split == "train" and image.sha256 in held_out:
                copies[candidate.path] = f"a copy of {held_out[image.sha256]}, which is held out"
                counts[candidate.label, candidate.split] -= 1
        accepted = [
            (candidate, image) for candidate, image in accepted if candidate.path not in copies
        ]
    judged = len(accepted) + len(copies) + len(unusable)
    if len(unusable) > max_rejected_fraction * judged or not accepted:
        told = [
            f"{len(unusable)} of {judged} files are unusable, more than "
            f"data.max_rejected_fraction ({max_rejected_fraction}) allows: fix or remove them, or "
            "raise the limit",
            *_reasons(unusable),
            *_elsewhere(root, [path for path, reason in unusable if reason in (ABSENT, OUTSIDE)]),
        ]
        raise Refusal("\n  ".join(told), sorted(unusable))
    if copies:
        log.warning(
            "%d images of train are left out: they are copies, byte for byte, of images that are "
            "held out",
            len(copies),
        )
    undrawn = [
        (c.path, f"not drawn: data.per_class is {per_class}")
        for waiting in pools.values()
        for c in waiting
    ]
    if len({image.sha256 for _, image in accepted}) == 1 and not referenced:
        raise InputError(
            f"1 image{f' in {len(accepted)} copies' * (len(accepted) > 1)}, {accepted[0][0].path}: "
            "at least 2 are needed, because an image is scored by a translator that was fitted on "
            "others: add images, or write translator.reference: packaged, or the results folder of "
            "a study with the same models and spaces"
        )
    return _frame(accepted, folds, seed), sorted([*unusable, *copies.items(), *undrawn])


class Refusal(InputError):
    """Too many files are unusable.

    `rejected` lists all of them with their reasons. The message tells the most common reasons.
    """

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


def _elsewhere(root: Path, absent: list[str]) -> Iterator[str]:
    """Lines that say where missing files were found, and how to fix data.root or the paths.

    Files are looked for below other folders, and without the first folders of their paths.
    """
    if not absent:
        return
    tried = sorted(absent)[:: -(-len(absent) // TRIED)]
    first, slashed = tried[0], "\\" in tried[0] and not _is_file(root / tried[0])

    def place(folder: Path, dropped: int, path: str) -> Path:
        return folder.joinpath(
            *PurePosixPath(path.replace("\\", "/") if slashed else path).parts[dropped:]
        )

    dropping = [
        (root, dropped) for dropped in range(int(not slashed), len(place(Path(), 0, first).parts))
    ]
    moving = [(folder, 0) for folder in (*root.absolute().parents, *subfolders(root))]
    choices = dropping if PurePosixPath(first).is_absolute() else [*moving, *dropping]
    found = {
        choice: [path for path in tried if _is_file(place(*choice, path))] for choice in choices
    }
    folder, dropped = max(found, key=lambda choice: len(found[choice]), default=(root, 0))
    yield f"looked for {root / first}"
    if not (there := found.get((folder, dropped))):
        return
    fixes = [f"write data.root: {folder}"] if folder != root else []
    fixes += ["write / for \\ in the paths"] if slashed else []
    fixes += (
        [f"take {Path(*place(Path(), 0, there[0]).parts[:dropped])}/ off the paths"]
        if dropped
        else []
    )
    yield (
        f"{len(there)} of {len(tried)} tried are elsewhere, as {place(folder, dropped, there[0])}: "
        f"{' and '.join(fixes)}"
    )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # for instance a name that is too long
        return False


def _frame(accepted: list[tuple[Candidate, Inspected]], folds: int, seed: int) -> pd.DataFrame:
    import pandas as pd

    accepted = sorted(accepted, key=lambda pair: pair[0].path)
    frame = pd.DataFrame(
        {
            "image_id": pd.Series(range(len(accepted)), dtype="int64"),
            "path": [candidate.path for candidate, _ in accepted],
            "label": [candidate.label for candidate, _ in accepted],
            "class_index": pd.Series(
                [candidate.class_index for candidate, _ in accepted], dtype="int32"
            ),
            "prompt": [candidate.prompt for candidate, _ in accepted],
            "split": [candidate.split for candidate, _ in accepted],
            "fold": pd.Series(0, range(len(accepted)), dtype="int32"),
            "width": pd.Series([image.width for _, image in accepted], dtype="int32"),
            "height": pd.Series([image.height for _, image in accepted], dtype="int32"),
            "sha256": [image.sha256 for _, image in accepted],
        }
    )
    if any(candidate.archive for candidate, _ in accepted):
        frame["archive"] = [candidate.archive for candidate, _ in accepted]
        frame["offset"] = pd.Series([candidate.offset for candidate, _ in accepted], dtype="int64")
        frame["bytes"] = pd.Series([image.bytes for _, image in accepted], dtype="int64")
    given = {image.sha256: candidate.split for candidate, image in accepted if candidate.split}
    frame["split"] = [given.get(sha256, "") for sha256 in frame["sha256"]]
    held_out = frame["split"] == "validation"
    for rows, numbers in ((~held_out, range(folds)), (held_out, range(1, folds))):
        fold_of = _folds(frame[rows], numbers, seed)
        frame.loc[rows, "fold"] = frame.loc[rows, "sha256"].map(fold_of).astype("int32")
    drawn = frame["split"] == ""
    frame.loc[drawn, "split"] = np.where(frame.loc[drawn, "fold"] == 0, "validation", "train")
    for split in ("train", "validation") if frame["sha256"].nunique() > 1 else ():
        if not (frame["split"] == split).any():
            raise InputError(
                f"no image is in the split {split}: a translator needs both; add images or a "
                f"{split} folder"
            )
    return frame


def _folds(frame: pd.DataFrame, numbers: range, seed: int) -> dict[str, int]:
    """The fold of every content (SHA-256). Contents are dealt out to folds in turn, label by label.

    The seed decides the orders and the first fold. If no content without a given split got the
    first of the folds, dealing starts at another fold so that one does.
    """
    label_of = dict(zip(frame["sha256"][::-1], frame["label"][::-1], strict=True))
    order = sorted(
        label_of,
        key=lambda sha256: (_rank(seed, "label", label_of[sha256]), _rank(seed, "fold", sha256)),
    )
    used = numbers[: len(order)]
    first = int.from_bytes(_rank(seed, "first", ""))
    drawn = set(frame["sha256"][frame["split"] == ""])
    places = [place for place, sha256 in enumerate(order) if sha256 in drawn]
    if places and all((first + place) % len(used) for place in places):
        first = -places[0]
    return {sha256: used[(first + place) % len(used)] for place, sha256 in enumerate(order)}
