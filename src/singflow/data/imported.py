"""Features and embeddings that other programs computed, as a study reads them.

A source is a folder that `singflow import_features` wrote: rows.parquet, classes.csv, and heads,
features and embeddings under the names that they have in results. Every tensor file states the hash
of the ids that its rows belong to, and is read only together with these ids.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from singflow.artifacts.catalog import CATALOG
from singflow.artifacts.files import Facts, read_header
from singflow.artifacts.shards import towers_in
from singflow.artifacts.tables import read_parquet
from singflow.artifacts.tensors import Tensors, read_tensors
from singflow.data.manifest import Candidate, Inspected
from singflow.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from singflow.config.registry import ModelEntry

ROW = ["path", "label", "class_index", "prompt", "split"]  # columns, as of a Candidate
ROWS, NUMBERS = 2**14, 2**25  # of a shard of a source, at most
# Metadata that features and embeddings take along from a source.
CARRIED = ("tower", "weights_sha256", "classifier_sha256", "decode", "precision")


def rows_path(root: Path) -> Path:
    return root / "rows.parquet"


def classes_path(root: Path) -> Path:
    return root / "classes.csv"


def read_source(root: Path) -> pd.DataFrame:
    """The table of a source: path (id), label, class_index, prompt, split, sha256."""
    return read_parquet(rows_path(root), "imported_rows")


def hash_of_ids(ids: Iterable[str]) -> str:
    """SHA-256 of the ids of a source in their order."""
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()


def read_part(
    root: Path, artifact: str, tensors: list[str], rows_sha256: str = "", **names: str
) -> tuple[Tensors, Facts]:
    """Tensors and metadata of a file of a source; InputError if it is of other rows.

    rows_sha256: hash_of_ids() of the source, if it is known.
    """
    path = CATALOG[artifact].at(root, **names)
    found, made = read_tensors(path, tensors)
    rows = rows_path(root)
    if made.get("rows_sha256") != (
        rows_sha256 or hash_of_ids(read_parquet(rows, "imported_rows", ["path"])["path"])
    ):
        place = path if artifact == "head" else path.parent
        raise InputError(
            f"{path}: was not imported with the ids of {rows}: remove {place}, and import it again"
        )
    return found, made


def listed_rows(root: Path) -> tuple[list[Candidate], dict[str, Inspected]]:
    """The images of a source as candidates of a manifest, and what is known of their contents."""
    rows = read_source(root)
    found = [Candidate(*row) for row in rows[ROW].itertuples(index=False)]
    hashes = zip(rows["path"], rows["sha256"], strict=True)
    return found, {path: Inspected(0, 0, sha256, 0) for path, sha256 in hashes}


def imported_shard(
    root: Path, paths: Iterable[str], artifact: str, **names: str
) -> tuple[np.ndarray, dict[str, Any]]:
    """Features or embeddings (views of an image in turn) of the images with these ids; metadata."""
    import pandas as pd

    ids = read_source(root)["path"]
    images = pd.Index(ids).get_indexer(pd.Index(paths))
    if (images < 0).any():
        raise InputError(f"{rows_path(root)}: lacks images of the manifest: import it again")
    state = hash_of_ids(ids)
    count, views = sizes_of(root, artifact, state, **names)
    rows, count = (images[:, None] * views + np.arange(views)).ravel(), count * views
    found = np.empty((0, 0), np.float32)
    for shard in np.unique(rows // count):
        tensors, _ = read_part(root, artifact, [artifact], state, shard=f"{shard:05d}", **names)
        here = rows // count == shard
        if not len(found):
            found = np.empty((len(rows), tensors[artifact].shape[1]), np.float32)
        found[here] = tensors[artifact][rows[here] % count]
    return found, facts_of(root, artifact, **names)


def facts_of(root: Path, artifact: str, **names: str) -> dict[str, str]:
    """Metadata that features or embeddings of a study take along from a source."""
    made = read_tensors(CATALOG[artifact].at(root, shard="00000", **names), [])[1]
    return {"weights_sha256": "imported"} | {key: made[key] for key in CARRIED if key in made}


def sizes_of(root: Path, artifact: str, rows_sha256: str = "", **names: str) -> tuple[int, int]:
    """Images in every shard of a source but the last, and views of an image, by its first shard."""
    made = read_part(root, artifact, [], rows_sha256, shard="00000", **names)[1]
    return int(made["images"]), int(made["views"])


def with_sizes(root: Path, models: dict[str, ModelEntry]) -> dict[str, ModelEntry]:
    """The entries with the width and the number of classes of the heads in a source."""
    found = dict(models)
    for name, entry in models.items():
        head, _ = read_part(root, "head", ["weight"], model=name)
        classes, width = head["weight"].shape
        found[name] = entry.model_copy(update={"classes": classes, "feature_dim": width})
    return found


def own_class_names(root: Path, model: str) -> list[str] | None:
    """Class names of a whole head of a source, if they are not those of the source."""
    made = read_part(root, "head", [], model=model)[1]
    of_part = made.get("keep_classes", "null") != "null"  # the registry says which
    return None if of_part else made.parsed("class_names", list | None)


def check_source(root: Path, models: list[str], spaces: list[str], views: int) -> None:
    """Refuse a folder that is no source, or lacks a model, a space or views of the study."""
    if not rows_path(root).is_file():
        raise InputError(
            f"data.root {root}: holds no rows.parquet: name a folder that `singflow "
            "import_features` wrote"
        )
    held_models, held_spaces = towers_in(root)
    for kind, wanted, found in (("models", models, held_models), ("spaces", spaces, held_spaces)):
        if missing := [name for name in wanted if name not in found]:
            raise InputError(
                f"data.root {root}: has nothing of {', '.join(missing)}; its {kind} are "
                f"{', '.join(found) or 'none'}: import them with `singflow import_features`"
            )
    parts = [("features", {"model": model}) for model in models]
    parts += [("embeddings", {"space": space}) for space in spaces]
    state = hash_of_ids(read_source(root)["path"])
    for artifact, names in parts:
        if (held := sizes_of(root, artifact, state, **names)[1]) != views:
            place = CATALOG[artifact].at(root, shard="00000", **names)
            raise InputError(
                f"{place}: holds {held} views of an image: write extraction.views: {held}"
            )


def source_fingerprint(root: Path) -> str | None:
    """SHA-256 of a source's table and of the headers of its tensors; None if it is not here."""
    if not rows_path(root).is_file():
        return None
    digest = hashlib.sha256(rows_path(root).read_bytes())
    for artifact in ("head", "features", "embeddings"):
        for path, _ in CATALOG[artifact].among(root):
            facts = [str(path.relative_to(root)), path.stat().st_size, read_header(path).decode()]
            digest.update(json.dumps(facts).encode())
    return digest.hexdigest()
