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


def test_the_inverse_is_that_of_the_penalized_scatter():
    features, embeddings = drawn(0, (30, 6), (30, 2), offset=5)
    features = features.astype(np.float32)  # whose sums are in float64
    statistics = fitted(features, embeddings)
    mean = features.mean(axis=0, dtype=np.float64)
    centred = features - mean
    expected = np.linalg.inv(centred.T @ centred + 2.0 * np.eye(6))
    np.testing.assert_allclose(statistics.inverse(2.0), expected, rtol=1e-9)
    np.testing.assert_allclose(statistics.feature_mean, mean, rtol=1e-12)
    assert fitted(features[:, :0], features).inverse(1.0).shape == (0, 0)
    for dim in (0, 2):
        statistics = fitted(features, embeddings[:, :dim])
        close(statistics.solve(2.0), *statistics.path([2.0]))


@settings(max_examples=25)
@given(SEEDS, st.integers(2, 60), st.integers(1, 40), st.integers(1, 6), st.floats(0, 20))
def test_every_fit_is_scikit_learns_also_with_fewer_rows_than_features(seed, n, width, dim, offset):
    features, planted, noise = drawn(seed, (n, width), (width, dim), (n, dim), offset=offset)
    embeddings = features @ (planted - offset) + noise
    statistics = fitted(features, embeddings)
    errors = statistics.decompose().squared_errors(statistics, ALPHAS)
    for alpha, error, ours in zip(ALPHAS, errors, statistics.path(ALPHAS), strict=True):
        theirs = Ridge(alpha=alpha, solver="svd").fit(features, embeddings)
        predicted = theirs.predict(features).reshape(n, dim)
        for one in (ours, statistics.solve(alpha)):
            reference = np.reshape(theirs.coef_, one.weight.shape)
            least = 1e-6 * np.linalg.norm(reference) + 1e-12
            assert np.linalg.norm(one.weight - reference) <= least
            np.testing.assert_allclose(one(features), predicted, atol=1e-6)
        missed = ((ours(features) - embeddings) ** 2).sum()
        assert error == pytest.approx(missed, rel=1e-8, abs=1e-8)


def close(ours, theirs):
    np.testing.assert_allclose(ours.weight, theirs.weight, rtol=0, atol=1e-11)
    np.testing.assert_allclose(ours.bias, theirs.bias, rtol=0, atol=1e-11)


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
        close(*parts.path([1.0]), whole)


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
        theirs = Ridge(alpha=alpha, solver="svd").fit(x, z)
        predicted = theirs.predict(centred)
        for ours in (path.at(alpha), statistics.solve(alpha)):
            np.testing.assert_allclose(ours.weight, theirs.coef_, rtol=0, atol=1e-12)
            found = ours(features) - target_offset
            np.testing.assert_allclose(found, predicted, rtol=0, atol=1e-9)
        assert error == pytest.approx(((predicted - targets) ** 2).sum(), rel=1e-10)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("values", [[np.nan], [np.inf], [np.inf, -np.inf]])
def test_what_is_nan_or_infinite_is_refused_and_adds_nothing(values):
    good, seen = np.ones((5, 3), np.float16), (np.eye(5, 3), np.eye(5, 2))
    bad = good.copy()
    bad[: len(values), 1] = values  # the first row, which is the origin, too
    statistics = fitted(*seen)
    fix = "is NaN or infinite: look at the weights and the precision that gave it"
    for sums in (statistics, RidgeStatistics(3, 2)):
        refused(f"a feature {fix}", sums.update, bad, good[:, :2])
        refused(f"an? embedding {fix}", sums.update, good, bad[:, :2])
    assert statistics.n == 5
    np.testing.assert_array_equal(statistics.solve(1.0).weight, fitted(*seen).solve(1.0).weight)


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
