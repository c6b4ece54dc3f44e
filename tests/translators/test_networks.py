import copy
import json
import re
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from scipy.special import erf
from scipy.stats import zscore
from sklearn.metrics import mean_squared_error, r2_score
from sklearn.metrics.pairwise import paired_cosine_distances
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from singflow.artifacts.files import read_json, write_json
from singflow.artifacts.tensors import read_tensors, write_tensors
from singflow.config.reading import read_yaml
from singflow.errors import InputError
from singflow.extras import MissingExtra
from singflow.study import settle
from singflow.translators import networks
from singflow.translators.networks import LOSSES, Network, Pairs, best_epoch, load_network, train
from singflow.translators.parameters import Training
from singflow.translators.ridge import Affine, RidgeStatistics
from tests.project import ROOT, Project
from tests.results import Results

KINDS = ["mlp3", "mlp4", "residual"]
D, M = 16, 6


@pytest.fixture(autouse=True)
def torch_is_left_as_it_was():
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


class Study:
    """Two views of 200 images in two shards of unlike size; a quarter of the images is held out."""

    def __init__(self, folder, planted, noise=0.05):
        generator = np.random.default_rng(0)
        self.folder, self.results = folder, Results(folder, space="v", shards=2)
        self.log = folder / "logs/train_translator.log"
        self.image_id, self.view = (
            np.repeat(np.arange(200), 2),
            np.tile(np.arange(2, dtype=np.int32), 200),
        )
        self.features = (generator.standard_normal((400, D)) * np.linspace(0.1, 4, D) + 3).astype(
            np.float32
        )
        clean = planted((self.features.astype(np.float64) - 3) / np.linspace(0.1, 4, D))
        self.embeddings = (0.1 * (clean + noise * generator.standard_normal((400, M)))).astype(
            np.float32
        )
        self.manifest = pd.DataFrame(
            {
                "image_id": np.arange(200),
                "split": np.where(np.arange(200) % 4, "train", "validation"),
            }
        )
        self.training = (self.manifest["split"] == "train").to_numpy()[self.image_id]
        self.held_out = ~self.training & (self.view == 0)
        self.write()

    def write(self):
        self.results.manifest(**self.manifest)
        for name, array in (("features", self.features), ("embeddings", self.embeddings)):
            for shard, rows in enumerate((slice(0, 258), slice(258, None))):
                where = self.image_id[rows], self.view[rows]
                self.results.shard(name, shard, array[rows], *where)
        return self

    def pairs(self, **columns):
        folders = (self.results.path(name).parent for name in ("features", "embeddings"))
        return Pairs(*folders, 2, self.manifest.assign(**columns), torch.device("cpu"))

    def train(self, kind="mlp3", seed=0, checkpoint=None, **changes):
        return train(
            self.pairs(),
            kind,
            settings(**changes),
            seed,
            checkpoint or self.folder / "unused.partial",
            lambda loss, history: None,
        )

    def predict(self, network, rows):
        with torch.inference_mode():
            return network(torch.from_numpy(self.features[rows])).double().numpy()

    def flags(self, seed=0, kind="mlp3", **changes):
        chosen = {"kind": kind, "reference": None, "device": "cpu", "seed": seed}
        chosen["log"] = self.log
        return settings(**changes).model_dump() | chosen

    def step(self, **changes):
        """Run the step; the bytes of its outputs."""
        kind = changes.get("kind", "mlp3")
        self.results.run("train_translator", **self.flags(**changes))
        outputs = ("network", "network_report")
        return [self.results.path(name, kind=kind).read_bytes() for name in outputs]


def settings(**changes):
    values = {
        "losses": ["mse"],
        "width": 32,
        "dropout": 0.1,
        "learning_rate": 0.01,
        "weight_decay": 0.01,
        "batch_size": 32,
        "epochs": 4,
        "patience": 8,
        "history": "report",
    }
    return Training(**values | {name: value for name, value in changes.items() if name in values})


def linear_map(x):
    return x @ np.random.default_rng(1).standard_normal((D, M)) + 1


def bent_map(x):
    return 2 * np.abs(x[:, :M]) + x[:, M : 2 * M]


def same(left, right):
    left, right = left.state_dict(), right.state_dict()
    return all(torch.equal(left[name], right[name]) for name in left | right)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return Study(tmp_path_factory.mktemp("study") / "s", bent_map)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    return Study(tmp_path_factory.mktemp("straight") / "s", linear_map, noise=1.0)


def ridge_r2(study):
    statistics = RidgeStatistics(D, M)
    statistics.update(study.features[study.training], study.embeddings[study.training])
    target = study.embeddings[study.held_out]
    fits = statistics.path([1e-3, 1e-1, 1, 10, 100])
    return max(
        1 - ((fit(study.features[study.held_out]) - target) ** 2).sum() / spread(study)
        for fit in fits
    )


def spread(study):
    return (
        (
            study.embeddings[study.held_out]
            - study.embeddings[study.training].mean(axis=0, dtype=np.float64)
        )
        ** 2
    ).sum()


@pytest.mark.parametrize("kind", KINDS)
def test_a_bent_map_is_translated_better_than_by_ridge_and_a_straight_one_is_not(
    kind, study, straight
):
    wanted = {"kind": kind, "epochs": 60, "patience": 15, "dropout": 0.0}
    bent = study.train(**wanted).losses["mse"]["validation_r2"]
    assert bent > ridge_r2(study) + 0.2
    level = straight.train(**wanted).losses["mse"]["validation_r2"]
    assert ridge_r2(straight) - 0.15 < level < ridge_r2(straight) + 0.01


def test_losses_are_their_closed_forms():
    predicted, target = np.random.default_rng(0).standard_normal((2, 30, 5))
    mse, cosine = (
        mean_squared_error(target, predicted),
        paired_cosine_distances(predicted, target).mean(),
    )
    for loss, expected in {"mse": mse, "cosine": cosine, "both": mse + cosine}.items():
        assert LOSSES[loss](
            torch.from_numpy(predicted), torch.from_numpy(target)
        ).item() == pytest.approx(expected, abs=1e-12)


def test_networks_have_as_many_parameters_as_their_layers():
    d, m, w = 16, 6, 32
    for kind, layers in (("mlp3", 1), ("mlp4", 2)):
        assert Network(kind, d, m, w, 0.1).size == (d * w + 3 * w) + layers * (w * w + 3 * w) + (
            w * m + m
        )
    assert Network("residual", d, m, w, 0.1).size == 2 * d + (d * w + w) + (w * d + d) + (d * m + m)


def test_an_untrained_network_is_the_constant_baseline_and_an_epoch_meets_every_training_row_once(
    study,
):
    trained = study.train(losses=["mse", "cosine"], epochs=1, learning_rate=1e-12)
    mean = study.embeddings[study.training].mean(axis=0, dtype=np.float64)
    np.testing.assert_allclose(
        study.predict(trained.network, study.held_out), np.tile(mean, (50, 1)), atol=1e-6
    )
    target = study.embeddings[study.training].astype(np.float64)
    (mse,), (cosine,) = (trained.losses[loss]["history"] for loss in ("mse", "cosine"))
    assert mse["train_loss"] == pytest.approx(((target - mean) ** 2).mean(), rel=1e-5)
    distance = paired_cosine_distances(np.broadcast_to(mean, target.shape), target).mean()
    assert cosine["train_loss"] == pytest.approx(distance, rel=1e-5)
    assert trained.losses["mse"]["validation_r2"] == pytest.approx(0, abs=1e-5)
    assert trained.baseline_cosine == pytest.approx(mse["validation_cosine"], abs=1e-6)
    assert (trained.n_train, trained.n_validation) == (300, 50)


def test_features_and_embeddings_are_standardized_and_a_constant_keeps_its_unit(tmp_path):
    study = Study(tmp_path / "s", bent_map)
    study.features[:, 2], study.embeddings[:, 1] = 1e4 / 3, 0.1
    moments = study.write().pairs().moments()
    for array, mean, scale, constant in (
        (study.features, moments.feature_mean, moments.feature_scale, 2),
        (study.embeddings, moments.embedding_mean, moments.embedding_scale, 1),
    ):
        rows = array[study.training].astype(np.float64)
        expected = np.where(np.arange(len(scale)) == constant, 1.0, rows.std(axis=0))
        np.testing.assert_allclose(mean, rows.mean(axis=0), rtol=1e-13)
        np.testing.assert_allclose(scale, expected, rtol=1e-11)
    assert np.isfinite(study.predict(study.train().network, study.held_out)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_another_unit_of_a_feature_changes_nothing(kind, tmp_path):
    study = Study(tmp_path / "s", bent_map)
    before = study.predict(study.train(kind).network, study.held_out)
    study.features = study.features * np.float32(1024) ** np.linspace(-1, 1, D).round().astype(
        np.float32
    )
    after = study.predict(study.write().train(kind).network, study.held_out)
    np.testing.assert_allclose(after, before, atol=2e-3 * np.abs(before).max())


def test_crops_of_held_out_images_play_no_part(tmp_path):
    study = Study(tmp_path / "s", bent_map)
    before = study.train()
    crops = ~study.training & (study.view > 0)
    study.features[crops], study.embeddings[crops] = 1e4, -1e4
    after = study.write().train()
    assert same(before.network, after.network)
    assert before.losses == after.losses


def test_training_ends_after_its_patience_and_keeps_the_best_epoch_and_the_loss_with_the_lowest_mse(
    study,
):
    trained = study.train(
        losses=["cosine", "mse", "both"], epochs=60, patience=3, learning_rate=0.05
    )
    target, baseline = study.embeddings[study.held_out], spread(study)
    for loss, run in trained.losses.items():
        cosine, mse = (
            np.array([record[f"validation_{name}"] for record in run["history"]])
            for name in ("cosine", "mse")
        )
        value = {"mse": mse, "cosine": 1 - cosine, "both": mse + 1 - cosine}[loss]
        assert run["best_epoch"] == best_epoch(loss, run["history"]) == np.argmin(value) + 1
        assert run["epochs"] == len(value) == run["best_epoch"] + 3 < 60
        assert run["validation_r2"] == pytest.approx(
            1 - run["validation_mse"] * target.size / baseline, abs=1e-9
        )
        assert [run["validation_cosine"], run["validation_mse"]] == [
            cosine[value.argmin()],
            mse[value.argmin()],
        ]
    assert trained.loss == min(
        trained.losses, key=lambda loss: trained.losses[loss]["validation_mse"]
    )
    predicted = study.predict(trained.network, study.held_out)
    assert trained.losses[trained.loss]["validation_mse"] == pytest.approx(
        mean_squared_error(target, predicted), rel=1e-5
    )
    assert trained.losses[trained.loss]["validation_cosine"] == pytest.approx(
        1 - paired_cosine_distances(predicted, target).mean(), abs=1e-6
    )


def test_another_seed_starts_from_other_weights(study):
    first, second = (
        study.train(seed=seed, epochs=1, learning_rate=1e-12).network.state_dict()
        for seed in (0, 1)
    )
    assert (first["body.0.weight"] - second["body.0.weight"]).abs().max() > 0.01


def test_the_order_of_the_losses_does_not_matter(study):
    left, right = (
        study.train(losses=order)
        for order in (["mse", "cosine", "both"], ["both", "cosine", "mse"])
    )
    assert same(left.network, right.network)
    assert left.losses == right.losses


def test_a_training_that_runs_away_is_refused_with_its_mend(study):
    with pytest.raises(
        InputError,
        match=(
            r"loss mse is not finite in epoch \d: lower training.learning_rate .* raise "
            r"training.batch_size"
        ),
    ):
        train(
            study.pairs(),
            "mlp3",
            settings().model_copy(update={"learning_rate": 1e30}),
            0,
            study.folder / "unused.partial",
            lambda loss, history: None,
        )


def test_a_study_without_held_out_images_is_refused(study):
    pairs = study.pairs(split="train")
    with pytest.raises(
        InputError, match="at least one training row and one held-out image, not 400 and 0"
    ):
        pairs.moments()


def test_a_finished_state_is_not_trained_again(study, tmp_path, caplog):
    state = tmp_path / "state.partial"
    first = study.train(losses=["cosine", "mse"], checkpoint=state)
    written = state.stat().st_mtime_ns
    caplog.set_level("INFO", "singflow")
    again = study.train(losses=["cosine", "mse"], checkpoint=state)
    assert "goes on after epoch 4" in caplog.text
    assert state.stat().st_mtime_ns == written
    assert same(first.network, again.network)
    assert first.losses == again.losses


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("seed", 1),
        ("kind", "mlp4"),
        ("batch_size", 31),
        ("patience", 7),
        ("learning_rate", 0.011),
        ("losses", ["both"]),
    ],
)
def test_a_state_of_other_settings_is_left_aside(name, change, study, tmp_path, caplog):
    state = tmp_path / "state.partial"
    study.train(epochs=2, checkpoint=state)
    found = study.train(epochs=2, checkpoint=state, **{name: change})
    assert (
        "state.partial: of other data, settings, code or software: training starts over"
        in caplog.text
    )
    fresh = study.train(epochs=2, **{name: change})
    assert same(found.network, fresh.network)
    assert found.losses == fresh.losses


def test_a_state_of_other_data_is_left_aside(tmp_path, caplog):
    study = Study(tmp_path / "s", bent_map)
    state = tmp_path / "state.partial"
    study.train(epochs=2, checkpoint=state)
    study.embeddings[np.flatnonzero(study.held_out)[0], 0] += 1e-6
    study.write().train(epochs=2, checkpoint=state)
    assert "of other data" in caplog.text


@pytest.mark.parametrize("damage", ["cut", "empty", "tensor", "history"])
def test_a_damaged_state_is_left_aside(damage, study, tmp_path, caplog):
    state = tmp_path / "state.partial"
    fresh = study.train(checkpoint=state)
    content = bytearray(state.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "empty":
        content.clear()
    elif damage == "tensor":
        content[-5] ^= 1
    else:
        content = content.replace(b'train_loss\\": 0', b'train_loss\\": 1')
    assert content != state.read_bytes()
    state.write_bytes(content)
    found = study.train(checkpoint=state)
    assert "training starts over" in caplog.text
    assert same(found.network, fresh.network)
    assert found.losses == fresh.losses


def normalized(x):
    return zscore(x, axis=1)


def gelu(x):
    return x * (1 + erf(x / np.sqrt(2))) / 2


@pytest.mark.parametrize("kind", KINDS)
def test_the_written_translator_predicts_what_its_tensors_say(kind, study):
    study.step(kind=kind, epochs=6)
    path = study.results.path("network", kind=kind)
    network = load_network(path)
    assert not network.training
    tensors, metadata = read_tensors(path, list(network.state_dict()))
    assert {array.dtype for array in tensors.values()} == {np.dtype(np.float32)}
    assert {
        name: metadata[name] for name in ("kind", "loss", "width", "dropout", "model", "space")
    } == {"kind": kind, "loss": "mse", "width": "32", "dropout": "0.1", "model": "m", "space": "v"}
    t = {name: array.astype(np.float64) for name, array in tensors.items()}
    x = (study.features[study.held_out] - t["feature_mean"]) / t["feature_scale"]
    if kind == "residual":
        inner = normalized(x) * t["body.branch.0.weight"] + t["body.branch.0.bias"]
        inner = gelu(inner @ t["body.branch.1.weight"].T + t["body.branch.1.bias"])
        x = x + inner @ t["body.branch.3.weight"].T + t["body.branch.3.bias"]
    else:
        for layer in range(0, 8 if kind == "mlp3" else 12, 4):
            x = normalized(x @ t[f"body.{layer}.weight"].T + t[f"body.{layer}.bias"])
            x = gelu(x * t[f"body.{layer + 1}.weight"] + t[f"body.{layer + 1}.bias"])
    expected = t["embedding_mean"] + t["embedding_scale"] * (
        x @ t["projection.weight"].T + t["projection.bias"]
    )
    np.testing.assert_allclose(study.predict(network, study.held_out), expected, atol=2e-5)
    report = study.results.read("network_report", kind=kind)
    target = study.embeddings[study.held_out]
    assert report["validation_mse"] == pytest.approx(mean_squared_error(target, expected), rel=1e-4)
    assert report["validation_r2"] == pytest.approx(
        r2_score(target, expected, multioutput="variance_weighted"), abs=0.02
    )
    assert (report["alpha"], report["alpha_curve"], report["parameters"]) == (
        None,
        [],
        network.size,
    )


def test_only_a_nonlinear_translator_is_loaded(tmp_path):
    write_tensors(
        tmp_path / "linear.safetensors",
        {"weight": np.ones((2, 3)), "bias": np.ones(2)},
        {"kind": "linear"},
    )
    with pytest.raises(InputError, match=r"linear.safetensors: holds no nonlinear translator"):
        load_network(tmp_path / "linear.safetensors")


def test_one_seed_gives_the_same_bytes_and_another_seed_others(study):
    first, again, other = (study.step(seed=seed, losses=["mse", "both"]) for seed in (0, 0, 1))
    assert first == again
    assert all(left != right for left, right in zip(again, other, strict=True))


def test_a_killed_training_goes_on_where_it_was_and_ends_in_the_same_bytes(tmp_path, monkeypatch):
    wanted = {"losses": ["mse", "cosine"], "epochs": 5, "patience": 5}
    whole = Study(tmp_path / "whole/s", bent_map)
    expected = whole.step(**wanted)
    study = Study(tmp_path / "killed/s", bent_map)
    flags = study.flags(history="tensorboard", **wanted)
    words = study.results.words("train_translator", **flags)
    command = ["python", str(ROOT / "scripts/train_translator.py"), *words]
    output = study.results.path("network", kind="mlp3")
    state = output.with_name("mlp3.safetensors.partial")
    fault = {
        "program": "train_translator",
        "event": "os.rename",
        "path": re.escape(state.name),
        "nth": 8,
    }
    Project.at(tmp_path).killed(*command, fault=fault)
    with safe_open(state, framework="numpy") as file:
        left = json.loads(file.metadata()["state"])
    assert (left["loss"], len(left["history"])) == ("cosine", 2)
    assert not output.exists()
    seen = []
    written = networks._write_checkpoint

    def note(path, key, state, tensors):
        seen.append((state["loss"], len(state["history"])))
        written(path, key, state, tensors)

    monkeypatch.setattr(networks, "_write_checkpoint", note)
    study.results.run("train_translator", **flags)
    assert seen == [("cosine", 3), ("cosine", 4), ("cosine", 5)]
    report = study.results.path("network_report", kind="mlp3")
    assert [output.read_bytes(), report.read_bytes()] == expected
    assert not list(whole.folder.rglob("*.partial")) and not whole.log.with_suffix("").exists()
    assert not state.exists()
    told = {loss: figures["history"] for loss, figures in read_json(report)["losses"].items()}
    assert {loss: drawn(study.log.with_suffix("") / loss) for loss in told} == told


def drawn(folder):
    """What TensorBoard shows of a training: its records, by epoch."""
    (file,) = folder.iterdir()
    events = EventAccumulator(str(file)).Reload()
    curves = {name: events.Scalars(name) for name in events.Tags()["scalars"]}
    points = zip(*curves.values(), strict=True)
    return [
        {"epoch": scalars[0].step}
        | {name: pytest.approx(point.value) for name, point in zip(curves, scalars, strict=True)}
        for scalars in points
    ]


def test_without_tensorboard_a_study_that_asks_for_it_is_refused(monkeypatch):
    content = read_yaml(ROOT / "params.yaml")
    content["training"]["history"] = "tensorboard"
    settle(copy.deepcopy(content), "params.yaml")
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(
        MissingExtra,
        match=(
            r"tensorboard is not installed: in the checkout, "
            r"pip install -c constraints.txt -e '\.\[tensorboard\]'"
        ),
    ):
        settle(content, "params.yaml")


def test_table_2_has_a_row_per_translator_and_loss_and_says_what_it_gains(study):
    study.step(losses=["mse", "cosine"], epochs=30)
    results = study.results
    results.translator(Affine(np.zeros((M, D), np.float32), np.zeros(M, np.float32)))
    of_all_folds = {
        "validation_cosine": 0.6,
        "validation_mse": 0.2,
        "validation_r2": 0.3,
        "baseline_cosine": 0.4,
        "n_validation": 300,
    }
    held_out = {"held_out_cosine": 0.5, "held_out_mse": 0.1, "held_out_r2": 0.1, "n_held_out": 50}
    linear = of_all_folds | held_out | {"alpha": 1.0, "alpha_curve": [], "n_train": 300}
    write_json(results.path("translator_report"), linear)
    flags = {"kinds": ["mlp3"], "min_r2": 0.2, "seed": 7}
    results.run("compare_translators", **flags)
    table, report = (
        results.read("tables/translators.csv"),
        results.read("network_report", kind="mlp3"),
    )
    assert list(zip(table["kind"], table["loss"], table["kept"], strict=True)) == [
        ("linear", "ridge", True),
        ("mlp3", "cosine", report["loss"] == "cosine"),
        ("mlp3", "mse", report["loss"] == "mse"),
    ]
    assert table["parameters"].tolist() == [M * D + M, report["parameters"], report["parameters"]]
    assert table["gain_r2"].tolist() == pytest.approx(
        [0, *(report["losses"][loss]["validation_r2"] - 0.1 for loss in ("cosine", "mse"))]
    )
    assert table["gain_cosine"].tolist() == pytest.approx(table["validation_cosine"] - 0.5)
    assert table["translator"].tolist() == [
        "good" if r2 >= 0.2 else "weak" for r2 in table["validation_r2"]
    ]
    assert {"weak", "good"} == set(table["translator"])
    assert (table["n"] == 50).all()
    assert (table["seed"] == 7).all()
    metrics = results.read("tables/translators.json")["v"]["m"]
    rows = {
        (kind, loss): figures
        for kind, losses in metrics.items()
        for loss, figures in losses.items()
    }
    assert (
        rows.pop(("mlp3", "kept")) == rows["mlp3", report["loss"]]
        and rows.pop(("linear", "kept")) == rows["linear", "ridge"]
    )
    figures = ["validation_cosine", "validation_mse", "validation_r2"]
    assert rows == {
        (row["kind"], row["loss"]): row[figures].to_dict() for _, row in table.iterrows()
    }
    header = results.path("tables/translators.csv").read_text().splitlines(keepends=True)[0]
    results.run("compare_translators", models=[], **flags)
    assert results.read("tables/translators.json") == {}
    assert results.path("tables/translators.csv").read_text() == header
