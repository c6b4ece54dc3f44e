"""Does the null component tell of an image what the logits do not? One test, its size in degrees, and what it could have seen.

The embedding z of an image is split into the model's own words, which its logits spell out of the texts of its classes, and a
remainder. D is the share of the embedding's variance by which the null component improves a flexible read-out of the remainder from
the principal coordinates and the logits (analyses/readout.py), cross-fitted.
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

SHARP, FLAT, TOP = (0.5, 1.0, 2.0), 4.0, 10  # temperatures of own words; classes of the sharp ones
WORDS = len(SHARP) + 2
SHARES = (0.0, 0.01, 0.03, 0.1)  # planted leaks, as shares of the embeddings' variance
FOUND = 0.9  # of the planted leaks of a share, where a study is said to find them
RESOLUTION = 5e-4  # of D, to the digits in which it is shown: an interval is above 0 where its lower end is above this
MOST_NOISE = 64  # columns of planted noise
MOST_COLUMNS = 480  # of all planted leaks, in the form of sums


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
    """Embeddings that a model's logits spell, each a function of the principal coordinates alone.

    Parameters
    ----------
    logits : ndarray of shape (n, C)
        Of the model.
    texts : ndarray of shape (C, m)
        Unit embeddings of its classes' texts.

    Returns
    -------
    list of ndarray of shape (n, m)
        WORDS of them, of norm 1: the means of the texts weighted by the TOP largest of softmax(logits / T) for T = 0.5, 1, 2 and by all
        for T = 4, and the text of the top class.

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
    ]  # but for their length
    means.append(softmax(logits, FLAT) @ texts)
    lengths = [
        np.maximum(np.linalg.norm(each, axis=1, keepdims=True), np.finfo(np.float64).tiny)
        for each in means
    ]
    return [
        *(each / length for each, length in zip(means, lengths, strict=True)),
        texts[logits.argmax(axis=1)],
    ]


@dataclass(frozen=True)
class Words:
    """How far own words explain embeddings, by least squares over all images and coordinates.

    texts: (C, m) float64, or None where classes have no names. weights: (WORDS,) s; offset: (m,) c; r2: share of the embeddings' variance
    that c + sum of s_T w_T explains; variance: mean squared distance of the embeddings from their mean (m,); n: images.
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
        """Fit them to all images."""
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
        """Words out of evidence/<space>/<model>.safetensors, which can be spoken and taken off; how far they explain is not known."""
        texts = tensors["class_embeddings"].astype(np.float64)
        nothing = np.nan, np.nan, np.zeros(0), 0
        return cls(
            texts if len(texts) else None, tensors["word_weights"], tensors["offset"], *nothing
        )

    def spoken(self, logits: np.ndarray) -> np.ndarray:
        """What own words make of images with these logits (n, C): (n, m)."""
        if self.texts is None:
            return np.broadcast_to(self.offset, (len(logits), len(self.offset)))
        return self.offset + np.einsum(
            "t,tnm->nm", self.weights, np.stack(own_words(logits, self.texts))
        )

    def remainder(self, block: Block) -> np.ndarray:
        """Embeddings less what own words make of them: (n, m)."""
        return block.embeddings - self.spoken(block.logits)


def remainders(words: Words) -> Targets:
    """The remainder of own words as the one target."""
    return Targets(
        lambda block, _: words.remainder(block), np.ones((len(words.offset), 1)), np.ones(1)
    )


@dataclass(frozen=True)
class Estimate:
    """D of one target, or a difference of two.

    without: the same without each fold; low, high: its interval, None with fewer than three folds; error: its standard error, of `freedom`
    degrees of freedom.
    """

    unique_r2: float
    without: tuple[float, ...]
    low: float | None
    high: float | None
    error: float | None
    freedom: int

    def p(self, margin: float) -> float:
        """One-sided p-value that D is above a margin; 1 where it has no interval."""
        if self.error is None:
            return 1.0
        if not self.error:
            return float(self.unique_r2 <= margin)
        return float(scipy.special.stdtr(self.freedom, -(self.unique_r2 - margin) / self.error))


def jackknife(estimate: float, without: Sequence[float], confidence: float) -> Estimate:
    """Interval of an estimate by the delete-a-group jackknife: it holds the images and the refit of the read-outs.

    Parameters
    ----------
    estimate : float
        Made of all groups.
    without : sequence of float
        The same without each of the groups.
    confidence : float
        Coverage of the interval, 0 to 1.

    Returns
    -------
    Estimate
        By Student's t with one degree of freedom less than groups; without an interval with fewer than three groups.
    """
    groups = len(without)
    if groups < 3:
        return Estimate(float(estimate), (), None, None, None, 0)
    error = float(np.sqrt((groups - 1) ** 2 / groups * np.var(without, ddof=1)))
    reach = float(scipy.special.stdtrit(groups - 1, (1 + confidence) / 2)) * error
    return Estimate(
        float(estimate),
        tuple(without),
        float(estimate - reach),
        float(estimate + reach),
        error,
        groups - 1,
    )


class Spread:
    """Squared distances of embeddings from the mean of those that fit, by folds: what gains are shares of."""

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
        """Whether any so many folds can be left out with two images left to fit on."""
        return sum(sorted(each[0] for each in self._sums.values())[:-folds]) > 1

    def of(self, left_out: tuple[int, ...]) -> np.ndarray:
        """For each fold that is left out, about the mean of the others."""
        kept = [each for fold, each in self._sums.items() if fold not in left_out]
        mean = np.sum([each[1] for each in kept], axis=0) / sum(each[0] for each in kept)
        return np.array(
            [
                square - 2.0 * mean @ total + n * mean @ mean
                for n, total, square in map(self._sums.__getitem__, left_out)
            ]
        )


def unique_r2(
    readouts: ReadOuts,
    variance: np.ndarray,
    spread: Spread,
    lambdas: Sequence[float],
    confidence: float,
    intervals: np.ndarray | None = None,
) -> tuple[list[Estimate], np.ndarray]:
    """D of every target, with intervals by refits that leave a fold out of both the fits and the judges.

    Parameters
    ----------
    readouts : ReadOuts
        Of the targets.
    variance : ndarray of shape (targets,)
        As Targets has it.
    spread : Spread
        Of the embeddings.
    lambdas : sequence of float
        Penalties, times the mean squared distance of the features from their mean; each read-out has its own for each target.
    confidence : float
        Coverage of the intervals, 0 to 1.
    intervals : ndarray of bool, shape (targets,), optional
        Which targets have an interval; by default all.

    Returns
    -------
    estimates : list of Estimate
        By target.
    chosen : ndarray of int, shape (2, targets)
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
        for place, other in ((second, 0), (first, 1)):  # without the one, the other judges
            totals[place] += judged[other]
        for which, chosen, sign in ((PLAIN, plain, 1.0), (WITH_NULL, full, -1.0)):
            used, at = np.unique(chosen[intervals], return_inverse=True)
            wanted = (used[:, None] == chosen) & intervals
            found = readouts.errors(which, left_out, [lambdas[each] for each in used], wanted)
            for place, other in ((second, 0), (first, 1)):
                parts[place, intervals] += sign * found[other, at, targets[intervals]]
    without = parts / (totals[:, None] * variance) if refits else np.empty((0, len(targets)))
    estimates = [
        jackknife(float(each), without[:, target].tolist() if intervals[target] else [], confidence)
        for target, each in enumerate(whole)
    ]
    return estimates, np.stack([plain, full])


@dataclass(frozen=True)
class Planted:
    """Leaks that are planted on a study's own coordinates: own words, noise as large as the remainder's, and a direction of b.

    The words are left away, for they are taken off again. sizes: (shares,) length of the leak; directions: (k, draws) of b, scaled to
    mean square 1; middle: (k,) mean of b; width: columns of noise, as many as the remainder has dimensions that matter; noise: their
    length; seed.
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
        """Draw directions, and measure how large leaks and noise have to be; noise has `most` columns at most."""
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
        """(c, t) weights of the errors of noise, leak, and both, by draw and share: an error is quadratic in the size of the leak."""
        _, draws, width = self.directions.shape
        one = np.stack([1.0 - self.sizes, self.sizes**2 - self.sizes, self.sizes])
        return np.kron(np.eye(draws), np.repeat(one, width, axis=0))

    def columns(self, block: Block, start: int) -> np.ndarray:
        """(n, c) of a block; the noise is that of its images, wherever blocks begin."""
        k, draws, width = self.directions.shape
        noise = (
            _normal(self.seed, start, len(block.fold), draws * width).reshape(-1, draws, width)
            * self.noise
        )
        leak = ((block.null - self.middle) @ self.directions.reshape(k, -1)).reshape(noise.shape)
        return np.concatenate([noise, leak, noise + leak], axis=2).reshape(len(noise), -1)


CHUNK = 256


def _normal(seed: int, start: int, n: int, width: int) -> np.ndarray:
    """Normal numbers (n, width) of images start, start + 1, ..., whatever blocks they come in."""
    chunks = range(start // CHUNK, (start + n - 1) // CHUNK + 1)
    drawn = [
        np.random.default_rng([seed, 2, each]).standard_normal((CHUNK, width)) for each in chunks
    ]
    return np.concatenate(drawn)[start - CHUNK * chunks[0] :][:n]


@dataclass(frozen=True)
class Found:
    """What measure() finds. facts: of evidence/<space>/<model>.json; planted: evidence/<space>/<model>.parquet; words: own words."""

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
) -> Found:
    """The test of a model in a space.

    Parameters
    ----------
    blocks : callable
        Gives all images in blocks, each time anew.
    texts, others : ndarray of shape (C, m), or None
        Unit embeddings of the head's classes' texts, and of the same classes in other words; None where classes have no names.
    lambdas : sequence of float
        Penalties of the read-outs.
    margin : float
        Share of the variance that D must exceed.
    draws : int
        Planted leaks of each size.
    confidence : float
        Coverage of the intervals, 0 to 1.
    seed : int
        Of planted leaks and of random features.
    kernels : bool, optional
        Whether the form of kernels is taken; by default where images are fewer than features.

    Returns
    -------
    Found
        Numbers of D are None where a fold cannot be left out with two images left to fit on, those of its interval where two cannot.
    """
    words, scale, first = Words.fit(blocks, texts), Scale.of(blocks), next(iter(blocks()))
    spread, rank, k = Spread(blocks), first.principal.shape[1], first.null.shape[1]
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
        return Found(facts | unknown | {"lambdas": None}, table, words)
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
        lambda block, start: np.hstack([each(block, start) for each in columns]),
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
        np.array([not (spelled and each == 1) for each in range(len(variance))]),
    )
    real, *rest = estimates
    blind_d = rest.pop(0).unique_r2 if spelled else None
    rows = [
        {
            "share": share,
            "draw": draw,
            "unique_r2": each.unique_r2,
            "unique_r2_low": each.low,
            "p": each.p(margin),
        }
        for (draw, share), each in zip(
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
                (float(lambdas[each]) for each in chosen[:, 0]),
                strict=True,
            )
        ),
    }
    return Found(facts, table, words)


def _blind(
    blocks: Blocks, words: Words, others: np.ndarray
) -> tuple[Callable[[Block], Block], Words]:
    """Images whose embedding is what the logits spell with other texts, and own words fitted to them: what imperfect words leave."""
    elsewhere = replace(words, texts=others)

    def blind(block: Block) -> Block:
        return replace(block, embeddings=elsewhere.spoken(block.logits))

    return blind, Words.fit(lambda: map(blind, blocks()), words.texts)


def detectable(planted: pd.DataFrame) -> float | None:
    """The smallest planted leak that is found, its interval above 0, in FOUND of its draws, and so is every larger one.

    Parameters
    ----------
    planted : DataFrame
        With columns share and unique_r2_low.

    Returns
    -------
    float or None
        Share of the embeddings' variance; None where not even the largest is found.
    """
    often = (planted["unique_r2_low"] > RESOLUTION).groupby(planted["share"]).mean()
    found = None
    for share in sorted((each for each in often.index if each > 0), reverse=True):
        if often[share] < FOUND:
            break
        found = float(share)
    return found


def turn_deg(unique: float | None, words: Words, r2: float) -> float | None:
    """D in degrees, the size to compare with IS: how far a translated feature of the usual length is turned by that share of the variance.

    Parameters
    ----------
    unique : float or None
        D, or an end of its interval.
    words : Words
        Which know mean and variance of the embeddings.
    r2 : float
        Share of the variance that the translator explains.

    Returns
    -------
    float or None
        0 to 90.
    """
    if unique is None:
        return None
    length = float(words.mean @ words.mean) + max(r2, 0.0) * words.variance
    return float(
        np.degrees(np.arctan2(np.sqrt(max(unique, 0.0) * words.variance), np.sqrt(length)))
    )
