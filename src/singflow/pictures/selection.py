"""Which embeddings become pictures: an image, and what its classifier cannot tell from it."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from singflow.analyses.geometry import logit_change, remove_null
from singflow.analyses.metrics import angle_deg, rescale
from singflow.analyses.null_validation import PERTURBATIONS, perturb
from singflow.analyses.steering import null_directions, steer
from singflow.errors import InputError
from singflow.translators.ridge import Affine

Translate = Callable[[np.ndarray], np.ndarray]  # features (n, d) -> embeddings (n, m)

ORIGINAL, REMOVED, STEERED = "original", "null removed", "steered"
LINEAR = "linear"  # kind of the translator of every model


@dataclass(frozen=True)
class Subject:
    """An image of a model: its feature (d,), its label, and the embedding of the label (m,)."""

    image_id: int
    label: str
    feature: np.ndarray
    label_text: np.ndarray


@dataclass(frozen=True)
class Picture:
    """An embedding (m,) to be drawn, and how far it is from the original embedding."""

    figure: str
    image_id: int
    label: str
    kind: str  # of the translator
    change: str  # of the feature
    text: str = ""  # that the feature was steered toward
    target_is_deg: float = np.nan  # wanted IS, if steered
    is_deg: float = np.nan
    as_label_deg: float = np.nan
    as_text_deg: float = np.nan
    logit_change: float = np.nan
    embedding: np.ndarray | None = None  # None where no step reaches the wanted IS


@dataclass(frozen=True)
class SteeredHead:
    """A classifier's head: weight (C, d), bias (C,), and basis V_0 (d, k) of its null space."""

    weight: np.ndarray
    bias: np.ndarray
    basis: np.ndarray


def choose_images(manifest: pd.DataFrame, wanted: list[str], count: int, seed: int) -> pd.DataFrame:
    """The images that a study shows as pictures: the wanted paths in order, or `count` images.

    The latter are drawn by the seed and the content of the images, from as many labels as possible.
    """
    if unknown := [path for path in wanted if path not in set(manifest["path"])]:
        raise InputError(
            f"pictures.images: {', '.join(unknown)}: not in the manifest, whose paths are relative "
            "to data.root"
        )
    if wanted:
        return manifest.set_index("path", drop=False).loc[wanted].reset_index(drop=True)
    drawn = [
        hashlib.blake2b(f"{seed}|picture|{sha256}".encode(), digest_size=16).hexdigest()
        for sha256 in manifest["sha256"]
    ]
    order = manifest[["image_id", "label"]].assign(drawn=drawn).sort_values(["drawn", "image_id"])
    order = order.assign(turn=order.groupby("label").cumcount())
    order = order.sort_values(["turn", "drawn", "image_id"])
    return manifest.loc[order.index[:count]].reset_index(drop=True)


def removal_pictures(
    figure: str, subject: Subject, head: SteeredHead, translate: Translate, kind: str = LINEAR
) -> list[Picture]:
    """The image and its equivalent (equation 9), by any translator; figures 1 and 11."""
    equivalent = remove_null(subject.feature[None], head.basis)
    return _pictures(figure, subject, head, translate, [REMOVED], equivalent, kind)


def perturbation_pictures(
    figure: str, subject: Subject, head: SteeredHead, translate: Translate, seed: int
) -> list[Picture]:
    """The image, and its null, random and principal perturbations of equal norm; figure 13."""
    feature, image_id = subject.feature[None], np.array([subject.image_id])
    changes = perturb(feature, image_id, head.weight, head.bias, head.basis, seed)[:, 0]
    moved = (feature.astype(np.float64) + changes).astype(feature.dtype)
    return _pictures(figure, subject, head, translate, PERTURBATIONS, moved)


def steering_pictures(
    figure: str,
    subject: Subject,
    head: SteeredHead,
    translator: Affine,
    texts: dict[str, np.ndarray],
    targets_deg: list[float],
) -> list[Picture]:
    """The image, and the image steered toward each text, to each target IS; figures 6 and 10."""
    feature, translated_basis = subject.feature[None], translator.weight @ head.basis
    pictures = _pictures(figure, subject, head, translator, [], feature[:0])
    for text, embedding in texts.items():
        directions = null_directions(feature, translator, head.basis, translated_basis, embedding)
        (before,) = directions.embeddings
        for target in targets_deg:
            step = directions.step(target)
            if np.isnan(step[0]):
                own = subject.image_id, subject.label, LINEAR
                pictures.append(Picture(figure, *own, STEERED, text, target))
                continue
            moved = steer(feature, directions.vectors, step)
            _, picture = _pictures(figure, subject, head, translator, [STEERED], moved)
            after = translator(moved)[0]
            nearer = float(angle_deg(before, embedding) - angle_deg(after, embedding))
            toward = replace(picture, text=text, target_is_deg=target, as_text_deg=nearer)
            pictures.append(toward)
    return pictures


def _pictures(
    figure: str,
    subject: Subject,
    head: SteeredHead,
    translate: Translate,
    changes: Sequence[str],
    moved: np.ndarray,
    kind: str = LINEAR,
) -> list[Picture]:
    """The original's picture, and one for each change, at the norm of the original (equation 19).

    moved: the feature after each change (n, d).
    """
    feature, own = subject.feature[None], (subject.image_id, subject.label, kind)
    (original,), label = translate(feature), subject.label_text
    first = Picture(figure, *own, ORIGINAL, embedding=original)
    first = replace(first, is_deg=0.0, as_label_deg=0.0, logit_change=0.0)
    sizes = logit_change(head.weight, np.repeat(feature, len(moved), axis=0), moved)
    changed = [
        replace(
            first,
            change=change,
            is_deg=float(angle_deg(original, embedding)),
            as_label_deg=float(angle_deg(original, label) - angle_deg(embedding, label)),
            logit_change=float(size),
            embedding=rescale(embedding[None], original[None])[0],
        )
        for change, embedding, size in zip(changes, translate(moved), sizes, strict=True)
    ]
    return [first, *changed]
