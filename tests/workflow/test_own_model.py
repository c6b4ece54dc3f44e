"""What people bring: a fine-tuned checkpoint with its own classes, and a released translator."""

import json

import numpy as np
import pandas as pd
import pytest
import timm
import torch
import yaml
from PIL import Image
from timm.data import create_transform, resolve_data_config

from singflow.analyses.metrics import angle_deg
from singflow.artifacts.tensors import read_tensors
from singflow.data.manifest import data_root
from singflow.engines.stages import FIRST
from tests.project import Project

KINDS = {
    "dog": [243, 251],
    "bird": [129, 99, 22],
    "thing": [559, 438, 455, 541, 630, 741, 471, 609, 915],
}
CLASSES = ["thing", "bird", "dog"]
SIZE = [3, 96, 96]
ENTRY = {
    "source": "timm",
    "id": "resnet18.a1_in1k",
    "weights": "file:checkpoints/mine/model.pth",
    "class_list": "checkpoints/mine/classes.txt",
    "transform": {"input_size": SIZE},
    "reported_top1": 90.0,
}


def evaluation(model):
    return create_transform(
        **resolve_data_config({"input_size": SIZE}, model=model), is_training=False
    )


def fine_tune(images, labels, folder):
    """A resnet18 taught three labels for a few seconds, saved as training scripts save it."""
    torch.manual_seed(0)
    model = timm.create_model("resnet18.a1_in1k", pretrained=False, num_classes=3)
    batch = torch.stack([evaluation(model)(image) for image in images])
    target = torch.tensor([CLASSES.index(label) for label in labels])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(12):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(batch), target).backward()
        optimizer.step()
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": model.state_dict(), "epoch": 12}, folder / "model.pth")
    (folder / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    with torch.inference_mode():
        return model.eval()(batch).argmax(dim=1).numpy()


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A project with a table of three labels, the checkpoint, and the checkpoint's predictions."""
    project = Project(tmp_path_factory.mktemp("own"))
    packaged = pd.read_csv(project.folder / "config/vocab/packaged.csv")
    packaged["kind"] = packaged["class_index"].map(
        {index: kind for kind, indices in KINDS.items() for index in indices}
    )
    table = packaged.dropna(subset="kind")[["path", "kind", "class_index"]]
    table.to_csv(project.folder / "mine.csv", index=False)
    root = data_root("packaged", ".")
    images = [Image.open(root / path).convert("RGB") for path in table["path"]]
    project.predicted = dict(
        zip(
            table["path"],
            fine_tune(images, table["kind"], project.folder / "checkpoints/mine"),
            strict=True,
        )
    )
    (project.folder / "config/models.yaml").open("a").write("\n" + yaml.safe_dump({"mine": ENTRY}))
    data = {"table": "mine.csv", "label_column": "kind"}
    project.study(
        models=["mine", "efficientnet_lite0"],
        data=data,
        extraction={"views": 1, "shards": 2},
        comparison={"models": []},
    )
    project.snakemake()
    return project


def test_an_own_checkpoint_runs_through_the_whole_study(own):
    results = own.folder / "results/demo"
    head, metadata = read_tensors(results / "features/mine/head.safetensors", ["weight", "bias"])
    assert head["weight"].shape == (3, 512) and json.loads(metadata["class_names"]) == CLASSES
    assert json.loads((results / "projectors/mine.json").read_text())["null_dim"] == 509
    assert json.loads((results / "prompts/conse_minilm.json").read_text())["labels"] == [
        "bird",
        "dog",
        "thing",
    ]
    manifest = pd.read_parquet(results / "data/manifest.parquet")
    assert set(manifest["prompt"]) == {
        "an image of a bird",
        "an image of a dog",
        "an image of a thing",
    }
    scores = pd.read_parquet(results / "scores/conse_minilm/mine.parquet")
    assert [CLASSES[row] for row in scores["class_index"]] == list(manifest["label"])
    assert list(scores["predicted_index"]) == [own.predicted[path] for path in manifest["path"]]
    assert (scores["is_deg"] > 0).all() and scores["logit_change"].max() < 1e-4
    right = np.mean(scores["predicted_index"] == scores["class_index"])
    assert json.loads((results / "metrics.json").read_text())["conse_minilm"]["mine"][
        "top1"
    ] == pytest.approx(right)
    assert right > 0.6


def test_a_model_with_the_studys_classes_keeps_them_beside_it(own):
    scores = pd.read_parquet(
        own.folder / "results/demo/scores/conse_minilm/efficientnet_lite0.parquet"
    )
    assert set(scores["class_index"]) == {index for indices in KINDS.values() for index in indices}
    assert np.mean(scores["predicted_index"] == scores["class_index"]) > 0.8


def test_the_gates_are_in_the_metadata_of_every_shard(own):
    for model in ("mine", "efficientnet_lite0"):
        for shard in ("00000", "00001"):
            tensors, metadata = read_tensors(
                own.folder / f"results/demo/features/{model}/shard-{shard}.safetensors",
                ["features"],
            )
            features = tensors["features"].astype(np.float64)
            facts = json.loads(metadata["features"])
            norms = np.sqrt((features**2).sum(axis=1))
            assert [facts["norm_mean"], facts["norm_min"], facts["norm_max"]] == pytest.approx(
                [norms.mean(), norms.min(), norms.max()]
            )
            assert (
                facts["zero_share"] == pytest.approx(np.mean(features == 0))
                and facts["non_finite"] == 0
            )
            assert float(metadata["head_max_error"]) < 1e-4 and 0 <= float(metadata["top1"]) <= 1
            head = read_tensors(own.folder / f"results/demo/features/{model}/head.safetensors", [])[
                1
            ]
            assert head["weights_sha256"] == metadata["weights_sha256"]


def test_classes_in_the_wrong_order_cause_a_loud_warning_and_re_run_this_model_alone(own, tmp_path):
    project, summary = own.copy(tmp_path / "project"), "results/demo/tables/summary.txt"
    assert "TOP-1 FAR BELOW" not in (project.folder / summary).read_text()
    (project.folder / "checkpoints/mine/classes.txt").write_text("bird\ndog\nthing\n")
    planned = project.planned(direct=False)
    assert "extract_features@00000-mine" in planned and not [
        job for job in planned if "efficientnet_lite0" in job
    ]
    project.snakemake(summary)
    assert "! TOP-1 FAR BELOW WHAT IS REPORTED: mine" in (project.folder / summary).read_text()
    logs = "".join(
        path.read_text()
        for path in (project.folder / "results/demo/logs/extract_features").glob("mine/*.log")
    )
    assert "WARNING: mine: top-1 on" in logs and "its source reports 90.0 %" in logs


def test_both_engines_notice_a_changed_checkpoint_and_not_a_touched_one(own):
    own.dvc("repro", FIRST)
    own.run("dvc", "commit", "--force")
    (own.folder / "checkpoints/mine/model.pth").touch()
    assert own.planned() == set() == own.changed()
    state = torch.load(own.folder / "checkpoints/mine/model.pth", weights_only=True)
    state["state_dict"]["fc.bias"] += 1.0
    torch.save(state, own.folder / "checkpoints/mine/model.pth")
    assert own.planned() == {"resolve_model@mine"}
    pictures = {
        f"render_pictures@conse_minilm-{model}" for model in ("efficientnet_lite0", "mine")
    }  # a generator may lie in checkpoints/
    assert (
        own.changed()
        == {"resolve_model@mine", "resolve_model@efficientnet_lite0", "resolve_space@conse_minilm"}
        | pictures
    )
    own.run("dvc", "repro", "resolve_model", "resolve_space")
    assert (
        own.changed()
        == {
            "extract_head@mine",
            "extract_features@00000-mine",
            "extract_features@00001-mine",
            "summarize",
            "write_report",
        }
        | pictures
    )


def released(folder, weight, bias):
    folder.mkdir()
    torch.save(
        {"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)}, folder / "best.pt"
    )
    facts = {
        "model_name": "timm/tf_efficientnet_lite0.in1k",
        "translator_name": "linear",
        "architecture": "linear",
        "embedding_backend": "kakao_karlo_v1_alpha_image_variations",
        "in_dim": weight.shape[1],
        "out_dim": weight.shape[0],
        "hidden_dim": 1024,
        "checkpoint_file": "best.pt",
    }
    (folder / "metadata.yaml").write_text(yaml.safe_dump(facts))


def test_a_released_translator_takes_the_place_of_a_fitted_one_and_scores_as_its_own_affine_map(
    tmp_path,
):
    project = Project(tmp_path / "project")
    generator = np.random.default_rng(0)
    weight, bias = (
        generator.standard_normal((768, 1280)).astype(np.float32),
        generator.standard_normal(768).astype(np.float32),
    )
    released(tmp_path / "release", weight, bias)
    text = project.run(
        "singflow",
        "import_translator",
        "--release",
        str(tmp_path / "release"),
        "--model",
        "efficientnet_lite0",
    ).stdout
    (pin,) = [line.split("[")[1].rstrip("]") for line in text.splitlines() if "imported: [" in line]
    vocabulary, table = (
        project.folder / "config/vocab" / name for name in ("concepts.txt", "packaged_six.csv")
    )
    for path in (vocabulary, table):  # what a large tower takes a second for each time
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:5]))
    study = {
        "models": ["efficientnet_lite0"],
        "spaces": ["clip_vit_l14"],
        "weights": "random",
        "data": {"table": "config/vocab/packaged_six.csv"},
        "extraction": {
            "views": 1,
            "batch_size": 4,
        },  # a batch that is not full costs what a full one does
    }
    project.study(**study, translator={"imported": [pin], "folds": 2})
    project.snakemake("results/demo/scores/clip_vit_l14/efficientnet_lite0.parquet")
    results = project.folder / "results/demo"
    report = json.loads(
        (results / "translators/clip_vit_l14/efficientnet_lite0/linear.json").read_text()
    )
    assert (report["alpha"], report["n_train"], report["n_validation"]) == (
        None,
        0,
        2,
    )  # two images of fold 0
    scores = pd.read_parquet(results / "scores/clip_vit_l14/efficientnet_lite0.parquet")
    features = read_tensors(
        results / "features/efficientnet_lite0/shard-00000.safetensors", ["features"]
    )[0]["features"].astype(np.float64)
    basis = read_tensors(results / "projectors/efficientnet_lite0.safetensors", ["null_basis"])[0][
        "null_basis"
    ]
    texts = read_tensors(results / "prompts/clip_vit_l14.safetensors", ["label_embeddings"])[0][
        "label_embeddings"
    ]
    labels = json.loads((results / "prompts/clip_vit_l14.json").read_text())["labels"]
    target = texts[[labels.index(label) for label in scores["label"]]]
    before = features @ weight.T + bias
    after = (features - features @ basis @ basis.T) @ weight.T + bias
    np.testing.assert_allclose(scores["is_deg"], angle_deg(before, after), atol=1e-5)
    np.testing.assert_allclose(
        scores["as_deg"], angle_deg(before, target) - angle_deg(after, target), atol=1e-5
    )

    (
        project.folder / "checkpoints/translators/clip_vit_l14/efficientnet_lite0.safetensors"
    ).write_bytes(b"other")
    project.study(**study, translator={"imported": [pin], "folds": 2, "lambdas": [2.0]})
    changed = project.run("snakemake", "--cores", "2", check=False)
    assert changed.returncode != 0 and "but translator.imported says" in changed.stdout
