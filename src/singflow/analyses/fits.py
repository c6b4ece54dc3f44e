"""Fits to training images, which a new image is compared with: chance, and images like it."""

from dataclasses import dataclass

import numpy as np

from singflow.analyses.evidence import OwnWords
from singflow.analyses.floor import Refitted, Refitting, SplitHead, coordinate_axes
from singflow.analyses.geometry import null_energy
from singflow.analyses.metrics import Removal
from singflow.translators.crossfit import WHOLE
from singflow.translators.reference import Images, whole_features

RANGE = (1.0, 99.0)  # percentiles of the training images; of a photo outside, nothing is said


@dataclass(frozen=True)
class Fits:
    """Fits to training images; all fields are arrays.

    null_energy: (n,), of view 0. mean_null: (d,), mean null component. alignment: (n,), cosine of
    every null component to `mean_null`.

    chance_weight (draws, r + q, m), chance_constant (draws, m): translators for which the null
    component carries no information. They translate coordinates along principal_axes (d, r) and
    null_axes (d, q).
    """

    null_energy: np.ndarray
    mean_null: np.ndarray
    alignment: np.ndarray
    principal_axes: np.ndarray
    null_axes: np.ndarray
    chance_weight: np.ndarray
    chance_constant: np.ndarray

    def chance_removal(self, features: np.ndarray) -> Removal:
        """Null removal of one feature (1, d) by the translators of chance: one row per draw."""
        (a,), (b,) = features @ self.principal_axes, features @ self.null_axes
        seen, hidden = np.split(self.chance_weight, [len(a)], axis=1)
        removed = b @ hidden
        return Removal(a @ seen + removed + self.chance_constant, removed)

    def unlike(self, features: np.ndarray, basis: np.ndarray) -> str:
        """Why the null component of a photo is unlike those of the images; empty if it is not.

        basis: (d, k), V_0.
        """
        energy = float(null_energy(features, basis)[0])
        cosine = float(alignment(features, basis, self.mean_null)[0])
        low, high = np.percentile(self.null_energy, RANGE).tolist()
        least = float(np.percentile(self.alignment, RANGE[0]))
        if not low <= energy <= high:
            return (
                f"its null energy, {100 * energy:.1f} %, is outside their range, {100 * low:.1f} "
                f"to {100 * high:.1f} %"
            )
        if cosine < least:
            return (
                f"its null component points away from theirs (cosine to their mean {cosine:.2f}, "
                f"theirs from {least:.2f})"
            )
        return ""


def alignment(features: np.ndarray, basis: np.ndarray, mean_null: np.ndarray) -> np.ndarray:
    """Cosine of the null components of features to their mean; 0 if one is zero."""
    components = features.astype(np.float64) @ basis
    length = np.linalg.norm(components, axis=1) * np.linalg.norm(mean_null)
    return components @ (basis.T @ mean_null) / np.where(length > 0, length, 1.0)


def fit(images: Images, head: SplitHead, own_words: OwnWords, how: Refitting) -> Fits:
    """Fit to training images; the draws are translators of chance."""
    axes = coordinate_axes(head.principal, head.null, images.features_alone)
    member_of = np.full(len(images.manifest), WHOLE, np.int32)
    refits, _ = how.refits(images, head, axes, own_words, member_of)
    origin = refits.rows.origin.astype(np.float32)

    def of_coordinates(made: dict[int, Refitted]) -> tuple[np.ndarray, np.ndarray]:
        """The translator of coordinates, whose origin goes into the constant."""
        weight = made[WHOLE].weight
        return weight, made[WHOLE].constant - origin @ weight

    drawn = refits.over_signs(of_coordinates, how.draws, how.seed, how.threads)
    weight, constant = (np.stack(part).astype(np.float32) for part in zip(*drawn, strict=True))
    of_images = _null_components(images, head.null)
    return Fits(*of_images, axes.principal, axes.null, weight, constant)


def _null_components(
    images: Images, basis: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Null energy (n,) of view 0, the mean null component (d,), and cosines (n,) to this mean."""
    energy, cosine = np.empty((2, len(images.manifest)))
    total = np.zeros(len(basis))
    for image_id, features in whole_features(images):
        energy[image_id] = null_energy(features, basis)
        total += features.sum(axis=0, dtype=np.float64)
    mean = basis @ (basis.T @ total) / len(energy)
    for image_id, features in whole_features(images):
        cosine[image_id] = alignment(features, basis, mean)
    return energy, mean, cosine
