"""D by text and by group against a bootstrap in loops, and by its familywise level and power."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy

from singflow.analyses import hidden
from singflow.analyses.evidence import Residuals
from singflow.analyses.hidden import Question, by_group, by_text, clusters
from singflow.analyses.metrics import centred_texts, unit
from tests.analyses.test_unique_meaning import measured, planted, standard

QUESTION = Question(0.005, 0.95, 0)
DRAWS = 999


def residuals_of(n=80, m=6, seed=0, gain=0.0, toward=None):
    """Errors of equal size without and with b, but for what b tells: `gain` of the variance.

    It lies along `toward` or else along every direction. The variance is m.
    """
    rng = np.random.default_rng(seed)
    plain, full = rng.standard_normal((2, n, m))
    if toward is None:
        full *= np.sqrt(1 - gain)
    else:
        full -= (1 - np.sqrt(1 - gain)) * np.outer(full @ toward, toward)
    return Residuals(plain, full, np.zeros(n, np.int32), np.arange(n), np.eye(m))


def texts_of(count=10):
    return unit(np.random.default_rng(1).standard_normal((count, 6)))


def in_loops(influence, estimate, images, question, draws):
    """Intervals, and p of the step-down and of the single-step procedure.

    influence: (clusters, j). images: clusters of each estimate. draws: (draws, clusters) numbers.
    """
    pairs = zip(influence.T, images, strict=True)
    error = np.array([np.sqrt(sum(column**2) * count / (count - 1)) for column, count in pairs])
    statistic, moved = (estimate - question.margin) / error, draws @ influence / error
    order = sorted(range(len(error)), key=lambda j: -statistic[j])
    p, single, before = np.empty(len(error)), np.empty(len(error)), 0.0
    for place, j in enumerate(order):
        rest = order[place:]
        reached = sum(max(row[rest]) >= statistic[j] for row in moved)
        p[j] = before = max(before, (1 + reached) / (1 + len(draws)))
        single[j] = (1 + sum(max(row) >= statistic[j] for row in moved)) / (1 + len(draws))
    width = [scipy.stats.t.ppf((1 + question.confidence) / 2, c - 1) for c in images] * error
    return estimate - width, estimate + width, p, single


def gains_by_text(residuals, texts):
    """What b tells of every image (n, texts), as a share of the variance of the texts."""
    of_text = np.array([t @ residuals.covariance @ t for t in texts])
    return ((residuals.plain @ texts.T) ** 2 - (residuals.full @ texts.T) ** 2) / of_text


def drawn(seed, count):
    return np.random.default_rng(seed).standard_normal((DRAWS, count))


@pytest.mark.parametrize("copies", [np.arange(80), np.arange(80) // 2, np.arange(80) % 30])
def test_d_by_text_is_that_of_a_bootstrap_in_loops(copies):
    toward, question = texts_of()[0], Question(0.05, 0.9, 0)
    residuals, texts = residuals_of(gain=0.9, toward=toward), texts_of()
    residuals.covariance[:] = np.cov(residuals.plain.T) + 1.0
    found = by_text(replace(residuals, cluster=copies), texts, question)
    gain = gains_by_text(residuals, texts)
    estimate = gain.mean(axis=0)
    numbers = np.unique(copies)
    influence = np.array([(gain[copies == c] - estimate).sum(axis=0) / 80 for c in numbers])
    images = np.full(len(texts), len(numbers))
    draws = drawn([0, 7], len(numbers))
    low, high, p, single = in_loops(influence, estimate, images, question, draws)
    np.testing.assert_allclose(found["unique_r2"], estimate)
    np.testing.assert_allclose(found["unique_r2_low"], low)
    np.testing.assert_allclose(found["unique_r2_high"], high)
    np.testing.assert_allclose(found["p"], p)
    assert (found["p"] <= single + 1e-12).all() and (found["p"] < single).any()
    of_one = by_text(replace(residuals_of(gain=0.5), cluster=np.zeros(80, int)), texts, question)
    assert (of_one["p"] == 1).all() and (of_one["unique_r2"] > 0.1).all()
    assert of_one[["unique_r2_low", "unique_r2_high"]].isna().all(axis=None)


@pytest.mark.parametrize("copies", [np.arange(90), np.arange(90) // 2])
def test_d_by_group_is_that_of_a_bootstrap_in_loops(copies):
    residuals, question = residuals_of(n=90, gain=0.3), Question(0.05, 0.9, 0)
    groups = np.random.default_rng(2).permutation(np.repeat([-1, 0, 1, 2, 3], [9, 40, 25, 12, 4]))
    found = by_group(replace(residuals, cluster=copies), groups, question)
    gain = ((residuals.plain**2).sum(axis=1) - (residuals.full**2).sum(axis=1)) / 6
    estimate = np.array([gain[groups == g].mean() for g in range(4)])
    sizes = [len(set(copies[groups == g])) for g in range(4)]
    large, numbers = [g for g in range(4) if sizes[g] >= 10], np.unique(copies)
    assert 2 <= len(large) <= 3
    influence = np.zeros((len(numbers), len(large)))
    for at, group in enumerate(large):
        for row, number in enumerate(numbers):
            mine = (copies == number) & (groups == group)
            influence[row, at] = (gain[mine] - estimate[group]).sum() / (groups == group).sum()
    arguments = influence, estimate[large], np.array(sizes)[large], question
    low, high, p, single = in_loops(*arguments, drawn([0, 7], len(numbers)))
    np.testing.assert_allclose(found["unique_r2"], estimate)
    assert found["n"].tolist() == [40, 25, 12, 4]
    np.testing.assert_allclose(found["unique_r2_low"][large], low)
    np.testing.assert_allclose(found["unique_r2_high"][large], high)
    np.testing.assert_allclose(found["p"][large], p)
    assert (found["p"][large] <= single + 1e-12).all()


def test_groups_of_few_images_have_a_size_and_no_interval():
    residuals, groups = residuals_of(n=60), np.repeat([0, 1, 2], [41, 9, 10])
    found = by_group(residuals, groups, QUESTION)
    ends = ["unique_r2_low", "unique_r2_high", "p"]
    assert found["unique_r2"].notna().all() and found["n"].tolist() == [41, 9, 10]
    assert found[ends].isna().any(axis=1).tolist() == [False, True, False]
    # copies count once
    copied = by_group(
        replace(residuals, cluster=np.where(np.arange(60) == 59, 58, np.arange(60))),
        groups,
        QUESTION,
    )
    assert copied["p"].isna().tolist() == [False, True, True]
    without = by_group(residuals, np.where(groups == 1, -1, groups), QUESTION)
    pd.testing.assert_frame_equal(without.loc[[0, 2]], found.loc[[0, 2]])
    few = by_group(residuals, np.arange(60) // 9, QUESTION)
    assert few[ends].isna().all(axis=None) and len(few) == 7
    assert by_group(residuals, np.full(60, -1), QUESTION).empty


def test_without_effect_the_familywise_level_of_texts_and_groups_holds():
    question, groups, wrong = Question(0.0, 0.95, 0), np.arange(100) % 5, np.zeros(2)
    for seed in range(200):
        residuals = residuals_of(n=100, seed=seed)
        wrong[0] += by_text(residuals, texts_of(), question)["p"].min() <= 0.05
        wrong[1] += by_group(residuals, groups, question)["p"].min() <= 0.05
    most = scipy.stats.binom.ppf(0.999, 200, 0.05)  # but for chance (1 in 1,000)
    assert (wrong <= most).all() and (wrong > 0).all()


def test_a_planted_text_and_a_planted_group_are_found_and_others_are_not():
    texts, block = np.eye(8)[:4], planted(n=300)
    null = block.null - block.null.mean(axis=0)
    told = standard(null @ np.random.default_rng(3).standard_normal((10, 1)))
    leaking = block.embeddings + 0.5 * told * texts[1]
    residuals = measured(replace(block, embeddings=leaking)).residuals
    found = by_text(residuals, texts, QUESTION)
    assert (found["p"] <= 0.05).tolist() == [False, True, False, False]
    assert found["unique_r2"][1] > 0.3 and (found["unique_r2"].drop(1) < 0.05).all()
    residuals, groups = residuals_of(n=200), np.arange(200) % 4
    residuals.full[groups == 2] *= 0.5
    found = by_group(residuals, groups, QUESTION)
    assert (found["p"] <= 0.05).tolist() == [False, False, True, False]
    assert found["unique_r2"][2] == pytest.approx(0.75, abs=0.15)


def test_more_images_than_the_bootstrap_draws_are_drawn_in_groups(monkeypatch):
    residuals, groups = residuals_of(n=600, gain=0.3), np.arange(600) % 3
    wanted = by_text(residuals, texts_of(), QUESTION)
    of_groups = by_group(residuals, groups, QUESTION)
    monkeypatch.setattr(hidden, "CLUSTERS", 100)
    copies = np.arange(600) // 2
    placed = clusters(copies, 0)
    assert set(placed) == set(range(100)) and np.ptp(np.bincount(placed)) == 0
    np.testing.assert_array_equal(placed[::2], placed[1::2])
    assert len(set(clusters(np.array([7, 3, 7, 9]), 0))) == 3
    found = by_text(residuals, texts_of(), QUESTION)
    of_some = by_group(residuals, groups, QUESTION)
    for some, every in ((found, wanted), (of_some, of_groups)):
        np.testing.assert_allclose(some["unique_r2"], every["unique_r2"])
        widths = [table["unique_r2_high"] - table["unique_r2_low"] for table in (some, every)]
        np.testing.assert_allclose(widths[0], widths[1], rtol=0.3)
        np.testing.assert_allclose(some["p"], every["p"], atol=0.1)


def test_texts_are_told_apart_by_what_they_do_not_share():
    texts = texts_of(5)
    found = centred_texts(texts)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0)
    about = texts - texts.mean(axis=0)
    cosines = np.einsum("tm,tm->t", found, about) / np.linalg.norm(about, axis=1)
    np.testing.assert_allclose(cosines, 1.0)
    np.testing.assert_allclose(centred_texts(texts[:1]), texts[:1])


def test_a_text_along_which_embeddings_do_not_vary_has_no_d():
    residuals = residuals_of(gain=0.2)
    residuals.covariance[0] = residuals.covariance[:, 0] = 0.0
    residuals.plain[:, 0] = residuals.full[:, 0] = 0.0
    found = by_text(residuals, np.eye(6)[:2], QUESTION)
    assert found["unique_r2"][0] == 0.0 and found["p"][0] == 1.0 and found["p"][1] < 1.0
