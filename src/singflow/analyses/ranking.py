"""Comparison of models: by D on the same folds, and by IS/|AS|."""

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from singflow.analyses.evidence import RESOLUTION, jackknife
from singflow.analyses.statistics import holm

PAPER = "is_per_as"


def pair_rows(
    reports: dict[str, dict[str, Any]], classes: dict[str, int], confidence: float
) -> pd.DataFrame:
    """Differences of D (model_a minus model_b) on the same groups, with jackknife intervals.

    `reports` holds evidence/<space>/<model>.json by model, with left_out of its translator, and
    `classes` the number of classes of each head. Left out are models without an interval, and pairs
    with heads of another size or with other groups of images.
    p is two-sided, p_holm has Holm's correction for the number of pairs. Two models differ if
    p_holm is at most 1 - confidence and the interval is farther from 0 than RESOLUTION.
    """
    judged = {
        name: (classes[name], len(report["unique_r2_without"]), report["left_out"])
        for name, report in reports.items()
        if report["unique_r2_low"] is not None
    }
    rows = []
    for a, b in combinations(judged, 2):
        if judged[a] != judged[b]:
            continue
        first, second = reports[a], reports[b]
        without = np.subtract(first["unique_r2_without"], second["unique_r2_without"]).tolist()
        found = jackknife(first["unique_r2"] - second["unique_r2"], without, confidence)
        above = found.p(0.0)
        p = 2 * min(above, 1 - above) if found.error else 1.0
        rows.append((a, b, found.unique_r2, found.low, found.high, p))
    names = ["model_a", "model_b", "difference", "low", "high", "p"]
    table = pd.DataFrame(rows, columns=names).astype({"low": float, "high": float, "p": float})
    table["p_holm"] = holm(table["p"].to_numpy())
    nearest = np.maximum(table["low"], -table["high"])
    return table.assign(differ=(table["p_holm"] <= 1 - confidence) & (nearest > RESOLUTION))


def order_rows(models: pd.DataFrame) -> pd.DataFrame:
    """Order of models by the paper's ratio IS/|AS|, the highest first.

    `models` has the rows of tables/models.csv that are ranked. Models with equal values share a
    place; a model without a value has no place.
    """
    names = {PAPER: "value", f"{PAPER}_low": "low", f"{PAPER}_high": "high", "n_images": "n"}
    table = models[["space", "model", *names]].rename(columns=names)
    table = table.astype({"value": float, "low": float, "high": float})
    places = table.groupby("space", sort=False)["value"].rank(method="min", ascending=False)
    table.insert(1, "place", places.astype("Int64"))
    return table.reset_index(drop=True)
