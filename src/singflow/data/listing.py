"""List the images of a folder, a table or archives, with their labels and splits."""

from __future__ import annotations

import json
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from singflow.cli import log
from singflow.data.archives import (
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
from singflow.data.imagenet import WAYS, find_truth
from singflow.data.manifest import (
    MOST_REASONS,
    OUTSIDE,
    Candidate,
    Classes,
    Rejected,
    in_plain_words,
    prompt_of,
)
from singflow.data.reading import (
    DEVKIT,
    SOLUTION,
    SPLIT_FOLDERS,
    UNPRINTABLE,
    Row,
    below_splits,
    images_below,
    is_litter,
    iterate_rows,
    of_system,
    top_folders,
)
from singflow.errors import InputError, printable

# A split in the path of an archive.
OF_SPLIT = re.compile(rf"(?:^|[/_.-])({'|'.join(SPLIT_FOLDERS)})(?=[/_.-])", re.IGNORECASE)
MOST_LABEL = 1000  # characters
# A label and the index of its class; or the reason why there is no label, and None.
Label = tuple[str, int | None]
NO_CLASS: Label = ("not in a class folder", None)
NO_SIDECAR: Label = ("no label: no .cls or .json beside it", None)
TOO_LONG: Label = (f"a label of more than {MOST_LABEL} characters: give it a short one", None)


class _Image(NamedTuple):
    """A file that may be an image, before its label is known."""

    path: str
    group: str  # the folder or archive whose images get their labels in one way
    folders: tuple[str, ...]  # above it, perhaps with that of a split, and the names of archives
    split: str = ""  # that of the archive
    stated: str | None = None  # the label in its sidecar
    archive: str = ""
    offset: int = 0
    bytes: int = -1

    @property
    def place(self) -> dict[str, Any]:
        """Where it lies in an archive."""
        return {"archive": self.archive, "offset": self.offset, "bytes": self.bytes}


@dataclass
class _Listing:
    """Candidates, rejected files with their reasons, and how many files are skipped, by name."""

    classes: Classes
    label_column: str
    root: Path = Path()
    table: Path | None = None  # for images that lie in no class folder
    found: list[Candidate] = field(default_factory=list)
    rejected: Rejected = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)

    def reject(self, path: str, reason: str) -> None:
        self.rejected.append((printable(path), reason))

    def add(self, path: str, label: Label, split: str = "", prompt: str = "", **place: Any) -> bool:
        """Add a candidate, or reject it if it has no name or label that can be used."""
        text, index = label if len(label[0]) <= MOST_LABEL else TOO_LONG
        if path != printable(path):
            self.reject(path, UNPRINTABLE)
        elif index is None:
            self.reject(path, text)
        elif not text or text != printable(text):
            self.reject(path, "no printable label")
        else:
            # one text in memory for many images
            text, prompt = sys.intern(text), sys.intern(prompt or prompt_of(text))
            self.found.append(Candidate(path, text, index, prompt, split, **place))
            return True
        return False

    def add_images(self, images: list[_Image], above: int, depth: int) -> None:
        """Add images with their labels; they are removed from the list to save memory.

        Labels are those of the sidecars if any image has one, else the names of class folders,
        which lie below `above` others and below `depth` (0, 1) that name the split. Images of a
        group in which none lies in a class folder (of an archive: in any folder) are labelled by
        _add_flat().
        """
        stated = any(image.stated is not None for image in images)
        sorted_ = {
            image.group
            for image in images
            if stated or len(image.folders) > (0 if image.archive else above + depth)
        }
        flat: list[_Image] = []
        images.reverse()
        while images:
            image = images.pop()
            folders, split, label = image.folders[above:], image.split, NO_CLASS
            if depth and folders and not stated:
                split = SPLIT_FOLDERS[folders[0].lower()]
            if stated:
                label = (
                    NO_SIDECAR if image.stated is None else of_number(image.stated, self.classes)
                )
            elif len(folders) > depth:
                label = self.classes.label_of(folders[depth])
            elif image.group not in sorted_ and is_image(image.path):
                flat.append(image._replace(split=split))
                continue
            self.add(image.path, label, split, **image.place)
        if flat:
            self._add_flat(flat)

    def _add_flat(self, images: list[_Image]) -> None:
        """Add images without class folders, with the labels of ImageNet's files or of the table.

        An image has the label of the row with its name, without folders and ending. Raises
        InputError unless the labels are those of the images.
        """
        places = [self.root / group for group in dict.fromkeys(image.group for image in images)]
        named = {PurePosixPath(image.path).stem for image in images}
        many = f"{len(images)} image{'s' * (len(images) > 1)}"
        where = f"{', '.join(map(str, places[:MOST_REASONS]))}: {many}"
        truth, table = find_truth(places[0]), self.table
        origin, known = (None, {}) if truth is None else truth
        labelled = {
            name: Candidate("", *self.classes.label_of(synset), "")
            for name, synset in known.items()
        }
        if not named & labelled.keys() and table and named & _names_in(table):
            rows, rejected = list_table(table, self.label_column, self.classes)
            if rejected:
                path, reason = rejected[0]
                raise InputError(f"{table}: {path}: {reason}")
            labelled, origin = {PurePosixPath(row.path).stem: row for row in rows}, table
        if not named & labelled.keys():
            others = f" ({origin} has labels of other names)" if labelled else ""
            above = ", or name the folder above as data.root" if len(places) == 1 else ""
            raise InputError(
                f"{where} without labels{others}: {WAYS.format(self.label_column)}"
                f"{above if places[0].is_dir() else ''}"
            )
        if named != labelled.keys() or len(named) != len(images):
            first = min((named ^ labelled.keys()) or named)
            raise InputError(
                f"{where}, but {origin} has labels of {len(labelled)}; the first difference is "
                f"{printable(first)}: fetch what is missing, or remove what is too much"
            )
        for image in images:
            row = labelled[PurePosixPath(image.path).stem]
            label, split = (row.label, row.class_index), row.split or image.split
            self.add(image.path, label, split, row.prompt, **image.place)
        log.info("%s in no class folder: with the labels of %s", many, origin)

    def tell_skipped(self) -> None:
        if self.skipped:
            by_number = sorted(self.skipped, key=lambda name: (-self.skipped[name], name))
            log.info(
                "%d files and folders skipped that are hidden or an operating system's own: %s",
                self.skipped.total(),
                ", ".join(map(printable, by_number[:5])),
            )


def _names_in(table: Path) -> set[str]:
    """Names of the images in a table, without folders and ending."""
    with suppress(InputError):
        rows = iterate_rows(table, {"path": ""})
        return {PurePosixPath(row["path"]).stem for _, row in rows}
    return set()


def list_folder(
    root: Path, classes: Classes, table: Path | None = None, label_column: str = "label"
) -> tuple[list[Candidate], Rejected]:
    """List the images of a folder with one subfolder per class, perhaps below train and val.

    A subfolder that is not named after a class (by synset or name) gets class_index -1. Where no
    subfolder is, labels are those of ImageNet's files or of the table. If all images are in one of
    train and val, the split is drawn.
    """
    base = images_below(root)
    top, unlabelled = top_folders(base)
    names = [folder.name.lower() for folder in top]
    others = [folder.name for folder in top if folder.name.lower() not in SPLIT_FOLDERS]
    splits = {SPLIT_FOLDERS[name] for name in names if name in SPLIT_FOLDERS}
    if len(splits) == 2 and others:
        raise InputError(
            f"data.root {root}: holds other folders beside train and val: "
            f"{', '.join(map(printable, others))}: move them out of it"
        )
    above, depth = len(base.relative_to(root).parts), int(below_splits(top))
    listing = _Listing(classes, label_column, root, table)
    visited: set[str] = set()
    images: list[_Image] = []

    def unlisted(error: OSError) -> None:
        place = Path(error.filename).relative_to(root)
        listing.reject(str(place), f"unreadable: {error.strerror}")

    for folder, folders, files in os.walk(base, followlinks=True, onerror=unlisted):
        real = os.path.realpath(folder)
        parts = Path(folder).relative_to(root).parts
        if real in visited:
            folders.clear()
            listing.reject("/".join(parts), "a link to a folder that is listed already")
            continue
        visited.add(real)
        listing.skipped.update(filter(is_litter, (*folders, *files)))
        folders[:] = sorted(
            name for name in folders if not is_litter(name) and Path(folder, name) not in unlabelled
        )
        group = "/".join(parts[: above + depth])
        for name in sorted(name for name in files if not is_litter(name)):
            path = "/".join((*parts, name))
            if name == SOLUTION or name.startswith(DEVKIT):
                continue
            if len(parts) < above + depth:  # beside train and val
                listing.add(path, NO_CLASS)
            else:
                images.append(_Image(path, group, parts[above:]))
    listing.tell_skipped()
    if unlabelled:
        log.info(
            "left out, since no image there has a label: %s",
            ", ".join(printable(str(place.relative_to(root))) for place in unlabelled),
        )
    listing.add_images(images, 0, depth)
    if not listing.found:
        loose = (
            f"; {len(listing.rejected)} of its files lie in none: name the folder above as "
            "data.root, or move them"
        )
        raise InputError(
            f"data.root {root}: holds no images in class folders (<root>/<class>/<image>)"
            f"{loose if listing.rejected else ''}"
        )
    if len({image.split for image in listing.found}) == 1:
        return [image._replace(split="") for image in listing.found], listing.rejected
    return listing.found, listing.rejected


def list_table(
    table: Path, label_column: str, classes: Classes
) -> tuple[list[Candidate], Rejected]:
    """List the images of a CSV or Parquet table with one image per row."""
    listing = _Listing(classes, label_column)
    prompts: dict[str, str] = {}
    listed: set[str] = set()
    needed = {"path": "the image's path relative to data.root", label_column: "data.label_column"}
    for number, row in iterate_rows(table, needed, ("class_index", "prompt", "split")):
        path, place = row["path"], PurePosixPath(row["path"])
        where = f"{table}: line {number} ({path})"
        if litter := next(filter(of_system, path.replace("\\", "/").split("/")), None):
            listing.skipped[litter] += 1
            continue
        label, index = classes.label_of(row[label_column])
        if given := row.get("class_index", "").strip():
            index = stated_class(given, where, len(classes.names))
            label = row[label_column]
        label = in_plain_words(label) or (classes.names[index] if index >= 0 else "")
        split = stated_split(row, where)
        prompt = row.get("prompt") or prompt_of(label)
        if not path or place.is_absolute() or ".." in place.parts:
            listing.reject(path, OUTSIDE)
        elif str(place) in listed:
            listing.reject(path, "listed twice")
        elif listing.add(path, (label, index), split, prompt):
            listed.add(str(place))
            if prompts.setdefault(label, prompt) != prompt:
                raise InputError(
                    f"{where}: label {label!r} has two prompts, {prompts[label]!r} and {prompt!r}: "
                    "give it one"
                )
    listing.tell_skipped()
    if not listing.found and not listing.rejected:
        raise InputError(f"{table}: holds no rows")
    return listing.found, listing.rejected


def stated_class(text: str, where: str, count: int) -> int:
    """The class_index in a cell: the number of one of `count` classes, or -1 for none."""
    try:
        index = int(float(text)) if float(text).is_integer() else None
    except ValueError:
        index = None
    if index is None or not -1 <= index < count:
        raise InputError(
            f"{where}: class_index {text!r} is outside the {count} classes (0 to {count - 1}, or "
            "-1)"
        )
    return index


def stated_split(row: Row, where: str) -> str:
    """The split of a row: train, validation, or nothing if it is to be drawn."""
    split = row.get("split", "").strip().lower()
    if split not in ("", *SPLIT_FOLDERS):
        raise InputError(
            f"{where}: split {row['split']!r} is neither train nor validation (val): write one of "
            "them, or nothing"
        )
    return SPLIT_FOLDERS.get(split, "")


def list_archives(
    root: Path, patterns: list[str], label_column: str, classes: Classes, table: Path | None = None
) -> tuple[list[Candidate], Rejected, str]:
    """List the images in tar and Parquet files: candidates, rejected files, and the fingerprint.

    The label is that of the image's row in a Parquet file. In tars it is that of the sidecar (.cls
    or .json) if any image has one, else that of the folder, as in list_folder(). A tar without
    folders has the name of a class, or labels as a folder without class folders. Splits are those
    of the folders, or those in the archives' paths if these name both train and val.
    """
    archives = find_archives(root, patterns)
    listing = _Listing(classes, label_column, root, table)
    splits = {
        archive: SPLIT_FOLDERS[named[1].lower()]
        for archive in archives
        if (named := OF_SPLIT.search(archive))
    }
    if len(set(splits.values())) < 2:
        splits = {}
    images: list[_Image] = []
    damaged = []
    for archive in archives:
        path, split = root / archive, splits.get(archive, "")
        try:
            if is_parquet(archive):
                labels, names = parquet_rows(path, label_column)
                if names and _count_classes(names, classes):
                    names = None
                for row, value in enumerate(labels):
                    label = _of_cell(value, names, classes)
                    listing.add(f"{archive}/{row:09d}", label, split, archive=archive, offset=row)
            else:
                images += _images_of_tar(archive, split, listing)
        except Damaged as error:
            damaged.append(f"{path}: {error}")
        except OSError as error:
            damaged.append(f"{path}: not readable: {error.strerror}")
    listing.tell_skipped()
    if damaged:
        more = f" and {len(damaged) - MOST_REASONS} more" * (len(damaged) > MOST_REASONS)
        raise InputError("\n".join(damaged[:MOST_REASONS]) + more)
    above, depth = _above({image.folders for image in images} - {()})
    listing.add_images(images, above, depth)
    if not listing.found and not listing.rejected:
        raise InputError(
            f"data.archives: {', '.join(archives[:MOST_REASONS])}: no image in them: name "
            "archives of images"
        )
    return listing.found, listing.rejected, archive_fingerprint(root, archives)


def _images_of_tar(archive: str, split: str, listing: _Listing) -> Iterator[_Image]:
    """Images of a tar. Other members are skipped, or rejected with a reason."""
    found: dict[str, tuple[int, int]] = {}
    stated: dict[tuple[str, str], str] = {}
    for member in tar_members(listing.root / archive):
        parts = [part for part in member.name.split("/") if part not in ("", ".")]
        name = "/".join(parts)
        path = f"{archive}/{name}"
        if ".." in parts or not parts:
            listing.reject(path, OUTSIDE)
        elif litter := next(filter(is_litter, parts), None):
            listing.skipped[litter] += 1
        elif member.unusable:
            listing.reject(path, member.unusable)
        else:
            if name in found:
                listing.reject(path, "a later member of the tar has its name, and replaces it")
            found[name] = member.offset, member.size
            if (text := _stated(member, listing.label_column)) is not None:
                stated[_sample(name), PurePosixPath(name).suffix.lower()] = text
    samples = {_sample(name) for name in found if is_image(name)}
    # A tar without folders holds one class if it has the name of one, as in ImageNet.
    name = _without_ending(PurePosixPath(archive).name)
    flat = not any("/" in name for name in found) and listing.classes.find(name) >= 0
    own = (name,) if flat else ()
    known: dict[tuple[str, ...], tuple[str, ...]] = {}  # one tuple in memory for many images
    for name, (offset, size) in found.items():
        sample = _sample(name)
        if not is_image(name) and sample in samples:
            listing.skipped[f"*{PurePosixPath(name).suffix.lower()}"] += 1
            continue
        folders = tuple(map(_without_ending, name.split("/")[:-1])) or own
        folders = known.setdefault(folders, folders)
        label = stated.get((sample, ".cls"), stated.get((sample, ".json")))
        yield _Image(f"{archive}/{name}", archive, folders, split, label, archive, offset, size)


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


def _above(folders: set[tuple[str, ...]]) -> tuple[int, int]:
    """How many folders are above all class folders, and whether (0, 1) train and val come next."""
    levels = zip(*folders, strict=False)
    shared = sum(1 for _ in takewhile(lambda level: len(set(level)) == 1, levels))
    above = shared - 1 if len(folders) == 1 else shared
    tops = {parts[above].lower() for parts in folders if len(parts) > above}
    return above, int(bool(tops) and tops <= SPLIT_FOLDERS.keys() and len(folders) > 1)


def of_number(text: str, classes: Classes) -> Label:
    """The label of a text that is the number of a class, or a name."""
    text = text.strip()
    if not re.fullmatch(r"[+-]?[0-9]+", text):
        return classes.label_of(text)
    number, count = int(text) if len(text) < 10 else -1, len(classes.names)
    if 0 <= number < count:
        return classes.names[number], number
    return f"no label: {printable(text[:20])} is none of the {count} classes of data.classes", None


def _of_cell(value: Any, names: list[str] | None, classes: Classes) -> Label:
    """The label of a cell. A number counts the names, or without names the classes."""
    if isinstance(value, str):
        return classes.label_of(value) if len(value) <= MOST_LABEL else TOO_LONG
    if not isinstance(value, int) or isinstance(value, bool):
        return "no label: neither a number nor a text", None
    if names is None:
        return of_number(str(value), classes)
    if 0 <= value < len(names):
        return classes.label_of(names[value])
    return f"no label: {value} is none of its column's {len(names)}", None


def _count_classes(names: list[str], classes: Classes) -> bool:
    """Whether names are those of the heads' classes, most of them spelled in the same way."""
    same = sum(
        number in (classes.find(name), classes.find(name.partition(",")[0]))
        for number, name in enumerate(names)
    )
    return len(names) == len(classes.names) and 2 * same > len(names)
