"""Null energy as a detector of unusual images: how well the share of a feature that no logit sees tells two sets of images apart.

It ranks images by one number, ||P_0 f||^2 / ||f||^2, and knows nothing of what is unusual about them.
"""

from typing import Annotated, Any

import numpy as np
import pandas as pd
import scipy
from pydantic import AfterValidator, Field, model_validator

from singflow.config.sections import Listed, Section, unique
from singflow.errors import InputError


class NullEnergy(Section):
    """Which images null energy is to tell from which."""

    usual_labels: Annotated[list[Listed], AfterValidator(unique)] = Field(
        [],
        description="labels of usual images; none: all others, but without both lists those that are classes of the head",
    )
    unusual_labels: Annotated[list[Listed], AfterValidator(unique)] = Field(
        [],
        description="labels of unusual images; none: all others, but without both lists those that are no class of the head",
    )

    @model_validator(mode="after")
    def _are_apart(self) -> "NullEnergy":
        if both := sorted({*self.usual_labels} & {*self.unusual_labels}):
            raise ValueError(
                f"{', '.join(both)} cannot be usual and unusual: take it out of one of the two lists"
            )
        return self


def two_sets(
    scores: pd.DataFrame, usual_labels: list[str], unusual_labels: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """The images that are to be told apart.

    Parameters
    ----------
    scores : DataFrame
        The scores of every image, with label and class_index.
    usual_labels, unusual_labels : list of str
        As NullEnergy has them.

    Returns
    -------
    usual, unusual : ndarray of bool, shape (n,)
        Which images are of each set; some may be of neither.

    Raises
    ------
    InputError
        For a label that no image has.
    """
    if absent := sorted({*usual_labels, *unusual_labels} - {*scores["label"]}):
        raise InputError(
            f"null_energy names labels that no image has: {', '.join(absent)}: correct or remove them"
        )
    if not usual_labels and not unusual_labels:
        known = (scores["class_index"] >= 0).to_numpy()
        return known, ~known
    sets = [scores["label"].isin(labels).to_numpy() for labels in (usual_labels, unusual_labels)]
    return sets[0] if usual_labels else ~sets[1], sets[1] if unusual_labels else ~sets[0]


def area_under_curve(
    usual: np.ndarray, unusual: np.ndarray, confidence: float
) -> tuple[float, float | None, float | None]:
    """Area under the receiver operating characteristic: the share of pairs in which the unusual one has more, ties half.

    Parameters
    ----------
    usual, unusual : ndarray of shape (m,) and (n,)
        What the detector says of images, at least one each.
    confidence : float
        Coverage of the interval, 0 to 1.

    Returns
    -------
    area : float
        0 to 1; 0.5: the detector tells nothing.
    low, high : float or None
        Interval on the scale of the log odds; None for a single image of a set, and where all pairs agree.

    References
    ----------
    DeLong, DeLong and Clarke-Pearson 1988 (the variance).
    """
    both = scipy.stats.rankdata(np.concatenate([usual, unusual]))
    above = (both[len(usual) :] - scipy.stats.rankdata(unusual)) / len(
        usual
    )  # share of the usual ones below each unusual one
    below = 1 - (both[: len(usual)] - scipy.stats.rankdata(usual)) / len(unusual)
    area = float(above.mean())
    if min(len(usual), len(unusual)) < 2 or not 0 < area < 1:
        return area, None, None
    error = np.sqrt(above.var(ddof=1) / len(unusual) + below.var(ddof=1) / len(usual)) / (
        area * (1 - area)
    )
    reach = scipy.stats.norm.ppf(0.5 + confidence / 2) * error
    low, high = scipy.special.expit(scipy.special.logit(area) + np.array([-reach, reach]))
    return area, float(low), float(high)


def summarize_null_energy(
    scores: pd.DataFrame,
    null_dim: int,
    usual_labels: list[str],
    unusual_labels: list[str],
    confidence: float,
) -> dict[str, Any]:
    """How well a model's null energy tells the two sets apart.

    Parameters
    ----------
    scores : DataFrame
        The scores of every image.
    null_dim : int
        Dimension of the null space; without one there is no null energy.
    usual_labels, unusual_labels : list of str
        As NullEnergy has them.
    confidence : float
        Coverage of the interval, 0 to 1.

    Returns
    -------
    dict
        null_energy_auc and its interval, null_energy_usual and null_energy_unusual: images of the sets. None where there is nothing to
        tell apart.
    """
    usual, unusual = two_sets(scores, usual_labels, unusual_labels)
    energy = scores["null_energy"].to_numpy()
    area: tuple[float | None, ...] = (None, None, None)
    if null_dim and usual.any() and unusual.any():
        area = area_under_curve(energy[usual], energy[unusual], confidence)
    named = dict(
        zip(("null_energy_auc", "null_energy_auc_low", "null_energy_auc_high"), area, strict=True)
    )
    return named | {
        "null_energy_usual": int(usual.sum()),
        "null_energy_unusual": int(unusual.sum()),
    }
