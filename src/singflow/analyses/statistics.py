"""Intervals of means and shares over images, Holm's correction, and tests of a top-1."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy
from numpy.typing import ArrayLike

from singflow.errors import InputError

# STRATA images are resampled together and CELLS numbers are drawn at once, to stay in the cache.
STRATA, CELLS = (20_000, 100_000)
LEAST = 10  # the least number of labels that can be resampled as a whole


def strata_of(labels: pd.Series) -> np.ndarray:
    """Strata of the bootstrap, (n,) codes from 0: one stratum per label with more than one image.

    A label with one image has no spread. Labels with one image share a stratum; if there is only
    one such label, it joins the smallest other label (collapsed strata).
    """
    codes = pd.factorize(labels)[0]
    sizes = np.bincount(codes)
    single = sizes == 1
    if single.sum() == 1 and len(sizes) > 1:
        single[np.flatnonzero(~single)[np.argmin(sizes[~single])]] = True
    merged = np.where(single, len(sizes), np.arange(len(sizes)))
    return np.unique(merged[codes], return_inverse=True)[1]


def bootstrap_means(
    columns: np.ndarray, strata: np.ndarray, resamples: int, seed: int
) -> np.ndarray:
    """Means of columns over resampled images, by the rescaling bootstrap.

    From a stratum of m images m - 1 are drawn and weighted up, because m draws would understate the
    spread of small strata. Rows are drawn whole, so that differences and ratios of columns stay
    paired.

    Parameters
    ----------
    columns : ndarray (n, c)
        Values of every image.
    strata : ndarray (n,)
        Stratum of every image, codes from 0.
    resamples, seed : int
        Number of resamples, and their seed, which is used together with n, and not with the
        columns, so that models with the same images stay paired.

    Returns
    -------
    ndarray (resamples, c)
        Means in float64.

    References
    ----------
    Rao and Wu 1988.
    """
    order = np.argsort(strata, kind="stable")
    sizes = np.bincount(strata)
    starts = np.cumsum(sizes) - sizes
    ordered = np.asarray(columns, dtype=np.float64)[order]
    generator = np.random.default_rng([seed, len(strata)])
    means = np.zeros((resamples, ordered.shape[1]))
    for together in np.split(np.arange(len(sizes)), np.flatnonzero(np.diff(starts // STRATA)) + 1):
        first, size = starts[together[0]], sizes[together]
        drawn, n = np.maximum(size - 1, 1), size.sum()
        start, size_of_pick = np.repeat(starts[together] - first, drawn), np.repeat(size, drawn)
        weight = np.repeat(size / drawn / len(strata), drawn)
        step = max(1, CELLS // n)
        for begin in range(0, resamples, step):
            part = slice(begin, min(begin + step, resamples))
            count = part.stop - part.start
            picked = np.floor(generator.random((count, len(weight))) * size_of_pick)
            picked = start + picked.astype(np.int64)
            cells = (picked + n * np.arange(count)[:, None]).ravel()
            weights = np.bincount(cells, np.tile(weight, count), count * n)
            means[part] += weights.reshape(count, n) @ ordered[first : first + n]
    return means


@dataclass(frozen=True)
class Sample:
    """How images are resampled: within their stratum, or as whole labels.

    codes: (n,) from 0, the stratum of each image, or its label. whole: labels are drawn with all of
    their images; otherwise images are drawn within their stratum.
    """

    codes: np.ndarray
    whole: bool = False

    @classmethod
    def of(cls, labels: pd.Series, resample: str) -> "Sample":
        """Resampling of images with these labels; resample is "images" or "classes".

        Raises InputError if classes are resampled and there are fewer than LEAST labels.
        """
        if resample == "images":
            return cls(strata_of(labels))
        codes = pd.factorize(labels)[0]
        if codes.max() + 1 < LEAST:
            raise InputError(
                f"summary.resample: classes takes labels as the sample, and {codes.max() + 1} "
                f"are too few for an interval: {LEAST} are needed; write images"
            )
        return cls(codes, whole=True)

    @property
    def freedom(self) -> int:
        """Degrees of freedom of a standard error."""
        groups = int(self.codes.max()) + 1
        return groups - 1 if self.whole else len(self.codes) - groups

    def means(self, columns: np.ndarray, resamples: int, seed: int) -> np.ndarray:
        """Means (resamples, c) of columns (n, c) over resampled images; see bootstrap_means()."""
        if not self.whole:
            return bootstrap_means(columns, self.codes, resamples, seed)
        n = np.bincount(self.codes)
        sums = np.column_stack(
            [*(np.bincount(self.codes, column) for column in np.asarray(columns).T), n]
        )
        drawn = bootstrap_means(sums, np.zeros(len(n), dtype=np.int64), resamples, seed)
        return drawn[:, :-1] / drawn[:, -1:]

    def interval(
        self, value: ArrayLike, samples: np.ndarray, confidence: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Percentile interval, widened by the ratio of Student's t quantile to the normal quantile.

        value: estimates (...) from all images. samples: (resamples, ...), those from the resamples.
        confidence: coverage. The ends are NaN if a sample is undefined.
        """
        tail = (1 + confidence) / 2
        wider = scipy.special.stdtrit(max(self.freedom, 1), tail) / scipy.special.ndtri(tail)
        low, high = interval(samples, confidence)
        return value + wider * (low - value), value + wider * (high - value)


def interval(samples: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Percentile interval over the first axis of samples; NaN if a sample is undefined."""
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(samples, [tail, 1.0 - tail], axis=0)
    return low, high


def wilson(successes: int, n: int, confidence: float) -> tuple[float, float]:
    """Wilson's interval of a share of n trials."""
    z, share = scipy.special.ndtri(0.5 + confidence / 2), successes / n
    middle, scale = share + z**2 / (2 * n), 1 + z**2 / n
    half = z * (share * (1 - share) / n + (z / (2 * n)) ** 2) ** 0.5
    low, high = (middle - half) / scale, (middle + half) / scale
    return float(low) if successes else 0.0, float(high) if successes < n else 1.0


def holm(p: np.ndarray) -> np.ndarray:
    """p-values (n,), corrected by Holm for the number of those that are not NaN; at most 1."""
    corrected = np.full(len(p), np.nan)
    known = np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(p[known], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return corrected


def top1_shortfall(top1: float, images: int, reported: float, margin: float) -> float:
    """Percentage points by which a measured top-1 is below the reported one, beyond the allowance.

    The allowance is the margin (percentage points) plus two standard errors of a share measured on
    `images` images. top1 is a share, 0 to 1; `reported` is in percent. A positive result means an
    error, most often in the preprocessing or in the order of the classes.
    """
    expected = reported / 100
    return reported - 100 * top1 - margin - 200 * float(np.sqrt(expected * (1 - expected) / images))


def at_chance(right: int, images: int, classes: int) -> bool:
    """Whether a top-1 of `right` among `images` is that of a guess among `classes`.

    Two binomial tests at the level 0.01 say so: the top-1 is not above chance, and it is below half
    the way from chance to 1. With fewer than seven images, the second one cannot.
    """
    chance = 1 / classes
    above = scipy.special.bdtrc(right - 1, images, chance) < 0.01
    below = scipy.special.bdtr(right, images, (1 + chance) / 2) < 0.01
    return bool(below and not above)
