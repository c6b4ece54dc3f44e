"""D against the number of null directions that an extended head would make visible.

The extension appends q orthonormal rows from ker W to W, so that the existing logits do not change.
The flexible read-out of analyses/readout.py gets the q coordinates in place of all null
coordinates. The curve is a diagnostic of what can be decoded. It does not promise a better
classifier.
"""

from itertools import combinations

import numpy as np
import pandas as pd

from singflow.analyses.evidence import FoldVariance, jackknife
from singflow.analyses.readout import PLAIN, Kernels, Sums

ENOUGH = 0.9  # share of D


def head_extension(
    readouts: Kernels | Sums,
    spread: FoldVariance,
    lambdas: tuple[float, float],
    most: int,
    confidence: float,
) -> pd.DataFrame:
    """D against the number of visible null directions, which every fit chooses from its own images.

    The penalty is that of the read-out with all null coordinates, whatever the number of
    directions; without directions it is that of the read-out without null coordinates.

    Parameters
    ----------
    readouts : Kernels or Sums
        Read-outs whose first target is the remainder of own words.
    spread : Spread
        Squared distances of the embeddings.
    lambdas : tuple of float
        Penalties without and with null coordinates.
    most : int
        Largest number of directions, min(k, m).
    confidence : float
        Coverage of the intervals, 0 to 1.

    Returns
    -------
    DataFrame
        A row for each number of directions from 0 on: directions, unique_r2, and its interval
        unique_r2_low and unique_r2_high by the delete-a-fold jackknife, for which directions are
        chosen anew. The interval is missing with fewer than three folds. If a fit runs out of
        directions, its error stays constant.
    """
    folds = readouts.folds

    def gains(left_out: tuple[int, ...]) -> np.ndarray:
        plain = readouts.errors(PLAIN, left_out, [lambdas[0]])[:, 0, 0]
        nested = readouts.nested(left_out, lambdas[1])[:, 1:]
        nested = nested if nested.size else plain[:, None]
        with_null = np.pad(nested, ((0, 0), (0, max(most - nested.shape[1], 0))), mode="edge")[
            :, :most
        ]
        return np.column_stack([np.zeros(len(left_out)), plain[:, None] - with_null])

    whole = sum(gains((fold,))[0] for fold in folds) / sum(spread.of((fold,))[0] for fold in folds)
    parts, totals, refits = (
        np.zeros((len(folds), len(whole))),
        np.zeros(len(folds)),
        spread.can_leave(2),
    )
    for first, second in combinations(range(len(folds)), 2) if refits else []:
        left_out = folds[first], folds[second]
        found, total = gains(left_out), spread.of(left_out)
        # the estimate without one of the two folds is judged on the other
        for place, judge in ((second, 0), (first, 1)):
            parts[place] += found[judge]
            totals[place] += total[judge]
    without = parts / totals[:, None] if refits else np.empty((0, len(whole)))
    estimates = [
        jackknife(float(gain), without[:, place].tolist(), confidence)
        for place, gain in enumerate(whole)
    ]
    low, high = ([getattr(estimate, name) for estimate in estimates] for name in ("low", "high"))
    columns = {
        "directions": np.arange(len(whole)),
        "unique_r2": whole,
        "unique_r2_low": low,
        "unique_r2_high": high,
    }
    return pd.DataFrame(columns).astype({"unique_r2_low": float, "unique_r2_high": float})


def enough(curve: pd.DataFrame) -> int | None:
    """Fewest null directions that give 90 % of D; None where all of them together add nothing."""
    gain = curve["unique_r2"].to_numpy()
    return (
        int(curve["directions"].iloc[np.argmax(gain >= ENOUGH * gain[-1])])
        if gain[-1] > 0
        else None
    )
