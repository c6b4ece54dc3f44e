"""Translators fitted to images, and how well they agree with them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from singflow.analyses.geometry import row_span
from singflow.errors import InputError
from singflow.translators.crossfit import (
    ALL_ALIKE,
    WHOLE,
    CrossFitted,
    GroupSums,
    cross_validate,
    penalties,
    ridge,
)
from singflow.translators.ridge import Affine, Agreement

if TYPE_CHECKING:
    from singflow.translators.reference import Paired


def fit_translators(
    images: Paired, folds: int, lambdas: list[float]
) -> tuple[CrossFitted, list[np.ndarray], dict[str, Any]]:
    """Translators of the folds of images, and that of all of them, by the penalty that predicts best out of fold.

    Parameters
    ----------
    images : Paired
        The training images.
    folds, lambdas
        As in the section translator of a study.

    Returns
    -------
    translators : CrossFitted
        In float64.
    means : list of ndarray of shape (m,)
        The mean embeddings that they are judged against.
    facts : dict
        What choosing the penalty showed, as translators/<space>/<model>/linear.json has it.

    Raises
    ------
    InputError
        When all features are alike.
    """
    sums = GroupSums(images.split(folds))
    axes = row_span(images.features_alone())
    if axes is not None and not axes.shape[1]:
        raise InputError(ALL_ALIKE)
    for shard, embeddings in images:
        features = shard["features"] if axes is None else shard["features"] @ axes
        sums.update(features, embeddings, shard["image_id"], shard["view"])
    validation = cross_validate(sums, lambdas)
    best = lambdas[validation.best]
    made = [sums.of(groups) for groups, _ in sums.split.fits if sums.split.crossed] + [
        sums.of(sums.split.whole)
    ]
    maps = tuple(ridge(each, best) for each in made)
    if axes is not None:
        maps = tuple(Affine(each.weight @ axes.T, each.bias) for each in maps)
    (alpha,) = penalties(made[WHOLE], [best])
    dim = len(maps[WHOLE].bias)
    errors = validation.errors.sum(axis=0) / (validation.n.sum() * dim)
    curve = zip(
        lambdas,
        penalties(made[WHOLE], lambdas),
        errors.tolist(),
        validation.r2.tolist(),
        strict=True,
    )
    facts = {
        "alpha": alpha,
        "lambda": best,
        "lambda_at_edge": validation.at_edge,
        "lambdas_within_one_error": validation.within_one_error,
        "n_train": made[WHOLE].n,
        "alpha_curve": [
            dict(zip(("lambda", "alpha", "validation_mse", "validation_r2"), each, strict=True))
            for each in curve
        ],
    }
    place = sums.split.place
    return CrossFitted(maps, place, place), [each.embedding_mean for each in made], facts


@dataclass
class Judgement:
    """Agreement of view 0 of images with their embeddings, and that of the mean embeddings of the images their translators saw."""

    agreement: Agreement = field(default_factory=Agreement)
    baseline: Agreement = field(default_factory=Agreement)

    def facts(self, name: str, dim: int) -> dict[str, float]:
        """The figures of a report.

        Parameters
        ----------
        name : str
            What they begin with.
        dim : int
            Width m of the space.

        Returns
        -------
        dict of float
            Cosine, mean squared error and R2.
        """
        figures = {
            "cosine": self.agreement.cosine,
            "mse": self.agreement.mse(dim),
            "r2": self.agreement.r2(self.baseline),
        }
        return {f"{name}_{figure}": value for figure, value in figures.items()}


def judge(
    images: Paired, translators: CrossFitted, means: list[np.ndarray], *chosen: np.ndarray
) -> list[Judgement]:
    """How well the translators of images predict them, for each choice of images.

    Parameters
    ----------
    images : Paired
        The images.
    translators : CrossFitted
        Of these images.
    means : list of ndarray of shape (m,)
        The mean embedding that each translator is judged against.
    *chosen : ndarray of bool, shape (n,)
        Images of a choice.

    Returns
    -------
    list of Judgement
        One each.
    """
    judgements = [Judgement() for _ in chosen]
    for shard, embeddings in images:
        for judgement, wanted in zip(judgements, chosen, strict=True):
            rows = np.flatnonzero((shard["view"] == 0) & wanted[shard["image_id"]])
            for place, mine in translators.parts(shard["image_id"][rows]):
                features, target = (
                    shard["features"][rows[mine]].astype(np.float64),
                    embeddings[rows[mine]],
                )
                judgement.agreement.update(translators.maps[place](features), target)
                judgement.baseline.update(np.broadcast_to(means[place], target.shape), target)
    return judgements
