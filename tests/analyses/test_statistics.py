import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from singflow.analyses.statistics import (
    Sample,
    at_chance,
    bootstrap_means,
    holm,
    interval,
    strata_of,
    top1_shortfall,
    wilson,
)
from tests.refusals import refused


def test_the_interval_of_a_mean_over_one_stratum_is_scipys_percentile_bootstrap():
    values = np.random.default_rng(0).gamma(2.0, size=200)
    means = bootstrap_means(values[:, None], np.zeros(200, dtype=int), 20000, seed=0)[:, 0]
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=20000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert interval(means, 0.95) == pytest.approx(tuple(theirs), abs=0.01)


@pytest.mark.parametrize("size", [2, 3, 10])
def test_the_spread_is_that_of_a_stratified_mean_however_small_the_strata(size):
    generator = np.random.default_rng(size)
    strata = np.repeat(np.arange(60), size)
    values = 10 * strata + generator.standard_normal(len(strata))
    samples = bootstrap_means(values[:, None], strata, 8000, seed=0)[:, 0]
    variances = pd.Series(values).groupby(strata).var(ddof=1)
    assert samples.mean() == pytest.approx(values.mean(), abs=0.01)
    assert samples.std() == pytest.approx(np.sqrt((variances / size).sum()) / 60, rel=0.04)


def test_intervals_of_a_ratio_cover_it_in_93_to_97_percent_of_1000_trials():
    strata, hits = np.repeat(np.arange(15), 10), 0
    for trial in range(1000):
        generator = np.random.default_rng([7, trial])
        below = generator.gamma(4.0, 1.0, 150)
        columns = np.column_stack([8 * below + generator.normal(0, 6, 150), below])
        means = bootstrap_means(columns, strata, 400, seed=trial)
        low, high = interval(means[:, 0] / means[:, 1], 0.95)
        hits += low <= 8.0 <= high
    assert 0.93 <= hits / 1000 <= 0.97


def test_the_seed_decides_and_blocks_do_not(monkeypatch):
    values, strata = np.random.default_rng(0).standard_normal((30, 2)), np.repeat([0, 1, 2], 10)
    whole = bootstrap_means(values, strata, 200, seed=1)
    assert not np.array_equal(whole, bootstrap_means(values, strata, 200, seed=2))
    monkeypatch.setattr("singflow.analyses.statistics.CELLS", 100)
    np.testing.assert_allclose(bootstrap_means(values, strata, 200, seed=1), whole, rtol=1e-12)


def test_strata_that_are_resampled_apart_have_the_spread_of_strata_resampled_together(monkeypatch):
    generator = np.random.default_rng(0)
    strata = generator.integers(0, 40, 900)
    values = generator.normal(strata[:, None], 1 + strata[:, None] / 10, (900, 2))
    sizes = np.bincount(strata)
    spread = [size * values[strata == s].var(axis=0, ddof=1) for s, size in enumerate(sizes)]
    variance = np.sum(spread, axis=0) / 900**2
    together = bootstrap_means(values, strata, 4000, seed=0)
    monkeypatch.setattr("singflow.analyses.statistics.STRATA", 100)
    for means in (together, bootstrap_means(values, strata, 4000, seed=0)):
        error = np.sqrt(variance.max() / 4000)
        np.testing.assert_allclose(means.mean(axis=0), values.mean(axis=0), atol=5 * error)
        np.testing.assert_allclose(means.var(axis=0), variance, rtol=0.1)


def test_one_image_constants_and_a_constant_ratio_of_columns_have_no_width():
    assert (bootstrap_means(np.array([[2.5]]), np.array([0]), 100, seed=0) == 2.5).all()
    means = bootstrap_means(np.full((9, 1), 2.5), np.repeat([0, 1], [4, 5]), 100, seed=0)
    np.testing.assert_allclose(means, 2.5)
    top = np.random.default_rng(0).gamma(2.0, size=60)
    means = bootstrap_means(np.column_stack([3 * top, top]), np.repeat([0, 1, 2], 20), 500, seed=0)
    np.testing.assert_allclose(means[:, 0] / means[:, 1], 3.0)


def test_labels_with_one_image_share_a_stratum_and_a_lone_one_joins_the_smallest_label():
    assert list(strata_of(pd.Series(["a", "a", "b", "c", "a"]))) == [0, 0, 1, 1, 0]
    codes = strata_of(pd.Series(["a"] * 5 + ["b"] * 3 + ["c"]))
    assert len(set(codes[:5])) == 1 and len(set(codes[5:])) == 1 and codes[0] != codes[5]
    assert list(strata_of(pd.Series(["only"]))) == [0]


@given(st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=40))
def test_no_stratum_has_one_image_and_no_label_is_split(labels):
    codes = pd.Series(strata_of(pd.Series(labels)))
    assert codes.value_counts().min() >= 2
    assert codes.groupby(labels).nunique().max() == 1


@pytest.mark.parametrize("whole", [False, True])
def test_resampled_means_have_the_standard_error_of_strata_or_of_classes_drawn_whole(whole):
    generator = np.random.default_rng(2)
    codes = np.sort(generator.integers(0, 30, 300))
    values = generator.standard_normal(30)[codes] + generator.standard_normal(300)
    sample, sizes = Sample(codes, whole), np.bincount(codes)
    if whole:
        residuals = np.bincount(codes, values - values.mean())
        expected = np.sqrt(30 * residuals.var(ddof=1)) / 300
    else:
        spread = [n * values[codes == code].var(ddof=1) for code, n in enumerate(sizes)]
        expected = np.sqrt(sum(spread)) / 300
    assert sample.means(values[:, None], 4000, seed=0).std() == pytest.approx(expected, rel=0.05)
    assert sample.freedom == (29 if whole else 270)


def test_a_class_drawn_whole_is_one_draw_however_many_images_it_has():
    values = np.random.default_rng(3).standard_normal(20)
    labels = pd.Series([f"label {n}" for n in range(20)])
    once, thrice = (Sample.of(pd.concat([labels] * times), "classes") for times in (1, 3))
    assert thrice.freedom == once.freedom == 19
    columns = np.column_stack([values, values**2, np.ones(20)])
    means = thrice.means(np.tile(columns, (3, 1)), 50, seed=0)
    np.testing.assert_allclose(means, once.means(columns, 50, seed=0))
    np.testing.assert_allclose(means[:, 0], once.means(values[:, None], 50, seed=0)[:, 0])
    np.testing.assert_allclose(means[:, 2], 1)


def test_a_sample_is_of_strata_or_of_labels_but_not_of_too_few_labels():
    said = r"summary.resample: classes .* 9 are too few .* write images"
    refused(said, Sample.of, pd.Series(list("abcdefghi") * 5), "classes")
    labels = pd.Series(list("abcdefghij") * 5 + ["k"])
    of_images = Sample.of(labels, "images")
    assert Sample.of(labels[:-1], "classes").freedom == 9 and not of_images.whole
    assert of_images.codes.tolist() == strata_of(labels).tolist()


def test_intervals_are_wider_by_students_t():
    samples = np.linspace(-1, 3, 101)
    low, high = Sample(np.arange(8), whole=True).interval(0.5, samples, 0.95)
    wider = scipy.stats.t.ppf(0.975, 7) / scipy.stats.norm.ppf(0.975)
    assert (low, high) == pytest.approx((0.5 - wider * 1.4, 0.5 + wider * 2.4))
    both = interval(np.arange(101)[:, None] * [1.0, 10.0], 0.9)  # of every column
    np.testing.assert_allclose(both, [[5, 50], [95, 950]])
    one_image = Sample(np.zeros(1, int)).interval(1.0, np.array([0.0, 2.0]), 0.5)
    wider = scipy.stats.t.ppf(0.75, 1) / scipy.stats.norm.ppf(0.75)
    assert one_image == pytest.approx((1 - wider / 2, 1 + wider / 2))


@pytest.mark.parametrize("successes", [0, 3, 12])
def test_wilsons_interval_is_scipys(successes):
    theirs = scipy.stats.binomtest(successes, 12).proportion_ci(0.9, "wilson")
    assert wilson(successes, 12, 0.9) == pytest.approx(tuple(theirs), abs=1e-12)


def test_intervals_over_classes_cover_the_mean_of_all_classes_in_93_to_97_percent_of_1500_trials():
    labels, hits = 10, 0
    for trial in range(1500):
        generator = np.random.default_rng([8, trial])
        codes = np.arange(5 * labels) % labels
        values = generator.gamma(9.0, 1 / 9, labels)[codes, None]
        values = values + generator.normal(0, 0.5, (len(codes), 1))
        sample = Sample(codes, whole=True)
        means = sample.means(values, 500, seed=trial)
        low, high = sample.interval(values.mean(axis=0), means, 0.95)
        hits += low[0] <= 1.0 <= high[0]
    assert 0.93 <= hits / 1500 <= 0.97


def test_holms_correction_by_hand():
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm(np.array([0.6, np.nan, 0.7])), [1.0, np.nan, 1.0])
    assert len(holm(np.array([]))) == 0


def test_a_top1_is_that_of_a_guess_if_it_is_at_chance_and_far_from_a_working_classifier():
    for right, images, classes in ((0, 7, 1000), (1, 10_000, 1000), (50, 100, 2), (0, 20, 2)):
        assert at_chance(right, images, classes), right
    many, few = [(0, 6, 1000), (30, 10_000, 1000)], [(10, 20, 2), (90, 100, 2), (20, 20, 1)]
    for right, images, classes in (*many, *few):
        assert not at_chance(right, images, classes), right


def test_the_shortfall_of_top1_is_what_lies_beyond_margin_and_two_standard_errors():
    assert top1_shortfall(0.5, 100, 80.0, 10.0) == pytest.approx(80 - 50 - 10 - 2 * 4)
    assert top1_shortfall(0.5, 10_000, 80.0, 10.0) == pytest.approx(80 - 50 - 10 - 2 * 0.4)
    assert top1_shortfall(0.95, 100, 80.0, 0.0) < 0 and top1_shortfall(0.0, 1, 50.0, 10.0) < 0
