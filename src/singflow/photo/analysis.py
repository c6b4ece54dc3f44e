"""What a model's head ignores in one image: scores, texts that null removal moves, steering."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import scipy

from singflow.analyses.geometry import logit_change, null_energy, remove_null
from singflow.analyses.metrics import Removal, angle_deg, remove
from singflow.analyses.steering import NullDirections, null_directions, steer
from singflow.analyses.tables import ZERO
from singflow.artifacts.tensors import Tensors
from singflow.data.manifest import fill, prompt_of
from singflow.photo.fits import Trained, attribute_scores
from singflow.translators.ridge import Affine

LIKELIEST = 5
CHUNK = 4096  # number of texts whose angles are computed at once
CHANCE = (2.5, 97.5)  # percentiles of AS over the draws of chance


@dataclass(frozen=True)
class Setting:
    """The model, the space and the translator behind an analysis.

    source: origin of the translator, in words. validation_r2: None if unknown. translator: `weak`,
    `good` or `unknown`. images: name of the n_images known images that percentiles refer to.
    verdict: on the model, as in a study's table; said: the verdict as a sentence. Both are empty if
    there is no verdict.
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


@dataclass(frozen=True)
class Usual:
    """Scores, of shape (n,), of the known images that a photo is compared with."""

    is_deg: np.ndarray
    null_energy: np.ndarray


@dataclass(frozen=True)
class Artifacts:
    """A model and a space, with all that the analysis of a photo needs.

    head: weight (C, d) and bias (C,). class_texts and class_embeddings (C, m): one text per class.
    basis: V_0 (d, k). removed: the map T V_0 V_0^T. concepts: P phrases of a study, with embeddings
    (P, m). usual: None if there are no known images. fits: None if the images that the translator
    was fitted on are not available.
    """

    setting: Setting
    head: Tensors
    class_names: list[str]
    class_texts: list[str]
    class_embeddings: np.ndarray
    basis: np.ndarray
    translator: Affine
    removed: Affine
    concepts: list[str]
    concept_embeddings: np.ndarray
    usual: Usual | None
    fits: Trained | None

    @cached_property
    def steering(self) -> tuple[Affine, np.ndarray]:
        """The translator T in float64, and T V_0 of shape (m, k)."""
        wide = self.translator.astype(np.float64)
        return wide, wide.weight @ self.basis


@dataclass(frozen=True)
class Prediction:
    """A class of the head; its probability is the softmax, from 0 to 1."""

    index: int
    name: str
    probability: float


@dataclass(frozen=True)
class Movement:
    """A text, and the image's angles to it before and after null removal, in degrees.

    as_deg: AS (equation 7), the angle before minus the angle after. as_contrast_deg: AS minus the
    mean AS toward the classes of the head (for a class: toward the other classes).
    chance_low_deg, chance_high_deg: range of AS for null components that carry no information; None
    if unknown.
    """

    text: str
    angle_original_deg: float
    angle_equivalent_deg: float
    as_deg: float
    as_contrast_deg: float
    chance_low_deg: float | None = None
    chance_high_deg: float | None = None


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
class Neighbour:
    """A photo of the study or reference, and its embedding's angle to a translated feature."""

    image_id: int
    path: str
    angle_deg: float


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

    nearest: the photos nearest to the translated feature before and after null removal; empty if
    their embeddings are not available. note: a further remark on the photo, or empty.
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
    nearest: list[Neighbour]
    note: str


def stored_texts(
    names: dict[str, list[str]],
    tensors: Tensors,
    label_templates: list[str],
    concept_templates: list[str],
    prompts: dict[str, str],
) -> dict[str, np.ndarray]:
    """Stored embeddings of a study by text, for the texts that it embedded word for word.

    A mean over several templates is left out, because it is not the embedding of any text.
    `prompts` has the text of every label, as in the manifest.
    """
    stored = dict(zip(names["targets"], tensors.get("target_embeddings", []), strict=True))
    if len(concept_templates) == 1:
        filled = [fill(concept_templates[0], concept) for concept in names["concepts"]]
        stored |= dict(zip(filled, tensors["concept_embeddings"], strict=True))
    for label, embedding in zip(names["labels"], tensors["label_embeddings"], strict=True):
        if prompts[label] != prompt_of(label):
            stored[prompts[label]] = embedding
        elif len(label_templates) == 1:
            stored[fill(label_templates[0], label)] = embedding
    return stored


def predict(features: np.ndarray, head: Tensors, class_names: Sequence[str]) -> list[Prediction]:
    """The at most five likeliest classes of one image with features (1, d), likeliest first."""
    logits = features @ head["weight"].T + head["bias"]
    probabilities = scipy.special.softmax(logits[0].astype(np.float64))
    order = np.argsort(-logits[0], kind="stable")[:LIKELIEST]
    return [Prediction(int(i), class_names[i], float(probabilities[i])) for i in order]


def analyze_feature(
    features: np.ndarray,
    artifacts: Artifacts,
    texts: dict[str, np.ndarray],
    extremes: int,
    nearest: Callable[[np.ndarray], list[Neighbour]],
    note: str = "",
) -> Analysis:
    """Analyze null removal in one image with features (1, d), scored as in measure_null_removal.

    `extremes` limits the length of every list of classes or concepts. `nearest` finds the photos
    nearest to the two translated features (2, m).
    """
    removal = remove(features, artifacts.translator, artifacts.removed)
    predictions = predict(features, artifacts.head, artifacts.class_names)
    ranked, usual, fits = artifacts.basis.shape[1] > 0, artifacts.usual, artifacts.fits
    unlike = fits.unlike(features) if fits and ranked else ""
    drawn = fits.floor.removal(features) if fits and ranked and not unlike else None
    judged = drawn is not None and artifacts.setting.verdict != ZERO
    wanted = np.stack(list(texts.values())) if texts else artifacts.class_embeddings[:0]
    embeddings = [artifacts.class_embeddings, artifacts.concept_embeddings, wanted]
    of_classes, *scores = [_scores(removal, vectors) for vectors in embeddings]
    chance, *chances = [
        attribute_scores(drawn, vectors) if drawn and judged else np.empty((0, len(vectors)))
        for vectors in embeddings
    ]
    contrast, mean = _contrast(of_classes[2:])[0], of_classes[2].mean()
    classes = _movements(artifacts.class_names, of_classes, contrast, chance)
    concepts, asked = (
        _movements(names, angles, angles[2] - mean, drawn_as)
        for names, angles, drawn_as in zip(
            (artifacts.concepts, list(texts)), scores, chances, strict=True
        )
    )
    gained, lost = _beyond(classes, contrast, _contrast(chance), extremes)
    concepts_gained, concepts_lost = _beyond(concepts, scores[0][2], chances[0], extremes)
    is_deg, energy = (
        float(removal.image_score()[0]),
        float(null_energy(features, artifacts.basis)[0]),
    )
    best = predictions[0].index
    return Analysis(
        predictions=predictions,
        is_deg=is_deg,
        is_percentile=percentile(usual.is_deg, is_deg) if usual and ranked else None,
        chance_is_deg=float(drawn.image_score().mean()) if drawn else None,
        null_energy=energy,
        null_energy_percentile=percentile(usual.null_energy, energy) if usual and ranked else None,
        logit_change=float(
            logit_change(
                artifacts.head["weight"], features, remove_null(features, artifacts.basis)
            )[0]
        ),
        unlike=unlike,
        predicted=replace(classes[best], text=artifacts.class_texts[best]),
        texts=asked,
        reach=[reach(features, artifacts, text, embedding) for text, embedding in texts.items()],
        judged=judged,
        classes_gained=gained,
        classes_lost=lost,
        gained=concepts_gained,
        lost=concepts_lost,
        nearest=nearest(np.concatenate([removal.original, removal.equivalent])),
        note=note,
    )


def _contrast(scores: np.ndarray) -> np.ndarray:
    """AS (n, C) toward every class, minus the mean AS toward all other classes."""
    return scores - (scores.sum(axis=1, keepdims=True) - scores) / max(1, scores.shape[1] - 1)


def _movements(
    names: Sequence[str], scores: np.ndarray, contrast: np.ndarray, chance: np.ndarray
) -> list[Movement]:
    """Movements toward p texts.

    scores: (3, p), as of _scores(). contrast: (p,). chance: (draws, p), AS of null components that
    carry no information; no draws if chance is unknown.
    """
    low, high = (
        np.percentile(chance, CHANCE, axis=0).tolist() if len(chance) else [[None] * len(names)] * 2
    )
    rows = zip(names, *scores.tolist(), contrast.tolist(), low, high, strict=True)
    return [Movement(*row) for row in rows]


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


def _directions(
    features: np.ndarray, artifacts: Artifacts, embedding: np.ndarray
) -> NullDirections:
    translator, of_null = artifacts.steering
    return null_directions(features, translator, artifacts.basis, of_null, embedding)


def _null_norm(features: np.ndarray, artifacts: Artifacts) -> float:
    return float(np.linalg.norm(features.astype(np.float64) @ artifacts.basis))


def reach(features: np.ndarray, artifacts: Artifacts, text: str, embedding: np.ndarray) -> Reach:
    """How far a photo with features (1, d) can be steered toward a text, in closed form."""
    directions = _directions(features, artifacts, embedding)
    (turn,), (near,) = directions.nearest(embedding)
    (limit,) = directions.limit_deg()
    (step,) = directions.step(float(turn))
    norm = _null_norm(features, artifacts)
    length = None if np.isnan(step) or not norm else float(step) / norm
    return Reach(
        text,
        float(angle_deg(directions.embeddings, embedding)[0]),
        float(near),
        float(turn),
        float(limit),
        length,
    )


def steer_feature(
    features: np.ndarray,
    artifacts: Artifacts,
    text: str,
    embedding: np.ndarray,
    target_is_deg: float,
) -> Steered:
    """Steer a photo's feature (1, d) toward a text inside the null space.

    All changes are measured on the steered feature in float32.
    """
    directions = _directions(features, artifacts, embedding)
    (limit,), step = directions.limit_deg(), directions.step(target_is_deg)
    reachable = not np.isnan(step[0])
    step = np.where(np.isnan(step), 0.0, step)
    moved = steer(features, directions.vectors, step)
    before, after = directions.embeddings, artifacts.steering[0](moved.astype(np.float64))
    angles = [float(angle_deg(point, embedding)[0]) for point in (before, after)]
    weight, bias = (artifacts.head[name].astype(np.float64) for name in ("weight", "bias"))
    logits = [(point.astype(np.float64) @ weight.T + bias)[0] for point in (features, moved)]
    norm = _null_norm(features, artifacts)
    return Steered(
        text=text,
        target_is_deg=target_is_deg,
        reachable=reachable,
        limit_deg=float(limit),
        is_deg=float(angle_deg(before, after)[0]),
        angle_original_deg=angles[0],
        angle_deg=angles[1],
        as_deg=angles[0] - angles[1],
        step=float(step[0]) / norm if norm else 0.0,
        logit_change=float(np.abs(logits[1] - logits[0]).max()),
        top1_changed=bool(logits[0].argmax() != logits[1].argmax()),
        feature=moved[0],
        embedding=after[0],
    )


def percentile(scores: np.ndarray, score: float) -> float:
    """Percentage of scores below a score; equal scores count half."""
    return 50.0 * float(np.mean(scores < score) + np.mean(scores <= score))


def _scores(removal: Removal, embeddings: np.ndarray) -> np.ndarray:
    """Angles of one image to p texts before and after null removal, and AS: (3, p), in degrees."""
    blocks = range(0, len(embeddings), CHUNK)
    before, after = (
        np.concatenate(
            [np.empty(0), *(angle_deg(side, embeddings[start : start + CHUNK]) for start in blocks)]
        )
        for side in (removal.original, removal.equivalent)
    )
    return np.stack([before, after, before - after])
