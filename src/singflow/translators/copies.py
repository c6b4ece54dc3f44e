"""Near copies: re-encoded, cropped or mirrored images, and frames of a film, by their features.

Two images are near copies if the cosine of their features, about the mean, is above the middle
between 1 and the 99 % point of the cosines of images to the nearest image of another class.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from singflow.artifacts.shards import in_blocks, in_shards
from singflow.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from singflow.artifacts.tensors import Tensors
    from singflow.translators.crossfit import Split
    from singflow.translators.reference import Images

MOST, BLOCK = 20_000, 512  # images that are compared with each other, and rows of a product
FEWEST = 20  # images from which the 99 % point is known
# Gumbel's law, of the largest of many: the 99 % point from the 10 % and the 50 % point, which
# hold where up to half of the images have a near copy that is taken for another class.
REDUCED = [-np.log(-np.log(share)) for share in (0.1, 0.5, 0.99)]
BEYOND = (REDUCED[2] - REDUCED[1]) / (REDUCED[1] - REDUCED[0])


@dataclass(frozen=True)
class Kept:
    """Images without those that are left out; the others are numbered anew.

    kept: (n,), by image id of `images`.
    """

    images: Any
    kept: np.ndarray

    @cached_property
    def manifest(self) -> pd.DataFrame:
        return self.images.manifest[self.kept].reset_index(drop=True)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.images, name)  # where features and embeddings are

    def __iter__(self) -> Iterator[tuple[Tensors, np.ndarray]]:
        for shard, embeddings in self.images:
            rows = self.kept[shard["image_id"]]
            mine = {name: tensor[rows] for name, tensor in shard.items()}
            yield mine | {"image_id": self.renumbered(shard["image_id"])}, embeddings[rows]

    def renumbered(self, image_id: np.ndarray) -> np.ndarray:
        """The new numbers of those images that are kept."""
        return (np.cumsum(self.kept) - 1)[image_id[self.kept[image_id]]]

    def features_alone(self) -> Iterator[np.ndarray]:
        return (shard["features"] for shard, _ in self)

    def split(self, folds: int) -> Split:
        return replace(self.images, manifest=self.manifest).split(folds)


def without(images: Any, left_out: np.ndarray) -> Any:
    """The images without some; left_out: (n,) bool, by image id."""
    if not left_out.any():
        return images
    if (~left_out).sum() < 2:
        raise InputError(
            f"reference: {left_out.sum()} of its {len(left_out)} images are near copies of the "
            "study's: name another reference, or none"
        )
    return Kept(images, ~left_out)


@dataclass(frozen=True)
class Compared:
    """At most MOST images, evenly by id: unit features (n, d) about the mean (d,) of all images.

    limit: the cosine above which two images are near copies; infinite for too few images.
    """

    ids: np.ndarray
    units: np.ndarray
    mean: np.ndarray
    limit: float

    @classmethod
    def of(cls, images: Images, weight: np.ndarray, bias: np.ndarray) -> Compared:
        """Images, whose classes are those that the head predicts."""
        n, total, found = len(images.manifest), np.zeros(1), []
        ids = np.arange(min(n, MOST)) * n // min(n, MOST)
        for image_id, features in _whole(images):
            total = total + features.sum(axis=0, dtype=np.float64)
            chosen = np.isin(image_id, ids)
            found.append((image_id[chosen], features[chosen]))
        order, features = (np.concatenate(part) for part in zip(*found, strict=True))
        features, mean = features[np.argsort(order)], total / n
        classes = (features @ weight.T + bias).argmax(axis=1)
        if (classes == classes[0]).all():
            classes = np.arange(len(ids))
        units = _units(features, mean)
        if len(ids) < FEWEST:
            return cls(ids, units, mean, np.inf)
        nearest = _nearest(units, units, classes)
        low, middle = np.quantile(nearest, [0.1, 0.5])
        return cls(ids, units, mean, float(1 + middle + BEYOND * (middle - low)) / 2)


def near_copies(reference: Images, own: Images, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Which images of a reference are near copies of a study's, (n,) bool."""
    among = Compared.of(reference, weight, bias)
    found = np.zeros(len(reference.manifest), dtype=bool)
    for part in in_shards((features for _, features in _whole(own)), MOST):
        theirs = _units(part, among.mean)
        for image_id, features in _whole(reference):
            found[image_id] |= _nearest(_units(features, among.mean), theirs) > among.limit
    return found


def copies_across_folds(images: Images, weight: np.ndarray, bias: np.ndarray) -> tuple[int, int]:
    """How many images have a near copy in another fold, and among how many."""
    among = Compared.of(images, weight, bias)
    fold = images.manifest["fold"].to_numpy()[among.ids]
    nearest = _nearest(among.units, among.units, fold)
    return int((nearest > among.limit).sum()), len(fold)


def _whole(images: Images) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for shard, _ in images:
        rows = shard["view"] == 0
        yield shard["image_id"][rows], shard["features"][rows]


def _nearest(units: np.ndarray, others: np.ndarray, marks: np.ndarray | None = None) -> np.ndarray:
    """The highest cosine of each row to the others, or to those with another mark."""
    found = np.empty(len(units), np.float32)
    for rows in in_blocks(np.arange(len(units)), BLOCK):
        cosines = units[rows] @ others.T
        if marks is not None:
            cosines[marks[rows][:, None] == marks] = -1
        found[rows] = cosines.max(axis=1, initial=-1)
    return found


def _units(features: np.ndarray, mean: np.ndarray) -> np.ndarray:
    units = (features - mean).astype(np.float32)
    length = np.linalg.norm(units, axis=1, keepdims=True)
    return units / np.where(length > 0, length, 1)
