"""Null energy as a detector of unusual images.

Null energy is ||P_0 f||^2 / ||f||^2, the share of a feature that no logit sees. It needs no example
of an unusual image. This analysis measures how well it separates two sets of images.
"""

from typing import Annotated, Any

import numpy as np
import pandas as pd
import scipy
from pydantic import AfterValidator, Field, model_validator

from singflow.config.sections import Listed, Section, unique
from singflow.errors import InputError


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


def area_under_curve(
    usual: np.ndarray, unusual: np.ndarray, confidence: float
) -> tuple[float, float | None, float | None]:
    """Area under the receiver operating characteristic of a score.

    It is the share of pairs in which the unusual image has the higher score; ties count half.

    Parameters
    ----------
    usual, unusual : ndarray (m,) and (n,)
        Scores of the images of the two sets, at least one image in each.
    confidence : float
        Coverage of the interval, 0 to 1.

    Returns
    -------
    area : float
        0 to 1; at 0.5 the score does not separate the sets.
    low, high : float or None
        Interval, computed on the log odds; None if a set has one image or the area is 0 or 1.

    References
    ----------
    DeLong, DeLong and Clarke-Pearson 1988 (variance).
    """
    both = scipy.stats.rankdata(np.concatenate([usual, unusual]))
    # share of the usual images below each unusual image
    above = (both[len(usual) :] - scipy.stats.rankdata(unusual)) / len(usual)
    below = 1 - (both[: len(usual)] - scipy.stats.rankdata(usual)) / len(unusual)
    area = float(above.mean())
    if min(len(usual), len(unusual)) < 2 or not 0 < area < 1:
        return area, None, None
    error = np.sqrt(above.var(ddof=1) / len(unusual) + below.var(ddof=1) / len(usual))
    error = error / (area * (1 - area))
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
