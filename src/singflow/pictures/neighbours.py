"""The nearest real images to points of a space: exactly by streamed matrix products, or by an index where the set is large."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from singflow.analyses.metrics import angle_deg, unit

QUERIES, CANDIDATES = 1024, 8192  # rows of a block of cosines: 32 MiB
PAIRS = 16384  # pairs whose angles are computed at once
SPARE = 8  # neighbours that an index is asked for beyond those wanted

Block = tuple[np.ndarray, np.ndarray]  # image ids (n,) and their embeddings (n, m)
Gallery = Callable[[], Iterable[Block]]


@dataclass(frozen=True)
class Neighbours:
    """The nearest images of n points, nearest first; -1 and NaN where there are none.

    image_id: (n, count) int64; angle_deg: (n, count) float64.
    """

    image_id: np.ndarray
    angle_deg: np.ndarray


def contents(sha256: pd.Series) -> np.ndarray:
    """For each image the first image of the same content: copies of one file are one image.

    Parameters
    ----------
    sha256 : Series of str
        Hashes of the N images, in the order of image_id.

    Returns
    -------
    ndarray of int64, of shape (N,)
        Image ids.
    """
    first: dict[str, int] = {}
    return np.array([first.setdefault(digest, position) for position, digest in enumerate(sha256)], dtype=np.int64)


def nearest(points: np.ndarray, own: np.ndarray, gallery: Gallery, content: np.ndarray, count: int) -> Neighbours:
    """The `count` nearest images to each point by angle, exactly; ties go to the lowest image_id.

    Cosines in float32 choose the candidates, with room for their rounding; angles in float64 decide. Memory does not grow with the
    images.

    Parameters
    ----------
    points : ndarray of shape (n, m)
        Embeddings.
    own : ndarray of int, of shape (n,)
        The image that a point comes from, which is never its neighbour, nor is a copy of it; -1: none.
    gallery : callable
        Gives the images' embeddings in blocks: image ids (b,) and embeddings (b, m).
    content : ndarray of int64, of shape (N,)
        As contents() gives it.
    count : int
        Neighbours wanted of each point.

    Returns
    -------
    Neighbours
        Image ids and angles in degrees, nearest first.
    """
    best = pd.DataFrame({"row": np.array([], dtype=np.int64), "image_id": np.array([], dtype=np.int64), "angle_deg": np.array([])})
    units = unit(points).astype(np.float32)
    floor = np.full(len(points), -2.0, dtype=np.float32)  # cosine of the count-th nearest so far
    rounding = np.float32(units.shape[1] * np.finfo(np.float32).eps)
    mine = np.where(own >= 0, content[own], -1)
    for image_id, embeddings in _distinct(gallery(), content):
        theirs = unit(embeddings).astype(np.float32)
        found = [best]
        for start in range(0, len(units), QUERIES):
            rows = slice(start, start + QUERIES)
            cosines = units[rows] @ theirs.T
            cosines[mine[rows, None] == image_id] = -2.0
            if len(image_id) >= count:
                floor[rows] = np.maximum(floor[rows], np.partition(cosines, -count, axis=1)[:, -count])
            row, column = np.nonzero((cosines >= floor[rows, None] - rounding) & (cosines >= -1.5))
            angles = _angles(points, embeddings, row + start, column)
            found.append(pd.DataFrame({"row": row + start, "image_id": image_id[column], "angle_deg": angles}))
        ranked = pd.concat(found).sort_values(["row", "angle_deg", "image_id"], ignore_index=True)
        best = ranked[ranked.groupby("row").cumcount() < count]
    return _arrays(best, len(points), count)


def _distinct(blocks: Iterable[Block], content: np.ndarray) -> Iterator[Block]:
    """Blocks of at most CANDIDATES images, copies left out."""
    for image_id, embeddings in blocks:
        kept = np.flatnonzero(content[image_id] == image_id)
        for rows in np.array_split(kept, -(-len(kept) // CANDIDATES) or 1):
            yield image_id[rows], embeddings[rows]


def _angles(points: np.ndarray, embeddings: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    parts = [slice(start, start + PAIRS) for start in range(0, len(row), PAIRS)]
    return np.concatenate([np.empty(0), *(angle_deg(points[row[part]], embeddings[column[part]]) for part in parts)])


def _arrays(best: pd.DataFrame, n: int, count: int) -> Neighbours:
    image_id, angle = np.full((n, count), -1, dtype=np.int64), np.full((n, count), np.nan)
    place = best["row"].to_numpy(), best.groupby("row").cumcount().to_numpy()
    image_id[place], angle[place] = best["image_id"], best["angle_deg"]
    return Neighbours(image_id, angle)


class Index:
    """An inverted-file index of a large gallery (faiss): nearly the nearest images, in far less time than all pairs take.

    Holds all embeddings in float32, in as many cells as the square root of the number of images; 64 cells are searched for a point.
    """

    def __init__(self, gallery: Gallery, content: np.ndarray, threads: int) -> None:
        import faiss

        faiss.omp_set_num_threads(threads)
        distinct = int((content == np.arange(len(content))).sum())
        cells = max(1, round(np.sqrt(distinct)))
        sample, size = [], min(distinct, 64 * cells)
        stride = max(1, distinct // size)
        for image_id, embeddings in _distinct(gallery(), content):
            sample.append(embeddings[image_id % stride == 0])
        training = unit(np.concatenate(sample)).astype(np.float32)
        self._content = content
        width = training.shape[1]
        self._index: Any = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, min(cells, len(training)), faiss.METRIC_INNER_PRODUCT)
        self._index.train(training)
        for image_id, embeddings in _distinct(gallery(), content):
            self._index.add_with_ids(unit(embeddings).astype(np.float32), image_id)
        self._index.make_direct_map(True)
        self._index.nprobe = min(64, self._index.nlist)

    def nearest(self, points: np.ndarray, own: np.ndarray, count: int) -> Neighbours:
        """As nearest(), except that a neighbour in a cell that is not probed is missed.

        Parameters
        ----------
        points, own, count
            As for nearest().

        Returns
        -------
        Neighbours
            Image ids and angles in degrees, nearest first.
        """
        found = self._index.search(unit(points).astype(np.float32), count + SPARE)[1]
        mine = np.where(own >= 0, self._content[own], -1)
        row, column = np.nonzero((found >= 0) & (found != mine[:, None]))
        image_id = found[row, column]
        ids, place = np.unique(image_id, return_inverse=True)
        angles = _angles(points, self._index.reconstruct_batch(ids), row, place)
        ranked = pd.DataFrame({"row": row, "image_id": image_id, "angle_deg": angles})
        ranked = ranked.sort_values(["row", "angle_deg", "image_id"], ignore_index=True)
        return _arrays(ranked[ranked.groupby("row").cumcount() < count], len(points), count)
