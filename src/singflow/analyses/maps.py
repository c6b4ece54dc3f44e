"""Maps: what each position of an image puts into the null component, and toward which texts.

A feature f that is a mean over positions has f = mean of F_p, so P_0 f = mean of P_0 F_p, and
T P_0 f is the sum of what the positions contribute. So is AS, with the mean gradient of the angle
along the removal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor
from typing import TYPE_CHECKING, Any

import numpy as np

from singflow.analyses.geometry import Axes, complement, coordinate_axes, null_energy
from singflow.analyses.metrics import subspace_translator, unit
from singflow.towers.live import Located
from singflow.translators.crossfit import WHOLE, CrossFitted, GroupSums, cross_validate, ridge
from singflow.translators.reference import Paired
from singflow.translators.ridge import Affine

if TYPE_CHECKING:
    import pandas as pd

USED, IGNORED, LABEL, PROMPT = "used", "null energy", "toward label", "toward prompt"
EDGES = ("left", "top", "right", "bottom")
OF_TEXT = ("as_deg", "first_order_deg", "rest_deg", "threshold_deg")
TYPES = {
    "image_id": "int64",
    "map": "str",
    "text": "str",
    "row": "int64",
    "column": "int64",
    "value": "float64",
    "conditional_deg": "float64",
    "beyond": "bool",
    **dict.fromkeys(OF_TEXT, "float64"),
    "others": "int64",
    **dict.fromkeys(EDGES, "float64"),
}
NODES = 32  # of the integral along a removal
OTHERS = 39  # images whose maps are the floor of a map: enough for a level of 0.05


@dataclass(frozen=True)
class TextMap:
    """Where in an image the removal of the null component moves it relative to a text.

    as_deg: AS, which is rest_deg, the part without a position, plus the sum of contribution_deg (h,
    w) over positions; positive: toward the text. first_order_deg: AS by the derivative at the
    feature alone. conditional_deg: (h, w), contributions to the AS of conditional removal.
    threshold_deg: what these reach anywhere in the maps of few other images. beyond: (h, w),
    whether their size is above it. None, and nothing beyond, if unknown.
    """

    text: str
    as_deg: float
    first_order_deg: float
    rest_deg: float
    contribution_deg: np.ndarray
    conditional_deg: np.ndarray | None
    threshold_deg: float | None
    beyond: np.ndarray


@dataclass(frozen=True)
class Maps:
    """What the positions (h, w) of an image put into its feature.

    null_energy: share of ||F_p||^2 in the null space. used: contribution of the principal part to
    the logit of the class `predicted`, without the bias. texts: a map for each text. others: number
    of images whose maps are the floor. seen: as in Located.
    """

    predicted: str
    null_energy: np.ndarray
    used: np.ndarray
    texts: list[TextMap]
    others: int
    seen: tuple[float, float, float, float]

    @property
    def outlined(self) -> bool:
        """Whether a text is found at a position."""
        return any(text.beyond.any() for text in self.texts)


def angle_gradients(embedding: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """Gradients (p, m) of the angles of an embedding u (m,) to texts t (p, m), with respect to u.

    They are (cos u - t) / (|u| sin), with u and t of unit length, in degrees; 0 where the angle is
    0 or 180 and has no gradient. Raises InputError when a vector is zero.
    """
    (direction,), toward = unit(embedding[None]), unit(texts)
    across = (toward @ direction)[:, None] * direction - toward
    sines = np.linalg.norm(across, axis=1, keepdims=True)
    along = np.divide(across, sines, out=np.zeros_like(across), where=sines > 1e-12)
    return np.degrees(along / np.linalg.norm(embedding))


def removal_gradients(original: np.ndarray, removed: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """Mean gradients (p, m), in degrees, of the angles to texts along the removal of a part.

    Their product with the removed part is AS, exactly, and not to first order alone: the integral
    of a gradient along a line is the difference at its ends (integrated gradients; Sundararajan,
    Taly and Yan 2017).

    original: (m,), T f + c. removed: (m,), the part of it that the removal takes away. texts:
    (p, m), of any norm.
    """
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    mean = np.zeros(texts.shape)
    for node, weight in zip(nodes, weights, strict=True):
        mean += weight / 2 * angle_gradients(original - (node + 1) / 2 * removed, texts)
    return mean


def contributions(parts: np.ndarray, removed: Affine, gradients: np.ndarray) -> np.ndarray:
    """Movement (p, ..., h, w) of an image relative to texts, by positions, in degrees.

    The sum over positions is AS if f is the mean of its parts. parts: (..., h, w, d), F_p of
    images. removed: what a removal takes away from the translation of a feature, such as T P_0.
    gradients: (p, m), of removal_gradients().
    """
    positions = parts.shape[-3] * parts.shape[-2]
    values = parts @ (gradients @ removed.weight).T + gradients @ removed.bias
    return np.moveaxis(values, -1, 0) / positions


def movement(image: Located, translator: Affine, removed: Affine, texts: np.ndarray) -> np.ndarray:
    """contributions() of an image by its own gradients. translator: T and c. texts: (p, m)."""
    original, taken = translator(image.feature)[0], removed(image.feature)[0]
    gradients = removal_gradients(original, taken, texts)
    return contributions(image.by_position(), removed, gradients)


def conditional_translator(
    translator: Affine, basis: np.ndarray, axes: Axes, predictor: Affine
) -> Affine:
    """What conditional removal takes from a translation, T V_0 (b - B a), as a map of f in float64.

    translator: T and c. basis: (d, k), V_0. predictor: B, from principal to null coordinates along
    the axes.
    """
    wide = axes._replace(directions=axes.directions.astype(np.float64))
    of_null = translator.weight.astype(np.float64) @ wide.null
    weight = subspace_translator(translator, basis).weight
    predicted = of_null @ predictor.weight @ wide.principal.T
    return Affine(weight - predicted, -(of_null @ predictor.bias))


def fit_conditional(
    images: Paired, folds: int, lambdas: list[float], basis: np.ndarray, translators: CrossFitted
) -> CrossFitted:
    """conditional_translator() of every translator, with B fitted on the same images as it."""
    directions, rank = axes = coordinate_axes(complement(basis), basis, images.features_alone)
    sums = GroupSums(images.split(folds))
    for shard, _ in images:
        coordinates = shard["features"] @ directions
        parts = coordinates[:, :rank], coordinates[:, rank:]
        sums.update(*parts, shard["image_id"], shard["view"])
    best = lambdas[cross_validate(sums, lambdas).best]
    predictors = [ridge(sums.of(groups), best) for groups in sums.split.fitted_on]
    if not translators.crossed:  # imported, or fitted on a reference
        predictors = predictors[WHOLE:]
    members = tuple(
        conditional_translator(translator, basis, axes, predictor)
        for translator, predictor in zip(translators.members, predictors, strict=True)
    )
    return CrossFitted(members, translators.member_of, translators.fold)


def threshold(others: np.ndarray, confidence: float) -> float | None:
    """What the map of an image exceeds by chance with a probability of at most 1 - confidence.

    It is the k-th largest of the largest absolute values of the maps (n, h, w) of n other images;
    None if n is too small. The image and the others are exchangeable if its map is like theirs.
    Then its largest value is above that of all but k others with probability k / (n + 1), whatever
    their distribution and however the positions depend on each other. So the error holds for the
    whole map.
    """
    allowed = floor((1 - confidence) * (len(others) + 1) + 1e-9)
    if not allowed or not len(others):
        return None
    return float(np.sort(np.abs(others).max(axis=(1, 2)))[-allowed])


def fewest_others(confidence: float) -> int:
    """Number of other images below which threshold() is None."""
    return ceil(1 / (1 - confidence) - 1e-9) - 1


def comparable(image_id: int, translators: CrossFitted, sha256: np.ndarray) -> np.ndarray:
    """Which images are exchangeable with an image, as truth values.

    They are no copies of it, and the same translator scores them, which was fitted on neither. No
    image is, if the translator was fitted on the image itself.
    """
    unseen = translators.fold == translators.member_of
    same = translators.member_of == translators.member_of[image_id]
    return unseen & same & (sha256 != sha256[image_id]) & unseen[image_id]


def map_image(
    image: Located,
    translator: Affine,
    basis: np.ndarray,
    conditional: Affine | None,
    others: Sequence[Located],
    texts: Sequence[str],
    embeddings: np.ndarray,
    predicted: tuple[str, np.ndarray],
    confidence: float,
) -> Maps:
    """The maps of an image; raises InputError if it has no parts.

    basis: (d, k), V_0. conditional: of conditional_translator(). others: images whose maps are the
    floor; none if nothing can be said. Each map is made with the gradient of its own image:
    otherwise the image would not be exchangeable with the others. texts, embeddings: p texts and
    their embeddings (p, m), of any norm. predicted: the predicted class, and its row of W.
    confidence: probability with which no position counts if the map is like those of the others.
    """
    parts, wide = image.by_position(), translator.astype(np.float64)
    shape, translated = parts.shape[:2], wide(image.feature)[0]
    removed = subspace_translator(translator, basis)
    taken = removed(image.feature)[0]
    gradients = removal_gradients(translated, taken, embeddings)
    toward = contributions(parts, removed, gradients)
    rest = gradients @ removed.weight @ image.rest
    first_order = angle_gradients(translated, embeddings) @ taken
    unpredicted = np.empty((len(texts), 0, *shape))  # of the image, and of the others
    if conditional:
        every = [movement(each, wide, conditional, embeddings) for each in (image, *others)]
        unpredicted = np.stack(every, axis=1)
    maps = []
    for row, text in enumerate(texts):
        own = unpredicted[row, 0] if conditional else None
        most = threshold(unpredicted[row, 1:], confidence)
        maps.append(
            TextMap(
                text=text,
                as_deg=float(gradients[row] @ taken),
                first_order_deg=float(first_order[row]),
                rest_deg=float(rest[row]),
                contribution_deg=toward[row],
                conditional_deg=own,
                threshold_deg=most,
                beyond=np.zeros(shape, bool) if own is None or most is None else np.abs(own) > most,
            )
        )
    weight = predicted[1].astype(np.float64)
    flat = parts.reshape(-1, parts.shape[-1])
    return Maps(
        predicted=predicted[0],
        null_energy=null_energy(flat, basis).reshape(shape),
        used=parts @ (weight - basis @ (basis.T @ weight)) / len(flat),
        texts=maps,
        others=len(others),
        seen=image.seen,
    )


def map_rows(image_id: int, maps: Maps) -> pd.DataFrame:
    """The maps of an image, one row a position; the first text is the label, others are prompts."""
    import pandas as pd

    rows, columns = np.indices(maps.used.shape).reshape(2, -1) + 1
    shared: dict[str, Any] = dict.fromkeys(TYPES, np.nan) | dict(zip(EDGES, maps.seen, strict=True))
    shared |= {"image_id": image_id, "row": rows, "column": columns}
    shared |= {"beyond": False, "others": maps.others}
    parts: list[dict[str, Any]] = [
        {"map": USED, "text": maps.predicted, "value": maps.used.ravel()},
        {"map": IGNORED, "text": "", "value": maps.null_energy.ravel()},
    ]
    for number, text in enumerate(maps.texts):
        part: dict[str, Any] = {name: getattr(text, name) for name in ("text", *OF_TEXT)}
        part |= {"map": PROMPT if number else LABEL, "beyond": text.beyond.ravel()}
        part |= {"value": text.contribution_deg.ravel()}
        if text.conditional_deg is not None:
            part |= {"conditional_deg": text.conditional_deg.ravel()}
        parts.append(part)
    return map_table([pd.DataFrame(shared | part) for part in parts])


def map_table(parts: list[pd.DataFrame]) -> pd.DataFrame:
    """The rows of all parts, of which there may be none."""
    import pandas as pd

    return pd.concat([pd.DataFrame(columns=[*TYPES]), *parts], ignore_index=True).astype(TYPES)


def maps_of(rows: pd.DataFrame) -> Maps:
    """The maps of an image from its rows."""
    shape = int(rows["row"].max()), int(rows["column"].max())
    used, ignored, *texts = (part for _, part in rows.groupby(["map", "text"], sort=False))

    def of_text(part: pd.DataFrame) -> TextMap:
        values, conditional, beyond = (
            part[column].to_numpy().reshape(shape)
            for column in ("value", "conditional_deg", "beyond")
        )
        numbers = {column: float(part[column].iloc[0]) for column in OF_TEXT}
        most = numbers.pop("threshold_deg")
        return TextMap(
            text=part["text"].iloc[0],
            **numbers,
            contribution_deg=values,
            conditional_deg=conditional,
            threshold_deg=None if np.isnan(most) else most,
            beyond=beyond,
        )

    return Maps(
        predicted=used["text"].iloc[0],
        null_energy=ignored["value"].to_numpy().reshape(shape),
        used=used["value"].to_numpy().reshape(shape),
        texts=list(map(of_text, texts)),
        others=int(rows["others"].iloc[0]),
        seen=tuple(rows[[*EDGES]].iloc[0]),
    )
