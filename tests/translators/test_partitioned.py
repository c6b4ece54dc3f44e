"""Translators by the halves of their inputs: against scikit-learn on rows, also after residuals changed hands."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from singflow.errors import InputError
from singflow.translators.partitioned import Partitioned
from singflow.translators.ridge import Affine, RidgeStatistics

N, NULL_DIM, DIM = 50, 3, 4


def summed(rows, embeddings, origin=None):
    sums = RidgeStatistics(rows.shape[1], embeddings.shape[1], origin)
    sums.update(rows, embeddings)
    return sums


def rotated(partitioned, a):
    return (a - partitioned.path.feature_mean) @ partitioned.path.eigenvectors


class Planted:
    """Rows (a, b) whose b is B a + e with a given B, sums without the residuals' products, and what other residuals add."""

    def __init__(self, seed, rank, scale, offset):
        generator = self.generator = np.random.default_rng(seed)
        self.rank, self.scale = rank, scale
        self.a, b = generator.standard_normal((N, rank)) + offset, generator.standard_normal((N, NULL_DIM)) - offset
        self.z = generator.standard_normal((N, DIM)) + offset
        self.sums = summed(np.hstack([self.a, b]), self.z)
        self.predictor = Affine(generator.standard_normal((NULL_DIM, rank)), generator.standard_normal(NULL_DIM))
        self.residuals = b - self.predictor(self.a)
        self.hollow = self.sums.hollow(rank, self.predictor, self.mixed(np.arange(N)), scale)

    def mixed(self, order):
        return np.hstack([self.a - self.a[0], self.z - self.z[0]]).T @ self.residuals[order]

    def changes(self, order):
        mixed = self.scale * self.mixed(order)
        cross = self.predictor.weight @ mixed[: self.rank]
        return mixed, cross + cross.T

    def rows(self, order):
        return np.hstack([self.a, self.predictor(self.a) + self.scale * self.residuals[order]])


SETTINGS = st.integers(0, 2**32 - 1), st.integers(0, 4), st.sampled_from([1.0, 0.9, 0.6]), st.floats(-100, 100)


@settings(max_examples=25)
@given(*SETTINGS)
def test_sums_after_residuals_change_hands_are_those_of_rows_made_anew(seed, rank, scale, offset):
    planted = Planted(seed, rank, scale, offset)
    order = planted.generator.permutation(N)
    rows, (mixed, squares) = planted.rows(order), planted.changes(order)
    found, anew = (Partitioned.of(sums, rank) for sums in (planted.hollow, summed(rows, planted.z, planted.sums.origin)))
    size = 1 + np.abs(rows - planted.sums.origin[0]).max() ** 2
    axes = found.path.eigenvectors
    np.testing.assert_allclose(axes @ found.ab + mixed[:rank], anew.path.eigenvectors @ anew.ab, atol=1e-9 * size)
    np.testing.assert_allclose(found.bb + squares, anew.bb, atol=1e-9 * size)
    np.testing.assert_allclose(found.zb + mixed[rank:], anew.zb, atol=1e-9 * size)
    np.testing.assert_allclose(found.null_mean, anew.null_mean, atol=1e-9 * size)


@settings(max_examples=25)
@given(*SETTINGS, st.sampled_from([0.01, 1.0]))
def test_translators_and_their_reading_of_the_prediction_are_scikit_learns(seed, rank, scale, offset, penalty):
    planted = Planted(seed, rank, scale, offset)
    own = Partitioned.of(planted.sums, rank)
    order = planted.generator.permutation(N)
    halves = Partitioned.of(planted.hollow, rank, own.path).solve((penalty, 0.3), planted.changes(order))
    rows = planted.rows(order)

    def ridge(x, y, scaled):
        return Ridge(alpha=scaled * np.mean(np.sum((x - x.mean(axis=0)) ** 2, axis=1))).fit(x, y)

    both, tolerance = ridge(rows, planted.z, penalty), 2e-5 * (1 + abs(offset))
    hidden, seen = both.coef_[:, rank:], rotated(own, planted.a)
    np.testing.assert_allclose(halves.hidden, hidden, atol=1e-5)
    visible = rows[:, :rank] @ both.coef_[:, :rank].T + both.intercept_
    np.testing.assert_allclose(halves.visible(seen), visible, atol=tolerance)
    predicted = ridge(planted.a, rows[:, rank:], 0.3).predict(planted.a) if rank else np.tile(rows[:, rank:].mean(axis=0), (N, 1))
    np.testing.assert_allclose(halves.predicted(seen), predicted @ hidden.T, atol=tolerance)


def test_a_model_without_a_null_space_has_a_visible_half_alone():
    generator = np.random.default_rng(0)
    rows, embeddings = generator.standard_normal((N, 5)), generator.standard_normal((N, DIM))
    sums = summed(rows, embeddings)
    own = Partitioned.of(sums, 5)
    halves, seen = own.solve((0.1, 0.1)), rotated(own, rows)
    fitted = sums.solve(0.1 * sums.mean_squared_distance)
    np.testing.assert_allclose(halves.visible(seen), fitted(rows), atol=1e-5)
    assert halves.hidden.shape == (DIM, 0) and not halves.predicted(seen).any()


@pytest.mark.parametrize("alike", [slice(None), slice(0, 2)])
def test_inputs_that_are_all_alike_are_refused(alike):
    rows = np.random.default_rng(0).standard_normal((N, 4))
    rows[:, alike] = 3
    with pytest.raises(InputError, match="the features of the training images are all alike"):
        Partitioned.of(summed(rows, rows[:, :2]), 2).solve((0.1, 0.1))
