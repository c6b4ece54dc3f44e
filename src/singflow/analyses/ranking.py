"""Comparison of models: by D on the same folds, by the paper's ratio, and with the removal of random subspaces."""

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import scipy

from singflow.analyses.evidence import RESOLUTION, jackknife
from singflow.analyses.statistics import Sample, holm, rank_correlations
from singflow.analyses.tables import WEAK, legend, marked

SCORES = ["is_deg", "as_abs_deg"]
PAPER = "is_per_as"
CHART, LEAST = (
    "paper's chart",
    5,
)  # the authors' chart among the spaces, and how many of its models make a comparison


def case_columns(controls: pd.DataFrame, subspace: str, dimension: int | None) -> np.ndarray:
    """IS and |AS| of every image for one case of a controls table.

    Parameters
    ----------
    controls : DataFrame
        The controls table of one model and space.
    subspace : {"null", "random", "row"}
        Kind of the subspaces removed.
    dimension : int or None
        Their dimension.

    Returns
    -------
    ndarray of shape (n, 2)
        Degrees, ordered by image_id; NaN when the table has no such case.
    """
    rows = controls[
        (controls["subspace"] == subspace) & (controls["dimension"] == dimension)
    ].sort_values("image_id")
    return (
        rows[SCORES].to_numpy()
        if len(rows)
        else np.full((controls["image_id"].nunique(), 2), np.nan)
    )


def excess_rows(
    controls: pd.DataFrame,
    report: list[dict[str, Any]],
    null_dim: int,
    sample: Sample,
    *,
    resamples: int,
    confidence: float,
    seed: int,
) -> list[dict[str, Any]]:
    """Rows of tables/controls.csv for one model and space: null removal against random and row-space removal, by dimension.

    The interval of an excess holds the spread over images and that over subspaces: a null space that is like any other subspace
    has an excess whose interval covers 0. The error of one further draw is added in quadrature, and the quantile is Student's t with
    the degrees of freedom that the two together have (Satterthwaite).

    Parameters
    ----------
    controls : DataFrame
        The controls table.
    report : list of dict
        Its cases: subspace, dimension, draws, stable, is_deg_spread and as_abs_deg_spread.
    null_dim : int
        Dimension of the model's null space.
    sample : Sample
        What the images are a sample of.
    resamples : int
        Bootstrap resamples.
    confidence : float
        Coverage of the intervals, 0 to 1.
    seed : int
        Seed of the bootstrap.

    Returns
    -------
    list of dict
        By dimension: dimension, own (whether it is null_dim) and n; for each of SCORES, in degrees, <score>_null with its
        interval, <score>_random, <score>_row, and the excess of null over each of these two with its interval; for each of the two
        the number of draws and whether they are stable. A case that was not measured has NaN and 0 draws.
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
        columns[kind, d] if kind == "null" else columns["null", d] - columns[kind, d]
        for kind, d in columns
    ]
    together = sample.means(
        np.hstack(parts), resamples, seed
    )  # drawing images takes the time: once for all cases
    samples = dict(zip(columns, np.hsplit(together, len(parts)), strict=True))
    rows = []
    for dimension in dimensions:
        row: dict[str, Any] = {
            "dimension": dimension,
            "own": dimension == null_dim,
            "n": len(sample.codes),
        }
        null = columns["null", dimension]
        for position, score in enumerate(SCORES):
            row[f"{score}_null"] = null[:, position].mean()
            low, high = sample.interval(
                row[f"{score}_null"], samples["null", dimension][:, position], confidence
            )
            row[f"{score}_null_low"], row[f"{score}_null_high"] = low, high
        for other in ("random", "row"):
            case = drawn.get((other, dimension))
            values, spread = columns[other, dimension], samples[other, dimension]
            for position, score in enumerate(SCORES):
                row[f"{score}_{other}"] = values[:, position].mean()
                middle = (null - values)[:, position].mean()
                low, high = sample.interval(middle, spread[:, position], confidence)
                error = _error_of_draw(case, score) if case else np.nan
                row[f"{score}_excess_{other}"] = middle
                for end, half in (("low", middle - low), ("high", high - middle)):
                    reach = _with_draws(
                        half, sample.freedom, error, case["draws"] - 1 if case else 0, confidence
                    )
                    row[f"{score}_excess_{other}_{end}"] = middle + (
                        reach if end == "high" else -reach
                    )
            row[f"{other}_draws"] = case["draws"] if case else 0
            row[f"{other}_stable"] = bool(case and case["stable"])
        rows.append(row)
    return rows


def _error_of_draw(case: dict[str, Any], score: str) -> float:
    """Standard error of what one further draw's mean is expected to be; 0 for the whole row space, which is one."""
    draws = case["draws"]
    return float(case[f"{score}_spread"] * np.sqrt(1 + 1 / draws)) if draws > 1 else 0.0


def _with_draws(
    half: float, freedom: int, error: float, draws_freedom: int, confidence: float
) -> float:
    """Half an interval over images, widened by an independent error with few degrees of freedom of its own."""
    tail = (1 + confidence) / 2
    images = half / scipy.special.stdtrit(max(freedom, 1), tail)
    total = images**2 + error**2
    if not total > 0:
        return float(np.sqrt(total))
    together = total**2 / (images**4 / max(freedom, 1) + error**4 / max(draws_freedom, 1))
    return float(scipy.special.stdtrit(together, tail) * np.sqrt(total))


def pair_rows(reports: dict[str, dict[str, Any]], confidence: float) -> pd.DataFrame:
    """Differences of D between models on the same folds, by the delete-a-fold jackknife.

    Parameters
    ----------
    reports : dict of dict
        Model -> evidence/<space>/<model>.json, of models with the same images.
    confidence : float
        Coverage of the intervals, 0 to 1; its complement is the level of the tests.

    Returns
    -------
    DataFrame
        model_a, model_b, difference (D of a less D of b), low, high, p (two-sided), p_holm (corrected by Holm for the number of pairs)
        and differ (whether p_holm is within the level and the interval farther from 0 than RESOLUTION). Models without an interval are left
        out.
    """
    known = {model: each for model, each in reports.items() if each["unique_r2_low"] is not None}
    rows = []
    for a, b in combinations(known, 2):
        without = np.subtract(known[a]["unique_r2_without"], known[b]["unique_r2_without"])
        found = jackknife(
            known[a]["unique_r2"] - known[b]["unique_r2"], without.tolist(), confidence
        )
        above = found.p(0.0)
        rows.append(
            [
                a,
                b,
                found.unique_r2,
                found.low,
                found.high,
                2 * min(above, 1 - above) if found.error else 1.0,
            ]
        )
    table = pd.DataFrame(rows, columns=["model_a", "model_b", "difference", "low", "high", "p"])
    table["p_holm"] = holm(table["p"].to_numpy(dtype=np.float64))
    nearest = np.maximum(
        table["low"].to_numpy(dtype=np.float64), -table["high"].to_numpy(dtype=np.float64)
    )
    return table.assign(differ=(table["p_holm"] <= 1 - confidence) & (nearest > RESOLUTION))


def order_rows(models: pd.DataFrame) -> pd.DataFrame:
    """The order of models by the paper's ratio IS/|AS|, the highest first.

    Parameters
    ----------
    models : DataFrame
        Rows of tables/models.csv, of models that are ranked.

    Returns
    -------
    DataFrame
        space, place (1 is first; models with equal values share one, and one without a value has none), model, value, low, high, n.
    """
    names = {PAPER: "value", f"{PAPER}_low": "low", f"{PAPER}_high": "high", "n_images": "n"}
    table = (
        models[["space", "model", *names]]
        .rename(columns=names)
        .astype({"value": float, "low": float, "high": float})
    )
    places = (
        table.groupby("space", sort=False)["value"]
        .rank(method="min", ascending=False)
        .astype("Int64")
    )
    table.insert(1, "place", places)
    return table.reset_index(drop=True)


AGREEMENT = ["space_a", "space_b", "n_models", "spearman", "spearman_p", "kendall", "kendall_p"]


def agreement_rows(
    orders: pd.DataFrame, chart: pd.Series, charted: str, permutations: int, seed: int
) -> pd.DataFrame:
    """How far orders by IS/|AS| agree: those of two spaces, and one with the chart of 13 models in the authors' release.

    Parameters
    ----------
    orders : DataFrame
        tables/orders.csv.
    chart : Series
        The chart's ratios, by model, of those to be compared.
    charted : str
        The space of the chart.
    permutations : int
        Permutations behind the p-value of Spearman's correlation.
    seed : int
        Seed of the permutations.

    Returns
    -------
    DataFrame
        space_a, space_b (CHART for the chart, beside which there must be LEAST models), n_models, and Spearman's correlation with a
        permutation p-value and Kendall's tau-b with SciPy's, over the models that have a value in both; empty for fewer than three.
    """
    wide = orders.pivot(index="model", columns="space", values="value")
    pairs = [
        (a, b, wide[[a, b]].dropna().to_numpy(dtype=np.float64))
        for a, b in combinations(orders["space"].unique(), 2)
    ]
    if charted in wide:
        ours = wide[charted].dropna()
        both = ours.index.intersection(chart.index)
        if len(both) >= LEAST:
            pairs.append(
                (charted, CHART, np.column_stack([ours[both], chart[both]]).astype(np.float64))
            )
    return pd.DataFrame(
        [_agreement(*pair, permutations, seed) for pair in pairs], columns=AGREEMENT
    )


def _agreement(
    first: str, second: str, both: np.ndarray, permutations: int, seed: int
) -> list[Any]:
    """A row of two orders; both: (n, 2), the models' values in the two."""
    if len(both) < 3:
        return [first, second, len(both), *[None] * 4]
    (_, _, spearman, p), kendall = (
        rank_correlations(both, permutations, seed)[0],
        scipy.stats.kendalltau(*both.T),
    )
    return [first, second, len(both), spearman, p, float(kendall.statistic), float(kendall.pvalue)]


def beside_chart(row: dict[Any, Any]) -> str:
    """A row of `agreement_rows` beside the chart, in words."""
    return (
        f"IS/|AS| beside the paper's chart, over {row['n_models']} models: Spearman {row['spearman']:+.2f} (p {row['spearman_p']:.2g}), "
        f"Kendall {row['kendall']:+.2f} (p {row['kendall_p']:.2g})"
    )


def render_orders(orders: pd.DataFrame, agreement: pd.DataFrame) -> str:
    """The order of the models by the paper's ratio, a line for each space with several models; weak translators are not ranked.

    Parameters
    ----------
    orders : DataFrame
        tables/orders.csv.
    agreement : DataFrame
        What `agreement_rows` gives.

    Returns
    -------
    str
        Text of tables/orders.txt.
    """
    lines = []
    for space, group in orders.dropna(subset=["place"]).groupby("space", sort=False):
        weak = group["marks"].str.contains(WEAK)
        if (~weak).sum() < 2:
            continue
        placed = group.sort_values(["place", "model"])
        named = placed.assign(
            text=[
                f"{marked(row['model'], row['marks'])} {row['value']:.2f}"
                for row in placed.to_dict("records")
            ]
        )
        apart = (
            f"; not ranked: {', '.join(named.loc[weak, 'text'].sort_values())}"
            if weak.any()
            else ""
        )
        lines.append(
            f"The paper's order in space {space}, by IS/|AS|: {' > '.join(named.loc[~weak, 'text'])}{apart}"
        )
        beside = agreement[(agreement["space_a"] == space) & (agreement["space_b"] == CHART)]
        lines += [f"  {beside_chart(row)}" for row in beside.to_dict("records")]
        lines += [f"  {signs}"] if (signs := legend(group["marks"])) else []
    return "".join(f"{line}\n" for line in lines)
