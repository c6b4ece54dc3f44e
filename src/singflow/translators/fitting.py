"""Translators fitted to images, and their agreement with the embeddings."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from singflow.errors import InputError
from singflow.translators.crossfit import (
    ALL_ALIKE,
    WHOLE,
    CrossFitted,
    GroupSums,
    cross_validate,
    penalties,
)
from singflow.translators.ridge import Affine, Agreement
from singflow.translators.spans import row_span

if TYPE_CHECKING:
    from singflow.translators.reference import Images

PERMUTATIONS, MOST_PERMUTED = 4, 500


def fit_translators(
    images: Images, folds: int, lambdas: list[float]
) -> tuple[CrossFitted, list[np.ndarray], dict[str, Any]]:
    """Fit a translator for each fold and one for all training images, with one validated penalty.

    With 0 folds and no reference, there is one translator only. Translators are in float64. Beside
    them are returned the mean embedding (m,) of the rows of each fit, which is the baseline of its
    R2, and the facts for translators/<space>/<model>/linear.json: the penalty and its curve of
    errors. Raises InputError if all features are alike, and as Images.split() and cross_validate()
    do.
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
    made = [sums.of(groups) for groups in sums.split.fitted_on]
    members = tuple(of.solve(*penalties(of, [best])) for of in made)
    if axes is not None:
        members = tuple(Affine(fitted.weight @ axes.T, fitted.bias) for fitted in members)
    alphas, dim = penalties(made[WHOLE], lambdas), len(members[WHOLE].bias)
    errors = validation.errors.sum(axis=0) / (validation.n.sum() * dim)
    columns = lambdas, alphas, errors.tolist(), validation.r2.tolist()
    names = "lambda", "alpha", "validation_mse", "validation_r2"
    facts = {
        "alpha": alphas[validation.best],
        "lambda": best,
        "lambda_at_edge": validation.at_edge,
        "n_train": made[WHOLE].n,
        "fold_n_train": [statistics.n for statistics in made[:WHOLE]],
        "alpha_curve": [
            dict(zip(names, point, strict=True)) for point in zip(*columns, strict=True)
        ],
    }
    member_of = sums.split.member_of
    means = [statistics.embedding_mean for statistics in made]
    return CrossFitted(members, member_of, member_of), means, facts


def permuted_r2(images: Images, folds: int, lambdas: list[float]) -> float:
    """The largest cross-validated R2 of translators into the embeddings of other images.

    View 0 of at most MOST_PERMUTED images, evenly by id, is permuted PERMUTATIONS times: with more
    images, R2 of permuted rows is smaller.
    """
    n = len(images.manifest)
    ids = np.arange(min(n, MOST_PERMUTED)) * n // min(n, MOST_PERMUTED)
    found = []
    for shard, embeddings in images:
        rows = np.flatnonzero((shard["view"] == 0) & np.isin(shard["image_id"], ids))
        found.append((shard["image_id"][rows], shard["features"][rows], embeddings[rows]))
    image_id, x, z = (np.concatenate(part) for part in zip(*found, strict=True))
    order = np.argsort(image_id)
    axes = row_span([x])
    x, z = x[order] if axes is None else x[order] @ axes, z[order]
    made = images.split(folds)
    made = replace(made, groups=made.groups[ids])

    def reached(draw: int) -> float:
        sums = GroupSums(made)
        other = np.random.default_rng(draw).permutation(len(ids))
        sums.update(x, z[other], np.arange(len(ids)), np.zeros(len(ids), int))
        return float(cross_validate(sums, lambdas).r2.max())

    return max(map(reached, range(PERMUTATIONS)))


@dataclass
class FitQuality:
    """Agreement of predictions, and of the baseline's mean embedding, with the embeddings."""

    agreement: Agreement = field(default_factory=Agreement)
    baseline: Agreement = field(default_factory=Agreement)

    def facts(self, name: str, dim: int) -> dict[str, float]:
        """Cosine, mean squared error and R2, with names that begin with `name`."""
        return {
            f"{name}_cosine": self.agreement.cosine,
            f"{name}_mse": self.agreement.mse(dim),
            f"{name}_r2": self.agreement.r2(self.baseline),
        }


def fit_quality(
    images: Images, translators: CrossFitted, means: list[np.ndarray], *chosen: np.ndarray
) -> list[FitQuality]:
    """Agreement of translators, and of their baselines, with view 0 of each choice of images."""
    judgements = [FitQuality() for _ in chosen]
    for shard, embeddings in images:
        for judgement, wanted in zip(judgements, chosen, strict=True):
            rows = np.flatnonzero((shard["view"] == 0) & wanted[shard["image_id"]])
            for member, mine in translators.parts(shard["image_id"][rows]):
                features = shard["features"][rows[mine]].astype(np.float64)
                target = embeddings[rows[mine]]
                judgement.agreement.update(translators.members[member](features), target)
                judgement.baseline.update(np.broadcast_to(means[member], target.shape), target)
    return judgements
