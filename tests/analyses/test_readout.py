"""The flexible read-outs against scikit-learn's kernel ridge regression, and against each other."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Ridge

from singflow.analyses.readout import (
    LOOKED,
    PLAIN,
    WITH_NULL,
    Block,
    Features,
    Kernels,
    Scale,
    Sums,
    Targets,
    _arccosine,
    few_images,
    ranked_null_directions,
    read_out,
)

LAMBDAS = [0.01, 0.1, 1.0, 10.0, 100.0]
# Rounding of what is the same number: kernels are products in float64, sums in float32.
ROUNDING = {"kernels": 1e-9, "sums": 1e-6}


def planted(n=90, r=12, k=7, classes=9, m=5, seed=0, leak=1.0):
    """Images whose embeddings are a nonlinear function of a, and of b where `leak` is not 0."""
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((n, r)) + 3.0, rng.standard_normal((n, k)) - 5.0
    logits = 2.0 * (a - 3.0) @ rng.standard_normal((r, classes))
    z = np.tanh((a - 3.0) @ rng.standard_normal((r, m))) + 2.0
    z += leak * (b + 5.0) @ rng.standard_normal((k, m))
    z += 0.2 * rng.standard_normal((n, m))
    return Block(*(rows.astype(np.float32) for rows in (a, b, logits, z)), np.arange(n) % 5)


def parts(block, size=40):
    def blocks():
        for start in range(0, len(block.fold), size):
            rows = slice(start, start + size)
            yield Block(**{name: array[rows] for name, array in vars(block).items()})

    return blocks


def embeddings(block):
    m = block.embeddings.shape[1]
    return Targets(lambda part, _: part.embeddings, np.ones((m, 1)), np.ones(1))


def readouts_of(form, block, size=40):
    blocks = parts(block, size)
    if form == "kernels":
        return Kernels(blocks, embeddings(block))
    return Sums(blocks, embeddings(block), Features.draw(blocks, 0, 64))


def explicit(block, features):
    x = features.of(block).astype(np.float64)
    return {PLAIN: x[:, : features.width], WITH_NULL: x}


def test_sums_are_ridge_regression_on_the_features_for_every_fold_and_pair_of_folds():
    block = planted()
    features = Features.draw(parts(block), 0, 64)
    x, z = explicit(block, features), block.embeddings.astype(np.float64)
    sums = Sums(parts(block), embeddings(block), features)
    for which in (PLAIN, WITH_NULL):
        for left_out in ((2,), (0, 3)):
            train = ~np.isin(block.fold, left_out)
            spread = ((x[which][train] - x[which][train].mean(0)) ** 2).sum(1).mean()
            found = sums.errors(which, left_out, LAMBDAS)
            for place, fold in enumerate(left_out):
                judged = block.fold == fold
                for at, penalty in enumerate(LAMBDAS):
                    model = Ridge(alpha=penalty * spread).fit(x[which][train], z[train])
                    wanted = ((model.predict(x[which][judged]) - z[judged]) ** 2).sum()
                    assert found[place, at, 0] == pytest.approx(wanted, rel=1e-5)


def test_kernels_are_kernel_ridge_regression_with_an_intercept():
    block = planted()
    kernels, z = Kernels(parts(block), embeddings(block)), block.embeddings.astype(np.float64)
    for which in (PLAIN, WITH_NULL):
        kernel, left_out = kernels._kernels[which], (1, 4)
        train = ~np.isin(block.fold, left_out)
        centre = np.eye(train.sum()) - 1 / train.sum()
        inner = centre @ kernel[np.ix_(train, train)] @ centre
        found = kernels.errors(which, left_out, LAMBDAS)
        for place, fold in enumerate(left_out):
            judged = block.fold == fold
            outer = (kernel[np.ix_(judged, train)] - kernel[np.ix_(train, train)].mean(0)) @ centre
            for at, penalty in enumerate(LAMBDAS):
                alpha, middle = penalty * np.trace(inner) / train.sum(), z[train].mean(0)
                model = KernelRidge(alpha=alpha, kernel="precomputed").fit(inner, z[train] - middle)
                wanted = ((model.predict(outer) + middle - z[judged]) ** 2).sum()
                assert found[place, at, 0] == pytest.approx(wanted, rel=1e-6)


def test_both_forms_give_the_same_errors():
    block = planted(n=200)
    kernels = Kernels(parts(block), embeddings(block))
    sums = Sums(parts(block), embeddings(block), Features.draw(parts(block), 0, 4096))
    for which in (PLAIN, WITH_NULL):
        found, wanted = (form.errors(which, (0, 1), [0.1, 1.0, 10.0]) for form in (sums, kernels))
        np.testing.assert_allclose(found, wanted, rtol=0.02)


def test_the_kernel_of_relu_units_is_the_limit_of_many():
    rows = np.random.default_rng(0).standard_normal((6, 4))
    units = np.random.default_rng(1).standard_normal((5, 400_000))
    made = np.maximum(rows @ units[:-1] + 0.5 * units[-1], 0.0)
    np.testing.assert_allclose(_arccosine(rows), 2 * made @ made.T / units.shape[1], rtol=0.02)


def test_flexible_blocks_have_equal_mean_square_and_b_has_the_scale_of_a():
    block = planted(n=150)
    features = Features.draw(parts(block), 3, 64)
    x = features.of(block).astype(np.float64)
    x -= x.mean(0)
    square = (x**2).sum(0) / len(x)
    r, h = block.principal.shape[1], features.units.shape[1]
    blocks = np.split(square[: features.width], [r, features.width - h])
    assert [block.sum() for block in blocks] == pytest.approx([1.0, 3.0, 1.0], rel=1e-4)
    ratio = np.var(block.null, axis=0).sum() / np.var(block.principal, axis=0).sum()
    assert square[features.width :].sum() == pytest.approx(ratio, rel=1e-4)


def test_many_classes_are_compressed_before_their_leading_parts_are_taken(monkeypatch):
    monkeypatch.setattr("singflow.analyses.readout.CLASSES", 6)
    features = Features.draw(parts(planted()), 0, 64)
    assert features.sketch.shape == (9, 6)
    assert np.isfinite(features.of(planted())).all()


@pytest.mark.parametrize("form", ["kernels", "sums"])
def test_blocks_of_any_size_give_the_same_errors(form):
    readouts = (readouts_of(form, planted(), size) for size in (90, 7))
    errors = [readout.errors(WITH_NULL, (0,), LAMBDAS) for readout in readouts]
    np.testing.assert_allclose(*errors, rtol=1e-4)


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 10_000), st.permutations(LAMBDAS))
def test_the_search_finds_the_best_penalty_in_any_order(seed, lambdas):
    block = planted(seed=seed, n=60)
    sums = Sums(parts(block), embeddings(block), Features.draw(parts(block), 0, 48))
    chosen, errors = sums.select(WITH_NULL, lambdas)
    by_fold = [sums.errors(WITH_NULL, (fold,), lambdas)[0, :, 0] for fold in sums.folds]
    some = np.sum(by_fold[:LOOKED], axis=0)
    order = np.argsort(lambdas)
    assert some[chosen[0]] <= some[order[::2]].min() * (1 + ROUNDING["sums"])
    rising = np.diff(some[order]) > 0
    if (np.diff(rising.astype(int)) >= 0).all():  # one minimum
        assert some[chosen[0]] == pytest.approx(some.min(), rel=ROUNDING["sums"])
    np.testing.assert_allclose(errors[:, 0], np.array(by_fold)[:, chosen[0]], rtol=ROUNDING["sums"])


@pytest.mark.parametrize("n", [6, 7])
def test_every_target_walks_to_its_own_minimum_from_the_best_of_every_second_penalty(
    n, monkeypatch
):
    """Curves with one minimum at each penalty, and one with a lower minimum seen only from afar."""
    curves = [np.abs(np.arange(n) - least) + 1.0 for least in range(n)]
    curves.append(np.where(np.arange(n) == 4, 0.5, np.abs(np.arange(n) - 1.0) + 1.0))
    curves = np.transpose(curves)
    sums = Sums(parts(planted()), embeddings(planted()), Features.draw(parts(planted()), 0, 8))
    sums._groups, asked = np.eye(n + 1), np.zeros((5, n, n + 1), int)

    def errors(_, left_out, lambdas, wanted):
        (fold,), places = left_out, [round(np.log10(penalty)) for penalty in lambdas]
        asked[fold, places] += wanted
        worse = 0.0 if fold < LOOKED else 100.0 * np.arange(n)[places, None]
        return np.where(wanted, curves[places] + worse, np.nan)[None]

    monkeypatch.setattr(sums, "errors", errors)
    lambdas = [10.0**place for place in reversed(range(n))]
    chosen, found = sums.select(PLAIN, lambdas)
    least = [*range(n), 4]
    assert (n - 1 - chosen).tolist() == least and asked.max() == 1
    wanted = curves[least, range(n + 1)]
    np.testing.assert_array_equal(found[:LOOKED], [wanted] * LOOKED)
    np.testing.assert_array_equal(found[LOOKED:], [wanted + 100.0 * np.array(least)] * 3)
    assert asked[:LOOKED].sum() < LOOKED * n * (n + 1) and asked[LOOKED:].sum() == 3 * (n + 1)


def test_both_forms_plant_the_same_noise_in_the_same_image():
    block = planted(n=200, leak=0.0)
    noise = np.random.default_rng(0).standard_normal((200, 3))
    loud = Targets(
        lambda part, start: noise[start : start + len(part.fold)], np.ones((3, 1)), np.ones(1)
    )
    kernels = Kernels(parts(block), loud)
    sums = Sums(parts(block), loud, Features.draw(parts(block), 0, 64))
    found, wanted = (form.errors(PLAIN, (0, 1), [1e6])[:, 0, 0] for form in (sums, kernels))
    np.testing.assert_allclose(found, wanted, rtol=1e-3)


@pytest.mark.parametrize("form", ["kernels", "sums"])
def test_what_is_not_wanted_and_targets_that_are_left_out_change_nothing(form):
    block = planted()
    both = Targets(
        lambda part, _: np.hstack([part.embeddings, part.embeddings[:, :2] ** 2]),
        np.kron(np.eye(2), np.ones((5, 1)))[:7],
        np.ones(2),
    )
    features = Features.draw(parts(block), 0, 64)
    readouts, alone = (
        Kernels(parts(block), targets)
        if form == "kernels"
        else Sums(parts(block), targets, features)
        for targets in (both, embeddings(block))
    )
    whole = readouts.errors(PLAIN, (0, 3), [0.1, 10.0])
    some = readouts.errors(PLAIN, (0, 3), [0.1, 10.0], np.array([[True, False], [False, True]]))
    alike = partial(np.testing.assert_allclose, rtol=ROUNDING[form])
    alike(some[:, [0, 1], [0, 1]], whole[:, [0, 1], [0, 1]])
    first = readouts.first()
    alike(first.errors(PLAIN, (0, 3), [0.1, 10.0]), whole[..., :1])
    alike(first.nested((0, 3), 0.3), alone.nested((0, 3), 0.3))


@pytest.mark.parametrize("form", ["kernels", "sums"])
def test_nested_errors_are_those_of_the_directions_themselves(form):
    readouts, left_out, penalty = readouts_of(form, planted()), (0, 2), 0.3
    found = readouts.nested(left_out, penalty)
    whole = readouts.errors(WITH_NULL, left_out, [penalty])[:, 0, 0]
    assert found.shape == (2, 1 + 5)
    # five columns move in five directions
    np.testing.assert_allclose(found[:, -1], whole, rtol=1e-6)
    assert (found[:, 0] > found[:, -1]).all()


def test_null_directions_lower_the_penalized_error_most():
    rng = np.random.default_rng(0)
    b, z = rng.standard_normal((60, 6)), rng.standard_normal((60, 3))
    alpha, gram = 2.0, b.T @ b + 2.0 * np.eye(6)
    factor = np.linalg.cholesky(gram)
    basis = ranked_null_directions(factor, np.linalg.solve(factor, b.T @ z))

    def gain(directions):
        part = b @ directions
        scatter = part.T @ part + alpha * np.eye(directions.shape[1])
        return np.trace(z.T @ part @ np.linalg.solve(scatter, part.T @ z))

    np.testing.assert_allclose(basis.T @ basis, np.eye(3), atol=1e-12)
    for q in (1, 2):
        others = [np.linalg.qr(rng.standard_normal((6, q)))[0] for _ in range(500)]
        assert gain(basis[:, :q]) > max(map(gain, others))


def test_kernels_are_taken_where_images_are_fewer_than_features():
    block = planted()
    assert isinstance(read_out(parts(block), embeddings(block), 0), Kernels)
    assert isinstance(read_out(parts(block), embeddings(block), 0, kernels=False), Sums)
    assert few_images(3071, 512) and not few_images(3072, 512) and few_images(4000, 4096)
    square = np.var(block.principal, axis=0).sum()
    assert Scale.of(parts(block)).square == pytest.approx(square, rel=1e-5)
