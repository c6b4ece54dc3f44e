import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from singflow.analyses.controls import Case, ControlScores, cases, empty_table, folded_control
from singflow.analyses.geometry import null_space
from singflow.analyses.metrics import Removal, angle_deg
from singflow.analyses.ranking import excess_rows
from singflow.artifacts.files import write_json
from singflow.artifacts.shards import shard_path
from singflow.artifacts.tables import write_parquet
from singflow.artifacts.tensors import write_tensors
from singflow.translators.ridge import Affine
from tests.data.manifests import whole
from tests.project import ROOT

WIDTH, CLASSES, DIM = 24, 15, 7


@pytest.fixture(scope="module")
def head():
    weight = np.random.default_rng(0).standard_normal((CLASSES, WIDTH))
    return weight, null_space(weight).basis


def projector_of(folded, weight):
    """The projector P of weight P = folded, for an invertible weight."""
    return np.linalg.solve(weight, folded)


@pytest.mark.parametrize(
    ("case", "inside"),
    [
        (Case("null", 4, False), "null"),
        (Case("null", 9, True), "null"),
        (Case("row", 9, False), "row"),
        (Case("row", 15, True), "row"),
        (Case("random", 9, False), None),
        (Case("random", 17, False), None),
    ],
)
def test_a_control_is_an_orthogonal_projection_of_its_dimension_inside_its_space(head, case, inside):
    _, basis = head
    translator = np.random.default_rng(1).standard_normal((WIDTH, WIDTH))
    projector = projector_of(folded_control(translator, basis, case, seed=0, draw=3), translator)
    np.testing.assert_allclose(projector @ projector, projector, atol=1e-10)
    np.testing.assert_allclose(projector.T, projector, atol=1e-10)
    assert np.trace(projector) == pytest.approx(case.dimension)
    null = basis @ basis.T
    whole = {"null": null, "row": np.eye(WIDTH) - null, None: np.eye(WIDTH)}[inside]
    np.testing.assert_allclose(whole @ projector, projector, atol=1e-10)
    again = folded_control(translator, basis, case, seed=0, draw=3)
    other = folded_control(translator, basis, case, seed=0, draw=4)
    assert np.array_equal(again, folded_control(translator, basis, case, seed=0, draw=3))
    assert np.allclose(again, other) == case.single


@pytest.mark.parametrize("dimension", [3, 20])
def test_random_subspaces_are_uniform_also_as_complements_of_smaller_ones(dimension):
    identity = np.eye(WIDTH)
    draws = [folded_control(identity, np.zeros((WIDTH, 0)), Case("random", dimension, False), 0, draw) for draw in range(600)]
    np.testing.assert_allclose(np.mean(draws, axis=0), identity * dimension / WIDTH, atol=0.06)


def test_the_cases_are_the_dimensions_that_fit_and_the_null_spaces_own():
    listed = cases(24, 9, [4, 8, 9, 16])
    assert {(case.subspace, case.dimension) for case in listed} == {(kind, d) for kind in ("null", "random", "row") for d in (4, 8, 9)}
    assert [case for case in listed if case.single] == [Case("null", 9, True)]
    assert Case("row", 5, True) in cases(20, 15, [5]) and not [case for case in cases(20, 15, [8]) if case == Case("row", 8, False)]
    assert cases(24, 0, [4, 8]) == [] and len(empty_table()) == 0


def test_scores_are_means_over_draws_with_their_spread():
    generator = np.random.default_rng(0)
    original, texts = generator.standard_normal((6, DIM)), generator.standard_normal((6, DIM))
    moved = original + 0.3 * generator.standard_normal((4, 6, DIM))
    scores = ControlScores(6)
    for draw in moved:
        for part in (np.array([4, 0]), np.array([1, 2, 3, 5])):
            scores.update(part, Removal(original[part], original[part] - draw[part]), texts[part])
        scores.end_draw()
    image = np.array([angle_deg(original, draw) for draw in moved])
    attribute = np.array([angle_deg(original, texts) - angle_deg(draw, texts) for draw in moved])
    table = scores.table(np.arange(6), Case("random", 5, False))
    np.testing.assert_allclose(table["is_deg"], image.mean(axis=0))
    np.testing.assert_allclose(table["as_deg"], attribute.mean(axis=0))
    np.testing.assert_allclose(table["as_abs_deg"], np.abs(attribute).mean(axis=0))
    expected = [each.mean(axis=1).std(ddof=1) for each in (image, attribute, np.abs(attribute))]
    np.testing.assert_allclose(scores.spread_deg, expected)
    assert scores.error_deg == pytest.approx(expected[0] / 2) and scores.draws == 4


def study(folder, basis, features, translator, labels, texts):
    """The artifacts that measure_controls reads, in two shards and with a second view that must not count."""
    n = len(features)
    label_names = sorted(set(labels))
    write_parquet(folder / "manifest.parquet", whole(pd.DataFrame({"image_id": np.arange(n), "label": labels})))
    for shard, rows in enumerate(np.array_split(np.arange(n), 2)):
        both = np.concatenate([features[rows], 100 * features[rows][::-1]]).astype(np.float32)
        view = np.repeat([0, 1], len(rows)).astype(np.int32)
        write_tensors(shard_path(folder / "features", shard), {"features": both, "image_id": np.tile(rows, 2), "view": view}, {})
    write_tensors(folder / "projector.safetensors", {"null_basis": basis}, {})
    write_tensors(folder / "translator.safetensors", {"weight": translator.weight, "bias": translator.bias}, {"kind": "linear"})
    write_tensors(folder / "prompts.safetensors", {"label_embeddings": texts.astype(np.float32)}, {})
    write_json(folder / "names.json", {"labels": label_names})


def measure(folder, *, dimensions=(), draws=(12, 12), tolerance=1e-6, seed=0):
    flags = {
        "dimensions": list(dimensions), "min_draws": [draws[0]], "max_draws": [draws[1]], "tolerance_deg": [tolerance],
        "manifest": ["manifest.parquet"], "features": ["features"], "shards": [2], "projector": ["projector.safetensors"],
        "translator": ["translator.safetensors"], "texts": ["prompts.safetensors"], "names": ["names.json"], "seed": [seed],
        "threads": [1], "output": ["controls.parquet"], "report": ["controls.json"],
    }  # fmt: skip
    words = [str(word) for name, values in flags.items() for word in [f"--{name}", *values]]
    subprocess.run([sys.executable, ROOT / "scripts/measure_controls.py", *words], cwd=folder, check=True, capture_output=True)
    return pd.read_parquet(folder / "controls.parquet"), json.loads((folder / "controls.json").read_text())


def planted(strength_null, strength_row, n=200, seed=0):
    """Features whose translation depends on the null space and on the row space with different strengths."""
    generator = np.random.default_rng(seed)
    basis = null_space(generator.standard_normal((CLASSES, WIDTH))).basis
    null = basis @ basis.T
    mixing = generator.standard_normal((DIM, WIDTH)) @ (strength_null * null + strength_row * (np.eye(WIDTH) - null))
    features = generator.standard_normal((n, WIDTH))
    labels = np.array([f"label {i % 8}" for i in range(n)])
    return basis, features, Affine(mixing.astype(np.float32), np.zeros(DIM, np.float32)), labels, generator.standard_normal((8, DIM))


def excess(basis, features, translator, labels, texts):
    """The row of tables/controls.csv, computed here instead of by the scripts."""
    original = features @ translator.weight.T
    targets = texts[np.unique(labels, return_inverse=True)[1]]
    tables, report = [], []
    for case in cases(WIDTH, basis.shape[1], []):
        scores = ControlScores(len(features))
        for draw in range(1 if case.single else 12):
            removed = features @ folded_control(translator.weight, basis, case, 0, draw).T
            scores.update(np.arange(len(features)), Removal(original, removed), targets)
            scores.end_draw()
        tables.append(scores.table(np.arange(len(features)), case))
        spread = dict(zip(["is_deg_spread", "_", "as_abs_deg_spread"], scores.spread_deg, strict=True))
        report.append({"subspace": case.subspace, "dimension": case.dimension, "draws": scores.draws, "stable": True, **spread})
    strata = np.unique(labels, return_inverse=True)[1]
    (row,) = excess_rows(pd.concat(tables), report, basis.shape[1], strata, resamples=300, confidence=0.95, seed=0)
    return row


def test_without_structure_null_and_random_removal_agree_within_the_interval_as_often_as_it_says():
    agreed = {"is_deg": 0, "as_abs_deg": 0}
    for seed in range(100):
        row = excess(*planted(1.0, 1.0, seed=seed))
        for score in agreed:
            agreed[score] += row[f"{score}_excess_random_low"] <= 0 <= row[f"{score}_excess_random_high"]
    assert min(agreed.values()) >= 90 and agreed["is_deg"] < 100


@pytest.mark.parametrize(("null", "row", "sign"), [(2.5, 1.0, 1), (1.0, 2.5, -1)])
def test_meaning_planted_in_one_space_shows_as_excess_with_the_right_sign(null, row, sign):
    found = excess(*planted(null, row))
    for score in ("is_deg", "as_abs_deg"):
        ends = sign * np.array([found[f"{score}_excess_random_low"], found[f"{score}_excess_random_high"]])
        assert (ends > 0).all(), (score, found)
        assert sign * found[f"{score}_excess_row"] > sign * found[f"{score}_excess_random"] > 0


def test_drawing_goes_on_until_the_mean_is_stable_and_says_when_it_never_was(tmp_path):
    study(tmp_path, *planted(1.0, 1.0, n=40))
    table, report = measure(tmp_path, dimensions=[2, 50], draws=(3, 30), tolerance=1.5)
    by_case = {(case["subspace"], case["dimension"]): case for case in report["cases"]}
    assert set(by_case) == {(kind, d) for kind in ("null", "random", "row") for d in (2, 9)}
    assert all(case["stable"] == (case["is_error_deg"] <= 1.5) for case in report["cases"])
    assert all(case["draws"] >= 3 or case["dimension"] == 9 for case in report["cases"])
    assert by_case["null", 9]["draws"] == 1 and {case["draws"] for case in report["cases"]} - {1, 3, 30}
    assert set(table.groupby(["subspace", "dimension"]).size()) == {40}
    again, _ = measure(tmp_path, dimensions=[2, 50], draws=(3, 30), tolerance=1.5)
    pd.testing.assert_frame_equal(table, again)
    _, unstable = measure(tmp_path, draws=(2, 3), tolerance=1e-9)
    assert [case["draws"] for case in unstable["cases"] if not case["stable"]] == [3, 3]


def test_the_whole_null_space_gives_the_scores_of_null_removal(tmp_path):
    basis, features, translator, labels, texts = planted(1.0, 1.0, n=30)
    study(tmp_path, basis, features, translator, labels, texts)
    table, _ = measure(tmp_path, draws=(2, 2))
    before = features @ translator.weight.T
    after = (features - features @ basis @ basis.T) @ translator.weight.T
    mine = table[(table["subspace"] == "null")].sort_values("image_id")
    np.testing.assert_allclose(mine["is_deg"], angle_deg(before, after), atol=1e-3)
    targets = texts[np.unique(labels, return_inverse=True)[1]]
    np.testing.assert_allclose(mine["as_deg"], angle_deg(before, targets) - angle_deg(after, targets), atol=1e-3)


def test_a_head_without_null_space_has_no_controls(tmp_path):
    _, *rest = planted(1.0, 1.0, n=30)
    study(tmp_path, np.zeros((WIDTH, 0)), *rest)
    table, report = measure(tmp_path, dimensions=[2])
    assert len(table) == 0 and report["cases"] == []
    assert list(table.columns) == ["image_id", "subspace", "dimension", "is_deg", "as_deg", "as_abs_deg"]
