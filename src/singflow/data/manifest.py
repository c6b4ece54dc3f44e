"""From a folder, a table or the packaged images to a manifest: which images, under which label, in which split."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from singflow.data.images import Unusable, decode, read
from singflow.errors import InputError, printable
from singflow.parallel import map_ahead
from singflow.system import regular

if TYPE_CHECKING:
    import pandas as pd

SPLIT_FOLDERS = {"train": "train", "val": "validation", "validation": "validation"}
PACKAGED_IMAGES = ("foolbox", "foolbox/data")


@dataclass(frozen=True)
class Classes:
    """The heads' classes in order: index by synset and by name (in lower case), and the names."""

    names: list[str]
    index: dict[str, int]

    def find(self, text: str) -> int:
        """Index of a synset or class name.

        Parameters
        ----------
        text : str
            In any case, with spaces or underscores.

        Returns
        -------
        int
            -1 when it is neither.
        """
        return self.index.get(_normal(text), -1)


@dataclass(frozen=True, slots=True)
class Candidate:
    """An image file before it is opened. split is empty when it is to be drawn; path is relative to the root."""

    path: str
    label: str
    class_index: int
    prompt: str
    split: str = ""


Rejected = list[tuple[str, str]]


def _normal(text: str) -> str:
    return text.strip().lower().replace("_", " ")


def data_root(source: str, root: str) -> Path:
    """Folder that the manifest's paths are relative to.

    Parameters
    ----------
    source : str
        packaged, folder or table.
    root : str
        data.root of the study; not read for packaged.

    Returns
    -------
    Path
        For packaged, the images' folder in the installed distribution; otherwise root.

    Raises
    ------
    InputError
        When it does not exist, or the distribution is not installed.
    """
    if source == "packaged":
        name, folder = PACKAGED_IMAGES
        try:
            return Path(str(importlib.metadata.distribution(name).locate_file(folder)))
        except importlib.metadata.PackageNotFoundError:
            raise InputError(f"data.source packaged needs the distribution {name}: pip install {name}") from None
    path = Path(root)
    if not path.is_dir():
        raise InputError(f"data.root {root}: no such folder: correct data.root in params.yaml")
    return path


def read_classes(path: Path) -> Classes:
    """Read the heads' classes.

    Parameters
    ----------
    path : Path
        CSV file with the columns class_index, synset, name; a synset may be empty.

    Returns
    -------
    Classes
        In order.

    Raises
    ------
    InputError
        Unless the indices are 0..C-1 and the names distinct; also for an unreadable file, a missing column, no classes, and a synset
        that stands for two of them.
    """
    frame = _read_csv(path)
    for column in ("class_index", "synset", "name"):
        if column not in frame:
            raise InputError(f"{path}: has no column {column!r}; it has {', '.join(frame.columns)}")
    if list(frame["class_index"]) != [str(i) for i in range(len(frame))]:
        raise InputError(f"{path}: class_index must count 0, 1, 2, ... in order, as the heads do")
    if frame.empty:
        raise InputError(f"{path}: holds no classes")
    names = list(frame["name"])
    repeated = [name for name, count in Counter(map(_normal, names)).items() if count > 1]
    if repeated or not all(map(_normal, names)):
        raise InputError(f"{path}: every class needs a name of its own; repeated or blank: {', '.join(repeated) or 'blank'}")
    index = {_normal(name): i for i, name in enumerate(names)}
    for i, synset in enumerate(map(_normal, frame["synset"])):
        if synset and index.setdefault(synset, i) != i:
            raise InputError(f"{path}: {synset} stands for two classes, {names[index[synset]]!r} and {names[i]!r}")
    return Classes(names, index)


def head_classes(manifest: pd.DataFrame, names: list[str] | None) -> np.ndarray:
    """Row of the head that stands for each image's class.

    Parameters
    ----------
    manifest : DataFrame
        n images: the column class_index is used, or label when names are given.
    names : list of str or None
        Names of the head's classes, of which the one that equals the image's label is taken. None: the head has the study's
        classes, so it is class_index.

    Returns
    -------
    ndarray of shape (n,)
        Int32, -1 for none.
    """
    if names is None:
        return manifest["class_index"].to_numpy(np.int32)
    index = {_normal(name): row for row, name in enumerate(names)}
    return np.array([index.get(_normal(label), -1) for label in manifest["label"]], dtype=np.int32)


def _read_csv(path: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return pd.read_csv(regular(path), dtype=str, keep_default_na=False, index_col=False)
    except pd.errors.ParserWarning:
        raise InputError(f"{path}: rows have more cells than the header: quote commas inside cells, remove those at line ends") from None
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, ValueError, OverflowError) as error:
        raise InputError(f"{path}: not readable as CSV ({error}): save it anew as comma-separated UTF-8") from None


def prompt_of(label: str) -> str:
    """The text that stands for a label in the space.

    Parameters
    ----------
    label : str
        In plain words.

    Returns
    -------
    str
        "an image of a" and the label.

    References
    ----------
    Section 3.4 of the paper.
    """
    return f"an image of a {label}"


def list_folder(root: Path, classes: Classes) -> tuple[list[Candidate], Rejected]:
    """List images in one folder a class, named by synset or in plain words, perhaps below train and val.

    Parameters
    ----------
    root : Path
        The folder that holds them all.
    classes : Classes
        The heads' classes. A folder that is named as one of them gets the class's name as its label, any other its own name in
        plain words and class_index -1.

    Returns
    -------
    found : list of Candidate
        Files in class folders, whatever they hold.
    rejected : list of tuple
        Path and reason of all others: files that lie in no class folder are rejected, never skipped.

    Raises
    ------
    InputError
        For a folder without files in class folders, and for one with other folders beside train and val.
    """
    top = {path.name for path in root.iterdir() if path.is_dir()}
    others = sorted(map(printable, top - set(SPLIT_FOLDERS)))
    if "train" in top and len(top & set(SPLIT_FOLDERS)) > 1 and others:
        raise InputError(f"data.root {root}: holds other folders beside train and val: {', '.join(others)}: move them out of it")
    depth = 1 if top and top <= set(SPLIT_FOLDERS) else 0
    found: list[Candidate] = []
    rejected: Rejected = []
    visited: set[str] = set()

    def unlisted(error: OSError) -> None:
        rejected.append((printable(str(Path(error.filename).relative_to(root))), f"unreadable: {error.strerror}"))

    for folder, subfolders, files in os.walk(root, followlinks=True, onerror=unlisted):
        real = os.path.realpath(folder)
        parts = Path(folder).relative_to(root).parts
        if real in visited:
            subfolders.clear()
            rejected.append((printable(str(PurePosixPath(*parts))), "a link to a folder that is listed already"))
            continue
        visited.add(real)
        subfolders.sort()
        label, index = _label_of(parts[depth], classes) if len(parts) > depth else ("", -1)
        prompt = prompt_of(label)
        for name in sorted(files):
            path = str(PurePosixPath(*parts, name))
            if path != printable(path):
                rejected.append((printable(path), "name is not UTF-8 or holds control characters: rename the file"))
            elif len(parts) <= depth:
                rejected.append((path, "not in a class folder"))
            elif not label:
                rejected.append((path, "no printable label"))
            else:
                found.append(Candidate(path, label, index, prompt, SPLIT_FOLDERS[parts[0]] if depth else ""))
    if not found:
        raise InputError(f"data.root {root}: holds no images in class folders (<root>/<class>/<image>)")
    return found, rejected


def _label_of(folder: str, classes: Classes) -> tuple[str, int]:
    index = classes.find(folder)
    return (classes.names[index] if index >= 0 else folder.replace("_", " ").strip()), index


def list_table(table: Path, label_column: str, classes: Classes) -> tuple[list[Candidate], Rejected]:
    """List images from a table with one image a row.

    Parameters
    ----------
    table : Path
        CSV or Parquet file: column `path`, the label column, and optionally class_index, prompt and split.
    label_column : str
        Column of the label. A row without a label takes the name of its class.
    classes : Classes
        The heads' classes. Without class_index the label is looked up among them.

    Returns
    -------
    found : list of Candidate
        Rows that can be used, in order.
    rejected : list of tuple
        Path and reason of the others.

    Raises
    ------
    InputError
        For an unreadable or empty table, a missing column, a class_index outside the classes, an unknown split, or a label with two
        prompts.
    """
    import pandas as pd

    if table.suffix.lower() in (".parquet", ".pq"):
        try:
            frame = pd.read_parquet(regular(table))
            frame = frame.astype(object).where(frame.notna(), "").astype(str)
        except InputError:
            raise
        except Exception as error:  # noqa: BLE001 (pyarrow raises whatever damaged bytes provoke)
            raise InputError(f"{table}: not readable as Parquet ({error}): write it anew, or as CSV") from None
    else:
        frame = _read_csv(table)
    for column, key in (("path", "the image's path relative to data.root"), (label_column, "data.label_column")):
        if column not in frame:
            raise InputError(f"{table}: has no column {column!r} ({key}); it has {', '.join(map(str, frame.columns))}")
    if frame.empty:
        raise InputError(f"{table}: holds no rows")
    found: list[Candidate] = []
    rejected: Rejected = []
    prompts: dict[str, str] = {}
    listed: set[str] = set()
    for number, row in enumerate(frame.to_dict("records"), start=2):
        where = f"{table}: line {number} ({row['path']})"
        index = _class_index(row["class_index"], where, classes) if row.get("class_index") else None
        label = row[label_column].strip()
        if index is None:
            index = classes.find(label)
            label = classes.names[index] if index >= 0 else label
        label = label or (classes.names[index] if index >= 0 else "")
        split = row.get("split", "")
        if split not in ("", *SPLIT_FOLDERS):
            raise InputError(f"{where}: split {split!r} is neither train nor validation")
        reason = _refusal(row["path"], label, listed)
        if reason:
            rejected.append((printable(row["path"]), reason))
            continue
        listed.add(str(PurePosixPath(row["path"])))
        prompt = row.get("prompt") or prompt_of(label)
        if prompts.setdefault(label, prompt) != prompt:
            raise InputError(f"{where}: label {label!r} has two prompts, {prompts[label]!r} and {prompt!r}: give it one")
        found.append(Candidate(row["path"], label, index, prompt, SPLIT_FOLDERS.get(split, "")))
    return found, rejected


def _class_index(text: str, where: str, classes: Classes) -> int:
    try:
        index = int(float(text)) if float(text).is_integer() else None
    except ValueError:
        index = None
    if index is None or not -1 <= index < len(classes.names):
        raise InputError(
            f"{where}: class_index {text!r} is outside the {len(classes.names)} classes (0 to {len(classes.names) - 1}, or -1)"
        )
    return index


def _refusal(path: str, label: str, listed: set[str]) -> str:
    parts = PurePosixPath(path).parts
    if not path or PurePosixPath(path).is_absolute() or ".." in parts:
        return "outside the data root: paths are relative to it and without .."
    if path != printable(path):
        return "name is not printable UTF-8: rename the file"
    if not label or not label.isprintable():
        return "no printable label"
    return "listed twice" if str(PurePosixPath(path)) in listed else ""


def _rank(seed: int, purpose: str, key: str) -> bytes:
    return hashlib.blake2b(f"{seed}|{purpose}|{key}".encode(), digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class Inspected:
    """A file that was read and decoded whole."""

    width: int
    height: int
    sha256: str


def inspect(path: Path, max_pixels: int) -> Inspected | str:
    """Decode an image once.

    Parameters
    ----------
    path : Path
        The file.
    max_pixels : int
        Limit on an image's width times height, in pixels.

    Returns
    -------
    Inspected or str
        Its upright size and hash, or the reason why it is unusable.
    """
    try:
        content = read(path, max_pixels)
        image = decode(content, max_pixels)
    except OSError as error:
        return f"unreadable: {error.strerror}"
    except Unusable as error:
        return str(error)
    return Inspected(image.width, image.height, hashlib.sha256(content).hexdigest())


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
) -> tuple[pd.DataFrame, Rejected]:
    """The manifest, and every file left out with its reason; together they are all that was found.

    Images are drawn per label (and split, where the source has its own) in an order that the seed and the path fix, so that
    an unusable one is replaced by the next. Folds are drawn by seed and content, so that copies of one image are in one fold,
    and so that they differ in size, and in each label's share, as little as can be. Where the source has no split of its own,
    fold 0 is held out.

    Parameters
    ----------
    root : Path
        Folder that the candidates' paths are relative to.
    candidates : list of Candidate
        What list_folder or list_table found.
    rejected : list of tuple
        Path and reason of what they rejected; it counts as unusable.
    per_class : int or None
        Images drawn per label and split at most; None: all.
    folds : int
        Number of folds, 2 or more.
    max_pixels : int
        Limit on an image's width times height, in pixels.
    max_rejected_fraction : float
        Share of unusable files, among those looked at, that is allowed.
    seed : int
        Decides what is drawn, and the folds.
    threads : int
        Threads that decode.
    progress : callable
        Wraps the stream of results of inspect; is called with it and their number.

    Returns
    -------
    manifest : DataFrame
        One image a row, in order of paths: image_id (0, 1, 2, ...), path, label, class_index, prompt, split (train or validation),
        fold (0 to folds - 1; an image that the source itself holds out is not in fold 0), width and height in pixels, sha256.
    rejected : list of tuple
        Path and reason of every file left out, unusable or not drawn.

    Raises
    ------
    InputError
        When more than max_rejected_fraction of the files are unusable, with the list; when none is usable; and when a split is empty.
    """
    pools: dict[tuple[str, str], list[Candidate]] = {}
    for candidate in sorted(candidates, key=lambda c: _rank(seed, "draw", c.path)):
        pools.setdefault((candidate.label, candidate.split), []).append(candidate)
    accepted: list[tuple[Candidate, Inspected]] = []
    counts: Counter[tuple[str, str]] = Counter()
    unusable = list(rejected)
    while True:
        batch = []
        for key, waiting in pools.items():
            take = len(waiting) if per_class is None else min(per_class - counts[key], len(waiting))
            batch += waiting[:take]
            del waiting[:take]
        if not batch:
            break
        results = map_ahead(lambda c: inspect(root / c.path, max_pixels), batch, threads)
        for candidate, result in zip(batch, progress(results, len(batch)), strict=True):
            if isinstance(result, Inspected):
                accepted.append((candidate, result))
                counts[candidate.label, candidate.split] += 1
            else:
                unusable.append((candidate.path, result))
    judged = len(accepted) + len(unusable)
    if len(unusable) > max_rejected_fraction * judged or not accepted:
        listing = "\n".join(f"  {path}: {reason}" for path, reason in sorted(unusable))
        raise InputError(
            f"{len(unusable)} of {judged} files are unusable, more than data.max_rejected_fraction ({max_rejected_fraction}) allows: "
            f"mend or remove them, or raise the limit\n{listing}"
        )
    undrawn = [(c.path, f"not drawn: data.per_class is {per_class}") for waiting in pools.values() for c in waiting]
    return _frame(accepted, folds, seed), sorted(unusable + undrawn)


def _frame(accepted: list[tuple[Candidate, Inspected]], folds: int, seed: int) -> pd.DataFrame:
    import pandas as pd

    accepted = sorted(accepted, key=lambda pair: pair[0].path)
    frame = pd.DataFrame(
        {
            "image_id": pd.Series(range(len(accepted)), dtype="int64"),
            "path": [candidate.path for candidate, _ in accepted],
            "label": [candidate.label for candidate, _ in accepted],
            "class_index": pd.Series([candidate.class_index for candidate, _ in accepted], dtype="int32"),
            "prompt": [candidate.prompt for candidate, _ in accepted],
            "split": [candidate.split for candidate, _ in accepted],
            "fold": pd.Series(0, range(len(accepted)), dtype="int32"),
            "width": pd.Series([image.width for _, image in accepted], dtype="int32"),
            "height": pd.Series([image.height for _, image in accepted], dtype="int32"),
            "sha256": [image.sha256 for _, image in accepted],
        }
    )
    held_out = frame["split"] == "validation"
    for rows, numbers in ((~held_out, range(folds)), (held_out, range(1, folds))):
        fold_of = _folds(frame[rows], numbers, seed)
        frame.loc[rows, "fold"] = frame.loc[rows, "sha256"].map(fold_of).astype("int32")
    drawn = frame["split"] == ""
    frame.loc[drawn, "split"] = np.where(frame.loc[drawn, "fold"] == 0, "validation", "train")
    for split in ("train", "validation"):
        if not (frame["split"] == split).any():
            raise InputError(f"no image is in the split {split}: a translator needs both; add images or a {split} folder")
    return frame


def _folds(frame: pd.DataFrame, numbers: range, seed: int) -> dict[str, int]:
    """The fold of every content: dealt out in turn, label by label, in orders and from a fold that the seed, labels and contents fix.

    Where no content without a split of its own would be in the first fold, the dealing starts so that one is.
    """
    label_of = dict(zip(frame["sha256"][::-1], frame["label"][::-1], strict=True))
    order = sorted(label_of, key=lambda sha256: (_rank(seed, "label", label_of[sha256]), _rank(seed, "fold", sha256)))
    used = numbers[: len(order)]
    first = int.from_bytes(_rank(seed, "first", ""))
    drawn = set(frame["sha256"][frame["split"] == ""])
    places = [place for place, sha256 in enumerate(order) if sha256 in drawn]
    if places and all((first + place) % len(used) for place in places):
        first = -places[0]
    return {sha256: used[(first + place) % len(used)] for place, sha256 in enumerate(order)}
