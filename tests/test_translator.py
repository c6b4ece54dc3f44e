import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from sklearn.linear_model import Ridge
from sklearn.metrics import mean_squared_error
from sklearn.metrics.pairwise import paired_cosine_distances

from singflow.errors import InputError
from singflow.store import write_tensors
from singflow.translator import Agreement, RidgeStatistics, Translator

ALPHAS = [1e-2, 1.0, 30.0, 1e3, 1e5]


def fitted(features, embeddings, cuts=()):
    statistics = RidgeStatistics(features.shape[1], embeddings.shape[1])
    for x, z in zip(np.split(features, cuts), np.split(embeddings, cuts), strict=True):
        statistics.update(x, z)
    return statistics


@settings(max_examples=25, deadline=None)
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


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 80), max_size=5))
def test_cuts_and_order_of_the_rows_do_not_matter(seed, cuts):
    generator = np.random.default_rng(seed)
    features, embeddings = generator.standard_normal((80, 12)) + 3, generator.standard_normal((80, 5))
    order = generator.permutation(80)
    (whole,) = fitted(features, embeddings).path([1.0])
    (parts,) = fitted(features[order], embeddings[order], sorted(cuts)).path([1.0])
    np.testing.assert_allclose(parts.weight, whole.weight, rtol=0, atol=1e-11)
    np.testing.assert_allclose(parts.bias, whole.bias, rtol=0, atol=1e-11)


def test_a_planted_affine_map_is_found():
    generator = np.random.default_rng(0)
    planted = Translator(generator.standard_normal((4, 9)), generator.standard_normal(4))
    features = generator.standard_normal((500, 9))
    (found,) = fitted(features, planted(features)).path([1e-9])
    np.testing.assert_allclose(found.weight, planted.weight, atol=1e-8)
    np.testing.assert_allclose(found.bias, planted.bias, atol=1e-8)


def test_a_written_translator_is_loaded_and_translates_as_the_tensors_that_another_library_reads(tmp_path):
    path = tmp_path / "linear.safetensors"
    generator = np.random.default_rng(0)
    tensors = {"weight": generator.standard_normal((4, 9)).astype(np.float32), "bias": generator.standard_normal(4).astype(np.float32)}
    write_tensors(path, tensors, {"kind": "linear"})
    features = generator.standard_normal((7, 9)).astype(np.float32)
    linear = torch.nn.Linear(9, 4)
    linear.load_state_dict(load_file(path))
    with torch.inference_mode():
        expected = linear(torch.from_numpy(features)).numpy()
        wide = linear.double()(torch.from_numpy(features).double()).numpy()
    assert Translator.load(path).weight.dtype == Translator.load(path).bias.dtype == np.float32
    np.testing.assert_allclose(Translator.load(str(path))(features), expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(Translator.load(path).astype(np.float64)(features), wide, rtol=0, atol=1e-13)


@pytest.mark.parametrize("metadata", [{}, {"kind": "mlp3"}])
def test_only_a_linear_translator_is_loaded(tmp_path, metadata):
    path = tmp_path / "other.safetensors"
    write_tensors(path, {"weight": np.ones((2, 3)), "bias": np.ones(2)}, metadata)
    with pytest.raises(InputError, match=r"other.safetensors: holds no linear translator: .*networks.load_network reads"):
        Translator.load(path)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"weight": np.ones((2, 3))}, "holds no tensor bias"),
        ({"weight": np.ones((2, 3)), "bias": np.ones(3)}, r"weight \(2, 3\) and bias \(3,\) make no affine map"),
        ({"weight": np.ones(2), "bias": np.ones(2)}, r"weight \(2,\) and bias \(2,\) make no affine map"),
        ({"weight": np.full((2, 3), np.nan), "bias": np.ones(2)}, "weight holds NaN"),
    ],
)
def test_a_damaged_translator_is_refused(tmp_path, tensors, message):
    path = tmp_path / "linear.safetensors"
    write_tensors(path, tensors, {"kind": "linear"})
    with pytest.raises(InputError, match=rf"linear.safetensors: {message}.*: remove it and run the workflow again"):
        Translator.load(path)


def test_a_translator_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere.safetensors: not readable"):
        Translator.load(tmp_path / "nowhere.safetensors")


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
