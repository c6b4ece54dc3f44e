"""What people bring: a fine-tuned checkpoint with its own classes, and a translator."""

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
from singflow.artifacts.files import sha256_of
from singflow.artifacts.tensors import read_null_basis, read_tensors, write_tensors
from singflow.data.manifest import data_root
from tests.project import Project

THINGS = [559, 438, 455, 541, 630, 741, 471, 609, 915]
GROUPS = {"dog": [243, 251], "bird": [129, 99, 22], "thing": THINGS}
CLASSES = ["thing", "bird", "dog"]
SIZE = [3, 96, 96]
MINE = {"weights": "file:checkpoints/mine/model.pth", "class_list": "checkpoints/mine/classes.txt"}
ENTRY = {"source": "timm", "id": "resnet18.a1_in1k"} | MINE
ENTRY |= {"transform": {"input_size": SIZE}, "reported_top1": 90.0}
SCORES = [
    f"results/demo/scores/conse_minilm/{model}.parquet" for model in ("mine", "efficientnet_lite0")
]


def evaluation(model):
    config = resolve_data_config({"input_size": SIZE}, model=model)
    return create_transform(**config, is_training=False)


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
    """Scores of three labels, and the summary of the checkpoint; the model's predictions."""
    project = Project(tmp_path_factory.mktemp("own"))
    table = pd.read_csv(project.folder / "config/vocab/packaged.csv")
    kinds = {index: kind for kind, indices in GROUPS.items() for index in indices}
    table["kind"] = table["class_index"].map(kinds)
    table = table.dropna(subset="kind")[["path", "kind", "class_index"]]
    table.to_csv(project.folder / "mine.csv", index=False)
    root, mine = data_root("packaged", "."), project.folder / "checkpoints/mine"
    images = [Image.open(root / path).convert("RGB") for path in table["path"]]
    predicted = fine_tune(images, table["kind"], mine)
    project.predicted = dict(zip(table["path"], predicted, strict=True))
    (project.folder / "config/models.yaml").open("a").write("\n" + yaml.safe_dump({"mine": ENTRY}))
    study = {"data": {"table": "mine.csv", "label_column": "kind"}, "extraction": {"views": 1}}
    study |= {"comparison": {"models": []}, "pictures": {"closeup": "mine"}}
    project.study(models=["mine", "efficientnet_lite0"], **study)
    project.snakemake("results/demo/tables/summary.txt", "--config", "models=['mine']")
    project.snakemake(*SCORES)
    return project


def test_an_own_checkpoint_runs_through_the_whole_study(own):
    results = own.folder / "results/demo"
    head, metadata = read_tensors(results / "heads/mine.safetensors", ["weight", "bias"])
    assert head["weight"].shape == (3, 512) and json.loads(metadata["class_names"]) == CLASSES
    assert json.loads((results / "projectors/mine.json").read_text())["null_dim"] == 509
    prompts = json.loads((results / "prompts/conse_minilm.json").read_text())
    assert prompts["labels"] == ["bird", "dog", "thing"]
    manifest = pd.read_parquet(results / "data/manifest.parquet")
    assert set(manifest["prompt"]) == {f"an image of a {kind}" for kind in GROUPS}
    scores = pd.read_parquet(results / "scores/conse_minilm/mine.parquet")
    assert [CLASSES[row] for row in scores["class_index"]] == list(manifest["label"])
    assert list(scores["predicted_index"]) == [own.predicted[path] for path in manifest["path"]]
    assert (scores["is_deg"] > 0).all() and scores["logit_change"].max() < 1e-4
    right = np.mean(scores["predicted_index"] == scores["class_index"])
    metrics = json.loads((results / "metrics.json").read_text())["conse_minilm"]["mine"]
    assert metrics["top1"] == pytest.approx(right) and right > 0.6


@pytest.mark.nightly
def test_a_translator_of_ones_own_takes_the_place_of_a_fitted_one_and_scores_as_its_affine_map(
    own, tmp_path
):
    project, model = own.copy(tmp_path / "project"), "conse_minilm/efficientnet_lite0"
    generator = np.random.default_rng(0)
    weight = generator.standard_normal((384, 1280)).astype(np.float32)
    bias = generator.standard_normal(384).astype(np.float32)
    path = project.folder / f"checkpoints/translators/{model}.safetensors"
    made = {"kind": "linear", "space": "conse_minilm", "model": "efficientnet_lite0"}
    write_tensors(path, {"weight": weight, "bias": bias}, made)
    pin = f"imported: [{model}:{sha256_of(path)[:16]}]"
    project.edit("params.yaml", r"imported: \[\]", pin)
    project.snakemake(f"results/demo/scores/{model}.parquet")
    results = project.folder / "results/demo"
    report = json.loads((results / f"translators/{model}/linear.json").read_text())
    assert (report["alpha"], report["n_train"]) == (None, 0)
    scores = pd.read_parquet(results / f"scores/{model}.parquet")
    shard = results / "features/efficientnet_lite0/shard-00000.safetensors"
    features = read_tensors(shard, ["features"])[0]["features"].astype(float)
    basis = read_null_basis(results / "projectors/efficientnet_lite0.safetensors")
    names = json.loads((results / "prompts/conse_minilm.json").read_text())["labels"]
    texts = read_tensors(results / "prompts/conse_minilm.safetensors", ["label_embeddings"])[0]
    target = texts["label_embeddings"][[names.index(label) for label in scores["label"]]]
    before = features @ weight.T + bias
    after = (features - features @ basis @ basis.T) @ weight.T + bias
    np.testing.assert_allclose(scores["is_deg"], angle_deg(before, after), atol=1e-5)
    moved = angle_deg(before, target) - angle_deg(after, target)
    np.testing.assert_allclose(scores["as_deg"], moved, atol=1e-5)


@pytest.mark.nightly
def test_a_changed_checkpoint_is_noticed_and_a_touched_one_not(own):
    checkpoint = own.folder / "checkpoints/mine/model.pth"
    checkpoint.touch()
    assert own.planned(*SCORES) == set()
    state = torch.load(checkpoint, weights_only=True)
    state["state_dict"]["fc.bias"] += 1.0
    torch.save(state, checkpoint)
    assert own.planned(*SCORES) == {"resolve_model@mine"}
