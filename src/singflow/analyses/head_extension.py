"""D against the number of null directions that an extended head would make visible.

The extension appends q orthonormal rows from ker W to W, so that the existing logits do not change.
The flexible read-out of analyses/readout.py gets the q coordinates in place of all null
coordinates. The curve is a diagnostic of what can be decoded. It does not promise a better
classifier.
"""

import numpy as np
import pandas as pd
import scipy

from singflow.analyses.bands import half_solved
from singflow.analyses.evidence import FoldPairs, Measurement, jackknife
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
    unique_r2, without = np.zeros(1), np.empty((0, 1))
    if readouts is not None and fits is not None and fits[1].own:
        (plain, full), m, folds = fits, len(measured.own_words.offset), readouts.folds
        squares = np.stack([np.arange(m)] * 2, axis=1)

        def saved(left_out: tuple[int, ...]) -> np.ndarray:
            """What 0, 1, ... directions save on each fold left out: (len(left_out), 1 + most)."""
            without_null = readouts.errors(plain, [left_out], squares)[0].sum(axis=1)
            with_null = nested(readouts.partial(full.penalty, left_out, m), full)[:, 1:]
            if not with_null.size:
                with_null = without_null[:, None]
            short = max(most - with_null.shape[1], 0)
            with_null = np.pad(with_null, ((0, 0), (0, short)), mode="edge")[:, :most]
            return np.pad(without_null[:, None] - with_null, ((0, 0), (1, 0)))

        total = sum(spread.of((fold,))[0] for fold in folds)
        alone = map_apart(saved, [(fold,) for fold in folds], threads)
        unique_r2 = sum(of_fold[0] for of_fold in alone) / total
        pairs, every = FoldPairs(folds, spread, len(unique_r2)), np.arange(len(unique_r2))
        both = map_apart(saved, pairs.left_out, threads)
        for pair, of_pair in zip(pairs.left_out, both, strict=True):
            pairs.add(pair, of_pair, every)
        without = pairs.without()
    estimates = [
        jackknife(estimate, without[:, place].tolist(), confidence)
        for place, estimate in enumerate(unique_r2)
    ]
    curve = {
        "directions": np.arange(len(unique_r2)),
        "unique_r2": unique_r2,
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
    fit are (G + penalty / own I)^-1 H: see Partial. With the directions V (k, q) and their rows of
    `read`, and with t' and b' for target and null coordinates of a fold that is left out, after the
    same plain fit, the fold has the error |t'|^2 - 2 sum_i V_i^T (b' t'^T) read_i +
    sum_i |read_i|^2 V_i^T (b' b'^T) V_i. Products of two directions are missing, because the rows
    of `read` are orthogonal. So one sum along the directions gives the errors of all numbers of
    directions: they are nested. Column 0 has the penalty of the full read-out, and
    head_extension() takes 0 directions from the plain one instead.
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

    Let P = L L^T be the penalized scatter of b and H its cross-products with the target. If only
    the directions V (k, q) of b are read, with V^T P V = I, the best coefficients are V V^T H, and
    the penalized squared error falls by |V^T H|^2. With U = L^T V this is |U^T L^-1 H|^2 for
    orthonormal U. Its maximum has the q leading left singular vectors of white = L^-1 H as U
    (Eckart and Young), whatever q is. This is reduced-rank regression with a penalty.

    With white = U diag(size) A^T, the eigenvectors of white^T white are A, its eigenvalues size^2,
    V = L^-T U = L^-T white A / size, and V^T H = U^T white = diag(size) A^T is what is read.

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
        One column V_i for each direction in which the read-out moves the target beyond rounding,
        so p is at most min(k, m). V^T L L^T V = I, so nothing is fitted again for fewer directions:
        the coefficients of the first q are directions[:, :q] @ read[:q].
    read : ndarray (p, m)
        Orthogonal rows, what each direction adds to the target; directions @ read are the
        coefficients of b.

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
    unique_r2 = curve["unique_r2"].to_numpy()
    if unique_r2[-1] <= 0:
        return None
    return int(curve["directions"].iloc[np.argmax(unique_r2 >= ENOUGH * unique_r2[-1])])
