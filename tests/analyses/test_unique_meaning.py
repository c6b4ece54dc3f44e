"""D, own words, planted leaks and the verdict, on planted data and recomputed independently."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import scipy
from sklearn.kernel_ridge import KernelRidge

from singflow.analyses.evidence import (
    SHARES,
    Evidence,
    FoldVariance,
    Planted,
    Words,
    detectable,
    jackknife,
    measure,
    own_words,
    remainders,
    turn_deg,
    unique_r2,
    without_folds,
)
from singflow.analyses.readout import Block, Features, Kernels, Scale, Sums
from tests.analyses.test_readout import parts

LAMBDAS = [0.01, 0.1, 1.0, 10.0, 100.0]
OPTIONS = Evidence(draws=10), LAMBDAS, 0.95, 0


def texts_of(classes=12, m=8, seed=0):
    texts = np.random.default_rng(seed).standard_normal((classes, m))
    return texts / np.linalg.norm(texts, axis=1, keepdims=True)


def planted(leak=0.0, noise=0.2, n=240, r=12, k=10, seed=0, texts=None):
    """Embeddings of own words, noise that differs by image, and `leak` times a random map of b.

    b depends on a, as after a ReLU.
    """
    texts, rng = texts_of() if texts is None else texts, np.random.default_rng(seed)
    a = rng.standard_normal((n, r))
    b = np.maximum(a @ rng.standard_normal((r, k)) / np.sqrt(r), 0)
    b += 0.7 * rng.standard_normal((n, k))
    logits = 3.0 * a @ rng.standard_normal((r, len(texts))) / np.sqrt(r)
    z = own_words(logits, texts)[1] + 0.3
    z += noise * rng.uniform(0.5, 1.5, (n, 1)) * rng.standard_normal(z.shape)
    z += leak * b @ rng.standard_normal((k, texts.shape[1])) / np.sqrt(k)
    return Block(a, b, logits, z, np.arange(n) % 5)


def facts_of(block, texts=None, others=None):
    return measure(parts(block), texts_of() if texts is None else texts, others, *OPTIONS).facts


@pytest.mark.parametrize("classes", [3, 10, 1000])
def test_own_words_are_unit_means_of_texts_weighted_by_softmax(classes):
    texts, logits = texts_of(classes), np.random.default_rng(1).standard_normal((4, classes))
    spoken = own_words(logits, texts)
    np.testing.assert_allclose(np.linalg.norm(spoken, axis=2), 1.0)
    for place, (temperature, top) in enumerate(((0.5, 10), (1.0, 10), (2.0, 10), (4.0, classes))):
        weights = scipy.special.softmax(logits / temperature, axis=1)
        weights[weights < np.sort(weights)[:, [max(classes - top, 0)]]] = 0.0
        wanted = weights @ texts
        wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
        np.testing.assert_allclose(spoken[place], wanted, atol=1e-12)
    np.testing.assert_array_equal(spoken[4], texts[logits.argmax(1)])


def test_words_are_fitted_by_least_squares_over_images_and_coordinates():
    block, texts = planted(), texts_of()
    words = Words.fit(parts(block), texts)
    spoken = own_words(block.logits, texts)
    centred = spoken - spoken.mean(axis=1, keepdims=True)
    z = block.embeddings - block.embeddings.mean(0)
    weights = np.linalg.lstsq(centred.reshape(5, -1).T, z.ravel(), rcond=None)[0]
    np.testing.assert_allclose(words.weights, weights, atol=1e-8)
    rest = z - np.einsum("t,tnm->nm", weights, centred)
    np.testing.assert_allclose(words.remainder(block), rest, atol=1e-8)
    assert words.r2 == pytest.approx(1 - (rest**2).sum() / (z**2).sum())
    assert words.variance == pytest.approx((z**2).sum() / len(z))
    assert Words.fit(parts(block), None).r2 == 0.0
    saved = {"class_embeddings": texts, "word_weights": words.weights, "offset": words.offset}
    np.testing.assert_array_equal(
        Words.read(saved).spoken(block.logits), words.spoken(block.logits)
    )
    read = Words.read(saved)
    assert np.isnan([read.r2, read.variance]).all() and read.n == 0 == len(read.mean)
    constant = replace(block, embeddings=np.ones_like(block.embeddings))
    assert Words.fit(parts(constant), texts).r2 == 0.0
    assert facts_of(constant)["unique_r2"] is None
    unnamed = Words.read(saved | {"class_embeddings": texts[:0]})
    assert (unnamed.spoken(block.logits) == words.offset).all()


def test_what_own_words_explain_wholly_leaves_nothing():
    found = facts_of(planted(noise=0.0))
    assert found["r2_words"] == pytest.approx(1.0)
    assert found["unique_r2"] == pytest.approx(0.0, abs=1e-9)
    assert found["blind_unique_r2"] is None


def test_a_null_component_that_tells_nothing_shows_nothing_and_a_leak_is_found_with_its_size():
    nothing = [facts_of(planted(seed=seed)) for seed in range(8)]
    assert all(facts["p"] > 0.05 for facts in nothing)
    assert sum(facts["unique_r2_low"] > 1e-6 for facts in nothing) <= 1
    assert np.mean([facts["unique_r2"] for facts in nothing]) == pytest.approx(0.0, abs=0.002)
    for leak in (0.4, 0.8):
        block = planted(leak=leak, n=600)
        found, variance = facts_of(block), np.var(block.embeddings, axis=0).sum()
        # the share of variance that a cannot tell, if all could be decoded
        truth = leak**2 * 0.49 * 8 / variance
        assert found["p"] < 0.001 and 0.5 * truth < found["unique_r2"] < 1.1 * truth
        assert found["unique_r2_low"] < found["unique_r2"] < found["unique_r2_high"]


def test_d_and_its_jackknife_are_those_of_scikit_learns_kernel_ridge():
    texts, block = texts_of(), planted(leak=0.3, n=120)
    found, words = facts_of(block), Words.fit(parts(block), texts)
    y, z, fold = words.remainder(block), block.embeddings, block.fold
    kernels = Kernels(parts(block), remainders(words))._kernels

    def error(kernel, left_out, judge, penalty):
        train, test = ~np.isin(fold, left_out), fold == judge
        centre = np.eye(train.sum()) - 1 / train.sum()
        inner = centre @ kernel[np.ix_(train, train)] @ centre
        outer = (kernel[np.ix_(test, train)] - kernel[np.ix_(train, train)].mean(0)) @ centre
        ridge = KernelRidge(alpha=penalty * np.trace(inner) / train.sum(), kernel="precomputed")
        ridge.fit(inner, y[train] - y[train].mean(0))
        return ((ridge.predict(outer) + y[train].mean(0) - y[test]) ** 2).sum()

    def spread(left_out, judge):
        return ((z[fold == judge] - z[~np.isin(fold, left_out)].mean(0)) ** 2).sum()

    def chosen(kernel):
        return min(LAMBDAS, key=lambda x: sum(error(kernel, [j], j, x) for j in range(5)))

    best = [chosen(kernel) for kernel in kernels]
    assert list(found["lambdas"].values()) == best

    def gain(left_out, judge):
        plain, full = map(error, kernels, [left_out] * 2, [judge] * 2, best)
        return plain - full

    d = sum(gain([j], j) for j in range(5)) / sum(spread([j], j) for j in range(5))
    without = np.zeros((5, 2))
    for i, j in combinations(range(5), 2):
        for out, judge in ((i, j), (j, i)):
            without[out] += gain([i, j], judge), spread([i, j], judge)
    without = without[:, 0] / without[:, 1]
    assert found["unique_r2"] == pytest.approx(d, abs=1e-6)
    np.testing.assert_allclose(found["unique_r2_without"], without, atol=1e-6)
    error_of_d = np.sqrt(16 / 5 * np.var(without, ddof=1))
    low = d - scipy.stats.t.ppf(0.975, 4) * error_of_d
    assert found["unique_r2_low"] == pytest.approx(low, abs=1e-6)
    assert found["p"] == pytest.approx(scipy.stats.t.sf((d - 0.005) / error_of_d, 4), abs=1e-6)


def test_both_forms_of_the_test_agree():
    block = planted(leak=0.3)
    targets, spread = remainders(Words.fit(parts(block), texts_of())), FoldVariance(parts(block))
    few = Features.draw(parts(block), 0, 1)
    forms = Kernels(parts(block), targets), Sums(parts(block), targets, few)
    kernels, sums = (
        unique_r2(form, targets.variance, spread, LAMBDAS, 0.95)[0][0] for form in forms
    )
    assert kernels.unique_r2 > 0.05
    assert sums.unique_r2 == pytest.approx(kernels.unique_r2, abs=0.001)
    assert sums.error == pytest.approx(kernels.error, rel=0.1)


def test_the_blind_check_is_d_of_own_words_in_other_words():
    texts, others, block = texts_of(), texts_of(seed=1), planted()
    words = replace(Words.fit(parts(block), texts), texts=others)
    spelled = replace(block, embeddings=words.spoken(block.logits))
    blind, alone = facts_of(block, texts, others)["blind_unique_r2"], facts_of(spelled)["unique_r2"]
    assert blind == pytest.approx(alone, rel=0.02)


def test_planted_leaks_have_their_share_and_the_remainders_noise_in_blocks_of_any_size():
    block = planted(n=400)
    words = Words.fit(parts(block), texts_of())
    leaks = Planted.draw(parts(block), words, Scale.of(parts(block)), 6, 0)
    _, draws, width = leaks.directions.shape
    whole = leaks.columns(block, 0)
    pieces = [leaks.columns(part, 33 * at) for at, part in enumerate(parts(block, 33)())]
    np.testing.assert_allclose(np.concatenate(pieces), whole)
    noise, leak, both = np.moveaxis(whole.reshape(400, draws, 3, width), 2, 0)
    np.testing.assert_allclose(noise + leak, both)
    rest = (words.remainder(block) ** 2).sum() / 400
    np.testing.assert_allclose(np.var(noise, axis=0).sum(axis=1), rest, rtol=0.15)
    np.testing.assert_allclose((leak**2).mean(axis=0).sum(axis=1), 1)
    sizes = leaks.sizes**2
    np.testing.assert_allclose(sizes / (words.variance + sizes), SHARES)
    targets = leaks.groups.reshape(draws, 3, width, draws, len(SHARES))
    for draw, share in ((0, 2), (3, 3)):
        errors = (whole**2).sum(axis=0) @ leaks.groups[:, draw * len(SHARES) + share]
        moved = noise[:, draw] + leaks.sizes[share] * leak[:, draw]
        assert errors == pytest.approx((moved**2).sum())
        assert not targets[draw - 1, :, :, draw, share].any()


def test_the_noise_of_a_planted_leak_has_the_effective_dimension_of_the_remainder():
    block = planted(n=400)
    narrow = replace(block, embeddings=block.embeddings * [4, 4, 4, 1, 1, 1, 1, 1])
    words = Words.fit(parts(narrow), texts_of())
    values = np.linalg.eigvalsh(np.cov(words.remainder(narrow).T))
    effective = round(values.sum() ** 2 / (values**2).sum())
    widths = [
        Planted.draw(parts(narrow), words, Scale.of(parts(narrow)), 3, 0, most).directions.shape[2]
        for most in (1, 2, 100)
    ]
    assert widths == [1, 2, effective] and 2 < effective < 8
    rounding = np.random.default_rng(0).standard_normal((400, 1)) * np.eye(8)[0]
    for least in (0.0, 1e-5, -1e-5):  # a remainder of rounding alone has no directions of its own
        silent = replace(block, embeddings=words.spoken(block.logits) + least * rounding)
        leaks = Planted.draw(parts(silent), words, Scale.of(parts(silent)), 3, 0)
        assert leaks.directions.shape[2] == 8 and leaks.noise < 1e-5


def test_planted_leaks_are_listed_by_share_and_draw_and_are_as_large_as_their_share():
    found = measure(parts(planted(n=400)), texts_of(), texts_of(seed=1), *OPTIONS)
    table = found.planted
    assert list(table) == ["share", "draw", "unique_r2", "unique_r2_low", "p"]
    assert table["draw"].tolist() == [*range(10)] * len(SHARES) and table["draw"].dtype == np.int64
    assert table["share"].tolist() == np.repeat(SHARES, 10).tolist()
    assert table.index.tolist() == [*range(len(table))] and table.notna().all(axis=None)
    assert (table["unique_r2_low"] < table["unique_r2"]).all() and table["p"].between(0, 1).all()
    sizes = table.groupby("share")["unique_r2"].mean()
    assert sizes.is_monotonic_increasing and abs(sizes[0.0]) < 0.002
    assert 0.04 < sizes[0.1] < 0.1  # the rest of the leak is told by a, or not decoded
    assert found.facts["n"] == 400 and found.facts["detectable"] == detectable(table)


def test_only_the_targets_that_are_asked_for_get_an_interval():
    block = planted(n=120)
    words = Words.fit(parts(block), texts_of())
    targets = Planted.draw(parts(block), words, Scale.of(parts(block)), 1, 0).targets
    readouts, spread = Kernels(parts(block), targets), FoldVariance(parts(block))
    asked = np.arange(len(SHARES)) != 1
    assert targets.variance[3] == pytest.approx(1 / 0.9)  # of the planted embeddings
    arguments = readouts, targets.variance, spread, LAMBDAS, 0.95
    every, some = unique_r2(*arguments)[0], unique_r2(*arguments, asked)[0]
    assert some[1].low is None and some[1].without == []
    assert some[1].unique_r2 == pytest.approx(every[1].unique_r2)
    for place in np.flatnonzero(asked):
        assert some[place].low == pytest.approx(every[place].low)


@pytest.mark.parametrize(("n", "form"), [(300, Kernels), (420, Sums)])
def test_few_images_are_read_out_by_kernels_and_many_by_sums(n, form, monkeypatch):
    monkeypatch.setattr("singflow.analyses.readout.FEATURES", 400)
    block = planted(n=n, r=4, k=3, texts=texts_of(m=3))
    found = measure(parts(block, 100), texts_of(m=3), None, Evidence(draws=2), [0.1, 1.0], 0.95, 0)
    assert isinstance(found.readouts, form) and found.facts["p"] > 0.01


def test_the_smallest_leak_is_that_from_which_on_nine_of_ten_are_found():
    table = pd.DataFrame({"share": np.repeat([0.0, 0.01, 0.03, 0.1], 10), "unique_r2_low": 0.01})
    table.loc[10, "unique_r2_low"] = 5e-4  # 9 of 10 at 1 %
    assert detectable(table) == 0.01
    table.loc[11, "unique_r2_low"] = -0.1  # 8 of 10
    assert detectable(table) == 0.03
    table.loc[30:31, "unique_r2_low"] = 0.0  # and at 10 %: what is found below does not count
    assert detectable(table) is None


def test_no_number_is_made_of_too_few_images_or_without_a_null_space():
    for n in (2, 3):
        found = facts_of(planted(n=n))
        assert found["unique_r2_low"] is found["detectable"] is None
        assert (found["unique_r2"] is None) == (n == 2)  # two images must remain to fit on
    few = planted(n=6)
    found = facts_of(replace(few, fold=np.arange(6) % 3))
    assert found["unique_r2_low"] < found["unique_r2"]
    block = planted()
    for none in (planted(n=2), replace(block, null=block.null[:, :0])):
        found = measure(parts(none), texts_of(), None, *OPTIONS)
        assert found.facts["unique_r2"] is found.facts["lambdas"] is None
        assert not len(found.planted) and found.readouts is None
        assert isinstance(found.spread, FoldVariance)
    unnamed = measure(parts(block), None, None, *OPTIONS).facts
    assert unnamed["r2_words"] is None and unnamed["unique_r2"] is not None


def test_the_jackknife_covers_a_mean_and_a_difference_keeps_its_level():
    rng, inside = np.random.default_rng(0), 0
    for _ in range(400):
        values = rng.standard_normal((5, 40)) + 1.0
        without = [np.delete(values, fold, axis=0).mean() for fold in range(5)]
        found = jackknife(values.mean(), without, 0.95)
        inside += found.low < 1.0 < found.high
    assert 0.92 < inside / 400 < 0.98
    alone = jackknife(1.0, [1.0, 1.0], 0.95)
    assert alone.low is None and alone.without == [] and alone.p(0.005) == 1.0
    assert jackknife(0.005, [0.005] * 3, 0.95).p(0.005) == 1.0
    assert jackknife(0.0, [0.0, 0.0, 0.0], 0.95).p(0.005) == 1.0
    assert jackknife(0.1, [0.1, 0.1, 0.1], 0.95).p(0.005) < 1e-9


def test_the_turn_is_the_angle_of_that_share_of_the_variance():
    words = Words(None, np.zeros(5), np.zeros(2), 0.0, 0.7, np.array([0.3**0.5, 0.0]), 100)
    turn = np.degrees(np.arctan(np.sqrt(0.05 * 0.7 / (0.3 + 0.31 * 0.7))))
    assert turn_deg(0.05, words, 0.31) == pytest.approx(turn)
    assert turn_deg(-0.01, words, 0.31) == 0.0
    assert turn_deg(None, words, 0.31) is None


def test_spread_is_the_squared_distance_from_the_mean_of_the_folds_that_fit():
    block = planted()
    z, fold = block.embeddings, block.fold
    wanted = [
        ((z[fold == judged] - z[~np.isin(fold, (1, 3))].mean(0)) ** 2).sum() for judged in (1, 3)
    ]
    spread = FoldVariance(parts(block))
    np.testing.assert_allclose(spread.of((1, 3)), wanted)
    pairs = {fold: [pair for pair in combinations(range(5), 2) if fold in pair] for fold in (0, 4)}
    found = without_folds([*range(5)], spread, lambda out: [np.ones((2, 2))], np.array([1.0, 4.0]))
    for fold, left_out in pairs.items():
        others = sum(spread.of(pair)[1 - pair.index(fold)] for pair in left_out)
        np.testing.assert_allclose(found[fold], [4 / others, 1 / others])
