"""Images whose features and embeddings are arrays in memory, or functions that yield them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy

from singflow.artifacts.shards import in_shards
from singflow.data.arrays import as_array, images_at_once, images_of
from singflow.errors import InputError
from singflow.translators.crossfit import Split, split

if TYPE_CHECKING:
    from singflow.artifacts.tensors import Tensors
    from singflow.data.arrays import Rows
    from singflow.translators.reference import Pool


@dataclass(frozen=True)
class ArrayImages:
    """Images (see translators/reference.py) with values in memory.

    names, values: of features and embeddings, the arguments. shapes: of a row of both, (views,
    width). content: (n,), the same for images with equal embeddings.
    """

    names: tuple[str, str]
    values: tuple[Rows, Rows]
    shapes: tuple[tuple[int, int], tuple[int, int]]
    content: list[bytes]
    manifest: pd.DataFrame

    @classmethod
    def read(cls, features: Rows, embeddings: Rows, of: str = "") -> ArrayImages:
        """Look at all rows once.

        Raises InputError for rows that differ in shape, are not finite, or are not the same in
        number. of: begins the names of the arguments.
        """
        names = (f"{of} features".strip(), f"{of} embeddings".strip())
        shapes, counts, content = [], [0, 0], []
        for place, (name, values) in enumerate(zip(names, (features, embeddings), strict=True)):
            for block in images_of(name, values):
                counts[place] += len(block)
                if place:
                    rows = (row.tobytes() for row in block)
                    content += [hashlib.blake2b(row, digest_size=16).digest() for row in rows]
            shapes.append(block.shape[1:])
        if counts[0] != counts[1] or shapes[0][0] != shapes[1][0]:
            sizes = [
                f"{name} is ({n}, {', '.join(map(str, shape))})"
                for name, n, shape in zip(names, counts, shapes, strict=True)
            ]
            raise InputError(
                f"{' and '.join(sizes)} (images, views, width): give the same images and views in "
                "both, in the same order"
            )
        manifest = pd.DataFrame({"split": "train", "fold": np.zeros(counts[0], np.int32)})
        both = features, embeddings
        return cls(names, both, (shapes[0], shapes[1]), content, manifest)

    @property
    def features(self) -> str:
        """The argument that holds the features."""
        return self.names[0]

    def __len__(self) -> int:
        return len(self.content)

    def placed(self, fold: np.ndarray, cluster: np.ndarray) -> ArrayImages:
        """The same images in these folds (n,) and clusters (n,)."""
        placed = self.manifest.assign(
            fold=fold.astype(np.int32),
            group=cluster.astype(str).astype(object),
            sha256=[content.hex() for content in self.content],
        )
        return replace(self, manifest=placed)

    def _parts(self, place: int) -> Iterator[np.ndarray]:
        """Blocks of (images, views, width); InputError if a function did not start anew."""
        name, n = self.names[place], 0
        for block in images_of(name, self.values[place]):
            n += len(block)
            if n > len(self):
                break
            yield block
        if n != len(self):
            raise InputError(
                f"{name}: the function gave {len(self)} rows on its first call, and {n} on a later "
                "one: let it begin anew on each call"
            )

    def __iter__(self) -> Iterator[tuple[Tensors, np.ndarray]]:
        start, right = 0, in_shards(self._parts(1), images_at_once((1, *self.shapes[0])))
        for x, z in zip(self._parts(0), right, strict=True):
            image_id, view = np.divmod(np.arange(len(x) * x.shape[1]), x.shape[1])
            tensors = {"features": x.reshape(-1, x.shape[2]), "image_id": image_id + start}
            yield tensors | {"view": view}, z.reshape(-1, z.shape[2])
            start += len(x)

    def features_alone(self) -> Iterator[np.ndarray]:
        """Features (n, d) of all rows, in blocks."""
        return (x.reshape(-1, x.shape[2]) for x in self._parts(0))

    def split(self, folds: int) -> Split:
        """How translators are fitted on these images."""
        return split(self.manifest, folds)


def one_each(
    name: str, values: Iterable[Any], n: int, fix: str = "give one an image"
) -> np.ndarray:
    """The values (n,), one an image."""
    if not isinstance(values, Iterable):
        raise InputError(f"{name}: is {values!r}, not a sequence: {fix}")
    array = hasattr(values, "shape")
    listed = as_array(name, values) if array else np.array(list(values), dtype=object)
    if listed.shape != (n,):
        raise InputError(f"{name}: has shape {listed.shape}, not ({n},): {fix}")
    return listed


def clusters_of(pool: Pool[ArrayImages], groups: Iterable[Any] | None) -> np.ndarray:
    """The number of each image's cluster: images with equal embeddings or of one group."""
    contents = [content for images in pool for content in images.content]
    copies = pd.factorize(pd.Series(contents, dtype=object))[0]
    start = len(contents) - len(pool.scored)
    shared = np.isin(copies[start:], copies[:start])
    if shared.any():
        raise InputError(
            f"reference: holds {shared.sum()} of the images, row {int(np.argmax(shared))} among "
            "them, which would be scored in sample: take them out of one of the two"
        )
    if groups is None:
        return copies
    codes = pd.factorize(pd.Series(one_each("groups", groups, len(pool.scored))))[0]
    if (codes < 0).any():
        raise InputError(f"groups: row {int(np.argmin(codes))} has none: give one a row")
    # Contents and groups are nodes of a graph, images its edges; what is connected is a cluster.
    groups_at = int(copies.max()) + 1
    nodes = groups_at + int(codes.max()) + 1
    edges = np.ones(len(codes)), (copies[start:], groups_at + codes)
    graph = scipy.sparse.coo_array(edges, shape=(nodes, nodes))
    found = scipy.sparse.csgraph.connected_components(graph, directed=False)[1]
    return np.asarray(pd.factorize(found[copies])[0])


def folds_of(folds: int | Iterable[int], clusters: np.ndarray, seed: int) -> np.ndarray:
    """The fold of each image: given, or drawn by cluster so that folds have about equal sizes.

    The largest clusters are dealt first, each into the smallest fold; the seed orders equal ones.
    """
    count = int(clusters.max()) + 1
    if not isinstance(folds, int | np.integer):
        given = one_each(
            "folds", folds, len(clusters), "give a whole number, or the fold of each image"
        )
        if given.dtype.kind == "O":
            given = np.array(given.tolist())
        if given.dtype.kind not in "iu" or given.min() < 0 or len(np.unique(given)) < 2:
            raise InputError("folds: must be whole numbers from 0 on, at least two different ones")
        given = np.unique(given, return_inverse=True)[1]  # one fit a fold, whatever its number
        pairs = np.unique(np.stack([clusters, given], axis=1), axis=0)
        if len(pairs) > count:
            cluster = int(np.argmax(np.bincount(pairs[:, 0]) > 1))
            rows = np.flatnonzero(clusters == cluster)[:2].tolist()
            raise InputError(
                f"folds: rows {rows[0]} and {rows[1]} are copies or of one group, but not all of "
                "these rows are in one fold: put them into the same fold"
            )
        return given
    if count == 1:
        raise InputError(
            f"embeddings: the {len(clusters)} rows count as one image, because their embeddings "
            "are equal, or they are of one group: give at least two different images"
        )
    if not 2 <= folds <= count:
        raise InputError(
            f"folds: is {folds}, but must be from 2 to {count}, the number of different images, or "
            "of groups"
        )
    order = np.random.default_rng([seed, 8]).permutation(count)
    sizes = np.bincount(clusters)
    order = order[np.argsort(-sizes[order], kind="stable")]
    filled, fold_of = np.zeros(folds, np.int64), np.empty(count, np.int64)
    for cluster in order:
        fold_of[cluster] = np.argmin(filled)
        filled[fold_of[cluster]] += sizes[cluster]
    return np.asarray(fold_of[clusters])
