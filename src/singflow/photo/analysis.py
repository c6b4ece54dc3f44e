"""What a model's head ignores in one image: its prediction, its scores, and the concepts that null removal brings near or takes away."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy

from singflow.analyses.geometry import logit_change, null_energy, remove_null
from singflow.analyses.metrics import Removal, angle_deg, remove
from singflow.artifacts.tensors import Tensors
from singflow.data.manifest import fill, prompt_of
from singflow.translators.ridge import Affine

LIKELIEST = 5
CHUNK = 4096  # texts whose angles are computed at once


@dataclass(frozen=True)
class Setting:
    """What an analysis rests on. translator: `weak` or `good`, as tables/models.csv says; note: said of a head without null space."""

    study: str
    model: str
    space: str
    rank_rule: str
    null_dim: int
    validation_r2: float
    translator: str
    n_images: int
    note: str


@dataclass(frozen=True)
class Artifacts:
    """A model and a space of a finished study.

    head: weight (C, d), bias (C,); class_names: C of them; basis: V_0 (d, k); removed: T V_0 V_0^T;
    concept_embeddings: (P, m); is_deg, as_deg: (n,) degrees, the scores of the study's images.
    """

    setting: Setting
    head: Tensors
    class_names: list[str]
    basis: np.ndarray
    translator: Affine
    removed: Affine
    concepts: list[str]
    concept_embeddings: np.ndarray
    is_deg: np.ndarray
    as_deg: np.ndarray


@dataclass(frozen=True)
class Prediction:
    """A class of the head; probability: its softmax, from 0 to 1."""

    index: int
    name: str
    probability: float


@dataclass(frozen=True)
class Movement:
    """A text and the image's angles to it before and after null removal, in degrees; as_deg: AS (equation 7), the first less the second."""

    text: str
    angle_original_deg: float
    angle_equivalent_deg: float
    as_deg: float


@dataclass(frozen=True)
class Neighbour:
    """A photo of the study, by its path in the manifest; angle_deg: from its embedding to a translated feature."""

    image_id: int
    path: str
    angle_deg: float


@dataclass(frozen=True)
class Analysis:
    """Null removal in one image.

    predictions: the likeliest classes; null_energy: ||P_0 f||^2 / ||f||^2; logit_change: norm; predicted: toward the predicted class;
    texts: toward the texts asked for; gained, lost: the concepts with the most positive and the most negative AS, strongest first;
    nearest: the study's photos nearest to the translated feature before and after null removal; none where its embeddings are not here.
    Percentiles: of IS, and of |AS| toward the predicted class, among the study's images (|AS| toward their labels), 0 to 100; None for
    a head without null space, where all scores are 0.
    """

    predictions: list[Prediction]
    null_energy: float
    logit_change: float
    is_deg: float
    is_percentile: float | None
    as_abs_percentile: float | None
    predicted: Movement
    texts: list[Movement]
    gained: list[Movement]
    lost: list[Movement]
    nearest: list[Neighbour]


def stored_texts(
    names: dict[str, list[str]], tensors: Tensors, label_templates: list[str], concept_templates: list[str], prompts: dict[str, str]
) -> dict[str, np.ndarray]:
    """Texts whose embeddings a study has, word for word.

    What is averaged over several templates is the embedding of no text.

    Parameters
    ----------
    names : dict of list of str
        prompts/<space>.json: `labels`, `concepts` and `targets`.
    tensors : dict of ndarray
        Their embeddings, of shape (number of texts, m), from prompts/<space>.safetensors.
    label_templates, concept_templates : list of str
        Templates that the study filled, as fill() takes them.
    prompts : dict of str
        The labels' texts in the manifest, by label.

    Returns
    -------
    dict of ndarray of shape (m,)
        Embedding by text.
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


def predict(features: np.ndarray, artifacts: Artifacts) -> list[Prediction]:
    """The likeliest classes of one image.

    Parameters
    ----------
    features : ndarray of shape (1, d)
        The image's feature.
    artifacts : Artifacts
        The model.

    Returns
    -------
    list of Prediction
        At most five, likeliest first.
    """
    logits = features @ artifacts.head["weight"].T + artifacts.head["bias"]
    probabilities = scipy.special.softmax(logits[0].astype(np.float64))
    order = np.argsort(-logits[0], kind="stable")[:LIKELIEST]
    return [Prediction(int(i), artifacts.class_names[i], float(probabilities[i])) for i in order]


def analyze(
    features: np.ndarray,
    artifacts: Artifacts,
    predicted: tuple[str, np.ndarray],
    texts: dict[str, np.ndarray],
    extremes: int,
    nearest: Callable[[np.ndarray], list[Neighbour]],
) -> Analysis:
    """Null removal in one image, scored as measure_null_removal scores it.

    Parameters
    ----------
    features : ndarray of shape (1, d)
        The image's feature.
    artifacts : Artifacts
        A model and a space of the study.
    predicted : tuple of str and ndarray of shape (m,)
        Text and embedding of the predicted class.
    texts : dict of ndarray of shape (m,)
        Embedding by text that is asked for.
    extremes : int
        Most concepts listed either way.
    nearest : callable
        Gives the study's photos nearest to points (2, m), one each.

    Returns
    -------
    Analysis
        Scores of the image.
    """
    removal = remove(features, artifacts.translator, artifacts.removed)
    (toward,) = _movements(removal, [predicted[0]], predicted[1][None])
    concepts = _movements(removal, artifacts.concepts, artifacts.concept_embeddings)
    image_score = float(removal.image_score()[0])
    ranked = artifacts.basis.shape[1] > 0
    return Analysis(
        predictions=predict(features, artifacts),
        null_energy=float(null_energy(features, artifacts.basis)[0]),
        logit_change=float(logit_change(artifacts.head["weight"], features, remove_null(features, artifacts.basis))[0]),
        is_deg=image_score,
        is_percentile=percentile(artifacts.is_deg, image_score) if ranked else None,
        as_abs_percentile=percentile(np.abs(artifacts.as_deg), abs(toward.as_deg)) if ranked else None,
        predicted=toward,
        texts=_movements(removal, list(texts), np.array(list(texts.values()))) if texts else [],
        gained=sorted((each for each in concepts if each.as_deg > 0), key=lambda each: -each.as_deg)[:extremes],
        lost=sorted((each for each in concepts if each.as_deg < 0), key=lambda each: each.as_deg)[:extremes],
        nearest=nearest(np.concatenate([removal.original, removal.equivalent])),
    )


def percentile(scores: np.ndarray, score: float) -> float:
    """Share of scores below a score; equal ones count half.

    Parameters
    ----------
    scores : ndarray of shape (n,)
        At least one.
    score : float
        In the unit of `scores`.

    Returns
    -------
    float
        Percent, 0 to 100.
    """
    return 50.0 * float(np.mean(scores < score) + np.mean(scores <= score))


def _movements(removal: Removal, texts: list[str], embeddings: np.ndarray) -> list[Movement]:
    """One image's movement toward each text; embeddings (p, m)."""
    before, after = (
        np.concatenate([angle_deg(side, embeddings[start : start + CHUNK]) for start in range(0, len(texts), CHUNK)])
        for side in (removal.original, removal.equivalent)
    )
    return [Movement(text, float(a), float(b), float(a - b)) for text, a, b in zip(texts, before, after, strict=True)]


def describe(image: str, analysis: Analysis, setting: Setting) -> str:
    """The analysis in a few lines of text.

    Parameters
    ----------
    image : str
        What the image is called.
    analysis : Analysis
        Its scores.
    setting : Setting
        What they rest on.

    Returns
    -------
    str
        Lines.
    """
    likeliest, others = prediction_lines(analysis)
    lines = [
        f"{image}: {likeliest}",
        f"  {others}",
        *(f"  {line}" for line in score_lines(analysis, setting)),
        *(f"  toward {each.text!r}: {movement_line(each)}" for each in [analysis.predicted, *analysis.texts]),
    ]
    for name, concepts in (("gained", analysis.gained), ("lost", analysis.lost)):
        lines.append(f"  {name}: " + (", ".join(f"{each.text} {each.as_deg:+.2f}" for each in concepts[:3]) or "none"))
    if analysis.nearest:
        before, after = (f"{each.path} ({each.angle_deg:.1f} degrees)" for each in analysis.nearest)
        lines.append(f"  nearest photo of the study: {before}; after null removal: {after}")
    return "\n".join(lines)


def prediction_lines(analysis: Analysis) -> tuple[str, str]:
    """The likeliest class, and those that follow, in words.

    Parameters
    ----------
    analysis : Analysis
        Of one image.

    Returns
    -------
    likeliest, others : str
        A line each.
    """
    first, *others = [f"{each.name} ({100 * each.probability:.1f} %)" for each in analysis.predictions]
    return first, f"then {', '.join(others)}"


def movement_line(movement: Movement) -> str:
    """AS and the angles behind it, in words.

    Parameters
    ----------
    movement : Movement
        Toward one text.

    Returns
    -------
    str
        One line, in degrees.
    """
    return f"AS {movement.as_deg:+.2f} degrees ({movement.angle_original_deg:.1f} to {movement.angle_equivalent_deg:.1f})"


def score_lines(analysis: Analysis, setting: Setting) -> list[str]:
    """Scores and what they rest on, in words.

    Parameters
    ----------
    analysis : Analysis
        Of one image.
    setting : Setting
        What it rests on; a weak translator is named.

    Returns
    -------
    list of str
        Lines.
    """
    lines = [f"IS {analysis.is_deg:.2f} degrees, |AS| toward the predicted class {abs(analysis.predicted.as_deg):.2f} degrees"]
    if analysis.is_percentile is not None and analysis.as_abs_percentile is not None:
        lines.append(
            f"IS is above {analysis.is_percentile:.0f} %, |AS| above {analysis.as_abs_percentile:.0f} % "
            f"of the study's {setting.n_images} image{'s' if setting.n_images != 1 else ''}"
        )
    lines += [setting.note] if setting.note else []
    lines.append(f"null energy {100 * analysis.null_energy:.1f} %, logits change by {analysis.logit_change:.1e}")
    if setting.translator == "weak":
        lines.append(
            f"WEAK TRANSLATOR, held-out R2 {setting.validation_r2:.2f}: this shows how the method works, not what the model ignores"
        )
    return lines
