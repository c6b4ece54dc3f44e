"""Controls of null removal: what is drawn, removed and scored, against projections and angles."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from singflow.analyses import controls
from singflow.analyses.controls import Case, ControlScores, Subspace, cases, draw_subspace, matched
from singflow.analyses.geometry import null_space, random_basis
from singflow.analyses.metrics import Removal, angle_deg, contrast_deg, remove
from singflow.artifacts.tables import write_parquet
from singflow.artifacts.tensors import read_tensors
from singflow.translators.ridge import Affine
from tests.results import Results

WIDTH, CLASSES, DIM = 24, 15, 7
IDENTITY = Affine(np.eye(WIDTH), np.zeros(WIDTH))


def projector_of(subspace, translator):
    """The projector P of a subspace, from the share T P of a translator with invertible T."""
    share = subspace.project(translator)
    assert share.weight.dtype == share.bias.dtype == np.float64 and not share.bias.any()
    return np.linalg.solve(translator.weight, share.weight)


SIZES = {"null": [(4, False), (9, True)], "row": [(9, False), (15, True)]}
SIZES |= {"random": [(9, False), (17, False)]}
CASES = [Case(kind, *size) for kind in SIZES for size in SIZES[kind]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES)
def test_a_control_is_an_orthogonal_projection_of_its_dimension_inside_its_space(case, dtype):
    generator = np.random.default_rng(1)
    basis = null_space(generator.standard_normal((CLASSES, WIDTH))).basis
    weight, bias = (generator.standard_normal(shape) for shape in ((WIDTH, WIDTH), WIDTH))
    translator = Affine(weight, bias).astype(dtype)
    drawn = draw_subspace(basis, case, seed=0, draw=3)
    projector = projector_of(drawn, translator)
    np.testing.assert_allclose(projector @ projector, projector, atol=1e-10)
    np.testing.assert_allclose(projector.T, projector, atol=1e-10)
    assert np.trace(projector) == pytest.approx(case.dimension)
    null = basis @ basis.T
    whole = {"null": null, "row": np.eye(WIDTH) - null, "random": np.eye(WIDTH)}[case.subspace]
    np.testing.assert_allclose(whole @ projector, projector, atol=1e-10)
    again, other = (draw_subspace(basis, case, seed=0, draw=draw) for draw in (3, 4))
    assert (again.project(translator).weight == drawn.project(translator).weight).all()
    assert np.allclose(projector_of(other, translator), projector) == case.single
    features = 10 * generator.standard_normal((9, WIDTH)).astype(dtype)
    expected = np.linalg.norm(features.astype(np.float64) @ projector, axis=1)
    digits = 1e-5 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(drawn.length(features), expected, rtol=digits)
    assert drawn.length(features).dtype == np.float64


@pytest.mark.parametrize("dimension", [3, 20])
def test_random_subspaces_are_uniform_also_as_complements_of_smaller_ones(dimension):
    case, nothing = Case("random", dimension, False), np.zeros((WIDTH, 0))
    drawn = (draw_subspace(nothing, case, 0, draw) for draw in range(600))
    mean = np.mean([subspace.project(IDENTITY).weight for subspace in drawn], axis=0)
    np.testing.assert_allclose(mean, np.eye(WIDTH) * dimension / WIDTH, atol=0.06)


def test_the_cases_are_the_dimensions_that_fit_and_the_null_spaces_own():
    listed, kinds = cases(24, 9, [4, 8, 9, 16]), ("null", "random", "row")
    wanted = {(kind, d) for kind in kinds for d in (4, 8, 9)}
    assert {(case.subspace, case.dimension) for case in listed} == wanted
    assert [case for case in listed if case.single] == [Case("null", 9, True)]
    assert Case("row", 5, True) in cases(20, 15, [5])
    assert "row" not in {case.subspace for case in cases(20, 15, [8])}
    assert cases(24, 0, [4, 8]) == [] and len(controls.empty_table()) == 0


def test_scores_are_means_over_draws_with_their_spread_and_missing_where_nothing_was_matched():
    generator = np.random.default_rng(0)
    original, texts = generator.standard_normal((2, 6, DIM))
    taken, same = 0.3 * generator.standard_normal((2, 4, 6, DIM))
    scores = ControlScores(6)
    for plain, matching in zip(taken, same, strict=True):
        for part in (np.array([4, 0]), np.array([1, 2, 3, 5])):
            scores.update(part, Removal(original[part], plain[part]), texts[part])
            part = part[part != 1]
            scores.update_matched(part, Removal(original[part], matching[part]), texts[part])
        scores.end_draw()
    order = np.array([5, 4, 3, 2, 1, 0])
    table = scores.table(order, Case("random", 5, False))
    assert table["image_id"].tolist() == order.tolist()
    table = table.sort_values("image_id")

    def angles(removed):
        moved, before = original - removed, angle_deg(original, texts)
        both = [(angle_deg(original, rows), before - angle_deg(rows, texts)) for rows in moved]
        return np.array(both)

    found, matching = angles(taken), angles(same)
    found = np.concatenate([found, np.abs(found[:, 1:])], axis=1)
    plain = table[["is_deg", "as_deg", "as_abs_deg"]].to_numpy().T
    np.testing.assert_allclose(plain, found.mean(axis=0))
    spread = found.mean(axis=2).std(axis=0, ddof=1)
    np.testing.assert_allclose(scores.spread_deg, spread)
    assert scores.error_deg == pytest.approx(spread[0] / 2) and scores.draws == 4
    seen, expected = table[["matched_is_deg", "matched_as_deg"]].to_numpy().T, matching.mean(axis=0)
    expected[:, 1] = np.nan
    np.testing.assert_allclose(seen, expected)


SEEDS, PRECISIONS = st.integers(0, 2**32 - 1), st.sampled_from([np.float32, np.float64])


@settings(max_examples=50)
@given(st.integers(2, 30), st.data(), SEEDS, PRECISIONS)
def test_matched_removal_takes_as_much_as_the_null_space_has_in_the_drawn_direction(
    width, data, seed, dtype
):
    null_dim = data.draw(st.integers(1, width))
    others = [case for case in cases(width, null_dim, []) if case.subspace != "null"]
    case, generator = data.draw(st.sampled_from(others)), np.random.default_rng(seed)
    basis = random_basis(width, null_dim, seed, 0)
    scales = generator.uniform(0.1, 10, width)
    features = (generator.standard_normal((8, width)) * scales).astype(dtype)
    translator = Affine(np.eye(width), generator.standard_normal(width))
    drawn = draw_subspace(basis, case, 0, 0)
    removal = remove(features, translator, drawn.project(translator))
    same = matched(removal, Subspace(basis).length(features), drawn.length(features))
    wide = features.astype(np.float64)
    taken = wide @ projector_of(drawn, Affine(np.eye(width), np.zeros(width)))
    norms = np.linalg.norm(wide @ basis, axis=1)
    # a part of a feature is what is left of a difference of squares
    digits = 32 * np.finfo(dtype).eps * np.vecdot(wide, wide) / np.vecdot(taken, taken)
    assert (np.abs(np.linalg.norm(same.removed, axis=1) / norms - 1) <= digits).all()
    cosines = np.vecdot(same.removed, taken) / (norms * np.linalg.norm(taken, axis=1))
    assert (np.abs(cosines - 1) <= digits).all()
    np.testing.assert_array_equal(same.original, removal.original)


def test_matched_removal_is_nothing_where_the_drawn_part_is_zero_and_where_the_null_part_is():
    generator = np.random.default_rng(0)
    basis, drawn = np.eye(WIDTH)[:, :5], Subspace(np.eye(WIDTH)[:, 5:10])
    features = generator.standard_normal((3, WIDTH))
    features[0, 5:10], features[1, :5] = 0, 0
    translator = Affine(generator.standard_normal((DIM, WIDTH)), np.ones(DIM))
    removal = remove(features, translator, drawn.project(translator))
    same = matched(removal, Subspace(basis).length(features), drawn.length(features))
    assert not same.removed[:2].any() and same.removed[2].all()
    assert (same.image_score() == 0).tolist() == [True, True, False]
    assert not same.attribute_score(generator.standard_normal((3, DIM)))[:2].any()


def study(folder, basis, features, translator, labels, texts, of_folds=()):
    """Inputs of measure_controls, in two shards."""
    results, n = Results(folder, shards=2), len(features)
    fold = np.arange(n) % max(1, len(of_folds))
    split = np.where(fold, "train", "validation")
    results.manifest(label=labels, class_index=5, fold=fold, split=split)
    results.rows("features", features.astype(np.float32))
    results.tensors("projector", null_basis=basis)
    generator = np.random.default_rng(5)
    weight = generator.standard_normal((CLASSES, WIDTH)) @ (np.eye(WIDTH) - basis @ basis.T)
    head = {"weight": weight.astype(np.float32), "bias": generator.standard_normal(CLASSES)}
    results.tensors("head", {"class_names": "null"}, **head)
    results.translator(translator, of_folds)
    results.texts({"labels": sorted(set(labels))}, label_embeddings=texts.astype(np.float32))
    names = ["floor_is_deg", "conditional_is_deg", "conditional_as_deg"]
    evidence = pd.DataFrame(generator.uniform(size=(n, 3)), columns=names)
    write_parquet(results.path("evidence_images"), evidence.rename_axis("image_id").reset_index())
    return results


def measure(results, *, dimensions=(), draws=(12, 12), tolerance=1e-6):
    how = {"min_draws": draws[0], "max_draws": draws[1], "tolerance_deg": tolerance}
    results.run("measure_controls", dimensions=list(dimensions), seed=0, **how)
    return results.read("controls"), results.read("controls_report")


def planted(strength_null, strength_row, n=200, seed=0):
    """Features whose translation depends differently on null space and row space."""
    generator = np.random.default_rng(seed)
    basis = null_space(generator.standard_normal((CLASSES, WIDTH))).basis
    null = basis @ basis.T
    strengths = strength_null * null + strength_row * (np.eye(WIDTH) - null)
    mixing = generator.standard_normal((DIM, WIDTH)) @ strengths
    translator = Affine(mixing.astype(np.float32), np.zeros(DIM, np.float32))
    features, labels = generator.standard_normal((n, WIDTH)), [f"label {i % 8}" for i in range(n)]
    return basis, features, translator, np.array(labels), generator.standard_normal((8, DIM))


def test_drawing_goes_on_until_the_mean_is_stable_and_says_when_it_never_was(tmp_path):
    results = study(tmp_path, *planted(1.0, 1.0, n=40))
    table, report = measure(results, dimensions=[2, 50], draws=(3, 30), tolerance=1.5)
    by_case = {(case["subspace"], case["dimension"]): case for case in report["cases"]}
    assert set(by_case) == {(kind, d) for kind in ("null", "random", "row") for d in (2, 9)}
    assert all(case["stable"] == (case["is_error_deg"] <= 1.5) for case in report["cases"])
    draws = {case: found["draws"] for case, found in by_case.items()}
    assert draws.pop(("null", 9)) == 1 and min(draws.values()) >= 3
    assert set(draws.values()) - {3, 30}, "some stop between the least and the most"
    assert set(table.groupby(["subspace", "dimension"]).size()) == {40}
    again, _ = measure(results, dimensions=[2, 50], draws=(3, 30), tolerance=1.5)
    pd.testing.assert_frame_equal(table, again)
    _, unstable = measure(results, draws=(2, 3), tolerance=1e-9)
    assert [case["draws"] for case in unstable["cases"] if not case["stable"]] == [3, 3]


def test_every_image_is_scored_by_the_translator_that_did_not_see_it_in_controls_and_null_removal(
    tmp_path,
):
    basis, features, translator, labels, texts = planted(1.0, 1.0, n=30)
    factors = np.random.default_rng(1).uniform(0.2, 2, (3, DIM, 1)).astype(np.float32)
    weights = [factor * translator.weight for factor in factors]
    of_folds = [Affine(weight, np.full(DIM, k, np.float32)) for k, weight in enumerate(weights)]
    results = study(tmp_path, basis, features, translator, labels, texts, of_folds)
    table, report = measure(results, draws=(3, 3))
    label = np.unique(labels, return_inverse=True)[1]
    own = texts[label]

    def translated(rows):
        return np.stack([of_folds[image % 3](row[None])[0] for image, row in enumerate(rows)])

    def scores(removed):
        before, after = translated(features), translated(features - removed)
        return np.array([angle_deg(before, after), angle_deg(before, own) - angle_deg(after, own)])

    null_norm = np.linalg.norm(features @ basis, axis=1, keepdims=True)
    draws = {"null": 1, "random": 3, "row": 3}
    assert {case["subspace"]: case["draws"] for case in report["cases"]} == draws
    for kind, mine in table.sort_values("image_id").groupby("subspace"):
        case = Case(kind, 9, kind == "null")
        drawn = [draw_subspace(basis, case, 0, draw) for draw in range(draws[kind])]
        taken = [subspace.project(IDENTITY)(features) for subspace in drawn]
        same = [part * null_norm / np.linalg.norm(part, axis=1, keepdims=True) for part in taken]
        for parts, prefix in ((taken, ""), (same, "matched_")):
            expected = np.mean([scores(part) for part in parts], axis=0)
            if prefix and kind == "null":
                expected[:] = np.nan
            found = mine[[f"{prefix}is_deg", f"{prefix}as_deg"]].T
            np.testing.assert_allclose(found, expected, atol=1e-3)

    found, evidence = results.read("scores"), results.read("evidence_images")
    before, after = translated(features), translated(features - features @ basis @ basis.T)
    angles = angle_deg(before, own), angle_deg(after, own)
    head, _ = read_tensors(results.path("head"), ["weight", "bias"])
    logits = features.astype(np.float32) @ head["weight"].T + head["bias"]
    expected = {
        "is_deg": angle_deg(before, after),
        "as_deg": angles[0] - angles[1],
        "angle_original_deg": angles[0],
        "angle_equivalent_deg": angles[1],
        "as_contrast_deg": contrast_deg(Removal(before, before - after), texts, label),
        "null_energy": ((features @ basis) ** 2).sum(axis=1) / (features**2).sum(axis=1),
        "logit_change": 0,
        "fold": np.arange(30) % 3,
        "class_index": 5,
        "predicted_index": logits.argmax(axis=1),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=1e-3, err_msg=name)
    assert found["label"].tolist() == labels.tolist()
    random = table[table["subspace"] == "random"].set_index("image_id")
    for name in ("is_deg", "as_deg"):
        np.testing.assert_array_equal(found[f"control_{name}"], random[name])
        np.testing.assert_array_equal(found[f"matched_{name}"], random[f"matched_{name}"])
    pd.testing.assert_frame_equal(found[evidence.columns], evidence)


def test_a_head_without_null_space_has_no_controls_and_loses_nothing(tmp_path):
    _, *rest = planted(1.0, 1.0, n=30)
    results = study(tmp_path, np.zeros((WIDTH, 0)), *rest)
    table, report = measure(results, dimensions=[2])
    assert len(table) == 0 and report["cases"] == []
    names = ["is_deg", "as_deg", "as_abs_deg", "matched_is_deg", "matched_as_deg"]
    assert list(table.columns) == ["image_id", "subspace", "dimension", *names]
    nothing = ["is_deg", "as_deg", "control_is_deg", "control_as_deg", "matched_is_deg"]
    assert not results.read("scores")[nothing].any(axis=None)
