"""Shards of features and embeddings, and the manifest that lists their images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from singflow.artifacts.catalog import CATALOG
from singflow.artifacts.files import FIX
from singflow.artifacts.made import Made, differences
from singflow.artifacts.tables import check_columns, read_parquet
from singflow.artifacts.tensors import Tensors, read_tensors
from singflow.errors import InputError

if TYPE_CHECKING:
    import pandas as pd


LARGEST = float(np.finfo(np.float32).max)  # sums of squares of larger numbers overflow
ROWS_AT_ONCE = 4096  # features in memory
INDEX = ["image_id", "class_index", "label", "split", "fold"]


def read_index(path: Path, *more: str) -> pd.DataFrame:
    """Read the columns that most analyses need. They take a third of the manifest's memory."""
    return _counted(path, read_parquet(path, "manifest", [*INDEX, *more]))


def read_manifest(path: Path) -> pd.DataFrame:
    """Read the whole manifest. A path that leads out of the data root raises InputError."""
    manifest = _counted(path, read_parquet(path, "manifest"))
    if "archive" in manifest:
        check_columns(path, manifest, "archived")
    for column in {"path", "archive"} & set(manifest):
        outside = manifest[column].str.contains(r"^/|(?:^|/)\.\.(?:/|$)", na=True)
        for place in manifest.loc[outside, column]:
            raise InputError(f"{path}: {place!r} leads out of the data root: {FIX}")
    if "archive" in manifest and (manifest[["offset", "bytes"]] < 0).to_numpy().any():
        raise InputError(f"{path}: has a place in an archive below 0: {FIX}")
    return manifest


def _counted(path: Path, manifest: pd.DataFrame) -> pd.DataFrame:
    if not np.array_equal(manifest["image_id"], np.arange(len(manifest))):
        raise InputError(f"{path}: image_id does not count 0, 1, 2, ...: {FIX}")
    for column in manifest.columns[manifest.isna().any()]:
        raise InputError(f"{path}: has rows without {column}: {FIX}")
    manifest.attrs = {}  # pandas would take the state of the archives into every later table
    return manifest


def shard_path(folder: Path, shard: int) -> Path:
    return folder / f"shard-{shard:05d}.safetensors"


def count_shards(folder: Path) -> int:
    """Number of shards in a folder."""
    return len(list(folder.glob("shard-*.safetensors")))


def towers_in(folder: Path) -> tuple[list[str], list[str]]:
    """Sorted names of the models and of the spaces of which a results folder has shards."""
    models = {names["model"] for _, names in CATALOG["features"].among(folder)}
    spaces = {names["space"] for _, names in CATALOG["embeddings"].among(folder)}
    return sorted(models), sorted(spaces)


def shard_rows(n_images: int, shard: int, shards: int) -> range:
    """Image ids of one shard: consecutive. The sizes of shards differ by at most one."""
    if shards > n_images:
        raise InputError(
            f"extraction.shards is {shards}, but there are only {n_images} images: lower it"
        )
    return range(n_images * shard // shards, n_images * (shard + 1) // shards)


def iterate_shards(
    folder: Path, tensor: str, shards: int, manifest: pd.DataFrame, made: Made | None = None
) -> Iterator[Tensors]:
    """Yield `tensor`, `image_id` and `view` by shard; InputError unless each view 0 occurs once."""
    seen = np.zeros(len(manifest), dtype=np.int64)
    for shard in range(shards):
        path = shard_path(folder, shard)
        tensors, metadata = read_tensors(path, [tensor, "image_id", "view"])
        if made and (words := differences(Made.read(metadata), made)):
            raise InputError(
                f"{path}: was made with {words} of the head: remove the folder and run the "
                "workflow again"
            )
        identifiers = tensors["image_id"]
        if len({len(array) for array in tensors.values()}) > 1:
            raise InputError(f"{path}: its tensors differ in length: {FIX}")
        if len(identifiers) and not 0 <= identifiers.min() <= identifiers.max() < len(manifest):
            raise InputError(f"{path}: holds images that the manifest does not: {FIX}")
        wide = np.promote_types(tensors[tensor].dtype, np.float32)
        if wide == np.float64 and np.abs(tensors[tensor]).max(initial=0) > LARGEST:
            raise InputError(f"{path}: {tensor} holds values beyond float32: {FIX}")
        np.add.at(seen, identifiers[tensors["view"] == 0], 1)
        yield tensors | {tensor: tensors[tensor].astype(wide, copy=False)}
    if not (seen == 1).all():
        wrong = int(np.flatnonzero(seen != 1)[0])
        raise InputError(
            f"{folder}: image {wrong} occurs {seen[wrong]} times instead of once: remove the "
            "folder and run the workflow again"
        )


def in_blocks(rows: np.ndarray, size: int = ROWS_AT_ONCE) -> list[np.ndarray]:
    """Split rows, in their order, into at least one block. Blocks have nearly equal sizes."""
    return np.array_split(rows, max(1, -(-len(rows) // size)))


def iterate_whole(
    folder: Path,
    tensor: str,
    shards: int,
    manifest: pd.DataFrame,
    *,
    size: int | None = None,
    images: np.ndarray | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield image ids and their rows of view 0, `size` at a time. images: a mask over image ids."""
    for shard in iterate_shards(folder, tensor, shards, manifest):
        whole = shard["view"] == 0
        rows = np.flatnonzero(whole if images is None else whole & images[shard["image_id"]])
        for block in in_blocks(rows, size or max(1, len(rows))):
            yield shard["image_id"][block], shard[tensor][block]


def in_shards(blocks: Iterable[np.ndarray], count: int) -> Iterator[np.ndarray]:
    """Blocks cut and joined to `count` rows; the last may be smaller."""
    waiting: list[np.ndarray] = []
    for block in blocks:
        rest = block
        while len(rest):
            space = count - sum(map(len, waiting))
            waiting.append(rest[:space])
            rest = rest[space:]
            if sum(map(len, waiting)) == count:
                yield np.concatenate(waiting)
                waiting = []
    if waiting:
        yield np.concatenate(waiting)


def label_rows(manifest: pd.DataFrame, labels: Sequence[str], origin: Path) -> np.ndarray:
    """Index into `labels` for every image. The manifest must have exactly these labels."""
    import pandas as pd

    rows = pd.Index(labels).get_indexer(pd.Index(manifest["label"]))
    if rows.min(initial=0) < 0 or len(set(rows)) < len(labels):
        raise InputError(f"{origin}: its labels are not those of the manifest: {FIX}")
    return rows


def iterate_pairs(
    features: Path, embeddings: Path, shards: int, manifest: pd.DataFrame
) -> Iterator[tuple[Tensors, np.ndarray]]:
    """Yield every shard of features with the embeddings of the same images and views."""
    lefts = iterate_shards(features, "features", shards, manifest)
    rights = iterate_shards(embeddings, "embeddings", shards, manifest)
    for shard, (left, right) in enumerate(zip(lefts, rights, strict=True)):
        if not all(np.array_equal(left[name], right[name]) for name in ("image_id", "view")):
            places = f"{shard_path(features, shard)} and {shard_path(embeddings, shard)}"
            raise InputError(
                f"{places} hold different rows: remove both and run the workflow again"
            )
        yield left, right["embeddings"]
