"""Comparison of models: by D on the same folds, by IS/|AS|, and with removal of other subspaces."""

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import scipy

from singflow.analyses.evidence import RESOLUTION, jackknife
from singflow.analyses.statistics import Sample, holm, rank_correlations
from singflow.analyses.summary import Summary
from singflow.analyses.tables import WEAK, legend, marked

COMPARED = ["is_deg", "as_abs_deg"]
PAPER = "is_per_as"
# CHART stands for the authors' chart among the spaces. LEAST models in common make a comparison.
CHART, LEAST = ("paper's chart", 5)


def case_columns(controls: pd.DataFrame, subspace: str, dimension: int | None) -> np.ndarray:
    """IS and |AS| (n, 2) in degrees for one case of a controls table, in the order of image_id.

    subspace is null, random or row. The values are NaN if the table has no such case.
    """
    rows = controls[(controls["subspace"] == subspace) & (controls["dimension"] == dimension)]
    if rows.empty:
        return np.full((controls["image_id"].nunique(), 2), np.nan)
    return rows.sort_values("image_id")[COMPARED].to_numpy()


def excess_rows(
    controls: pd.DataFrame,
    report: list[dict[str, Any]],
    null_dim: int,
    sample: Sample,
    settings: Summary,
    seed: int,
) -> list[dict[str, Any]]:
    """Rows of tables/controls.csv for one model and space: null against random and row removal.

    There is one row per dimension. The interval of an excess holds the spread over images and the
    spread over subspaces: if the null space is like any other subspace, the interval of its excess
    covers 0. The standard error of one further draw is added in quadrature, and the quantile is
    that of Student's t with Satterthwaite's degrees of freedom of the sum. `report` lists the cases
    (subspace, dimension, draws, stable, is_deg_spread, as_abs_deg_spread). A case that was not
    measured has NaN and 0 draws.
    """
    if not report:
        return []
    drawn = {(case["subspace"], case["dimension"]): case for case in report}
    dimensions = sorted({dimension for _, dimension in drawn})
    columns = {
        (kind, dimension): case_columns(controls, kind, dimension)
        for dimension in dimensions
        for kind in ("null", "random", "row")
    }
    parts = [
        values if kind == "null" else columns["null", dimension] - values
        for (kind, dimension), values in columns.items()
    ]
    # Drawing images takes most of the time, so it is done once for all cases.
    together = sample.means(np.hstack(parts), settings.resamples, seed)
    samples = dict(zip(columns, np.hsplit(together, len(parts)), strict=True))
    rows = []
    for dimension in dimensions:
        row: dict[str, Any] = {
            "dimension": dimension,
            "own": dimension == null_dim,
            "n": len(sample.codes),
        }
        null = columns["null", dimension]
        for position, score in enumerate(COMPARED):
            name, spread = f"{score}_null", samples["null", dimension][:, position]
            row[name] = null[:, position].mean()
            low, high = sample.interval(row[name], spread, settings.confidence)
            row[f"{name}_low"], row[f"{name}_high"] = low, high
        for control in ("random", "row"):
            case = drawn.get((control, dimension), {"draws": 0, "stable": False})
            values, spread = columns[control, dimension], samples[control, dimension]
            for position, score in enumerate(COMPARED):
                row[f"{score}_{control}"] = values[:, position].mean()
                middle = (null - values)[:, position].mean()
                low, high = sample.interval(middle, spread[:, position], settings.confidence)
                name = f"{score}_excess_{control}"
                below, above = (
                    _with_draws(half, sample.freedom, case, score, settings.confidence)
                    for half in (middle - low, high - middle)
                )
                row |= {name: middle, f"{name}_low": middle - below, f"{name}_high": middle + above}
            row[f"{control}_draws"] = case["draws"]
            row[f"{control}_stable"] = bool(case["stable"])
        rows.append(row)
    return rows


def _with_draws(
    half: float, freedom: int, case: dict[str, Any], score: str, confidence: float
) -> float:
    """Half-width of an interval over images, widened by the independent error over draws.

    The error is the standard error of the mean of one further draw, compared with the mean of the
    draws. It is 0 for a single draw, such as the whole row space.
    """
    tail, draws = (1 + confidence) / 2, case["draws"]
    error = float(case[f"{score}_spread"] * np.sqrt(1 + 1 / draws)) if draws > 1 else 0.0
    images = half / scipy.special.stdtrit(max(freedom, 1), tail)
    total = images**2 + error**2
    if not total > 0:
        return float(np.sqrt(total))
    together = total**2 / (images**4 / max(freedom, 1) + error**4 / max(draws - 1, 1))
    return float(scipy.special.stdtrit(together, tail) * np.sqrt(total))


def pair_rows(
    reports: dict[str, dict[str, Any]], classes: dict[str, int], confidence: float
) -> pd.DataFrame:
    """Differences of D (model_a minus model_b) on the same folds, with jackknife intervals.

    `reports` holds evidence/<space>/<model>.json by model, and `classes` the number of classes of
    each head. Left out are models without an interval, and pairs with heads of another size or with
    other folds.
    p is two-sided, p_holm has Holm's correction for the number of pairs. Two models differ if
    p_holm is at most 1 - confidence and the interval is farther from 0 than RESOLUTION.
    """
    known = {
        name: report for name, report in reports.items() if report["unique_r2_low"] is not None
    }
    rows = []
    for (a, first), (b, second) in combinations(known.items(), 2):
        folds = [len(report["unique_r2_without"]) for report in (first, second)]
        if classes[a] != classes[b] or folds[0] != folds[1]:
            continue
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


AGREEMENT = ["space_a", "space_b", "n_models", "spearman", "spearman_p", "kendall", "kendall_p"]


def agreement_rows(
    orders: pd.DataFrame, chart: pd.Series, charted: str, permutations: int, seed: int
) -> pd.DataFrame:
    """Rank correlation of IS/|AS| between two spaces, and between a space and the paper's chart.

    `orders` is tables/orders.csv; `chart` holds the ratios of the chart by model. The space
    `charted` is compared with it (space_b is CHART) if at least LEAST of its models are in the
    chart. Spearman's correlation has a permutation p-value, Kendall's tau-b the p-value of SciPy.
    Numbers are missing for fewer than three models.
    """
    wide = orders.pivot(index="model", columns="space", values="value")
    pairs = [(a, b, wide[[a, b]].dropna()) for a, b in combinations(orders["space"].unique(), 2)]
    if charted in wide:
        both = wide[[charted]].join(chart.rename(CHART), how="inner").dropna(subset=[charted])
        if len(both) >= LEAST:
            pairs.append((charted, CHART, both))
    rows = []
    for first, second, both in pairs:
        found: list[float | None] = [None] * 4
        if len(both) >= 3:
            values = both.to_numpy(dtype=np.float64)
            _, _, spearman, p = rank_correlations(values, permutations, seed)[0]
            kendall = scipy.stats.kendalltau(*values.T)
            found = [spearman, p, float(kendall.statistic), float(kendall.pvalue)]
        rows.append([first, second, len(both), *found])
    return pd.DataFrame(rows, columns=AGREEMENT)


def beside_chart(row: dict[Any, Any]) -> str:
    """Sentence for a row of `agreement_rows` that compares a space with the chart."""
    return (
        f"IS/|AS| beside the paper's chart, over {row['n_models']} models: "
        f"Spearman {row['spearman']:+.2f} (p {row['spearman_p']:.2g}), "
        f"Kendall {row['kendall']:+.2f} (p {row['kendall_p']:.2g})"
    )


def render_orders(orders: pd.DataFrame, agreement: pd.DataFrame) -> str:
    """Text of tables/orders.txt: the order by IS/|AS| for each space with several ranked models.

    Models with weak translators are listed, but not ranked.
    """
    lines = []
    for space, group in orders.dropna(subset=["place"]).groupby("space", sort=False):
        weak = group["marks"].str.contains(WEAK)
        if (~weak).sum() < 2:
            continue
        placed = group.sort_values(["place", "model"])
        shown = [
            f"{marked(row['model'], row['marks'])} {row['value']:.2f}"
            for row in placed.to_dict("records")
        ]
        text = pd.Series(shown, placed.index)
        apart = f"; not ranked: {', '.join(text[weak].sort_values())}" if weak.any() else ""
        lines.append(
            f"The paper's order in space {space}, by IS/|AS|: {' > '.join(text[~weak])}{apart}"
        )
        beside = agreement[(agreement["space_a"] == space) & (agreement["space_b"] == CHART)]
        lines += [f"  {beside_chart(row)}" for row in beside.to_dict("records")]
        lines += [f"  {signs}"] if (signs := legend(group["marks"])) else []
    return "".join(f"{line}\n" for line in lines)
