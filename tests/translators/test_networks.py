import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import erf
from scipy.stats import zscore
from sklearn.metrics import mean_squared_error
from sklearn.metrics.pairwise import paired_cosine_distances

from singflow.artifacts.files import write_json
from singflow.artifacts.tensors import read_tensors
from singflow.translators.networks import Pairs, best_epoch, load_network, train
from singflow.translators.parameters import Training
from singflow.translators.reference import Paired
from singflow.translators.ridge import Affine, RidgeStatistics
from tests.refusals import refused
from tests.results import Results

FIGURES = ["validation_cosine", "validation_mse", "validation_r2"]
D, M = 16, 6
CPU = torch.device("cpu")
DEFAULTS = {"losses": ["mse"], "width": 32, "dropout": 0.1, "learning_rate": 0.01, "epochs": 4}
DEFAULTS |= {"weight_decay": 0.01, "batch_size": 32, "patience": 8}


@pytest.fixture(autouse=True)
def torch_is_left_as_it_was():
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


def linear_map(x):
    return x @ np.random.default_rng(1).standard_normal((D, M)) + 1


def bent_map(x):
    return 2 * np.abs(x[:, :M]) + x[:, M : 2 * M]


class Study:
    """Two views of 200 images in two shards of unlike size; a quarter of the images is held out."""

    def __init__(self, folder, planted=bent_map, noise=0.05):
        draw, scale = np.random.default_rng(0).standard_normal, np.linspace(0.1, 4, D)
        self.folder, self.results = folder, Results(folder, space="v", shards=2)
        self.image_id = np.repeat(np.arange(200), 2)
        self.view = np.tile(np.arange(2, dtype=np.int32), 200)
        self.features = (draw((400, D)) * scale + 3).astype(np.float32)
        clean = planted((self.features.astype(np.float64) - 3) / scale)
        self.embeddings = (0.1 * (clean + noise * draw((400, M)))).astype(np.float32)
        train = np.arange(200) % 4 > 0
        split = np.where(train, "train", "validation")
        self.manifest = pd.DataFrame({"image_id": np.arange(200), "split": split})
        self.training = train[self.image_id]
        self.held_out = ~self.training & (self.view == 0)
        self.target = self.embeddings[self.held_out]
        self.mean = self.embeddings[self.training].mean(axis=0, dtype=np.float64)
        self.spread = ((self.target - self.mean) ** 2).sum()
        self.write()

    def write(self):
        self.results.manifest(**self.manifest)
        for name, array in (("features", self.features), ("embeddings", self.embeddings)):
            for shard, rows in enumerate((slice(0, 258), slice(258, None))):
                where = self.image_id[rows], self.view[rows]
                self.results.shard(name, shard, array[rows], *where)
        return self

    def images(self, **columns):
        folders = (self.results.path(name).parent for name in ("features", "embeddings"))
        return Paired(self.manifest.assign(**columns), *folders, 2)

    def train(self, kind="mlp3", seed=0, **changes):
        settings = Training(**DEFAULTS).model_copy(update=changes)
        return train(self.images(), kind, settings, seed, CPU)

    def predict(self, network):
        """Translations of the held-out images."""
        with torch.inference_mode():
            return network(torch.from_numpy(self.features[self.held_out])).double().numpy()

    def step(self, kind="mlp3", **changes):
        chosen = {"kind": kind, "reference": None, "device": "cpu", "seed": 0}
        self.results.run("train_translator", **DEFAULTS | changes | chosen)


def same(left, right):
    """Whether two trainings ended alike."""
    ours, theirs = (network.state_dict() for network, _ in (left, right))
    return left[1] == right[1] and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return Study(tmp_path_factory.mktemp("study") / "s")


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    return Study(tmp_path_factory.mktemp("straight") / "s", linear_map, noise=1.0)


@pytest.fixture
def own(tmp_path):
    """A study that a test may change."""
    return Study(tmp_path / "s")


def ridge_r2(study):
    statistics = RidgeStatistics(D, M)
    statistics.update(study.features[study.training], study.embeddings[study.training])
    fits = statistics.path([1e-3, 1e-1, 1, 10, 100])
    held_out = study.features[study.held_out]
    return max(1 - ((fit(held_out) - study.target) ** 2).sum() / study.spread for fit in fits)


@pytest.mark.parametrize("kind", ["mlp3", "residual"])
def test_a_bent_map_is_translated_better_than_by_ridge_a_straight_one_not(kind, study, straight):
    wanted = {"kind": kind, "epochs": 30, "patience": 15, "dropout": 0.0}
    bent, level = (made.train(**wanted)[1]["validation_r2"] for made in (study, straight))
    assert bent > ridge_r2(study) + 0.2
    assert ridge_r2(straight) - 0.15 < level < ridge_r2(straight) + 0.01


def test_an_untrained_network_is_the_constant_baseline_and_an_epoch_meets_every_row_once(study):
    network, report = study.train(losses=["mse", "cosine"], epochs=1, learning_rate=1e-12)
    np.testing.assert_allclose(study.predict(network), np.tile(study.mean, (50, 1)), atol=1e-6)
    target = study.embeddings[study.training].astype(np.float64)
    (mse,), (cosine,) = (report["losses"][loss]["history"] for loss in ("mse", "cosine"))
    assert mse["train_loss"] == pytest.approx(((target - study.mean) ** 2).mean(), rel=1e-5)
    distance = paired_cosine_distances(np.broadcast_to(study.mean, target.shape), target).mean()
    assert cosine["train_loss"] == pytest.approx(distance, rel=1e-5)
    assert report["losses"]["mse"]["validation_r2"] == pytest.approx(0, abs=1e-5)
    assert report["baseline_cosine"] == pytest.approx(mse["validation_cosine"], abs=1e-6)
    assert (report["n_train"], report["n_validation"]) == (300, 50)


def test_features_and_embeddings_are_standardized_and_a_constant_keeps_its_unit(own):
    own.features[:, 2], own.embeddings[:, 1] = 1e4 / 3, 0.1
    buffers = Pairs(own.write().images(), CPU).buffers
    for name, array, constant in (("feature", own.features, 2), ("embedding", own.embeddings, 1)):
        rows = array[own.training].astype(np.float64)
        expected = np.where(np.arange(rows.shape[1]) == constant, 1.0, rows.std(axis=0))
        np.testing.assert_allclose(buffers[f"{name}_mean"], rows.mean(axis=0), rtol=1e-13)
        np.testing.assert_allclose(buffers[f"{name}_scale"], expected, rtol=1e-11)
    assert np.isfinite(own.predict(own.train()[0])).all()


def test_crops_of_held_out_images_play_no_part(own):
    before = own.train()
    crops = ~own.training & (own.view > 0)
    own.features[crops], own.embeddings[crops] = 1e4, -1e4
    assert same(before, own.write().train())


def test_training_ends_after_its_patience_and_keeps_the_best_epoch_and_loss(study):
    tried = {"losses": ["cosine", "mse", "both"], "epochs": 60, "patience": 3}
    network, report = study.train(**tried, learning_rate=0.05)
    for loss, run in report["losses"].items():
        cosine, mse = (
            np.array([record[f"validation_{name}"] for record in run["history"]])
            for name in ("cosine", "mse")
        )
        value = {"mse": mse, "cosine": 1 - cosine, "both": mse + 1 - cosine}[loss]
        best = value.argmin()
        assert run["best_epoch"] == best_epoch(loss, run["history"]) == best + 1
        assert run["epochs"] == len(value) == run["best_epoch"] + 3 < 60
        r2 = 1 - run["validation_mse"] * study.target.size / study.spread
        assert run["validation_r2"] == pytest.approx(r2, abs=1e-9)
        assert (run["validation_cosine"], run["validation_mse"]) == (cosine[best], mse[best])
    kept = min(report["losses"].values(), key=lambda run: run["validation_mse"])
    assert report["losses"][report["loss"]] == kept
    assert [report[name] for name in FIGURES] == [kept[name] for name in FIGURES]
    predicted = study.predict(network)
    mse = mean_squared_error(study.target, predicted)
    cosine = 1 - paired_cosine_distances(predicted, study.target).mean()
    assert report["validation_mse"] == pytest.approx(mse, rel=1e-5)
    assert report["validation_cosine"] == pytest.approx(cosine, abs=1e-6)


def test_the_order_of_the_losses_does_not_matter_and_the_seed_does(study):
    orders = (["mse", "cosine", "both"], ["both", "cosine", "mse"])
    left, right = (study.train(losses=order) for order in orders)
    assert same(left, right)
    first, second = (
        study.train(seed=seed, epochs=1, learning_rate=1e-12)[0].state_dict() for seed in (0, 1)
    )
    assert (first["body.0.weight"] - second["body.0.weight"]).abs().max() > 0.01


def test_what_runs_away_or_has_nothing_held_out_or_is_linear_is_refused(study):
    fix = "lower training.learning_rate .* raise training.batch_size"
    refused(rf"loss mse is not finite in epoch \d: {fix}", study.train, learning_rate=1e30)
    message = "at least one training row and one held-out image, not 400 and 0"
    refused(message, Pairs, study.images(split="train"), CPU)
    study.results.translator(Affine(np.ones((M, D), np.float32), np.ones(M, np.float32)))
    path = study.results.path("translator")
    refused(r"linear.safetensors: holds no nonlinear translator", load_network, path)


def gelu(x):
    return x * (1 + erf(x / np.sqrt(2))) / 2


@pytest.mark.parametrize("kind", ["mlp3", "mlp4", "residual"])
def test_the_written_translator_predicts_what_its_tensors_say(kind, study):
    study.step(kind=kind, epochs=6)
    path = study.results.path("network", kind=kind)
    network = load_network(path)
    assert not network.training
    tensors, metadata = read_tensors(path, list(network.state_dict()))
    assert {array.dtype for array in tensors.values()} == {np.dtype(np.float32)}
    made = {"kind": kind, "loss": "mse", "width": "32", "dropout": "0.1", "model": "m"}
    assert (made | {"space": "v"}).items() <= metadata.items()
    assert metadata["device"].startswith("CPU (")
    t = {name: array.astype(np.float64) for name, array in tensors.items()}

    def layer(x, name):
        return x @ t[f"{name}.weight"].T + t[f"{name}.bias"]

    def normalized(x, name):
        return zscore(x, axis=1) * t[f"{name}.weight"] + t[f"{name}.bias"]

    x = (study.features[study.held_out] - t["feature_mean"]) / t["feature_scale"]
    if kind == "residual":
        inner = layer(normalized(x, "body.branch.0"), "body.branch.1")
        x = x + layer(gelu(inner), "body.branch.3")
    else:
        for number in range(0, 8 if kind == "mlp3" else 12, 4):
            x = gelu(normalized(layer(x, f"body.{number}"), f"body.{number + 1}"))
    expected = t["embedding_mean"] + t["embedding_scale"] * layer(x, "projection")
    np.testing.assert_allclose(study.predict(network), expected, atol=2e-5)
    report = study.results.read("network_report", kind=kind)
    mse = mean_squared_error(study.target, expected)
    assert report["validation_mse"] == pytest.approx(mse, rel=1e-4)
    assert (report["alpha"], report["alpha_curve"]) == (None, [])
    assert report["parameters"] == network.size


def test_table_2_has_a_row_per_translator_and_loss_and_says_what_it_gains(study):
    study.step(losses=["mse", "cosine"], epochs=30)
    results, flags = study.results, {"kinds": ["mlp3"], "min_r2": 0.2, "seed": 7}
    results.translator(Affine(np.zeros((M, D), np.float32), np.zeros(M, np.float32)))
    linear = {"alpha": 1.0, "alpha_curve": [], "n_train": 300, "baseline_cosine": 0.4}
    linear |= dict(zip(FIGURES, (0.6, 0.2, 0.3), strict=True)) | {"n_validation": 300}
    linear |= {"held_out_cosine": 0.5, "held_out_mse": 0.1, "held_out_r2": 0.1, "n_held_out": 50}
    linear |= {"held_out_baseline_cosine": 0.3, "held_out_n_train": 240}
    write_json(results.path("translator_report"), linear)
    results.run("compare_translators", **flags)
    table = results.read("tables/translators.csv")
    report = results.read("network_report", kind="mlp3")
    kept = [("mlp3", loss, report["loss"] == loss) for loss in ("cosine", "mse")]
    found = table[["kind", "loss", "kept"]].itertuples(index=False, name=None)
    assert [*found] == [("linear", "ridge", True), *kept]
    assert table["parameters"].tolist() == [M * D + M, report["parameters"], report["parameters"]]
    gains = [report["losses"][loss]["validation_r2"] - 0.1 for loss in ("cosine", "mse")]
    assert table["gain_r2"].tolist() == pytest.approx([0, *gains])
    assert table["gain_cosine"].tolist() == pytest.approx(table["validation_cosine"] - 0.5)
    good = ["not weak" if r2 >= 0.2 else "weak" for r2 in table["validation_r2"]]
    assert table["translator"].tolist() == good and {"weak", "not weak"} == set(good)
    assert table.loc[0, ["baseline_cosine", "n_train"]].tolist() == [0.3, 240]
    assert (table["n"] == 50).all() and (table["seed"] == 7).all()
    metrics = results.read("tables/translators.json")["v"]["m"]
    for kind, kept in (("mlp3", report["loss"]), ("linear", "ridge")):
        assert metrics[kind].pop("kept") == metrics[kind][kept]
    rows = {(kind, loss): metrics[kind][loss] for kind in metrics for loss in metrics[kind]}
    expected = table.set_index(["kind", "loss"])[FIGURES].to_dict("index")
    assert rows == expected
    header = results.path("tables/translators.csv").read_text().splitlines(keepends=True)[0]
    results.run("compare_translators", models=[], **flags)
    assert results.read("tables/translators.json") == {}
    assert results.path("tables/translators.csv").read_text() == header
