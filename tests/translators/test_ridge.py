import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from sklearn.metrics import mean_squared_error
from sklearn.metrics.pairwise import paired_cosine_distances

from singflow.errors import InputError
from singflow.translators.ridge import Affine, Agreement, RidgeStatistics

ALPHAS = [1e-2, 1.0, 30.0, 1e3, 1e5]


def fitted(features, embeddings, cuts=()):
    statistics = RidgeStatistics(features.shape[1], embeddings.shape[1])
    for x, z in zip(np.split(features, cuts), np.split(embeddings, cuts), strict=True):
        statistics.update(x, z)
    return statistics


@settings(max_examples=25)
@given(st.integers(2, 60), st.integers(1, 40), st.integers(1, 6), st.integers(0, 2**32 - 1), st.floats(0, 20))
def test_every_alpha_of_the_path_is_scikit_learns_ridge(n, width, dim, seed, offset):
    generator = np.random.default_rng(seed)
    features = generator.standard_normal((n, width)) + offset
    embeddings = features @ generator.standard_normal((width, dim)) + generator.standard_normal((n, dim))
    for alpha, ours in zip(ALPHAS, fitted(features, embeddings).path(ALPHAS), strict=True):
        theirs = Ridge(alpha=alpha, solver="svd").fit(features, embeddings)
        reference = np.reshape(theirs.coef_, ours.weight.shape)
        assert np.linalg.norm(ours.weight - reference) <= 1e-6 * np.linalg.norm(reference) + 1e-12
        np.testing.assert_allclose(ours(features), theirs.predict(features).reshape(n, dim), atol=1e-6)


def test_a_real_size_fit_with_fewer_rows_than_features_is_scikit_learns_ridge():
    generator = np.random.default_rng(0)
    features = np.abs(generator.standard_normal((300, 640))).astype(np.float32)
    embeddings = generator.standard_normal((300, 32)).astype(np.float32)
    for alpha, ours in zip(ALPHAS, fitted(features, embeddings).path(ALPHAS), strict=True):
        theirs = Ridge(alpha=alpha, solver="svd").fit(features.astype(np.float64), embeddings.astype(np.float64))
        assert np.linalg.norm(ours.weight - theirs.coef_) <= 1e-6 * np.linalg.norm(theirs.coef_)


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 80), max_size=5))
def test_cuts_and_order_of_the_rows_do_not_matter(seed, cuts):
    generator = np.random.default_rng(seed)
    features, embeddings = generator.standard_normal((80, 12)) + 3, generator.standard_normal((80, 5))
    order = generator.permutation(80)
    (whole,) = fitted(features, embeddings).path([1.0])
    (parts,) = fitted(features[order], embeddings[order], sorted(cuts)).path([1.0])
    np.testing.assert_allclose(parts.weight, whole.weight, rtol=0, atol=1e-11)
    np.testing.assert_allclose(parts.bias, whole.bias, rtol=0, atol=1e-11)


def test_statistics_add_up():
    generator = np.random.default_rng(0)
    features, embeddings = generator.standard_normal((80, 12)) + 3, generator.standard_normal((80, 5))
    total = fitted(features[:30], embeddings[:30]) + fitted(features[30:], embeddings[30:])
    (whole,), (sum_of_parts,) = fitted(features, embeddings).path([1.0]), total.path([1.0])
    assert total.n == 80
    np.testing.assert_allclose(sum_of_parts.weight, whole.weight, rtol=0, atol=1e-11)
    np.testing.assert_allclose(sum_of_parts.bias, whole.bias, rtol=0, atol=1e-11)


def test_a_planted_affine_map_is_found():
    generator = np.random.default_rng(0)
    planted = Affine(generator.standard_normal((4, 9)), generator.standard_normal(4))
    features = generator.standard_normal((500, 9))
    (found,) = fitted(features, planted(features)).path([1e-9])
    np.testing.assert_allclose(found.weight, planted.weight, atol=1e-8)
    np.testing.assert_allclose(found.bias, planted.bias, atol=1e-8)


def test_fewer_than_two_training_rows_are_refused():
    with pytest.raises(InputError, match="at least two training rows, not 1"):
        list(fitted(np.ones((1, 3)), np.ones((1, 2))).path([1.0]))


def test_agreement_is_scikit_learns_cosine_and_mse_and_zero_r2_at_the_baseline():
    generator = np.random.default_rng(0)
    predicted, target = generator.standard_normal((50, 7)), generator.standard_normal((50, 7))
    agreement, baseline = Agreement(), Agreement()
    for part in np.split(np.arange(50), [13, 20]):
        agreement.update(predicted[part], target[part])
    baseline.update(np.broadcast_to(np.full(7, 0.1), target.shape), target)
    assert agreement.cosine == pytest.approx(1 - paired_cosine_distances(predicted, target).mean(), abs=1e-12)
    assert agreement.mse(7) == pytest.approx(mean_squared_error(target, predicted), abs=1e-12)
    assert baseline.r2(baseline) == 0.0
    assert agreement.r2(baseline) == pytest.approx(1 - ((predicted - target) ** 2).sum() / ((target - 0.1) ** 2).sum(), abs=1e-12)


def test_a_zero_embedding_is_refused():
    with pytest.raises(InputError, match="zero embedding has no direction"):
        Agreement().update(np.zeros((1, 3)), np.ones((1, 3)))
