import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from singflow.analyses import probes
from singflow.analyses.geometry import null_space, remove_null
from singflow.analyses.probes import Probe, assign_roles, correlate, drawn_rows, fit_logistic, probe
from singflow.analyses.statistics import wilson
from singflow.artifacts.files import write_json
from singflow.figures import plot_probes
from singflow.translators.ridge import Affine
from tests.refusals import refused
from tests.results import BASIS, Results

ALPHAS = [1e-4, 1e-2, 1.0]
PROBE = {"classifier": "logistic", "alphas": ALPHAS, "confidence": 0.95}
PROBE |= {"groups": None, "folds": 3, "reference": None, "table": "", "class_list": ""}
BOTH = pytest.mark.parametrize("classifier", ["logistic", "ridge"])


def manifest(train, validation):
    """Images of a label in a row, training images first: label -> number of images in the split."""
    splits = {"train": train, "validation": validation}
    rows = [(label, s) for s, n in splits.items() for label in n for _ in range(n[label])]
    sha256 = [f"{row * 2654435761 % 2**32:08x}" for row in range(len(rows))]
    return pd.DataFrame(rows, columns=["label", "split"]).assign(sha256=sha256)


def planted(images, width, seed, noise=0.1):
    """Features (1, n, width): coordinates of the label's corner of a simplex, then noise."""
    codes = pd.Categorical(images["label"]).codes
    features = noise * np.random.default_rng(seed).standard_normal((1, len(images), width))
    features[0, np.arange(len(images)), codes] += 3
    return features


INVERTIBLE = Affine(np.random.default_rng(9).standard_normal((8, 8)), np.arange(8.0))
NOTHING = np.zeros((8, 0))


def probed(images, features, basis, translator, classifier="logistic", threads=1, **options):
    """What a probe gives for features (views, n, d)."""
    roles = assign_roles(images)
    views, n = np.meshgrid(np.arange(len(features)), np.arange(len(images)))
    used = roles.training[n] | (roles.test[n] & (views == 0))
    principal = remove_null(features[views[used], n[used]], basis)
    rows = {"principal": principal, "translated": translator(principal)}
    rows = {kind: values.astype(np.float32) for kind, values in rows.items()}
    given = Probe(classifier=classifier, alphas=options.get("alphas", ALPHAS))
    rank, confidence = len(basis) - basis.shape[1], options.get("confidence", 0.95)
    return probe(rows, roles, len(features), rank, given, confidence, threads)


def test_every_fifth_image_of_a_label_is_held_out_and_tested_where_the_data_tests_none():
    images = manifest({"a": 12, "two": 2, "left": 11}, {"two": 1, "a": 3, "single": 1, "right": 3})
    images = images.sample(frac=1, random_state=0, ignore_index=True)
    roles = assign_roles(images)
    assert roles.labels == ["a", "left", "right", "two"]
    for label, train, test in (("left", 9, 2), ("right", 2, 1)):
        mine = images[images["label"] == label].sort_values("sha256").index
        assert roles.test[mine].nonzero()[0].tolist() == [1, 6][:test]
        assert roles.training[mine].sum() == train
    held_out = images["label"][roles.held_out].value_counts().to_dict()
    assert held_out == {"a": 3, "left": 2, "two": 1, "right": 1}
    mine = images[(images["label"] == "a") & (images["split"] == "train")].index
    assert roles.held_out[mine].nonzero()[0].tolist() == [1, 6, 11]


SPLITS = st.sampled_from(["train", "validation"])
IMAGES = st.tuples(st.sampled_from("abcd"), SPLITS, st.integers(0, 7))


@settings(max_examples=40)
@given(st.lists(IMAGES, min_size=1, max_size=40), st.integers(1, 3))
def test_no_label_of_two_images_drops_out_of_the_training_or_the_test(drawn, views):
    images = pd.DataFrame(drawn, columns=["label", "split", "content"])
    images["sha256"] = images["content"].map(hex)
    roles = assign_roles(images)
    for label, mine in images.groupby("label"):
        training, test = roles.training[mine.index], roles.test[mine.index]
        sides, contents = mine["split"].nunique(), mine["sha256"].nunique()
        known = label in roles.labels
        assert known == (sides == 2 or contents > 1) == training.any() == test.any()
        if known:
            assert roles.inner[mine.index].any() and (training ^ test).all()
            assert set(roles.codes[mine.index]) == {roles.labels.index(label)}
        if sides == 2:
            assert (test == (mine["split"] == "validation")).all()
        else:
            assert not set(mine["sha256"][training]) & set(mine["sha256"][test])
    rows = np.diff(roles.first_rows(views))
    assert (rows == np.where(roles.training, views, np.where(roles.test, 1, 0))).all()


CASES = (st.integers(0, 2**32 - 1), st.integers(2, 12), st.integers(2, 4))  # seed, width, labels
UNITS = st.sampled_from([1e-3, 1.0, 1e3])


def shifted(seed, width, labels, rows):
    """Features far from 0 around a mean per label, and labels, all of which are among the first."""
    generator = np.random.default_rng(seed)
    codes = np.concatenate([np.arange(labels), generator.integers(0, labels, rows - labels)])
    features = generator.standard_normal((rows, width)) * generator.uniform(0.1, 10, width)
    return features + codes[:, None] + 5, codes


@settings(max_examples=12)
@given(*CASES, UNITS)
def test_logistic_is_scikit_learns_by_another_algorithm_whatever_the_unit(
    seed, width, labels, unit
):
    features, codes = shifted(seed, width, labels, 55)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probes, "TOLERANCE", 1e-7)
        fitted = list(fit_logistic(unit * features, np.arange(40), codes, ALPHAS))
    for alpha, ours in zip(ALPHAS, fitted, strict=True):
        model = LogisticRegression(C=1 / (alpha * width), solver="newton-cholesky", tol=1e-10)
        theirs = make_pipeline(StandardScaler(), model).fit(features[:40], codes[:40])
        shares, expected = softmax(ours(unit * features), axis=1), theirs.predict_proba(features)
        # Both stop where rounding hides the difference between the loss and its minimum. The
        # weights are then as near as the square root of that difference over the penalty.
        np.testing.assert_allclose(shares, expected, atol=2e-4 / np.sqrt(alpha))


def test_rows_beyond_memory_are_drawn_with_one_of_every_label_and_said(monkeypatch):
    images = manifest({"a": 200, "b": 200, "rare": 2}, dict.fromkeys(["a", "b", "rare"], 30))
    features = planted(images, 8, 0)
    whole = probed(images, features, NOTHING, INVERTIBLE)
    monkeypatch.setattr(probes, "IN_MEMORY", 50 * (8 + 3) + 3)
    report = probed(images, features, NOTHING, INVERTIBLE)
    assert whole["note"] == ""
    assert report["note"] == "trained on 50 of 402 rows, which fit in memory"
    assert report["accuracy_principal"] == whole["accuracy_principal"] == 1
    assert report == probed(images, features, NOTHING, INVERTIBLE, threads=2)
    index, codes = np.arange(0, 800, 2), np.repeat([0, 1, 2], [400, 396, 4])
    drawn = drawn_rows(index, codes, 40)
    assert len(set(drawn)) == 40 and set(drawn) <= set(index) and set(codes[drawn]) == {0, 1, 2}
    assert drawn_rows(index, codes, 400) is index and len(drawn_rows(index, codes, 1)) == 3


@BOTH
def test_the_probe_is_scikit_learns_with_the_penalty_that_is_best_on_held_out_images(classifier):
    images = manifest(dict.fromkeys("abc", 20), dict.fromkeys("abc", 30))
    generator = np.random.default_rng(3)
    features = planted(images, 8, 3, noise=2.5) + generator.standard_normal((3, len(images), 8))
    translator = Affine(generator.standard_normal((5, 8)), generator.standard_normal(5))
    basis = null_space(generator.standard_normal((6, 8))).basis
    report = probed(images, features, basis, translator, classifier, confidence=0.9)
    codes, training = pd.Categorical(images["label"]).codes, (images["split"] == "train").to_numpy()
    held_out = training & (images.groupby(["label", "split"]).cumcount() % 5 == 1).to_numpy()

    def judged(rows, train, test, alpha):
        """What chooses the penalty, and accuracy."""
        x, y = rows[:, train].reshape(-1, rows.shape[2]), np.tile(codes[train], 3)
        if classifier == "logistic":
            fit = LogisticRegression(C=1 / (alpha * x.shape[1]), tol=1e-5, max_iter=1000)
            model = make_pipeline(StandardScaler(), fit).fit(x, y)
            chosen_by = -log_loss(codes[test], model.predict_proba(rows[0, test]))
            return chosen_by, model.score(rows[0, test], codes[test])
        fit = Ridge(alpha=alpha * ((x - x.mean(0)) ** 2).sum(1).mean(), solver="svd")
        predicted = fit.fit(x, np.eye(3)[y]).predict(rows[0, test]).argmax(1)
        return ((predicted == codes[test]).mean(),) * 2

    principal = remove_null(features.reshape(-1, 8), basis).reshape(features.shape)
    for kind, rows in {"principal": principal, "translated": translator(principal)}.items():
        values = [judged(rows, training & ~held_out, held_out, alpha)[0] for alpha in ALPHAS]
        best = max(zip(values, ALPHAS, strict=True))[1]
        assert report[f"alpha_{kind}"] == best
        share = judged(rows, training, ~training, best)[1]
        assert report[f"accuracy_{kind}"] == share
        interval = [report[f"accuracy_{kind}_low"], report[f"accuracy_{kind}_high"]]
        assert interval == pytest.approx(wilson(round(90 * share), 90, 0.9))
    assert 0.4 < report["accuracy_translated"] < 1
    counts = {"n_train": 60, "n_test": 90, "n_labels": 3, "chance": 1 / 3, "note": ""}
    assert report.items() >= (counts | {"classifier": classifier}).items()
    assert report == probed(images, features, basis, translator, classifier, 3, confidence=0.9)


@BOTH
def test_labels_that_only_the_null_space_tells_apart_are_not_seen_not_even_by_its_rounding(
    classifier,
):
    images = manifest(dict.fromkeys("abcd", 40), dict.fromkeys("abcd", 40))
    features = planted(images, 8, 1) + 10
    turned = np.zeros((8, 4))
    turned[:4] = np.linalg.qr(np.random.default_rng(0).standard_normal((4, 4)))[0]
    residue = remove_null(features[0], turned)[:, :4]
    assert 0 < np.abs(residue).max() < 1e-13
    for unseen in (np.eye(8)[:, :4], turned):
        blind = probed(images, features, unseen, INVERTIBLE, classifier, confidence=0.99)
        for kind in ("principal", "translated"):
            assert blind[f"accuracy_{kind}_low"] < 0.25 < blind[f"accuracy_{kind}_high"]
    seen = probed(images, features, np.eye(8)[:, 4:], INVERTIBLE, classifier)
    assert seen["accuracy_principal"] == 1


def test_without_a_label_of_two_training_images_the_middle_penalty_is_used_and_said():
    images = manifest(dict.fromkeys("abc", 1), dict.fromkeys("abc", 2))
    report = probed(images, planted(images, 8, 0), NOTHING, INVERTIBLE, alphas=[1.0, 1e-4, 1e-2])
    assert (report["alpha_principal"], report["alpha_translated"]) == (1e-2, 1e-2)
    said = "no label has two training images to choose the penalty with: the middle one is used"
    assert report["note"] == said and report["accuracy_principal"] > report["chance"]


FEW = "a probe needs two labels of two images or more; there are"


def test_where_there_is_nothing_to_tell_apart_the_numbers_are_null_and_the_note_says_why():
    for train, validation, basis, note in (
        ({"a": 1, "b": 1}, {"c": 1}, NOTHING, f"{FEW} 0"),
        ({"a": 3, "b": 1}, {"c": 1}, NOTHING, f"{FEW} 1"),
        ({"a": 3, "b": 2}, {"a": 1, "b": 1}, np.eye(8), "the head has no principal space"),
    ):
        images = manifest(train, validation)
        report = probed(images, planted(images, 8, 0), basis, INVERTIBLE)
        assert report.pop("note") == note
        known = {"classifier", "n_train", "n_test", "n_labels"}
        assert [report[name] for name in report if name not in known] == [None] * 9


@BOTH
def test_features_that_do_not_vary_or_are_no_numbers_are_refused(classifier):
    images, alike = (
        manifest({"a": 3, "b": 2}, {"a": 1, "b": 1}),
        "are all alike: look at the images",
    )
    for value, message in ((1.0, alike), (np.nan, "a feature is NaN or infinite")):
        refused(message, probed, images, np.full((1, 7, 8), value), NOTHING, INVERTIBLE, classifier)


def test_the_correlation_of_five_models_or_more_is_that_of_a_hand_computation():
    x = np.array([0.6, 0.7, 0.75, 0.8, 0.9, np.nan])
    y = np.array([0.5, 0.7, 0.625, 0.6, 0.7, 0.4])
    row = correlate(x, y, 0.95)
    r = 0.025 / np.sqrt(0.05 * 0.0275)  # sums over deviations from the means
    low, high = np.tanh(np.arctanh(r) + np.array([-1, 1]) * 1.959963984540054 / np.sqrt(5 - 3))
    assert [*row.values()] == pytest.approx([r, low, high, 5])
    for few, same in ((x[:4], y[:4]), (np.full(6, 0.6), y)):
        assert correlate(few, same, 0.95)["pearson"] is None


@BOTH
def test_the_script_takes_for_each_image_the_translator_that_has_not_seen_it_whatever_shards_and_threads(  # noqa: E501
    tmp_path, classifier
):
    images = manifest({"a": 8, "b": 7, "d": 3}, {"a": 3, "b": 4, "c": 1})
    folds = np.where(images["split"] == "validation", 0, 1 + np.arange(len(images)) % 2)
    features, basis = planted(images, 8, 0, noise=1.0).astype(np.float32), np.eye(8)[:, 5:]
    translator = INVERTIBLE.astype(np.float32)
    seeing = Affine(np.zeros((8, 8), np.float32), translator.bias)  # of all training images
    for whole, of_folds, seen in ((seeing, [translator] * 3, False), (translator, [], True)):
        reports = []
        for shards, threads in ((1, 1), (2, 3)):
            results = Results(tmp_path, shards=shards)
            results.manifest(**images, fold=folds)
            results.tensors("projector", null_basis=basis)
            results.translator(whole, of_folds, in_sample=str(seen).lower())
            for shard, rows in enumerate(np.array_split(np.arange(len(images)), shards)):
                view = np.zeros(len(rows), np.int32)
                results.shard("features", shard, features[0, rows], rows, view)
            results.run("probe_principal", threads=threads, **PROBE | {"classifier": classifier})
            reports.append(results.path("probes").read_bytes())
        assert reports[0] == reports[1]
        expected = probed(images, features, basis, INVERTIBLE, classifier)
        counts = {"by": "label", "n_labels_left_out": 1, "n_test_in_sample": int(seen)}
        assert results.read("probes") == expected | counts
        assert (expected["n_labels"], expected["n_test"]) == (3, 8)
        assert expected["accuracy_translated"] > expected["chance"]


def test_where_labels_have_one_image_the_groups_of_the_reference_are_probed_out_of_sample(tmp_path):
    study, other = Results(tmp_path / "s"), Results(tmp_path / "other")
    made = {"tower": "t", "weights_sha256": "w", "decode": "full", "precision": "float32"}
    generator = np.random.default_rng(0)
    kind = np.arange(90) % 3
    listed = "".join(f"{n},,class {n},{'abc'[n % 3]}\n" for n in range(90))
    (tmp_path / "classes.csv").write_text(f"class_index,synset,name,group\n{listed}90,,odd,\n")
    features = generator.normal(size=(91, 6)).astype(np.float32)
    features[:90, :3] += 8 * np.eye(3)[kind]
    names, fold = [*(f"class {n}" for n in range(90)), "odd"], np.arange(91) // 3 % 3
    names[3:5] = ["crane", "crane"]  # of two classes, which the class list calls otherwise
    other.manifest(label=names, split=np.where(fold == 0, "validation", "train"), fold=fold)
    study.manifest(label=["x", "y"], split="train", fold=0, sha256=["x", "y"])
    for results, rows in ((other, features), (study, features[:2] + 9)):
        results.rows("features", rows, **made)
        results.rows("embeddings", rows[:, ::-1].copy(), **made)
    study.tensors("projector", null_basis=np.eye(6)[:, 5:])
    study.translator(Affine(np.eye(6, dtype=np.float32), np.zeros(6, np.float32)))
    curve = [{"lambda": 0.1, "validation_r2": 0.2}]
    write_json(study.path("translator_report"), {"lambda": 0.1, "alpha_curve": curve})
    flags = PROBE | {"reference": str(other.folder), "class_list": tmp_path / "classes.csv"}
    study.run("probe_principal", **flags)
    assert study.read("probes")["note"].startswith("a probe needs two labels")
    study.run("probe_principal", **flags | {"groups": "group"})
    report = study.read("probes")
    assert (report["by"], report["n_labels"], report["n_labels_left_out"]) == ("group", 3, 0)
    assert (report["n_train"], report["n_test"], report["n_test_in_sample"]) == (60, 30, 0)
    assert report["accuracy_principal"] == report["accuracy_translated"] == 1.0


def test_the_table_keeps_spaces_apart():
    probes = {
        space: {
            f"m{i}": {"accuracy_principal": i, "accuracy_translated": sign * i, "n_test": 4}
            for i in range(5)
        }
        for space, sign in (("s", 1), ("t", -1))
    }
    models = pd.DataFrame([(s, m) for s in "st" for m in probes[s]], columns=["space", "model"])
    table = plot_probes.tabulate(probes, models.assign(**BASIS), 0.95)
    np.testing.assert_allclose(table["pearson"], [1] * 5 + [-1] * 5)
