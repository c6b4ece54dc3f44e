"""The nearest real images to points of a space: exactly by streamed matrix products, or by an index where the set is large."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from singflow.metrics import angle_deg, unit

QUERIES, CANDIDATES = 1024, 8192  # rows of a block of cosines: 32 MiB
PAIRS = 16384  # pairs whose angles are computed at once

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
    """For each image the first image of the same content (n,) int64: copies of one file are one image."""
    first: dict[str, int] = {}
    return np.array([first.setdefault(digest, position) for position, digest in enumerate(sha256)], dtype=np.int64)


def nearest(points: np.ndarray, own: np.ndarray, gallery: Gallery, content: np.ndarray, count: int) -> Neighbours:
    """The `count` nearest images to each point by angle, exactly; ties go to the lowest image_id.

    points: (n, m); own: (n,), the image that a point comes from, which is never its neighbour, nor is a copy of it (-1: none);
    gallery: the images' embeddings in blocks; content: (N,), as contents() gives it. Cosines in float32 choose the candidates, with
    room for their rounding; angles in float64 decide. Memory does not grow with the images.
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
        """As nearest(), except that a neighbour in a cell that is not probed is missed."""
        found = self._search(unit(points).astype(np.float32), np.where(own >= 0, self._content[own], -1), count)
        row, column = np.nonzero(found >= 0)
        image_id = found[row, column]
        ids, place = np.unique(image_id, return_inverse=True)
        angles = _angles(points, self._index.reconstruct_batch(ids), row, place)
        ranked = pd.DataFrame({"row": row, "image_id": image_id, "angle_deg": angles})
        return _arrays(ranked.sort_values(["row", "angle_deg", "image_id"], ignore_index=True), len(points), count)

    def _search(self, units: np.ndarray, mine: np.ndarray, count: int) -> np.ndarray:
        """Images (n, count) of the highest cosines in the cells next to each point, but for its own; -1: none.

        A cell at a time, for all points that look into it: faiss's own search goes through the cells of one point after the other,
        ten times as slowly, because it waits for memory.
        """
        import faiss

        lists, width = self._index.invlists, units.shape[1]
        cells = self._index.quantizer.search(units, self._index.nprobe)[1]
        order = np.argsort(cells, axis=None, kind="stable")
        stops = np.searchsorted(cells.ravel()[order], np.arange(self._index.nlist + 1))
        best, cosine = np.full((len(units), count), -1), np.full((len(units), count), -2.0, dtype=np.float32)
        for cell in np.flatnonzero(np.diff(stops)).tolist():
            size = lists.list_size(cell)
            if not size:
                continue
            image_id = faiss.rev_swig_ptr(lists.get_ids(cell), size)
            vectors = faiss.rev_swig_ptr(lists.get_codes(cell), 4 * size * width).view(np.float32).reshape(size, width)
            looking = order[stops[cell] : stops[cell + 1]] // self._index.nprobe
            for start in range(0, len(looking), QUERIES):
                rows = looking[start : start + QUERIES]
                cosines = units[rows] @ vectors.T
                cosines[mine[rows, None] == image_id] = -2.0
                near = _highest(cosines, min(count, size))
                ids = np.hstack([best[rows], image_id[near]])
                values = np.hstack([cosine[rows], np.take_along_axis(cosines, near, axis=1)])
                kept = _highest(values, count)
                cosine[rows] = np.take_along_axis(values, kept, axis=1)
                best[rows] = np.where(cosine[rows] > -1.5, np.take_along_axis(ids, kept, axis=1), -1)
        return best


def _highest(values: np.ndarray, count: int) -> np.ndarray:
    """Columns (n, count) of the highest values (n, p) of each row, in any order."""
    if count == 1:
        return values.argmax(axis=1)[:, None]
    return np.argpartition(values, values.shape[1] - count, axis=1)[:, values.shape[1] - count :]
