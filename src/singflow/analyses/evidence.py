"""Test of meaning: does the null component tell something about an image that the logits do not?

The embedding z of an image is split into the model's own words and a remainder. Own words are what
the logits spell with the texts of the head's classes. D is the share of the embeddings' variance by
which the null component improves a flexible read-out of the remainder from the principal
coordinates and the logits (analyses/readout.py). D is cross-fitted. It is also given in degrees,
and beside the smallest leak that the study could have found.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import scipy
from pydantic import Field

from singflow.analyses.readout import (
    PLAIN,
    WITH_NULL,
    Block,
    Blocks,
    ReadOuts,
    Scale,
    Targets,
    few_images,
    read_out,
    softmax,
)
from singflow.config.sections import Section

SHARP, FLAT, TOP = (0.5, 1.0, 2.0), 4.0, 10  # temperatures of own words; classes for the sharp ones
WORDS = len(SHARP) + 2
SHARES = (0.0, 0.01, 0.03, 0.1)  # planted leaks, as shares of the embeddings' variance
FOUND = 0.9  # share of the draws in which a study must find a planted leak
# D is shown to 0.1 %: an interval counts as above 0 if its lower end exceeds half of that
RESOLUTION = 5e-4
MOST_NOISE = 64  # columns of planted noise
MOST_COLUMNS = 480  # of all planted leaks together, where read-outs are in the form of sums


class Evidence(Section):
    """The test of meaning in the null space."""

    margin: float = Field(
        0.005,
        ge=0,
        lt=1,
        description="share of the embeddings' variance that D must exceed to be called meaning",
    )
    draws: int = Field(
        20,
        ge=2,
        le=1000,
        description="planted leaks of each size, and random signs behind the floor of IS",
    )


def own_words(logits: np.ndarray, texts: np.ndarray) -> list[np.ndarray]:
    """Embeddings that a model's logits spell: functions of the principal coordinates alone.

    Parameters
    ----------
    logits : ndarray (n, C)
        Logits of the model.
    texts : ndarray (C, m)
        Unit embeddings of the texts of its classes.

    Returns
    -------
    list of ndarray (n, m)
        WORDS arrays of unit vectors: means of the texts weighted by the TOP largest values of
        softmax(logits / T) for T = 0.5, 1, 2, by all values for T = 4, and the text of the top
        class.

    References
    ----------
    Norouzi et al. 2014 (ConSE).
    """
    n, classes = logits.shape
    top = (
        np.argpartition(logits, -TOP, axis=1)[:, -TOP:]
        if classes > TOP
        else np.broadcast_to(np.arange(classes), (n, classes))
    )
    likeliest, said = np.take_along_axis(logits, top, axis=1), texts[top]
    means = [
        np.einsum("nk,nkm->nm", softmax(likeliest, temperature), said) for temperature in SHARP
    ]  # not yet of norm 1
    means.append(softmax(logits, FLAT) @ texts)
    lengths = [
        np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), np.finfo(np.float64).tiny)
        for mean in means
    ]
    return [
        *(mean / length for mean, length in zip(means, lengths, strict=True)),
        texts[logits.argmax(axis=1)],
    ]


@dataclass(frozen=True)
class Words:
    """Least-squares fit of embeddings by own words: c + sum of s_T w_T.

    texts: (C, m) float64, or None where classes have no names. weights: (WORDS,) s. offset: (m,) c.
    r2: share of the embeddings' variance that own words explain. variance: mean squared distance of
    the embeddings from their mean (m,). n: number of images.
    """

    texts: np.ndarray | None
    weights: np.ndarray
    offset: np.ndarray
    r2: float
    variance: float
    mean: np.ndarray
    n: int

    @classmethod
    def fit(cls, blocks: Blocks, texts: np.ndarray | None) -> "Words":
        """Fit own words to all images; without texts, only the offset."""
        n, first, sums, products = 0, np.zeros(0), np.zeros(0), np.zeros(())
        for block in blocks():
            parts = np.stack(
                [
                    block.embeddings.astype(np.float64),
                    *([] if texts is None else own_words(block.logits, texts)),
                ]
            )
            if not n:
                first, sums = parts[:, 0].copy(), np.zeros((len(parts), parts.shape[2]))
            parts -= first[:, None]
            flat = parts.reshape(len(parts), -1)
            n, sums, products = (
                n + parts.shape[1],
                sums + parts.sum(axis=1),
                products + flat @ flat.T,
            )
        means = sums / n
        gram = products / n - means @ means.T
        weights = np.linalg.lstsq(gram[1:, 1:], gram[1:, 0], rcond=1e-12)[0]
        explained = 2 * weights @ gram[1:, 0] - weights @ gram[1:, 1:] @ weights
        means = means + first
        r2 = float(explained / gram[0, 0]) if gram[0, 0] > 0 else 0.0
        weights, offset = np.pad(weights, (0, WORDS - len(weights))), means[0] - weights @ means[1:]
        return cls(texts, weights, offset, r2, max(float(gram[0, 0]), 0.0), means[0], n)

    @classmethod
    def read(cls, tensors: dict[str, np.ndarray]) -> "Words":
        """Own words from evidence/<space>/<model>.safetensors; r2 and variance are NaN."""
        texts = tensors["class_embeddings"].astype(np.float64)
        nothing = np.nan, np.nan, np.zeros(0), 0
        return cls(
            texts if len(texts) else None, tensors["word_weights"], tensors["offset"], *nothing
        )

    def spoken(self, logits: np.ndarray) -> np.ndarray:
        """Prediction of the embeddings by own words, for logits (n, C): (n, m)."""
        if self.texts is None:
            return np.broadcast_to(self.offset, (len(logits), len(self.offset)))
        return self.offset + np.einsum(
            "t,tnm->nm", self.weights, np.stack(own_words(logits, self.texts))
        )

    def remainder(self, block: Block) -> np.ndarray:
        """Embeddings minus their prediction by own words: (n, m)."""
        return block.embeddings - self.spoken(block.logits)


def remainders(words: Words) -> Targets:
    """The remainder of own words as the only target."""
    return Targets(
        lambda block, _: words.remainder(block), np.ones((len(words.offset), 1)), np.ones(1)
    )


@dataclass(frozen=True)
class JackknifeEstimate:
    """D of one target, or a difference of two values of D, with an interval.

    without: estimates without fold 0, without fold 1 and so on. low, high: ends of the interval.
    error: standard error with `freedom` degrees of freedom. low, high and error are None where the
    folds allow no interval.
    """

    unique_r2: float
    without: tuple[float, ...]
    low: float | None
    high: float | None
    error: float | None
    freedom: int

    def p(self, margin: float) -> float:
        """One-sided p-value for D above a margin; 1 without an interval."""
        if self.error is None:
            return 1.0
        if not self.error:
            return float(self.unique_r2 <= margin)
        return float(scipy.special.stdtr(self.freedom, -(self.unique_r2 - margin) / self.error))


def jackknife(estimate: float, without: Sequence[float], confidence: float) -> JackknifeEstimate:
    """Interval of an estimate by the delete-a-group jackknife and Student's t.

    It covers the sampling of images and the refit of the read-outs. `without` holds the estimates
    with one group left out. With fewer than three groups there is no interval.
    """
    groups = len(without)
    if groups < 3:
        return JackknifeEstimate(float(estimate), (), None, None, None, 0)
    error = float(np.sqrt((groups - 1) ** 2 / groups * np.var(without, ddof=1)))
    reach = float(scipy.special.stdtrit(groups - 1, (1 + confidence) / 2)) * error
    return JackknifeEstimate(
        float(estimate),
        tuple(without),
        float(estimate - reach),
        float(estimate + reach),
        error,
        groups - 1,
    )


class FoldVariance:
    """Squared distances of embeddings from a mean, by fold: the denominators of D."""

    def __init__(self, blocks: Blocks) -> None:
        self._sums: dict[int, tuple[int, np.ndarray, float]] = {}
        for block in blocks():
            z = block.embeddings.astype(np.float64)
            for fold in np.unique(block.fold).tolist():
                rows = z[block.fold == fold]
                n, total, square = self._sums.get(fold, (0, np.zeros(z.shape[1]), 0.0))
                self._sums[fold] = (
                    n + len(rows),
                    total + rows.sum(axis=0),
                    square + float(np.vdot(rows, rows)),
                )

    def can_leave(self, folds: int) -> bool:
        """Whether any `folds` folds can be left out so that two images remain to fit on."""
        return sum(sorted(sums[0] for sums in self._sums.values())[:-folds]) > 1

    def of(self, left_out: tuple[int, ...]) -> np.ndarray:
        """Sum of squared distances of each fold left out from the mean of the kept folds."""
        kept = [sums for fold, sums in self._sums.items() if fold not in left_out]
        mean = np.sum([sums[1] for sums in kept], axis=0) / sum(sums[0] for sums in kept)
        return np.array(
            [
                square - 2.0 * mean @ total + n * mean @ mean
                for n, total, square in map(self._sums.__getitem__, left_out)
            ]
        )


def unique_r2(
    readouts: ReadOuts,
    variance: np.ndarray,
    spread: FoldVariance,
    lambdas: Sequence[float],
    confidence: float,
    intervals: np.ndarray | None = None,
) -> tuple[list[JackknifeEstimate], np.ndarray]:
    """D of every target; intervals from refits that leave one fold out of fitting and of judging.

    Parameters
    ----------
    readouts : ReadOuts
        Read-outs of the targets.
    variance : ndarray (targets,)
        As in Targets.
    spread : Spread
        Squared distances of the embeddings.
    lambdas : sequence of float
        Penalties, as multiples of the mean squared distance of the features from their mean; the
        penalty is chosen for every target and read-out.
    confidence : float
        Coverage of the intervals, 0 to 1.
    intervals : ndarray of bool (targets,), optional
        Targets that get an interval; by default all.

    Returns
    -------
    estimates : list of Estimate
        By target.
    chosen : ndarray of int (2, targets)
        Positions of the penalties without and with the null coordinates.
    """
    folds, targets = readouts.folds, np.arange(len(variance))
    intervals = np.ones(len(variance), dtype=bool) if intervals is None else intervals
    (plain, without_null), (full, with_null) = (
        readouts.select(which, lambdas) for which in (PLAIN, WITH_NULL)
    )
    total = sum(float(spread.of((fold,)).sum()) for fold in folds)
    whole = (without_null - with_null).sum(axis=0) / (total * variance)
    parts, totals, refits = (
        np.zeros((len(folds), len(targets))),
        np.zeros(len(folds)),
        spread.can_leave(2) and len(folds) > 2,
    )
    for first, second in combinations(range(len(folds)), 2) if refits else []:
        left_out = folds[first], folds[second]
        judged = spread.of(left_out)
        # the estimate without one of the two folds is judged on the other
        for place, judge in ((second, 0), (first, 1)):
            totals[place] += judged[judge]
        for which, chosen, sign in ((PLAIN, plain, 1.0), (WITH_NULL, full, -1.0)):
            used, at = np.unique(chosen[intervals], return_inverse=True)
            wanted = (used[:, None] == chosen) & intervals
            found = readouts.errors(
                which, left_out, [lambdas[position] for position in used], wanted
            )
            for place, judge in ((second, 0), (first, 1)):
                parts[place, intervals] += sign * found[judge, at, targets[intervals]]
    without = parts / (totals[:, None] * variance) if refits else np.empty((0, len(targets)))
    estimates = [
        jackknife(float(gain), without[:, target].tolist() if intervals[target] else [], confidence)
        for target, gain in enumerate(whole)
    ]
    return estimates, np.stack([plain, full])


@dataclass(frozen=True)
class Planted:
    """Leaks planted on a study's coordinates: noise as large as the remainder, and directions of b.

    Own words are left out of the planted embeddings, because the test would subtract them again.
    sizes: (shares,) length of the leak. directions: (k, draws, width) of b, scaled so that the leak
    of a draw has mean square 1. middle: (k,) mean of b. noise: length of one noise column. A draw
    has `width` columns of noise, the effective dimension of the remainder.
    """

    sizes: np.ndarray
    directions: np.ndarray
    middle: np.ndarray
    noise: float
    seed: int

    @classmethod
    def draw(
        cls,
        blocks: Blocks,
        words: Words,
        scale: Scale,
        draws: int,
        seed: int,
        most: int = MOST_NOISE,
    ) -> "Planted":
        """Draw directions, and measure how large leaks and noise must be.

        A draw has at most `most` columns of noise.
        """
        n, scatter = 0, np.zeros((len(words.offset), len(words.offset)))
        for block in blocks():
            rest = words.remainder(block)
            scatter, n = scatter + rest.T @ rest, n + len(rest)
        total, square = float(np.trace(scatter)) / n, float((scatter**2).sum()) / n**2
        width = (
            int(np.clip(round(total**2 / square), 1, min(most, len(scatter)))) if square > 0 else 1
        )
        directions = np.random.default_rng([seed, 1]).standard_normal(
            (len(scale.null), draws * width)
        )
        squares = (
            sum((((block.null - scale.null) @ directions) ** 2).sum(axis=0) for block in blocks())
            / n
        )
        squares = squares.reshape(draws, width).sum(axis=1)
        directions /= np.repeat(np.sqrt(np.maximum(squares, np.finfo(np.float64).tiny)), width)
        shares = np.array(SHARES)
        sizes = np.sqrt(shares / (1.0 - shares) * words.variance)
        return cls(
            sizes,
            directions.reshape(-1, draws, width),
            scale.null,
            float(np.sqrt(total / width)),
            seed,
        )

    @property
    def groups(self) -> np.ndarray:
        """(c, t) weights of the errors of noise, leak and both, by draw and share.

        Three errors are enough, because an error is quadratic in the size of the leak.
        """
        _, draws, width = self.directions.shape
        weights = np.stack([1.0 - self.sizes, self.sizes**2 - self.sizes, self.sizes])
        return np.kron(np.eye(draws), np.repeat(weights, width, axis=0))

    def columns(self, block: Block, start: int) -> np.ndarray:
        """Columns (n, c) of a block: noise, leak and their sum, for each draw.

        The noise of an image does not depend on where blocks begin.
        """
        k, draws, width = self.directions.shape
        noise = (
            _normal(self.seed, start, len(block.fold), draws * width).reshape(-1, draws, width)
            * self.noise
        )
        leak = ((block.null - self.middle) @ self.directions.reshape(k, -1)).reshape(noise.shape)
        return np.concatenate([noise, leak, noise + leak], axis=2).reshape(len(noise), -1)


CHUNK = 256


def _normal(seed: int, start: int, n: int, width: int) -> np.ndarray:
    """Normal numbers (n, width) of images start, start + 1, ..., whatever the blocks are."""
    chunks = range(start // CHUNK, (start + n - 1) // CHUNK + 1)
    drawn = [
        np.random.default_rng([seed, 2, chunk]).standard_normal((CHUNK, width)) for chunk in chunks
    ]
    return np.concatenate(drawn)[start - CHUNK * chunks[0] :][:n]


@dataclass(frozen=True)
class Measurement:
    """Results of measure(): facts for <model>.json, planted leaks for <model>.parquet, own words.

    The files are in evidence/<space>.
    """

    facts: dict[str, Any]
    planted: pd.DataFrame
    words: Words


def measure(
    blocks: Blocks,
    texts: np.ndarray | None,
    others: np.ndarray | None,
    *,
    lambdas: Sequence[float],
    margin: float,
    draws: int,
    confidence: float,
    seed: int,
    kernels: bool | None = None,
) -> Measurement:
    """Test a model in a space.

    Parameters
    ----------
    blocks : callable
        Returns all images in blocks, anew at every call.
    texts, others : ndarray (C, m), or None
        Unit embeddings of the texts of the head's classes, and of the same classes in other words
        (for the blind check); None where classes have no names.
    lambdas : sequence of float
        Penalties of the read-outs.
    margin : float
        Share of the variance that D must exceed.
    draws : int
        Planted leaks of each size.
    confidence : float
        Coverage of the intervals, 0 to 1.
    seed : int
        Seed of planted leaks and random features.
    kernels : bool, optional
        Whether the read-outs use kernels; by default if there are fewer images than features.

    Returns
    -------
    Found
        D and all that follows from it are None without null space, without variance of the
        embeddings, or where leaving out a fold leaves fewer than two images. Intervals are None
        with fewer than three folds, or where leaving out two folds leaves fewer than two images.
    """
    words, scale, first = Words.fit(blocks, texts), Scale.of(blocks), next(iter(blocks()))
    spread, rank, k = FoldVariance(blocks), first.principal.shape[1], first.null.shape[1]
    facts: dict[str, Any] = {
        "n": words.n,
        "r2_words": words.r2 if texts is not None else None,
        "margin": margin,
    }
    table = pd.DataFrame(
        {
            "share": [],
            "draw": np.array([], dtype=np.int64),
            "unique_r2": [],
            "unique_r2_low": [],
            "p": [],
        }
    )
    unknown = dict.fromkeys(
        ["unique_r2", "unique_r2_low", "unique_r2_high", "p", "detectable", "blind_unique_r2"]
    )
    if not k or not spread.can_leave(1) or not words.variance > 0:
        return Measurement(facts | unknown | {"lambdas": None}, table, words)
    kernels = few_images(words.n, rank + k) if kernels is None else kernels
    planted = Planted.draw(
        blocks,
        words,
        scale,
        draws,
        seed,
        MOST_NOISE if kernels else max(1, MOST_COLUMNS // (3 * draws)),
    )
    columns: list[Callable[[Block, int], np.ndarray]] = [lambda block, _: words.remainder(block)]
    groups, variance = [np.ones((len(words.offset), 1))], [1.0]
    if texts is not None and others is not None:
        blind, of_blind = _blind(blocks, words, others)
        columns.append(lambda block, _: of_blind.remainder(blind(block)))
        groups.append(groups[0])
        variance.append(of_blind.variance / words.variance)
    columns.append(planted.columns)
    groups.append(planted.groups)
    variance += np.tile(1.0 / (1.0 - np.array(SHARES)), draws).tolist()
    targets = Targets(
        lambda block, start: np.hstack([read(block, start) for read in columns]),
        scipy.linalg.block_diag(*groups),
        np.array(variance),
    )
    readouts = read_out(blocks, targets, seed, kernels)
    spelled = len(variance) > 1 + draws * len(SHARES)
    estimates, chosen = unique_r2(
        readouts,
        targets.variance,
        spread,
        lambdas,
        confidence,
        np.array([not (spelled and target == 1) for target in range(len(variance))]),
    )
    real, *rest = estimates
    blind_d = rest.pop(0).unique_r2 if spelled else None
    rows = [
        {
            "share": share,
            "draw": draw,
            "unique_r2": estimate.unique_r2,
            "unique_r2_low": estimate.low,
            "p": estimate.p(margin),
        }
        for (draw, share), estimate in zip(
            ((draw, share) for draw in range(draws) for share in SHARES), rest, strict=True
        )
    ]
    table = (
        pd.DataFrame(rows)
        .astype({"unique_r2_low": float})
        .sort_values(["share", "draw"], ignore_index=True)
    )
    facts |= {
        "unique_r2": real.unique_r2,
        "unique_r2_low": real.low,
        "unique_r2_high": real.high,
        "unique_r2_without": list(real.without),
        "p": real.p(margin),
        "detectable": detectable(table),
        "blind_unique_r2": blind_d,
        "lambdas": dict(
            zip(
                ("without_null", "with_null"),
                (float(lambdas[position]) for position in chosen[:, 0]),
                strict=True,
            )
        ),
    }
    return Measurement(facts, table, words)


def _blind(
    blocks: Blocks, words: Words, others: np.ndarray
) -> tuple[Callable[[Block], Block], Words]:
    """Images for the blind check, and own words fitted to these images.

    Their embeddings are spelled by the logits with other texts, so that own words are imperfect.
    """
    elsewhere = replace(words, texts=others)

    def blind(block: Block) -> Block:
        return replace(block, embeddings=elsewhere.spoken(block.logits))

    return blind, Words.fit(lambda: map(blind, blocks()), words.texts)


def detectable(planted: pd.DataFrame) -> float | None:
    """Smallest planted share that is found in FOUND of its draws, as are all larger shares.

    A leak is found if its interval is above 0. None if even the largest share is not found.
    """
    often = (planted["unique_r2_low"] > RESOLUTION).groupby(planted["share"]).mean()
    found = None
    for share in sorted((size for size in often.index if size > 0), reverse=True):
        if often[share] < FOUND:
            break
        found = float(share)
    return found


def turn_deg(unique: float | None, words: Words, r2: float) -> float | None:
    """D, or an end of its interval, as an angle of 0 to 90 degrees, to compare with IS.

    It is the angle by which this share of the variance turns a translated feature of mean length.
    r2 is the share of the variance that the translator explains.
    """
    if unique is None:
        return None
    length = float(words.mean @ words.mean) + max(r2, 0.0) * words.variance
    return float(
        np.degrees(np.arctan2(np.sqrt(max(unique, 0.0) * words.variance), np.sqrt(length)))
    )
