import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from singflow.analyses import concepts as module
from singflow.analyses.concepts import CHUNK, MOMENTS, Scan, read_scan, scan_block, spurious_cues
from singflow.analyses.geometry import null_space, remove_null
from singflow.analyses.metrics import angle_deg, unit
from singflow.artifacts.tensors import read_tensors, write_tensors
from singflow.translators.ridge import Affine
from tests.refusals import refused
from tests.results import Results


def units(generator, n, dim=16):
    return unit(generator.standard_normal((n, dim)) + 0.3).astype(np.float32)


def direct(original, equivalent, text, texts):
    """Moments of one label and concept in float64, from exact angles.

    `texts` are all concepts, whose angles are by arccos.
    """
    angle = angle_deg(original, text)
    score = angle - angle_deg(equivalent, text)
    targets = unit(texts)
    both = original, equivalent
    before, after = (np.degrees(np.arccos(unit(z) @ targets.T)).mean(axis=1) for z in both)
    spread = (score - before + after).std()
    return [angle.mean(), angle.std(), score.mean(), score.std(), np.abs(score).mean(), spread]


def assert_direct(moments, original, equivalent, n, texts):
    """Compare the moments of all labels and concepts with direct()."""
    stops = np.cumsum(n)
    for label, (start, stop) in enumerate(zip(stops - n, stops, strict=True)):
        mine = original[start:stop], equivalent[start:stop]
        expected = np.transpose([direct(*mine, text, texts) for text in texts])
        found = [moments[name][label] for name in MOMENTS]
        np.testing.assert_allclose(found, expected, rtol=0, atol=3e-5)


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 12), min_size=1, max_size=5))
@example(0, [3, CHUNK - 3, 2 * CHUNK + 7, 1, 5])  # labels that end inside a chunk or span several
def test_moments_are_those_of_the_exact_angles(seed, n):
    generator, n = np.random.default_rng(seed), np.array(n)
    original, texts = units(generator, n.sum()), units(generator, 4)
    equivalent = unit(original + 0.1 * generator.standard_normal(original.shape)).astype(np.float32)
    assert_direct(scan_block(original, equivalent, n, texts), original, equivalent, n, texts)


def test_without_a_null_space_every_score_is_exactly_zero():
    generator, n = np.random.default_rng(0), np.array([500, 200])
    images = units(generator, 700, 96)
    moments = scan_block(images, images.copy(), n, units(generator, 50, 96))
    assert not any(moments[name].any() for name in MOMENTS[2:])


@settings(max_examples=100)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.integers(1, 8))
def test_the_extremes_are_the_ends_of_the_ranking_with_ties_by_position_and_none_is_at_both(
    sizes, count
):
    signs = np.where(np.arange(len(sizes)) % 2, -1, 1)
    scan = scan_of(np.zeros((1, len(sizes))), [signs * sizes], ["a"], map(str, range(len(sizes))))
    table = module.extreme_concepts(scan, count)
    strong = min(count, (len(sizes) + 1) // 2)
    strongest = np.argsort(np.negative(sizes), kind="stable")[:strong]
    ranked = np.argsort(sizes, kind="stable")
    weakest = ranked[~np.isin(ranked, strongest)][:count]
    assert table["concept"].tolist() == [*strongest, *weakest]
    assert table["kind"].tolist() == ["strongest"] * strong + ["weakest"] * len(weakest)


def test_a_concept_names_a_label_by_whole_words():
    for label, named, other in (
        ("Jeep", ["jeep", "a JEEP on sand", "two jeeps"], "sand"),
        ("bird", ["a bird's wing"], "a wing"),
        ("brush", ["brushes"], "a brushed coat"),
        ("great-white shark", ["great white shark"], "a white shark"),
        ("cat", ["cats"], "a caterpillar"),
        ("ram", ["a ram"], "a ceramic bowl"),
    ):
        assert all(module.mentions(concept, label) for concept in named) and not module.mentions(
            other, label
        )


CONCEPTS = ["grass", "a cow", "water", "steel", "sand", "sky"]


def scan_of(angle, contrast, labels=("cow", "boat"), concepts=CONCEPTS):
    angle, contrast = (np.array(values, dtype=np.float32) for values in (angle, contrast))
    scan = Scan(list(labels), list(concepts), np.full(len(labels), 9), {"angle_mean": angle})
    vars(scan)["contrast"] = contrast
    return scan


def test_a_spurious_cue_is_near_unmoved_nearer_than_to_other_labels_and_not_the_label_itself():
    cow = [50, 40, 60, 61, 80, 81]
    boat = [70, 71, 50, 60, 80, 80]
    size = [[0.1, -0.1, 0.1, -0.1, 2, -2], [2, -2, -0.1, -5, 1, 3]]
    table = spurious_cues(scan_of([cow, boat], size), 4).set_index(["label", "concept"])
    found = table[["place", "lift_deg", "contrast_abs_median_deg"]].T.to_dict("list")
    # Of cow, grass is near; "a cow" is the label itself; water and steel are nearer to boats.
    # Of boat, only water is unmoved.
    assert found == {(0, 0): pytest.approx([2, 10.0, 0.1]), (1, 2): [1, 5.0, 2.0]}
    nearest = spurious_cues(scan_of([cow, boat], size), 1)
    assert [0, 0] not in nearest[["label", "concept"]].values.tolist()
    # A single label needs no lift, and without a null space nothing is spurious.
    scan = scan_of([[50, 51, 52]], [[0.1, 1.0, 2.0]], ["cow"], ["grass", "sand", "sky"])
    alone = spurious_cues(scan, 3)
    assert list(alone["concept"]) == [0, 1] and alone["lift_deg"].isna().all()
    nothing = spurious_cues(scan_of(np.arange(12).reshape(2, 6), np.zeros((2, 6))), 3)
    assert nothing.empty and nothing.dtypes.astype(str).to_dict()["concept"] == "int64"


def selected_beyond_chance(trial, content):
    """Whether an interval of a strongest concept excludes 0.

    Null components carry a direction of the space with strength `content`. The translator is
    fitted, and null components are removed, fold by fold: no image is scored by a translator that
    saw it.
    """
    generator = np.random.default_rng([11, trial])
    n, d, k, m = 240, 12, 12, 10
    principal, null = generator.standard_normal((n, d)), generator.standard_normal((n, k))
    z = principal @ generator.standard_normal((d, m)) / 3
    z[:, 0] += content * null[:, 0]
    z += generator.standard_normal((n, m)) + 2 * np.eye(m)[1]
    features = np.hstack([principal, null])
    original, equivalent = np.empty((2, n, m))
    for fold in range(4):
        out = np.arange(n) % 4 == fold
        fitted = Ridge(alpha=20.0).fit(features[~out], z[~out])
        original[out] = fitted.predict(features[out])
        equivalent[out] = original[out] - null[out] @ fitted.coef_[:, d:].T
    labels = np.argsort(null[:, 0] > 0, kind="stable") if content else np.arange(n)
    texts = unit(generator.standard_normal((20, m)) + 3 * np.eye(m)[1]).astype(np.float32)
    both = (unit(embeddings[labels]).astype(np.float32) for embeddings in (original, equivalent))
    names, of_label = ([*"abcdef"], [*"abcdefghijklmnopqrst"]), np.full(6, n // 6)
    scan = Scan(*names, of_label, scan_block(*both, of_label, texts))
    picked = module.extreme_concepts(scan, 3).query("kind == 'strongest'")
    mine = module.with_numbers(picked, scan, 0.95)
    return bool(((mine["contrast_deg_low"] > 0) | (mine["contrast_deg_high"] < 0)).any())


def test_without_content_the_selected_concepts_stand_out_in_at_most_a_twentieth_of_trials_and_with_it_in_most():  # noqa: E501
    assert sum(selected_beyond_chance(trial, 0.0) for trial in range(100)) <= 5
    assert sum(selected_beyond_chance(trial, 1.0) for trial in range(20)) >= 18


def laid(folder):
    """Inputs of scan_concepts with 2,005 concepts.

    One cue lies in the row space and one in the null space, and some texts lean on the latter.
    Features have 24 dimensions, 4 of them null; the translator only rotates them. Images of `cow`
    hold both cues.
    """
    generator = np.random.default_rng(3)
    head = generator.standard_normal((20, 24))
    basis = null_space(head).basis
    rows = np.linalg.svd(head)[2][:20]
    turn = np.linalg.qr(generator.standard_normal((24, 24)))[0]
    labels = np.array(["boat", "cow", "fern"])[np.arange(90) % 3]
    features = 0.3 * generator.standard_normal((90, 20)) @ rows
    features += 0.3 * generator.standard_normal((90, 4)) @ basis.T
    features[labels == "boat"] += 2.0 * rows[1]
    features[labels == "fern"] += 2.0 * rows[2]
    features[labels == "cow"] += 2.0 * rows[0] + 1.2 * basis[:, 0]
    directions = generator.standard_normal((2005, 4)) @ basis.T
    directions += 0.4 * generator.standard_normal((2005, 20)) @ rows
    directions[3], directions[1002] = rows[0] + 0.6 * rows[5], basis[:, 0] + 0.1 * rows[0]
    concepts = [f"concept {number}" for number in range(2005)]
    concepts[3], concepts[1002] = "grass", "a bell"
    results = Results(folder)
    results.manifest(label=labels)
    order = generator.permutation(np.repeat(np.arange(90), 2))
    view = np.zeros(180, dtype=np.int32)
    view[np.unique(order, return_index=True)[1]] = 1
    shown = np.where(view[:, None] == 0, features[order], 9.0).astype(np.float32)
    results.shard("features", 0, shown, order, view)
    results.tensors("projector", null_basis=basis)
    results.translator(Affine(turn.astype(np.float32), np.zeros(24, np.float32)))
    texts = unit(directions @ turn.T).astype(np.float32)
    names = {"labels": ["boat", "cow", "fern"], "concepts": concepts}
    results.texts(names, concept_embeddings=texts)
    return results, (features.astype(np.float32), basis, turn.astype(np.float32), texts)


def run_scan(study, threads=1):
    study.run("scan_concepts", threads=threads)
    return study.path("concepts")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Inputs of scan_concepts and its scan, and features, null basis, translator and texts."""
    study, arrays = laid(tmp_path_factory.mktemp("study"))
    run_scan(study)
    return study, arrays


def of_study(study):
    """The scan of a study, one row per label and concept."""
    scan = read_scan(study.path("concepts"), study.path("names"), MOMENTS)
    label, concept = np.indices(scan.contrast.shape).reshape(2, -1)
    names = {"label": np.array(scan.labels)[label], "concept": np.array(scan.concepts)[concept]}
    moments = {name: values.ravel().astype(float) for name, values in scan.moments.items()}
    return pd.DataFrame({**names, **moments, "contrast": scan.contrast.ravel()})


def test_blocks_of_a_scan_have_the_same_bytes_by_any_threads_and_are_of_first_views_alone(finished):
    study, (features, basis, turn, texts) = finished
    path = study.path("concepts")
    before = path.read_bytes()
    assert run_scan(study, threads=2).read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
    tensors, metadata = read_tensors(path)
    assert tensors.keys() == {"n", *MOMENTS} and tensors["as_mean"].dtype == np.float32
    assert (tensors["n"] == 30).all() and metadata["model"] == "m"

    for label in range(3):
        mine = features[label::3]
        for place in (3, 499, 500, 1002, 2004):
            expected = direct(mine @ turn.T, remove_null(mine, basis) @ turn.T, texts[place], texts)
            found = [tensors[name][label, place] for name in MOMENTS]
            np.testing.assert_allclose(found, expected, rtol=0, atol=3e-5)


def run_list(study, models):
    study.models(dict.fromkeys(models, 4))
    wanted = {"vocabulary": "v", "extremes": 4, "nearest": 10, "confidence": 0.95}
    study.run("list_concepts", models=models, **wanted)
    return study.read("tables/concepts.csv"), study.read("tables/spurious.csv")


def test_every_listed_row_is_the_scans_and_a_cue_is_a_candidate_in_the_row_space_alone(finished):
    scan = of_study(finished[0])
    table, spurious = run_list(finished[0], ["m"])
    for label, mine in scan.groupby("label"):
        size = (mine["as_mean"] - mine["as_mean"].mean()).abs()
        ranked, rows = mine.loc[size.sort_values().index, "concept"], table[table["label"] == label]
        assert list(rows["concept"]) == [*ranked[:-5:-1], *ranked[:4]]
    for listed in (table, spurious):
        joined = listed.merge(scan, on=["label", "concept"], validate="many_to_one")
        assert (joined["angle_mean_deg"] == joined["angle_mean"]).all()
        assert (joined["as_abs_mean_deg"] == joined["as_abs_mean"]).all()
        assert (listed["null_dim"] == 4).all()
    assert (spurious.groupby("label")["angle_mean_deg"].diff().dropna() >= 0).all()
    cells = table.merge(scan, on=["label", "concept"])
    np.testing.assert_allclose(table["contrast_deg"], cells["contrast"], atol=1e-6)
    half = scipy.stats.t.isf(0.025 / (3 * 2005), 29) * cells["contrast_std"] / np.sqrt(29)
    np.testing.assert_allclose(table["contrast_deg"] - table["contrast_deg_low"], half)
    cow = scan[scan["label"] == "cow"].sort_values("angle_mean")
    assert {"grass", "a bell"} <= set(cow["concept"].iloc[:10])
    mine = spurious[spurious["label"] == "cow"].set_index("concept")
    assert "a bell" not in mine.index and mine.loc["grass", "place"] == 1
    angles = scan[scan["concept"] == "grass"].set_index("label")["angle_mean"]
    lift = angles.mean() - angles["cow"]
    assert mine.loc["grass", "lift_deg"] == pytest.approx(lift, abs=1e-5)


def test_a_model_without_null_space_has_no_candidates_and_a_scan_of_other_texts_is_refused(
    finished,
):
    study, path = finished[0], finished[0].path("concepts", model="n")
    moments = {name: np.zeros((3, 2005), np.float32) for name in MOMENTS}
    write_tensors(path, moments | {"n": np.ones(3, np.int64)}, {})
    table, spurious = run_list(study, ["n", "m"])
    assert set(spurious["model"]) == {"m"}
    none = table[table["model"] == "n"]
    assert len(none) == 24 and none["contrast_deg_low"].isna().all()
    assert (none["as_abs_mean_deg"] == 0).all()
    _, spurious = run_list(study, ["n"])
    assert spurious.empty and "lift_deg" in spurious
    for n, wrong in ((3, np.zeros((3, 2004), np.float32)), (2, moments["as_mean"])):
        write_tensors(path, moments | {"as_mean": wrong, "n": np.ones(n, np.int64)}, {})
        said = r"n.safetensors: is not of the labels and concepts of .*s.json: remove it and run"
        refused(said, run_list, study, ["n"])
    path.unlink()
