"""What a model's head ignores in one image: scores, texts that null removal moves, steering."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import scipy

from singflow.analyses.findings import decision
from singflow.analyses.maps import Maps
from singflow.analyses.metrics import Removal, angles_to_all_deg, unit
from singflow.analyses.summary import EMPTY, NO_NULL_SPACE, Summary
from singflow.towers.live import Prediction

if TYPE_CHECKING:
    from singflow.evidence import Evidence

CHUNK = 4096  # number of texts whose angles are computed at once
CHANCE = 0.95  # share of AS by chance inside its range
ABSENT = "the images that the translator was fitted on are not here"


@dataclass(frozen=True)
class Setting:
    """The model, the space and the translator behind an analysis.

    source: origin of the translator, in words. validation_r2: None if unknown. translator: `weak`,
    `not weak` or `unknown`. images: in words, the n_images that percentiles refer to. n_evidence:
    number of images behind the verdict. verdict: on the model, as in a study's table; said: the
    decision in a sentence. Both are empty if there is no verdict. classes: which classes a head
    knows that has only some, in words; empty for other heads.
    """

    model: str
    space: str
    source: str
    rank_rule: str
    null_dim: int
    validation_r2: float | None
    translator: str
    images: str
    n_images: int
    n_evidence: int
    verdict: str
    said: str
    classes: str

    @classmethod
    def of(cls, evidence: Evidence, model: str, space: str, null_dim: int, classes: str) -> Self:
        """The setting of a model with a null space of null_dim dimensions, by evidence."""
        facts, n, r2 = evidence.facts, len(evidence.images), evidence.r2
        verdict, said = ("", "") if null_dim else (EMPTY, NO_NULL_SPACE)
        if facts:
            verdict = evidence.verdict
            said = f"{model}: {decision(facts, evidence.hidden_texts)}"
        weak = r2 is not None and r2 < Summary.model_validate({}).min_r2
        return cls(
            model,
            space,
            evidence.source,
            facts.get("rank_rule", "exact"),
            null_dim,
            r2,
            facts.get("translator", "unknown" if r2 is None else "weak" if weak else "not weak"),
            f"{n} image{'' if n == 1 else 's'}",
            n,
            facts.get("n", 0),
            verdict,
            said,
            classes,
        )


@dataclass(frozen=True)
class Movement:
    """A text, and the image's angles to it before and after null removal, in degrees.

    as_deg: AS (equation 7), the angle before minus the angle after. as_contrast_deg: AS minus the
    mean AS toward the classes of the head (for a class: toward the other classes).
    chance_low_deg, chance_high_deg: range of AS for null components that carry no information; None
    unless the photo is judged: a photo unlike the reference, a known zero, and a model without
    evidence have no range.
    """

    text: str
    angle_original_deg: float
    angle_equivalent_deg: float
    as_deg: float
    as_contrast_deg: float
    chance_low_deg: float | None = None
    chance_high_deg: float | None = None

    @property
    def beyond_chance(self) -> bool:
        """Whether AS is outside the range of chance; never if there is none."""
        low, high = self.chance_low_deg, self.chance_high_deg
        return low is not None and high is not None and not low <= self.as_deg <= high


@dataclass(frozen=True)
class Reach:
    """How far a photo can be steered toward a text inside the null space, without change of logits.

    angle_deg: angle to the text at the start; nearest_deg: the smallest angle on the way; is_deg:
    the IS at that point. limit_deg: the IS that no step reaches. step: length of the step to the
    nearest point, in norms of the photo's null component; None if the text is nearest at the limit,
    or if the null component is 0.
    """

    text: str
    angle_deg: float
    nearest_deg: float
    is_deg: float
    limit_deg: float
    step: float | None


@dataclass(frozen=True)
class Steered:
    """A photo's feature after it was steered toward a text until its IS is the target.

    feature: (d,) float32. embedding: (m,) float64, the translated feature. angle_original_deg,
    angle_deg: angles to the text before and after; as_deg: the difference of the two. step: in
    norms of the photo's null component. logit_change: largest absolute change of a logit.
    reachable: whether the target is below the limit; otherwise the feature is not changed.
    """

    text: str
    target_is_deg: float
    reachable: bool
    limit_deg: float
    is_deg: float
    angle_original_deg: float
    angle_deg: float
    as_deg: float
    step: float
    logit_change: float
    top1_changed: bool
    feature: np.ndarray
    embedding: np.ndarray

    def to_dict(self) -> dict[str, Any]:
        """All fields except the arrays, as values that JSON can hold.

        Returns
        -------
        dict
            Values by name of the field.
        """
        return {name: v for name, v in vars(self).items() if not isinstance(v, np.ndarray)}


@dataclass(frozen=True)
class Analysis:
    """Null removal in one image; None stands for an unknown value.

    is_percentile, null_energy_percentile: among the known images. chance_is_deg: mean IS of null
    components that carry no information; chance_most_deg: the IS that 1 in 20 of them exceeds, None
    unless the photo is judged. null_energy: ||P_0 f||^2 / ||f||^2. logit_change: Euclidean norm.
    unlike: why nothing can be said about the image; empty if something can be said.

    nearest: of the classes and concepts, the nearest before and the nearest after null removal.
    predicted: movement toward the predicted class. texts, reach: for the texts that the user asked
    for. judged: whether IS and AS can be compared with chance. Only where the photo `moves` are the
    lists of texts beyond chance filled, strongest first: classes_gained and classes_lost (by
    contrastive AS), gained and lost (concepts of a study, by AS).

    note: a further remark on the photo, or empty. maps: where in the photo, for those of `texts`
    that move beyond chance; None if there are none, and no_maps says why.
    """

    predictions: list[Prediction]
    is_deg: float
    is_percentile: float | None
    chance_is_deg: float | None
    chance_most_deg: float | None
    null_energy: float
    null_energy_percentile: float | None
    logit_change: float
    unlike: str
    nearest: tuple[Movement, Movement]
    predicted: Movement
    texts: list[Movement]
    reach: list[Reach]
    judged: bool
    classes_gained: list[Movement]
    classes_lost: list[Movement]
    gained: list[Movement]
    lost: list[Movement]
    note: str
    setting: Setting
    maps: Maps | None = field(compare=False)
    no_maps: str

    @property
    def moves(self) -> bool:
        """Whether IS is beyond chance, as it is for 1 photo in 20 where nothing is hidden."""
        return self.chance_most_deg is not None and self.is_deg > self.chance_most_deg

    @property
    def beyond_chance(self) -> list[tuple[str, str, list[Movement], list[Movement]]]:
        """Kind of texts, the score that ranks them, those gained and those lost; none is empty."""
        sides = [
            ("classes", "as_contrast_deg", self.classes_gained, self.classes_lost),
            ("concepts", "as_deg", self.gained, self.lost),
        ]
        return [side for side in sides if side[2] or side[3]]


def angles_to_texts(removal: Removal, texts: np.ndarray) -> np.ndarray:
    """Angles of n rows to p texts before and after null removal: (2, n, p), in degrees."""
    sides = [unit(removal.original), unit(removal.equivalent)]
    angles = [np.empty((2, len(sides[0]), 0))]
    for start in range(0, len(texts), CHUNK):
        part = unit(texts[start : start + CHUNK])
        angles.append(np.stack([angles_to_all_deg(side, part) for side in sides]))
    return np.concatenate(angles, axis=2)


def contrast_to_others(scores: np.ndarray) -> np.ndarray:
    """AS (n, C) toward every class, minus the mean AS toward all other classes."""
    return scores - (scores.sum(axis=1, keepdims=True) - scores) / max(1, scores.shape[1] - 1)


def movements(
    names: Sequence[str], scores: np.ndarray, contrast: np.ndarray, chance: np.ndarray
) -> list[Movement]:
    """Movements toward p texts.

    scores: (3, p), angles before and after null removal, and AS. contrast: (p,). chance: (draws,
    p), AS of null components that carry no information; no draws if chance is unknown.
    """
    low, high = _chance_range(chance) if len(chance) else [[None] * len(names)] * 2
    rows = zip(names, *scores.tolist(), contrast.tolist(), low, high, strict=True)
    return [Movement(*row) for row in rows]


def _chance_range(chance: np.ndarray) -> list[list[float]]:
    """Low and high ends that one more draw is between with a probability of CHANCE."""
    return [_above(chance, (1 + sign * CHANCE) / 2).tolist() for sign in (-1, 1)]


def chance_most(chance: np.ndarray) -> float:
    """The IS that one more draw does not exceed with a probability of CHANCE.

    chance: (n,), IS of the draws, whose logarithms are about normal.
    """
    return float(np.exp(_above(np.log(chance), CHANCE)))


def _above(chance: np.ndarray, probability: float) -> np.ndarray:
    """Values that one more draw is below with this probability.

    They are the ends of prediction intervals of a normal distribution, of which chance (n, ...) are
    the draws. Percentiles of few draws are too near to each other.
    """
    n = len(chance)
    width = scipy.special.stdtrit(n - 1, probability) * np.sqrt(1 + 1 / n)
    return np.asarray(chance.mean(axis=0) + width * chance.std(axis=0, ddof=1))


def nearest(movements: list[Movement]) -> tuple[Movement, Movement]:
    """The texts that are nearest before and after null removal."""
    before = min(movements, key=lambda text: text.angle_original_deg)
    return before, min(movements, key=lambda text: text.angle_equivalent_deg)


def beyond(
    movements: list[Movement], scores: np.ndarray, chance: np.ndarray, most: int
) -> tuple[list[Movement], ...]:
    """Texts gained and texts lost beyond chance, at most `most` of either, strongest first.

    A score (p,) is beyond chance if it differs more from its mean over the draws (n, p) than the
    score of any draw toward any text does.
    """
    if not chance.size:
        return [], []
    middle, n = chance.mean(axis=0), len(chance)
    least = np.abs(chance - middle).max() * n / (n - 1)  # distance to the mean of the other draws
    found = []
    for sign in (1.0, -1.0):
        order = np.argsort(-sign * scores, kind="stable")
        chosen = order[(sign * (scores - middle) > least)[order] & (sign * scores > 0)[order]]
        found.append([movements[row] for row in chosen[:most]])
    return tuple(found)
