"""Comparison of models: excess over control, orders by several criteria, paired tests, and how far orders agree."""

from collections.abc import Iterable
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import scipy

from singflow.analyses.refits import PARTS, factor_once
from singflow.analyses.statistics import Criterion, Sample, holm, linearized, rank_correlations, t_test, through_fits
from singflow.analyses.tables import WEAK, legend, marked

SCORES = ["is_deg", "as_abs_deg"]
PAPER = "is_per_as"
CHART, LEAST = "paper's chart", 5  # the authors' chart among the spaces of orders, and how many of its models make a comparison


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    return np.divide(top, bottom, out=np.full(np.broadcast(top, bottom).shape, np.nan), where=bottom != 0)


# Means (..., 6): IS and |AS| of the null space, of random subspaces of its dimension, of its parts of the dimension that all
# models share. The flag says whether a higher value is the better one.
CRITERIA: dict[str, tuple[Criterion, bool]] = {
    PAPER: (lambda m: _ratio(m[..., 0], m[..., 1]), True),
    "is_per_as_over_control": (lambda m: _ratio(_ratio(m[..., 0], m[..., 1]), _ratio(m[..., 2], m[..., 3])), True),
    "is_per_as_equal_dim": (lambda m: _ratio(m[..., 4], m[..., 5]), True),
    "is": (lambda m: m[..., 0], True),
    "is_excess": (lambda m: m[..., 0] - m[..., 2], True),
    "is_per_control": (lambda m: _ratio(m[..., 0], m[..., 2]), True),
    "as_abs": (lambda m: m[..., 1], False),
    "as_abs_excess": (lambda m: m[..., 1] - m[..., 3], False),
    "as_abs_per_control": (lambda m: _ratio(m[..., 1], m[..., 3]), False),
}
RATIOS = {name for name in CRITERIA if "_per_" in name}


def _log(criterion: Criterion) -> Criterion:
    """The logarithm of a criterion, NaN where it is not above 0."""

    def value(means: np.ndarray) -> np.ndarray:
        found = criterion(means)
        return np.log(found, out=np.full(np.shape(found), np.nan), where=found > 0)

    return value


def shared_dimension(controls: Iterable[pd.DataFrame]) -> int | None:
    """The largest dimension at which parts of every null space were removed.

    Parameters
    ----------
    controls : iterable of DataFrame
        One a model, with columns subspace and dimension.

    Returns
    -------
    int or None
        None when there is no such dimension.
    """
    sets = [set(table.loc[table["subspace"] == "null", "dimension"]) for table in controls]
    common = set.intersection(*sets) if sets else set()
    return int(max(common)) if common else None


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
    rows = controls[(controls["subspace"] == subspace) & (controls["dimension"] == dimension)].sort_values("image_id")
    return rows[SCORES].to_numpy() if len(rows) else np.full((controls["image_id"].nunique(), 2), np.nan)


def criterion_columns(controls: pd.DataFrame, null_dim: int, shared: int | None) -> np.ndarray:
    """The columns whose means CRITERIA take.

    Parameters
    ----------
    controls : DataFrame
        The controls table of one model and space.
    null_dim : int
        Dimension of the model's null space.
    shared : int or None
        Dimension at which models are compared with equally many dimensions; the last two columns are NaN without one.

    Returns
    -------
    ndarray of shape (n, 6)
        Degrees, ordered by image_id.
    """
    cases = [("null", null_dim), ("random", null_dim), ("null", shared)]
    return np.hstack([case_columns(controls, subspace, dimension) for subspace, dimension in cases])


def criterion_refits(refits: pd.DataFrame | None, image_id: pd.Series, null_dim: int, shared: int | None, sample: Sample) -> np.ndarray:
    """What images add through the fits to the means that CRITERIA take.

    Parameters
    ----------
    refits : DataFrame or None
        refits/<space>/<model>.parquet; None where nothing is refitted.
    image_id : Series of length n
        Images.
    null_dim, shared
        As for criterion_columns().
    sample : Sample
        What the images are a sample of, with the k images of its reference.

    Returns
    -------
    ndarray of shape (n + k, 6)
        To be added to the sample's rows of criterion_columns() before the means are resampled.
    """
    return through_fits(refits, image_id, ranked_columns(null_dim, shared), sample)


def criterion_parts(refits: pd.DataFrame | None, image_id: pd.Series, null_dim: int, shared: int | None, sample: Sample) -> np.ndarray:
    """What criterion_refits() is made of, out of which a difference of models takes what it needs.

    Parameters
    ----------
    refits, image_id, null_dim, shared, sample
        As for criterion_refits().

    Returns
    -------
    ndarray of shape (4, n + k, 6)
        float32; in the order of refits.PARTS.
    """
    names, rows = ranked_columns(null_dim, shared), []
    for part in PARTS:
        rows.append(through_fits(refits, image_id, [f"{name}_{part}" for name in names], sample).astype(np.float32))
    return np.stack(rows)


def ranked_columns(null_dim: int, shared: int | None) -> list[str]:
    """Names, in refits/<space>/<model>.*, of the scores whose means CRITERIA take.

    Parameters
    ----------
    null_dim, shared
        As for criterion_columns().

    Returns
    -------
    list of str
        Six, in the order of criterion_columns().
    """
    prefixes = ["", "control_", "" if shared == null_dim else f"part_{shared}_"]
    return [prefix + score for prefix in prefixes for score in SCORES]


def excess_rows(
    controls: pd.DataFrame,
    report: list[dict[str, Any]],
    null_dim: int,
    sample: Sample,
    refits: pd.DataFrame | None = None,
    *,
    resamples: int,
    confidence: float,
    seed: int,
) -> list[dict[str, Any]]:
    """Rows of tables/controls.csv for one model and space: null removal against random and row-space removal, by dimension.

    The interval of an excess holds the spread over images and that over subspaces: a null space that is like any other subspace
    has an excess whose interval covers 0. The error of one further draw is added in quadrature, and the quantile is Student's t with
    the degrees of freedom that the two together have (Satterthwaite). Intervals hold the refit too, but for the excess over parts of
    the row space, and over random subspaces of other dimensions than the null space's own.

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
    refits : DataFrame, optional
        refits/<space>/<model>.parquet; without it intervals hold the images alone.
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
    columns = {(kind, dimension): case_columns(controls, kind, dimension) for dimension in dimensions for kind in ("null", "random", "row")}
    parts = [columns[kind, d] if kind == "null" else columns["null", d] - columns[kind, d] for kind, d in columns]
    through = [_through(refits, controls, kind, dimension, null_dim, sample) for kind, dimension in columns]
    numbers = sample.rows(np.hstack(parts)) + np.hstack(through)
    together = sample.means(numbers, resamples, seed)  # drawing images takes the time: once for all cases
    samples = dict(zip(columns, np.hsplit(together, len(parts)), strict=True))
    rows = []
    for dimension in dimensions:
        row: dict[str, Any] = {"dimension": dimension, "own": dimension == null_dim, "n": len(sample.codes)}
        null = columns["null", dimension]
        for position, score in enumerate(SCORES):
            row[f"{score}_null"] = null[:, position].mean()
            low, high = sample.interval(row[f"{score}_null"], samples["null", dimension][:, position], confidence)
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
                    reach = _with_draws(half, sample.freedom, error, case["draws"] - 1 if case else 0, confidence)
                    row[f"{score}_excess_{other}_{end}"] = middle + (reach if end == "high" else -reach)
            row[f"{other}_draws"] = case["draws"] if case else 0
            row[f"{other}_stable"] = bool(case and case["stable"])
        rows.append(row)
    return rows


def _through(refits: pd.DataFrame | None, controls: pd.DataFrame, kind: str, dimension: int, null_dim: int, sample: Sample) -> np.ndarray:
    """What images add through the fits to scores after null removal, or to their excess: (n + k, 2)."""
    image_id = pd.Series(np.sort(controls["image_id"].unique()))
    own, part, random = (through_fits(refits, image_id, [p + s for s in SCORES], sample) for p in ("", f"part_{dimension}_", "control_"))
    if kind == "null":
        return own if dimension == null_dim else part
    return own - random if (kind, dimension) == ("random", null_dim) else np.zeros_like(own)


def _error_of_draw(case: dict[str, Any], score: str) -> float:
    """Standard error of what one further draw's mean is expected to be; 0 for the whole row space, which is one."""
    draws = case["draws"]
    return float(case[f"{score}_spread"] * np.sqrt(1 + 1 / draws)) if draws > 1 else 0.0


def _with_draws(half: float, freedom: int, error: float, draws_freedom: int, confidence: float) -> float:
    """Half an interval over images, widened by an independent error with few degrees of freedom of its own."""
    tail = (1 + confidence) / 2
    images = half / scipy.special.stdtrit(max(freedom, 1), tail)
    total = images**2 + error**2
    if not total > 0:
        return float(np.sqrt(total))
    together = total**2 / (images**4 / max(freedom, 1) + error**4 / max(draws_freedom, 1))
    return float(scipy.special.stdtrit(together, tail) * np.sqrt(total))


def same_order(first: np.ndarray, second: np.ndarray, criterion: Criterion) -> np.ndarray:
    """Whether two models keep their order by a criterion with other penalties.

    Parameters
    ----------
    first, second : ndarray of shape (k, 6), ndarray of shape (l, 6)
        Means of each model with k and l penalties, the best one first.
    criterion : callable
        Maps means (..., 6) to values (...).

    Returns
    -------
    ndarray of shape (k, l)
        1 where their order is that with the best penalties, 0 where it is not; NaN where the criterion is undefined.
    """
    difference = criterion(first)[:, None] - criterion(second)
    return np.where(np.isfinite(difference), np.sign(difference) == np.sign(difference[0, 0]), np.nan)


def order_rows(
    columns: dict[str, np.ndarray], sample: Sample, lambdas: dict[str, np.ndarray], *, resamples: int, confidence: float, seed: int
) -> pd.DataFrame:
    """Every model's value, interval and place by every criterion, one row each.

    Parameters
    ----------
    columns : dict of str to ndarray of shape (n + k, 6)
        Model -> the sample's rows of `criterion_columns` on the same images, for models with a null space.
    sample : Sample
        What the images are a sample of.
    lambdas : dict of str to ndarray of shape (k, 6)
        Model -> means with each penalty that is as good as its best, that one first; NaN where nothing is refitted.
    resamples : int
        Bootstrap resamples.
    confidence : float
        Coverage of the intervals, 0 to 1.
    seed : int
        Seed of the bootstrap.

    Returns
    -------
    DataFrame
        criterion, model, n, value, low, high, place (1 is best; models with equal values share one, and one without a value has none)
        and stable_over_lambdas: of all choices of a penalty for every model, the share with which the model stays before and behind
        the same others; NaN where nothing is refitted.
    """
    rows = []
    for model, each in columns.items():
        means, samples = sample.mean(each), sample.means(each, resamples, seed)
        for criterion, (value, _) in CRITERIA.items():
            low, high = sample.interval(value(means), value(samples), confidence)
            others = [lambdas[other] for other in columns if other != model]
            kept = [same_order(lambdas[model], other, value).mean(axis=1) for other in others]
            stable = np.prod(kept, axis=0).mean() if kept else np.nan  # penalties of others are chosen independently
            row = {"criterion": criterion, "model": model, "n": len(sample.codes), "value": float(value(means)), "low": low, "high": high}
            rows.append(row | {"stable_over_lambdas": stable})
    table = pd.DataFrame(rows, columns=["criterion", "model", "n", "value", "low", "high", "stable_over_lambdas"])
    places = _oriented(table).groupby(table["criterion"]).rank(method="min", ascending=False)
    return table.assign(place=places.astype("Int64"))


def _oriented(table: pd.DataFrame) -> pd.Series:
    """The values of criteria, turned so that the higher is the better."""
    sign = table["criterion"].map({name: 1.0 if higher else -1.0 for name, (_, higher) in CRITERIA.items()})
    return table["value"].astype(float) * sign.astype(float)


def pair_rows(
    columns: dict[str, np.ndarray],
    fits: dict[str, np.ndarray],
    sample: Sample,
    lambdas: dict[str, np.ndarray],
    *,
    resamples: int,
    confidence: float,
    seed: int,
) -> pd.DataFrame:
    """Differences between models on the same images by every criterion: with interval, p-value, and p corrected by Holm.

    The interval is by bootstrap. The p-value is that of a paired t test on what each image adds to the difference, of logarithms
    where the criterion is a ratio: it holds its level where two models with one ratio have levels that differ. What images add through
    the fits is rid of what counts twice in the difference itself: much of what two models share cancels there, while what training
    images do together does not. The correction is for the number of pairs within a criterion.

    Parameters
    ----------
    columns : dict of str to ndarray of shape (n + k, 6)
        Model -> the sample's rows of `criterion_columns` on the same images, for models with a null space.
    fits : dict of str to ndarray of shape (4, n + k, 6)
        Model -> what `criterion_parts` gives.
    sample : Sample
        What the images are a sample of.
    lambdas : dict of str to ndarray of shape (k, 6)
        Model -> means with each penalty that is as good as its best, that one first; NaN where nothing is refitted.
    resamples : int
        Bootstrap resamples.
    confidence : float
        Coverage of the intervals, 0 to 1; its complement is the level of the tests.
    seed : int
        Seed of the bootstrap.

    Returns
    -------
    DataFrame
        criterion, model_a, model_b, n, difference (a less b), low, high, p, stable_over_lambdas (of all choices of two penalties, the
        share with which they keep their order; NaN where nothing is refitted), p_holm and differ (whether p_holm is within the level).
    """
    samples = {m: np.split(sample.means(np.hstack([columns[m], fits[m][:2].sum(0)]), resamples, seed), 2, axis=1) for m in columns}
    means = {model: sample.mean(each) for model, each in columns.items()}
    names = ["criterion", "model_a", "model_b", "n", "difference", "low", "high", "p", "stable_over_lambdas"]
    rows = []
    for criterion, (value, _) in CRITERIA.items():
        tested = _log(value) if criterion in RATIOS else value
        at = {model: float(value(each)) for model, each in means.items()}
        test = {m: [tested(means[m]), *(linearized(each, means[m], tested) for each in (columns[m], fits[m]))] for m in columns}
        for a, b in combinations(columns, 2):
            difference = at[a] - at[b]
            apart, own, parts = (first - second for first, second in zip(test[a], test[b], strict=True))
            factor = factor_once(parts[:2], parts[2:])
            drawn = [value(scores + factor * through) for scores, through in (samples[a], samples[b])]
            low, high = sample.interval(difference, drawn[0] - drawn[1], confidence)
            p = t_test(float(apart), sample.error(own + factor * parts[:2].sum(axis=0)), sample.freedom)
            stable = same_order(lambdas[a], lambdas[b], value).mean()
            rows.append(dict(zip(names, [criterion, a, b, len(sample.codes), difference, low, high, p, stable], strict=True)))
    table = pd.DataFrame(rows, columns=names)
    corrected = [holm(group.to_numpy()) for _, group in table.groupby("criterion", sort=False)["p"]]
    table["p_holm"] = np.concatenate(corrected) if corrected else np.array([])
    return table.assign(differ=table["p_holm"] <= 1 - confidence)


def agreement_rows(orders: pd.DataFrame, permutations: int, seed: int) -> pd.DataFrame:
    """How far orders of models agree: every criterion with the paper's within a space, and every criterion across spaces.

    Parameters
    ----------
    orders : DataFrame
        tables/orders.csv.
    permutations : int
        Permutations behind the p-value of Spearman's correlation.
    seed : int
        Seed of the permutations.

    Returns
    -------
    DataFrame
        space_a, criterion_a, space_b, criterion_b, n_models, and Spearman's correlation with a permutation p-value and Kendall's
        tau-b with SciPy's: spearman, spearman_p, kendall, kendall_p. All over the models that have a value in both orders, the
        correlations empty for fewer than three. Criteria are turned so that the higher is the better.
    """
    wide = orders.assign(oriented=_oriented(orders)).pivot(index="model", columns=["space", "criterion"], values="oriented")
    spaces = list(orders["space"].unique())
    within = [((space, PAPER), (space, criterion)) for space in spaces for criterion in CRITERIA if criterion != PAPER]
    across = [((a, criterion), (b, criterion)) for a, b in combinations(spaces, 2) for criterion in CRITERIA]
    rows = [_agreement(first, second, wide[[first, second]].dropna().to_numpy(), permutations, seed) for first, second in within + across]
    return pd.DataFrame(rows, columns=AGREEMENT)


AGREEMENT = ["space_a", "criterion_a", "space_b", "criterion_b", "n_models", "spearman", "spearman_p", "kendall", "kendall_p"]


def _agreement(first: tuple[str, str], second: tuple[str, str], both: np.ndarray, permutations: int, seed: int) -> list[Any]:
    """A row of two orders, each a space and a criterion; both: (n, 2), the models' values in the two."""
    if len(both) < 3:
        return [*first, *second, len(both), *[None] * 4]
    (_, _, spearman, p), kendall = rank_correlations(both, permutations, seed)[0], scipy.stats.kendalltau(*both.T)
    return [*first, *second, len(both), spearman, p, float(kendall.statistic), float(kendall.pvalue)]


def chart_rows(orders: pd.DataFrame, chart: pd.Series, permutations: int, seed: int) -> pd.DataFrame:
    """How far the order of the models by the paper's ratio agrees with the chart of 13 models in the authors' release.

    Parameters
    ----------
    orders : DataFrame
        tables/orders.csv, of one space.
    chart : Series
        The chart's ratios, by model, of those to be compared.
    permutations : int
        Permutations behind the p-value of Spearman's correlation.
    seed : int
        Seed of the permutations.

    Returns
    -------
    DataFrame
        A row as `agreement_rows` gives, whose second space is CHART; none where fewer than LEAST models are in both.
    """
    ours = orders[(orders["criterion"] == PAPER) & orders["model"].isin(chart.index)].dropna(subset=["value"])
    both = np.column_stack([ours["value"], chart[ours["model"]]]).astype(np.float64)
    rows = [_agreement((space, PAPER), (CHART, PAPER), both, permutations, seed) for space in ours["space"].unique() if len(both) >= LEAST]
    return pd.DataFrame(rows, columns=AGREEMENT)


def beside_chart(row: dict[Any, Any]) -> str:
    """A row of `chart_rows` in words.

    Parameters
    ----------
    row : dict
        The row.

    Returns
    -------
    str
        As in `IS/|AS| beside the paper's chart, over 6 models: Spearman +0.60 (p 0.24), Kendall +0.47 (p 0.27)`.
    """
    return (
        f"IS/|AS| beside the paper's chart, over {row['n_models']} models: Spearman {row['spearman']:+.2f} (p {row['spearman_p']:.2g}), "
        f"Kendall {row['kendall']:+.2f} (p {row['kendall_p']:.2g})"
    )


def render_orders(orders: pd.DataFrame, agreement: pd.DataFrame, shared: dict[str, int | None]) -> str:
    """Does the order of the models survive the controls? One line per criterion, best model first; weak translators are not ranked.

    Parameters
    ----------
    orders : DataFrame
        tables/orders.csv.
    agreement : DataFrame
        What `agreement_rows` and `chart_rows` give.
    shared : dict of str to int or None
        Space -> dimension at which models are compared with equally many dimensions.

    Returns
    -------
    str
        Text of tables/orders.txt.
    """
    titles = {
        PAPER: "IS/|AS| (the paper's ratio)",
        "is_per_as_over_control": "IS/|AS| over that of random subspaces",
        "is_per_as_equal_dim": "IS/|AS| with {} null directions each",
        "is_per_control": "IS over that of random subspaces",
        "as_abs_per_control": "|AS| over that of random subspaces",
    }
    lines = []
    for space, dimension in shared.items():
        group = orders[orders["space"] == space]
        if group.empty:
            lines += [f"Space {space}: no model has a null space, so there is nothing to order", ""]
            continue
        weak = group["marks"].str.contains(WEAK)
        if weak.all():
            lines.append(f"Models in space {space}, in no order, because every translator is weak")
        else:
            lines.append(
                f"Order of the models in space {space}, best first (tau: agreement with the paper's criterion, 1 the same, -1 reversed)"
            )
        for criterion, title in titles.items():
            placed = group[group["criterion"] == criterion].dropna(subset=["place"]).sort_values(["place", "model"])
            named = placed.assign(text=[f"{marked(row['model'], row['marks'])} {row['value']:.2f}" for row in placed.to_dict("records")])
            ranked, apart = named.loc[~weak, "text"], named.loc[weak, "text"].sort_values()
            listed = "; not ranked: ".join(filter(None, [" > ".join(ranked), ", ".join(apart)]))
            mine = agreement[(agreement["space_a"] == space) & (agreement["space_b"] == space) & (agreement["criterion_b"] == criterion)]
            tau = mine["kendall"].dropna()
            agreed = f"  (tau {tau.iloc[0]:+.2f})" if len(tau) and not weak.any() else ""
            way = ", least first" if criterion.startswith("as_abs") and not weak.all() else ""
            lines.append(f"  {title.format(dimension)}{way}: {listed or 'undefined'}{agreed}")
        beside = agreement[(agreement["space_a"] == space) & (agreement["space_b"] == CHART)]
        lines += [f"  {beside_chart(row)}" for row in beside.to_dict("records")]
        lines += [f"  {signs}"] if (signs := legend(group["marks"])) else []
        lines.append("")
    return "\n".join(lines) + "\n"
