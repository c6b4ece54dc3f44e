from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from singflow.analyses import ranking
from singflow.analyses.statistics import holm


def report(gains, sizes=None):
    """The part of evidence/<space>/<model>.json about D, from the gain of every fold."""
    gains = np.asarray(gains, dtype=float)
    sizes = np.ones(len(gains)) if sizes is None else np.asarray(sizes, dtype=float)
    without = (gains.sum() - gains) / (sizes.sum() - sizes)
    d = gains.sum() / sizes.sum()
    without = {"unique_r2_without": without.tolist(), "left_out": None}
    return {"unique_r2": d, "unique_r2_low": 0.0, **without}


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


def orders_of(**ratios):
    """tables/orders.csv of ratios by space and model."""
    rows = [(space, model, mine[model]) for space, mine in ratios.items() for model in mine]
    table = pd.DataFrame(rows, columns=["space", "model", "is_per_as"]).assign(n_images=507)
    low, high = table["is_per_as"] - 1.0, table["is_per_as"] + 1.0
    return ranking.order_rows(table.assign(is_per_as_low=low, is_per_as_high=high))


def test_the_highest_ratio_is_first_in_its_space_ties_share_a_place_and_a_model_without_one_has_none():  # noqa: E501
    ratios = {"a": 8.0, "b": 5.0, "c": 12.0, "d": 8.0, "e": None}
    orders = orders_of(s=ratios, t={"b": 9.0, "a": 2.0})
    assert list(orders) == ["space", "place", "model", "value", "low", "high", "n"]
    assert orders["place"].tolist() == [2, 4, 1, 2, pd.NA, 1, 2]
    assert orders["model"].tolist() == list("abcdeba")
    assert orders.iloc[2].tolist() == ["s", 1, "c", 12.0, 11.0, 13.0, 507]
    assert orders_of().empty
