"""Save features that somebody has as a folder that a study reads."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from itertools import chain
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from singflow.artifacts.catalog import CATALOG
from singflow.artifacts.files import sha256_of, staged, write_bytes
from singflow.artifacts.shards import in_shards
from singflow.artifacts.tables import write_csv, write_parquet
from singflow.artifacts.tensors import SCHEMA_VERSION, stored_precision, write_tensors
from singflow.config.reading import read_yaml
from singflow.config.sections import PACKAGE_DATA, ModelName, Name, at_hand, phrases
from singflow.data.arrays import as_array, head_of, images_of
from singflow.data.imported import read_source
from singflow.data.manifest import (
    INTEGERS,
    MANIFEST_COLUMNS,
    Classes,
    head_classes,
    in_plain_words,
    prompt_of,
    read_classes,
)
from singflow.errors import InputError, printable

if TYPE_CHECKING:
    import pandas as pd

    from singflow.data.arrays import Linear, Rows

IMAGENET = Path("config/vocab/imagenet_1k.csv")
SHARD_ROWS, SHARD_NUMBERS = 2**14, 2**25  # of a shard, at most
FEW = 5  # images of a label, below which their predictions say nothing about the order of classes
GAP = 0.05  # of the logits' standard deviation: float16 features give 0.01, another head 1
CLASSES = "classes.csv"
UNNAMED = "class {}"  # the name of a class that has none


def save_features(
    folder: str | Path,
    ids: Iterable[Any],
    labels: Iterable[Any] | None,
    features: Rows | None,
    head: Linear | None,
    class_names: Sequence[str] | None = None,
    embeddings: Rows | None = None,
    space: str | None = None,
    *,
    model: str | None = None,
    logits: Rows | None = None,
    split: Iterable[str] | None = None,
    weights_sha256: str | None = None,
) -> list[str]:
    """Write features that you have as a folder that a study reads, with `data.source: features`.

    A folder that holds such features already gets the model, and the embeddings of the space,
    beside those that it has. It keeps its labels; the ids must be the same. A call that fails or is
    killed leaves no part of a model or a space.

    Parameters
    ----------
    folder : str or Path
        The study's `data.root`, such as checkpoints/features/birds.
    ids : sequence of n texts
        A name for each row, such as the path of an image.
    labels : sequence of n integers or texts, or None
        Integers are rows of the head. A text that names no class of the head is a label, too. None:
        the folder has them.
    features : array (n, d) or (n, v, d), or function, or None
        Inputs of the head, of NumPy, PyTorch, h5py or a memory map. With v views of an image, the
        first is the image itself. A function yields arrays of rows, and memory does not grow with
        n. None, with the head: the embeddings of another space alone are added.
    head : pair of arrays (C, d) and (C,), array (C, d), or torch.nn.Linear, or None
        The head: weight, and bias if it has one.
    class_names : sequence of str, optional
        Names of the C classes of the head, in the order of its rows.
    embeddings : array (n, m) or (n, v, m), or function, optional
        Embeddings of the same rows, in the same order.
    space : str, optional
        Name of the space of the embeddings.
    model : str, optional
        Name of the model; by default that of the folder. In a study it is features/<name>. A name
        of a packaged model, or with a slash, such as timm/resnet50.a1_in1k, stays as it is.
    logits : array (n, C), or function, optional
        The model's logits, which W f + b must equal. An array of a square weight needs them.
    split : sequence of n texts, optional
        train or validation. By default the study draws them.
    weights_sha256 : str, optional
        Hash of all weights of the model, as in `Collected`; by default a hash of the head.

    Returns
    -------
    list of str
        What was written, a line for each part.

    Raises
    ------
    InputError
        When shapes, names or ids do not fit each other or the folder, or logits are not W f + b.
    """
    root = Path(folder).resolve()
    model = _model_name(root.name if model is None else model)
    if (features is None) != (head is None):
        raise InputError("features and head belong together: give both, or neither")
    if (embeddings is None) != (space is None):
        raise InputError("space and embeddings belong together: give both, or neither")
    if space is not None:
        _checked_name(Name, space)
    new = not (root.exists() and any(root.iterdir()))
    if new and (labels is None or features is None):
        raise InputError(
            f"{folder}: holds no features yet: give features, head, and labels (for collect(), let "
            "the loader give them); more models and spaces can be added later"
        )
    if not (new or (root / CLASSES).is_file()):
        raise InputError(
            f"{folder}: holds other files: save into another folder; the results of a study are a "
            "source as they are"
        )
    paths = _checked_ids(ids)
    manifest, of_source = (None, None) if new else (read_source(root), read_classes(root / CLASSES))
    if manifest is not None and manifest["path"].tolist() != paths:
        raise InputError(
            f"ids: {folder} has other ids, or another order: give the same, or another folder"
        )
    said = list[str]()
    with staged(root) as made:
        if features is not None and head is not None:
            width, at_once, shards = _opened("features", features)
            weight, bias = head_of(head, width)
            if len(weight) == width and logits is None and not hasattr(head, "weight"):
                raise InputError(
                    "head: its weight is square, and could be stored as (C, d) or (d, C): give the "
                    "model's logits, too"
                )
            unnamed = [UNNAMED.format(row) for row in range(len(weight))]
            if class_names is None:
                class_names = of_source.names if of_source else unnamed
            names = named_classes(class_names, weight, "the head")
            index = {in_plain_words(name).lower(): row for row, name in enumerate(names)}
            classes = of_source or Classes(names, index)
            if manifest is None:
                manifest = _manifest(paths, labels, classes, split)
            own_names = names if names != classes.names else None
            check = _HeadCheck(weight, bias, logits, at_once)
            sha256 = weights_sha256 or hashlib.sha256(weight.tobytes() + bias.tobytes()).hexdigest()
            facts = {"schema_version": SCHEMA_VERSION, "weights_sha256": sha256}
            content = _write(made, "features", shards, paths, facts, check.add, model=model)
            facts |= {
                "class_names": json.dumps(own_names),
                "keep_classes": "null",
                "unnamed": json.dumps(names[0] == unnamed[0]),
                "weight_dtype": stored_precision(weight),
            }
            tensors = {"weight": weight, "bias": bias}
            write_tensors(CATALOG["head"].at(made, model=model), tensors, facts)
            told = check.told(head_classes(manifest, own_names), names)
            said.append(f"{model}: {width} features, {len(weight)} classes, {told}")
        if embeddings is not None and space is not None:
            width, _, shards = _opened("embeddings", embeddings)
            facts = {"schema_version": SCHEMA_VERSION}
            content = _write(made, "embeddings", shards, paths, facts, _no_zeros, space=space)
            said.append(f"{space}: embeddings of {width} dimensions")
        if not new or manifest is None:
            _add(made, root)
            return said
        manifest["sha256"] = _hashes_of_ids(paths, content)
        write_parquet(CATALOG["manifest"].at(made), manifest)
        _write_classes(made, classes.names)
        copies = len(manifest) - manifest["sha256"].nunique()
        said.append(f"{len(manifest)} rows; {copies} of them are copies of others")
        made.rename(root)
    return said


def named_classes(names: Sequence[str], weight: Sized, of: str) -> list[str]:
    """The names of a head's classes; InputError if they are not one for each row of its weight."""
    try:
        found = phrases([*names])
    except (AttributeError, TypeError):
        raise InputError("class_names: are not texts: give str(name) for each class") from None
    except ValueError as error:
        raise InputError(f"class_names: {error}") from None
    if len(found) != len(weight):
        raise InputError(
            f"class_names: {len(found)} names, but {of} has {len(weight)} rows: name its classes "
            "in their order"
        )
    return found


def _checked_name(kind: Any, value: str) -> str:
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        said = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise InputError(f"{value}: {said}") from None


def _model_name(name: str) -> str:
    known = "/" in name or name in read_yaml(PACKAGE_DATA / "models.yaml")
    return _checked_name(ModelName, name if known else f"features/{name}")


def _listed(name: str, values: Any, count: int | None = None) -> list[Any]:
    """The values as objects of Python; InputError unless there are `count`."""
    found = as_array(name, values).tolist() if hasattr(values, "shape") else [*values]
    if count is not None and len(found) != count:
        raise InputError(f"{name}: {len(found)} for {count} ids: give one for each id")
    return found


def _checked_ids(ids: Iterable[Any]) -> list[str]:
    names = list[str]()
    for row, given in enumerate(_listed("ids", ids)):
        known = isinstance(given, str | int | np.integer | PurePath)
        name = str(given).strip().lstrip("/") if known else ""
        if not name or name != printable(name) or ".." in PurePath(name).parts:
            raise InputError(
                f"ids: row {row}: {given!r} is no text, is empty, unprintable or has ..: rename it"
            )
        names.append(name)
    if not names:
        raise InputError("ids: none are given: give one for each row of the features")
    if len({*names}) < len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise InputError(f"ids: {twice!r} is given twice: leave one of the two out everywhere")
    return names


def _manifest(
    ids: list[str], labels: Iterable[Any] | None, classes: Classes, split: Iterable[str] | None
) -> pd.DataFrame:
    """The table of images, without hashes; build_manifest draws the folds, and the split."""
    import pandas as pd

    count = len(ids)
    found = [_label(row, one, classes) for row, one in enumerate(_listed("labels", labels, count))]
    table = pd.DataFrame(found, columns=["label", "class_index"])
    table = table.assign(image_id=range(count), path=ids, fold=0, width=0, height=0, sha256="")
    table["split"] = [""] * count if split is None else _listed("split", split, count)
    if wrong := {*table["split"]} - {"", "train", "validation"}:
        raise InputError(f"split: {wrong.pop()!r} is neither train nor validation: correct it")
    table["prompt"] = [*map(prompt_of, table["label"])]
    return table[[*MANIFEST_COLUMNS]].astype(INTEGERS)


def _label(row: int, given: Any, classes: Classes) -> tuple[str, int]:
    """The label of a row and the row of the head; -1 for none."""
    if isinstance(given, int | np.integer):
        if not 0 <= given < len(classes.names):
            raise InputError(
                f"labels: row {row} is {given}, but the head has the rows 0 to "
                f"{len(classes.names) - 1}: give a text where a row has none of its classes"
            )
        return classes.names[int(given)], int(given)
    label, index = classes.label_of(given) if isinstance(given, str) else ("", -1)
    if not label or label != printable(label):
        raise InputError(f"labels: row {row} is {given!r}: give an integer or a printable text")
    return label, index


def _opened(name: str, values: Rows) -> tuple[int, int, Iterator[np.ndarray]]:
    """Width of rows, images in a shard, and the shards (images, views, width)."""
    blocks = images_of(name, values)
    _, views, width = (first := next(blocks)).shape
    at_once = max(1, min(SHARD_ROWS, SHARD_NUMBERS // width) // views)
    return width, at_once, in_shards(chain([first], blocks), at_once)


def _write(
    root: Path,
    artifact: str,
    shards: Iterable[np.ndarray],
    ids: list[str],
    facts: dict[str, str],
    look: Callable[[int, np.ndarray], dict[str, str]],
    **names: str,
) -> list[bytes]:
    """Write shards; hashes of view 0 of each image. look: at a first image and rows, for facts."""
    content: list[bytes] = []
    for shard, rows in enumerate(shards):
        start, (_, views, width) = len(content), rows.shape
        content += [hashlib.sha256(row.tobytes()).digest() for row in rows[:, 0]]
        made = facts | look(start, rows) | {"sha256": hashlib.sha256(rows.tobytes()).hexdigest()}
        image_id, view = np.divmod(np.arange(len(rows) * views), views)
        tensors = {artifact: rows.reshape(-1, width), "image_id": image_id + start}
        tensors["view"] = view.astype(np.int32)
        write_tensors(CATALOG[artifact].at(root, shard=f"{shard:05d}", **names), tensors, made)
    if len(content) != len(ids):
        raise InputError(
            f"{artifact}: has {len(content)} rows for {len(ids)} ids: give one for each id, in "
            "their order"
        )
    return content


def _no_zeros(start: int, rows: np.ndarray) -> dict[str, str]:
    largest = np.abs(rows).max(axis=2).min(axis=1)
    if not largest.all():
        raise InputError(
            f"embeddings: row {start + int(np.argmin(largest))} holds zeros alone, which have no "
            "direction: compute it anew, or leave the row out everywhere"
        )
    return {}


def _hashes_of_ids(ids: list[str], content: list[bytes]) -> list[str]:
    """SHA-256 of the smallest id among rows of equal content, which count as copies."""
    # Folds follow these hashes: the last bits of the content depend on the processor.
    smallest: dict[bytes, str] = {}
    for name, key in zip(ids, content, strict=True):
        smallest[key] = min(smallest.get(key, name), name)
    return [hashlib.sha256(smallest[key].encode()).hexdigest() for key in content]


class _HeadCheck:
    """Predictions of a head on view 0, whose logits are compared with the given ones."""

    def __init__(
        self, weight: np.ndarray, bias: np.ndarray, logits: Rows | None, at_once: int
    ) -> None:
        self._weight, self._bias, self._gap = weight, bias, 0.0
        self._predicted: list[np.ndarray] = []
        self._given = None if logits is None else in_shards(images_of("logits", logits), at_once)

    def add(self, start: int, rows: np.ndarray) -> dict[str, str]:
        """Check the next images; InputError if W f + b is not the given logits."""
        logits = rows[:, 0] @ self._weight.T + self._bias
        self._predicted.append(logits.argmax(axis=1))
        if self._given is None:
            return {"head_max_error": "null"}
        given = next(self._given, np.empty(0))
        if given.shape != (len(rows), 1, len(self._bias)):
            raise InputError(
                f"logits: have the shape {given.shape} where features and head need ({len(rows)}, "
                f"1, {len(self._bias)}) (images, views, classes): give the logits (n, C)"
            )
        gaps = np.abs(given[:, 0] - logits).max(axis=1)
        gap, spread = float(gaps.max()), float(given.std())
        if gap > GAP * spread:
            raise InputError(
                f"logits: row {start + int(gaps.argmax())} differs from W f + b by {gap:.2g}, and "
                f"logits have a standard deviation of {spread:.2g}: the features are not the input "
                "of this head, rows or classes are in another order, or the weight is stored as "
                "(d, C): give weight.T"
            )
        self._gap = max(self._gap, gap)
        return {"head_max_error": json.dumps(gap)}

    def told(self, class_index: np.ndarray, names: list[str]) -> str:
        """The top-1 and the largest gap in words; InputError if another order fits far better."""
        from scipy.optimize import linear_sum_assignment

        gap = "" if self._given is None else f"; W f + b is within {self._gap:.1e} of the logits"
        if not (known := class_index >= 0).any():
            return f"top-1 unknown{gap}"
        actual, said = class_index[known], np.concatenate(self._predicted)[known]
        top1 = (actual == said).mean()
        present, rows = np.unique(actual, return_inverse=True)
        counts = np.zeros((len(present), len(self._bias)))
        np.add.at(counts, (rows, said), 1)
        labels, places = linear_sum_assignment(-counts)
        best = counts[labels, places].sum() / len(actual)
        if len(actual) >= FEW * len(present) and best >= max(0.5, 2 * top1):
            worst = int(np.argmax(counts[labels, places] * (present[labels] != places)))
            raise InputError(
                f"class_names: top-1 is {top1:.3f}, but would be {best:.3f} in another order: most "
                f"rows of {names[present[labels[worst]]]!r} are predicted as "
                f"{names[places[worst]]!r}: give class_names in the order of the head's rows"
            )
        return f"top-1 {top1:.3f}{gap}"


def _write_classes(made: Path, names: list[str]) -> None:
    """Write the class list. ImageNet's keeps its synsets, which a space may know sentences of."""
    path = at_hand(IMAGENET)
    if path.is_file() and read_classes(path).names == names:
        return write_bytes(made / CLASSES, path.read_bytes())
    rows = [(index, "", name) for index, name in enumerate(names)]
    write_csv(made / CLASSES, ["class_index", "synset", "name"], rows)


def _add(made: Path, root: Path) -> None:
    """Move what was made; heads first, as a model with features is taken for whole."""
    places = {
        (path if artifact == "head" else path.parent).relative_to(made): None
        for artifact in ("head", "features", "embeddings")
        for path, _ in CATALOG[artifact].among(made)
    }
    for place in places:
        if (root / place).exists() and _contents(root / place) != _contents(made / place):
            raise InputError(
                f"{root / place}: holds other values already: remove it, or give another name"
            )
    for place in places:
        if not (root / place).exists():
            (root / place).parent.mkdir(parents=True, exist_ok=True)
            (made / place).rename(root / place)


def _contents(place: Path) -> dict[str, str]:
    files = (path for path in [place, *place.rglob("*")] if path.is_file())
    return {str(path.relative_to(place)): sha256_of(path) for path in files}
