"""Scores by refitted translators: the floor of IS, and the removal of unpredicted null coordinates.

The floor of IS is the angle for null components that carry no information beyond own words. Its
embeddings z* are own words plus the remainder of the true embeddings, with a random sign for every
image. The coordinates (a, b) stay, and the translator is refitted to z*.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from singflow.analyses.evidence import Words
from singflow.analyses.metrics import Removal
from singflow.analyses.readout import Block
from singflow.artifacts.scratch import Scratch
from singflow.artifacts.shards import in_blocks
from singflow.errors import InputError
from singflow.parallel import map_apart
from singflow.translators.crossfit import WHOLE, GroupSums, cross_validate, penalties, ridge
from singflow.translators.reference import Paired
from singflow.translators.ridge import Affine

ROWS = 2048  # in memory at once


@dataclass(frozen=True)
class Head:
    """A head and its null space.

    weight (C, d), bias (C,); principal (d, r) and null (d, k) have orthonormal columns.
    """

    weight: np.ndarray
    bias: np.ndarray
    principal: np.ndarray
    null: np.ndarray

    def block(self, features: np.ndarray, embeddings: np.ndarray, fold: np.ndarray) -> Block:
        """Images for the test, from features (n, d) and embeddings (n, m).

        The logits are those of the principal component alone, whatever the rank rule.
        """
        coordinates = features @ self._axes
        a, b = np.split(coordinates, [self.principal.shape[1]], axis=1)
        return Block(
            a, b, features @ self.weight.T + self.bias - b @ self._unseen, embeddings, fold
        )

    @cached_property
    def _axes(self) -> np.ndarray:
        return np.hstack([self.principal, self.null]).astype(np.float32)

    @cached_property
    def _unseen(self) -> np.ndarray:
        return (self.weight @ self.null).astype(np.float32).T


def whole_images(images: Paired, head: Head) -> Iterator[Block]:
    """View 0 of images, in blocks and in the order of the shards."""
    fold = images.manifest["fold"].to_numpy()
    for shard, embeddings in images:
        for part in in_blocks(np.flatnonzero(shard["view"] == 0), ROWS):
            if len(part):
                yield head.block(
                    shard["features"][part], embeddings[part], fold[shard["image_id"][part]]
                )


@dataclass(frozen=True)
class Rows:
    """All views of images, or view 0 alone, in temporary files.

    coordinates: (n, q) minus their origin (q,), principal ones first, then null ones. spoken,
    remainder: (n, m), the prediction of the embeddings by own words, and the rest. image_id, view:
    (n,).
    """

    coordinates: Scratch
    origin: np.ndarray
    spoken: Scratch
    remainder: Scratch
    image_id: np.ndarray
    view: np.ndarray

    @classmethod
    def read(
        cls,
        images: Paired,
        head: Head,
        axes: np.ndarray,
        words: Words,
        folder: Path,
        sums: GroupSums | None,
    ) -> "Rows":
        """Read rows, and add coordinates and embeddings to sums; without sums, only view 0.

        Raises InputError when views are missing.
        """
        shards = [(shard["image_id"], shard["view"]) for shard, _ in images]
        image_id, view = (np.concatenate(column) for column in zip(*shards, strict=True))
        views = int(view.max()) + 1
        if len(view) != views * len(images.manifest):
            raise InputError(
                f"{images.features}: holds {len(view)} rows, not {views} of each of "
                f"{len(images.manifest)} images: remove it and run the workflow again"
            )
        wanted = np.ones(len(view), dtype=bool) if sums is not None else view == 0
        m, start, origin = len(words.offset), 0, np.zeros(axes.shape[1])
        files = [Scratch(folder, int(wanted.sum()), width) for width in (axes.shape[1], m, m)]
        for shard, embeddings in images:
            rows = (
                np.arange(len(shard["view"]))
                if sums is not None
                else np.flatnonzero(shard["view"] == 0)
            )
            for part in in_blocks(rows, ROWS):
                if not len(part):
                    continue
                features, z = shard["features"][part], embeddings[part]
                coordinates = features @ axes
                if sums is not None:
                    sums.update(coordinates, z, shard["image_id"][part], shard["view"][part])
                origin = coordinates[0].astype(np.float64) if not start else origin
                block, at = (
                    head.block(features, z, np.zeros(len(part))),
                    slice(start, start + len(part)),
                )
                spoken = words.spoken(block.logits)
                files[0][at], files[1][at], files[2][at] = coordinates - origin, spoken, z - spoken
                start += len(part)
        return cls(files[0], origin, files[1], files[2], image_id[wanted], view[wanted])


@dataclass(frozen=True)
class Answer:
    """What a ridge fit needs for new embeddings, beside their cross-products with the coordinates.

    groups: the groups of images that are fitted. inverse: (q, q) float32, of the penalized scatter
    of the coordinates. mean: (q,) of the coordinates. n: number of rows. predictor: map from
    principal to null coordinates.
    """

    groups: list[int]
    inverse: np.ndarray
    mean: np.ndarray
    n: int
    predictor: Affine


def answers(
    sums: GroupSums,
    place: np.ndarray,
    rank: int,
    penalty: float,
    lambdas: list[float],
    threads: int | None,
) -> dict[int, Answer]:
    """The fits that score the images, by place.

    place: (n,) the fit of each image, or WHOLE for all training rows. sums: over coordinates and
    embeddings of the training rows. penalty: of the translator. lambdas: penalties tried for the
    prediction of null coordinates from the `rank` principal ones.
    """
    between = sums.regress(slice(0, rank), slice(rank, None))
    best = lambdas[cross_validate(between, lambdas, threads).best]
    crossed = (
        {fit: groups for fit, (groups, _) in enumerate(sums.split.fits)}
        if sums.split.crossed
        else {}
    )
    used = {
        fit: groups
        for fit, groups in (crossed | {WHOLE: sums.split.whole}).items()
        if (place == fit).any()
    }

    def answer(groups: list[int]) -> Answer:
        made, predicting = sums.of(groups), between.of(groups)
        (alpha,) = penalties(made, [penalty])
        return Answer(
            groups,
            made.inverse(alpha).astype(np.float32),
            made.feature_mean,
            made.n,
            ridge(predicting, best),
        )

    return dict(zip(used, map_apart(answer, used.values(), threads), strict=True))


@dataclass(frozen=True)
class Translated:
    """A translator (q, m) of coordinates minus their origin, and its constant (m,), in float32."""

    weight: np.ndarray
    constant: np.ndarray


def refit(
    rows: Rows, groups: np.ndarray, fits: dict[int, Answer], signs: np.ndarray | None
) -> dict[int, Translated]:
    """Refit translators to the embeddings, or to embeddings whose remainders have other signs.

    Parameters
    ----------
    rows : Rows
        The training rows.
    groups : ndarray of int (n,)
        The group of each image, or WHOLE for an image that no fit uses.
    fits : dict of Answer
        By place.
    signs : ndarray (n,), or None
        1 or -1 for every image; None for the embeddings themselves.

    Returns
    -------
    dict of Translated
        By place.
    """
    width, dim = rows.coordinates.shape[1], rows.spoken.shape[1]
    cross = {
        group: np.zeros((width, dim), np.float32)
        for group in np.unique(groups[groups >= 0]).tolist()
    }
    totals = {group: np.zeros(dim) for group in cross}
    for part in in_blocks(np.arange(len(rows.image_id)), ROWS):
        x, image_id = rows.coordinates[part], rows.image_id[part]
        z = rows.spoken[part] + rows.remainder[part] * (
            1.0 if signs is None else signs[image_id].astype(np.float32)[:, None]
        )
        for group in np.unique(groups[image_id]).tolist():
            mine = groups[image_id] == group
            if group in cross:
                cross[group] += x[mine].T @ z[mine]
                totals[group] += z[mine].sum(axis=0, dtype=np.float64)
    made = {}
    for place, fit in fits.items():
        mean = np.sum([totals[group] for group in fit.groups], axis=0) / fit.n
        middle = (fit.mean - rows.origin).astype(np.float32)
        weight = fit.inverse @ (
            np.sum([cross[group] for group in fit.groups], axis=0)
            - fit.n * np.outer(middle, mean.astype(np.float32))
        )
        made[place] = Translated(weight, mean.astype(np.float32) - middle @ weight)
    return made


def image_scores(
    rows: Rows,
    origin: np.ndarray,
    place: np.ndarray,
    rank: int,
    translators: dict[int, Translated],
    predictors: dict[int, Affine] | None = None,
    texts: np.ndarray | None = None,
) -> tuple[np.ndarray, ...]:
    """IS (and AS, with texts) of view 0 of images after null removal or after conditional removal.

    Conditional removal takes away only the part of the null coordinates that predictors leave.

    Parameters
    ----------
    rows : Rows
        Images that are scored.
    origin : ndarray (q,)
        Origin of the coordinates of the training rows, as the translators need it.
    place : ndarray of int (n,)
        The fit that scores each image.
    rank : int
        Number r of principal coordinates.
    translators : dict of Translated
        By place.
    predictors : dict of Affine, optional
        Maps from principal to null coordinates, by place; None for null removal.
    texts : ndarray (n, m), optional
        Text embedding of the label of every image.

    Returns
    -------
    tuple of ndarray (n,)
        Degrees, by image id: IS, and with texts AS.
    """
    found = np.empty((1 if texts is None else 2, len(place)))
    for part in in_blocks(np.flatnonzero(rows.view == 0), ROWS):
        x, image_id = rows.coordinates[part] + rows.origin.astype(np.float32), rows.image_id[part]
        for fit in np.unique(place[image_id]).tolist():
            mine = place[image_id] == fit
            translator, ids, own = translators[fit], image_id[mine], x[mine]
            removed = (
                own[:, rank:]
                if predictors is None
                else own[:, rank:] - predictors[fit](own[:, :rank].astype(np.float64))
            )
            removal = Removal(
                (own - origin.astype(np.float32)) @ translator.weight + translator.constant,
                removed.astype(np.float32) @ translator.weight[rank:],
            )
            found[0, ids] = removal.image_score()
            if texts is not None:
                found[1, ids] = removal.attribute_score(texts[ids])
    return tuple(found)


def floor(
    training: Rows,
    groups: np.ndarray,
    scored: Rows,
    place: np.ndarray,
    rank: int,
    fits: dict[int, Answer],
    *,
    draws: int,
    seed: int,
    threads: int | None,
) -> tuple[np.ndarray, float]:
    """The floor of IS of every image (n,): the mean over draws of random signs, in degrees.

    The second value is the standard deviation over draws of the mean over images. Other arguments
    are as in refit() and image_scores().
    """

    def one(draw: int) -> np.ndarray:
        signs = np.random.default_rng([seed, 3, draw]).choice([-1.0, 1.0], len(groups))
        return image_scores(
            scored, training.origin, place, rank, refit(training, groups, fits, signs)
        )[0]

    total, means = np.zeros(len(place)), []
    for scores in map_apart(one, range(draws), threads):
        total += scores / draws
        means.append(scores.mean())
    return total, float(np.std(means, ddof=1))
