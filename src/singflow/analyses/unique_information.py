"""What the null space adds to a linear read-out of the principal space: Delta R2 = R2(z | a, b) - R2(z | a), both cross-fitted."""

from collections.abc import Sequence

import numpy as np
import scipy.special

from singflow.translators.crossfit import GroupSums, r2_without


def jackknife(estimate: float, without: Sequence[float], confidence: float) -> tuple[float, float] | tuple[None, None]:
    """Interval of an estimate by the delete-a-group jackknife: it holds the images and the refit of the translators.

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
    tuple of float
        Low and high, by Student's t with one degree of freedom less than groups; None with fewer than three groups.
    """
    groups = len(without)
    if groups < 3:
        return None, None
    error = np.sqrt((groups - 1) ** 2 / groups * np.var(without, ddof=1))
    reach = scipy.special.stdtrit(groups - 1, (1 + confidence) / 2) * error
    return float(estimate - reach), float(estimate + reach)


def unique_information(
    sums: GroupSums, rank: int, lambdas: tuple[float, float], confidence: float, threads: int | None = None
) -> dict[str, float | None]:
    """Delta R2 with its interval.

    Parameters
    ----------
    sums : GroupSums
        Over rows (a, b) of principal and null coordinates, and embeddings.
    rank : int
        Number r of principal coordinates.
    lambdas : tuple of float
        Penalties of the translator of (a, b), and of that of a.
    confidence : float
        Coverage of the interval, 0 to 1.
    threads : int, optional
        Fits at a time, as map_apart() takes it.

    Returns
    -------
    dict
        r2, r2_principal, delta_r2, delta_r2_low and delta_r2_high; the last two None where fewer than three groups judge.
    """
    r2, r2_principal = (
        r2_without(each, penalty, sums.left_out, threads)
        for each, penalty in zip((sums, sums.regress(slice(0, rank))), lambdas, strict=True)
    )
    delta = r2 - r2_principal
    low, high = jackknife(float(delta[0]), delta[1:].tolist(), confidence)
    return {
        "r2": float(r2[0]),
        "r2_principal": float(r2_principal[0]),
        "delta_r2": float(delta[0]),
        "delta_r2_low": low,
        "delta_r2_high": high,
    }
