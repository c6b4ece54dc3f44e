"""What a head would let through if some of its null directions were visible.

W gets q more rows, orthonormal and out of ker W, so that the logits it had stay as they are; what a linear read-out then tells of the
embeddings is set against q. A diagnostic of linear decodability, no promise of a better classifier.

The rows are those that carry most of T_0 S T_0^T, where T_0 is the translator's part on the null coordinates b, and S their scatter
less what the principal coordinates a predict of it: by the trace of that matrix b lowers the penalized squared error. It is not
Cov(b), by which a copy of a in b would come first, though it adds nothing. Of q combinations of b, those lower the error most that
have the span of T_0^T u_1, ..., T_0^T u_q, with u_j the leading eigenvectors of T_0 S T_0^T (reduced-rank regression: the right
singular directions of T_0 S^1/2, mapped back to b). Made orthonormal one after the other they serve every q.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import scipy

from singflow.analyses.tables import qualify
from singflow.analyses.unique_information import jackknife
from singflow.translators.crossfit import WHOLE, GroupSums, explained, penalties, r2_without
from singflow.translators.ridge import RidgeStatistics

ENOUGH = 0.9  # of Delta R2


def null_directions(made: RidgeStatistics, rank: int, alpha: float) -> np.ndarray:
    """Orthonormal null directions: with the first q the penalized squared error is the least that any q of them give.

    Parameters
    ----------
    made : RidgeStatistics
        Sums of training rows (a, b).
    rank : int
        Number r of principal coordinates a; the k others are null coordinates b.
    alpha : float
        Ridge penalty of the translator, above 0, in squared feature units.

    Returns
    -------
    ndarray of shape (k, p)
        As many columns as T_0 S T_0^T has eigenvalues beyond rounding, so at most min(k, m).

    References
    ----------
    Izenman, Reduced-rank regression for the multivariate linear model, 1975.
    """
    factor, slope = made.whiten(alpha)
    own, slope = factor[rank:, rank:], slope[rank:]  # S + alpha = L L^T with this L, and T_0^T is L^-T times this slope
    carried, directions = scipy.linalg.eigh(slope.T @ slope, check_finite=False)
    kept = carried > max(slope.shape) * np.finfo(np.float64).eps * carried.max(initial=0.0)
    hidden = scipy.linalg.solve_triangular(own, slope @ directions[:, kept][:, ::-1], lower=True, trans=1, check_finite=False)
    return scipy.linalg.qr(hidden, mode="economic", overwrite_a=True, check_finite=False)[0]


def extended_r2(sums: GroupSums, rank: int, lambdas: tuple[float, float], left_out: Sequence[int] = (WHOLE,)) -> np.ndarray:
    """Cross-fitted share of the variation that is explained with 0, 1, 2, ... null directions visible.

    Every fit chooses its directions from its own training rows. With any directions the penalty is as large as the translator's of
    all coordinates, so that with all directions it is that translator; without any it is that of the principal regression.

    Parameters
    ----------
    sums : GroupSums
        Over rows (a, b) of principal and null coordinates, and embeddings.
    rank : int
        Number r of principal coordinates.
    lambdas : tuple of float
        Penalties of the translator of (a, b), and of that of a.
    left_out : sequence of int
        Groups that neither fit nor judge, in turn; WHOLE for none.

    Returns
    -------
    ndarray of shape (len(left_out), 1 + min(k, m))
        By the number of directions; where a fit has no further one to show, it stays as it is.
    """
    width, dim = sums.of([]).shape
    most = min(width - rank, dim)

    def fit(made: RidgeStatistics) -> Callable[[RidgeStatistics], np.ndarray]:
        (alpha,) = penalties(made, [lambdas[0]])
        basis = null_directions(made, rank, alpha)
        nested_errors = made.project(rank, basis).nested_errors(alpha)

        def squared_errors(held_out: RidgeStatistics) -> np.ndarray:
            errors = nested_errors(held_out.project(rank, basis))[rank:]
            return np.pad(errors, (0, most - basis.shape[1]), mode="edge")

        return squared_errors

    principal = r2_without(sums.regress(slice(0, rank)), lambdas[1], left_out)[:, None]
    return np.hstack([principal, explained(sums, fit, left_out)[:, 1:]]) if most else principal


def head_extension(sums: GroupSums, rank: int, lambdas: tuple[float, float], confidence: float) -> pd.DataFrame:
    """The curve of the share that is explained against the number of visible null directions.

    Parameters
    ----------
    sums, rank, lambdas
        As for extended_r2().
    confidence : float
        Coverage of the intervals, 0 to 1.

    Returns
    -------
    DataFrame
        A row for each number of directions from 0, which is the principal space alone, to min(k, m), which is the translator of all
        coordinates: directions, r2, and r2_low and r2_high by the delete-a-group jackknife, directions chosen anew; missing where
        fewer than three groups judge, as with one translator, in sample, that is judged by the held-out images.
    """
    r2, *without = extended_r2(sums, rank, lambdas, sums.left_out)
    intervals = [jackknife(float(estimate), [each[place] for each in without], confidence) for place, estimate in enumerate(r2)]
    low, high = np.array(intervals, dtype=float).T
    return pd.DataFrame({"directions": np.arange(len(r2)), "r2": r2, "r2_low": low, "r2_high": high})


def enough(curve: pd.DataFrame) -> int | None:
    """Fewest null directions that give 90 % of Delta R2.

    Parameters
    ----------
    curve : DataFrame
        A table of head_extension().

    Returns
    -------
    int or None
        None where all directions together add nothing.
    """
    gain = (curve["r2"] - curve["r2"].iloc[0]).to_numpy()
    return int(curve["directions"].iloc[np.argmax(gain >= ENOUGH * gain[-1])]) if gain[-1] > 0 else None


def gather(curves: dict[str, dict[str, pd.DataFrame]], models: pd.DataFrame) -> pd.DataFrame:
    """One row for each model: how many directions it takes, beside what all of them add.

    Parameters
    ----------
    curves : dict of str to dict
        Space -> model -> table of head_extension().
    models : DataFrame
        tables/models.csv.

    Returns
    -------
    DataFrame
        space, model, n_images, delta_r2 with its interval, directions_90 (missing where delta_r2 is not above 0), and what `qualify`
        adds.
    """
    rows = [(space, model, enough(curve)) for space, tables in curves.items() for model, curve in tables.items()]
    table = pd.DataFrame(rows, columns=["space", "model", "directions_90"]).astype({"directions_90": "Int64"})
    facts = models[["space", "model", "n_images", "delta_r2", "delta_r2_low", "delta_r2_high"]]
    return qualify(facts.merge(table, on=["space", "model"], validate="one_to_one"), models)
