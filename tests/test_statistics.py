import numpy as np
import pytest
import scipy.stats

from singflow.statistics import bootstrap_interval, top1_shortfall


def test_the_interval_of_a_mean_is_scipys_percentile_bootstrap():
    values = np.random.default_rng(0).gamma(2.0, size=80)
    ours = bootstrap_interval(values[:, None], 20000, 0.95, seed=0)
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=20000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert ours == pytest.approx(tuple(theirs), abs=0.01)


def test_the_interval_of_a_ratio_resamples_both_columns_together():
    top = np.random.default_rng(0).gamma(2.0, size=60)
    low, high = bootstrap_interval(np.column_stack([3 * top, top]), 500, 0.95, seed=0)
    assert low == pytest.approx(3.0) and high == pytest.approx(3.0)


def test_intervals_of_a_known_mean_cover_it_as_often_as_they_say():
    generator = np.random.default_rng(0)
    hits = 0
    for trial in range(400):
        low, high = bootstrap_interval(generator.normal(1.0, 1.0, (60, 1)), 300, 0.9, seed=trial)
        hits += low <= 1.0 <= high
    assert 0.85 <= hits / 400 <= 0.95


def test_the_seed_decides_and_a_constant_has_no_width():
    values = np.random.default_rng(0).standard_normal((30, 1))
    assert bootstrap_interval(values, 200, 0.95, seed=1) == bootstrap_interval(values, 200, 0.95, seed=1)
    assert bootstrap_interval(values, 200, 0.95, seed=1) != bootstrap_interval(values, 200, 0.95, seed=2)
    assert bootstrap_interval(np.full((9, 1), 2.5), 200, 0.95, seed=0) == (2.5, 2.5)


def test_the_shortfall_of_top1_is_what_lies_beyond_margin_and_two_standard_errors():
    assert top1_shortfall(0.5, 100, 80.0, 10.0) == pytest.approx(80 - 50 - 10 - 2 * 4)
    assert top1_shortfall(0.5, 10_000, 80.0, 10.0) == pytest.approx(80 - 50 - 10 - 2 * 0.4)
    assert top1_shortfall(0.95, 100, 80.0, 0.0) < 0 and top1_shortfall(0.0, 1, 50.0, 10.0) < 0
