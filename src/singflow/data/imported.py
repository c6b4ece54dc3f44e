"""Features and embeddings that other programs computed, as a study reads them.

A source is a folder that `singflow import_features` wrote: rows.parquet, classes.csv, and heads,
features and embeddings under the names that they have in results.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from singflow.artifacts.catalog import CATALOG
from singflow.artifacts.tables import count_rows, read_parquet
from singflow.artifacts.tensors import read_header, read_tensors
from singflow.data.manifest import Candidate, Inspected
from singflow.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

ROWS = 2**14  # of a shard of a source
# Metadata that features and embeddings take along from a source.
CARRIED = ("tower", "weights_sha256", "classifier_sha256", "decode", "precision", "compile")


def rows_path(root: Path) -> Path:
    return root / "rows.parquet"


def classes_path(root: Path) -> Path:
    return root / "classes.csv"


def read_rows(root: Path) -> pd.DataFrame:
    """The table of a source: path (id), label, class_index, prompt, split, sha256."""
    return read_parquet(rows_path(root), "imported_rows")


def listed_rows(root: Path) -> tuple[list[Candidate], dict[str, Inspected]]:
    """The images of a source as candidates of a manifest, and what is known of their contents."""
    rows = read_rows(root)
    names = ["path", "label", "class_index", "prompt", "split"]
    found = [Candidate(*row) for row in rows[names].itertuples(index=False)]
    hashes = zip(rows["path"], rows["sha256"], strict=True)
    return found, {path: Inspected(0, 0, sha256, 0) for path, sha256 in hashes}


def imported_shard(
    root: Path, paths: Iterable[str], artifact: str, **names: str
) -> tuple[np.ndarray, dict[str, Any]]:
    """Features or embeddings of the images with these ids, in their order, and their metadata."""
    import pandas as pd

    rows = pd.Index(read_rows(root)["path"]).get_indexer(pd.Index(paths))
    if (rows < 0).any():
        raise InputError(f"{rows_path(root)}: lacks images of the manifest: import it again")
    found = np.empty((0, 0), np.float32)
    for shard in np.unique(rows // ROWS):
        tensors, made = read_tensors(CATALOG[artifact].at(root, shard=f"{shard:05d}", **names), [
            artifact
        ])  # fmt: skip
        here = rows // ROWS == shard
        if not len(found):
            found = np.empty((len(rows), tensors[artifact].shape[1]), np.float32)
        found[here] = tensors[artifact][rows[here] % ROWS]
    return found, {key: made[key] for key in CARRIED if key in made}


def towers_of_source(root: Path) -> tuple[list[str], list[str]]:
    """Sorted names of the models and spaces that a source has whole."""
    if not rows_path(root).is_file():
        return [], []
    last = f"{(count_rows(rows_path(root)) - 1) // ROWS:05d}"
    models = {names["model"] for _, names in CATALOG["head"].among(root)}
    found = CATALOG["embeddings"].among(root)
    return sorted(models), sorted({names["space"] for _, names in found if names["shard"] == last})


def check_source(root: Path, models: list[str], spaces: list[str]) -> None:
    """Refuse a folder that is no source, or lacks a model or space of the study."""
    if not rows_path(root).is_file():
        raise InputError(
            f"data.root {root}: holds no rows.parquet: name a folder that `singflow "
            "import_features` wrote"
        )
    for kind, wanted, found in zip(
        ("models", "spaces"), (models, spaces), towers_of_source(root), strict=True
    ):
        if missing := [name for name in wanted if name not in found]:
            raise InputError(
                f"data.root {root}: has nothing of {', '.join(missing)}; its {kind} are "
                f"{', '.join(found) or 'none'}: import them with `singflow import_features`"
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
