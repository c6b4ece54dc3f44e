from itertools import combinations, permutations

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from singflow.analyses import ranking
from singflow.analyses.statistics import Sample, holm
from singflow.analyses.summary import Summary

N = 60
STRATA = Sample(np.repeat([0, 1, 2], 20))


def report(gains, sizes=None):
    """The part of evidence/<space>/<model>.json about D, from the gain of every fold."""
    gains = np.asarray(gains, dtype=float)
    sizes = np.ones(len(gains)) if sizes is None else np.asarray(sizes, dtype=float)
    without = (gains.sum() - gains) / (sizes.sum() - sizes)
    d = gains.sum() / sizes.sum()
    return {"unique_r2": d, "unique_r2_low": 0.0, "unique_r2_without": without.tolist()}


def pairs_of(**gains):
    """Rows of the pairs of models with these gains."""
    return compared({name: report(gain) for name, gain in gains.items()}).to_dict("records")


def compared(reports, confidence=0.95, classes=()):
    """Rows of the pairs of models with these reports, with heads of 9 classes or others."""
    return ranking.pair_rows(reports, dict.fromkeys(reports, 9) | dict(classes), confidence)


UNKNOWN = {"unique_r2": None, "unique_r2_low": None}  # of a model without a null space
# of too few folds for an interval
UNSURE = {"unique_r2": 0.1, "unique_r2_low": None, "unique_r2_without": []}


def test_a_pair_is_the_paired_t_test_of_the_gains_of_equal_folds():
    gains = np.random.default_rng(0).normal(0.05, 0.01, (3, 5))
    models = dict(zip("abc", map(report, gains), strict=True))
    pairs = compared(models | {"none": UNKNOWN, "few": UNSURE}, 0.9)
    assert (pairs["model_a"] + pairs["model_b"]).tolist() == ["ab", "ac", "bc"]
    for row, (a, b) in zip(pairs.to_dict("records"), combinations(gains, 2), strict=True):
        theirs = scipy.stats.ttest_rel(a, b)
        expected = [np.mean(a - b), theirs.pvalue, *theirs.confidence_interval(0.9)]
        assert [row[name] for name in ("difference", "p", "low", "high")] == pytest.approx(expected)
    assert pairs["p_holm"].tolist() == holm(pairs["p"].to_numpy()).tolist()
    assert pairs["differ"].tolist() == (pairs["p_holm"] <= 0.1).tolist()


def test_a_difference_that_a_digit_shows_is_judged_by_itself_and_not_by_what_both_models_share():
    generator = np.random.default_rng(1)
    shared, own = generator.normal(0.2, 0.3, 5), generator.normal(0, 0.002, (2, 5))
    (row,) = pairs_of(a=shared + own[0] + 0.05, b=shared + own[1])
    assert row["differ"] and row["difference"] == pytest.approx(0.05, abs=0.005)
    assert row["low"] < 0.05 < row["high"] < 0.06
    (apart,) = pairs_of(a=shared[::-1] + own[0] + 0.05, b=shared + own[1])
    assert not apart["differ"] and apart["high"] - apart["low"] > 10 * (row["high"] - row["low"])
    for by, differ in ((0.0004, False), (0.002, True)):  # no digit shows the first
        (row,) = pairs_of(a=shared + by + np.arange(5) * 1e-6, b=shared)
        assert row["p_holm"] < 1e-6 and row["differ"] == differ


def test_equal_or_too_few_models_and_those_with_other_heads_or_folds_make_no_difference():
    same = report([0.1, 0.2, 0.1, 0.3, 0.1])
    (row,) = compared({"a": same, "b": same}).to_dict("records")
    expected = {"difference": 0, "low": 0, "high": 0, "p": 1, "differ": False}
    assert row.items() >= expected.items()
    for few in ({}, {"a": same}, {"a": same, "b": UNKNOWN}):
        pairs = compared(few)
        assert pairs.empty and {"p_holm", "differ"} <= set(pairs)
    gains = np.random.default_rng(4).normal(0.05, 0.01, (4, 5))
    models = dict(zip("abc", map(report, gains[:3]), strict=True)) | {"d": report(gains[3, :4])}
    pairs = compared(models, classes={"b": 8})
    assert (pairs["model_a"] + pairs["model_b"]).tolist() == ["ac"]
    assert pairs["p_holm"].tolist() == pairs["p"].tolist()  # of one pair


def controls(scores, n=N):
    """A controls table out of {(subspace, dimension): (IS, |AS|)} with one value an image."""
    blocks = []
    for (subspace, dimension), (i, a) in scores.items():
        block = pd.DataFrame({"image_id": np.arange(n), "is_deg": i, "as_deg": -a, "as_abs_deg": a})
        blocks.append(block.assign(subspace=subspace, dimension=dimension))
    return pd.concat(blocks).sample(frac=1, random_state=0)


def case(subspace, draws=1, stable=True, is_deg_spread=0.0, as_abs_deg_spread=0.0):
    """A case of 9 dimensions, as in the report of measure_controls."""
    return {"subspace": subspace, "dimension": 9, "draws": draws, "stable": stable,
            "is_deg_spread": is_deg_spread, "as_abs_deg_spread": as_abs_deg_spread}  # fmt: skip


def test_excess_intervals_hold_the_spread_over_images_and_that_over_subspaces():
    generator = np.random.default_rng(0)
    null, random, row = generator.gamma(9.0, size=(3, N))
    drawn = {"null": null, "random": random, "row": row}
    table = controls({(name, 9): (values, values / 9) for name, values in drawn.items()})
    report = [case("null"), case("random", 5, False, is_deg_spread=2.0), case("row")]
    (found,) = ranking.excess_rows(table, report, 9, STRATA, Summary(resamples=8000), seed=0)
    facts = {"dimension": 9, "own": True, "n": N, "random_draws": 5, "random_stable": False}
    assert found.items() >= facts.items()
    for subspace, values, error in (("random", random, 2.0 * np.sqrt(1.2)), ("row", row, 0.0)):
        difference = null - values
        images = np.sqrt(np.mean([difference[s == STRATA.codes].var(ddof=1) for s in range(3)]) / N)
        freedom = (images**2 + error**2) ** 2 / (images**4 / (N - 3) + error**4 / 4)
        middle = found[f"is_deg_excess_{subspace}"]
        reach = scipy.stats.t.ppf(0.975, freedom) * np.hypot(images, error)
        assert middle == pytest.approx(difference.mean())
        assert found[f"is_deg_excess_{subspace}_high"] - middle == pytest.approx(reach, rel=0.1)
        assert found[f"as_abs_deg_excess_{subspace}"] == pytest.approx(difference.mean() / 9)
    table = table[table["subspace"] != "row"]  # a row space that is too small
    (found,) = ranking.excess_rows(table, report[:2], 9, STRATA, Summary(resamples=400), seed=0)
    assert np.isnan(found["is_deg_row"]) and np.isnan(found["is_deg_excess_row_low"])
    assert found["is_deg_excess_random"] == pytest.approx((null - random).mean())
    assert found["row_draws"] == 0 and not found["row_stable"]


@pytest.mark.nightly
@pytest.mark.parametrize(("draws", "classes"), [(5, 0.0), (10, 1.5)])
def test_the_excess_of_a_null_space_like_any_other_subspace_covers_0_in_93_to_97_percent_of_300_trials(  # noqa: E501
    draws, classes
):
    n, missed, settings = 120, 0, Summary(resamples=200)
    codes = np.arange(n) % 20
    for trial in range(300):
        generator = np.random.default_rng([4, trial])
        image, own = generator.gamma(9.0, 1 / 9, n), 10 + 0.4 * generator.standard_normal(draws + 1)
        effect = classes * generator.standard_normal((2, 20))[:, codes]
        null = own[0] * image + generator.normal(0, 2, n) + effect[0]
        by_draw = own[1:, None] * image + generator.normal(0, 1, (draws, n))
        random = by_draw.mean(axis=0) + effect[1]
        table = controls({("null", 9): (null, null), ("random", 9): (random, random)}, n)
        spread = by_draw.mean(axis=1).std(ddof=1)
        report, sample = [case("random", draws, True, spread, spread)], Sample(codes, bool(classes))
        (found,) = ranking.excess_rows(table, report, 9, sample, settings, trial)
        missed += not found["is_deg_excess_random_low"] <= 0 <= found["is_deg_excess_random_high"]
    assert 0.03 <= missed / 300 <= 0.07


def orders_of(marks="", **ratios):
    """tables/orders.csv of ratios by space and model."""
    rows = [(space, model, mine[model]) for space, mine in ratios.items() for model in mine]
    table = pd.DataFrame(rows, columns=["space", "model", "is_per_as"]).assign(n_images=507)
    low, high = table["is_per_as"] - 1.0, table["is_per_as"] + 1.0
    return ranking.order_rows(table.assign(is_per_as_low=low, is_per_as_high=high)).assign(
        marks=marks
    )


def test_the_highest_ratio_is_first_in_its_space_ties_share_a_place_and_a_model_without_one_has_none():  # noqa: E501
    ratios = {"a": 8.0, "b": 5.0, "c": 12.0, "d": 8.0, "e": None}
    orders = orders_of(s=ratios, t={"b": 9.0, "a": 2.0}).drop(columns="marks")
    assert list(orders) == ["space", "place", "model", "value", "low", "high", "n"]
    assert orders["place"].tolist() == [2, 4, 1, 2, pd.NA, 1, 2]
    assert orders["model"].tolist() == list("abcdeba")
    assert orders.iloc[2].tolist() == ["s", 1, "c", 12.0, 11.0, 13.0, 507]
    assert orders_of().empty


def test_orders_of_spaces_agree_as_scipy_says_over_the_models_that_both_have():
    ours = {"a": 4.0, "b": 6.0, "c": 8.0, "d": 1.0, "e": None, "g": 3.0}
    theirs = {"a": 2.0, "b": 7.0, "c": 6.0, "d": 1.5, "e": 9.0, "f": 5.0}
    orders = orders_of(s=ours, t=theirs, u={"a": 1.0, "b": 2.0})
    agreement = ranking.agreement_rows(orders, pd.Series(dtype=float), "s", 2000, seed=0)
    assert list(agreement) == ranking.AGREEMENT
    spaces = agreement["space_a"] + agreement["space_b"]
    assert spaces.tolist() == ["st", "su", "tu"] and agreement["n_models"].tolist() == [4, 2, 2]
    first, second = [ours[model] for model in "abcd"], [theirs[model] for model in "abcd"]
    rho = scipy.stats.spearmanr(first, second).statistic
    expected = [rho, *scipy.stats.kendalltau(first, second)]
    assert [*agreement.iloc[0][["spearman", "kendall", "kendall_p"]]] == pytest.approx(expected)
    assert agreement.iloc[1:, 3:].isna().all(axis=None)


def test_the_order_agrees_with_the_papers_chart_as_scipy_says_from_five_common_models_on():
    ratios = pd.Series({"a": 5.0, "b": 4.0, "c": 9.0, "d": 1.0, "e": 2.0, "z": 7.0})
    ours = dict(zip("abcdef", [4.0, 6.0, 8.0, 1.0, 3.0, 99.0], strict=True))
    orders = orders_of(s=ours)
    (row,) = ranking.agreement_rows(orders, ratios, "s", 5000, seed=0).to_dict("records")
    mine, theirs = [ours[model] for model in "abcde"], [ratios[model] for model in "abcde"]
    assert (row["space_a"], row["space_b"], row["n_models"]) == ("s", ranking.CHART, 5)
    rho = scipy.stats.spearmanr(mine, theirs).statistic
    expected = [rho, *scipy.stats.kendalltau(mine, theirs)]
    assert [row[name] for name in ("spearman", "kendall", "kendall_p")] == pytest.approx(expected)
    every = [scipy.stats.spearmanr(mine, list(order)).statistic for order in permutations(theirs)]
    share = np.mean(np.abs(every) >= rho - 1e-9)
    assert row["spearman_p"] == pytest.approx(share, abs=0.02)
    said = "IS/|AS| beside the paper's chart, over 5 models: Spearman +0.90"
    assert ranking.beside_chart(row).startswith(said)
    assert f"\n  {ranking.beside_chart(row)}\n" in ranking.render_orders(
        orders, pd.DataFrame([row])
    )
    for fewer in (ratios.drop("a"), ratios[:0]):
        assert ranking.agreement_rows(orders, fewer, "s", 100, seed=0).empty
    assert ranking.agreement_rows(orders, ratios, "another space", 100, seed=0).empty


def rendered(orders):
    return ranking.render_orders(
        orders, ranking.agreement_rows(orders, pd.Series(dtype=float), "s", 100, seed=0)
    )


def test_the_text_names_the_models_of_a_space_from_the_highest_ratio_on_and_explains_marks():
    ratios = {"a": 8.0, "b": 5.0, "c": 12.0, "d": 8.0, "e": None}
    assert rendered(orders_of(s=ratios, t={"a": 1.25, "b": 2.0})).splitlines() == [
        "The paper's order in space s, by IS/|AS|: c 12.00 > a 8.00 > d 8.00 > b 5.00",
        "The paper's order in space t, by IS/|AS|: b 2.00 > a 1.25",
    ]
    orders = orders_of(["", "weak translator", "in sample"], s={"a": 8.0, "b": 5.0, "c": 12.0})
    assert rendered(orders).splitlines() == [
        "The paper's order in space s, by IS/|AS|: c# 12.00 > a 8.00; not ranked: b* 5.00",
        "  *: weak translator; #: in sample",
    ]


def test_where_fewer_than_two_models_can_be_ranked_there_is_no_order():
    for ratios in ({}, {"s": {"a": 2.0}}, {"s": {"a": None, "b": None}}):
        assert rendered(orders_of(**ratios)) == ""
    assert rendered(orders_of("weak translator", s={"a": 2.0, "b": 1.0})) == ""
