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

    By chance_weight and chance_constant the null component carries no information.
    """

    null_energy: np.ndarray  # (n,), of view 0
    mean_null: np.ndarray  # (d,), mean null component
    alignment: np.ndarray  # (n,), cosine of every null component to mean_null
    principal_axes: np.ndarray  # (d, r), of the coordinates that are translated by chance
    null_axes: np.ndarray  # (d, q)
    chance_weight: np.ndarray  # (draws, r + q, m)
    chance_constant: np.ndarray  # (draws, m)

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
    energy, cosine = np.empty((2, len(images.manifest)))
    total = np.zeros(len(head.null))
    for image_id, features in whole_features(images):
        energy[image_id] = null_energy(features, head.null)
        total += features.sum(axis=0, dtype=np.float64)
    mean = head.null @ (head.null.T @ total) / len(energy)
    for image_id, features in whole_features(images):
        cosine[image_id] = alignment(features, head.null, mean)
    parts = axes.directions[:, : axes.rank], axes.directions[:, axes.rank :]
    return Fits(energy, mean, cosine, *parts, weight, constant)
