"""The whole plumbing of the paper, without its weights: every classifier, both spaces, as the README runs it."""

import json

import pandas as pd
import pytest
import yaml

from singflow.config import check, read_yaml
from singflow.data import read_classes
from singflow.store import read_tensors
from tests.project import ROOT, Project
from tests.workflow.test_readme import COMMANDS

NULL_DIM = {
    "resnet50": 1048, "vgg16": 3096, "vgg19": 3096, "densenet121": 24, "efficientnet_b4": 792, "efficientnet_b0": 280, "bit_resnet50": 1048,
    "resnext101": 1048, "convnext_base": 24, "swin_large": 536, "dinov2_large": 1048, "deit3_large": 24, "eva02_large": 24, "dinovit": 24,
    "dinovit_torchvision": 24, "dinovit_linear": 536,
}  # fmt: skip
SPACES = ["clip_vit_l14", "eva02_l14"]


@pytest.mark.parametrize("path", sorted((ROOT / "studies").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_study_is_complete_and_named_after_its_file(path):
    assert check(read_yaml(path), str(path)).study == path.stem


def test_the_papers_studies_hold_what_the_paper_compares():
    paper, eva02, sweep, smoke = (read_yaml(ROOT / f"studies/{name}.yaml") for name in ("paper", "eva02", "sweep", "paper_smoke"))
    assert paper["models"] == eva02["models"] == ["dinovit", "resnet50", "resnext101", "efficientnet_b4", "bit_resnet50"]
    assert (paper["spaces"], eva02["spaces"]) == (["clip_vit_l14"], ["eva02_l14"])
    assert sweep["models"] == smoke["models"] == list(NULL_DIM) and sweep["spaces"] == smoke["spaces"] == SPACES
    assert sweep["extraction"]["shards"] == smoke["extraction"]["shards"]
    names = read_classes(ROOT / "vocab/imagenet_1k.csv").names
    for study in (paper, eva02, sweep):
        assert study["data"]["per_class"] == 10 and study["weights"] == "registry"
        assert len(study["plot_fig4"]["labels"]) == 16 and set(study["plot_fig4"]["labels"]) <= set(names)
        assert len(study["steering"]["prompts"]) == 5
        assert len((ROOT / study["concepts"]["vocabulary"]).read_text().splitlines()) == 30


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    project = Project(tmp_path_factory.mktemp("smoke"))
    start = COMMANDS.index("cp studies/paper_smoke.yaml params.yaml")
    project.text = project.run("bash", "-euc", "\n".join(COMMANDS[start : start + 3])).stdout
    return project


def test_the_smoke_study_ends_with_a_table_that_says_what_it_is_worth(smoke):
    table = smoke.text[smoke.text.index("Study paper_smoke: 6 images") :]
    assert "RANDOM WEIGHTS: these models are untrained" in table and "TOP-1 FAR BELOW" not in table
    for name, null_dim in NULL_DIM.items():
        assert len([line for line in table.splitlines() if line.split()[:1] == [name] and f" {null_dim} " in line]) == len(SPACES)


@pytest.mark.parametrize("model", NULL_DIM)
def test_the_artifacts_of_every_model_fulfil_the_contract(smoke, model):
    results = smoke.folder / "results/paper_smoke"
    head, made = read_tensors(results / f"features/{model}/head.safetensors", ["weight", "bias"])
    shard, metadata = read_tensors(results / f"features/{model}/shard-00000.safetensors", ["features", "image_id", "view"])
    width = head["weight"].shape[1]
    assert head["weight"].shape == (1000, width) and head["bias"].shape == (1000,)
    assert shard["features"].shape == (6, width) and list(shard["image_id"]) == list(range(6)) and not shard["view"].any()
    assert metadata["weights_sha256"] == made["weights_sha256"] and len(made["weights_sha256"]) == 64
    assert {"schema_version", "study", "model", "head_max_error", "top1", "top1_images", "features", "software"} <= set(metadata)
    projector = read_tensors(results / f"projectors/{model}.safetensors", ["singular_values", "null_basis"])[0]
    report = json.loads((results / f"projectors/{model}.json").read_text())
    assert projector["null_basis"].shape == (width, NULL_DIM[model]) and report["null_dim"] == NULL_DIM[model]
    assert report["orthonormality_error"] < 1e-12
    for space in SPACES:
        translator = read_tensors(results / f"translators/{space}/{model}/linear.safetensors", ["weight", "bias"])[0]
        assert translator["weight"].shape == (768, width) and translator["bias"].shape == (768,)
        scores = pd.read_parquet(results / f"scores/{space}/{model}.parquet")
        assert list(scores["image_id"]) == list(range(6)) and scores.notna().all().all() and (scores["is_deg"] >= 0).all()
        assert len(pd.read_parquet(results / f"concepts/{space}/{model}.parquet")) == 5 * 30


@pytest.mark.parametrize("space", SPACES)
def test_the_artifacts_of_both_spaces_fulfil_the_contract(smoke, space):
    results = smoke.folder / "results/paper_smoke"
    shard, metadata = read_tensors(results / f"embeddings/{space}/shard-00000.safetensors", ["embeddings", "image_id", "view"])
    assert shard["embeddings"].shape == (6, 768) and len(metadata["weights_sha256"]) == 64
    kinds = ("label", "concept", "target")
    prompts, metadata = read_tensors(results / f"prompts/{space}.safetensors", [f"{kind}_embeddings" for kind in kinds])
    names = json.loads((results / f"prompts/{space}.json").read_text())
    for kind in kinds:
        assert prompts[f"{kind}_embeddings"].shape == (len(names[f"{kind}s"]), 768)
        assert (abs((prompts[f"{kind}_embeddings"].astype(float) ** 2).sum(axis=1) - 1) < 1e-5).all()
    study = yaml.safe_load((smoke.folder / "params.yaml").read_text())
    assert json.loads(metadata["label_templates"]) == study["prompts"]["label_templates"]
