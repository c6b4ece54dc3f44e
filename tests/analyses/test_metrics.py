import warnings

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from singflow.analyses.geometry import null_space, remove_null
from singflow.analyses.metrics import (
    Removal,
    angle_deg,
    angles_to_all_deg,
    contrast_deg,
    remove,
    rescale,
    subspace_translator,
    unit,
)
from singflow.translators.ridge import Affine
from tests.refusals import refused


def single(generator, *shape):
    """Normal numbers in float32."""
    return generator.standard_normal(shape).astype(np.float32)


def exact_angle(a, b):
    with mpmath.workdps(60):
        a, b = [mpmath.mpf(float(x)) for x in a], [mpmath.mpf(float(x)) for x in b]
        norm = mpmath.sqrt(mpmath.fdot(a, a) * mpmath.fdot(b, b))
        return float(mpmath.degrees(mpmath.acos(mpmath.fdot(a, b) / norm)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "turn",
    [0.0, 1e-12, 1e-7, 1e-5, 1e-3, 0.1, 1.0, np.pi / 2, 3.0, np.pi - 1e-5, np.pi - 1e-9, np.pi],
)
def test_angles_are_mpmaths_from_identical_to_antipodal(dtype, turn):
    generator = np.random.default_rng(7)
    plane, _ = np.linalg.qr(generator.standard_normal((768, 2)))
    a = (11.0 * plane[:, 0]).astype(dtype)
    b = (0.3 * (np.cos(turn) * plane[:, 0] + np.sin(turn) * plane[:, 1])).astype(dtype)
    assert abs(float(angle_deg(a[None], b[None])[0]) - exact_angle(a, b)) <= 1e-5


@settings(max_examples=100)
@given(st.integers(0, 2**32 - 1), st.integers(2, 30), st.floats(1e-20, 1e20))
def test_angles_are_symmetric_ignore_length_and_are_exact_at_0_and_180_degrees(seed, dim, scale):
    a, b = np.random.default_rng(seed).standard_normal((2, 3, dim))
    np.testing.assert_allclose(angle_deg(a, b), angle_deg(b, a * scale), atol=1e-9)
    assert ((angle_deg(a, b) >= 0) & (angle_deg(a, b) <= 180)).all()
    for vectors in (a, a.astype(np.float32)):
        assert not angle_deg(vectors, vectors).any()
        assert (angle_deg(vectors, -vectors) == 180.0).all()


@settings(max_examples=50)
@given(st.integers(1, 12), st.integers(1, 16), st.integers(2, 10), st.integers(0, 2**32 - 1))
def test_the_folded_translator_scores_as_the_projector_does_in_the_precision_of_the_features(
    classes, width, dim, seed
):
    generator = np.random.default_rng(seed)
    basis = null_space(generator.standard_normal((classes, width))).basis
    translator = Affine(generator.standard_normal((dim, width)), generator.standard_normal(dim))
    features, texts = generator.standard_normal((6, width)), generator.standard_normal((6, dim))
    removal = remove(features, translator, subspace_translator(translator, basis))
    equivalent = translator(remove_null(features, basis))
    np.testing.assert_allclose(removal.equivalent, equivalent, atol=1e-10)
    original = translator(features)
    np.testing.assert_allclose(removal.image_score(), angle_deg(original, equivalent), atol=1e-5)
    expected = angle_deg(original, texts) - angle_deg(equivalent, texts)
    np.testing.assert_allclose(removal.attribute_score(texts), expected, atol=1e-9)
    assert removal.original.dtype == removal.removed.dtype == np.float64
    single = remove(features.astype(np.float32), translator, subspace_translator(translator, basis))
    assert single.original.dtype == single.removed.dtype == np.float32


@pytest.mark.parametrize("share", [1e-12, 1e-6, 1e-3, 0.3, 1.0, 1.7, 1 - 1e-3, 1 - 1e-5])
@pytest.mark.parametrize("turn", [0.0, 1e-9, 1e-4, 0.7, np.pi / 2])
def test_scores_of_parts_from_tiny_to_nearly_everything_and_in_any_direction_are_mpmaths(
    share, turn
):
    generator = np.random.default_rng(1)
    plane, _ = np.linalg.qr(generator.standard_normal((768, 2)))
    original = (30.0 * (plane[:, 0] + np.full(768, 1e-3))).astype(np.float32)
    removed = share * (np.cos(turn) * original + 30.0 * np.sin(turn) * plane[:, 1])
    removed = removed.astype(np.float32)
    if share == 1.0 and turn < 1e-6:
        removed *= np.float32(0.5)
    equivalent = original.astype(np.float64) - removed
    removal = Removal(original[None], removed[None])
    expected = exact_angle(original, equivalent)
    assert abs(removal.image_score()[0] - expected) <= 1e-6 + 1e-9 * expected
    for text in (original, equivalent, -equivalent, generator.standard_normal(768)):
        before, after = removal.angles(text[None])
        assert abs(before[0] - exact_angle(original, text)) <= 2e-6
        assert abs(after[0] - exact_angle(equivalent, text)) <= 2e-6
        assert removal.attribute_score(text[None])[0] == before[0] - after[0]


def test_angles_to_and_scores_of_a_row_without_a_direction_are_refused():
    rows, nothing = np.ones((2, 3), np.float32), np.float32([[1, 1, 1], [0, 0, 0]])
    for score in (
        lambda: unit(np.array([[1.0, 0.0], [0.0, 0.0]])),
        Removal(nothing, nothing / 2).image_score,
        Removal(rows, nothing).image_score,  # nothing is left of the first
        lambda: Removal(rows, rows / 2).attribute_score(nothing),
        lambda: Removal(nothing, np.ones_like(rows)).attribute_score(rows),
        lambda: Removal(rows, nothing).attribute_score(rows),
    ):
        refused("zero vector is undefined", score)


def test_without_a_null_space_both_scores_are_exactly_zero_and_nothing_warns():
    generator = np.random.default_rng(0)
    weight = generator.standard_normal((20, 8))
    translator = Affine(single(generator, 5, 8), single(generator, 5))
    features, texts = single(generator, 6, 8), generator.standard_normal((6, 5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nothing = subspace_translator(translator, null_space(weight).basis)
        removal = remove(features, translator, nothing)
        assert not removal.image_score().any()
        assert not removal.attribute_score(texts).any()


def test_angles_to_all_agree_with_angles_of_pairs():
    generator = np.random.default_rng(0)
    embeddings = generator.standard_normal((9, 384)) + 0.2
    texts = unit(generator.standard_normal((7, 384)) + 0.2)
    pairs = [angle_deg(embeddings, text) for text in texts]
    units, texts = unit(embeddings).astype(np.float32), texts.astype(np.float32)
    np.testing.assert_allclose(angles_to_all_deg(units, texts), np.transpose(pairs), atol=1e-4)
    beyond = np.float32([[1 + 1e-6]])  # as rounding leaves the norm of a unit vector
    np.testing.assert_array_equal(angles_to_all_deg(beyond, np.float32([[1], [-1]])), [[0, 180]])


def test_contrastive_as_is_as_toward_the_own_label_less_the_mean_over_all_others():
    generator = np.random.default_rng(0)
    original, removed = generator.standard_normal((6, 16)), 0.3 * generator.standard_normal((6, 16))
    texts, own = unit(generator.standard_normal((4, 16))), np.array([0, 1, 2, 3, 0, 2])
    moved = [angle_deg(original, t) - angle_deg(original - removed, t) for t in texts]
    expected = [
        scores[label] - np.delete(scores, label).mean()
        for scores, label in zip(np.transpose(moved), own, strict=True)
    ]
    removal, texts = Removal(original, removed), texts.astype(np.float32)
    np.testing.assert_allclose(contrast_deg(removal, texts, own), expected, atol=1e-6)
    assert np.isnan(contrast_deg(removal, texts[:1], np.zeros(6, int))).all()


rows = npst.arrays(np.float64, (3, 5), elements=st.floats(-1e3, 1e3)).filter(
    lambda vectors: (np.linalg.norm(vectors, axis=1) > 1e-3).all()
)


@given(rows, rows)
def test_rescaled_embeddings_have_the_norms_of_the_originals_and_their_own_directions(
    equivalent, original
):
    result = rescale(equivalent, original)
    found, norms, wanted = (np.linalg.norm(v, axis=1) for v in (result, equivalent, original))
    np.testing.assert_allclose(found, wanted, rtol=1e-12)
    directions = result / found[:, None], equivalent / norms[:, None]
    np.testing.assert_allclose(*directions, rtol=0, atol=1e-12)
    np.testing.assert_allclose(rescale(result, equivalent), equivalent, rtol=1e-12, atol=1e-300)
    narrow = equivalent.astype(np.float32), original.astype(np.float32)  # are rescaled in double
    wanted = rescale(*(vectors.astype(np.float64) for vectors in narrow))
    for moved in (narrow, (narrow[0].astype(np.float64), narrow[1])):
        np.testing.assert_array_equal(rescale(*moved), wanted, strict=True)


def test_embeddings_without_a_direction_and_those_that_do_not_belong_together_are_refused():
    good, bad, nan = np.ones((2, 3)), np.array([[1.0, 0, 0], [0, 0, 0]]), np.ones((2, 3))
    nan[0, 0] = np.nan
    shapes = r"are \(2, 3\) and original ones \(1, 3\): both must be the same \(n, m\)$"
    for equivalent, original, said in (
        (bad, good, r"equivalent embedding 1 has norm 0\.0, so no direction"),
        (good, bad, r"original embedding 1 has norm 0\.0, so no direction"),
        (nan, good, "equivalent embedding 0 has norm nan"),
        (good, good[:1], shapes),
    ):
        refused(said, rescale, equivalent, original)
