"""The bands against formulas written down anew, and their weights against scikit-learn's fits."""

import numpy as np
import pytest
import scipy
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist, pdist
from sklearn.kernel_ridge import KernelRidge

import singflow.analyses.bands as module
from singflow.analyses.bands import BANDS, Bands, candidates, leading_directions, search_weights


def images_of(n=40, r=12, classes=7, seed=0):
    """Coordinates a, whose spread falls, and logits."""
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((n, r)) * np.linspace(2.0, 0.2, r) + 3.0
    return a, 2.0 * a @ rng.standard_normal((r, classes)) / np.sqrt(r)


def plain_kernels(a, logits, landmarks):
    """Every band between images and landmarks, by its definition."""
    a = a - a[landmarks].mean(axis=0)
    values, axes = np.linalg.svd(a[landmarks], full_matrices=False)[1:]
    lead = (a @ axes.T * np.sqrt(len(landmarks)) / values)[:, :32]
    a = a / np.sqrt((a[landmarks] ** 2).sum(axis=1).mean())

    def settled(kernel):
        rows, columns = kernel.mean(axis=1), kernel[landmarks].mean(axis=0)
        kernel = kernel - rows[:, None] - columns + columns.mean()
        return kernel * len(landmarks) / np.trace(kernel[landmarks])

    def rbf(x, share=1.0):
        return np.exp(-cdist(x, x[landmarks], "sqeuclidean") / (width(x) * share))

    def width(x):
        return np.median(pdist(x[landmarks], "sqeuclidean"))

    def relu():
        x = np.hstack([a, np.full((len(a), 1), 0.5)])
        length = np.linalg.norm(x, axis=1)
        lengths = np.outer(length, length[landmarks])
        angle = np.arccos(np.clip(x @ x[landmarks].T / lengths, -1, 1))
        return lengths * (np.sin(angle) + (np.pi - angle) * np.cos(angle))

    def softmax():
        roots = [scipy.special.softmax(logits / t, axis=1) ** 0.5 for t in module.TEMPERATURES]
        return sum(settled(root @ root[landmarks].T) for root in roots)

    def single(x):
        return sum(np.exp(-2.0 * (one[:, None] - one[landmarks]) ** 2) for one in x.T)

    def squares(x):
        square = (x**2).sum(axis=1, keepdims=True)
        return (square - square[landmarks].mean()) / square[landmarks].std()

    raw = {
        "linear": a @ a[landmarks].T,
        "softmax": softmax(),
        "relu": relu(),
        "rbf": rbf(a),
        "rbf_narrow": rbf(a, 0.25),
        "square": (a @ a[landmarks].T) ** 2,
        "leading_square": (lead @ lead[landmarks].T) ** 2,
        "leading_rbf_32": rbf(lead),
        "leading_rbf_8": rbf(lead[:, :8]),
        "leading_rbf_4": rbf(lead[:, :4]),
        "single_32": single(lead),
        "single_8": single(lead[:, :8]),
        "norm": single(squares(a)),
    }
    return {name: settled(kernel) for name, kernel in raw.items()}


# more and fewer directions than landmarks, and one direction
@pytest.mark.parametrize(("n", "r", "step"), [(90, 3, 3), (90, 12, 3), (90, 45, 2), (24, 1, 3)])
def test_every_band_is_its_definition_on_landmarks_and_on_other_images(n, r, step):
    a, logits = images_of(n, r)
    landmarks = np.arange(0, n, step)
    bands = Bands(a[landmarks], logits[landmarks])
    wanted = plain_kernels(a, logits, landmarks)
    assert tuple(wanted) == BANDS
    weights = {name: place for place, name in enumerate(BANDS)}
    block = module.Block(a, a, logits, a, *np.zeros((4, len(a))))
    for name, kernel in wanted.items():
        found = bands.mixed({name: 1.0}, block)
        np.testing.assert_allclose(found, kernel, atol=1e-8, err_msg=name)
    mixed = sum(weights[name] * kernel for name, kernel in wanted.items())
    np.testing.assert_allclose(bands.mixed(weights, block), mixed, atol=1e-6)
    np.testing.assert_allclose(bands.mixed(weights), mixed[landmarks], atol=1e-6)
    found = dict(bands.among())
    assert tuple(found) == BANDS
    for name, kernel in found.items():
        np.testing.assert_allclose(kernel, wanted[name][landmarks], atol=1e-8, err_msg=name)


def test_leading_directions_come_from_all_images_where_their_covariance_is_given():
    a, logits = images_of(n=90, r=45)
    rows = a - a.mean(axis=0)
    bands = Bands(a[:30], logits[:30], rows.T @ rows / len(rows))
    values, axes = np.linalg.svd(rows, full_matrices=False)[1:]
    lead = (rows @ axes.T * np.sqrt(len(a)) / values)[:30, :8]
    kernel = sum(np.exp(-2.0 * np.subtract.outer(one, one) ** 2) for one in lead.T)
    kernel = kernel - kernel.mean(axis=0) - kernel.mean(axis=1)[:, None] + kernel.mean()
    found = bands.mixed({"single_8": 1.0})
    np.testing.assert_allclose(found, kernel * 30 / np.trace(kernel), atol=1e-8)


def test_a_band_that_sees_no_difference_between_landmarks_is_zero():
    a, logits = images_of()
    found = dict(Bands(a, np.zeros_like(logits)).among())
    assert not found["softmax"].any() and np.trace(found["linear"]) == pytest.approx(len(a))
    lengths = np.where(np.arange(len(a)) % 2, -1.0, 1.0)[:, None] * np.sqrt([0.3, 0.7])
    assert not dict(Bands(lengths, logits).among())["norm"].any()
    for alike in (np.ones((6, 3)), np.zeros((6, 0))):
        assert not any(kernel.any() for _, kernel in Bands(alike, np.zeros((6, 2))).among())


def test_leading_directions_are_principal_components_without_those_of_rounding():
    rows = np.random.default_rng(0).standard_normal((30, 5)) * [5, 4, 3, 2, 1]
    rows -= rows.mean(axis=0)
    covariance = np.cov(np.hstack([rows, rows[:, :2]]), rowvar=False, bias=True)
    spread, axes = leading_directions(covariance, 4)
    values, wanted = np.linalg.svd(np.hstack([rows, rows[:, :2]]))[1:]
    np.testing.assert_allclose(spread, values[:4] / np.sqrt(30))
    np.testing.assert_allclose(np.abs(wanted[:4] @ axes), np.eye(4), atol=1e-8)
    assert len(leading_directions(covariance, 7)[0]) == 5
    assert leading_directions(covariance[:0, :0], 3)[1].shape == (0, 0)


def test_the_candidates_are_equal_weights_single_bands_and_drawn_ones():
    weights = np.array([list(candidate.values()) for candidate in candidates()])
    assert weights.shape == (1 + len(BANDS) + module.DRAWN, len(BANDS))
    np.testing.assert_allclose(weights.sum(axis=1), 1.0)
    assert set(weights[0]) == {1 / len(BANDS)}
    np.testing.assert_array_equal(weights[1 : 1 + len(BANDS)], np.eye(len(BANDS)))
    assert len(np.unique(weights, axis=0)) == len(weights) and (weights >= 0).all()


def test_the_first_of_errors_that_differ_by_rounding_is_the_best():
    errors = np.array([[3.0, 1.0], [1.0 + 1e-10, 1.0 - 1e-10], [1.0, 2.0]])
    assert module.first_best(errors, 1.0).tolist() == [1, 0]
    assert module.first_best(errors, np.array([1e-3, 1e-3])).tolist() == [2, 1]


PLACES = st.lists(st.integers(0, 9), min_size=1, max_size=5)


@given(PLACES, st.integers(2, 10), st.randoms(), st.data())
def test_walks_end_at_the_least_error_of_every_target_and_ask_nothing_twice(least, n, random, data):
    """Curves that fall to one place and rise from it, at any speed; the first is not walked."""
    least = np.minimum(least, n - 1)
    curves = np.zeros((n, len(least)))
    for target, place in enumerate(least):
        for at in [*range(place + 1, n), *range(place - 1, -1, -1)]:
            step = 1 if at > place else -1
            curves[at, target] = curves[at - step, target] + random.uniform(0.1, 1.0)
    asked = np.zeros(curves.shape, dtype=int)

    def errors(place, mine):
        asked[place, mine] += 1
        return curves[place, mine]

    begin = data.draw(st.lists(st.integers(0, n - 1), min_size=1, unique=True))
    wanted = np.zeros(curves.shape, dtype=bool)
    wanted[begin, 1:] = True
    made = np.full(curves.shape, np.inf)
    made[begin[0], 0] = curves[begin[0], 0]
    found = module.descend(errors, made, wanted, np.ones(len(least)))
    assert found[1:].tolist() == least[1:].tolist() and asked.max(initial=0) <= 1
    assert found[0] == begin[0] and not asked[:, 0].any(), "its walk does not begin"
    np.testing.assert_array_equal(made[asked > 0], curves[asked > 0])
    assert np.isfinite(made).sum() == 1 + asked.sum()


def refit(kernel, y, train, judged, penalty):
    """Errors on images left out of scikit-learn's kernel ridge regression with an intercept."""
    own, centre = kernel[np.ix_(train, train)], np.eye(train.sum()) - 1 / train.sum()
    ridge, middle = KernelRidge(alpha=penalty, kernel="precomputed"), y[train].mean(axis=0)
    ridge.fit(centre @ own @ centre, y[train] - middle)
    outer = (kernel[np.ix_(judged, train)] - own.mean(axis=0)) @ centre
    return y[judged] - middle - ridge.predict(outer)


def targets_of(a, logits, seed=0):
    """Targets (n, 4, 2), of which each is read best from other bands; the last one is noise."""
    rng, lead = np.random.default_rng(seed), (a - a.mean(axis=0)) / a.std(axis=0)
    made = [
        a @ rng.standard_normal((a.shape[1], 2)),
        np.cos(2 * lead[:, :2]),
        np.sqrt(scipy.special.softmax(logits, axis=1)[:, :2]),
        np.zeros((len(a), 2)),
    ]
    spread = [rows.std() or 1.0 for rows in made]
    noise = 0.3 * rng.standard_normal((len(made), len(a), 2))
    return np.stack([m / s + e for m, s, e in zip(made, spread, noise, strict=True)], axis=1)


def test_weights_are_those_of_the_least_error_of_scikit_learns_refits_for_each_target(monkeypatch):
    walked, descend = [], module.descend

    def watched(errors, made, wanted, scale):
        walked.append(made)
        return descend(errors, made, wanted, scale)

    monkeypatch.setattr(module, "descend", watched)
    a, logits = images_of(n=60, r=6)
    kernels, target, fold = dict(Bands(a, logits).among()), targets_of(a, logits), np.arange(60) % 4
    scale = np.ones(target.shape[1])
    flat, tried = target.reshape(60, -1), candidates()
    errors = np.empty((len(tried), len(module.PENALTIES[::2]), target.shape[1]))
    for at, place in np.ndindex(errors.shape[:2]):
        kernel = sum(weight * kernels[name] for name, weight in tried[at].items())
        missed = [
            refit(kernel, flat, fold != f, fold == f, module.PENALTIES[2 * place]) for f in range(4)
        ]
        squares = (np.concatenate(missed) ** 2).sum(axis=0)
        errors[at, place] = squares.reshape(-1, 2).sum(axis=1)
    best = errors.min(axis=1).argmin(axis=0)
    found = search_weights(kernels, target, fold, scale)
    assert found == [tried[place] for place in best]
    for made, wanted in zip(walked, errors, strict=True):
        known = np.isfinite(made)
        assert known.any(axis=0).all()
        np.testing.assert_allclose(made[known], wanted[known], rtol=1e-6)
    assert len(set(best)) == len(best), "every target has weights of its own"
    alone = [search_weights(kernels, target[:, [t]], fold, scale[:1])[0] for t in range(4)]
    assert found == alone == search_weights(kernels, target, fold, scale, threads=3)


def test_the_last_bits_of_a_processor_do_not_choose_weights():
    a, logits = images_of(n=60, r=4)
    a[:, 1:] *= 0.1  # what only whitened coordinates see
    lead = (a - a.mean(axis=0)) / a.std(axis=0)
    y = np.exp(-cdist(lead, lead[:6], "sqeuclidean") / 4)
    target, fold = np.stack([y, 0 * y, 1e-8 * y], axis=1), np.arange(60) % 4
    for seed in range(4):
        noise = 1e-9 * np.random.default_rng(seed).standard_normal(a.shape)
        kernels = dict(Bands(a * (1 + noise), logits).among())
        np.testing.assert_allclose(kernels["leading_rbf_8"], kernels["leading_rbf_4"])
        tied, zero, rounding = search_weights(kernels, target, fold, np.full(3, np.var(y) * 6))
        assert tied["leading_rbf_32"] == 1.0, "the first of three that are the same"
        assert zero == rounding == candidates()[0]
