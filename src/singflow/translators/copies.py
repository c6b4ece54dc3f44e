"""Near copies: re-encoded, cropped or mirrored images, and frames of a film, by their features.

Two images are near copies if the cosine of their features, about the mean, is above the middle
between 1 and the 99 % point of the cosines of different images to the nearest one. This point
follows by Gumbel's law, which the largest of many cosines has, from the 10 % and the 50 % point.
These hold where less than half of the images have copies.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from singflow.artifacts.shards import in_blocks, in_shards
from singflow.errors import InputError
from singflow.translators.reference import whole_features

if TYPE_CHECKING:
    import pandas as pd

    from singflow.artifacts.tensors import Tensors
    from singflow.translators.crossfit import Split
    from singflow.translators.reference import Images

MOST, BLOCK = 20_000, 512  # images that are compared with each other, and rows of a product
FEWEST = 20  # images from which the 99 % point is known
LEAST, HIGHEST = 0.85, 0.999  # limits on the cosine between copies within a study, and on any
REDUCED = [-np.log(-np.log(share)) for share in (0.1, 0.5, 0.99)]  # points of Gumbel's law
BEYOND = (REDUCED[2] - REDUCED[1]) / (REDUCED[1] - REDUCED[0])


@dataclass(frozen=True)
class Kept:
    """Images without those that are left out; the others are numbered anew."""

    images: Any
    kept: np.ndarray  # (n,), by image id of `images`
    manifest: pd.DataFrame  # of the images that are kept

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
    split = images.manifest["split"]
    if (~left_out).sum() < 2 or set(split[~left_out]) < set(split):
        raise InputError(
            f"reference: {left_out.sum()} of its {len(left_out)} images are near copies of the "
            "study's: name another reference, or none"
        )
    return Kept(images, ~left_out, images.manifest[~left_out].reset_index(drop=True))


@dataclass(frozen=True)
class Compared:
    """At most MOST images, evenly by id: features (n, d); and the mean (d,) of all images."""

    ids: np.ndarray
    features: np.ndarray
    mean: np.ndarray

    @classmethod
    def of(cls, images: Images) -> Compared:
        n, total, found = len(images.manifest), np.zeros(1), []
        ids = np.arange(min(n, MOST)) * n // min(n, MOST)
        for image_id, features in whole_features(images):
            total = total + features.sum(axis=0, dtype=np.float64)
            chosen = np.isin(image_id, ids)
            found.append((image_id[chosen], features[chosen]))
        order, features = (np.concatenate(part) for part in zip(*found, strict=True))
        return cls(ids, features[np.argsort(order)], (total / n).astype(np.float32))


def near_copies(reference: Images, own: Images) -> np.ndarray:
    """Which images of a reference are near copies of a study's, (n,) bool."""
    among = Compared.of(reference)
    units, found = _units(among.features - among.mean), np.zeros(len(reference.manifest), bool)
    limit = _limit(_nearest(units, units, among.ids))
    for part in in_shards((features for _, features in whole_features(own)), MOST):
        theirs = _units(part - among.mean)
        for image_id, features in whole_features(reference):
            found[image_id] |= _nearest(_units(features - among.mean), theirs) > limit
    return found


def copies_across_folds(images: Images, weight: np.ndarray, bias: np.ndarray) -> tuple[int, int]:
    """How many images have a near copy in another fold, and among how many.

    weight, bias: the head. Where all images have copies, the nearest image tells nothing about
    different images. So the limit is that of images of different predicted classes, and it is at
    least LEAST. As images of a class are alike, features are taken about the mean of their class,
    which is shrunk to the mean of all images as if FEWEST of these were in the class, too.
    """
    among = Compared.of(images)
    classes = np.unique((among.features @ weight.T + bias).argmax(axis=1), return_inverse=True)[1]
    features, size = among.features - among.mean, np.bincount(classes)
    means = np.zeros((len(size), features.shape[1]))
    np.add.at(means, classes, features)
    means /= (size + FEWEST)[:, None]
    units = _units(features - means.astype(np.float32)[classes])
    marks = classes if len(size) > 1 else among.ids
    limit = max(LEAST, _limit(_nearest(units, units, marks)))
    fold = images.manifest["fold"].to_numpy()[among.ids]
    return int((_nearest(units, units, fold) > limit).sum()), len(fold)


def _limit(nearest: np.ndarray) -> float:
    """The middle between 1 and the 99 % point of nearest cosines; HIGHEST for too few images."""
    if len(nearest) < FEWEST:
        return HIGHEST
    low, middle = np.quantile(nearest, [0.1, 0.5])
    return min(HIGHEST, float(1 + middle + BEYOND * (middle - low)) / 2)


def _nearest(units: np.ndarray, others: np.ndarray, marks: np.ndarray | None = None) -> np.ndarray:
    """The highest cosine of each row to the others, or to those with another mark."""
    found = np.empty(len(units), np.float32)
    for rows in in_blocks(np.arange(len(units)), BLOCK):
        cosines = units[rows] @ others.T
        if marks is not None:
            cosines[marks[rows][:, None] == marks] = -1
        found[rows] = cosines.max(axis=1, initial=-1)
    return found


def _units(features: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.where(length > 0, length, 1))
