"""Import features and embeddings that other programs computed."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from singflow.artifacts.catalog import CATALOG
from singflow.artifacts.files import sha256_of, staged, write_bytes
from singflow.artifacts.shards import in_shards, towers_in
from singflow.artifacts.tables import write_csv, write_parquet
from singflow.artifacts.tensors import SCHEMA_VERSION, read_tensors, stored_precision, write_tensors
from singflow.config.registry import MOST_CLASSES
from singflow.config.sections import at_hand, phrases
from singflow.data.arrays import Stored, find_arrays, in_natural_order, vectors_beside
from singflow.data.imported import (
    CARRIED,
    NUMBERS,
    ROW,
    ROWS,
    classes_path,
    hash_of_ids,
    listed_rows,
    rows_path,
    sizes_of,
)
from singflow.data.listing import of_number, stated_class, stated_split
from singflow.data.manifest import (
    Candidate,
    Classes,
    head_classes,
    in_plain_words,
    prompt_of,
    read_classes,
)
from singflow.data.reading import Row, iterate_rows, read_lines
from singflow.data.vocabulary import read_class_list
from singflow.errors import InputError, printable

if TYPE_CHECKING:
    import pandas as pd

IMAGENET = Path("config/vocab/imagenet_1k.csv")
FEW = 5  # images of a label, below which their predictions say nothing about the order of classes
GAP = 0.05  # of the logits' standard deviation: float16 features give 0.01, another head 1
UNNAMED = "class {}"  # the name of a class that has none


@dataclass(frozen=True)
class Offer:
    """What to import: a table or rows, arrays or their places (find_arrays()), and names."""

    table: Path | Iterable[Row] | None
    id_column: str
    label_column: str
    features: str | Stored | None
    head: str | Head | None
    bias: str | None
    logits: str | Stored | None
    embeddings: str | Stored | None
    classes: Path | None
    model: str
    space: str | None
    dim: int | None  # of the space, if the registry has it


def checked_name(kind: Any, value: str) -> str:
    """A name of a model or a space; InputError if it is none."""
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise InputError(f"{value}: {error.errors()[0]['msg']}") from None


def import_source(root: Path, offer: Offer) -> list[str]:
    """Write or extend a source, all or nothing, and return lines that say what it has now.

    Everything is written into a temporary folder, shard by shard, so that memory does not grow with
    the rows. A new source is moved into place as a whole; of a source that exists, a model or a
    space is. What is there with the same content stays, so the same call may be repeated.
    """
    arrays = {
        kind: find_arrays(place, 2) if isinstance(place, str) else place
        for kind, place in vars(offer).items()
        if kind in ("features", "embeddings", "logits") and place
    }
    head = offer.head
    if isinstance(head, str):
        head = read_head(offer, head, arrays["features"].shape[1])
    new = not rows_path(root).is_file()
    if new and (offer.table is None or head is None):
        raise InputError(
            f"{root}: is no source yet: give --table, --features and --head; more models and "
            "spaces can be added later"
        )
    if new and root.exists() and any(root.iterdir()):
        raise InputError(
            f"{root}: holds files, but no {rows_path(root).name} of a source: remove it, or give "
            "another name"
        )
    classes = known_classes(root, head)
    listed = _listed(root, offer, classes, head)
    views = _check(offer, arrays, len(listed.images), head)
    if head and not head.names and classes and len(classes.names) != len(head.weight):
        raise InputError(
            f"{head.origin}: the head has {len(head.weight)} rows, but the source has "
            f"{len(classes.names)} classes: name those of the head as --classes"
        )
    said: list[str] = []
    content: list[bytes] = []
    hashed = "embeddings" if offer.embeddings else "features"
    of_rows = {"rows_sha256": hash_of_ids(image.path for image in listed.images)}
    home = root.resolve()
    with staged(home) as made:

        def shards(kind: str, facts: dict[str, str], **names: str) -> Iterator[np.ndarray]:
            for rows in write_shards(made, kind, arrays[kind], views, facts | of_rows, **names):
                if kind == hashed and not listed.sha256:
                    content.extend(hashlib.sha256(row.tobytes()).digest() for row in rows)
                yield rows

        if offer.embeddings and offer.space:
            facts = carried(offer.embeddings, CARRIED, {})
            first = 0
            for rows in shards("embeddings", facts, space=offer.space):
                if not rows.any(axis=1).all():
                    row = first + int(np.argmin(rows.any(axis=1)))
                    raise InputError(
                        f"{arrays['embeddings'].origin}: row {row} holds zeros alone, which have "
                        "no direction: compute it anew, or remove the row everywhere"
                    )
                first += len(rows)
            said.append(f"{offer.space}: embeddings of {rows.shape[1]} dimensions")
        if head and offer.features:
            of_source = classes.names if classes else _names_in(listed, len(head.weight))
            names = head.names or of_source
            own_names = names if names != of_source else None
            images = images_in_shard(arrays["features"].shape[1], views)
            check = HeadCheck(head, arrays.get("logits"), images)
            facts = carried(offer.features, CARRIED, {"weights_sha256": head.sha256})
            for rows in shards("features", facts, model=offer.model):
                check.add(rows)
            top1 = check.top1(head_classes(listed.frame(), own_names), names)
            facts = head.facts | of_rows | {"weights_sha256": facts["weights_sha256"]}
            facts["class_names"] = json.dumps(own_names)
            facts["unnamed"] = json.dumps(names[0] == UNNAMED.format(0))
            facts["head_max_error"] = json.dumps(check.max_error if offer.logits else None)
            tensors = {"weight": head.weight, "bias": head.bias}
            write_tensors(CATALOG["head"].at(made, model=offer.model), tensors, facts)
            accuracy = "unknown" if top1 is None else f"{top1:.3f}"
            gap = f"; W f + b is within {check.max_error:.1e} of the logits" if offer.logits else ""
            sizes = f"{rows.shape[1]} features, {len(names)} classes"
            sizes += "" if head.biased else " without a bias"
            said.append(f"{offer.model}: {sizes}, top-1 {accuracy}{gap}")
        if new:
            listed.sha256 = listed.sha256 or hashes_of_ids(listed.images, content)
            write_classes(made, of_source, offer.classes or at_hand(IMAGENET))
            write_parquet(rows_path(made), listed.frame().assign(sha256=listed.sha256))
            copies = len(listed.sha256) - len({*listed.sha256})
            said.append(f"{len(listed.images)} rows; {copies} of them are copies of others")
            made.rename(home)
        else:
            said += _add(made, root, offer)
    return said


def _add(made: Path, root: Path, offer: Offer) -> list[str]:
    """Move the model and the space into a source; InputError if it has others of these names."""
    places: dict[Path, str] = {}
    if offer.features:  # the head first, as a model with features is taken for whole
        places[CATALOG["head"].at(Path(), model=offer.model)] = offer.model
        places[Path("features", offer.model)] = offer.model
    if offer.embeddings and offer.space:
        places[Path("embeddings", offer.space)] = offer.space
    there = {place: name for place, name in places.items() if (root / place).exists()}
    if others := [place for place in there if _contents(root / place) != _contents(made / place)]:
        raise InputError(
            f"{root}: has other files of {there[others[0]]} already: remove "
            f"{' and '.join(str(root / place) for place in others)}, or give another name"
        )
    for place in [place for place in places if place not in there]:
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (made / place).rename(root / place)
    names = dict.fromkeys(there.values())
    return [f"{name}: was there already, and stays as it is" for name in names]


def _contents(place: Path) -> dict[str, str]:
    files = (path for path in [place, *place.rglob("*")] if path.is_file())
    return {str(path.relative_to(place)): sha256_of(path) for path in files}


def known_classes(root: Path, head: Head | None) -> Classes | None:
    """Classes of the source, or of a new one: the head's, or ImageNet's for 1,000; else None."""
    if classes_path(root).is_file():
        return read_classes(classes_path(root))
    if head and head.names:
        return Classes(head.names, {name.lower(): row for row, name in enumerate(head.names)})
    return read_classes(at_hand(IMAGENET)) if head and len(head.weight) == 1000 else None


def _names_in(listed: SourceRows, count: int) -> list[str]:
    """The labels in the order of their class_index, or `class 0` and so on if some are unknown."""
    found = {image.class_index: image.label for image in listed.images if image.class_index >= 0}
    if sorted(found) == list(range(count)) and len({*found.values()}) == count:
        return [found[row] for row in range(count)]
    return [UNNAMED.format(row) for row in range(count)]


def _listed(root: Path, offer: Offer, classes: Classes | None, head: Head | None) -> SourceRows:
    """The rows of the source; if it is there already, a table must have the same ids."""
    given = None
    if offer.table:
        count = len(classes.names) if classes else len(head.weight) if head else MOST_CLASSES
        given = list_rows(offer.table, offer.id_column, offer.label_column, classes, count)
    if not rows_path(root).is_file() and given:
        return given
    images, inspected = listed_rows(root)
    if given and [image.path for image in given.images] != [image.path for image in images]:
        raise InputError(
            f"{_named(offer.table)}: has other ids than {rows_path(root)}, or another order: give "
            "the same table, or import into another source"
        )
    return SourceRows(images, [facts.sha256 for facts in inspected.values()])


def _check(offer: Offer, arrays: dict[str, Stored], n: int, head: Head | None) -> int:
    """Refuse arrays of other rows or width; views of an image."""
    views = {
        kind: _views(getattr(offer, kind), array.shape[0], n)
        for kind, array in arrays.items()
        if kind != "logits"
    }
    for kind, array in arrays.items():
        if array.shape[0] != n * views.get(kind, 1):
            raise InputError(
                f"{array.origin}: has {array.shape[0]} rows of {kind}, but the table has {n}: give "
                "a row for every row of the table, in its order"
            )
    if head and offer.logits and arrays["logits"].shape[1] != len(head.weight):
        raise InputError(
            f"{arrays['logits'].origin}: has {arrays['logits'].shape[1]} columns, but the head has "
            f"{len(head.weight)} rows: give the logits of this head"
        )
    if len({*views.values()}) > 1:
        raise InputError(
            f"{offer.features} has {views['features']} views of an image, but {offer.embeddings} "
            f"{views['embeddings']}: give those of the same study"
        )
    if offer.dim and arrays["embeddings"].shape[1] != offer.dim:
        raise InputError(
            f"{arrays['embeddings'].origin}: has {arrays['embeddings'].shape[1]} dimensions, but "
            f"{offer.space} has {offer.dim}: name their space"
        )
    return max(views.values())


def _views(place: str | Stored, rows: int, n: int) -> int:
    """Views of an image in the shards of a study, whose rows are in order; 1 for other arrays."""
    views = rows // n
    if not isinstance(place, str):
        return 1
    try:
        stored = find_arrays(f"{place}:view", 1).whole() if views > 1 else np.zeros(0)
    except InputError:
        return 1
    return views if np.array_equal(stored, np.tile(np.arange(views), n)) else 1


@dataclass
class SourceRows:
    """The images, texts or sounds of a source in the order of their rows."""

    images: list[Candidate] = field(default_factory=list)
    sha256: list[str] = field(default_factory=list)  # empty: not given

    def frame(self) -> pd.DataFrame:
        """The table of the source, without hashes."""
        import pandas as pd

        return pd.DataFrame(self.images)[ROW].astype({"class_index": "int32"})


def list_rows(
    table: Path | Iterable[Row],
    id_column: str,
    label_column: str,
    classes: Classes | None,
    count: int,
) -> SourceRows:
    """Read ids and labels from CSV, Parquet, a folder of Parquet files, a .txt of ids, or rows.

    Without a column of labels, the label is the folder in the id. An id without a folder then has
    none, which is refused. `count`: number of classes.
    """
    listed, known, hashes = SourceRows(), dict[str, int](), list[str]()
    drawn = True
    for where, row in _table_rows(table, id_column, label_column):
        name = row[id_column].strip().lstrip("/")
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
            stated = stated_class(given, where, count)
            if classes is not None and min(stated, index) >= 0 and stated != index:
                raise InputError(
                    f"{where}: class_index {stated} is {classes.names[stated]!r}, but the label is "
                    f"{label!r}, class {index}: correct one of them"
                )
            index = stated
        if not label or label != printable(label):
            raise InputError(
                f"{where}: has no printable label: name the column of labels as --label-column"
            )
        split = stated_split(row, where)
        prompt = row.get("prompt") or prompt_of(label)
        listed.images.append(Candidate(name, label, index, prompt, split))
        drawn &= "fold" in row and (split == "validation") == (row["fold"] == "0")
        if "sha256" in row:
            hashes.append(row["sha256"].strip())
            if bool(hashes[-1]) != bool(hashes[0]):
                raise InputError(
                    f"{where}: sha256 is filled in some rows and empty in others: fill all cells "
                    "of the column, or none"
                )
    if not listed.images:
        raise InputError(f"{_named(table)}: holds no rows")
    listed.sha256 = hashes if any(hashes) else []
    if drawn:  # the manifest of a study that drew the split; it will be drawn again
        listed.images = [image._replace(split="") for image in listed.images]
    return listed


def _named(table: Path | Iterable[Row] | None) -> str:
    return str(table) if isinstance(table, Path) else "ids"


def _table_rows(
    table: Path | Iterable[Row], id_column: str, label_column: str
) -> Iterator[tuple[str, Row]]:
    if not isinstance(table, Path):
        for number, row in enumerate(table):
            yield f"row {number}", row
        return
    if table.suffix.lower() == ".txt":
        for number, line in enumerate(read_lines(table), start=1):
            yield f"{table}: line {number}", {id_column: line}
        return
    parts = in_natural_order(table.glob("*.parquet")) if table.is_dir() else [table]
    if not parts:
        raise InputError(f"{table}: holds no .parquet: name a table, or a folder of such files")
    more = (label_column, "class_index", "prompt", "split", "fold", "sha256")
    for part in parts:
        for number, row in iterate_rows(part, {id_column: "the id, --id-column"}, more):
            yield f"{part}: line {number}", row


@dataclass(frozen=True)
class Head:
    """Weight (C, d) and bias (C,) in float32, class names if they are known, and metadata."""

    origin: str
    weight: np.ndarray
    bias: np.ndarray
    biased: bool  # whether a bias was given
    names: list[str] | None
    sha256: str  # of the model's weights, or of weight and bias
    facts: dict[str, str]


def check_weight(origin: str, weight: np.ndarray) -> None:
    if len(weight) < 2:
        raise InputError(
            f"{origin}: has one row: write two classes, the first with weight and bias 0"
        )
    if not weight.any():
        raise InputError(f"{origin}: holds zeros alone: name the weight of a trained head")


def read_head(offer: Offer, place: str, width: int) -> Head:
    """Read the head of features of this width.

    A weight of shape (d, C), as JAX and Keras have it, is transposed. Without --bias, the only
    array of C numbers in the file of the weight is the bias, if there is one.
    """
    matrix = find_arrays(place, 2)
    if width not in matrix.shape:
        raise InputError(
            f"{matrix.origin}: has shape {matrix.shape}, but the features have {width} columns: "
            "name the head of these features"
        )
    found = matrix.whole()
    weight = np.ascontiguousarray(found if found.shape[1] == width else found.T)
    check_weight(matrix.origin, weight)
    vector = find_arrays(offer.bias, 1) if offer.bias else _bias_beside(matrix, place, len(weight))
    if vector and vector.shape != (len(weight),):
        raise InputError(
            f"{vector.origin}: has shape {vector.shape}, but the head has {len(weight)} rows: "
            "name its bias"
        )
    bias = vector.whole() if vector else np.zeros(len(weight), np.float32)
    facts = carried(place, ("class_names", "keep_classes"), {"keep_classes": "null"})
    stated = facts.pop("class_names", "null")
    names = read_class_list(offer.classes) if offer.classes else _stated_names(place, stated)
    if names is not None and len(names) != len(weight):
        raise InputError(
            f"{offer.classes or place}: has {len(names)} classes, but the head has {len(weight)} "
            "rows: give --classes in the order of these rows"
        )
    facts["weight_dtype"] = stored_precision(weight)
    sha256 = hashlib.sha256(weight.tobytes() + bias.tobytes()).hexdigest()
    return Head(matrix.origin, weight, bias, vector is not None, names, sha256, facts)


def _bias_beside(weight: Stored, place: str, count: int) -> Stored | None:
    """The bias of `count` numbers in the file of a weight; None if there is none."""
    vectors = vectors_beside(place)
    fitting = [vector for vector in vectors if vector.shape == (count,)]
    path, _, name = weight.origin.rpartition(":")
    partner = f"{path}:{re.sub('weight|kernel', 'bias', name)}"
    fitting = [vector for vector in fitting if vector.origin == partner] or fitting
    if not fitting and weight.origin != place:  # a file of one matrix, named without a key
        fitting = vectors
    if len(fitting) > 1:
        raise InputError(
            f"{place}: its bias may be {' or '.join(vector.origin for vector in fitting)}: name "
            "it, as in --bias <path>:<key>"
        )
    return fitting[0] if fitting else None


def _stated_names(place: str, text: str) -> list[str] | None:
    """The class names in the metadata of a head, null for none."""
    try:
        names = TypeAdapter(list[str] | None).validate_json(text)
        return None if names is None else phrases(names)
    except ValueError as error:
        wrong = "not a list of names" if isinstance(error, ValidationError) else error
        raise InputError(
            f"{place}: class_names in its metadata is {text[:100]!r}: {wrong}: save the head anew"
        ) from None


def images_in_shard(width: int, views: int) -> int:
    return max(1, min(ROWS, NUMBERS // width) // views)


def write_shards(
    root: Path, artifact: str, array: Stored, views: int, metadata: dict[str, str], **names: str
) -> Iterator[np.ndarray]:
    """Write features or embeddings as shards of a source; yield the whole images of every shard."""
    images = images_in_shard(array.shape[1], views)
    metadata = metadata | {"images": str(images), "views": str(views)}
    for shard, rows in enumerate(in_shards(array.blocks(), images * views)):
        image_id, view = np.divmod(np.arange(len(rows)), views)
        tensors = {artifact: rows, "image_id": image_id + shard * images}
        tensors["view"] = view.astype(np.int32)
        path = CATALOG[artifact].at(root, shard=f"{shard:05d}", **names)
        write_tensors(path, tensors, metadata)
        yield rows[::views]


def carried(place: str | Stored, keys: Iterable[str], otherwise: dict[str, str]) -> dict[str, str]:
    """Metadata that a study's own artifacts take along; of other arrays: `otherwise`."""
    made: dict[str, str] = {}
    if isinstance(place, str):
        path = Path(place)
        first = min(path.glob("*.safetensors"), default=path) if path.is_dir() else path
        made = read_tensors(first, [])[1] if first.suffix.lower() == ".safetensors" else {}
    own = made if made.get("schema_version") == SCHEMA_VERSION else {}
    kept = {key: own[key] for key in keys if key in own}
    return {"schema_version": SCHEMA_VERSION, **otherwise, **kept}


def hashes_of_ids(images: list[Candidate], content: list[bytes]) -> list[str]:
    """SHA-256 of the smallest id of the rows with the same content, which count as copies.

    Folds and draws follow these hashes. They must not follow the content itself, whose last bits
    depend on the processor.
    """
    smallest: dict[bytes, str] = {}
    for image, key in zip(images, content, strict=True):
        smallest[key] = min(smallest.get(key, image.path), image.path)
    return [hashlib.sha256(smallest[key].encode()).hexdigest() for key in content]


class HeadCheck:
    """Predictions of a head, compared with given logits and with the labels of the images."""

    def __init__(self, head: Head, logits: Stored | None, images: int) -> None:
        self._weight, self._bias, self._logits = head.weight, head.bias, logits
        self._given = None if logits is None else in_shards(logits.blocks(), images)
        self.max_error = 0.0
        self.predicted: list[np.ndarray] = []

    def add(self, features: np.ndarray) -> None:
        """Check the next rows; InputError if W f + b is not the given logits."""
        logits = features @ self._weight.T + self._bias
        self.predicted.append(logits.argmax(axis=1).astype(np.int32))
        if self._given is None or self._logits is None:
            return
        given = next(self._given)
        gaps, spread = np.abs(given - logits).max(axis=1), float(given.std())
        gap = float(gaps.max())
        if gap > GAP * spread:
            row = sum(map(len, self.predicted[:-1])) + int(gaps.argmax())
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


def write_classes(root: Path, names: list[str], origin: Path) -> None:
    """Write the class list of a source; synsets stay if `origin` is a CSV of the same names."""
    of_csv = origin.suffix.lower() == ".csv" and origin.is_file()
    if of_csv and read_classes(origin).names == names:
        return write_bytes(classes_path(root), origin.read_bytes())
    rows = [(index, "", name) for index, name in enumerate(names)]
    write_csv(classes_path(root), ["class_index", "synset", "name"], rows)


def study_of(root: Path) -> str | None:
    """A study of all models and spaces of a source as YAML; None without a model or a space."""
    import yaml

    models, spaces = towers_in(root)
    if not (models and spaces):
        return None
    data = {"source": "features", "root": str(root), "classes": str(classes_path(root))}
    study = {"study": root.name, "models": models, "spaces": spaces, "data": data}
    _, views = sizes_of(root, "features", model=models[0])
    study |= {"extraction": {"views": views}, "pictures": {"renderer": "words"}}
    return yaml.safe_dump(study, sort_keys=False)
