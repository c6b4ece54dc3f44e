"""Import features and embeddings that other programs computed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from singflow.artifacts.catalog import CATALOG
from singflow.artifacts.files import write_bytes
from singflow.artifacts.tables import write_parquet
from singflow.artifacts.tensors import SCHEMA_VERSION, write_tensors
from singflow.data.arrays import Stored, find_arrays, in_natural_order
from singflow.data.imported import CARRIED, ROWS, classes_path, rows_path
from singflow.data.listing import of_number
from singflow.data.manifest import Candidate, Classes, in_plain_words, prompt_of
from singflow.data.reading import SPLIT_FOLDERS, iterate_rows
from singflow.errors import InputError, printable

FEW = 5  # images of a label, below which their predictions say nothing about the order of classes
GAP = 0.05  # of the logits' standard deviation: float16 features give 0.01, another head 1


@dataclass
class Listed:
    """The images, texts or sounds of a source in the order of their rows."""

    images: list[Candidate] = field(default_factory=list)
    sha256: list[str] = field(default_factory=list)  # empty: not given


def list_rows(table: Path, id_column: str, label_column: str, classes: Classes | None) -> Listed:
    """Read ids and labels from CSV, Parquet, a folder of Parquet files, or a list of ids (.txt).

    Without a column of labels, the label is the folder in the id. An id without a folder then has
    none, which is refused.
    """
    listed, known = Listed(), dict[str, int]()
    for where, row in _table_rows(table, id_column, label_column):
        name = row[id_column].lstrip("/")
        if not name or name != printable(name) or ".." in PurePosixPath(name).parts:
            raise InputError(f"{where}: id {name!r} is empty, unprintable or has ..: rename it")
        if name in known:
            raise InputError(
                f"{where}: id {name!r} is that of row {known[name]}, too: remove one of the two "
                "from the table and from the arrays"
            )
        known[name] = len(known)
        text = row.get(label_column, PurePosixPath(name).parent.name)
        label, index = in_plain_words(text), -1
        if classes is not None:
            label, found = of_number(text, classes)
            if found is None:
                raise InputError(f"{where}: {label}: correct the label or --classes")
            index = found
        if given := row.get("class_index", "").strip():
            index = int(given) if given.removeprefix("-").isdecimal() else -2
            if not -1 <= index < (len(classes.names) if classes else 2**31):
                raise InputError(f"{where}: class_index {given!r} is not a row of the head")
        if not label or label != printable(label):
            raise InputError(
                f"{where}: has no printable label: name the column of labels as --label-column"
            )
        split = row.get("split", "").strip().lower()
        if split not in ("", *SPLIT_FOLDERS):
            raise InputError(f"{where}: split {split!r} is neither train nor validation")
        prompt = row.get("prompt") or prompt_of(label)
        listed.images.append(Candidate(name, label, index, prompt, SPLIT_FOLDERS.get(split, "")))
        if "sha256" in row:
            listed.sha256.append(row["sha256"])
    if not listed.images:
        raise InputError(f"{table}: holds no rows")
    return listed


def _table_rows(
    table: Path, id_column: str, label_column: str
) -> Iterator[tuple[str, dict[str, str]]]:
    if table.suffix.lower() == ".txt":
        try:
            lines = table.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{table}: not readable as UTF-8 text ({error})") from None
        for number, line in enumerate(lines, start=1):
            yield f"{table}: line {number}", {id_column: line.strip()}
        return
    parts = [table]
    if table.is_dir():
        parts = [Path(part) for part in _parquet_parts(table)]
    more = (label_column, "class_index", "prompt", "split", "sha256")
    for part in parts:
        for number, row in iterate_rows(part, {id_column: "the id, --id-column"}, more):
            yield f"{part}: line {number}", row


def _parquet_parts(folder: Path) -> list[Path]:
    parts = in_natural_order(folder.glob("*.parquet"))
    if not parts:
        raise InputError(f"{folder}: holds no .parquet: name a table, or a folder of such files")
    return parts


def read_head(weight: str, bias: str | None, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Weight (C, d) and bias (C,) of a head on features of this width, in float32.

    A weight of shape (d, C), as JAX and Keras have it, is transposed. Without a bias, the only
    array of one dimension in the file of the weight is the bias, if there is one.
    """
    matrix = find_arrays(weight, 2)
    if width not in matrix.shape:
        raise InputError(
            f"{matrix.origin}: has shape {matrix.shape}, but the features have {width} columns: "
            "name the head of these features"
        )
    found = matrix.whole()
    found = found if found.shape[1] == width else np.ascontiguousarray(found.T)
    if len(found) < 2:
        raise InputError(
            f"{matrix.origin}: has one row: write two classes, the first with weight and bias 0"
        )
    shift = np.zeros(len(found))
    if bias or _has_vector(weight):
        vector = find_arrays(bias or weight, 1)
        if vector.shape != (len(found),):
            raise InputError(
                f"{vector.origin}: has shape {vector.shape}, but the head has {len(found)} rows: "
                "name its bias"
            )
        shift = vector.whole()
    return found.astype(np.float32), shift.astype(np.float32)


def _has_vector(place: str) -> bool:
    try:
        find_arrays(place, 1)
    except InputError:
        return False
    return True


def in_shards(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Blocks of rows as float32, cut and joined to ROWS rows; the last may be smaller."""
    waiting: list[np.ndarray] = []
    for block in blocks:
        rest = block.astype(np.float32, copy=False)
        while len(rest):
            space = ROWS - sum(map(len, waiting))
            waiting.append(rest[:space])
            rest = rest[space:]
            if sum(map(len, waiting)) == ROWS:
                yield np.concatenate(waiting)
                waiting = []
    if waiting:
        yield np.concatenate(waiting)


def write_shards(
    root: Path, artifact: str, blocks: Iterable[np.ndarray], metadata: dict[str, str], **names: str
) -> Iterator[np.ndarray]:
    """Write the rows of features or embeddings as shards of a source, and yield every shard."""
    for shard, rows in enumerate(in_shards(blocks)):
        image_id = np.arange(shard * ROWS, shard * ROWS + len(rows))
        places = {"image_id": image_id, "view": np.zeros(len(rows), np.int32)}
        path = CATALOG[artifact].at(root, shard=f"{shard:05d}", **names)
        write_tensors(path, {artifact: rows, **places}, metadata)
        yield rows


def metadata_of(stored: Stored, place: str, otherwise: dict[str, str]) -> dict[str, str]:
    """What shards of a study say of their tower, or else the given metadata."""
    from safetensors import safe_open

    first = next(iter(sorted(Path(place).glob("*.safetensors"))), Path(place))
    if first.suffix.lower() != ".safetensors" or not first.is_file():
        return {"schema_version": SCHEMA_VERSION, **otherwise}
    with safe_open(first, framework="numpy") as file:
        made = file.metadata() or {}
    carried = {key: made[key] for key in CARRIED if key in made}
    return {"schema_version": SCHEMA_VERSION, **(carried if "tower" in carried else otherwise)}


def content_hashes(rows: np.ndarray) -> list[str]:
    """SHA-256 of every row; equal rows count as copies of an image, which share a fold."""
    return [hashlib.sha256(row.tobytes()).hexdigest() for row in np.ascontiguousarray(rows)]


class HeadCheck:
    """Predictions of a head, compared with given logits and with the labels of the images."""

    def __init__(self, weight: np.ndarray, bias: np.ndarray, logits: Stored | None) -> None:
        self._weight, self._bias, self._logits = weight, bias, logits
        self._given = None if logits is None else in_shards(logits.blocks())
        self.max_error = 0.0
        self.predicted: list[np.ndarray] = []

    def add(self, features: np.ndarray) -> None:
        """Check the next rows; InputError if W f + b is not the given logits."""
        logits = features @ self._weight.T + self._bias
        self.predicted.append(logits.argmax(axis=1).astype(np.int32))
        if self._given is None or self._logits is None:
            return
        given = next(self._given)
        gap, spread = float(np.abs(given - logits).max()), float(given.std())
        if gap > GAP * spread:
            row = (len(self.predicted) - 1) * ROWS + int(np.abs(given - logits).max(1).argmax())
            raise InputError(
                f"{self._logits.origin}: row {row} differs from W f + b by {gap:.2g}, and logits "
                f"have a standard deviation of {spread:.2g}: the features are not the input of "
                "this head, or rows or classes are in another order"
            )
        self.max_error = max(self.max_error, gap)

    def top1(self, class_index: np.ndarray, names: list[str]) -> float | None:
        """Accuracy on rows of a known class; InputError if another order of classes fits better.

        It is refused where the best assignment of labels to rows of the head is right for at least
        half of the rows, and for twice as many as the order given.
        """
        from scipy.optimize import linear_sum_assignment

        predicted = np.concatenate(self.predicted)
        known = class_index >= 0
        if not known.any():
            return None
        actual, said = class_index[known], predicted[known]
        right = float((actual == said).mean())
        present, rows = np.unique(actual, return_inverse=True)
        counts = np.zeros((len(present), len(self._weight)))
        np.add.at(counts, (rows, said), 1)
        labels, places = linear_sum_assignment(-counts)
        best = counts[labels, places].sum() / counts.sum()
        if len(actual) >= FEW * len(present) and best >= max(0.5, 2 * right):
            worst = int(np.argmax(counts[labels, places] * (present[labels] != places)))
            label, place = int(present[labels[worst]]), int(places[worst])
            raise InputError(
                f"top-1 is {right:.3f}, but would be {best:.3f} in another order of classes: most "
                f"rows of {names[label]!r} (class {label}) are predicted as {names[place]!r} "
                f"(class {place}): give --classes in the order of the head's rows"
            )
        return right


def write_rows(root: Path, listed: Listed) -> None:
    """Write the table of a source, which is the last file of an import."""
    import pandas as pd

    columns = ["path", "label", "class_index", "prompt", "split"]
    frame = pd.DataFrame([image[: len(columns)] for image in listed.images], columns=columns)
    frame["class_index"] = frame["class_index"].astype("int32")
    write_parquet(rows_path(root), frame.assign(sha256=listed.sha256))


def write_classes(root: Path, names: list[str]) -> None:
    quoted = [name.replace('"', '""') for name in names]
    lines = [f'{index},,"{name}"\n' for index, name in enumerate(quoted)]
    write_bytes(classes_path(root), "".join(["class_index,synset,name\n", *lines]).encode())


