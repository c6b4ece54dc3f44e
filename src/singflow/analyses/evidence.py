"""Test of meaning: does the null component tell something about an image that the logits do not?

The embedding z of an image is split into the model's own words and a remainder. Own words are what
the logits spell with the texts of the head's classes. D is the share of the embeddings' variance by
which the null component improves a flexible read-out of the remainder from the principal
coordinates and the logits (analyses/readout.py). D is cross-fitted. It is also given in degrees,
and beside the smallest leak that the study could have found.
"""

from collections.abc import Callable, Iterable, Sequence
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
TINY = np.finfo(np.float64).tiny
POWER = 0.9  # share of the draws in which a study must find a planted leak
# D is shown to 0.1 %: an interval counts as above 0 if its lower end exceeds half of that
RESOLUTION = 5e-4
UNKNOWN = (  # where there is no D
    *("unique_r2", "unique_r2_low", "unique_r2_high", "p", "detectable", "blind_unique_r2"),
    "lambdas",
)
MOST_NOISE = 64  # columns of planted noise
ROUNDING = 1e-6  # share of the variance up to which a remainder is rounding, and has no directions
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


def own_words(logits: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """Embeddings that a model's logits spell: functions of the principal coordinates alone.

    Parameters
    ----------
    logits : ndarray (n, C)
        Logits of the model.
    texts : ndarray (C, m)
        Unit embeddings of the texts of its classes.

    Returns
    -------
    ndarray (WORDS, n, m)
        Unit vectors: means of the texts weighted by the TOP largest values of softmax(logits / T)
        for T = 0.5, 1, 2, by all values for T = 4, and the text of the top class.

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
    stacked = np.stack([*means, softmax(logits, FLAT) @ texts])
    lengths = np.maximum(np.linalg.norm(stacked, axis=2, keepdims=True), TINY)
    return np.concatenate([stacked / lengths, texts[None, logits.argmax(axis=1)]])


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
        n, products = 0, np.zeros(())
        for block in blocks():
            parts = block.embeddings.astype(np.float64)[None]
            if texts is not None:
                parts = np.concatenate([parts, own_words(block.logits, texts)])
            if not n:
                first, sums = parts[:, 0].copy(), np.zeros((len(parts), parts.shape[2]))
            parts -= first[:, None]
            flat = parts.reshape(len(parts), -1)
            n, products = n + parts.shape[1], products + flat @ flat.T
            sums += parts.sum(axis=1)
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
        fitted = tensors["word_weights"], tensors["offset"]
        return cls(texts if len(texts) else None, *fitted, np.nan, np.nan, np.zeros(0), 0)

    def spoken(self, logits: np.ndarray) -> np.ndarray:
        """Prediction of the embeddings by own words, for logits (n, C): (n, m)."""
        if self.texts is None:
            return np.broadcast_to(self.offset, (len(logits), len(self.offset)))
        return self.offset + np.einsum("t,tnm->nm", self.weights, own_words(logits, self.texts))

    def remainder(self, block: Block) -> np.ndarray:
        """Embeddings minus their prediction by own words: (n, m)."""
        return block.embeddings - self.spoken(block.logits)


def remainders(words: Words) -> Targets:
    """The remainder of own words as the only target."""
    groups = np.ones((len(words.offset), 1))
    return Targets(lambda block, _: words.remainder(block), groups, np.ones(1))


@dataclass(frozen=True)
class JackknifeEstimate:
    """D of one target, or a difference of two values of D, with an interval.

    without: estimates without fold 0, without fold 1 and so on. low, high: ends of the interval.
    error: standard error. low, high and error are None where the folds allow no interval.
    """

    unique_r2: float
    without: list[float]
    low: float | None = None
    high: float | None = None
    error: float | None = None

    def p(self, margin: float) -> float:
        """One-sided p-value for D above a margin; 1 without an interval."""
        if self.error is None:
            return 1.0
        if not self.error:
            return float(self.unique_r2 <= margin)
        steps = -(self.unique_r2 - margin) / self.error
        return float(scipy.special.stdtr(len(self.without) - 1, steps))


def jackknife(estimate: float, without: Sequence[float], confidence: float) -> JackknifeEstimate:
    """Interval of an estimate by the delete-a-group jackknife and Student's t.

    It covers the sampling of images and the refit of the read-outs. `without` holds the estimates
    with one group left out. With fewer than three groups there is no interval.
    """
    groups, estimate = len(without), float(estimate)
    if groups < 3:
        return JackknifeEstimate(estimate, [])
    error = float(np.sqrt((groups - 1) ** 2 / groups * np.var(without, ddof=1)))
    reach = float(scipy.special.stdtrit(groups - 1, (1 + confidence) / 2)) * error
    return JackknifeEstimate(estimate, list(without), estimate - reach, estimate + reach, error)


class FoldVariance:
    """Squared distances of embeddings from a mean, by fold: the denominators of D."""

    def __init__(self, blocks: Blocks) -> None:
        self._sums: dict[int, tuple[int, np.ndarray, float]] = {}
        for block in blocks():
            z = block.embeddings.astype(np.float64)
            for fold in np.unique(block.fold).tolist():
                rows = z[block.fold == fold]
                n, total, square = self._sums.get(fold, (0, np.zeros(z.shape[1]), 0.0))
                square += float(np.vdot(rows, rows))
                self._sums[fold] = n + len(rows), total + rows.sum(axis=0), square

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


def without_folds(
    folds: list[int],
    spread: FoldVariance,
    gains: Callable[[tuple[int, ...]], Iterable[np.ndarray]],
    variance: np.ndarray,
) -> np.ndarray:
    """D of every target without each fold: (folds, targets); no rows where images are too few.

    A fold is left out of fitting and of judging: the estimate without it is judged on the others.
    gains: terms (folds left out, targets) of what the null coordinates gain on folds that a fit
    leaves out.
    """
    if not spread.can_leave(2):
        return np.empty((0, len(variance)))
    sums, totals = np.zeros((len(folds), len(variance))), np.zeros(len(folds))
    for first, second in combinations(range(len(folds)), 2):
        left_out, without = (folds[first], folds[second]), [second, first]
        totals[without] += spread.of(left_out)
        for gain in gains(left_out):
            sums[without] += gain
    return sums / (totals[:, None] * variance)


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
    spread : FoldVariance
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
    estimates : list of JackknifeEstimate
        By target.
    chosen : ndarray of int (2, targets)
        Positions of the penalties without and with the null coordinates.
    """
    if intervals is None:
        intervals = np.ones(len(variance), dtype=bool)
    (plain, without_null), (full, with_null) = (
        readouts.select(which, lambdas) for which in (PLAIN, WITH_NULL)
    )
    total = sum(float(spread.of((fold,)).sum()) for fold in readouts.folds)
    whole = (without_null - with_null).sum(axis=0) / (total * variance)

    def gains(left_out: tuple[int, ...]) -> Iterable[np.ndarray]:
        for which, chosen, sign in ((PLAIN, plain, 1.0), (WITH_NULL, full, -1.0)):
            used, at = np.unique(chosen[intervals], return_inverse=True)
            wanted, penalties = (used[:, None] == chosen) & intervals, np.asarray(lambdas)[used]
            found = readouts.errors(which, left_out, penalties, wanted)
            gain = np.zeros((len(left_out), len(variance)))
            gain[:, intervals] = sign * found[:, at, np.flatnonzero(intervals)]
            yield gain

    without = without_folds(readouts.folds, spread, gains, variance)
    estimates = [
        jackknife(gain, without[:, target].tolist() if intervals[target] else [], confidence)
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
        scatter = sum(rest.T @ rest for rest in map(words.remainder, blocks()))
        total, square = float(np.trace(scatter)) / words.n, float((scatter**2).sum()) / words.n**2
        own = total > ROUNDING * words.variance
        wide = round(total**2 / square) if own else len(scatter)
        width = int(np.clip(wide, 1, min(most, len(scatter))))
        directions = np.random.default_rng([seed, 1]).standard_normal(
            (len(scale.null), draws * width)
        )
        leaks = ((block.null - scale.null) @ directions for block in blocks())
        squares = sum((leak**2).sum(axis=0) for leak in leaks) / words.n
        lengths = np.sqrt(np.maximum(squares.reshape(draws, width).sum(axis=1), TINY))
        directions /= np.repeat(lengths, width)
        shares = np.array(SHARES)
        sizes = np.sqrt(shares / (1.0 - shares) * words.variance)
        noise = float(np.sqrt(total / width))
        return cls(sizes, directions.reshape(-1, draws, width), scale.null, noise, seed)

    @property
    def targets(self) -> Targets:
        """The leaks as targets: one for each draw and share."""
        draws = self.directions.shape[1]
        return Targets(self.columns, self.groups, np.tile(1.0 / (1.0 - np.array(SHARES)), draws))

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
        noise = self.noise * _normal(self.seed, start, len(block.fold), draws * width)
        noise = noise.reshape(-1, draws, width)
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

    The files are in evidence/<space>. readouts: those of the remainder; None where there is no D.
    spread: squared distances of the embeddings.
    """

    facts: dict[str, Any]
    planted: pd.DataFrame
    words: Words
    readouts: ReadOuts | None
    spread: FoldVariance


def measure(
    blocks: Blocks,
    texts: np.ndarray | None,
    others: np.ndarray | None,
    settings: Evidence,
    lambdas: Sequence[float],
    confidence: float,
    seed: int,
) -> Measurement:
    """Test a model in a space.

    texts, others: unit embeddings (C, m) of the texts of the head's classes, and of the same
    classes in other words (for the blind check); None where classes have no names. lambdas:
    penalties of the read-outs. confidence: coverage of the intervals. seed: of planted leaks and
    random features.

    D and all that follows from it are None without null space, without variance of the embeddings,
    or where leaving out a fold leaves fewer than two images. Intervals are None with fewer than
    three folds, or where leaving out two folds leaves fewer than two images.
    """
    words, scale, spread = Words.fit(blocks, texts), Scale.of(blocks), FoldVariance(blocks)
    margin, draws = settings.margin, settings.draws
    facts: dict[str, Any] = {
        "n": words.n,
        "r2_words": words.r2 if texts is not None else None,
        "margin": margin,
    }
    if not len(scale.null) or not spread.can_leave(1) or not words.variance > 0:
        return Measurement(facts | dict.fromkeys(UNKNOWN), _table([]), words, None, spread)
    kernels = few_images(words.n, len(scale.principal) + len(scale.null))
    most = MOST_NOISE if kernels else max(1, MOST_COLUMNS // (3 * draws))
    blind = [] if texts is None or others is None else [_blind(blocks, words, others)]
    leaks = Planted.draw(blocks, words, scale, draws, seed, most).targets
    parts = [remainders(words), *blind, leaks]
    targets = Targets(
        lambda block, start: np.hstack([part.columns(block, start) for part in parts]),
        scipy.linalg.block_diag(*(part.groups for part in parts)),
        np.concatenate([part.variance for part in parts]),
    )
    readouts = read_out(blocks, targets, seed, kernels)
    intervals = np.ones(len(targets.variance), dtype=bool)
    intervals[1 : 1 + len(blind)] = False
    estimates, chosen = unique_r2(
        readouts, targets.variance, spread, lambdas, confidence, intervals
    )
    real, planted = estimates[0], estimates[1 + len(blind) :]
    table = _table(
        [
            (share, number // len(SHARES), leak.unique_r2, leak.low, leak.p(margin))
            for number, (share, leak) in enumerate(zip(SHARES * draws, planted, strict=True))
        ]
    )
    facts |= {
        "unique_r2": real.unique_r2,
        "unique_r2_low": real.low,
        "unique_r2_high": real.high,
        "unique_r2_without": real.without,
        "p": real.p(margin),
        "detectable": detectable(table),
        "blind_unique_r2": estimates[1].unique_r2 if blind else None,
        "lambdas": {
            name: float(lambdas[position])
            for name, position in zip(("without_null", "with_null"), chosen[:, 0], strict=True)
        },
    }
    return Measurement(facts, table, words, readouts.first(), spread)


def _table(rows: list[tuple[Any, ...]]) -> pd.DataFrame:
    """The planted leaks, one row each."""
    table = pd.DataFrame(rows, columns=["share", "draw", "unique_r2", "unique_r2_low", "p"])
    kinds = dict.fromkeys(table, float) | {"draw": np.int64}
    return table.astype(kinds).sort_values(["share", "draw"], ignore_index=True)


def _blind(blocks: Blocks, words: Words, others: np.ndarray) -> Targets:
    """The target of the blind check: the remainder of embeddings that the logits spell.

    They are spelled with other texts than own words, so that own words are imperfect.
    """
    elsewhere = replace(words, texts=others)

    def blind(block: Block) -> Block:
        return replace(block, embeddings=elsewhere.spoken(block.logits))

    fitted = Words.fit(lambda: map(blind, blocks()), words.texts)
    variance = np.array([fitted.variance / words.variance])
    groups = np.ones((len(words.offset), 1))
    return Targets(lambda block, _: fitted.remainder(blind(block)), groups, variance)


def detectable(planted: pd.DataFrame) -> float | None:
    """Smallest planted share that is found in POWER of its draws, as are all larger shares.

    A leak is found if its interval is above 0. None if even the largest share is not found.
    """
    leaks = planted[planted["share"] > 0]
    often = (leaks["unique_r2_low"] > RESOLUTION).groupby(leaks["share"]).mean()
    missed = often.index[often < POWER]
    found = often.index[often.index > missed.max()] if len(missed) else often.index
    return float(found.min()) if len(found) else None


def turn_deg(unique: float | None, words: Words, r2: float) -> float | None:
    """D, or an end of its interval, as an angle of 0 to 90 degrees, to compare with IS.

    It is the angle by which this share of the variance turns a translated feature of mean length.
    r2 is the share of the variance that the translator explains.
    """
    if unique is None:
        return None
    length = float(words.mean @ words.mean) + max(r2, 0.0) * words.variance
    turned = max(unique, 0.0) * words.variance
    return float(np.degrees(np.arctan2(np.sqrt(turned), np.sqrt(length))))
