"""Detectors of unusual images: null energy beside what the field compares.

No detector needs an example of an unusual image, and a higher score always means more unusual. Null
energy is ||P_0 f||^2 / ||f||^2, the share of a feature that no logit sees. This analysis measures
how well each detector separates two sets of images.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import pandas as pd
import scipy
from pydantic import AfterValidator, Field, model_validator

from singflow.analyses.geometry import null_energy, rank_tolerance
from singflow.analyses.summary import EMPTY
from singflow.artifacts.tensors import Tensors
from singflow.config.sections import Listed, Section, unique
from singflow.errors import InputError
from singflow.translators.crossfit import WHOLE

FITTED = ("vim_residual", "mahalanobis")  # detectors that are fitted on usual images
OF_NULL_SPACE = ("null_energy", "nusa")
DETECTORS = ("null_energy", "max_softmax", "energy", "vim_residual", "nusa", "mahalanobis")
ALIKE = 1e-12  # share of their squared length by which rows that differ by rounding alone vary
RECALL = 95  # percent of the unusual images at which FPR95 counts the usual ones
IN_SAMPLE = "in sample: fitted on the images that it scores"
UNFITTED = "needs usual images that differ within their labels"


class NullEnergy(Section):
    """Which images null energy should tell apart."""

    usual_labels: Annotated[list[Listed], AfterValidator(unique)] = Field(
        [],
        description="labels of usual images; empty: all other labels, or the classes of the head "
        "if both lists are empty",
    )
    unusual_labels: Annotated[list[Listed], AfterValidator(unique)] = Field(
        [],
        description="labels of unusual images; empty: all other labels, or labels outside the "
        "head's classes if both lists are empty",
    )

    @model_validator(mode="after")
    def _are_apart(self) -> "NullEnergy":
        if both := sorted({*self.usual_labels} & {*self.unusual_labels}):
            raise ValueError(
                f"{', '.join(both)} cannot be usual and unusual: "
                "take it out of one of the two lists"
            )
        return self


def two_sets(
    scores: pd.DataFrame, usual_labels: list[str], unusual_labels: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Which images are usual, and which are unusual, both (n,) bool; an image may be neither.

    The lists of labels are those of NullEnergy. Raises InputError for a label that no image has.
    """
    if absent := sorted({*usual_labels, *unusual_labels} - {*scores["label"]}):
        raise InputError(
            f"null_energy names labels that no image has: {', '.join(absent)}: "
            "correct or remove them"
        )
    if not usual_labels and not unusual_labels:
        known = (scores["class_index"] >= 0).to_numpy()
        return known, ~known
    sets = [scores["label"].isin(labels).to_numpy() for labels in (usual_labels, unusual_labels)]
    return sets[0] if usual_labels else ~sets[1], sets[1] if unusual_labels else ~sets[0]


def _ranks(values: np.ndarray) -> np.ndarray:
    return pd.Series(values).rank().to_numpy()


def area_under_curve(
    usual: np.ndarray, unusual: np.ndarray, confidence: float
) -> tuple[float, float | None, float | None]:
    """Area under the receiver operating characteristic of a score, with its interval.

    It is the share of pairs in which the unusual image has the higher score; ties count half.
    usual, unusual: (m,) and (n,), scores of the two sets, at least one image in each. confidence:
    coverage of the interval, which is computed on the log odds with the variance of DeLong, DeLong
    and Clarke-Pearson 1988; None if a set has one image or the area is 0 or 1.
    """
    both = _ranks(np.concatenate([usual, unusual]))
    # share of the usual images below each unusual image
    above = (both[len(usual) :] - _ranks(unusual)) / len(usual)
    below = 1 - (both[: len(usual)] - _ranks(usual)) / len(unusual)
    area = float(above.mean())
    if min(len(usual), len(unusual)) < 2 or not 0 < area < 1:
        return area, None, None
    error = np.sqrt(above.var(ddof=1) / len(unusual) + below.var(ddof=1) / len(usual))
    error = error / (area * (1 - area))
    reach = scipy.special.ndtri(0.5 + confidence / 2) * error
    low, high = scipy.special.expit(scipy.special.logit(area) + np.array([-reach, reach]))
    return area, float(low), float(high)


def false_positive_rate(usual: np.ndarray, unusual: np.ndarray) -> float:
    """Share of usual images that are taken for unusual where 95 % of the unusual ones are found.

    This is FPR95, at the first point of the curve with at least 95 % of the unusual images, which
    are the positives (Zhang et al. 2023, OpenOOD v1.5). Each set has at least one image.
    """
    least = -(-RECALL * len(unusual) // 100)
    return float((usual >= np.sort(unusual)[-least]).mean())


@dataclass(frozen=True)
class LabelMoments:
    """Sums over fit images, in float64, after subtraction of an origin from every feature.

    The memory does not grow with the images. n: (L,), images of each label. sums: (L, d), of their
    features. products: (d, d), of the products of two coordinates.
    """

    origin: np.ndarray
    n: np.ndarray
    sums: np.ndarray
    products: np.ndarray

    @classmethod
    def empty(cls, origin: np.ndarray, labels: int) -> "LabelMoments":
        """Sums over no images."""
        width = len(origin)
        return cls(origin, np.zeros(labels), np.zeros((labels, width)), np.zeros((width, width)))

    def update(self, features: np.ndarray, label: np.ndarray) -> None:
        """Add features (n, d) with the code (n,) of each label."""
        x = features - self.origin
        for code in np.unique(label):
            self.sums[code] += x[label == code].sum(axis=0)
        np.add.at(self.n, label, 1)
        self.products[...] += x.T @ x

    def within_classes(self) -> tuple[np.ndarray, np.ndarray]:
        """Means (L, d) of the labels minus the origin, and scatter (d, d) of images around them.

        The mean of a label with fewer than two images is that of all images.
        """
        n = self.n[:, None]
        overall = self.sums.sum(axis=0) / max(self.n.sum(), 1)
        means = np.where(n < 2, overall, self.sums / np.maximum(n, 1))
        cross = self.sums.T @ means
        return means, self.products - cross - cross.T + means.T @ (n * means)

    def about(self, point: np.ndarray) -> np.ndarray:
        """Sum (d, d) of the products of differences from a point."""
        shift = self.origin - point
        cross = np.outer(self.sums.sum(axis=0), shift)
        return self.products + cross + cross.T + self.n.sum() * np.outer(shift, shift)


def sum_up(
    blocks: Iterable[tuple[np.ndarray, np.ndarray]], label: np.ndarray, group: np.ndarray
) -> dict[int, LabelMoments]:
    """Sums over all fit images, as WHOLE, and for each group the sums over all others.

    blocks: image_id and features of the fit images. label, group: (n,), by image_id, codes from 0;
    WHOLE for an image in no group. Empty if there are no images.
    """
    parts: dict[int, LabelMoments] = {}
    origin = None
    for image_id, features in blocks:
        wide = features.astype(np.float64)
        for number in np.unique(group[image_id]).tolist():
            rows = group[image_id] == number
            origin = wide[0] if origin is None else origin
            if number not in parts:
                parts[number] = LabelMoments.empty(origin, int(label.max()) + 1)
            parts[number].update(wide[rows], label[image_id[rows]])
    if origin is None:
        return {}
    whole = LabelMoments.empty(origin, int(label.max()) + 1)
    for name in ("n", "sums", "products"):
        for part in parts.values():
            getattr(whole, name)[...] += getattr(part, name)
        for part in parts.values():
            np.subtract(getattr(whole, name), getattr(part, name), out=getattr(part, name))
    return parts | {WHOLE: whole}


def oas(covariance: np.ndarray, n: int) -> np.ndarray:
    """Oracle approximating shrinkage of a covariance (d, d) toward a multiple of the identity.

    The covariance has the divisor n, the number of images. The result is positive definite unless
    it is zero (Chen, Wiesel, Eldar and Hero 2010, as scikit-learn computes it).
    """
    width = len(covariance)
    mean, power = float(np.trace(covariance)) / width, float((covariance**2).mean())
    spread = (n + 1) * (power - mean**2 / width)
    share = min((power + mean**2) / spread, 1.0) if spread > 0 else 1.0
    return (1 - share) * covariance + share * mean * np.eye(width)


def principal_dim(width: int, n: int) -> int:
    """Dimensions of ViM's principal space: those of the paper, and at most half of n images."""
    return min(1000 if width >= 1500 else 512 if width >= 768 else width // 2, n // 2)


def vim_origin(weight: np.ndarray, bias: np.ndarray, stored: str) -> np.ndarray:
    """The feature (d,) with the smallest logits, o = -W^+ b, from which ViM measures.

    stored: precision in which the weights are stored, which decides the rank of W (Wang, Li, Feng
    and Zhang 2022).
    """
    wide = weight.astype(np.float64)
    left, singular, right = scipy.linalg.svd(wide, full_matrices=False)
    kept = singular > rank_tolerance(wide, float(singular[0]), stored)
    return -right[kept].T @ (left[:, kept].T @ bias / singular[kept])


@dataclass(frozen=True)
class DetectorFit:
    """What the fitted detectors know of usual images.

    origin: (d,), of vim_origin(). residual: (d, d - D), orthonormal complement of the principal
    directions. centre: (d,). factor: (d, d), lower Cholesky factor of the shared covariance. means:
    (c, d), of the classes, minus the centre, in units of the factor.
    """

    origin: np.ndarray
    residual: np.ndarray
    centre: np.ndarray
    factor: np.ndarray
    means: np.ndarray

    @classmethod
    def of(cls, moments: LabelMoments, origin: np.ndarray, principal: int) -> "DetectorFit":
        """Fit to sums over images that vary within their labels.

        principal: dimensions of ViM's principal space.
        """
        width, n = len(origin), int(moments.n.sum())
        # All directions by divide and conquer: a subset of a degenerate spectrum takes longer.
        residual = np.linalg.eigh(moments.about(origin))[1][:, : width - principal]
        means, scatter = moments.within_classes()
        factor = np.linalg.cholesky(oas(scatter / n, n))
        several, alone = means[moments.n > 1], means[moments.n == 1][:1]
        overall = moments.sums.sum(axis=0) / n
        classes = np.concatenate([several, alone]) - overall
        whitened = scipy.linalg.solve_triangular(factor, classes.T, lower=True).T
        return cls(origin, residual, moments.origin + overall, factor, whitened)

    def vim_residual(self, features: np.ndarray) -> np.ndarray:
        """Norm (n,) of f - o outside the principal directions of usual images; f is (n, d).

        The directions are eigenvectors of the second moment of the usual images about o. This is
        ViM (Wang, Li, Feng and Zhang 2022) without the logits that it adds.
        """
        return np.linalg.norm((features - self.origin) @ self.residual, axis=1)

    def mahalanobis(self, features: np.ndarray) -> np.ndarray:
        """Smallest squared Mahalanobis distance (n,) to the mean of a class of usual images.

        All classes share one covariance, which is shrunk by oas() (Lee, Lee, Lee and Shin 2018).
        Labels are the classes; labels with one image have the mean of all images.
        """
        x = scipy.linalg.solve_triangular(self.factor, (features - self.centre).T, lower=True).T
        squares = np.vecdot(x, x)[:, None] + np.vecdot(self.means, self.means)
        return np.maximum((squares - 2 * x @ self.means.T).min(axis=1), 0.0)


@dataclass(frozen=True)
class DetectorFits:
    """Fits by the group of images that they leave out, and the fit on all usual images, as WHOLE.

    by_group is empty if one of the fits lacks images that vary within their labels. n: fewest
    images of a fit.
    """

    by_group: dict[int, DetectorFit]
    n: int
    principal_dim: int

    @classmethod
    def of(cls, sums: dict[int, LabelMoments], head: Tensors, stored: str) -> "DetectorFits":
        """Fit to the sums of sum_up(), which are used up."""
        n = min((int(moments.n.sum()) for moments in sums.values()), default=0)
        dim = principal_dim(head["weight"].shape[1], n)
        if n < 2 or not all(map(_vary, sums.values())):
            return cls({}, n, dim)
        origin = vim_origin(head["weight"], head["bias"], stored)
        return cls(
            {number: DetectorFit.of(sums.pop(number), origin, dim) for number in [*sums]}, n, dim
        )

    def scores(self, features: np.ndarray, group: np.ndarray) -> dict[str, np.ndarray]:
        """Scores of FITTED for features (n, d), each by the fit that left out its group (n,)."""
        scores = {name: np.full(len(features), np.nan) for name in FITTED}
        for number in np.unique(group).tolist() if self.by_group else ():
            rows = group == number
            fit = self.by_group.get(number, self.by_group[WHOLE])
            for name in FITTED:
                scores[name][rows] = getattr(fit, name)(features[rows])
        return scores


def _vary(moments: LabelMoments) -> bool:
    return bool(
        np.trace(moments.within_classes()[1]) > ALIKE * max(np.trace(moments.products), 0.0)
    )


def logit_scores(logits: np.ndarray) -> dict[str, np.ndarray]:
    """Detectors that see the logits (n, C) alone.

    max_softmax: minus the largest softmax probability (Hendrycks and Gimpel 2017). energy: minus
    the logarithm of the sum of the exponentials of the logits (Liu, Wang, Owens and Li 2020).
    """
    wide = logits.astype(np.float64)
    energy = -scipy.special.logsumexp(wide, axis=1)
    return {"max_softmax": -np.exp(wide.max(axis=1) + energy), "energy": energy}


def null_scores(features: np.ndarray, basis: np.ndarray) -> dict[str, np.ndarray]:
    """Detectors that see the null component: null_energy, and nusa, -||P_r f|| / ||f||.

    NuSA (Cook, Zare and Gader 2020) is a falling function of null energy, turned so that it rises.
    Both order the images alike, so that their AUROC and FPR95 are equal. features: (n, d). basis:
    (d, k), V_0.
    """
    share = null_energy(features, basis)
    return {"null_energy": share, "nusa": -np.sqrt(np.maximum(1.0 - share, 0.0))}


def detect(
    features: np.ndarray, group: np.ndarray, head: Tensors, basis: np.ndarray, fits: DetectorFits
) -> dict[str, np.ndarray]:
    """Scores (n,) of all DETECTORS, in their order, for features (n, d) in groups (n,)."""
    scores = logit_scores(features @ head["weight"].T + head["bias"])
    scores |= null_scores(features, basis) | fits.scores(features.astype(np.float64), group)
    return {name: scores[name] for name in DETECTORS}


def compare_detectors(
    scores: pd.DataFrame,
    report: dict[str, Any],
    null_dim: int,
    usual_labels: list[str],
    unusual_labels: list[str],
    confidence: float,
) -> pd.DataFrame:
    """One row per detector: AUROC with its interval, and FPR95.

    scores, report: what measure_unusual writes. Both are missing if one of the sets is empty, if
    the detector sees the null space and there is none, or if it could not be fitted.
    """
    usual, unusual = two_sets(scores, usual_labels, unusual_labels)
    rows = []
    for name in DETECTORS:
        values, fitted = scores[name].to_numpy(), name in FITTED
        row = {"detector": name, "n_usual": int(usual.sum()), "n_unusual": int(unusual.sum())}
        row |= dict.fromkeys(["auroc", "auroc_low", "auroc_high", "fpr95"])
        row["n_fit"] = report["n_fit"] if fitted else 0
        row["principal_dim"] = report["principal_dim"] if name == "vim_residual" else None
        row["note"] = IN_SAMPLE if fitted and report["in_sample"] else ""
        if not usual.any() or not unusual.any():
            row["note"] = f"no {'unusual' if usual.any() else 'usual'} images"
        elif name in OF_NULL_SPACE and not null_dim:
            row["note"] = EMPTY
        elif np.isnan(values[usual | unusual]).any():
            row["note"] = UNFITTED
        else:
            area = area_under_curve(values[usual], values[unusual], confidence)
            row |= dict(zip(["auroc", "auroc_low", "auroc_high"], area, strict=True))
            row["fpr95"] = false_positive_rate(values[usual], values[unusual])
        rows.append(row)
    return pd.DataFrame(rows)


def summarize_null_energy(
    scores: pd.DataFrame,
    null_dim: int,
    usual_labels: list[str],
    unusual_labels: list[str],
    confidence: float,
) -> dict[str, Any]:
    """Area under the curve of a model's null energy, with its interval, and the sizes of both sets.

    The area is None if one of the sets is empty or the head has no null space (null_dim is 0).
    """
    usual, unusual = two_sets(scores, usual_labels, unusual_labels)
    energy = scores["null_energy"].to_numpy()
    area: tuple[float | None, ...] = (None, None, None)
    if null_dim and usual.any() and unusual.any():
        area = area_under_curve(energy[usual], energy[unusual], confidence)
    return {
        **{f"null_energy_auc{end}": v for end, v in zip(("", "_low", "_high"), area, strict=True)},
        "null_energy_usual": int(usual.sum()),
        "null_energy_unusual": int(unusual.sum()),
    }
