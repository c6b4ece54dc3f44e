"""Angles and scores in the vision-language space (equations 5 to 8), in degrees."""

from dataclasses import dataclass

import numpy as np

from singflow.errors import InputError
from singflow.ridge import Affine


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows scaled to norm 1, in float64. Raises InputError for a zero row, which has no direction."""
    wide = vectors.astype(np.float64)
    norms = np.linalg.norm(wide, axis=-1, keepdims=True)
    if not (norms > 0).all():
        raise InputError("the angle to a zero vector is undefined: look at the image, text or translator that gave it")
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


@dataclass(frozen=True)
class Removal:
    """Translated features before and after a subspace is removed: both (n, m) float64."""

    original: np.ndarray
    equivalent: np.ndarray

    def image_score(self) -> np.ndarray:
        """IS (equation 8): (n,) degrees."""
        return angle_deg(self.original, self.equivalent)

    def attribute_score(self, texts: np.ndarray) -> np.ndarray:
        """AS toward one text a row (equation 7), texts (n, m): (n,) degrees; positive: moved closer to the text."""
        return angle_deg(self.original, texts) - angle_deg(self.equivalent, texts)


def translate(features: np.ndarray, translator: Affine) -> np.ndarray:
    """Translated features (n, m): one product in the features' type, given in float64."""
    return translator.astype(features.dtype)(features).astype(np.float64)


def remove(features: np.ndarray, translator: Affine, folded: np.ndarray) -> Removal:
    """Translate features (n, d) with and without the subspace that `folded` (m, d) stands for.

    Two matrix products in the features' type. The removed part is subtracted in float64, so that an
    empty subspace gives two equal results and a small one keeps its digits.
    """
    original = translate(features, translator)
    return Removal(original, original - features @ folded.T.astype(features.dtype))


def angles_to_all_deg(units: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """Angles (n, p) between every unit embedding (n, m) and every unit text (p, m), all float32: degrees, float32.

    By arccos of one float32 matrix product: good to 1e-4 degrees between 5 and 175 degrees, where
    images and texts lie.
    """
    angles = units @ texts.T
    np.arccos(np.clip(angles, -1.0, 1.0, out=angles), out=angles)
    return np.degrees(angles, out=angles)
