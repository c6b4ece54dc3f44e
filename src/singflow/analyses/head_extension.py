"""D against the number of null directions that an extended head would make visible.

The extension appends q orthonormal rows from ker W to W, so that the existing logits do not change.
The flexible read-out of analyses/readout.py gets the q coordinates in place of all null
coordinates. The curve is a diagnostic of what can be decoded. It does not promise a better
classifier.
"""

from itertools import combinations

import numpy as np
import pandas as pd
import scipy

from singflow.analyses.bands import half_solved
from singflow.analyses.evidence import Measurement, jackknife
from singflow.analyses.readout import Fit, Partial
from singflow.parallel import map_apart

ENOUGH = 0.9  # share of D


def head_extension(
    measured: Measurement, most: int, confidence: float, threads: int = 1
) -> pd.DataFrame:
    """D against the number of visible null directions, which every fit chooses from its own images.

    measured: the test, whose first columns are the remainder of own words. most: largest number of
    directions, min(k, m). confidence: coverage of the intervals. threads: fits at once.

    There is a row for each number of directions from 0 on, and 0 alone where there is no D, or
    where the read-out does without b: directions, unique_r2, and its interval unique_r2_low and
    unique_r2_high by the delete-a-fold jackknife, for which directions are chosen anew. The
    interval is missing with fewer than three folds. If a fit runs out of directions, its error
    stays constant.

    The penalty is that of the read-out with all null coordinates, whatever the number of
    directions; without directions it is that of the read-out without null coordinates.
    """
    readouts, fits, spread = measured.readouts, measured.fits, measured.spread
    whole, without = np.zeros(1), np.empty((0, 1))
    if readouts is not None and fits is not None and fits[1].own:
        (plain, full), m, folds = fits, len(measured.own_words.offset), readouts.folds
        squares = np.stack([np.arange(m)] * 2, axis=1)

        def gains(left_out: tuple[int, ...]) -> np.ndarray:
            without_null = readouts.errors(plain, [left_out], squares)[0].sum(axis=1)
            with_null = nested(readouts.partial(full.penalty, left_out, m), full)[:, 1:]
            if not with_null.size:
                with_null = without_null[:, None]
            short = max(most - with_null.shape[1], 0)
            with_null = np.pad(with_null, ((0, 0), (0, short)), mode="edge")[:, :most]
            return np.pad(without_null[:, None] - with_null, ((0, 0), (1, 0)))

        total = sum(spread.of((fold,))[0] for fold in folds)
        alone = map_apart(gains, [(fold,) for fold in folds], threads)
        whole = sum(gain[0] for gain in alone) / total
        without = np.empty((0, len(whole)))
        if spread.can_leave(2):
            sums, totals = np.zeros((len(folds), len(whole))), np.zeros((len(folds), 1))
            pairs = list(combinations(folds, 2))
            for pair, gain in zip(pairs, map_apart(gains, pairs, threads), strict=True):
                rows = [folds.index(pair[1]), folds.index(pair[0])]
                sums[rows] += gain
                totals[rows] += spread.of(pair)[:, None]
            without = sums / totals
    estimates = [
        jackknife(gain, without[:, place].tolist(), confidence) for place, gain in enumerate(whole)
    ]
    curve = {
        "directions": np.arange(len(whole)),
        "unique_r2": whole,
        "unique_r2_low": [estimate.low for estimate in estimates],
        "unique_r2_high": [estimate.high for estimate in estimates],
    }
    return pd.DataFrame(curve).astype({"unique_r2_low": float, "unique_r2_high": float})


def nested(partial: Partial, fit: Fit) -> np.ndarray:
    """Errors with 0 to p null directions, which join the plain read-out.

    Parameters
    ----------
    partial : Partial
        Scatter of b and of the targets after a plain fit.
    fit : Fit
        The read-out with all of b.

    Returns
    -------
    ndarray (folds, 1 + p)
        Squared errors on the folds left out, with the first directions of ranked_null_directions()
        on the images of the fit; p is at most min(k, m).

    Notes
    -----
    With the scatter G of b and its cross-products H after a plain fit, the weights of b in the full
    fit are (G + penalty / own I)^-1 H (Frisch, Waugh and Lovell, for ridge regression).
    """
    scatter = partial.null + fit.penalty / fit.own * np.eye(len(partial.null))
    factor = scipy.linalg.cholesky(scatter, lower=True, check_finite=False)
    directions, read = ranked_null_directions(factor, half_solved(factor, partial.cross))
    size, found = np.vecdot(read, read), []
    for null, cross, missed in partial.left_out:
        square = size * np.vecdot(directions.T, (null @ directions).T)
        linear = np.vecdot(directions.T @ cross, read)
        found.append(missed + np.cumsum(np.concatenate([[0.0], square - 2.0 * linear])))
    return np.array(found)


def ranked_null_directions(factor: np.ndarray, white: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Null directions, ordered by how much they improve the read-out, and what is read from them.

    The first q of them give the least penalized squared error that any q directions can give.

    Parameters
    ----------
    factor : ndarray (k, k)
        Lower Cholesky factor L of the penalized scatter of b, after regression on the other
        features.
    white : ndarray (k, m)
        L^-1 times the cross-products of b and the target, after the same regression; the
        coefficients of b in the read-out are L^-T white.

    Returns
    -------
    directions : ndarray (k, p)
        One column V_i for each direction in which the read-out moves the target, so p is at most
        min(k, m). V^T L L^T V = I: a read-out of the first q directions has their rows of `read`.
    read : ndarray (p, m)
        Orthogonal rows; directions @ read are the coefficients of b.

    References
    ----------
    Izenman, Reduced-rank regression for the multivariate linear model, 1975.
    """
    carried, axes = scipy.linalg.eigh(white.T @ white, check_finite=False)
    kept = carried > max(white.shape) * np.finfo(np.float64).eps * carried.max(initial=0.0)
    size = np.sqrt(carried[kept])[::-1][: len(factor)]
    axes = axes[:, kept][:, ::-1][:, : len(factor)]
    directions = scipy.linalg.solve_triangular(
        factor, white @ axes / size, lower=True, trans=1, check_finite=False
    )
    return directions, size[:, None] * axes.T


def enough(curve: pd.DataFrame) -> int | None:
    """Fewest null directions that give 90 % of D; None where all of them together add nothing."""
    gain = curve["unique_r2"].to_numpy()
    if gain[-1] <= 0:
        return None
    return int(curve["directions"].iloc[np.argmax(gain >= ENOUGH * gain[-1])])
