"""The read-outs against scikit-learn's kernel ridge regression, and their two forms as one."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from singflow.analyses.bands import BANDS, PENALTIES, Bands, Block
from singflow.analyses.evidence import Distances, Landmarks, nested_groups
from singflow.analyses.readout import OWN, Exact, Fit, Nystroem, Targets, select
from tests.analyses.test_bands import refit

WEIGHTS = dict(zip(BANDS, [0.1, 0.2, 0, 0.3, 0, 0.1, 0.1, 0, 0.1, 0, 0.1, 0, 0.02], strict=True))
FITS = [Fit(0.0, 1.0), Fit(0.1, 0.1), Fit(1.0, 10.0)]
ALIKE = 2e-6  # the largest product of sums is in float32


def block_of(a, b, logits, z, fold=None, cluster=None):
    """A block of different images in five folds, or in those given, and in clusters of one."""
    fold = np.arange(len(a)) % 5 if fold is None else fold
    cluster = np.arange(len(a)) if cluster is None else cluster
    return Block(a, b, logits, z, fold, nested_groups(fold, cluster), cluster, np.arange(len(a)))


def in_folds(block, fold, cluster=None):
    """The same images in other folds."""
    parts = block.principal, block.null, block.logits, block.embeddings
    return block_of(*parts, fold, cluster)


def planted(n=90, r=12, k=7, classes=9, m=5, seed=0, leak=1.0):
    """Images whose embeddings are a nonlinear function of a, and of b where `leak` is not 0."""
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((n, r)) + 3.0, rng.standard_normal((n, k)) - 5.0
    logits = 2.0 * (a - 3.0) @ rng.standard_normal((r, classes))
    z = np.tanh((a - 3.0) @ rng.standard_normal((r, m))) + 2.0
    z += leak * (b + 5.0) @ rng.standard_normal((k, m)) / np.sqrt(k)
    z += 0.2 * rng.standard_normal((n, m))
    return block_of(*(rows.astype(np.float32) for rows in (a, b, logits, z)))


def parts(block, size=40):
    def blocks():
        for start in range(0, len(block.fold), size):
            rows = slice(start, start + size)
            yield Block(**{name: array[rows] for name, array in vars(block).items()})

    return blocks


def embeddings(block):
    return block.embeddings.astype(np.float64)


def exact(block):
    """The exact read-outs of embeddings, with their kernels of a and of b, and b."""
    marks = Landmarks.draw(parts(block), Distances.of_all(parts(block)), 0)
    bands = Bands(block.principal, block.logits)
    made = marks.read_outs(parts(block), bands, WEIGHTS, [embeddings])
    assert isinstance(made, Exact)
    null = marks.null(block)
    return made, bands.mixed(WEIGHTS), null @ null.T, null


def nystroem(block, most=None, size=40, threads=1, columns=(embeddings,)):
    """The read-outs by kernels with landmarks, by default with all images."""
    distances = Distances.of_all(parts(block))
    marks = Landmarks.draw(parts(block, size), distances, 0, most or len(block.fold))
    bands = marks.bands()
    blocks = parts(block, size)
    return Nystroem(blocks, bands, WEIGHTS, marks.null, columns, threads)


SEEDS, FOLDS = st.integers(0, 10_000), st.lists(st.integers(0, 4), min_size=30, max_size=30)


@settings(max_examples=30)
@given(SEEDS, st.sampled_from(OWN), st.sampled_from(PENALTIES), FOLDS, st.integers(0, 99))
@example(38, 0.0, 10**-3.5, [0] * 6 + [1] + [0] * 23, 0)
def test_errors_on_images_left_out_are_those_of_scikit_learns_refits(seed, own, penalty, fold, out):
    """Without a fold, and without a fold and a group of images; folds have any size."""
    fold = np.array([0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 4, *fold])
    block = in_folds(planted(n=len(fold), seed=seed), fold)
    readouts, kernel, of_null, _ = exact(block)
    y, groups = embeddings(block), np.unique(block.group)
    pairs, group = np.array([[0, 0], [1, 1], [4, 2], [0, 4]]), out % len(groups)

    def products(keep):
        total = []
        for one in np.unique(fold[keep]):
            train, judged = keep & (fold != one), keep & (fold == one)
            missed = refit(kernel + own * of_null, y, train, judged, penalty)
            total.append((missed[:, pairs[:, 0]] * missed[:, pairs[:, 1]]).sum(axis=0))
        return np.array(total)

    wanted = products(np.ones(len(fold), bool))
    found = readouts.errors(Fit(own, penalty), range(5), pairs)
    # Products of two targets may cancel, and what is left of them has fewer digits.
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-7 * wanted.max())
    without = readouts.errors_without(Fit(own, penalty), pairs)
    wanted = products(block.group != groups[group]).sum(axis=0)
    assert len(without) == len(groups)
    np.testing.assert_allclose(without[group], wanted, rtol=1e-6, atol=1e-7 * wanted.max())


@pytest.mark.parametrize("fit", FITS)
def test_residuals_are_the_errors_and_are_those_of_scikit_learn(fit):
    block = planted()
    readouts, kernel, of_null, _ = exact(block)
    y = embeddings(block)
    pieces = list(readouts.residuals([fit, FITS[0]], 5, parts(block)))
    assert [len(errors[0]) for _, errors in pieces] == [40, 40, 10]
    found = np.concatenate([errors[0] for _, errors in pieces])
    for fold in range(5):
        judged = block.fold == fold
        wanted = refit(kernel + fit.own * of_null, y, ~judged, judged, fit.penalty)
        np.testing.assert_allclose(found[judged], wanted, rtol=1e-6, atol=1e-9)
        (errors,) = readouts.errors(fit, [fold], Targets.of(5).pairs)
        np.testing.assert_allclose(errors, (found[judged] ** 2).sum(axis=0))
    alone = np.concatenate([e[0] for _, e in readouts.residuals(FITS[:1], 5, parts(block))])
    np.testing.assert_allclose(np.concatenate([errors[1] for _, errors in pieces]), alone)


def test_derived_columns_are_the_prediction_the_last_columns_and_b():
    block, rng = planted(), np.random.default_rng(1)
    mix, noise, leak = (rng.standard_normal((rows, 4)) for rows in (3, 2, 7))
    readouts, kernel, _, null = exact(block)
    y = embeddings(block)
    predicted = y[:, :3].copy()
    for fold in range(5):
        judged = block.fold == fold
        predicted[judged] -= refit(kernel, y[:, :3], ~judged, judged, 0.1)
    wanted = predicted @ mix + y[:, 3:] @ noise + null @ leak
    direct = Exact(kernel, null, wanted, block)
    derived = readouts.derive(0.1, mix, noise, leak)
    for fit in FITS:
        found, errors = (form.errors(fit, [2], Targets.of(4).pairs) for form in (derived, direct))
        np.testing.assert_allclose(found, errors, rtol=1e-7)


def everything(readouts, block, noise=2):
    """All numbers that a form of the read-outs gives, by name."""
    rng, found = np.random.default_rng(1), {}
    derive = 0.3, *(rng.standard_normal((rows, 4)) for rows in (3, noise, block.null.shape[1]))
    pairs = np.array([[0, 0], [1, 3], [4, 2], [2, 2]])
    for fit in FITS:
        found[f"errors {fit}"] = readouts.errors(fit, [0, 2], Targets.of(5).pairs)
        found[f"without {fit}"] = readouts.errors_without(fit, Targets.of(5).pairs)
        found[f"products {fit}"] = readouts.errors_without(fit, pairs)
        derived, some = readouts.derive(*derive), np.array([[0, 0], [1, 3], [2, 2]])
        found[f"derived {fit}"] = derived.errors_without(fit, some)
    pieces = list(readouts.residuals(FITS, 5, parts(block)))
    for place, fit in enumerate(FITS):
        found[f"residuals {fit}"] = np.concatenate([errors[place] for _, errors in pieces])
    found["b"] = [readouts.null_error(0.3, [fold]) for fold in range(5)]
    return {name: np.asarray(value) for name, value in found.items()}


def alike(found, wanted, rtol):
    """Numbers agree but for this share of the largest of their kind."""
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        atol = rtol * np.abs(value).max()
        np.testing.assert_allclose(found[name], value, rtol=0, atol=atol, err_msg=name)


def test_landmarks_that_are_all_images_give_the_exact_read_outs_also_of_columns_side_by_side():
    block = planted()
    alike(everything(nystroem(block), block), everything(exact(block)[0], block), ALIKE)
    noise = np.random.default_rng(0).standard_normal((90, 2))
    both = [embeddings, lambda part: noise[part.image]]
    marks = Landmarks.draw(parts(block), Distances.of_all(parts(block)), 0)
    bands = Bands(block.principal, block.logits)
    forms = marks.read_outs(parts(block), bands, WEIGHTS, both), nystroem(block, columns=both)
    pairs = np.array([[6, 6], [0, 5]])
    for fit in FITS:
        wanted, found = ({"": form.errors_without(fit, pairs)} for form in forms)
        alike(found, wanted, ALIKE)


def errors_at(readouts, fit, targets):
    """Errors of targets by fold."""
    return readouts.errors(fit, readouts.folds, targets.pairs) @ targets.groups


@settings(max_examples=10)
@given(SEEDS, st.floats(0, 1), st.sampled_from([exact, nystroem]))
def test_each_target_is_searched_alone_ends_below_its_neighbours_and_may_do_without_b(
    seed, leak, form
):
    block, penalties, weights = planted(n=60, seed=seed, leak=leak), PENALTIES[::2], OWN[::2]
    readouts = form(block)[0] if form is exact else form(block, 40)
    targets = Targets.of(2, 3, variance=[1.0, 1.0])
    found = select(readouts, targets, 1e3, penalties, weights)
    fits = [[Fit(own, penalty) for penalty in penalties] for own in weights]
    grid = np.array([[errors_at(readouts, fit, targets) for fit in row] for row in fits])
    looked = grid[:, :, : len(readouts.looked)].sum(axis=2)
    assert len(readouts.looked) == (5 if form is exact else 2)
    slack = looked.max() * 1e-5
    for t, (plain, full) in enumerate(zip(found.plain, found.full, strict=True)):
        place, own = penalties.index(plain.penalty), weights.index(full.own)
        at, curve = penalties.index(full.penalty), looked[0, :, t]
        beside = looked[own, max(at - 1, 0) : at + 2, t]
        assert plain.own == 0.0
        assert curve[place] <= min(*curve[::2], *curve[max(place - 1, 0) : place + 2]) + slack
        assert looked[own, at, t] <= min(*looked[:, place, t], *beside) + slack
        gain = grid[0, place, :, t] - grid[own, at, :, t]
        np.testing.assert_allclose(found.saved[:, t], gain, atol=slack)
        assert form is nystroem or found.saved[:, t].sum() >= 0.0
        alone = Targets(targets.pairs, targets.groups[:, [t]], np.ones(1))
        single = select(readouts, alone, 1e3, penalties, weights)
        assert (single.plain[0], single.full[0]) == (plain, full)


@pytest.mark.parametrize("form", [exact, nystroem])
def test_nothing_to_read_out_takes_the_largest_penalty_and_no_b(form):
    block = planted()
    still = Block(**(vars(block) | {"embeddings": np.ones_like(block.embeddings)}))
    readouts = form(still)[0] if form is exact else form(still, 50)
    found = select(readouts, Targets.of(5), 1.0)
    assert found.plain == found.full == [Fit(0.0, PENALTIES[0])]
