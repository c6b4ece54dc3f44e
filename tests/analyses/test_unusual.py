"""Detectors of unusual images against scikit-learn and direct formulas; intervals by coverage."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.special import softmax
from sklearn import covariance
from sklearn.metrics import roc_auc_score, roc_curve

from singflow.analyses import unusual as module
from singflow.analyses.geometry import complement, null_energy, null_space
from singflow.analyses.summary import EMPTY
from singflow.analyses.unusual import DETECTORS, FITTED, area_under_curve, summarize_null_energy
from singflow.artifacts.catalog import CATALOG
from singflow.artifacts.tensors import read_tensors
from singflow.translators.crossfit import WHOLE
from tests.refusals import refused
from tests.results import Results


@pytest.mark.parametrize(("m", "n"), [(1, 1), (2, 3), (40, 7), (300, 200)])
@pytest.mark.parametrize("digits", [1, 9])
def test_the_area_is_scikit_learns_also_with_ties(m, n, digits):
    for seed in range(5):
        generator = np.random.default_rng(seed)
        both = generator.uniform(0, 1, m + n) + np.repeat([0, 0.2], [m, n])
        both = both.round(digits)
        expected = roc_auc_score(np.repeat([0, 1], [m, n]), both)
        assert area_under_curve(both[:m], both[m:], 0.95)[0] == pytest.approx(expected, abs=1e-12)


def test_the_variance_is_delongs_and_where_nothing_says_how_wide_there_is_no_interval():
    generator = np.random.default_rng(0)
    usual, unusual = generator.normal(0, 1, 30).round(1), generator.normal(0.8, 1, 20).round(1)
    above = (unusual[:, None] > usual) + 0.5 * (unusual[:, None] == usual)
    area, low, high = area_under_curve(usual, unusual, 0.95)
    error = np.sqrt(above.mean(axis=1).var(ddof=1) / 20 + above.mean(axis=0).var(ddof=1) / 30)
    odds = np.log(area / (1 - area)) + 1.959963985 * np.array([-1, 1]) * error / (area * (1 - area))
    np.testing.assert_allclose([low, high], 1 / (1 + np.exp(-odds)), rtol=1e-9)
    assert area_under_curve(np.array([1.0, 2.0]), np.array([3.0, 4.0]), 0.95) == (1.0, None, None)
    assert area_under_curve(np.array([1.0]), np.array([0.5, 2.0]), 0.95) == (0.5, None, None)


def planted():
    """Images of a head of ten features, four classes; `odd` ones lie mostly in the null space."""
    generator = np.random.default_rng(0)
    weight = generator.standard_normal((4, 10)).astype(np.float32)
    space = null_space(weight, "exact64", "float32")
    odd = np.arange(400) % 4 == 3
    null = generator.standard_normal((400, 6)) @ space.basis.T
    features = generator.standard_normal((400, 10)) + 3 * odd[:, None] * null
    label = np.where(odd, "odd", np.where(np.arange(400) % 2 == 0, "even", "one"))
    energy = null_energy(features, space.basis)
    classes = np.where(odd, -1, 0)
    return pd.DataFrame({"label": label, "class_index": classes, "null_energy": energy})


def test_planted_images_are_told_apart_and_others_and_without_two_sets_or_a_null_space_none():
    scores = planted()
    found = summarize_null_energy(scores, 6, [], [], 0.95)
    assert (found["null_energy_usual"], found["null_energy_unusual"]) == (300, 100)
    expected = roc_auc_score(scores["label"] == "odd", scores["null_energy"])
    assert found["null_energy_auc"] == pytest.approx(expected, abs=1e-12)
    assert found["null_energy_auc_low"] > 0.85
    named = summarize_null_energy(scores, 6, [], ["odd"], 0.95)
    assert named == found == summarize_null_energy(scores, 6, ["even", "one"], [], 0.95)
    alike = summarize_null_energy(scores, 6, ["even"], ["one"], 0.95)
    assert alike["null_energy_auc_low"] < 0.5 < alike["null_energy_auc_high"]
    assert alike["null_energy_unusual"] == 100
    swapped = summarize_null_energy(scores, 6, ["odd"], ["even", "one"], 0.95)
    assert swapped["null_energy_auc"] == pytest.approx(1 - found["null_energy_auc"], abs=1e-12)
    for rows, null_dim in ((scores[scores["label"] != "odd"], 6), (scores, 0)):
        assert summarize_null_energy(rows, null_dim, [], [], 0.95)["null_energy_auc"] is None


def test_labels_that_are_in_both_lists_or_nowhere_are_refused():
    with pytest.raises(ValidationError, match="odd cannot be usual and unusual"):
        module.NullEnergy(usual_labels=["even", "odd"], unusual_labels=["odd"])
    said = "labels that no image has: none, odt"
    refused(said, module.two_sets, planted(), ["none"], ["odd", "odt"])


scores = st.lists(st.integers(0, 12), min_size=1, max_size=50).map(np.array)


@settings(max_examples=200)
@given(scores, scores)
def test_fpr95_is_that_of_scikit_learns_curve_also_with_ties(usual, unusual):
    labels = np.repeat([0, 1], [len(usual), len(unusual)])
    both = np.concatenate([usual, unusual])
    false, true, _ = roc_curve(labels, both, drop_intermediate=False)
    assert module.false_positive_rate(usual, unusual) == false[np.argmax(true >= 0.95)]


def test_scores_of_logits_are_direct_formulas_and_stay_finite():
    logits = np.random.default_rng(0).normal(0, 3, (50, 7))
    found = module.logit_scores(logits)
    np.testing.assert_allclose(found["max_softmax"], -softmax(logits, axis=1).max(axis=1))
    np.testing.assert_allclose(found["energy"], -np.log(np.exp(logits).sum(axis=1)))
    large = module.logit_scores(np.float32([[3e4, -3e4], [-3e4, -3e4]]))
    np.testing.assert_allclose(large["max_softmax"], [-1, -0.5])
    np.testing.assert_allclose(large["energy"], [-3e4, 3e4 - np.log(2)])


def test_nusa_is_the_principal_share_and_orders_images_as_null_energy_does():
    generator = np.random.default_rng(0)
    features = generator.standard_normal((300, 20)).astype(np.float32)
    basis = null_space(generator.standard_normal((8, 20))).basis
    found = module.null_scores(features, basis)
    wide = features.astype(np.float64)
    visible = np.linalg.norm(wide @ complement(basis), axis=1)
    np.testing.assert_allclose(found["nusa"], -visible / np.linalg.norm(wide, axis=1))
    usual, unusual = np.split(np.arange(300), [200])
    areas = [area_under_curve(found[name][usual], found[name][unusual], 0.95) for name in found]
    assert areas[0] == areas[1]
    without = module.null_scores(features, np.zeros((20, 0)))
    assert not without["null_energy"].any() and set(without["nusa"]) == {-1.0}


def test_the_principal_dimensions_are_the_papers_and_at_most_half_of_the_images():
    sizes = {(2048, 10**6): 1000, (1500, 1999): 999, (1280, 10**6): 512, (512, 10**6): 256}
    assert {size: module.principal_dim(*size) for size in sizes} == sizes
    assert module.oas(np.array([[2.0]]), 5) == 2.0, "a covariance of one dimension stays"


def test_the_origin_of_vim_is_that_of_the_pseudoinverse_at_the_precision_of_the_weights():
    generator = np.random.default_rng(0)
    weight, bias = generator.standard_normal((6, 15)), generator.standard_normal(6)
    found = module.vim_origin(weight, bias, "float32")
    np.testing.assert_allclose(found, -np.linalg.pinv(weight) @ bias, rtol=1e-9)
    weight -= weight.mean(axis=0)  # as of a head that was trained from zero
    rounded = weight.astype(np.float32)
    expected = -np.linalg.pinv(weight, rcond=1e-10) @ bias
    np.testing.assert_allclose(module.vim_origin(rounded, bias, "float32"), expected, atol=1e-5)
    assert not module.vim_origin(0 * weight, bias, "float32").any()


def directly(features, label, head, scored, dim):
    """ViM's residual and the Mahalanobis distance from all fit images at once, in float64."""
    fitted, scored = features.astype(np.float64), scored.astype(np.float64)
    weight = head["weight"].astype(np.float64)
    origin = -np.linalg.pinv(weight, rcond=1e-6) @ head["bias"]
    _, _, right = np.linalg.svd(fitted - origin)
    residual = np.linalg.norm((scored - origin) @ right[dim:].T, axis=1)
    overall = fitted.mean(axis=0)
    own = [fitted[label == code] for code in np.unique(label)]
    centres = [rows.mean(axis=0) if len(rows) > 1 else overall for rows in own]
    about = np.concatenate([rows - centre for rows, centre in zip(own, centres, strict=True)])
    precision = np.linalg.inv(covariance.oas(about, assume_centered=True)[0])
    offsets = scored[:, None] - np.array(centres)
    return residual, np.einsum("ncd,de,nce->nc", offsets, precision, offsets).min(axis=1)


def made(n, width=12, classes=5, labels=4, seed=0):
    """Features, codes of their labels, and a head with a null space."""
    generator = np.random.default_rng(seed)
    label = np.arange(n) % labels
    centres = 2 * generator.standard_normal((labels, width))
    features = centres[label] + generator.standard_normal((n, width))
    head = {"weight": generator.standard_normal((classes, width)), "bias": np.ones(classes)}
    head = {name: tensor.astype(np.float32) for name, tensor in head.items()}
    return features.astype(np.float32), label, head


def fit(features, label, head, group=None, size=None):
    """Fits to features that come in blocks of a size."""
    rows, group = np.arange(len(features)), np.full(len(label), WHOLE) if group is None else group
    parts = np.array_split(rows, max(1, len(rows) // (size or len(rows)))) if len(rows) else [rows]
    sums = module.sum_up(((part, features[part]) for part in parts), label, group)
    return module.DetectorFits.of(sums, head, "float32")


def scores_of(fits, features, group=None):
    group = np.full(len(features), WHOLE) if group is None else group
    return [fits.scores(features.astype(np.float64), group)[name] for name in FITTED]


@pytest.mark.parametrize("offset", [0, 1e4])
@pytest.mark.parametrize(("n", "labels"), [(200, 4), (8, 3), (40, 40), (7, 6)])
def test_fitted_detectors_are_direct_formulas_whatever_the_blocks(n, labels, offset):
    """There are fewer images than dimensions, labels of one image, and features far from zero."""
    features, label, head = made(n + 20, labels=labels)
    features += np.float32(offset)
    fitted, scored = features[:n], features[n:]
    expected = directly(fitted, label[:n], head, scored, min(6, n // 2))
    for size in (1, 3, n):
        fits = fit(fitted, label[:n], head, size=size)
        assert (fits.n, fits.principal_dim) == (n, min(6, n // 2))
        for found, values in zip(scores_of(fits, scored), expected, strict=True):
            np.testing.assert_allclose(found, values, rtol=1e-5)


def test_no_image_is_scored_by_a_fit_that_it_is_in():
    features, label, head = made(60)
    group = np.arange(60) % 3
    fits = fit(features, label, head, group, size=7)
    assert fits.n == 40
    crossed = scores_of(fits, features, group)
    for number in range(3):
        mine = group == number
        alone = fit(features[~mine], label[~mine], head)
        for found, expected in zip(crossed, scores_of(alone, features[mine]), strict=True):
            np.testing.assert_allclose(found[mine], expected, rtol=1e-6)
    # An image in a fold without any fit image is in no fit.
    elsewhere = scores_of(fits, features[:4], np.full(4, 9))
    np.testing.assert_allclose(elsewhere, scores_of(fit(features, label, head), features[:4]))


@pytest.mark.parametrize("kind", ["none", "one", "alike", "alike within labels", "one other fold"])
def test_too_few_images_or_equal_ones_give_missing_scores(kind):
    features, label, head = made(30)
    group, rows = None, slice({"none": 0, "one": 1}.get(kind, 30))
    fitted = features.copy()
    if kind.startswith("alike"):
        fitted = features[label if kind.endswith("labels") else 0 * label] * np.float32(1.1)
    if kind == "one other fold":
        group = (np.arange(30) == 3).astype(int)
    fits = fit(fitted[rows], label[rows], head, group)
    basis = null_space(head["weight"]).basis
    found = module.detect(features, np.full(30, WHOLE), head, basis, fits)
    assert list(found) == list(DETECTORS)
    for name, values in found.items():
        assert np.isnan(values).all() if name in FITTED else np.isfinite(values).all(), name


def drawn(generator, n, label, basis, beyond):
    """Features whose null component has two directions, or `beyond` a third one as well."""
    visible = complement(basis)
    centres = np.random.default_rng(9).standard_normal((5, visible.shape[1]))
    seen = centres[label] + 0.5 * generator.standard_normal((n, visible.shape[1]))
    hidden = generator.standard_normal((n, 2)) @ basis[:, :2].T
    hidden += 0.05 * generator.standard_normal((n, basis.shape[1])) @ basis.T
    return (4 * seen @ visible.T + hidden + beyond * basis[:, 2]).astype(np.float32)


def areas(generator, beyond, n=150, m=60):
    """Area and interval of every detector for unusual images with another null component."""
    head = made(1, width=40, classes=10)[2]
    basis, label, group = (
        null_space(head["weight"]).basis,
        np.arange(n + m) % 5,
        np.arange(n + m) % 4,
    )
    features = drawn(generator, n + m, label, basis, 0.0)
    features[n:] = drawn(generator, m, label[n:], basis, beyond)
    fits = fit(features[:n], label[:n], head, group[:n])
    found = module.detect(features, group, head, basis, fits)
    return {name: area_under_curve(v[:n], v[n:], 0.95) for name, v in found.items()}


def test_images_that_differ_in_the_null_space_alone_are_found_where_it_is_looked_at():
    found = areas(np.random.default_rng(0), 8.0)
    for name in ("null_energy", "nusa", "vim_residual", "mahalanobis"):
        assert found[name][0] > 0.95, name
    for name in ("max_softmax", "energy"):
        assert found[name][1] < 0.5 < found[name][2], name


def test_where_nothing_differs_intervals_hold_a_half_as_often_as_they_say():
    generator = np.random.default_rng(1)
    found = [areas(generator, 0.0) for _ in range(200)]
    for name in DETECTORS:
        area, low, high = np.transpose([draw[name] for draw in found])
        # Labels are as frequent in both sets: a score that follows the label has less spread than
        # its interval assumes.
        most = 0.995 if name == "energy" else 0.99
        assert 0.91 <= np.mean((low <= 0.5) & (high >= 0.5)) <= most, name
        assert area.mean() == pytest.approx(0.5, abs=0.01), name


LABELS = {"owl": 0, "fox": 1, "crab": 2, "lamp": -1, "rug": -1}
OWN = made(120, width=16, labels=5)  # features, codes of labels, and the head of a study


def laid(results, planted, name):
    """What a step reads of a study with two labels outside the head's classes."""
    features, code, head = planted
    classes = np.array(list(LABELS.values()), dtype=np.int32)[code]
    labels, fold = np.array(list(LABELS), dtype=object)[code], np.arange(len(code)) % 4
    hashes = [f"{name} {number}" for number in range(len(code))]
    results.manifest(label=labels, class_index=classes, fold=fold, sha256=hashes)
    results.rows("features", features, tower="t", weights_sha256="w")
    results.tensors("head", {"class_names": "null", "weight_dtype": "float32"}, **head)
    results.tensors("projector", null_basis=null_space(head["weight"]).basis)
    return results


@pytest.fixture
def study(tmp_path):
    return laid(Results(tmp_path / "results/own", shards=2), OWN, "own")


def assert_direct(scores, fitted, features, code, scored=slice(None)):
    """The scores of images by the fits to some images are those of direct formulas."""
    expected = directly(features[fitted], code[fitted], OWN[2], OWN[0][scored], 8)
    for name, values in zip(FITTED, expected, strict=True):
        np.testing.assert_allclose(scores[name][scored], values, rtol=1e-5)


def measure(study, **flags):
    sets = {"usual_labels": [], "unusual_labels": []}
    given = sets | {key: flags.pop(key) for key in sets if key in flags} | {"confidence": 0.95}
    study.run("measure_unusual", **given, **({"folds": 4, "reference": None} | flags))
    basis, _ = read_tensors(study.path("projector"), ["null_basis"])
    study.models({"m": basis["null_basis"].shape[1]})
    study.run("tabulate_unusual", **given)
    table = study.read("tables/unusual.csv").set_index("detector")
    report = study.read("unusual_report")
    own = table.loc["null_energy"]
    shown = ("auroc", "auroc_low", "auroc_high", "n_usual", "n_unusual")
    for key, column in zip(CATALOG["unusual_report"].summary, shown, strict=True):
        found = report.pop(key)
        assert pd.isna(own[column]) if found is None else found == pytest.approx(own[column]), key
    return study.read("unusual"), report, table


def test_the_steps_fit_on_usual_images_of_other_folds(study):
    scores, report, table = measure(study)
    features, code, head = OWN
    known, fold = code < 3, np.arange(120) % 4
    assert report == {"n_fit": 54, "principal_dim": 8, "in_sample": False}
    for number in range(4):
        assert_direct(scores, known & (fold != number), features, code, fold == number)
    assert scores["image_id"].tolist() == list(range(120))
    assert (scores["class_index"] == np.where(known, code, -1)).all()
    logits = features @ head["weight"].T + head["bias"]
    np.testing.assert_allclose(scores["max_softmax"], -softmax(logits, axis=1).max(axis=1), 1e-5)
    assert list(table.index) == list(DETECTORS) and table["note"].isna().all()
    for name, row in table.iterrows():
        assert row["auroc"] == pytest.approx(roc_auc_score(~known, scores[name]), abs=1e-12)
        false, true, _ = roc_curve(~known, scores[name], drop_intermediate=False)
        assert row["fpr95"] == false[np.argmax(true >= 0.95)]
        low, high = row["auroc_low"], row["auroc_high"]
        assert low < row["auroc"] < high or row["auroc"] == 1
    assert table["n_fit"].tolist() == [0, 0, 0, 54, 0, 54]
    assert (table["n_usual"] == 72).all() and (table["n_unusual"] == 48).all()
    assert table["principal_dim"].dropna().to_dict() == {"vim_residual": 8}
    assert (table["seed"] == 3).all()


def test_labels_choose_the_sets_and_no_folds_mean_in_sample(study):
    scores, report, table = measure(study, usual_labels=["lamp"], unusual_labels=["fox"], folds=0)
    features, code, _ = OWN
    assert_direct(scores, code == 3, features, code)
    assert report == {"n_fit": 24, "principal_dim": 8, "in_sample": True}
    assert table["note"].dropna().to_dict() == dict.fromkeys(FITTED, module.IN_SAMPLE)
    assert (table[["n_usual", "n_unusual"]] == 24).all(axis=None)
    said = "null_energy names labels that no image has: fax"
    refused(said, measure, study, unusual_labels=["fax"])


def test_a_reference_is_fitted_on_without_its_unknown_or_unusual_or_own_images(study, tmp_path):
    features, code, head = made(90, width=16, labels=5, seed=1)
    other = Results(tmp_path / "other", "named otherwise", shards=3)
    laid(other, (features, code, head), "other")
    manifest = other.read("manifest")
    manifest.loc[:9, "sha256"] = [f"own {number}" for number in range(10)]
    manifest.to_parquet(other.path("manifest"))
    scores, report, _ = measure(study, unusual_labels=["fox"], reference=str(other.folder))
    fitted = np.isin(code, [0, 2]) & (np.arange(90) > 9)
    assert_direct(scores, fitted, features, code)
    assert report == {"n_fit": int(fitted.sum()), "principal_dim": 8, "in_sample": False}


def test_what_cannot_be_said_is_missing_with_a_note(study):
    head = {name: tensor[:2] for name, tensor in OWN[2].items()}
    facts = {"weight_dtype": "float32"}
    study.tensors("head", {"class_names": '["owl", "fox"]'} | facts, **head)
    study.tensors("projector", null_basis=np.zeros((16, 0)))
    scores, _, table = measure(study)
    assert set(scores.loc[scores["class_index"] < 0, "label"]) == {"crab", "lamp", "rug"}
    assert table["note"].dropna().to_dict() == dict.fromkeys(("null_energy", "nusa"), EMPTY)
    assert table.loc[table["note"].notna(), ["auroc", "fpr95"]].isna().all(axis=None)
    study.tensors("head", {"class_names": '["x", "y"]'} | facts, **head)
    _, report, table = measure(study)
    assert report == {"n_fit": 0, "principal_dim": None, "in_sample": False}
    assert set(table["note"]) == {"no usual images"} and table["auroc"].isna().all()
    study.read("manifest").assign(fold=0).to_parquet(study.path("manifest"))
    _, _, table = measure(study, usual_labels=["owl"])
    notes = dict.fromkeys(("null_energy", "nusa"), EMPTY) | dict.fromkeys(FITTED, module.UNFITTED)
    assert table["note"].dropna().to_dict() == notes
