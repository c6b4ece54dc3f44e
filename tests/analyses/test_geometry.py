import warnings

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from singflow.analyses import geometry
from singflow.analyses.floor import coordinate_axes
from singflow.analyses.geometry import null_energy, null_space, random_basis, remove_null
from singflow.artifacts.tensors import read_tensors
from singflow.translators.spans import of_span, row_span
from tests.refusals import refused
from tests.results import Results

SEEDS = st.integers(0, 2**32 - 1)
OFFSETS, UNITS = st.sampled_from([0, 1, 10000]), st.sampled_from([2**-10, 1, 2**10])
SPREADS = st.sampled_from([0.2, 1.0])


@st.composite
def heads(draw):
    classes, width = draw(st.integers(1, 24)), draw(st.integers(1, 24))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rank = draw(st.integers(0, min(classes, width)))
    left, _ = np.linalg.qr(generator.standard_normal((classes, classes)))
    right, _ = np.linalg.qr(generator.standard_normal((width, width)))
    weight = (left[:, :rank] * generator.uniform(0.1, 10, rank)) @ right[:, :rank].T
    if draw(st.booleans()) and classes > 1:
        weight[-1] = weight[0]
    if draw(st.booleans()):
        weight[draw(st.integers(0, classes - 1))] = 0
    return weight * draw(st.sampled_from([1e-6, 1.0, 1e6]))


@settings(max_examples=200)
@given(heads())
def test_rank_basis_and_projector_are_those_of_scipy(weight):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        split = null_space(weight)
    reference = scipy.linalg.null_space(weight)
    assert split.rank == np.linalg.matrix_rank(weight) == weight.shape[1] - reference.shape[1]
    assert split.basis.shape == reference.shape
    assert split.orthonormality_error <= 1e-12
    np.testing.assert_allclose(split.basis @ split.basis.T, reference @ reference.T, atol=1e-9)
    digits = 1e-12 * max(split.singular_values[0], 1e-300)
    np.testing.assert_allclose(split.singular_values, scipy.linalg.svdvals(weight), atol=digits)


@settings(max_examples=100)
@given(heads(), SEEDS)
def test_removing_the_null_component_leaves_the_logits_and_is_idempotent(weight, seed):
    features = np.random.default_rng(seed).standard_normal((5, weight.shape[1]))
    split = null_space(weight)
    equivalent = remove_null(features, split.basis)
    scale = max(1.0, float(np.linalg.norm(weight, 2)))
    assert geometry.logit_change(weight, features, equivalent).max() <= 1e-10 * scale
    np.testing.assert_allclose(remove_null(equivalent, split.basis), equivalent, atol=1e-12)
    share = np.sum((features - equivalent) ** 2, 1) / np.sum(features**2, 1)
    np.testing.assert_allclose(null_energy(features, split.basis), share, atol=1e-12)
    if split.basis.shape[1] == 0:
        assert np.array_equal(equivalent, features)
        assert not null_energy(features, split.basis).any()


def test_rules_energy_and_fixed_cut_at_the_first_singular_value_that_is_left_out():
    weight, turned = np.diag([3.0, 2.0, 1.0]), random_basis(5, 5, 0, 0)
    for share, rank in {0.5: 1, 9 / 14: 1, 0.7: 2, 13 / 14: 2, 0.95: 3, 1.0: 3}.items():
        assert null_space(np.pad(weight, (0, 1)), "energy", energy=share).rank == rank
    assert null_space(np.zeros((3, 2)), "energy", energy=0.9).rank == 0
    cuts = [("energy", {"energy": 0.7}, 2), ("energy", {"energy": 1.0}, 3)]
    for rule, options, rank in [*cuts, *(("fixed", {"rank": rank}, rank) for rank in (1, 2, 3))]:
        split = null_space(weight @ turned[:3], rule, **options)
        assert split.rank == rank and split.tolerance == pytest.approx(3 - rank, abs=1e-12)
        for basis, rows in ((split.principal, turned[:rank]), (split.basis, turned[rank:])):
            np.testing.assert_allclose(basis @ basis.T, rows.T @ rows, atol=1e-12)


def test_the_null_energy_of_a_feature_shorter_than_any_square_is_zero_and_the_features_type_is_kept():  # noqa: E501
    feature = np.full((1, 3), 1e-30, dtype=np.float32)
    assert null_energy(np.zeros((1, 3)), np.eye(3)) == 0
    assert null_energy(feature, np.eye(3)) == pytest.approx(1)
    assert remove_null(feature, np.eye(3)[:, :1]).dtype == np.float32


@settings(max_examples=50)
@given(heads(), SEEDS)
def test_rule_centered_is_what_softmax_cannot_see(weight, seed):
    split = null_space(weight, "centered")
    features = np.random.default_rng(seed).standard_normal((4, weight.shape[1]))
    change = (remove_null(features, split.basis) - features) @ weight.T
    scale = max(1.0, float(np.linalg.norm(weight, 2)))
    assert np.abs(change - change.mean(axis=1, keepdims=True)).max() <= 1e-10 * scale
    assert split.rank == np.linalg.matrix_rank(weight - weight.mean(0), tol=split.tolerance)
    assert split.basis.shape[1] >= null_space(weight).basis.shape[1]
    assert null_space(np.full((7, 5), 0.1), "centered").rank == 0, "equal rows"


PRECISIONS = ["bfloat16", "float16", "float32"]


def stored_in(precision, weight):
    """The weight as it comes from a checkpoint of this precision: float32, each value rounded."""
    return torch.from_numpy(weight).to(getattr(torch, precision)).float().numpy()


def planted(last, classes=12, width=20):
    """A head of known singular values in float64, all of them 1 but the smallest."""
    values = np.diag([1.0] * (classes - 1) + [last])
    return random_basis(classes, classes, 0, 1) @ values @ random_basis(width, classes, 0, 2).T


# the ranks by the smallest singular value; the tolerance of float32 is 20 * 2^-23
SMALLEST = dict.fromkeys([0.9 * 20 * 2**-23, 1e-7, 1e-11], (11, 12))
SMALLEST |= {1.1 * 20 * 2**-23: (12, 12), 1e-16: (11, 11), 0.0: (11, 11)}


@pytest.mark.parametrize(("last", "ranks"), SMALLEST.items())
def test_rule_exact_has_the_rank_of_float32_and_rule_exact64_that_of_float64(last, ranks):
    splits = [null_space(planted(last), rule, stored="float32") for rule in ("exact", "exact64")]
    for split, rank, dtype in zip(splits, ranks, (np.float32, np.float64), strict=True):
        assert (split.rank, split.rank_stored, split.rank_float64) == (rank, *ranks)
        assert split.basis.shape == (20, 20 - rank) and split.principal.shape == (20, rank)
        assert split.tolerance == pytest.approx(20 * np.finfo(dtype).eps)  # S_1 is 1
    of_exact, of_exact64 = (split.basis @ split.basis.T for split in splits)
    direction = (ranks[1] - ranks[0]) * random_basis(20, 12, 0, 2)[:, -1]
    np.testing.assert_allclose(of_exact - of_exact64, np.outer(direction, direction), atol=1e-4)
    for rule in ("energy", "fixed", "centered"):
        split = null_space(planted(last), rule, energy=0.5, rank=3, stored="float32")
        assert (split.rank_stored, split.rank_float64) == ranks and split.rank <= 11


@settings(max_examples=100)
@given(heads())
def test_float32_is_the_arrays_own_precision_and_its_rank_numpys(weight):
    single = weight.astype(np.float32)
    split = null_space(single)
    wide, rtol = single.astype(np.float64), max(weight.shape) * np.finfo(np.float32).eps
    assert split.rank == split.rank_stored == np.linalg.matrix_rank(wide, rtol=rtol)
    rank = np.linalg.matrix_rank(wide)
    assert split.rank_float64 == null_space(wide).rank == rank
    assert null_space(single, "exact64").rank == rank


@settings(max_examples=100)
@given(st.sampled_from(PRECISIONS), st.integers(6, 40), st.integers(0, 40), SEEDS, SPREADS)
def test_a_head_whose_rows_sum_to_zero_but_for_the_rounding_of_its_weights_loses_that_direction(
    precision, classes, more, seed, spread
):
    generator = np.random.default_rng(seed)
    weight = generator.standard_normal((classes, classes + more + 4))
    weight *= generator.uniform(spread, 1, (classes, 1))
    single = stored_in(precision, weight - weight.mean(axis=0))
    split = null_space(single, stored=precision)
    assert (split.rank, split.rank_float64) == (classes - 1, classes)
    assert null_space(single, "exact64", stored=precision).rank == classes


@pytest.mark.parametrize(("precision", "eps"), [("bfloat16", 2.0**-7), ("float16", 2.0**-10)])
def test_the_tolerance_of_half_precision_is_the_norm_of_the_rounding_errors(precision, eps):
    weight = np.random.default_rng(0).standard_normal((300, 500))
    tolerance = null_space(weight, stored=precision).tolerance
    expected = eps / 2 * np.linalg.norm(weight) * (300**-0.5 + 500**-0.5)
    assert tolerance == pytest.approx(expected)
    errors = weight * np.random.default_rng(1).uniform(-eps / 2, eps / 2, weight.shape)
    assert 0.4 * tolerance < np.linalg.norm(errors, ord=2) < tolerance


def test_what_is_no_head_or_has_no_such_rank_or_precision_is_refused():
    eye, known = np.eye(3), "bfloat16, float16, float32, float64"
    most = r"projector\.rank is 4, but a head of shape \(3, 3\) has at most 3"
    empty, flat = np.zeros((0, 3)), np.zeros(3)
    not_finite = (np.array([[1.0, np.nan]]), np.array([[np.inf, 1.0]]))
    for weight, options, said in (
        (eye, {"rule": "fixed", "rank": 4}, most),
        (eye, {"stored": "float8_e4m3fn"}, f"stored in float8_e4m3fn, not in {known}"),
        (eye.astype(int), {}, f"stored in int64, not in {known}"),
        *((weight, {}, "finite, non-empty matrix") for weight in (empty, flat, *not_finite)),
    ):
        refused(said, null_space, weight, **options)


@pytest.mark.parametrize(("rule", "rank"), [("exact", 11), ("exact64", 12)])
def test_the_script_records_both_ranks_whichever_counts(tmp_path, rule, rank):
    generator, results = np.random.default_rng(0), Results(tmp_path, shards=2)
    weight = generator.standard_normal((12, 20))
    weight = (weight - weight.mean(axis=0)).astype(np.float32)
    results.manifest(label=["a"] * 6)
    facts = {"weights_sha256": "0", "weight_dtype": "float32"}
    results.tensors("head", facts, weight=weight, bias=np.zeros(12, np.float32))
    rows = generator.standard_normal((6, 20)).astype(np.float32)
    for shard, top1 in enumerate(("null", "0.5")):
        ids, facts = np.repeat(np.arange(3) + 3 * shard, 2), {"top1": top1, "weights_sha256": "0"}
        facts["top1_images"] = str(2 * shard)
        results.shard("features", shard, rows[ids], ids, np.tile([0, 1], 3), **facts)
    results.run("fit_projector", rule=rule, energy=0.99, rank=None)
    tensors, _ = read_tensors(results.path("projector"), ["singular_values", "null_basis"])
    report = results.read("projector_report")
    expected = {"rank": rank, "rank_stored": 11, "rank_float64": 12, "null_dim": 20 - rank}
    expected |= {"top1": 0.5, "top1_images": 2}
    assert report.items() >= (expected | {"weight_dtype": "float32", "rule": rule}).items()
    eps = np.finfo(np.float32 if rule == "exact" else np.float64).eps
    assert report["tolerance"] == pytest.approx(20 * eps * tensors["singular_values"][0])
    assert tensors["null_basis"].shape == (20, 20 - rank) and report["max_logit_change"] < 1e-5


@settings(max_examples=50)
@given(st.integers(1, 30), st.data(), SEEDS)
def test_a_subspace_and_its_complement_are_orthogonal_and_make_up_the_space(width, data, seed):
    dimension = data.draw(st.integers(0, width))
    basis = random_basis(width, dimension, seed, 0)
    before, rest = basis.copy(), geometry.complement(basis)
    assert rest.shape == (width, width - dimension)
    np.testing.assert_allclose(rest.T @ rest, np.eye(width - dimension), atol=1e-12)
    np.testing.assert_allclose(rest @ rest.T + basis @ basis.T, np.eye(width), atol=1e-12)
    np.testing.assert_array_equal(basis, before)


@settings(max_examples=100)
@given(st.integers(2, 40), st.data(), SEEDS, OFFSETS, UNITS)
def test_the_span_of_few_rows_is_that_of_their_differences_and_keeps_every_ridge_regression(
    width, data, seed, offset, unit
):
    n = data.draw(st.integers(1, width - 1))
    rank = data.draw(st.integers(0, n - 1))
    cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=3)))
    generator = np.random.default_rng(seed)
    varying = generator.integers(-9, 10, (n, rank)) @ generator.integers(-9, 10, (rank, width))
    features = unit * (varying + offset * generator.integers(-2, 3, width)).astype(np.float32)
    differences = features.astype(np.float64) - features[0]
    basis = row_span(np.split(features, cuts))
    assert basis.dtype == np.float64
    assert basis.shape == (width, np.linalg.matrix_rank(differences))
    np.testing.assert_allclose(basis.T @ basis, np.eye(basis.shape[1]), atol=1e-12)
    np.testing.assert_allclose(differences @ basis @ basis.T, differences, atol=1e-11 * unit)
    reference = scipy.linalg.orth(differences.T)
    np.testing.assert_allclose(basis @ basis.T, reference @ reference.T, atol=1e-9)
    if not basis.shape[1]:
        return
    embeddings = generator.standard_normal((n, 3))
    wide = features.astype(np.float64)
    for alpha in (1e-2, 1.0, 1e2):
        inside = Ridge(alpha=alpha * unit**2, solver="svd").fit(features @ basis, embeddings)
        plain = Ridge(alpha=alpha * unit**2, solver="svd").fit(wide, embeddings)
        np.testing.assert_allclose(inside.coef_ @ basis.T * unit, plain.coef_ * unit, atol=1e-8)
        found, expected = inside.predict(features @ basis), plain.predict(wide)
        np.testing.assert_allclose(found, expected, atol=1e-7)


def test_as_many_rows_as_dimensions_are_left_as_they_are_and_no_more_are_looked_at():
    rows = np.random.default_rng(0).standard_normal((7, 6)).astype(np.float32)
    assert row_span(np.split(rows[:5], [2, 2])).shape == (6, 4)
    assert row_span([rows[:6]]) is row_span(np.split(rows, [2, 2, 5])) is None

    def enough():
        yield from (rows[:4], rows[4:6])
        raise AssertionError("six rows were enough")

    assert row_span(enough()) is None


@pytest.mark.parametrize(("n", "ranks"), [(3, (2, 2)), (5, (4, 4)), (30, (6, 4))])
def test_coordinate_axes_keep_every_difference_between_features(n, ranks):
    rng = np.random.default_rng(n)
    basis = random_basis(10, 4, 0, 0)
    features = (5 + rng.standard_normal((n, 10))).astype(np.float32)
    axes, rank = coordinate_axes(
        geometry.complement(basis), basis, lambda: np.array_split(features, 3)
    )
    assert axes.dtype == np.float32 and axes.shape == (10, sum(ranks)) and rank == ranks[0]
    np.testing.assert_allclose(axes.T @ axes, np.eye(sum(ranks)), atol=1e-6)
    np.testing.assert_allclose(axes[:, :rank].T @ basis, 0, atol=1e-6)
    differences = features - features.mean(axis=0)
    for part, own in ((basis, axes[:, rank:]), (geometry.complement(basis), axes[:, :rank])):
        expected = differences @ part @ part.T
        np.testing.assert_allclose(differences @ own @ own.T, expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(5, 12), (40, 48), (3, 300)])
def test_a_basis_follows_from_its_span_and_not_from_signs_and_rotations(shape):
    generator = np.random.default_rng(0)
    split, k = null_space(generator.standard_normal(shape)), shape[1] - shape[0]
    turned = split.basis @ scipy.linalg.qr(generator.standard_normal((k, k)))[0]
    assert np.abs(turned - split.basis).max() > 0.1
    for basis in (split.basis, turned, -turned[:, ::-1]):
        found = of_span(basis)
        np.testing.assert_allclose(found, split.basis, atol=1e-9)
        np.testing.assert_allclose(found.T @ found, np.eye(k), atol=1e-12)
    assert np.abs(split.principal.T @ split.basis).max() < 1e-12
    assert of_span(np.zeros((4, 0))).shape == (4, 0)
