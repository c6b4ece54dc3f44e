"""Angles and scores in the vision-language space (equations 5 to 8), in degrees."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from singflow.errors import InputError
from singflow.ridge import Affine

ROWS = 128  # whose float64 copies stay in a processor's cache
NO_DIRECTION = "the angle to a zero vector is undefined: look at the image, text or translator that gave it"


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows scaled to norm 1, in float64. Raises InputError for a zero row, which has no direction."""
    wide = vectors.astype(np.float64)
    norms = np.linalg.norm(wide, axis=-1, keepdims=True)
    if not (norms > 0).all():
        raise InputError(NO_DIRECTION)
    return wide / norms


def angle_deg(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Angle between the rows of a and b (equation 5): degrees, 0 to 180.

    By 2 atan2(||u - v||, ||u + v||) of unit vectors, which is exact near 0 and 180 where arccos is not.
    """
    u, v = unit(a), unit(b)
    return np.degrees(2.0 * np.arctan2(np.linalg.norm(u - v, axis=-1), np.linalg.norm(u + v, axis=-1)))


def rescale(equivalent: np.ndarray, original: np.ndarray) -> np.ndarray:
    """Equivalent embeddings (n, m) brought to the norms of the original ones (n, m), directions unchanged (equation 19).

    Returns (n, m) float64. Raises InputError for shapes that differ and for a row without a direction, zero or not finite.
    """
    moved, source = np.asarray(equivalent, np.float64), np.asarray(original, np.float64)
    if moved.ndim != 2 or moved.shape != source.shape:
        raise InputError(f"equivalent embeddings are {moved.shape} and original ones {source.shape}: both must be the same (n, m)")
    norms = {"equivalent": np.linalg.norm(moved, axis=1), "original": np.linalg.norm(source, axis=1)}
    for name, norm in norms.items():
        usable = np.isfinite(norm) & (norm > 0)
        if not usable.all():
            row = int(np.argmin(usable))
            raise InputError(f"{name} embedding {row} has norm {norm[row]}, so no direction to keep: leave its image out")
    return moved * (norms["original"] / norms["equivalent"])[:, None]


def fold(weight: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """The translator's share of a subspace, T V V^T: (m, d) from weight (m, d) and orthonormal basis (d, k).

    Subtracted from T it is the translator of equivalent features, so that no feature has to be projected.
    """
    return (weight.astype(np.float64) @ basis) @ basis.T


def _wide(*arrays: np.ndarray) -> Iterator[tuple[slice, list[np.ndarray]]]:
    """Rows of arrays of one length, in blocks, in float64."""
    for start in range(0, len(arrays[0]), ROWS):
        part = slice(start, start + ROWS)
        yield part, [each[part].astype(np.float64) for each in arrays]


@dataclass(frozen=True)
class Removal:
    """Translated features before a subspace is removed, and the part of them that goes with it: both (n, m).

    Scores come from float64 dot products, without a copy of the embeddings: an angle is atan2(|a x b|, a . b), where the area
    |a x b| is sqrt(|a|^2 |b|^2 - (a . b)^2). Rounding is below 2e-6 degrees near 0 and 180, where embeddings in float32 are no
    better, and far less between. Both scores raise InputError for a row that is zero.
    """

    original: np.ndarray
    removed: np.ndarray

    @property
    def equivalent(self) -> np.ndarray:
        """Translated features without the removed part: (n, m) float64."""
        return self.original.astype(np.float64) - self.removed

    @cached_property
    def _products(self) -> np.ndarray:
        """|o|^2, o . r, |r|^2, o . e and |e|^2 of original o, removed r and equivalent e: (5, n)."""
        products = np.empty((5, len(self.original)))
        for part, (o, r) in _wide(self.original, self.removed):
            e = o - r
            for row, (a, b) in zip(products, ((o, o), (o, r), (r, r), (o, e), (e, e)), strict=True):
                np.vecdot(a, b, out=row[part])
        return products

    def image_score(self) -> np.ndarray:
        """IS (equation 8): (n,) degrees; exactly 0 where nothing is removed.

        The original spans one area with the removed part and with the equivalent: by the shorter of them it keeps its digits.
        """
        oo, of_removed, rr, product, ee = self._products
        area2 = np.where(rr < ee, oo * rr - of_removed**2, oo * ee - product**2)
        return _angles(area2, product, oo, ee)

    def angles(self, texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Angles of original and equivalent to one text a row, texts (n, m): (n,) degrees each."""
        products = np.empty((3, len(texts)))
        for part, (o, r, t) in _wide(self.original, self.removed, texts):
            for row, (a, b) in zip(products, ((o, t), (o - r, t), (t, t)), strict=True):
                np.vecdot(a, b, out=row[part])
        before, after, tt = products
        oo, _, _, _, ee = self._products
        return _angles(oo * tt - before**2, before, oo, tt), _angles(ee * tt - after**2, after, ee, tt)

    def attribute_score(self, texts: np.ndarray) -> np.ndarray:
        """AS toward one text a row (equation 7), texts (n, m): (n,) degrees; positive: moved closer to the text."""
        original, equivalent = self.angles(texts)
        return original - equivalent


def _angles(area2: np.ndarray, product: np.ndarray, *squares: np.ndarray) -> np.ndarray:
    """Degrees out of squared areas and dot products of two vectors a row, whose squared norms must not be zero."""
    if not all((square > 0).all() for square in squares):
        raise InputError(NO_DIRECTION)
    return np.degrees(np.arctan2(np.sqrt(np.maximum(area2, 0.0)), product))


def translate(features: np.ndarray, translator: Affine) -> np.ndarray:
    """Translated features (n, m): one product in the features' type."""
    return translator.astype(features.dtype)(features)


def remove(features: np.ndarray, translator: Affine, folded: np.ndarray) -> Removal:
    """Translate features (n, d) with and without the subspace that `folded` (m, d) stands for: two products in the features' type."""
    return Removal(translate(features, translator), features @ folded.T.astype(features.dtype, copy=False))


def angles_to_all_deg(units: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """Angles (n, p) between every unit embedding (n, m) and every unit text (p, m), all float32: degrees, float32.

    By arccos of one float32 matrix product: good to 1e-4 degrees between 5 and 175 degrees, where
    images and texts lie.
    """
    angles = units @ texts.T
    np.arccos(np.clip(angles, -1.0, 1.0, out=angles), out=angles)
    return np.multiply(angles, np.float32(180.0 / np.pi), out=angles)
