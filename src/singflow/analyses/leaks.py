"""Leaks planted on a study, to see how small a leak the test of meaning would find."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import scipy

from singflow.analyses.bands import TINY, leading_directions
from singflow.analyses.geometry import random_basis
from singflow.analyses.readout import ReadOuts, Targets

SHARES = (0.003, 0.01, 0.03, 0.1, 0.3)  # planted leaks, as shares of the embeddings' variance
EVEN, FIRST = "even", "first"  # leaks along all null coordinates, and along their first direction
POWER = 0.9  # share of the draws in which a study must call a planted leak meaning
ROUNDING = 1e-6  # share of the variance up to which a remainder is rounding, and has no directions
# Directions of the embedding in which a leak is planted, with exact kernels and with features, and
# in which the blind check looks.
PLANTED, PLANTED_MANY = 64, 12
CHUNK = 256  # clusters whose noise is drawn at once


def directions(m: int, most: int, seed: int, draw: int) -> np.ndarray:
    """At most `most` random orthonormal directions (m, q) that keep the mean squared length."""
    return np.eye(m) if m <= most else random_basis(m, most, seed, draw) * np.sqrt(m / most)


def white_noise(seed: int, cluster: np.ndarray, width: int) -> np.ndarray:
    """Normal numbers (n, width), the same for all images of a cluster, whatever the blocks are."""
    drawn, of = np.empty((len(cluster), width)), cluster // CHUNK
    for chunk in np.unique(of).tolist():
        rows, generator = of == chunk, np.random.default_rng([seed, 2, chunk])
        drawn[rows] = generator.standard_normal((CHUNK, width))[cluster[rows] % CHUNK]
    return drawn


def plant(
    readouts: ReadOuts,
    penalty: float,
    covariance: np.ndarray,
    variance: float,
    null: np.ndarray,
    draws: int,
    most: int,
    seed: int,
) -> tuple[ReadOuts, Targets, list[tuple[str, float, int]]]:
    """Plant leaks on a study: read-outs, targets, and the kind, share and draw of each target.

    The planted embedding is z' = p + R^T w + s h: the plain prediction p, noise R^T w of the
    covariance R^T R of its errors, with w white, and a leak h of mean square 1. h is G^T b with
    a random G, along all null coordinates (EVEN), or the first principal coordinate of b times
    a random direction (FIRST). s^2 = share / (1 - share) * Var z makes the leak the share of
    the variance. All of these are columns of one derived read-out, and the squared error of z'
    is that of p + R^T w, plus 2 s times its product with that of h, plus s^2 times that of h:
    so all shares cost no more than one (`pairs`, `weights`). A draw has 2 q + 1 columns: q of
    p + R^T w, q of an even h, and p + R^T w along one random direction. The last column of
    all is the first principal coordinate of b.

    readouts: their first columns are the remainder (m,), their last ones white noise, `most`
    (or m) for each draw. penalty: of the plain read-out. covariance: (m, m) of its errors.
    variance: of the embeddings. null: (n, k), b of the landmarks. An embedding of more than
    `most` dimensions is seen through random directions.
    """
    m, k = len(covariance), null.shape[1]
    q = min(m, most)
    wide = draws * (2 * q + 1) + 1
    mix, noise, leak = np.zeros((m, wide)), np.zeros((draws * q, wide)), np.zeros((k, wide))
    (spread,), axes = leading_directions(null.T @ null / len(null), 1)
    first = axes[:, 0]
    leak[:, -1] = first * np.sign(first[np.abs(first).argmax()]) / spread
    pairs = []
    for draw in range(draws):
        generator = np.random.default_rng([seed, 1, draw])
        seen = directions(m, most, seed, 1 + draw)
        root = _root(seen.T @ covariance @ seen, ROUNDING * variance)
        toward = generator.standard_normal(q)
        toward /= np.linalg.norm(toward)
        even = generator.standard_normal((k, q))
        even /= np.sqrt(max(float(((null @ even) ** 2).sum()) / len(null), TINY))
        start, own = draw * (2 * q + 1), slice(draw * q, draw * q + q)
        base, hidden = np.arange(start, start + q), np.arange(start + q, start + 2 * q)
        mix[:, base], noise[own, base], leak[:, hidden] = seen, root, even
        mix[:, start + 2 * q], noise[own, start + 2 * q] = seen @ toward, root @ toward
        leaked, plain_last = (start + 2 * q, wide - 1), (wide - 1, wide - 1)
        pairs += [np.stack([base, base], 1), np.stack([base, hidden], 1)]
        pairs += [np.stack([hidden, hidden], 1), np.array([leaked, plain_last])]
    planted = [(EVEN, 0.0), *((kind, share) for share in SHARES for kind in (EVEN, FIRST))]
    weights = np.zeros((3 * q + 2, len(planted)))  # of the pairs of a draw
    weights[:q] = 1.0
    for place, (kind, share) in enumerate(planted):
        size = np.sqrt(share / (1.0 - share) * variance)
        rows, repeats = (slice(q, 3 * q), q) if kind == EVEN else (slice(3 * q, None), 1)
        weights[rows, place] = np.repeat([2.0 * size, size**2], repeats)
    placed = [(*of, draw) for draw in range(draws) for of in planted]
    targets = Targets(
        np.concatenate(pairs),
        scipy.linalg.block_diag(*[weights] * draws),
        1.0 / (1.0 - np.array([share for _, share, _ in placed])),
    )
    return readouts.derive(penalty, mix, noise, leak), targets, placed


def _root(covariance: np.ndarray, least: float) -> np.ndarray:
    """R (q, q) with R^T R = covariance; 0 where the total variance is at most `least`."""
    if np.trace(covariance) <= least:
        return np.zeros_like(covariance)
    spectrum, axes = scipy.linalg.eigh(covariance)
    return np.asarray((axes * np.sqrt(np.maximum(spectrum, 0.0))) @ axes.T)


def leak_table(rows: Iterable[tuple[Any, ...]]) -> pd.DataFrame:
    """The planted leaks, one row each."""
    table = pd.DataFrame(rows, columns=["kind", "share", "draw", "unique_r2", "unique_r2_low", "p"])
    kinds = dict.fromkeys(table.columns[1:], float) | {"draw": np.int64, "kind": object}
    return table.astype(kinds).sort_values(["kind", "share", "draw"], ignore_index=True)


def detectable(planted: pd.DataFrame, kind: str, level: float) -> float | None:
    """The smallest share of planted leaks of a kind that is called meaning in POWER of the draws.

    A draw is called meaning from the share on at which p falls below the level for good, read off
    between the planted shares (log p against log share). None if the largest share is not enough.
    """
    reached = []
    leaks = planted[(planted["kind"] == kind) & (planted["share"] > 0)]
    for _, draw in leaks.groupby("draw"):
        shares, p = np.log(draw["share"].to_numpy()), np.maximum(draw["p"].to_numpy(), TINY)
        above = np.flatnonzero(p > level)
        last = int(above[-1]) if len(above) else -1
        if last < 0:
            reached.append(shares[0])
        elif last == len(draw) - 1:
            reached.append(np.inf)
        else:
            two = slice(last, last + 2)
            reached.append(np.interp(-np.log(level), -np.log(p[two]), shares[two]))
    size = np.exp(np.sort(reached)[int(np.ceil(POWER * len(reached))) - 1])
    return float(size) if np.isfinite(size) else None


def gain(planted: pd.DataFrame) -> float:
    """The share of an evenly spread leak of 10 % that D shows."""
    mean = planted[planted["kind"] == EVEN].groupby("share")["unique_r2"].mean()
    return float((mean[0.1] - mean[0.0]) / 0.1)
