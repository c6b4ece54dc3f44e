import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from sklearn.metrics import mean_squared_error
from sklearn.metrics.pairwise import paired_cosine_distances

from singflow.translators.ridge import Affine, Agreement, RidgeStatistics
from tests.refusals import refused

ALPHAS = [1e-2, 1.0, 30.0, 1e3, 1e5]
SEEDS = st.integers(0, 2**32 - 1)


def fitted(features, embeddings, cuts=(), origin=None):
    statistics = RidgeStatistics(features.shape[1], embeddings.shape[1], origin)
    for x, z in zip(np.split(features, cuts), np.split(embeddings, cuts), strict=True):
        statistics.update(x, z)
    return statistics


def drawn(seed, *shapes, offset=0.0):
    """Arrays of normal numbers, all moved by an offset."""
    generator = np.random.default_rng(seed)
    return [generator.standard_normal(shape) + offset for shape in shapes]


def scikit_learns(x, z, alpha):
    return Ridge(alpha=alpha, solver="svd").fit(x, z)


def test_the_inverse_is_that_of_the_penalized_scatter():
    features, embeddings = drawn(0, (30, 6), (30, 2), offset=5)
    statistics = fitted(features, embeddings)
    centred = features - features.mean(axis=0)
    expected = np.linalg.inv(centred.T @ centred + 2.0 * np.eye(6))
    np.testing.assert_allclose(statistics.inverse(2.0), expected, rtol=1e-9)
    np.testing.assert_allclose(statistics.feature_mean, features.mean(axis=0))
    assert fitted(features[:, :0], features).inverse(1.0).shape == (0, 0)


@settings(max_examples=25)
@given(SEEDS, st.integers(2, 60), st.integers(1, 40), st.integers(1, 6), st.floats(0, 20))
def test_every_alpha_of_the_path_is_scikit_learns_ridge(seed, n, width, dim, offset):
    features, planted, noise = drawn(seed, (n, width), (width, dim), (n, dim), offset=offset)
    embeddings = features @ (planted - offset) + noise
    for alpha, ours in zip(ALPHAS, fitted(features, embeddings).path(ALPHAS), strict=True):
        theirs = scikit_learns(features, embeddings, alpha)
        reference = np.reshape(theirs.coef_, ours.weight.shape)
        assert np.linalg.norm(ours.weight - reference) <= 1e-6 * np.linalg.norm(reference) + 1e-12
        predicted = theirs.predict(features).reshape(n, dim)
        np.testing.assert_allclose(ours(features), predicted, atol=1e-6)


def test_a_real_size_fit_with_fewer_rows_than_features_is_scikit_learns_ridge():
    features, embeddings = (array.astype(np.float32) for array in drawn(0, (300, 640), (300, 32)))
    features = np.abs(features)
    for alpha, ours in zip(ALPHAS, fitted(features, embeddings).path(ALPHAS), strict=True):
        theirs = scikit_learns(features.astype(float), embeddings.astype(float), alpha).coef_
        assert np.linalg.norm(ours.weight - theirs) <= 1e-6 * np.linalg.norm(theirs)


def close(ours, theirs, atol, bias=None):
    np.testing.assert_allclose(ours.weight, theirs.weight, rtol=0, atol=atol)
    np.testing.assert_allclose(ours.bias, theirs.bias, rtol=0, atol=bias or atol)


@settings(max_examples=25)
@given(SEEDS, st.lists(st.integers(0, 80), max_size=5).map(sorted))
def test_cuts_and_order_of_the_rows_do_not_matter_and_statistics_add_up(seed, cuts):
    features, embeddings = drawn(seed, (80, 12), (80, 5), offset=3)
    order, total = np.random.default_rng(seed).permutation(80), RidgeStatistics(12, 5)
    for rows in np.split(order, cuts):
        origin = features[0], embeddings[0]
        total.add(fitted(features[rows], embeddings[rows], origin=origin))
    (whole,) = fitted(features, embeddings).path([1.0])
    for parts in (total, fitted(features[order], embeddings[order], cuts)):
        assert parts.n == 80
        close(*parts.path([1.0]), whole, 1e-11)


def squared_errors(path, features, embeddings):
    return [((path.at(alpha)(features) - embeddings) ** 2).sum() for alpha in ALPHAS]


@settings(max_examples=25)
@given(SEEDS, st.integers(2, 78))
def test_rows_that_are_taken_away_might_never_have_been_added(seed, kept):
    features, embeddings = drawn(seed, (80, 12), (80, 5), offset=3)
    x, z = features[:kept], embeddings[:kept]
    others = fitted(features[kept:], embeddings[kept:], origin=(features[0], embeddings[0]))
    less, never = fitted(features, embeddings), fitted(x, z)
    less.add(others, times=-1)
    assert less.n == kept
    np.testing.assert_allclose(less.embedding_mean, z.mean(axis=0), atol=1e-11)
    distance = ((x - x.mean(axis=0)) ** 2).sum(axis=1).mean()
    assert less.mean_squared_distance == pytest.approx(distance)
    for ours, theirs in zip(less.path(ALPHAS), never.path(ALPHAS), strict=True):
        close(ours, theirs, 1e-8)
    path = less.decompose()
    others.add(less)
    for sums, rows in ((less, (x, z)), (others, (features, embeddings))):
        found, expected = path.squared_errors(sums, ALPHAS), squared_errors(path, *rows)
        np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-8)


def test_sums_from_different_origins_are_not_added():
    features, embeddings = drawn(0, (10, 3), (10, 2))
    with pytest.raises(ValueError, match=r"^sums from different origins cannot be added$"):
        fitted(features, embeddings).add(fitted(features[5:], embeddings[5:]))


@settings(max_examples=25)
@given(SEEDS, st.lists(st.integers(0, 50), max_size=3))
def test_offsets_of_ten_thousand_standard_deviations_cost_no_digits(seed, cuts):
    exact, generator = 2**20, np.random.default_rng(seed)  # so that the offset rounds nothing
    centred, planted, noise = drawn(seed, (50, 9), (9, 4), (50, 4))
    centred = np.round(centred * exact) / exact
    targets = np.round((centred @ planted + noise) * exact) / exact
    offset, target_offset = (generator.choice([-10000, 10000], width) for width in (9, 4))
    features, embeddings = centred + offset, targets + target_offset
    assert np.array_equal(features - offset, centred)
    assert np.array_equal(embeddings - target_offset, targets)
    x, z = centred[:40], targets[:40]
    statistics = fitted(features[:40], embeddings[:40], sorted(cut for cut in cuts if cut <= 40))
    distance = ((x - x.mean(axis=0)) ** 2).sum(axis=1).mean()
    assert statistics.mean_squared_distance == pytest.approx(distance, 1e-12)
    mean = statistics.embedding_mean - target_offset
    np.testing.assert_allclose(mean, z.mean(axis=0), atol=1e-11)
    path = statistics.decompose()
    errors = path.squared_errors(fitted(features, embeddings), ALPHAS)
    for alpha, error in zip(ALPHAS, errors, strict=True):
        theirs = scikit_learns(x, z, alpha)
        predicted = theirs.predict(centred)
        for ours in (path.at(alpha), statistics.solve(alpha)):
            np.testing.assert_allclose(ours.weight, theirs.coef_, rtol=0, atol=1e-12)
            found = ours(features) - target_offset
            np.testing.assert_allclose(found, predicted, rtol=0, atol=1e-9)
        assert error == pytest.approx(((predicted - targets) ** 2).sum(), rel=1e-10)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("rows", [[0], [3], [1, 3]])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_what_is_nan_or_infinite_is_refused_and_adds_nothing(dtype, value, rows):
    good, seen = np.ones((5, 3), dtype), (np.eye(5, 3), np.eye(5, 2))
    bad = good.copy()
    bad[rows, 1] = [value, -value][: len(rows)]
    statistics = fitted(*seen)
    fix = "is NaN or infinite: look at the weights and the precision that gave it"
    for sums in (statistics, RidgeStatistics(3, 2)):
        refused(f"a feature {fix}", sums.update, bad, good[:, :2])
        refused(f"an? embedding {fix}", sums.update, good, bad[:, :2])
        refused(f"a feature {fix}", sums.update, bad, bad[:, :2])
    assert statistics.n == 5
    np.testing.assert_array_equal(statistics.solve(1.0).weight, fitted(*seen).solve(1.0).weight)


@settings(max_examples=50)
@given(SEEDS, *map(st.integers, (2, 0, 1, 1), (30, 30, 20, 5)), st.floats(-50, 50))
def test_squared_errors_out_of_sums_are_those_of_the_rows(seed, n, n_other, width, dim, offset):
    shapes = (n + n_other, width), (width, dim), (n + n_other, dim)
    features, planted, noise = drawn(seed, *shapes, offset=offset)
    embeddings = features @ (planted - offset) + noise - 2 * offset
    path, held_out = fitted(features[:n], embeddings[:n]), (features[n:], embeddings[n:])
    path, sums = path.decompose(), fitted(*held_out)
    found, expected = path.squared_errors(sums, ALPHAS), squared_errors(path, *held_out)
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-8)
    mean = embeddings[:n].mean(axis=0)
    distance = ((embeddings[n:] - mean) ** 2).sum()
    assert sums.squared_distance(mean) == pytest.approx(distance, rel=1e-9, abs=1e-9)


@settings(max_examples=25)
@given(SEEDS, st.integers(2, 40), st.integers(0, 30), st.integers(0, 5), st.floats(-20, 20))
def test_one_penalty_is_solved_as_on_the_path(seed, n, width, dim, offset):
    features, embeddings = drawn(seed, (n, width), (n, dim), offset=offset)
    statistics = fitted(features, embeddings - 2 * offset)
    for alpha, on_path in zip(ALPHAS, statistics.path(ALPHAS), strict=True):
        ours = statistics.solve(alpha)
        assert ours.weight.shape == (dim, width)
        assert ours.weight.dtype == ours.bias.dtype == np.float64
        close(ours, on_path, 1e-10, 1e-8)


def test_one_row_is_predicted_for_all_and_none_is_refused():
    one = fitted(np.arange(3.0)[None], np.array([[5.0, 7.0]]))
    for alone in (one.solve(1.0), *one.path([1.0])):
        assert not alone.weight.any() and alone.bias.tolist() == [5, 7]
    message = r"^a translator needs training rows: add images, or lower translator\.folds$"
    empty = RidgeStatistics(3, 2)
    for solve in (empty.solve, lambda alpha: [*empty.path([alpha])]):
        refused(message, solve, 1.0)


def test_a_map_in_another_type_shares_the_arrays_that_have_the_type():
    single = Affine(np.ones((2, 3), np.float32), np.ones(2))
    double = single.astype(np.float64)
    assert double.weight.dtype == np.float64 and double.bias is single.bias
    single = single.astype(np.float32)
    assert single.bias.dtype == np.float32 and single.astype(np.float32).weight is single.weight


def test_agreement_is_scikit_learns_cosine_and_mse_and_zero_r2_at_the_baseline():
    predicted, target = drawn(0, (50, 7), (50, 7))
    agreement, baseline = Agreement(), Agreement()
    for part in np.split(np.arange(50), [13, 20]):
        agreement.update(predicted[part], target[part])
    baseline.update(np.full(target.shape, 0.1), target)
    cosine = 1 - paired_cosine_distances(predicted, target).mean()
    r2 = 1 - ((predicted - target) ** 2).sum() / ((target - 0.1) ** 2).sum()
    assert agreement.cosine == pytest.approx(cosine, abs=1e-12)
    assert agreement.mse(7) == pytest.approx(mean_squared_error(target, predicted), abs=1e-12)
    assert agreement.r2(baseline) == pytest.approx(r2, abs=1e-12) and baseline.r2(baseline) == 0.0
    nothing = Agreement()
    nothing.update(np.ones((2, 3)), np.ones((2, 3)))
    refused("every held-out embedding is the mean of the training", agreement.r2, nothing)
    message = r"^a zero embedding has no direction: look at .* that gave it$"
    refused(message, agreement.update, np.zeros((1, 3)), np.ones((1, 3)))
