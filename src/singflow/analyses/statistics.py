"""Intervals of means and shares over images, Holm's correction, and tests of a top-1."""

import numpy as np
import pandas as pd
import scipy

from singflow.errors import InputError

LABELS_FOR_INTERVAL = 10  # the fewest labels that can be resampled as a whole


def bootstrap_means(columns: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Means (resamples, c) of columns (n, c) over rows that are drawn with replacement.

    Rows are drawn whole, so that differences and ratios of columns stay paired. The draws follow
    from the seed and n alone, so that models with the same images stay paired, too.
    """
    across, n = np.array(columns, dtype=np.float64, order="F").T, len(columns)
    generator = np.random.default_rng([seed, n])
    means = np.empty((resamples, len(across)))
    for row in means:
        weights = np.bincount(generator.integers(n, size=n), minlength=n)
        np.einsum("cn,n->c", across, weights, out=row)  # BLAS would sum by its number of threads
    return means / n


def resampled_means(
    columns: np.ndarray, classes: pd.Series | None, resamples: int, seed: int
) -> tuple[np.ndarray, int]:
    """Means as from bootstrap_means(), and the number of units that were drawn.

    The units are the images, or whole labels if `classes`, the label of each image, is given.
    Raises InputError if there are fewer than LABELS_FOR_INTERVAL labels to draw.
    """
    if classes is None:
        return bootstrap_means(columns, resamples, seed), len(columns)
    sums = pd.DataFrame(columns).assign(n=1).groupby(classes.to_numpy()).sum().to_numpy()
    if len(sums) < LABELS_FOR_INTERVAL:
        raise InputError(
            f"summary.resample: classes takes labels as the sample, and {len(sums)} are too few "
            f"for an interval: {LABELS_FOR_INTERVAL} are needed; write images"
        )
    drawn = bootstrap_means(sums, resamples, seed)
    return drawn[:, :-1] / drawn[:, -1:], len(sums)


def bootstrap_interval(
    value: float, samples: np.ndarray, units: int, confidence: float
) -> tuple[float, float]:
    """Percentile interval of an estimate, which is as wide as Student's interval of a mean.

    The percentiles of the resamples are too near to the estimate if few units were drawn. Their
    distance is multiplied by sqrt(n / (n - 1)) and by Student's quantile over the normal quantile.
    value: from all n units. samples: (resamples,); the ends are NaN if one is undefined. See
    Hesterberg 2015.
    """
    tail, freedom = (1 + confidence) / 2, max(units - 1, 1)
    student, normal = scipy.special.stdtrit(freedom, tail), scipy.special.ndtri(tail)
    ends = np.quantile(samples, [1 - tail, tail])
    low, high = value + (units / freedom) ** 0.5 * student / normal * (ends - value)
    return float(low), float(high)


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
