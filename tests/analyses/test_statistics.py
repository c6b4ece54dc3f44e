import numpy as np
import pandas as pd
import pytest
import scipy.stats

from singflow.analyses.statistics import (
    at_chance,
    bootstrap_interval,
    bootstrap_means,
    holm,
    resampled_means,
    top1_shortfall,
    wilson,
)
from tests.refusals import refused


def test_the_interval_of_a_ratio_is_scipys_percentile_bootstrap_wider_by_students_t():
    below = np.random.default_rng(0).gamma(2.0, size=20)
    columns = np.column_stack([3 * below + np.random.default_rng(1).normal(0, 1, 20), below])
    means, units = resampled_means(columns, None, 20_000, seed=0)
    over, under = columns.mean(axis=0)
    found = bootstrap_interval(over / under, means[:, 0] / means[:, 1], units, 0.9)
    theirs = scipy.stats.bootstrap(
        columns.T, lambda x, y: x.mean(-1) / y.mean(-1), n_resamples=20_000, paired=True,
        method="percentile", confidence_level=0.9, rng=np.random.default_rng(1),
    ).confidence_interval  # fmt: skip
    wider = np.sqrt(20 / 19) * scipy.stats.t.ppf(0.95, 19) / scipy.stats.norm.ppf(0.95)
    expected = over / under + wider * (np.array(theirs) - over / under)
    assert found == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("classes", [None, pd.Series(np.arange(120) % 12)])
def test_intervals_cover_a_mean_over_images_or_over_classes_in_93_to_97_percent(classes):
    hits = 0
    for trial in range(1000):
        generator = np.random.default_rng([8, trial])
        of_class = 0 if classes is None else generator.normal(0, 1, 12)[classes]
        values = 1 + of_class + generator.gamma(4.0, 0.5, 120) - 2
        means, units = resampled_means(values[:, None], classes, 300, seed=trial)
        low, high = bootstrap_interval(values.mean(), means[:, 0], units, 0.95)
        hits += low <= 1 <= high
    assert 0.93 <= hits / 1000 <= 0.97


def test_a_class_drawn_whole_is_one_draw_however_many_images_it_has():
    columns = np.random.default_rng(3).standard_normal((20, 2))
    labels = pd.Series([f"label {n}" for n in range(20)])
    once, _ = resampled_means(columns, labels, 50, seed=0)
    thrice, units = resampled_means(np.tile(columns, (3, 1)), pd.concat([labels] * 3), 50, seed=0)
    np.testing.assert_allclose(thrice, once)
    assert units == 20


def test_the_seed_decides_and_models_with_the_same_images_stay_paired():
    values = np.random.default_rng(0).standard_normal((30, 3))
    means = bootstrap_means(values, 200, seed=1)
    assert not np.array_equal(means, bootstrap_means(values, 200, seed=2))
    for column in range(3):
        alone = bootstrap_means(values[:, [column]], 200, seed=1)
        np.testing.assert_array_equal(alone[:, 0], means[:, column])


def test_one_image_has_no_width_and_an_undefined_resample_no_interval():
    assert bootstrap_interval(2.5, bootstrap_means([[2.5]], 100, 0)[:, 0], 1, 0.95) == (2.5, 2.5)
    assert np.isnan(bootstrap_interval(1.0, np.array([1.0, np.nan, 2.0]), 3, 0.95)).all()


def test_too_few_labels_to_draw_are_refused():
    said = r"summary.resample: classes .* 9 are too few .* write images"
    refused(said, resampled_means, np.ones((45, 1)), pd.Series(list("abcdefghi") * 5), 100, 0)


@pytest.mark.parametrize("successes", [0, 3, 12])
def test_wilsons_interval_is_scipys(successes):
    theirs = scipy.stats.binomtest(successes, 12).proportion_ci(0.9, "wilson")
    assert wilson(successes, 12, 0.9) == pytest.approx(tuple(theirs), abs=1e-12)


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
