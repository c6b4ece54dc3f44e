"""The nearest real images to points of a space: an exact search, or an index for large sets."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from singflow.analyses.metrics import angle_deg, unit
from singflow.artifacts.scratch import Scratch
from singflow.pictures.parameters import CELL, PROBES

QUERIES, CANDIDATES = 1024, 8192  # rows of a block of cosines: 32 MiB
PAIRS = 16384  # pairs whose angles are computed at once
SAMPLE = 20  # images per cell on which k-means is run

Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]  # rows of points, image ids and angles
NONE: Pairs = np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
Block = tuple[np.ndarray, np.ndarray]  # image ids (n,) and their embeddings (n, m)
Gallery = Callable[[], Iterable[Block]]


@dataclass(frozen=True)
class Neighbours:
    """The nearest images (n, count) of n points, nearest first; -1 and NaN fill up missing ones."""

    image_id: np.ndarray
    angle_deg: np.ndarray


def first_copies(sha256: pd.Series) -> np.ndarray:
    """For each image, the first image_id with the same hash: copies of a file are one image."""
    codes, unique = pd.factorize(sha256)
    first = np.full(len(unique), -1)
    first[codes[::-1]] = np.arange(len(codes))[::-1]
    return first[codes]


def exact_neighbours(
    points: np.ndarray, own: np.ndarray, gallery: Gallery, content: np.ndarray, count: int
) -> Neighbours:
    """The `count` nearest images to each point (n, m), exactly; ties go to the lowest image_id.

    own: (n,), the image that a point comes from, which is never its neighbour, nor is a copy of it;
    -1 for none. content: from first_copies(). Cosines in float32 choose the candidates, with a
    margin for rounding, and angles in float64 decide. Memory does not grow with the number of
    images.
    """
    best, units = NONE, _unit(points)
    floor = np.full(len(points), -1.5, dtype=np.float32)
    mine = np.where(own >= 0, content[own], -1)
    for image_id, embeddings in _distinct(gallery(), content):
        theirs, found = _unit(embeddings), [best]
        for start in range(0, len(units), QUERIES):
            rows = slice(start, start + QUERIES)
            cosines = units[rows] @ theirs.T
            cosines[mine[rows, None] == image_id] = -2.0
            floor[rows], least = _raised(floor[rows], cosines, count, units)
            row, column = np.nonzero(cosines >= least[:, None])
            angles = _angles(points, embeddings, row + start, column)
            found.append((row + start, image_id[column], angles))
        best = _nearest(found, count)
    return _arrays(best, len(points), count)


def _distinct(blocks: Iterable[Block], content: np.ndarray) -> Iterator[Block]:
    """Blocks of at most CANDIDATES images without copies."""
    for image_id, embeddings in blocks:
        kept = np.flatnonzero(content[image_id] == image_id)
        for rows in np.array_split(kept, -(-len(kept) // CANDIDATES) or 1):
            yield image_id[rows], embeddings[rows]


def _angles(
    points: np.ndarray, embeddings: np.ndarray, row: np.ndarray, column: np.ndarray
) -> np.ndarray:
    parts = [slice(start, start + PAIRS) for start in range(0, len(row), PAIRS)]
    return np.concatenate(
        [np.empty(0), *(angle_deg(points[row[part]], embeddings[column[part]]) for part in parts)]
    )


def _raised(
    floor: np.ndarray, cosines: np.ndarray, count: int, units: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The count-th largest cosine of each row so far, and what a candidate's cosine is at least.

    floor: (n,), the count-th largest before. The latter is lower by what rounding may change.
    """
    if cosines.shape[1] >= count:
        floor = np.maximum(floor, np.partition(cosines, -count, axis=1)[:, -count])
    return floor, floor - np.float32(units.shape[1] * np.finfo(np.float32).eps)


def _nearest(found: list[Pairs], count: int) -> Pairs:
    """The `count` nearest images of each row, nearest first."""
    row, image_id, angle = map(np.concatenate, zip(*found, strict=True))
    order = np.lexsort((image_id, angle, row))
    row, image_id, angle = row[order], image_id[order], angle[order]
    kept = _ranks(row) < count
    return row[kept], image_id[kept], angle[kept]


def _ranks(row: np.ndarray) -> np.ndarray:
    """Places from 0 among equal rows, which are sorted."""
    return np.arange(len(row)) - np.searchsorted(row, row)


def _arrays(best: Pairs, n: int, count: int) -> Neighbours:
    row, *values = best
    image_id, angle = np.full((n, count), -1, dtype=np.int64), np.full((n, count), np.nan)
    image_id[row, _ranks(row)], angle[row, _ranks(row)] = values
    return Neighbours(image_id, angle)


class Index:
    """Approximate search in a large gallery, whose size does not change the time for a point.

    k-means (faiss) divides the gallery into cells of about CELL images. A point is compared with
    the images of the PROBES cells whose centres are nearest to it; up to CELL * PROBES images,
    these are all cells. One matrix product per cell serves all points that probe the cell. The
    embeddings are in a scratch file, ordered by cell, so that memory does not grow with their
    number.
    """

    def __init__(self, gallery: Gallery, content: np.ndarray, folder: Path) -> None:
        own = content == np.arange(len(content))
        cells = max(1, round(own.sum() / CELL))
        stride = max(1, len(content) // (SAMPLE * cells))
        parts = (z[ids % stride == 0] for ids, z in _distinct(gallery(), content))
        sample = np.concatenate([_unit(part) for part in parts])
        self._centres = _centres(sample, min(cells, len(sample)))
        cell = np.full(len(content), len(self._centres))
        for image_id, embeddings in _distinct(gallery(), content):
            cell[image_id] = (_unit(embeddings) @ self._centres.T).argmax(axis=1)
        self._image_id = np.argsort(cell, kind="stable")[: own.sum()]
        self._starts = np.searchsorted(cell[self._image_id], np.arange(len(self._centres) + 1))
        place = np.full(len(content), -1)
        place[self._image_id] = np.arange(len(self._image_id))
        self._place = place[content]
        self._units = Scratch(folder, len(self._image_id), sample.shape[1])
        for image_id, embeddings in _distinct(gallery(), content):
            self._units[place[image_id]] = _unit(embeddings)

    def neighbours(self, points: np.ndarray, own: np.ndarray, count: int) -> Neighbours:
        """As exact_neighbours(), but images in cells that are not probed are missed."""
        units, mine = _unit(points), np.where(own >= 0, self._place[own], -1)
        floor = np.full(len(points), -1.5, dtype=np.float32)
        least = floor.copy()
        found = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))]
        visitors, starts = self._visits(units)
        for cell, (first, end) in enumerate(pairwise(self._starts)):
            theirs = self._units[first:end]
            size = max(1, QUERIES * CANDIDATES // max(1, len(theirs)))
            for start in range(starts[cell], starts[cell + 1] if len(theirs) else 0, size):
                rows = visitors[start : min(start + size, starts[cell + 1])]
                cosines = units[rows] @ theirs.T
                among = (mine[rows] >= first) & (mine[rows] < end)
                cosines[among, mine[rows][among] - first] = -2.0
                better = cosines.max(axis=1) >= least[rows]
                rows, cosines = rows[better], cosines[better]
                floor[rows], least[rows] = _raised(floor[rows], cosines, count, units)
                row, column = np.nonzero(cosines >= least[rows, None])
                found.append((rows[row], first + column, cosines[row, column]))
        row, place, cosine = map(np.concatenate, zip(*found, strict=True))
        near = cosine >= least[row]
        row, kept, column = row[near], *np.unique(place[near], return_inverse=True)
        angles = _angles(points, self._units[kept], row, column)
        best = _nearest([(row, self._image_id[kept][column], angles)], count)
        return _arrays(best, len(points), count)

    def _visits(self, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points ordered by the cells that they probe, and the position where a cell begins."""
        cells = len(self._centres)
        probes = min(PROBES, cells)
        probed = np.empty((len(units), probes), dtype=np.int32)
        for start in range(0, len(units), QUERIES):
            cosines = units[start : start + QUERIES] @ self._centres.T
            probed[start : start + QUERIES] = np.argpartition(cosines, cells - probes, axis=1)[
                :, cells - probes :
            ]
        order = np.argsort(probed, axis=None, kind="stable")
        return order // probes, np.searchsorted(probed.ravel()[order], np.arange(cells + 1))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return unit(vectors).astype(np.float32)


def _centres(sample: np.ndarray, cells: int) -> np.ndarray:
    """Unit vectors in the centres of `cells` cells; the number of threads does not change them."""
    import faiss

    faiss.omp_set_num_threads(1)
    clustering = faiss.Kmeans(
        sample.shape[1], cells, niter=10, spherical=True, min_points_per_centroid=1
    )
    clustering.train(sample)
    return np.asarray(clustering.centroids)
