"""D against the number of null directions that an extended head would make visible.

The extension appends q orthonormal rows from ker W to W, so that the existing logits do not change.
The flexible read-out of analyses/readout.py gets the q coordinates in place of all null
coordinates. The curve is a diagnostic of what can be decoded. It does not promise a better
classifier.
"""

import numpy as np
import pandas as pd

from singflow.analyses.evidence import Measurement, jackknife, without_folds
from singflow.analyses.readout import PLAIN

ENOUGH = 0.9  # share of D


def head_extension(measured: Measurement, most: int, confidence: float) -> pd.DataFrame:
    """D against the number of visible null directions, which every fit chooses from its own images.

    measured: the test, whose first target is the remainder of own words. most: largest number of
    directions, min(k, m). confidence: coverage of the intervals.

    There is a row for each number of directions from 0 on, and 0 alone where there is no D:
    directions, unique_r2, and its interval unique_r2_low and unique_r2_high by the delete-a-fold
    jackknife, for which directions are chosen anew. The interval is missing with fewer than three
    folds. If a fit runs out of directions, its error stays constant.

    The penalty is that of the read-out with all null coordinates, whatever the number of
    directions; without directions it is that of the read-out without null coordinates.
    """
    readouts, spread = measured.readouts, measured.spread
    whole, without = np.zeros(1), np.empty((0, 1))
    if readouts is not None:
        lambdas = measured.facts["lambdas"]

        def gains(left_out: tuple[int, ...]) -> np.ndarray:
            plain = readouts.errors(PLAIN, left_out, [lambdas["without_null"]])[:, :, 0]
            nested = readouts.nested(left_out, lambdas["with_null"])[:, 1:]
            nested = nested if nested.size else plain
            short = max(most - nested.shape[1], 0)
            with_null = np.pad(nested, ((0, 0), (0, short)), mode="edge")[:, :most]
            return np.pad(plain - with_null, ((0, 0), (1, 0)))

        total = sum(spread.of((fold,))[0] for fold in readouts.folds)
        whole = sum(gains((fold,))[0] for fold in readouts.folds) / total
        every = np.ones(len(whole))
        without = without_folds(readouts.folds, spread, lambda out: [gains(out)], every)
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


def enough(curve: pd.DataFrame) -> int | None:
    """Fewest null directions that give 90 % of D; None where all of them together add nothing."""
    gain = curve["unique_r2"].to_numpy()
    if gain[-1] <= 0:
        return None
    return int(curve["directions"].iloc[np.argmax(gain >= ENOUGH * gain[-1])])
