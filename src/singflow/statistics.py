"""Uncertainty of what is averaged over images."""

import numpy as np


def bootstrap_interval(columns: np.ndarray, resamples: int, confidence: float, seed: int) -> tuple[float, float]:
    """Percentile bootstrap interval over images: of a mean, or of a ratio of two means.

    columns: (n, 1) for the mean, (n, 2) for the mean of the first over the mean of the second; the rows, which
    are images, are resampled together. Returns the lower and the upper end.
    """
    n = len(columns)
    generator = np.random.default_rng([seed, n])
    means = np.stack([columns[generator.integers(0, n, n)].mean(axis=0) for _ in range(resamples)])
    values = means[:, 0] if columns.shape[1] == 1 else means[:, 0] / means[:, 1]
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(values, [tail, 1.0 - tail])
    return float(low), float(high)


def top1_shortfall(top1: float, images: int, reported: float, margin: float) -> float:
    """Percentage points by which a measured top-1 (0 to 1) lies below the reported one (percent), beyond what is allowed.

    Allowed are the margin and two standard errors of a share measured on so many images. Positive: something is wrong,
    most often the preprocessing or the order of the classes.
    """
    expected = reported / 100
    return reported - 100 * top1 - margin - 200 * float(np.sqrt(expected * (1 - expected) / images))
