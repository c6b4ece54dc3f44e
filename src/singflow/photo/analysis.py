"""What a model's head ignores in one image: scores, texts that null removal moves, steering."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import pandas as pd
import scipy

from singflow.analyses.fits import Fits
from singflow.analyses.geometry import logit_change, null_energy, remove_null
from singflow.analyses.maps import Maps, map_image
from singflow.analyses.metrics import (
    Removal,
    angle_deg,
    angles_to_all_deg,
    remove,
    subspace_translator,
    unit,
)
from singflow.analyses.steering import NullDirections, null_directions
from singflow.analyses.summary import EMPTY, NO_NULL_SPACE, verdict_words
from singflow.analyses.tables import ZERO
from singflow.towers.live import NO_POSITIONS, Classifier, Located, Prediction
from singflow.towers.texts import Texts
from singflow.translators.ridge import Affine

CHUNK = 4096  # number of texts whose angles are computed at once
IN_SAMPLE = "IN SAMPLE: this photo is among the images that the translator was fitted on"
CHANCE = 0.95  # share of AS by chance inside its range
LIKELIEST = 3  # classes that a photo is compared with where no text is asked for
OF_D = ("unique_r2", "unique_r2_low", "unique_r2_high")
ABSENT = "the images that the translator was fitted on are not here"
NOTHING_IGNORED = "no maps: the head has no null space, so it ignores nothing"
NO_TEXT = "no maps: no text was named"
NOT_JUDGED = "no maps: this photo cannot be judged, because {}"
WITHIN_CHANCE = "no maps: no text moved beyond the chance of this photo"


@dataclass(frozen=True)
class Setting:
    """The model, the space and the translator behind an analysis.

    source: origin of the translator, in words. validation_r2: None if unknown. translator: `weak`,
    `not weak` or `unknown`. images: name of the n_images known images that percentiles refer to.
    verdict: on the model, as in a study's table; said: the verdict as a sentence. Both are empty if
    there is no verdict. hidden: what the hidden meaning of the model is about, in sentences;
    hidden_texts: the texts with the largest D, its low and its high end. Both are empty if none was
    found, or with a translator alone. unique_r2, unique_r2_low, unique_r2_high: D of the model;
    None without a test.
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
    verdict: str
    said: str
    hidden: str = ""
    hidden_texts: Sequence[Sequence[Any]] = ()
    unique_r2: float | None = None
    unique_r2_low: float | None = None
    unique_r2_high: float | None = None

    @classmethod
    def of(
        cls,
        facts: Mapping[Any, Any] | None,
        whose: str,
        n_images: int,
        *,
        model: str,
        null_dim: int,
        **more: Any,
    ) -> Self:
        """A setting with the verdict of evidence or of a row of tables/models.csv, if there is one.

        whose: the known images, as in `study's`. more: the fields that do not follow.
        """
        verdict, said = ("", "") if null_dim else (EMPTY, NO_NULL_SPACE)
        if facts is not None:
            verdict, said = str(facts["verdict"]), f"{model}: {verdict_words(facts)}"
            more |= {name: None if pd.isna(facts[name]) else float(facts[name]) for name in OF_D}
        more |= {"model": model, "null_dim": null_dim, "n_images": n_images}
        images = f"{whose} {n_images} image{'' if n_images == 1 else 's'}"
        return cls(images=images, verdict=verdict, said=said, **more)


@dataclass(frozen=True)
class Loaded:
    """A model and a space, with all that the analysis of a photo needs.

    class_texts and class_embeddings (C, m): one text per class. basis: V_0 (d, k). concepts: P
    phrases of a study, with embeddings (P, m). known: is_deg and null_energy (n,) of the known
    images; empty if there are none. fits: None if the images that the translator was fitted on are
    not available. training: hashes of the images that the translator was fitted on.
    """

    classifier: Classifier
    texts: Texts
    setting: Setting
    class_texts: list[str]
    class_embeddings: np.ndarray
    basis: np.ndarray
    translator: Affine
    concepts: Sequence[str] = ()
    concept_embeddings: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    known: dict[str, np.ndarray] = field(default_factory=dict)
    fits: Fits | None = None
    training: frozenset[str] = frozenset()

    @cached_property
    def removed(self) -> Affine:
        """The map T V_0 V_0^T."""
        return subspace_translator(self.translator, self.basis)

    @cached_property
    def steering(self) -> tuple[Affine, np.ndarray]:
        """The translator T in float64, and T V_0 of shape (m, k)."""
        wide = self.translator.astype(np.float64)
        return wide, wide.weight @ self.basis

    def directions(self, features: np.ndarray, embedding: np.ndarray) -> NullDirections:
        """Directions from features toward a text inside the null space."""
        translator, of_null = self.steering
        return null_directions(features, translator, self.basis, of_null, embedding)

    def null_norms(self, step: float, features: np.ndarray) -> float | None:
        """A step in norms of a feature's null component; None without a component or a step."""
        norm = float(np.linalg.norm(features.astype(np.float64) @ self.basis))
        return None if np.isnan(step) or not norm else float(step) / norm


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
        return {
            name: value for name, value in asdict(self).items() if not isinstance(value, np.ndarray)
        }


@dataclass(frozen=True)
class Analysis:
    """Null removal in one image; None stands for an unknown value.

    is_percentile, null_energy_percentile: among the known images. chance_is_deg: mean IS of null
    components that carry no information. null_energy: ||P_0 f||^2 / ||f||^2. logit_change:
    Euclidean norm. unlike: why nothing can be said about the image; empty if something can be said.

    predicted: movement toward the predicted class. texts, reach: for the texts that the user asked
    for. judged: whether AS can be compared with chance. Only then the lists of texts beyond chance
    are filled, strongest first: classes_gained and classes_lost (by contrastive AS), gained and
    lost (concepts of a study, by AS).

    note: a further remark on the photo, or empty. maps: where in the photo, for those of `texts`
    that move beyond chance; None if there are none, and no_maps says why.
    """

    predictions: list[Prediction]
    is_deg: float
    is_percentile: float | None
    chance_is_deg: float | None
    null_energy: float
    null_energy_percentile: float | None
    logit_change: float
    unlike: str
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
    def beyond_chance(self) -> list[tuple[str, str, list[Movement], list[Movement]]]:
        """Kind of texts, the score that ranks them, those gained and those lost; none is empty."""
        sides = [
            ("classes", "as_contrast_deg", self.classes_gained, self.classes_lost),
            ("concepts", "as_deg", self.gained, self.lost),
        ]
        return [side for side in sides if side[2] or side[3]]


def analyze_feature(
    image: Located, loaded: Loaded, texts: list[str] | None, extremes: int, sha256: str
) -> Analysis:
    """Analyze null removal in one image, scored as in measure_scores.

    `texts` None stands for the texts of the LIKELIEST classes.
    `extremes` limits the length of every list of classes or concepts. `sha256` is the hash of the
    image's file, by which images of the training are known.
    """
    features = image.feature
    classifier, fits, setting = loaded.classifier, loaded.fits, loaded.setting
    removal = remove(features, loaded.translator, loaded.removed)
    (predictions,) = classifier.predict(features)
    if texts is None:
        likeliest = predictions[:LIKELIEST]
        texts = list(dict.fromkeys(loaded.class_texts[each.index] for each in likeliest))
    has_null = loaded.basis.shape[1] > 0
    unlike = fits.unlike(features) if fits and has_null else ""
    drawn = fits.chance_removal(features) if fits and has_null and not unlike else None
    judged = drawn is not None and setting.verdict != ZERO

    def scored(embeddings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Angles before and after, and AS (3, p); AS of the draws of chance, if it is judged."""
        before, after = angles_to_texts(removal, embeddings)[:, 0]
        chance = np.empty((0, len(embeddings)))
        if drawn and judged:
            chance = np.subtract(*angles_to_texts(drawn, embeddings))
        return np.stack([before, after, before - after]), chance

    def place(name: str, score: float) -> float | None:
        """Percentage of known images with a score below; equal scores count half."""
        if not loaded.known or not has_null:
            return None
        known = loaded.known[name]
        return 50.0 * float(np.mean(known < score) + np.mean(known <= score))

    scores, chance = scored(loaded.class_embeddings)
    contrast, mean = _contrast(scores[2][None])[0], scores[2].mean()
    classes = _movements(classifier.class_names, scores, contrast, chance)
    classes_gained, classes_lost = _beyond(classes, contrast, _contrast(chance), extremes)
    scores, chance = scored(loaded.concept_embeddings)
    concepts = _movements(loaded.concepts, scores, scores[2] - mean, chance)
    gained, lost = _beyond(concepts, scores[2], chance, extremes)
    embeddings = loaded.texts.embed(texts)
    scores, chance = scored(embeddings)
    asked = _movements(texts, scores, scores[2] - mean, chance)
    is_deg = float(removal.image_score()[0])
    energy = float(null_energy(features, loaded.basis)[0])
    equivalent = remove_null(features, loaded.basis)
    best = predictions[0].index
    maps, no_maps = None, _no_maps(image, loaded, asked, judged, unlike)
    if not no_maps:
        drawn_toward = [row for row, text in enumerate(asked) if text.beyond_chance]
        maps = map_image(
            image,
            loaded.translator,
            loaded.basis,
            [texts[row] for row in drawn_toward],
            embeddings[drawn_toward],
        )
    return Analysis(
        predictions=predictions,
        is_deg=is_deg,
        is_percentile=place("is_deg", is_deg),
        chance_is_deg=float(drawn.image_score().mean()) if drawn else None,
        null_energy=energy,
        null_energy_percentile=place("null_energy", energy),
        logit_change=float(logit_change(classifier.weight, features, equivalent)[0]),
        unlike=unlike,
        predicted=replace(classes[best], text=loaded.class_texts[best]),
        texts=asked,
        reach=[reach(features, loaded, *pair) for pair in zip(texts, embeddings, strict=True)],
        judged=judged,
        classes_gained=classes_gained,
        classes_lost=classes_lost,
        gained=gained,
        lost=lost,
        note=IN_SAMPLE if sha256 in loaded.training else "",
        setting=setting,
        maps=maps,
        no_maps=no_maps,
    )


def _no_maps(
    image: Located, loaded: Loaded, asked: list[Movement], judged: bool, unlike: str
) -> str:
    """Why no text has a map; empty if one has."""
    if not loaded.basis.shape[1]:
        return NOTHING_IGNORED
    if image.parts is None:
        return NO_POSITIONS
    if not asked:
        return NO_TEXT
    if not judged:
        like = f"it is unlike the {loaded.setting.images}" if unlike else ""
        zero = "the model is a known zero" if loaded.setting.verdict == ZERO else ""
        return NOT_JUDGED.format(like or zero or ABSENT)
    return "" if any(text.beyond_chance for text in asked) else WITHIN_CHANCE


def angles_to_texts(removal: Removal, texts: np.ndarray) -> np.ndarray:
    """Angles of n rows to p texts before and after null removal: (2, n, p), in degrees."""
    sides = [unit(removal.original), unit(removal.equivalent)]
    angles = [np.empty((2, len(sides[0]), 0))]
    for start in range(0, len(texts), CHUNK):
        part = unit(texts[start : start + CHUNK])
        angles.append(np.stack([angles_to_all_deg(side, part) for side in sides]))
    return np.concatenate(angles, axis=2)


def _contrast(scores: np.ndarray) -> np.ndarray:
    """AS (n, C) toward every class, minus the mean AS toward all other classes."""
    return scores - (scores.sum(axis=1, keepdims=True) - scores) / max(1, scores.shape[1] - 1)


def _movements(
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
    """Low and high ends that one more draw is between with a probability of CHANCE.

    It is the prediction interval of a normal distribution, of which chance (n, p) are the draws.
    Percentiles of few draws are too near to each other.
    """
    n = len(chance)
    width = scipy.special.stdtrit(n - 1, (1 + CHANCE) / 2) * np.sqrt(1 + 1 / n)
    middle, half = chance.mean(axis=0), width * chance.std(axis=0, ddof=1)
    return [(middle - half).tolist(), (middle + half).tolist()]


def _beyond(
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


def reach(features: np.ndarray, loaded: Loaded, text: str, embedding: np.ndarray) -> Reach:
    """How far a photo with features (1, d) can be steered toward a text, in closed form."""
    directions = loaded.directions(features, embedding)
    (turn,), (near,) = directions.closest_approach(embedding)
    return Reach(
        text=text,
        angle_deg=float(angle_deg(directions.embeddings, embedding)[0]),
        nearest_deg=float(near),
        is_deg=float(turn),
        limit_deg=float(directions.limit_deg()[0]),
        step=loaded.null_norms(directions.step(float(turn))[0], features),
    )


def steering_path(
    features: np.ndarray, loaded: Loaded, embedding: np.ndarray, targets: np.ndarray
) -> list[tuple[float, float]]:
    """Pairs of IS and angle to a text, in degrees, at targets of IS below the limit."""
    directions = loaded.directions(features, embedding)
    steps = np.nan_to_num([directions.step(target)[0] for target in targets])
    points = directions.embeddings + steps[:, None] * directions.translated
    turned, angles = angle_deg(points, directions.embeddings[0]), angle_deg(points, embedding)
    return list(zip(turned.tolist(), angles.tolist(), strict=True))
