import runpy

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from singflow.analyses.geometry import null_space, remove_null
from singflow.analyses.probes import assign_roles, correlate, fit_classifiers, gather, probe
from singflow.artifacts.files import read_json
from singflow.artifacts.tables import write_parquet
from singflow.artifacts.tensors import write_tensors
from singflow.errors import InputError
from singflow.translators.ridge import Affine, RidgeStatistics
from tests.data.manifests import whole
from tests.project import ROOT

ALPHAS = [1e-4, 1e-2, 1.0]


def manifest(train, validation):
    """Images of a label in a row, training images first: label -> number of images in the split."""
    rows = [(label, "train") for label in train for _ in range(train[label])]
    rows += [(label, "validation") for label in validation for _ in range(validation[label])]
    return pd.DataFrame(rows, columns=["label", "split"]).assign(image_id=np.arange(len(rows)))


def batches(features, views=1, size=7):
    """A pass over features (views, n, d), image by image."""
    image_id, view = np.repeat(np.arange(features.shape[1]), views), np.tile(np.arange(views), features.shape[1])
    order = np.arange(len(image_id))

    def start():
        for part in np.split(order, range(size, len(order), size)):
            yield image_id[part], view[part], features[view[part], image_id[part]]

    return start


def planted(images, width, seed, noise=0.1):
    """Features whose first coordinates are the label's corner of a simplex, and noise elsewhere."""
    codes = pd.Categorical(images["label"]).codes
    features = noise * np.random.default_rng(seed).standard_normal((1, len(images), width))
    features[0, np.arange(len(images)), codes] += 3
    return features


INVERTIBLE = Affine(np.random.default_rng(9).standard_normal((8, 8)), np.arange(8.0))
NOTHING = np.zeros((8, 0))


def test_images_have_one_role_and_a_label_on_one_side_has_none():
    images = manifest({"a": 12, "one": 1, "two": 2, "left": 4}, {"two": 1, "a": 3, "one": 2, "right": 1})
    images = images.sample(frac=1, random_state=0).reset_index(drop=True).assign(image_id=np.arange(len(images)))
    roles = assign_roles(images)
    assert roles.labels == ["a", "one", "two"]
    assert [roles.labels[code] for code in roles.codes[roles.codes >= 0]] == images["label"][images["label"].isin(roles.labels)].tolist()
    assert (roles.inner.astype(int) + roles.held_out + roles.test == (roles.codes >= 0)).all()
    assert (images["split"][roles.test] == "validation").all()
    assert (images["split"][roles.inner | roles.held_out] == "train").all()
    assert images["label"][roles.held_out].value_counts().to_dict() == {"a": 3, "two": 1}
    mine = images[(images["label"] == "a") & (images["split"] == "train")].index
    assert roles.held_out[mine].nonzero()[0].tolist() == [1, 6, 11]


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(2, 12), st.integers(2, 4), st.sampled_from([1e-3, 1.0, 1e3]))
def test_the_classifier_is_scikit_learns_ridge_on_one_hot_labels_whatever_the_unit(seed, width, labels, unit):
    generator = np.random.default_rng(seed)
    codes = generator.integers(0, labels, 40)
    features = generator.standard_normal((40, width)) + codes[:, None] + 5
    origin = unit * features[7], np.eye(labels)[codes[7]]
    statistics, others = (RidgeStatistics(width, labels, origin) for _ in range(2))
    for part, rows in zip((statistics, others), np.split(np.arange(40), [15]), strict=True):
        part.update(unit * features[rows], np.eye(labels)[codes[rows]])
    statistics.add(others)
    scale = ((features - features.mean(0)) ** 2).sum(1).mean()
    for alpha, ours in zip(ALPHAS, fit_classifiers(statistics, ALPHAS), strict=True):
        theirs = Ridge(alpha=alpha * scale, solver="svd").fit(features, np.eye(labels)[codes])
        np.testing.assert_allclose(ours(unit * features), theirs.predict(features), atol=1e-7)


def test_the_probe_is_scikit_learns_with_the_penalty_that_is_best_on_held_out_images():
    images = manifest(dict.fromkeys("abc", 20), dict.fromkeys("abc", 30))
    generator = np.random.default_rng(3)
    features = planted(images, 8, 3, noise=2.5) + generator.standard_normal((3, len(images), 8))
    translator = Affine(generator.standard_normal((5, 8)), generator.standard_normal(5))
    basis = null_space(generator.standard_normal((6, 8))).basis
    report = probe(batches(features, views=3), assign_roles(images), basis, translator, ALPHAS, 0.9)
    codes, training = pd.Categorical(images["label"]).codes, (images["split"] == "train").to_numpy()
    held_out = training & (images.groupby(["label", "split"]).cumcount() % 5 == 1).to_numpy()

    def accuracy(rows, train, test, alpha):
        x = rows[:, train].reshape(-1, rows.shape[2])
        penalty = alpha * ((x - x.mean(0)) ** 2).sum(1).mean()
        model = Ridge(alpha=penalty, solver="svd").fit(x, np.eye(3)[np.tile(codes[train], 3)])
        return (model.predict(rows[0, test]).argmax(1) == codes[test]).mean()

    principal = remove_null(features.reshape(-1, 8), basis).reshape(features.shape)
    for kind, rows in {"principal": principal, "translated": translator(principal)}.items():
        best = max(ALPHAS, key=lambda alpha: (accuracy(rows, training & ~held_out, held_out, alpha), alpha))
        assert report[f"alpha_{kind}"] == best
        share = accuracy(rows, training, ~training, best)
        assert report[f"accuracy_{kind}"] == share
        z = scipy.stats.norm.ppf(0.95)
        centre, half = share + z**2 / 180, z * np.sqrt(share * (1 - share) / 90 + z**2 / (4 * 90**2))
        interval = [report[f"accuracy_{kind}_low"], report[f"accuracy_{kind}_high"]]
        np.testing.assert_allclose(interval, [(centre - half) / (1 + z**2 / 90), (centre + half) / (1 + z**2 / 90)])
    assert 0.4 < report["accuracy_translated"] < 1
    assert [report[name] for name in ("n_train", "n_test", "n_labels", "chance", "note")] == [60, 90, 3, 1 / 3, ""]


def test_separable_labels_are_found_before_and_after_an_invertible_translator():
    images = manifest({"a": 9, "b": 7, "c": 1}, {"a": 3, "b": 4, "c": 5})
    report = probe(batches(planted(images, 8, 0)), assign_roles(images), NOTHING, INVERTIBLE, ALPHAS, 0.95)
    assert (report["accuracy_principal"], report["accuracy_translated"]) == (1, 1)
    assert (report["n_train"], report["n_test"], report["chance"]) == (17, 12, 5 / 12)


def test_labels_that_only_the_null_space_tells_apart_are_not_seen():
    images = manifest(dict.fromkeys("abcd", 40), dict.fromkeys("abcd", 40))
    features = planted(images, 8, 1)
    seen, unseen = np.eye(8)[:, 4:], np.eye(8)[:, :4]
    blind = probe(batches(features), assign_roles(images), unseen, INVERTIBLE, ALPHAS, 0.99)
    for kind in ("principal", "translated"):
        assert blind[f"accuracy_{kind}_low"] < 0.25 < blind[f"accuracy_{kind}_high"]
    assert probe(batches(features), assign_roles(images), seen, INVERTIBLE, ALPHAS, 0.99)["accuracy_principal"] == 1


def test_without_a_label_of_two_training_images_the_middle_penalty_is_used_and_said():
    images = manifest(dict.fromkeys("abc", 1), dict.fromkeys("abc", 2))
    report = probe(batches(planted(images, 8, 0)), assign_roles(images), NOTHING, INVERTIBLE, [1.0, 1e-4, 1e-2], 0.95)
    assert (report["alpha_principal"], report["alpha_translated"]) == (1e-2, 1e-2)
    assert report["note"] == "no label has two training images to choose the penalty with: the middle one is used"
    assert report["accuracy_principal"] == 1


@pytest.mark.parametrize(
    ("images", "basis", "note"),
    [
        (manifest({"a": 3, "b": 2}, {"c": 1}), NOTHING, "a probe needs two labels with images in both splits; there are 0"),
        (manifest({"a": 3, "b": 2}, {"a": 1}), NOTHING, "a probe needs two labels with images in both splits; there are 1"),
        (manifest({"a": 3, "b": 2}, {"a": 1, "b": 1}), np.eye(8), "the head has no principal space"),
    ],
)
def test_where_there_is_nothing_to_tell_apart_the_numbers_are_null_and_the_note_says_why(images, basis, note):
    report = probe(batches(planted(images, 8, 0)), assign_roles(images), basis, INVERTIBLE, ALPHAS, 0.95)
    assert report["note"] == note
    numbers = {name: value for name, value in report.items() if name not in ("n_train", "n_test", "n_labels", "note")}
    assert len(numbers) == 9
    assert set(numbers.values()) == {None}


def test_features_that_do_not_vary_are_refused():
    images = manifest({"a": 3, "b": 2}, {"a": 1, "b": 1})
    with pytest.raises(InputError, match="are all alike: look at the images and at the classifier"):
        probe(batches(np.ones((1, 7, 8))), assign_roles(images), NOTHING, INVERTIBLE, ALPHAS, 0.95)


def test_the_correlation_over_models_and_its_interval_are_those_of_a_hand_computation():
    x, y = np.array([0.6, 0.7, 0.8, 0.9, np.nan]), np.array([0.5, 0.7, 0.6, 0.9, 0.4])
    row = correlate(x, y, 0.95)
    # deviations (-.15, -.05, .05, .15) and (-.175, .025, -.075, .225): r = .055 / sqrt(.05 * .0875)
    assert row["pearson"] == pytest.approx(0.055 / np.sqrt(0.05 * 0.0875), abs=1e-12)
    reach = 1.959963984540054 / np.sqrt(4 - 3)
    assert row["pearson_low"] == pytest.approx(np.tanh(np.arctanh(row["pearson"]) - reach), abs=1e-9)
    assert row["pearson_high"] == pytest.approx(np.tanh(np.arctanh(row["pearson"]) + reach), abs=1e-9)
    assert (row["pearson_n"], row["pearson_note"]) == (4, "")


@pytest.mark.parametrize(
    ("x", "y", "pearson", "note"),
    [
        ([0.6, 0.7], [0.5, 0.7], None, "a correlation needs three models with an accuracy"),
        ([0.6, 0.7, 0.8], [0.5, 0.6, np.nan], None, "a correlation needs three models with an accuracy"),
        ([0.6, 0.7, 0.8], [0.5, 0.6, 0.7], 1.0, "an interval needs four models"),
        ([0.6, 0.6, 0.6, 0.6], [0.5, 0.6, 0.7, 0.7], None, "all models have the same accuracy"),
    ],
)
def test_a_correlation_that_is_undefined_is_left_empty_and_says_why(x, y, pearson, note):
    row = correlate(np.array(x), np.array(y), 0.95)
    assert row["pearson"] == (pearson and pytest.approx(pearson))
    assert (row["pearson_low"], row["pearson_high"], row["pearson_note"]) == (None, None, note)


def test_the_scripts_probe_tabulate_and_draw_whatever_the_shards_with_the_same_bytes(tmp_path):
    images = manifest({"a": 8, "b": 7}, {"a": 3, "b": 4, "c": 1})
    write_parquet(tmp_path / "manifest.parquet", whole(images))
    models = [f"timm/model{number}" for number in range(4)]
    script = runpy.run_path(str(ROOT / "scripts/probe_principal.py"), run_name="x")
    for number, model in enumerate(models):
        features = planted(images, 8, number, noise=2.0 + number)[0].astype(np.float32)
        basis = np.eye(8)[:, 5:]
        translator = {"weight": INVERTIBLE.weight.astype(np.float32), "bias": INVERTIBLE.bias.astype(np.float32)}
        write_tensors(tmp_path / model / "projector.safetensors", {"null_basis": basis}, {})
        write_tensors(tmp_path / model / "translator.safetensors", translator, {"kind": "linear"})
        for shards in (1, 2):
            for shard, rows in enumerate(np.array_split(np.arange(len(images)), shards)):
                tensors = {"features": features[rows], "image_id": rows, "view": np.zeros(len(rows), np.int32)}
                write_tensors(tmp_path / model / f"{shards}/shard-{shard:05d}.safetensors", tensors, {})
            paths = {name: tmp_path / model / f"{name}.safetensors" for name in ("projector", "translator")}
            paths |= {"features": tmp_path / model / str(shards), "output": tmp_path / f"probes{shards}/s/{model}.json"}
            flags = script["Flags"](
                alphas=ALPHAS, confidence=0.95, manifest=tmp_path / "manifest.parquet", shards=shards, threads=2, **paths
            )
            script["main"](flags)
        pass_over = batches(features[None])
        expected = probe(pass_over, assign_roles(images), basis, Affine(**translator), ALPHAS, 0.95)
        assert read_json(tmp_path / f"probes1/s/{model}.json") == read_json(tmp_path / f"probes2/s/{model}.json") == expected
    rows = [{"space": "s", "model": m, "rank_rule": "exact", "null_dim": 3, "validation_r2": 0.4, "translator": "good"} for m in models]
    pd.DataFrame(rows).assign(seed=3, marks="").to_csv(tmp_path / "models.csv")
    plot = runpy.run_path(str(ROOT / "scripts/plot_probes.py"), run_name="x")
    for attempt in "ab":
        paths = {name: tmp_path / attempt / f"fig12.{name}" for name in ("output", "png", "pdf")}
        paths |= {"probes": tmp_path / "probes1", "table": tmp_path / "models.csv"}
        plot["main"](plot["Flags"](models=models, spaces=["s"], confidence=0.95, **paths))
    table = pd.read_csv(tmp_path / "a/fig12.output")
    assert table["model"].tolist() == models
    assert table["n"].tolist() == table["n_test"].tolist() == [7] * 4
    assert table["seed"].tolist() == [3] * 4
    assert table["pearson_n"].tolist() == [4] * 4
    np.testing.assert_allclose(table["pearson"], np.corrcoef(table["accuracy_principal"], table["accuracy_translated"])[0, 1])
    for name in ("output", "png", "pdf"):
        assert (tmp_path / f"a/fig12.{name}").read_bytes() == (tmp_path / f"b/fig12.{name}").read_bytes()


def test_the_table_keeps_spaces_apart():
    report = {"accuracy_principal": 0.5, "accuracy_translated": 0.5, "n_test": 4}
    probes = {
        s: {f"m{i}": report | {"accuracy_principal": i / 10, "accuracy_translated": sign * i / 10} for i in range(4)}
        for s, sign in (("s", 1), ("t", -1))
    }
    rows = [{"space": s, "model": m, "rank_rule": "exact", "null_dim": 3, "validation_r2": 0.4} for s in "st" for m in probes["s"]]
    table = gather(probes, pd.DataFrame(rows).assign(translator="good", marks="", seed=0), 0.95)
    np.testing.assert_allclose(table["pearson"], [1] * 4 + [-1] * 4)
