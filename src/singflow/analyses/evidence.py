"""Test of meaning: does the null component tell something about an image that the logits do not?

The embedding z of an image is split into the model's own words and a remainder. Own words are what
the logits spell with the texts of the head's classes. D is the share of the embeddings' variance by
which the null component improves a flexible read-out of the remainder from the principal
coordinates and the logits (analyses/readout.py). D is cross-fitted. It is also given in degrees,
and beside the smallest leak that the study would call meaning.

Names here and in readout.py: a are the principal coordinates of a feature, b its null coordinates.
The plain read-out has no b, the full one has b. A fit's `own` is the weight of b in its kernel.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import scipy.linalg  # whose BLAS can be limited once it is loaded
from pydantic import Field
from threadpoolctl import threadpool_limits

from singflow.analyses import leaks
from singflow.analyses.bands import (
    MIDDLE,
    PENALTIES,
    TINY,
    Bands,
    Block,
    Blocks,
    descend,
    search_weights,
    softmax,
)
from singflow.analyses.readout import (
    LANDMARKS,
    OWN,
    Columns,
    Exact,
    Nystroem,
    ReadOuts,
    Selected,
    Targets,
    select,
)
from singflow.config.sections import Column, Section

# Groups of the jackknife, with exact kernels and with features, whose sums fill the memory.
GROUPS, GROUPS_MANY = 40, 20
SHARP, FLAT, TOP = (0.5, 1.0, 2.0), 4.0, 10  # temperatures of own words; classes for the sharp ones
OWN_WORDS = len(SHARP) + 2
# D is shown to 0.1 %: an interval counts as above 0 if its lower end exceeds half of that
RESOLUTION = 5e-4
UNKNOWN = (  # where there is no D
    *("unique_r2", "unique_r2_low", "unique_r2_high", "unique_r2_without", "p", "detectable"),
    *("detectable_first", "gain", "null_r2", "blind_unique_r2", "weights", "lambdas"),
)
SEARCHED, SKETCH = 800, 128  # images, and directions of the embedding, that weights are found on


class EvidenceSettings(Section):
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
    groups: Column | None = Field(
        None,
        description="column of data.classes or data.table that names groups of images, for D by "
        "group, and for probes where labels have one image; null: none",
    )


def spell(logits: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """Embeddings (OWN_WORDS, n, m) that logits (n, C) spell (Norouzi et al. 2014, ConSE).

    They are unit vectors: means of the texts (C, m) of the classes weighted by the TOP largest
    values of softmax(logits / T) for T = 0.5, 1, 2, by all values for T = 4, and the text of the
    top class. So they are functions of the principal coordinates alone.
    """
    n, classes = logits.shape
    top = np.broadcast_to(np.arange(classes), (n, classes))
    if classes > TOP:
        top = np.argpartition(logits, -TOP, axis=1)[:, -TOP:]
    likeliest, starts = np.take_along_axis(logits, top, axis=1), np.arange(n + 1) * top.shape[1]
    means = [
        scipy.sparse.csr_array(
            (softmax(likeliest, temperature).ravel(), top.ravel(), starts), shape=(n, classes)
        )
        @ texts
        for temperature in SHARP
    ]  # not yet of norm 1
    stacked = np.stack([*means, softmax(logits, FLAT) @ texts])
    lengths = np.maximum(np.linalg.norm(stacked, axis=2, keepdims=True), TINY)
    return np.concatenate([stacked / lengths, texts[None, logits.argmax(axis=1)]])


@dataclass(frozen=True)
class OwnWords:
    """What own words say of an embedding: c + sum over T of s_T w_T, with w_T of spell()."""

    texts: np.ndarray | None  # (C, m) float64; None where classes have no names
    weights: np.ndarray  # (OWN_WORDS,) s
    offset: np.ndarray  # (m,) c

    @classmethod
    def read(cls, tensors: dict[str, np.ndarray]) -> "OwnWords":
        """Own words from evidence/<space>/<model>.safetensors."""
        texts = tensors["class_embeddings"].astype(np.float64)
        return OwnWords(texts if len(texts) else None, tensors["word_weights"], tensors["offset"])

    def spoken(self, logits: np.ndarray) -> np.ndarray:
        """Prediction of the embeddings by own words, for logits (n, C): (n, m)."""
        if self.texts is None:
            return np.broadcast_to(self.offset, (len(logits), len(self.offset)))
        return self.offset + np.einsum("t,tnm->nm", self.weights, spell(logits, self.texts))

    def remainder(self, block: Block) -> np.ndarray:
        """Embeddings minus their prediction by own words: (n, m)."""
        return block.embeddings - self.spoken(block.logits)


@dataclass(frozen=True)
class FittedOwnWords(OwnWords):
    """Own words fitted to images, and moments of the embeddings of these images."""

    r2: float  # share of the embeddings' variance that own words explain
    variance: float  # mean squared distance of the embeddings from their mean
    mean: np.ndarray  # (m,)
    n: int

    @classmethod
    def fit(cls, blocks: Blocks, texts: np.ndarray | None) -> "FittedOwnWords":
        """Fit own words to all images by least squares; without texts, only the offset.

        With z the embedding and w_T own words, both about their means, the weights s solve G s = g,
        where G_TU = mean of w_T . w_U and g_T = mean of w_T . z. A sum over images gives G and g,
        so that one pass is enough. R2 is (2 s . g - s . G s) / mean of |z|^2.
        """
        n, products = 0, np.zeros(())
        for block in blocks():
            parts = block.embeddings.astype(np.float64)[None]
            if texts is not None:
                parts = np.concatenate([parts, spell(block.logits, texts)])
            if not n:
                first, sums = parts[:, 0].copy(), np.zeros((len(parts), parts.shape[2]))
            parts -= first[:, None]
            flat = parts.reshape(len(parts), -1)
            n, products = n + parts.shape[1], products + flat @ flat.T
            sums += parts.sum(axis=1)
        means = sums / n
        gram = products / n - means @ means.T  # of z, then own words
        weights = np.linalg.lstsq(gram[1:, 1:], gram[1:, 0], rcond=1e-12)[0]
        explained = 2 * weights @ gram[1:, 0] - weights @ gram[1:, 1:] @ weights
        means = means + first
        r2 = float(explained / gram[0, 0]) if gram[0, 0] > 0 else 0.0
        offset = means[0] - weights @ means[1:]
        weights = np.pad(weights, (0, OWN_WORDS - len(weights)))
        return cls(texts, weights, offset, r2, max(float(gram[0, 0]), 0.0), means[0], n)


@dataclass(frozen=True)
class JackknifeEstimate:
    """D of one target, or a difference; low, high, error: None where groups allow no interval."""

    unique_r2: float
    without: list[float]  # estimates without the first group of images, the second and so on
    low: float | None = None  # ends of the interval
    high: float | None = None
    error: float | None = None  # standard error

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

    With the g estimates that leave out one group, `without`, the squared standard error is
    (g - 1) / g * sum (without - mean without)^2: what one group moves the estimate by shows what
    other images would. It covers the sampling of images and the refit of the read-outs. With fewer
    than three groups there is no interval.
    """
    groups, estimate = len(without), float(estimate)
    if groups < 3:
        return JackknifeEstimate(estimate, [])
    error = float(np.sqrt((groups - 1) ** 2 / groups * np.var(without, ddof=1)))
    reach = float(scipy.special.stdtrit(groups - 1, (1 + confidence) / 2)) * error
    return JackknifeEstimate(estimate, list(without), estimate - reach, estimate + reach, error)


def nested_groups(fold: np.ndarray, cluster: np.ndarray) -> np.ndarray:
    """Groups of images for the jackknife, each inside one fold: (n,) int.

    Every fold is dealt out to equally many groups, cluster after cluster. There are about GROUPS
    groups (GROUPS_MANY, where kernels are not exact), or fewer, so that a group holds two clusters
    or more, if its fold does.

    fold: (n,). cluster: (n,), numbers in an order that says nothing about the images, such as that
    of their hashes; images with the same number stay together.
    """
    numbers, of_row = np.unique(np.stack([fold, cluster]), axis=1, return_inverse=True)
    starts, sizes = np.unique(numbers[0], return_index=True, return_counts=True)[1:]
    wanted = GROUPS if len(fold) <= LANDMARKS else GROUPS_MANY
    parts = max(1, min(round(wanted / len(sizes)), int(sizes.min()) // 2))
    place = np.arange(len(numbers[0])) - np.repeat(starts, sizes)
    groups = np.repeat(np.arange(len(sizes)), sizes) * parts + place % parts
    return np.asarray(groups[of_row.ravel()])


class Distances:
    """Squared distances of embeddings from means of other embeddings: the denominators of D."""

    def __init__(self) -> None:
        self.n, self._images = 0, [np.empty(0, np.int64)]
        # By group: its fold, number of images, sum of embeddings, sum of their squared lengths.
        self._sums: dict[int, tuple[int, int, np.ndarray, float]] = {}

    @classmethod
    def of_all(cls, blocks: Blocks) -> "Distances":
        made = cls()
        for _ in made.watching(blocks)():
            pass
        return made

    def watching(self, blocks: Blocks) -> Blocks:
        """The blocks, whose embeddings are added once they have been read."""

        def watched() -> Iterator[Block]:
            for block in blocks():
                yield block
                z = block.embeddings.astype(np.float64)
                self.n += len(z)
                self._images.append(np.unique(block.image))
                for group in np.unique(block.group).tolist():
                    mine = block.group == group
                    rows, fold = z[mine], int(block.fold[mine][0])
                    _, n, total, square = self._sums.get(group, (fold, 0, np.zeros(z.shape[1]), 0))
                    square += float(np.vdot(rows, rows))
                    self._sums[group] = fold, n + len(rows), total + rows.sum(axis=0), square

        return watched

    @property
    def images(self) -> np.ndarray:
        """Numbers of the images; copies have one number."""
        return np.unique(np.concatenate(self._images))

    @property
    def folds(self) -> list[int]:
        return sorted({fold for fold, *_ in self._sums.values()})

    def _kept(self, fold: int, group: int | None) -> tuple[int, np.ndarray]:
        kept = [sums for name, sums in self._sums.items() if sums[0] != fold and name != group]
        return sum(sums[1] for sums in kept), np.sum([sums[2] for sums in kept], axis=0)

    def can_leave(self, *, groups: bool = False) -> bool:
        """Whether two images remain to fit on without any fold, and a group of another fold."""
        some = [*self._sums] if groups else [None]
        return all(self._kept(fold, group)[0] > 1 for fold in self.folds for group in some)

    def mean(self, fold: int, group: int | None = None) -> np.ndarray:
        """Mean (m,) of the embeddings that are neither in the fold nor in the group."""
        n, total = self._kept(fold, group)
        return np.asarray(total / n)

    def total(self, group: int | None = None) -> float:
        """Sum over folds of the squared distances of a fold's embeddings from mean(fold, group).

        The group is left out. sum |z - c|^2 = sum |z|^2 - 2 c . sum z + n |c|^2.
        """
        total = 0.0
        for fold in self.folds:
            mean = self.mean(fold, group)
            for name, (of, n, embeddings, square) in self._sums.items():
                if of == fold and name != group:
                    total += square - 2.0 * mean @ embeddings + n * mean @ mean
        return float(total)

    def without(self) -> np.ndarray:
        """The sums without each group: (groups,)."""
        return np.array([self.total(group) for group in sorted(self._sums)])


def unique_r2(
    readouts: ReadOuts,
    targets: Targets,
    distances: Distances,
    confidence: float,
    intervals: np.ndarray | None = None,
    penalties: Sequence[float] = PENALTIES,
    own: Sequence[float] = OWN,
) -> tuple[list[JackknifeEstimate], Selected]:
    """D of every target, with its interval, and the read-outs behind them.

    D = (sum |e|^2 - sum |e_b|^2) / sum |z - mean z|^2 over images that the fits left out, with the
    errors e without b and e_b with b. `distances` has the denominators.

    Intervals are from refits that leave one group of images out. The estimate without a group is
    what the study would say if the group were not there: no fit sees it, and no error is counted on
    it. The penalties and the weight of b stay. There is no interval where leaving out a fold and a
    group leaves fewer than two images, or for a target that is False in `intervals`.

    penalties, own: those that are tried, from the largest penalty and from no weight of b on.
    """
    variance, total = targets.variance, distances.total()
    selected = select(readouts, targets, total, penalties, own)
    whole = selected.saved.sum(axis=0) / (total * variance)
    judged = np.ones(len(variance), dtype=bool) if intervals is None else intervals
    judged = judged & distances.can_leave(groups=True)
    totals = distances.without() if judged.any() else np.zeros(0)
    without = np.zeros((len(totals), len(variance)))
    for fits, sign in ((selected.plain, 1.0), (selected.full, -1.0)):
        for fit in sorted({fit for fit, wanted in zip(fits, judged, strict=True) if wanted}):
            mine = np.flatnonzero(judged & np.array([one == fit for one in fits]))
            used = np.flatnonzero((targets.groups[:, mine] != 0).any(axis=1))
            products = readouts.errors_without(fit, targets.pairs[used])
            without[:, mine] += sign * (products @ targets.groups[np.ix_(used, mine)])
    without /= totals[:, None] * variance
    estimates = [
        jackknife(estimate, without[:, place].tolist() if judged[place] else [], confidence)
        for place, estimate in enumerate(whole)
    ]
    return estimates, selected


@dataclass(frozen=True)
class Landmarks:
    """Images whose kernels with all images stand for the kernels: all images, if they are few.

    Of copies, one is a landmark or searched.
    """

    rows: np.ndarray  # their numbers
    block: Block
    searched: np.ndarray  # places among them of the images that weights are found on
    mean: np.ndarray  # (k,) of b
    level: float  # makes the mean square of b 1
    n: int  # of all images
    covariance: np.ndarray  # (r, r) of a, over all images

    @classmethod
    def draw(
        cls, blocks: Blocks, distances: Distances, seed: int, most: int = LANDMARKS
    ) -> "Landmarks":
        """Draw landmarks among images; sums of a about the first row cost no precision."""
        n, start, parts, images = distances.n, 0, [], distances.images
        order = np.random.default_rng([seed, 4]).permutation(images)[:most]
        first_of = np.full(int(images[-1]) + 1, -1)  # the first row of each image
        for block in blocks():
            if not start:
                first = block.principal[0].astype(np.float64)
                total, products = np.zeros(len(first)), np.zeros((len(first), len(first)))
            a = block.principal - first
            total += a.sum(axis=0)
            products += a.T @ a
            here, at = np.unique(block.image, return_index=True)
            new = first_of[here] < 0
            first_of[here[new]] = start + at[new]
            wanted = first_of[block.image] == start + np.arange(len(a))
            wanted &= np.isin(block.image, order)
            parts.append([column[wanted | (n <= most)] for column in vars(block).values()])
            start += len(a)
        rows = np.arange(n) if n <= most else np.sort(first_of[order])
        block = Block(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
        null = block.null.astype(np.float64)
        mean = null.mean(axis=0)
        square = float(((null - mean) ** 2).sum()) / len(null)
        level = 1.0 / np.sqrt(square) if square > TINY else 0.0
        searched = np.sort(np.searchsorted(rows, first_of[order[:SEARCHED]]))
        covariance = products / n - np.outer(total / n, total / n)
        return cls(rows, block, searched, mean, level, n, covariance)

    def bands(self) -> Bands:
        return Bands(self.block.principal, self.block.logits, self.covariance)

    @property
    def exact(self) -> bool:
        """Whether the landmarks are all images."""
        return self.n == len(self.block.fold)

    def null(self, block: Block) -> np.ndarray:
        """b of a block (n, k), with mean square 1 about its mean."""
        return (block.null - self.mean) * self.level

    def read_outs(
        self,
        blocks: Blocks,
        bands: Bands,
        weights: dict[str, float],
        parts: Sequence[Columns],
        threads: int = 1,
    ) -> ReadOuts:
        """The read-outs of columns, exact if the landmarks are all images."""
        if not self.exact:
            return Nystroem(blocks, bands, weights, self.null, parts, threads)
        block = self.block
        columns = np.hstack([part(block) for part in parts])
        return Exact(bands.mixed(weights), self.null(block), columns, block)


@dataclass(frozen=True)
class Residuals:
    """Cross-fitted errors of the remainder, and what comes out of the same pass."""

    plain: np.ndarray  # (n, m), errors without b
    full: np.ndarray  # (n, m), errors with b
    predicted: np.ndarray  # (n,), classes
    cluster: np.ndarray  # (n,), as in Block
    covariance: np.ndarray  # (m, m) about the means of other folds; D is divided by its trace


def unique_meaning(
    blocks: Blocks,
    texts: np.ndarray | None,
    others: np.ndarray | None,
    settings: EvidenceSettings,
    confidence: float,
    seed: int,
    keep: Callable[[tuple[int, int]], Any] = np.empty,
    threads: int = 1,
) -> tuple[dict[str, Any], pd.DataFrame, FittedOwnWords, Residuals | None]:
    """Test a model in a space: facts, planted leaks, own words, and errors, None where is no D.

    The facts and the planted leaks are for <model>.json and <model>.parquet in evidence/<space>.
    texts, others: unit embeddings (C, m) of the texts of the head's classes, and of the same
    classes in other words (for the blind check); None where classes have no names. seed: of planted
    leaks and landmarks. keep: makes an array of a shape, in memory or in a file, for the residuals.
    threads: fits at once, with one BLAS thread each; they change no result.

    D and all that follows from it are None without null space, without variance of the embeddings,
    or where leaving out a fold leaves fewer than two images. For intervals see unique_r2().
    """
    with threadpool_limits(1):
        distances = Distances()
        own_words = FittedOwnWords.fit(distances.watching(blocks), texts)
        margin, draws, m = settings.margin, settings.draws, len(own_words.offset)
        r2_words = own_words.r2 if texts is not None else None
        facts: dict[str, Any] = {"n": own_words.n, "r2_words": r2_words, "margin": margin}
        marks = Landmarks.draw(blocks, distances, seed)
        if not marks.level or not distances.can_leave() or not own_words.variance > 0:
            return facts | dict.fromkeys(UNKNOWN), leaks.leak_table([]), own_words, None
        bands, weights = weighted(marks, own_words, seed, threads)
        most = leaks.PLANTED if marks.exact else leaks.PLANTED_MANY
        wide, looked = draws * min(m, most), leaks.directions(m, most, seed, 0)
        parts: list[Columns] = [own_words.remainder]
        variance, sizes, reworded = [1.0], [m], None if texts is None else others
        if reworded is not None:
            blind, blind_variance = _blind(blocks, own_words, reworded)
            parts.append(lambda block: blind(block) @ looked)
            variance, sizes = [1.0, blind_variance], [m, looked.shape[1]]
        parts.append(lambda block: leaks.white_noise(seed, block.cluster, wide))
        readouts = marks.read_outs(blocks, bands, weights, parts, threads)
        targets, first = Targets.of(*sizes, variance=variance), np.arange(len(sizes)) == 0
        estimates, selected = unique_r2(readouts, targets, distances, confidence, first)
        real, (plain, full) = estimates[0], (selected.plain[0], selected.full[0])
        shape, (predicted, cluster) = (own_words.n, m), np.empty((2, own_words.n), np.int32)
        residuals = Residuals(keep(shape), keep(shape), predicted, cluster, np.zeros((m, m)))
        means = {fold: distances.mean(fold) for fold in distances.folds}
        covariance, start = np.zeros((m, m)), 0
        for block, missed in readouts.residuals((plain, full), m, blocks):
            rows = slice(start, start + len(block.fold))
            residuals.plain[rows], residuals.full[rows] = missed
            predicted[rows], cluster[rows] = block.logits.argmax(axis=1), block.cluster
            start, covariance = rows.stop, covariance + missed[0].T @ missed[0] / own_words.n
            centred = block.embeddings - np.stack([means[fold] for fold in block.fold.tolist()])
            residuals.covariance[:] += centred.T @ centred / own_words.n
        explained = null_r2(readouts, own_words.n)
        given = readouts, plain.penalty, covariance, own_words.variance, marks.null(marks.block)
        planted, targets, placed = leaks.plant(*given, draws, most, seed)
        del readouts, given  # whose sums fill the memory
        penalties = PENALTIES if marks.exact else (plain.penalty,)
        shown, _ = unique_r2(planted, targets, distances, confidence, None, penalties)
        table = leaks.leak_table(
            (*of, leak.unique_r2, leak.low, leak.p(margin))
            for of, leak in zip(placed, shown, strict=True)
        )
        facts |= {
            "unique_r2": real.unique_r2,
            "unique_r2_low": real.low,
            "unique_r2_high": real.high,
            "unique_r2_without": real.without,
            "p": real.p(margin),
            "detectable": leaks.detectable(table, leaks.EVEN, 1.0 - confidence),
            "detectable_first": leaks.detectable(table, leaks.FIRST, 1.0 - confidence),
            "gain": leaks.gain(table),
            "null_r2": explained,
            "blind_unique_r2": None if reworded is None else estimates[1].unique_r2,
            "weights": weights | {"null": full.own},
            "lambdas": {"without_null": plain.penalty, "with_null": full.penalty},
        }
        return facts, table, own_words, residuals


def weighted(
    marks: Landmarks, own_words: FittedOwnWords, seed: int, threads: int
) -> tuple[Bands, dict[str, float]]:
    block, some, bands = marks.block, marks.searched, marks.bands()
    kernels = {name: kernel[np.ix_(some, some)] for name, kernel in bands.among()}
    toward = leaks.directions(len(own_words.offset), SKETCH, seed, 0)
    target = own_words.remainder(block)[some] @ toward
    scale = np.array([own_words.variance])
    return bands, search_weights(kernels, target[:, None], block.fold[some], scale, threads)[0]


def null_r2(readouts: ReadOuts, n: int) -> float:
    """Cross-fitted share of the variance of b, 1 an image, that the plain bands explain."""
    penalties = PENALTIES[::2]
    made, wanted = np.full((len(penalties), 1), np.inf), np.zeros((len(penalties), 1), dtype=bool)
    wanted[penalties.index(MIDDLE)] = True

    def error(place: int, _: np.ndarray) -> np.ndarray:
        return np.array([readouts.null_error(penalties[place], readouts.looked)])

    best = descend(error, made, wanted, np.array([float(n)]))
    return 1.0 - readouts.null_error(penalties[int(best[0])], readouts.folds) / n


def _blind(
    blocks: Blocks, own_words: FittedOwnWords, others: np.ndarray
) -> tuple[Callable[[Block], np.ndarray], float]:
    """The target of the blind check, and its variance, divided by that of the study's embeddings.

    It is the remainder of embeddings that the logits spell with other texts than own words.
    """
    elsewhere = replace(own_words, texts=others)

    def blind(block: Block) -> Block:
        return replace(block, embeddings=elsewhere.spoken(block.logits))

    fitted = FittedOwnWords.fit(lambda: map(blind, blocks()), own_words.texts)
    return lambda block: fitted.remainder(blind(block)), fitted.variance / own_words.variance


def turn_deg(unique_r2: float | None, own_words: FittedOwnWords, r2: float) -> float | None:
    """D, or an end of its interval, as an angle of 0 to 90 degrees, to compare with IS.

    It is the angle by which this share of the variance turns a translated feature of mean length:
    arctan(sqrt(D Var z) / sqrt(|mean z|^2 + R2 Var z)). r2 is the share of the variance that the
    translator explains.
    """
    if unique_r2 is None:
        return None
    length = float(own_words.mean @ own_words.mean) + max(r2, 0.0) * own_words.variance
    turned = max(unique_r2, 0.0) * own_words.variance
    return float(np.degrees(np.arctan2(np.sqrt(turned), np.sqrt(length))))
