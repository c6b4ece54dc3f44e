"""D, own words, planted leaks and the verdict, on planted data and recomputed independently."""

from collections import namedtuple
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import scipy
from himalaya.kernel_ridge import MultipleKernelRidgeCV
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import PredefinedSplit

from singflow.analyses import evidence
from singflow.analyses.bands import BANDS, PENALTIES, Bands
from singflow.analyses.evidence import Distances, FittedOwnWords, unique_r2
from singflow.analyses.leaks import (
    EVEN,
    FIRST,
    SHARES,
    detectable,
    directions,
    gain,
    plant,
    white_noise,
)
from singflow.analyses.metrics import unit
from singflow.analyses.readout import OWN, Fit, Targets
from tests.analyses.test_bands import plain_kernels, refit
from tests.analyses.test_readout import ALIKE, WEIGHTS, block_of, embeddings, exact, in_folds, parts

SETTINGS = evidence.EvidenceSettings(draws=2)


def texts_of(classes=12, m=8, seed=0):
    return unit(np.random.default_rng(seed).standard_normal((classes, m)))


def planted(leak=0.0, noise=0.2, n=240, r=12, k=10, seed=0, texts=None):
    """Embeddings of own words, noise that differs by image, and `leak` times a random map of b.

    b depends on a, as after a ReLU.
    """
    texts, rng = texts_of() if texts is None else texts, np.random.default_rng(seed)
    a = rng.standard_normal((n, r))
    b = np.maximum(a @ rng.standard_normal((r, k)) / np.sqrt(r), 0)
    b += 0.7 * rng.standard_normal((n, k))
    logits = 3.0 * a @ rng.standard_normal((r, len(texts))) / np.sqrt(r)
    z = evidence.spell(logits, texts)[1] + 0.3
    z += noise * rng.uniform(0.5, 1.5, (n, 1)) * rng.standard_normal(z.shape)
    z += leak * b @ rng.standard_normal((k, texts.shape[1])) / np.sqrt(k)
    return block_of(a, b, logits, z)


Found = namedtuple("Found", "facts planted own_words residuals")


def measured(block, texts=None, others=None, size=100, draws=2, threads=1):
    texts = texts_of() if texts is None else texts
    settings, blocks = evidence.EvidenceSettings(draws=draws), parts(block, size)
    found = evidence.unique_meaning(blocks, texts, others, settings, 0.95, 0, threads=threads)
    return Found(*found)


def facts_of(block, texts=None, others=None):
    return measured(block, texts, others).facts


def with_landmarks(monkeypatch, most):
    monkeypatch.setattr(evidence.Landmarks, "draw", partial(evidence.Landmarks.draw, most=most))


@pytest.mark.parametrize("classes", [3, 10, 1000])
def test_own_words_are_unit_means_of_texts_weighted_by_softmax(classes):
    texts, logits = texts_of(classes), np.random.default_rng(1).standard_normal((4, classes))
    spoken = evidence.spell(logits, texts)
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
    own_words = FittedOwnWords.fit(parts(block), texts)
    spoken = evidence.spell(block.logits, texts)
    centred = spoken - spoken.mean(axis=1, keepdims=True)
    z = block.embeddings - block.embeddings.mean(0)
    weights = np.linalg.lstsq(centred.reshape(5, -1).T, z.ravel(), rcond=None)[0]
    np.testing.assert_allclose(own_words.weights, weights, atol=1e-8)
    rest = z - np.einsum("t,tnm->nm", weights, centred)
    np.testing.assert_allclose(own_words.remainder(block), rest, atol=1e-8)
    assert own_words.r2 == pytest.approx(1 - (rest**2).sum() / (z**2).sum())
    assert own_words.variance == pytest.approx((z**2).sum() / len(z))
    assert FittedOwnWords.fit(parts(block), None).r2 == 0.0
    saved = {"word_weights": own_words.weights, "offset": own_words.offset}
    both = (saved | {"class_embeddings": rows} for rows in (texts, texts[:0]))
    read, unnamed = map(evidence.OwnWords.read, both)
    assert (read.spoken(block.logits) == own_words.spoken(block.logits)).all()
    assert (unnamed.spoken(block.logits) == own_words.offset).all()
    constant = replace(block, embeddings=np.ones_like(block.embeddings))
    assert FittedOwnWords.fit(parts(constant), texts).r2 == 0.0
    assert facts_of(constant)["unique_r2"] is None


def test_what_own_words_explain_wholly_leaves_nothing():
    for least in (0.0, 1e-9):  # rounding, and a little more
        block = planted(noise=least)
        found = facts_of(block)
        assert found["r2_words"] == pytest.approx(1.0)
        assert found["unique_r2"] == 0.0 and found["p"] == 1.0
        ends = [found["unique_r2_low"], found["unique_r2_high"]]
        assert ends == pytest.approx([0.0, 0.0], abs=1e-9)
        assert found["weights"] == dict.fromkeys(BANDS, 1 / len(BANDS)) | {"null": 0.0}
        assert found["blind_unique_r2"] is None


def bent(kind, seed, n=200):
    """Embeddings that are a function of the leading coordinates of a, and noise of equal size.

    The spreads of a and b fall; b is a function of a, as after a ReLU, and noise.
    """
    rng = np.random.default_rng(seed)
    lead = rng.standard_normal((n, 12))
    a = lead * np.linspace(2.0, 0.3, 12)
    b = np.maximum(a @ rng.standard_normal((12, 10)) / 4, 0)
    b += rng.standard_normal((n, 10)) * np.linspace(2.0, 0.3, 10)
    logits, u = 2.0 * a @ rng.standard_normal((12, 12)) / 4, lead[:, :4]
    told = {
        "square": (a**2).sum(axis=1, keepdims=True),
        "cos": np.cos(2 * u),
        "abs": np.abs(u),
        "products": np.stack([u[:, i] * u[:, j] for i in range(4) for j in range(i)], axis=1),
    }[kind]
    z = standard(told @ rng.standard_normal((told.shape[1], 8)))
    z += standard(rng.standard_normal((n, 8)))
    return block_of(a, b, logits, z)


def standard(rows):
    rows = rows - rows.mean(axis=0)
    return rows / np.sqrt((rows**2).sum(axis=1).mean())


@pytest.mark.parametrize("kind", ["square", "cos", "abs", "products"])
def test_functions_of_leading_coordinates_are_no_meaning_and_a_leak_beside_them_is(kind):
    for seed in range(2):
        block = bent(kind, seed)
        nothing = facts_of(block)
        assert 0 <= nothing["unique_r2"] < 0.0025 and nothing["p"] > 0.5
    rng, null = np.random.default_rng(9), block.null - block.null.mean(axis=0)
    even = null @ rng.standard_normal((10, 8))
    first = np.outer(null @ np.linalg.svd(null)[2][0], rng.standard_normal(8))
    for share, leak in ((0.3, even), (0.1, first)):
        told = standard(leak) * np.sqrt(2 * share / (1 - share))
        found = facts_of(replace(block, embeddings=block.embeddings + told))
        assert found["p"] < 0.05 and 0.6 * share < found["unique_r2"] < 1.1 * share


def test_d_is_that_of_scikit_learns_refits_and_himalayas_own_search_finds_no_better_read_out():
    """himalaya is Dupre la Tour's program for banded ridge regression; kernels are made anew."""
    block, rng = bent("cos", 0), np.random.default_rng(2)
    told = standard(block.null) @ rng.standard_normal((10, 8)) / 3
    block = replace(block, embeddings=block.embeddings + told)
    facts, own_words = facts_of(block), FittedOwnWords.fit(parts(block), texts_of())
    y, z, fold = own_words.remainder(block), block.embeddings, block.fold
    kernels = plain_kernels(block.principal, block.logits, np.arange(200))
    weights, penalties = facts["weights"], facts["lambdas"].values()
    plain, null = sum(weights[name] * kernels[name] for name in kernels), standard(block.null)
    both = plain, plain + weights["null"] * null @ null.T
    errors, total = np.zeros(2), 0.0
    for train, judged in ((fold != one, fold == one) for one in range(5)):
        total += ((z[judged] - z[train].mean(axis=0)) ** 2).sum()
        missed = (refit(k, y, train, judged, p) for k, p in zip(both, penalties, strict=True))
        errors += [(rows**2).sum() for rows in missed]
    assert weights["null"] > 0 and facts["unique_r2"] > 0.03
    assert facts["unique_r2"] == pytest.approx((errors[0] - errors[1]) / total, abs=1e-5)
    how = {"n_iter": 40, "alphas": np.array(PENALTIES), "local_alpha": False}
    how |= {"progress_bar": False}
    search = MultipleKernelRidgeCV(
        "precomputed", solver_params=how, cv=PredefinedSplit(fold), random_state=0
    ).fit(np.stack(list(kernels.values())), y - y.mean(axis=0))
    assert errors[0] < 1.05 * -search.cv_scores_.mean(axis=1).max() * y.size


def test_the_jackknife_refits_without_each_group():
    block = planted(leak=0.3, n=100)
    readouts, kernel, of_null, _ = exact(block)
    y, fold, group, penalty, own = embeddings(block), block.fold, block.group, 0.3, 0.1
    distances, only = Distances.of_all(parts(block)), (None, (penalty,), (0.0, own))
    (found,), selected = unique_r2(readouts, Targets.of(8), distances, 0.9, *only)
    assert selected.full == [Fit(own, penalty)] and selected.plain == [Fit(0.0, penalty)]

    def gains(keep):
        made = np.zeros((5, 2))
        for one in range(5):
            train, judged = keep & (fold != one), keep & (fold == one)
            both = [refit(k, y, train, judged, penalty) for k in (kernel, kernel + own * of_null)]
            spared = (both[0] ** 2).sum() - (both[1] ** 2).sum()
            made[one] = spared, ((y[judged] - y[train].mean(axis=0)) ** 2).sum()
        return made

    one = gains(np.ones(100, bool))
    np.testing.assert_allclose(selected.saved[:, 0], one[:, 0])
    without = np.array([gains(group != left_out).sum(axis=0) for left_out in range(40)])
    d, without = one[:, 0].sum() / one[:, 1].sum(), without[:, 0] / without[:, 1]
    assert found.unique_r2 == pytest.approx(d)
    np.testing.assert_allclose(found.without, without)
    error = np.sqrt(39**2 / 40 * np.var(without, ddof=1))
    ends = d + np.array([-1, 1]) * scipy.stats.t.ppf(0.95, 39) * error
    assert [found.low, found.high] == pytest.approx(ends)
    assert found.p(0.005) == pytest.approx(scipy.stats.t.sf((d - 0.005) / error, 39))


@settings(max_examples=50)
@given(st.integers(2, 1200), st.integers(1, 12), st.integers(1, 3), st.integers(0, 99))
def test_groups_are_nested_in_folds_nearly_equal_and_hold_copies_together(n, folds, copies, seed):
    rng = np.random.default_rng(seed)
    image = np.repeat(rng.permutation(n), copies)
    fold = rng.integers(folds, size=n)[image]
    group = evidence.nested_groups(fold, image)
    pairs = np.unique(np.stack([group, fold]), axis=1)
    assert pairs[0].tolist() == [*range(len(pairs[0]))], "a group lies in one fold"
    assert len(np.unique(np.stack([group, image]), axis=1)[0]) == n, "copies lie in one group"
    counts = np.unique(pairs[1], return_counts=True)[1]
    smallest, wanted = np.bincount(fold[::copies])[pairs[1]].min(), 40 if len(fold) <= 1024 else 20
    expected = max(1, min(round(wanted / len(counts)), smallest // 2))
    assert (counts == expected).all()
    for one in np.unique(fold):
        sizes = np.unique(group[fold == one], return_counts=True)[1]
        assert np.ptp(sizes) <= copies


def test_only_the_targets_that_are_asked_for_get_an_interval():
    block = planted(n=100)
    readouts, distances = exact(block)[0], Distances.of_all(parts(block))
    targets = Targets.of(2, 2, 4, variance=[1.0, 2.0, 1.0])
    every, _ = unique_r2(readouts, targets, distances, 0.95)
    some, _ = unique_r2(readouts, targets, distances, 0.95, np.array([True, False, True]))
    assert some[1].low is None and some[1].without == [] and some[1].p(0.0) == 1.0
    assert [one.unique_r2 for one in some] == pytest.approx([one.unique_r2 for one in every])
    assert [some[0].low, some[2].low] == pytest.approx([every[0].low, every[2].low])
    single = Targets.of(2, variance=[0.5])
    (alone,), _ = unique_r2(readouts, single, distances, 0.95)
    assert alone.unique_r2 == pytest.approx(2 * every[0].unique_r2)


def test_the_blind_check_is_d_of_own_words_in_other_words():
    texts, others, block = texts_of(), texts_of(seed=1), planted(n=120)
    own_words = replace(FittedOwnWords.fit(parts(block), texts), texts=others)
    spelled = replace(block, embeddings=own_words.spoken(block.logits))
    found, alone = facts_of(block, texts, others), facts_of(spelled, texts)
    # the blind check has the weights of the bands of the study
    assert found["blind_unique_r2"] == pytest.approx(alone["unique_r2"], abs=0.01)
    without = facts_of(block, texts)
    for name in without.keys() - {"blind_unique_r2"}:
        assert found[name] == pytest.approx(without[name]), name


def test_r2_of_b_is_that_of_scikit_learns_best_plain_fit():
    block = planted(n=100)
    readouts, kernel, _, null = exact(block)
    fold, errors = block.fold, []
    for penalty in PENALTIES[::2]:
        missed = [refit(kernel, null, fold != f, fold == f, penalty) for f in range(5)]
        errors.append((np.concatenate(missed) ** 2).sum())
    assert evidence.null_r2(readouts, 100) == pytest.approx(1 - min(errors) / 100)
    assert evidence.null_r2(readouts, 100) > 0.1


def planted_on(block, most, draws=3):
    """Leaks planted on a study, and its embeddings' plain prediction and errors."""
    marks = evidence.Landmarks.draw(parts(block), Distances.of_all(parts(block)), 0)
    readouts, *_ = exact(block)
    pieces = list(readouts.residuals([Fit(0.0, 0.3)], 8, parts(block)))
    missed = np.concatenate([errors[0] for _, errors in pieces])
    bands, variance = Bands(block.principal, block.logits), np.var(block.embeddings, axis=0).sum()
    noise = np.random.default_rng(5).standard_normal((len(missed), draws * min(most, 8)))
    both = [embeddings, lambda _: noise]
    covariance = missed.T @ missed / len(missed)
    leaks = plant(
        marks.read_outs(parts(block), bands, WEIGHTS, both),
        *(0.3, covariance, variance, marks.null(block), draws, most, 0),
    )
    return leaks, block.embeddings - missed, covariance, variance, marks


def test_planted_leaks_have_their_share_and_lie_on_the_prediction_and_noise_like_the_remainder():
    block = planted(n=600)
    (readouts, targets, placed), predicted, covariance, variance, marks = planted_on(block, 64)
    columns = readouts._columns
    first = columns[:, -1]
    null = marks.null(block)
    axis = np.linalg.svd(null)[2][0]
    assert abs(np.corrcoef(first, null @ axis)[0, 1]) == pytest.approx(1.0)
    assert (first**2).mean() == pytest.approx(1.0)
    products = columns[:, targets.pairs[:, 0]] * columns[:, targets.pairs[:, 1]]
    found = products.mean(axis=0) @ targets.groups
    for draw in range(3):
        base, hidden, toward = np.split(columns[:, draw * 17 : draw * 17 + 17], [8, 16], axis=1)
        np.testing.assert_allclose(np.cov((base - predicted).T), covariance, atol=0.01)
        assert (hidden**2).sum(axis=1).mean() == pytest.approx(1.0)
        assert np.linalg.lstsq(null, hidden, rcond=None)[1].max() < 1e-12
        along = np.linalg.lstsq(base, toward[:, 0], rcond=None)[0]
        assert np.linalg.norm(along) == pytest.approx(1.0)
        kinds = {EVEN: hidden, FIRST: np.outer(first, along)}
        mine = [(at, *of) for at, (*of, of_draw) in enumerate(placed) if of_draw == draw]
        assert len(mine) == 1 + 2 * len(SHARES)
        for place, kind, share in mine:
            size = np.sqrt(share / (1 - share) * variance)
            moved = base + size * kinds[kind]
            assert found[place] == pytest.approx((moved**2).sum(axis=1).mean())
            assert size**2 / (size**2 + variance) == pytest.approx(share)
            assert targets.variance[place] == pytest.approx((size**2 + variance) / variance)
    assert sorted({share for _, share, _ in placed}) == [0.0, *SHARES]


def test_many_dimensions_are_seen_through_random_directions_that_keep_the_mean_length():
    seen = [directions(40, 10, 0, draw) for draw in range(2)]
    for one in seen:
        np.testing.assert_allclose(one.T @ one, 4 * np.eye(10), atol=1e-9)
    assert abs(seen[0] - seen[1]).max() > 0.1
    np.testing.assert_array_equal(directions(10, 10, 0, 0), np.eye(10))
    assert planted_on(planted(), 3)[0][0]._columns.shape == (240, 3 * 7 + 1)


def test_gain_is_the_share_of_a_leak_of_ten_percent_that_d_shows():
    d = {"kind": [EVEN] * 4 + [FIRST], "share": [0.0, 0.0, 0.1, 0.1, 0.1], "draw": [0, 1, 0, 1, 0]}
    table = pd.DataFrame(d | {"unique_r2": [0.001, 0.003, 0.06, 0.1, 9.0]})
    assert gain(table) == pytest.approx((0.08 - 0.002) / 0.1)


def test_planted_leaks_are_listed_by_kind_share_and_draw_and_are_as_large_as_their_share():
    found = measured(planted(n=400), draws=6)
    table = found.planted
    assert list(table) == ["kind", "share", "draw", "unique_r2", "unique_r2_low", "p"]
    shares = [*np.repeat([0.0, *SHARES], 6), *np.repeat(SHARES, 6)]
    assert table["share"].tolist() == shares
    assert table["kind"].tolist() == [EVEN] * 36 + [FIRST] * 30
    assert table["draw"].tolist() == [*range(6)] * 11 and table["draw"].dtype == np.int64
    assert table.index.tolist() == [*range(66)] and table.notna().all(axis=None)
    assert (table["unique_r2_low"] <= table["unique_r2"]).all() and table["p"].between(0, 1).all()
    for kind, sizes in table.groupby("kind"):
        mean = sizes.groupby("share")["unique_r2"].mean()
        assert mean.is_monotonic_increasing
        assert 0.05 < mean[0.1] < 0.11 and 0.15 < mean[0.3] < 0.32
        name = "detectable" if kind == EVEN else "detectable_first"
        assert found.facts[name] == pytest.approx(detectable(table, kind, 0.05))
        assert 0.01 < found.facts[name] < 0.1
    assert table[table["share"] == 0]["unique_r2"].mean() < 0.002
    assert found.facts["gain"] == gain(table) and 0.5 < gain(table) < 1.1


@pytest.mark.parametrize("most", [300, 150])
def test_blocks_of_any_size_and_threads_change_no_result_and_landmarks_little(most, monkeypatch):
    texts, others, block = texts_of(), texts_of(seed=1), planted(leak=0.4, n=300)
    whole = facts_of(block, texts, others)
    with_landmarks(monkeypatch, most)
    one, other = (measured(block, texts, others, size) for size in (300, 37))
    side_by_side = measured(block, texts, others, 300, threads=3)
    assert evidence.Landmarks.draw(parts(block), Distances.of_all(parts(block)), 0).exact == (
        most == 300
    )
    assert side_by_side.facts == one.facts
    pd.testing.assert_frame_equal(side_by_side.planted, one.planted, check_exact=True)
    assert one.facts["weights"] == other.facts["weights"]
    assert one.facts["lambdas"] == other.facts["lambdas"]
    for name in ("unique_r2", "unique_r2_low", "null_r2", "blind_unique_r2"):
        assert other.facts[name] == pytest.approx(one.facts[name], abs=ALIKE), name
    pd.testing.assert_frame_equal(one.planted, other.planted, atol=1e-5, rtol=1e-3)
    for name, value in vars(one.residuals).items():
        np.testing.assert_allclose(getattr(other.residuals, name), value, atol=1e-6)
    for name in ("unique_r2", "unique_r2_low", "null_r2"):
        assert one.facts[name] == pytest.approx(whole[name], abs=0.03), name
    assert one.facts["unique_r2"] > 0.1 and one.facts["detectable"] < 0.1


def test_residuals_are_those_of_d_and_covariance_is_that_of_the_embeddings():
    block, kept = planted(leak=0.4), []

    def keep(shape):
        kept.append(np.full(shape, np.nan))
        return kept[-1]

    asked = parts(block), texts_of(), None, SETTINGS, 0.95, 0, keep
    facts, _, _, residuals = evidence.unique_meaning(*asked)
    total = Distances.of_all(parts(block)).total()
    assert residuals.plain is kept[0] and residuals.full is kept[1]
    gained = (residuals.plain**2).sum() - (residuals.full**2).sum()
    assert gained / total == pytest.approx(facts["unique_r2"])
    rows = block.embeddings.copy()
    for fold in range(5):
        rows[block.fold == fold] -= block.embeddings[block.fold != fold].mean(axis=0)
    np.testing.assert_allclose(residuals.covariance, rows.T @ rows / 240)
    assert np.trace(residuals.covariance) * 240 == pytest.approx(total)
    np.testing.assert_array_equal(residuals.cluster, np.arange(240))
    np.testing.assert_array_equal(residuals.predicted, block.logits.argmax(axis=1))
    assert {*facts["lambdas"].values()} <= {*PENALTIES}
    assert facts["weights"]["null"] in OWN and facts["n"] == 240


def leaks_of(*p, kind=EVEN):
    """A table of planted leaks: for each draw, p at shares of 0 (not read), 1, 3 and 10 %."""
    table = pd.DataFrame({"kind": kind, "share": [0.0, 0.01, 0.03, 0.1] * len(p)})
    draws = np.repeat(np.arange(len(p)), 4)
    return table.assign(draw=draws, p=np.insert(np.array(p), 0, 0.0, axis=1).ravel())


NEVER, ALWAYS, CROSSING = (0.9, 0.9, 0.9), (0.0, 0.0, 0.0), (0.2, 0.0125, 1e-6)
HALF_WAY = np.sqrt(0.01 * 0.03)  # log p crosses 0.05 half-way between 1 % and 3 %


@pytest.mark.parametrize(
    ("draws", "smallest"),
    [
        ([(0.1, 0.0125, 1e-6)], 0.01 * 3 ** (1 / 3)),
        ([(0.05, 0.01, 0.0)], 0.01),
        ([(0.001, 0.2, 0.0125)], np.sqrt(0.03 * 0.1)),  # what is found below does not count
        ([(0.9, 0.9, 0.0505)], None),
        ([*[ALWAYS] * 8, NEVER, NEVER], None),
        ([*[ALWAYS] * 17, CROSSING, NEVER, NEVER], HALF_WAY),
    ],
)
def test_the_smallest_leak_is_read_off_between_the_shares_for_nine_of_ten_draws(draws, smallest):
    alone, wanted = leaks_of(*draws), smallest and pytest.approx(smallest)
    both = pd.concat([alone, leaks_of(ALWAYS, kind=FIRST)])
    assert detectable(alone, EVEN, 0.05) == wanted
    assert detectable(both, EVEN, 0.05) == wanted
    assert detectable(both, FIRST, 0.05) == pytest.approx(0.01)


def test_no_number_is_made_of_too_few_images_or_without_a_null_space():
    for n in (2, 3):
        found = facts_of(planted(n=n))
        assert found["unique_r2_low"] is found["detectable"] is None
        assert (found["unique_r2"] is None) == (n == 2)  # two images must remain to fit on
    known = facts_of(in_folds(planted(n=6), np.arange(6) % 3))
    assert known["unique_r2_low"] <= known["unique_r2"]
    block = planted()
    still = replace(block, null=np.ones_like(block.null))
    for none in (planted(n=2), replace(block, null=block.null[:, :0]), still):
        found = measured(none)
        assert found.facts.keys() == known.keys()
        assert all(found.facts[name] is None for name in evidence.UNKNOWN)
        assert found.facts["n"] == len(none.fold) and found.facts["margin"] == 0.005
        assert not len(found.planted) and found.residuals is None
    unnamed, *_ = evidence.unique_meaning(parts(block), None, None, SETTINGS, 0.95, 0)
    assert unnamed["r2_words"] is unnamed["blind_unique_r2"] is None
    assert unnamed["unique_r2"] is not None


def test_two_groups_give_no_interval_and_groups_without_spread_a_p_of_0_or_1():
    alone = evidence.jackknife(1.0, [1.0, 1.0], 0.95)
    assert alone.low is None and alone.without == [] and alone.p(0.005) == 1.0
    assert evidence.jackknife(0.005, [0.005] * 3, 0.95).p(0.005) == 1.0
    assert evidence.jackknife(0.0, [0.0, 0.0, 0.0], 0.95).p(0.005) == 1.0
    assert evidence.jackknife(0.1, [0.1, 0.1, 0.1], 0.95).p(0.005) < 1e-9


def test_the_turn_is_the_angle_of_that_share_of_the_variance():
    mean = np.array([0.3**0.5, 0.0])
    own_words = FittedOwnWords(None, np.zeros(5), np.zeros(2), 0.0, 0.7, mean, 100)
    turn = np.degrees(np.arctan(np.sqrt(0.05 * 0.7 / (0.3 + 0.31 * 0.7))))
    assert evidence.turn_deg(0.05, own_words, 0.31) == pytest.approx(turn)
    assert evidence.turn_deg(-0.01, own_words, 0.31) == 0.0
    assert evidence.turn_deg(None, own_words, 0.31) is None


def test_distances_are_those_from_the_mean_of_the_images_that_fit():
    block = planted()
    z, fold, group = block.embeddings, block.fold, block.group
    distances, wanted = Distances.of_all(parts(block)), 0.0
    for one in range(5):
        judged, kept = (fold == one) & (group != 9), (fold != one) & (group != 9)
        wanted += ((z[judged] - z[kept].mean(0)) ** 2).sum()
    assert distances.total(9) == distances.without()[9] == pytest.approx(wanted)
    np.testing.assert_allclose(distances.mean(2), z[fold != 2].mean(axis=0))
    assert distances.can_leave(groups=True)
    few = Distances.of_all(parts(planted(n=5)))
    assert few.can_leave() and few.can_leave(groups=True)
    assert not Distances.of_all(parts(planted(n=3))).can_leave(groups=True)


def test_images_of_a_cluster_share_noise_and_leave_together_and_all_may_be_landmarks(monkeypatch):
    with_landmarks(monkeypatch, 150)
    cluster = np.arange(300) // 15  # frames of 20 films
    block = in_folds(planted(n=300), cluster % 5, cluster)
    distances = Distances.of_all(parts(block))
    marks = evidence.Landmarks.draw(parts(block), distances, 0)
    assert len(marks.rows) == len(marks.searched) == 150
    assert len(np.unique(np.stack([block.group, cluster]), axis=1)[0]) == 20
    facts, *_, residuals = evidence.unique_meaning(
        parts(block), texts_of(), None, SETTINGS, 0.95, 0
    )
    assert len(facts["unique_r2_without"]) == 10 and facts["unique_r2"] < 0.005
    np.testing.assert_array_equal(residuals.cluster, cluster)
    drawn = white_noise(0, cluster, 3)
    assert len(np.unique(drawn, axis=0)) == 20 and (drawn[:15] == drawn[0]).all()


def test_copies_of_images_change_no_answer():
    """Eight copies count as one image: in D, in its interval, and in the leaks that would show."""
    texts, others, block = texts_of(), texts_of(seed=1), planted(leak=0.4, n=100)
    columns = {name: np.tile(rows.T, 8).T for name, rows in vars(block).items()}
    repeated = replace(block, **columns)
    alone, eight = (measured(images, texts, others) for images in (block, repeated))
    assert eight.facts["n"] == 800 and eight.facts["weights"] == alone.facts["weights"]
    for name in ("unique_r2", "unique_r2_low", "p", "detectable", "null_r2", "blind_unique_r2"):
        assert eight.facts[name] == pytest.approx(alone.facts[name], rel=0.02), name
    pd.testing.assert_frame_equal(eight.planted, alone.planted, rtol=0.05, atol=1e-4)
