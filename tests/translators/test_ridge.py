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


def fitted(features, embeddings, cuts=(), origin=None):
    statistics = RidgeStatistics(features.shape[1], embeddings.shape[1], origin)
    for x, z in zip(np.split(features, cuts), np.split(embeddings, cuts), strict=True):
        statistics.update(x, z)
    return statistics


def test_the_inverse_is_that_of_the_penalized_scatter():
    generator = np.random.default_rng(0)
    features = generator.standard_normal((30, 6)) + 5
    statistics = fitted(features, generator.standard_normal((30, 2)))
    centred = features - features.mean(axis=0)
    np.testing.assert_allclose(
        statistics.inverse(2.0), np.linalg.inv(centred.T @ centred + 2.0 * np.eye(6)), rtol=1e-9
    )
    np.testing.assert_allclose(statistics.feature_mean, features.mean(axis=0))
    assert fitted(features[:, :0], features).inverse(1.0).shape == (0, 0)


@settings(max_examples=25)
@given(
    st.integers(2, 60),
    st.integers(1, 40),
    st.integers(1, 6),
    st.integers(0, 2**32 - 1),
    st.floats(0, 20),
)
def test_every_alpha_of_the_path_is_scikit_learns_ridge(n, width, dim, seed, offset):
    generator = np.random.default_rng(seed)
    features = generator.standard_normal((n, width)) + offset
    embeddings = features @ generator.standard_normal((width, dim)) + generator.standard_normal(
        (n, dim)
    )
    for alpha, ours in zip(ALPHAS, fitted(features, embeddings).path(ALPHAS), strict=True):
        theirs = Ridge(alpha=alpha, solver="svd").fit(features, embeddings)
        reference = np.reshape(theirs.coef_, ours.weight.shape)
        assert np.linalg.norm(ours.weight - reference) <= 1e-6 * np.linalg.norm(reference) + 1e-12
        np.testing.assert_allclose(
            ours(features), theirs.predict(features).reshape(n, dim), atol=1e-6
        )


def test_a_real_size_fit_with_fewer_rows_than_features_is_scikit_learns_ridge():
    generator = np.random.default_rng(0)
    features = np.abs(generator.standard_normal((300, 640))).astype(np.float32)
    embeddings = generator.standard_normal((300, 32)).astype(np.float32)
    for alpha, ours in zip(ALPHAS, fitted(features, embeddings).path(ALPHAS), strict=True):
        theirs = Ridge(alpha=alpha, solver="svd").fit(
            features.astype(np.float64), embeddings.astype(np.float64)
        )
        assert np.linalg.norm(ours.weight - theirs.coef_) <= 1e-6 * np.linalg.norm(theirs.coef_)


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 80), max_size=5))
def test_cuts_and_order_of_the_rows_do_not_matter(seed, cuts):
    generator = np.random.default_rng(seed)
    features, embeddings = (
        generator.standard_normal((80, 12)) + 3,
        generator.standard_normal((80, 5)),
    )
    order = generator.permutation(80)
    (whole,) = fitted(features, embeddings).path([1.0])
    (parts,) = fitted(features[order], embeddings[order], sorted(cuts)).path([1.0])
    np.testing.assert_allclose(parts.weight, whole.weight, rtol=0, atol=1e-11)
    np.testing.assert_allclose(parts.bias, whole.bias, rtol=0, atol=1e-11)


def test_statistics_add_up():
    generator = np.random.default_rng(0)
    features, embeddings = (
        generator.standard_normal((80, 12)) + 3,
        generator.standard_normal((80, 5)),
    )
    origin = features[0], embeddings[0]
    total = RidgeStatistics(12, 5)
    for part in np.split(np.arange(80), [30]):
        total.add(fitted(features[part], embeddings[part], origin=origin))
    (whole,), (sum_of_parts,) = fitted(features, embeddings).path([1.0]), total.path([1.0])
    assert total.n == 80
    np.testing.assert_allclose(sum_of_parts.weight, whole.weight, rtol=0, atol=1e-11)
    np.testing.assert_allclose(sum_of_parts.bias, whole.bias, rtol=0, atol=1e-11)


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(2, 78))
def test_rows_that_are_taken_away_might_never_have_been_added(seed, kept):
    generator = np.random.default_rng(seed)
    features, embeddings = (
        generator.standard_normal((80, 12)) + 3,
        generator.standard_normal((80, 5)) - 2,
    )
    others = fitted(features[kept:], embeddings[kept:], origin=(features[0], embeddings[0]))
    less, never = fitted(features, embeddings), fitted(features[:kept], embeddings[:kept])
    less.add(others, times=-1)
    assert less.n == kept
    np.testing.assert_allclose(less.embedding_mean, embeddings[:kept].mean(axis=0), atol=1e-11)
    assert less.mean_squared_distance == pytest.approx(
        ((features[:kept] - features[:kept].mean(axis=0)) ** 2).sum(axis=1).mean()
    )
    for ours, theirs in zip(less.path(ALPHAS), never.path(ALPHAS), strict=True):
        np.testing.assert_allclose(ours.weight, theirs.weight, rtol=0, atol=1e-8)
        np.testing.assert_allclose(ours.bias, theirs.bias, rtol=0, atol=1e-8)
    path = less.decompose()
    expected = [
        ((path.at(alpha)(features[:kept]) - embeddings[:kept]) ** 2).sum() for alpha in ALPHAS
    ]
    np.testing.assert_allclose(path.squared_errors(less, ALPHAS), expected, rtol=1e-8, atol=1e-8)
    others.add(less)
    expected = [((path.at(alpha)(features) - embeddings) ** 2).sum() for alpha in ALPHAS]
    np.testing.assert_allclose(path.squared_errors(others, ALPHAS), expected, rtol=1e-8, atol=1e-8)


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 50), max_size=3))
def test_offsets_of_ten_thousand_standard_deviations_cost_no_digits(seed, cuts):
    generator = np.random.default_rng(seed)
    centred = (
        np.round(generator.standard_normal((50, 9)) * 2**20) / 2**20
    )  # so that the offset rounds nothing
    targets = (
        np.round(
            (centred @ generator.standard_normal((9, 4)) + generator.standard_normal((50, 4)))
            * 2**20
        )
        / 2**20
    )
    offset, target_offset = (
        generator.choice([-10000, 10000], 9),
        generator.choice([-10000, 10000], 4),
    )
    features, embeddings = centred + offset, targets + target_offset
    assert np.array_equal(features - offset, centred) and np.array_equal(
        embeddings - target_offset, targets
    )
    statistics, held_out = (
        fitted(features[:40], embeddings[:40], sorted(cut for cut in cuts if cut <= 40)),
        fitted(features, embeddings),
    )
    assert statistics.mean_squared_distance == pytest.approx(
        ((centred[:40] - centred[:40].mean(axis=0)) ** 2).sum(axis=1).mean(), 1e-12
    )
    np.testing.assert_allclose(
        statistics.embedding_mean - target_offset, targets[:40].mean(axis=0), atol=1e-11
    )
    path = statistics.decompose()
    errors = path.squared_errors(held_out, ALPHAS)
    for alpha, error in zip(ALPHAS, errors, strict=True):
        theirs = Ridge(alpha=alpha, solver="svd").fit(centred[:40], targets[:40])
        expected = ((theirs.predict(centred) - targets) ** 2).sum()
        for ours in (path.at(alpha), statistics.solve(alpha)):
            np.testing.assert_allclose(ours.weight, theirs.coef_, rtol=0, atol=1e-12)
            np.testing.assert_allclose(
                ours(features) - target_offset, theirs.predict(centred), rtol=0, atol=1e-9
            )
        assert error == pytest.approx(expected, rel=1e-10)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("rows", [[0], [3], [1, 3]])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_features_and_embeddings_that_are_nan_or_infinite_are_refused_and_add_nothing(
    dtype, value, rows
):
    good, seen = np.ones((5, 3), dtype), (np.eye(5, 3), np.eye(5, 2))
    bad = good.copy()
    bad[rows, 1] = [value, -value][: len(rows)]
    statistics = fitted(*seen)
    for pair, name in (
        ((bad, good[:, :2]), "a feature"),
        ((good, bad[:, :2]), r"an? embedding"),
        ((bad, bad[:, :2]), "a feature"),
    ):
        for sums in (statistics, RidgeStatistics(3, 2)):
            with pytest.raises(
                InputError,
                match=(
                    rf"{name} is NaN or infinite: look at the weights and the precision that "
                    r"gave it"
                ),
            ):
                sums.update(*pair)
    assert statistics.n == 5
    np.testing.assert_array_equal(statistics.solve(1.0).weight, fitted(*seen).solve(1.0).weight)


@settings(max_examples=50)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(2, 30),
    st.integers(0, 30),
    st.integers(1, 20),
    st.integers(1, 5),
    st.floats(-50, 50),
)
def test_squared_errors_out_of_sums_are_those_of_the_rows(seed, n, n_other, width, dim, offset):
    generator = np.random.default_rng(seed)
    features = generator.standard_normal((n + n_other, width)) + offset
    embeddings = (
        features @ generator.standard_normal((width, dim))
        + generator.standard_normal((n + n_other, dim))
        - offset
    )
    path, held_out = (
        fitted(features[:n], embeddings[:n]).decompose(),
        fitted(features[n:], embeddings[n:]),
    )
    expected = [((path.at(alpha)(features[n:]) - embeddings[n:]) ** 2).sum() for alpha in ALPHAS]
    np.testing.assert_allclose(
        path.squared_errors(held_out, ALPHAS), expected, rtol=1e-8, atol=1e-8
    )
    mean = embeddings[:n].mean(axis=0)
    assert held_out.squared_distance(mean) == pytest.approx(
        ((embeddings[n:] - mean) ** 2).sum(), rel=1e-9, abs=1e-9
    )


@settings(max_examples=25)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(2, 40),
    st.integers(0, 30),
    st.integers(0, 5),
    st.floats(-20, 20),
)
def test_one_penalty_is_solved_as_on_the_path(seed, n, width, dim, offset):
    generator = np.random.default_rng(seed)
    features, embeddings = (
        generator.standard_normal((n, width)) + offset,
        generator.standard_normal((n, dim)) - offset,
    )
    statistics = fitted(features, embeddings)
    for alpha, on_path in zip(ALPHAS, statistics.path(ALPHAS), strict=True):
        ours = statistics.solve(alpha)
        assert (
            ours.weight.shape == (dim, width) and ours.weight.dtype == ours.bias.dtype == np.float64
        )
        np.testing.assert_allclose(ours.weight, on_path.weight, rtol=0, atol=1e-10)
        np.testing.assert_allclose(ours.bias, on_path.bias, rtol=0, atol=1e-8)


def test_one_row_is_predicted_for_all_and_none_is_refused():
    alone = fitted(np.arange(3.0)[None], np.array([[5.0, 7.0]])).solve(1.0)
    assert not alone.weight.any() and alone.bias.tolist() == [5, 7]
    with pytest.raises(InputError, match="a translator needs training rows"):
        RidgeStatistics(3, 2).solve(1.0)


@settings(max_examples=25)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([(0, 5, 5, 9), (4, 9, 0, 4), (2, 2, 0, 9), (0, 9, 4, 4)]),
)
def test_a_regression_of_some_features_on_others_is_that_of_statistics_made_of_their_columns(
    seed, columns
):
    generator = np.random.default_rng(seed)
    inputs, targets = slice(*columns[:2]), slice(*columns[2:])
    features = generator.standard_normal((40, 9)) + 30
    features[:, 5:] += features[:, :4]
    x, z = features[:, inputs], features[:, targets]
    part, made = (
        fitted(features, generator.standard_normal((40, 4)), [13]).regress(inputs, targets),
        fitted(x, z),
    )
    assert (part.n, part.shape) == (made.n, made.shape) == (40, (x.shape[1], z.shape[1]))
    assert part.mean_squared_distance == pytest.approx(made.mean_squared_distance)
    np.testing.assert_allclose(part.embedding_mean, z.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(
        part.decompose().squared_errors(part, ALPHAS),
        made.decompose().squared_errors(made, ALPHAS),
        atol=1e-9,
    )
    for alpha in ALPHAS:
        ours, theirs = part.solve(alpha), made.solve(alpha)
        np.testing.assert_allclose(ours.weight, theirs.weight, rtol=0, atol=1e-11)
        np.testing.assert_allclose(ours.bias, theirs.bias, rtol=0, atol=1e-9)
        if 0 not in part.shape:
            np.testing.assert_allclose(
                ours.weight, Ridge(alpha=alpha, solver="svd").fit(x, z).coef_, rtol=0, atol=1e-10
            )


def test_a_regression_of_some_features_leaves_the_sums_that_it_is_taken_from():
    generator = np.random.default_rng(0)
    features, embeddings = generator.standard_normal((2, 30, 6))
    statistics = fitted(features, embeddings)
    before, part = statistics.solve(1.0), statistics.regress(slice(0, 4), slice(4, 6))
    part.add(part)
    np.testing.assert_array_equal(statistics.solve(1.0).weight, before.weight)
    assert (statistics.n, part.n) == (30, 60)


def test_a_planted_affine_map_is_found():
    generator = np.random.default_rng(0)
    planted = Affine(generator.standard_normal((4, 9)), generator.standard_normal(4))
    features = generator.standard_normal((500, 9))
    (found,) = fitted(features, planted(features)).path([1e-9])
    np.testing.assert_allclose(found.weight, planted.weight, atol=1e-8)
    np.testing.assert_allclose(found.bias, planted.bias, atol=1e-8)


def test_fewer_than_two_training_rows_are_refused():
    with pytest.raises(
        InputError,
        match=r"at least two training rows, not 1: add images, or lower translator\.folds",
    ):
        list(fitted(np.ones((1, 3)), np.ones((1, 2))).path([1.0]))


def test_agreement_is_scikit_learns_cosine_and_mse_and_zero_r2_at_the_baseline():
    generator = np.random.default_rng(0)
    predicted, target = generator.standard_normal((50, 7)), generator.standard_normal((50, 7))
    agreement, baseline = Agreement(), Agreement()
    for part in np.split(np.arange(50), [13, 20]):
        agreement.update(predicted[part], target[part])
    baseline.update(np.broadcast_to(np.full(7, 0.1), target.shape), target)
    assert agreement.cosine == pytest.approx(
        1 - paired_cosine_distances(predicted, target).mean(), abs=1e-12
    )
    assert agreement.mse(7) == pytest.approx(mean_squared_error(target, predicted), abs=1e-12)
    assert baseline.r2(baseline) == 0.0
    assert agreement.r2(baseline) == pytest.approx(
        1 - ((predicted - target) ** 2).sum() / ((target - 0.1) ** 2).sum(), abs=1e-12
    )


def test_embeddings_that_all_are_the_baseline_leave_nothing_to_explain():
    agreement = Agreement()
    agreement.update(np.ones((2, 3)), np.ones((2, 3)))
    with pytest.raises(
        InputError,
        match=(
            "every held-out embedding is the mean of the training embeddings, "
            "so there is nothing to explain"
        ),
    ):
        Agreement(2, 1.0, 1.0).r2(agreement)


def test_a_zero_embedding_is_refused():
    with pytest.raises(InputError, match="zero embedding has no direction"):
        Agreement().update(np.zeros((1, 3)), np.ones((1, 3)))
