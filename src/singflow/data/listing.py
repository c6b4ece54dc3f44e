"""List the images of a folder, a table or archives, with their labels and splits."""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from singflow.cli import log
from singflow.data.archives import (
    Member,
    archive_fingerprint,
    find_archives,
    is_parquet,
    list_parquet,
    list_tar,
)
from singflow.data.manifest import Candidate, Classes, Rejected, in_plain_words, prompt_of
from singflow.data.reading import (
    OUTSIDE,
    SPLIT_FOLDERS,
    UNPRINTABLE,
    below_splits,
    is_litter,
    read_table,
    subfolders,
)
from singflow.errors import InputError, printable

# A split in the path of an archive.
OF_SPLIT = re.compile(rf"(?:^|[/_.-])({'|'.join(SPLIT_FOLDERS)})(?=[/_.-])", re.IGNORECASE)
MOST_LABEL = 1000  # characters
NUMBER = re.compile(rf"[+-]?[0-9]{{1,{MOST_LABEL}}}")
# A label and the index of its class; or the reason why there is no label, and None.
Label = tuple[str, int | None]
NO_CLASS: Label = ("not in a class folder", None)
NO_SIDECAR: Label = ("no label: no .cls beside it", None)
TOO_LONG: Label = (f"a label of more than {MOST_LABEL} characters: give it a short one", None)


@dataclass
class _Listing:
    """Candidates, rejected files with their reasons, and how many files are skipped, by name."""

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

    def tell_skipped(self) -> None:
        if self.skipped:
            log.info(
                "%d files and folders skipped that are hidden or an operating system's own: %s",
                self.skipped.total(),
                ", ".join(printable(name) for name, _ in self.skipped.most_common(5)),
            )


def list_folder(root: Path, classes: Classes) -> tuple[list[Candidate], Rejected]:
    """List the images of a folder with one subfolder per class, perhaps below train and val.

    A subfolder that is not named after a class (by synset or name) gets class_index -1. If all
    images are in one of train and val, the split is drawn.
    """
    top = subfolders(root)
    others = [folder.name for folder in top if not below_splits([folder])]
    if len({SPLIT_FOLDERS.get(folder.name.lower(), "") for folder in top} - {""}) == 2 and others:
        raise InputError(
            f"data.root {root}: holds other folders beside train and val: "
            f"{', '.join(map(printable, others))}: move them out of it"
        )
    depth, listing, visited = int(below_splits(top)), _Listing(), set[str]()

    def unlisted(error: OSError) -> None:
        place = Path(error.filename).relative_to(root)
        listing.reject(str(place), f"unreadable: {error.strerror}")

    for folder, folders, files in os.walk(root, followlinks=True, onerror=unlisted):
        real = os.path.realpath(folder)
        parts = Path(folder).relative_to(root).parts
        if real in visited:
            folders.clear()
            listing.reject("/".join(parts), "a link to a folder that is listed already")
            continue
        visited.add(real)
        listing.skipped.update(filter(is_litter, (*folders, *files)))
        folders[:] = sorted(name for name in folders if not is_litter(name))
        label = classes.label_of(parts[depth]) if len(parts) > depth else NO_CLASS
        split = SPLIT_FOLDERS[parts[0].lower()] if depth and parts else ""
        for name in sorted(name for name in files if not is_litter(name)):
            listing.add("/".join((*parts, name)), label, split)
    listing.tell_skipped()
    if not listing.found:
        raise InputError(
            f"data.root {root}: holds no images in class folders (<root>/<class>/<image>): move "
            "images into such folders, or name the folder above them as data.root"
        )
    if len({image.split for image in listing.found}) == 1:
        return [image._replace(split="") for image in listing.found], listing.rejected
    return listing.found, listing.rejected


def list_table(
    table: Path, label_column: str, classes: Classes
) -> tuple[list[Candidate], Rejected]:
    """List the images of a CSV or Parquet table with one image per row."""
    needed = {"path": "the image's path relative to data.root", label_column: "data.label_column"}
    optional = ("class_index", "prompt", "split", "group")
    rows = read_table(table, needed, optional)
    if rows.empty:
        raise InputError(f"{table}: holds no rows")
    rows = rows.reindex(columns=list(dict.fromkeys((*needed, *optional))), fill_value="")
    stated, split = rows["class_index"].str.strip(), rows["split"].str.strip().str.lower()
    numbers, count = pd.to_numeric(stated, errors="coerce"), len(classes.names)
    outside = f"is outside the {count} classes (0 to {count - 1}, or -1)"
    neither = "is neither train nor validation (val): write one of them, or nothing"
    for column, wrong, said in (
        ("class_index", (stated != "") & ~numbers.isin(range(-1, count)), outside),
        ("split", ~split.isin(["", *SPLIT_FOLDERS]), neither),
    ):
        for line, path, cell in rows.loc[wrong, ["path", column]].itertuples():
            raise InputError(f"{table}: line {line} ({path}): {column} {cell!r} {said}")
    listing, prompts, listed = _Listing(), dict[str, str](), set[str]()
    cells = zip(rows.to_dict("records"), numbers, split, strict=True)
    for row, number, side in cells:
        path, text, place = row["path"], row[label_column], PurePosixPath(row["path"])
        label, index = classes.label_of(text) if np.isnan(number) else (text, int(number))
        label = in_plain_words(label) or (classes.names[index] if index >= 0 else "")
        prompt = row["prompt"] or prompt_of(label)
        if not path or place.is_absolute() or ".." in place.parts:
            listing.reject(path, OUTSIDE)
        elif str(place) in listed:
            listing.reject(path, "listed twice")
        elif listing.add(
            path, (label, index), SPLIT_FOLDERS.get(side, ""), prompt, group=row["group"].strip()
        ):
            listed.add(str(place))
            if prompts.setdefault(label, prompt) != prompt:
                raise InputError(
                    f"{table}: {path}: label {label!r} has two prompts, {prompts[label]!r} and "
                    f"{prompt!r}: give it one"
                )
    return listing.found, listing.rejected


def list_archives(
    root: Path, patterns: list[str], label_column: str, classes: Classes
) -> tuple[list[Candidate], Rejected, str]:
    """List the images in tar and Parquet files: candidates, rejected files, and the fingerprint.

    The label is that of the image's row in a Parquet file. In tars it is that of the .cls if any
    image has one, else that of the class folder, below folders that all images share. Splits are
    those of the folders, or those in the archives' paths if these name both train and val.
    """
    archives, listing = find_archives(root, patterns), _Listing()
    named = {archive: OF_SPLIT.search(archive) for archive in archives}
    splits = {archive: SPLIT_FOLDERS[of[1].lower()] for archive, of in named.items() if of}
    if len(set(splits.values())) < 2:
        splits = {}
    members: list[tuple[str, Member]] = []
    for archive in archives:
        if is_parquet(archive):
            labels, names = list_parquet(root / archive, label_column)
            numbered = _numbered(names, classes)
            for row, value in enumerate(labels):
                label, split = _stated(value, numbered, classes), splits.get(archive, "")
                listing.add(f"{archive}/{row:09d}", label, split, archive=archive, offset=row)
            continue
        for member in list_tar(root / archive, listing.skipped):
            if member.unusable:
                listing.reject(f"{archive}/{member.name}", member.unusable)
            else:
                members.append((archive, member))
    listing.tell_skipped()
    stated = any(member.label is not None for _, member in members)
    above, depth = _above({tuple(member.name.split("/")[:-1]) for _, member in members} - {()})
    numbered = _numbered(None, classes)
    for archive, (name, offset, size, text, _) in members:
        folders, split = name.split("/")[above:-1], splits.get(archive, "")
        if stated:
            value = int(text) if text and NUMBER.fullmatch(text) else text
            label = NO_SIDECAR if value is None else _stated(value, numbered, classes)
        else:
            label = classes.label_of(folders[depth]) if len(folders) > depth else NO_CLASS
        if depth and folders and not stated:
            split = SPLIT_FOLDERS[folders[0].lower()]
        path = f"{archive}/{name}"
        listing.add(path, label, split, archive=archive, offset=offset, bytes=size)
    if not listing.found and not listing.rejected:
        raise InputError(f"data.archives: {', '.join(patterns)}: no image: name archives of images")
    return listing.found, listing.rejected, archive_fingerprint(root, archives)


def _above(folders: set[tuple[str, ...]]) -> tuple[int, int]:
    """How many folders are above all class folders, and whether (0, 1) train and val come next."""
    levels = zip(*folders, strict=False)
    shared = sum(1 for _ in takewhile(lambda level: len(set(level)) == 1, levels))
    above = shared - 1 if len(folders) == 1 else shared
    tops = {parts[above].lower() for parts in folders if len(parts) > above}
    return above, int(bool(tops) and tops <= SPLIT_FOLDERS.keys() and len(folders) > 1)


def _numbered(names: list[str] | None, classes: Classes) -> list[Label]:
    """What numbers count: a schema's names, but the heads' classes where most are spelled alike."""
    same = sum(
        number in (classes.find(name), classes.find(name.partition(",")[0]))
        for number, name in enumerate(names or ())
    )
    if names and not (len(names) == len(classes.names) and 2 * same > len(names)):
        return [classes.label_of(name) for name in names]
    return [(name, number) for number, name in enumerate(classes.names)]


def _stated(value: Any, numbered: list[Label], classes: Classes) -> Label:
    """The label that a .cls or a cell states, as a name or a number."""
    if isinstance(value, str):
        return classes.label_of(value)
    if not isinstance(value, int) or isinstance(value, bool):
        return "no label: neither a number nor a text", None
    if 0 <= value < len(numbered):
        return numbered[value]
    return f"no label: {value} is none of the {len(numbered)} classes", None
