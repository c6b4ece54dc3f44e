"""All steps of the paper without its weights.

Every classifier runs through the steps that depend on it, and both spaces as in the README.
"""

import gc
import json
import re

import pandas as pd
import pytest
import torch
import yaml
from PIL import Image
from threadpoolctl import threadpool_limits
from torch import nn

from singflow.artifacts.tensors import read_tensors
from singflow.config.reading import read_yaml
from singflow.config.registry import read_model
from singflow.data.manifest import data_root, read_classes
from singflow.study import check, with_derived_keys
from singflow.towers import classifiers
from tests import PATIENCE
from tests.project import ROOT, Project
from tests.results import script
from tests.towers.test_classifiers import (
    assert_same,
    own_transform,
    square_and_wide,
    timm_parts,
    tokens_and_mean,
    vgg_feature,
)
from tests.workflow.test_readme import COMMANDS

NULL_DIM = {
    "resnet50": 1048, "vgg16": 3096, "vgg19": 3096, "densenet121": 24, "efficientnet_b4": 792,
    "efficientnet_b0": 280, "bit_resnet50": 1048, "resnext101": 1048, "convnext_base": 24,
    "swin_large": 536, "dinov2_large": 1048, "deit3_large": 24, "eva02_large": 24, "dinovit": 24,
    "dinovit_torchvision": 24, "dinovit_linear": 536,
}  # fmt: skip
FEW = ["densenet121", "efficientnet_b0"]  # of two libraries, with a small and a large null space
SPACES = ["clip_vit_l14", "eva02_l14"]
LARGE = 10  # 10^9 multiply-adds for a view, of which every one is spared


def read_study(name):
    """A study of config/studies, complete."""
    return with_derived_keys(read_yaml(ROOT / f"config/studies/{name}.yaml"))


@pytest.mark.parametrize(
    "name", sorted(path.stem for path in (ROOT / "config/studies").glob("*.yaml"))
)
def test_every_study_is_valid_and_named_after_its_file(name):
    assert check(read_study(name), name).study == name


def test_the_papers_studies_hold_what_the_paper_compares():
    paper, eva02, sweep, smoke = map(read_study, ("paper", "eva02", "sweep", "paper_smoke"))
    assert (
        paper["models"]
        == eva02["models"]
        == ["dinovit", "resnet50", "resnext101", "efficientnet_b4", "bit_resnet50"]
    )
    assert (paper["spaces"], eva02["spaces"]) == (["clip_vit_l14"], ["eva02_l14"])
    assert (
        sweep["models"] == smoke["models"] == list(NULL_DIM)
        and sweep["spaces"] == smoke["spaces"] == SPACES
    )
    assert sweep["extraction"]["shards"] == smoke["extraction"]["shards"]
    names = read_classes(ROOT / "config/vocab/imagenet_1k.csv").names
    for study in (paper, eva02, sweep):
        assert study["data"]["per_class"] == 10 and study["weights"] == "registry"
        assert len(study["plot_labels"]["labels"]) == 16 and set(
            study["plot_labels"]["labels"]
        ) <= set(names)
        assert len(study["steering"]["prompts"]) == 5
        assert len((ROOT / study["concepts"]["vocabulary"]).read_text().splitlines()) == 30


def assert_model(results, model, images):
    """Head, features and projector of a model fulfil the contract."""
    head, made = read_tensors(results / f"features/{model}/head.safetensors", ["weight", "bias"])
    shard, metadata = read_tensors(
        results / f"features/{model}/shard-00000.safetensors", ["features", "image_id", "view"]
    )
    width = head["weight"].shape[1]
    assert head["weight"].shape == (1000, width) and head["bias"].shape == (1000,)
    assert (
        shard["features"].shape == (images, width)
        and list(shard["image_id"]) == list(range(images))
        and not shard["view"].any()
    )
    assert (
        metadata["weights_sha256"] == made["weights_sha256"] and len(made["weights_sha256"]) == 64
    )
    assert {
        "schema_version",
        "study",
        "model",
        "head_max_error",
        "top1",
        "top1_images",
        "features",
        "software",
    } <= set(metadata)
    projector = read_tensors(
        results / f"projectors/{model}.safetensors", ["singular_values", "null_basis"]
    )[0]
    report = json.loads((results / f"projectors/{model}.json").read_text())
    assert (
        projector["null_basis"].shape == (width, NULL_DIM[model])
        and report["null_dim"] == NULL_DIM[model]
    )
    assert report["orthonormality_error"] < 1e-12


def assert_model_in_spaces(results, model, images, pairs):
    """A model's translators and scores, and scans of `pairs` labels and concepts, are valid."""
    width = read_tensors(results / f"features/{model}/head.safetensors", ["weight"])[0][
        "weight"
    ].shape[1]
    for space in SPACES:
        translator = read_tensors(
            results / f"translators/{space}/{model}/linear.safetensors", ["weight", "bias"]
        )[0]
        assert translator["weight"].shape == (768, width) and translator["bias"].shape == (768,)
        scores = pd.read_parquet(results / f"scores/{space}/{model}.parquet")
        assert (
            list(scores["image_id"]) == list(range(images))
            and scores.notna().all().all()
            and (scores["is_deg"] >= 0).all()
        )
        assert len(pd.read_parquet(results / f"concepts/{space}/{model}.parquet")) == pairs


def assert_space(results, space, study, images):
    """Embeddings of images and prompts fulfil the contract."""
    shard, metadata = read_tensors(
        results / f"embeddings/{space}/shard-00000.safetensors", ["embeddings", "image_id", "view"]
    )
    assert shard["embeddings"].shape == (images, 768) and len(metadata["weights_sha256"]) == 64
    kinds = ("label", "concept", "target")
    prompts, metadata = read_tensors(
        results / f"prompts/{space}.safetensors", [f"{kind}_embeddings" for kind in kinds]
    )
    names = json.loads((results / f"prompts/{space}.json").read_text())
    for kind in kinds:
        assert prompts[f"{kind}_embeddings"].shape == (len(names[f"{kind}s"]), 768)
        assert (
            abs((prompts[f"{kind}_embeddings"].astype(float) ** 2).sum(axis=1) - 1) < 1e-5
        ).all()
    assert json.loads(metadata["label_templates"]) == study["prompts"]["label_templates"]


def assert_table(said, models, images):
    """The study ends with a table that says what it is worth."""
    table = said[said.index(f"Study paper_smoke: {images} images") :]
    assert "RANDOM WEIGHTS: these models are untrained" in table and "TOP-1 FAR BELOW" not in table
    for name in models:
        rows = [
            line
            for line in table.splitlines()
            if re.match(rf"{re.escape(name)}[*~+^]* ", line) and f" {NULL_DIM[name]} " in line
        ]
        assert len(rows) == len(SPACES)


def run_study(project, patience=PATIENCE):
    """What docs/paper.md says of the smoke study, done in a project."""
    start = COMMANDS.index("singflow study paper_smoke")
    project.said = project.run(
        "bash", "-euc", "\n".join(COMMANDS[start : start + 3]), patience=patience
    ).stdout
    project.results = project.folder / "results/paper_smoke"


def assert_study(project, models):
    """The study of these models ends with its table, and its artifacts fulfil the contract."""
    study = yaml.safe_load((project.folder / "params.yaml").read_text())
    table = pd.read_csv(project.folder / study["data"]["table"])
    pairs = table["label"].nunique() * len(
        (project.folder / study["concepts"]["vocabulary"]).read_text().splitlines()
    )
    assert_table(project.said, models, len(table))
    for model in models:
        assert_model(project.results, model, len(table))
        assert_model_in_spaces(project.results, model, len(table), pairs)
    for space in SPACES:
        assert_space(project.results, space, study, len(table))


def test_the_smoke_study_of_a_few_models_says_what_it_is_worth_and_fulfils_the_contract(tmp_path):
    project = Project(tmp_path)
    project.edit(
        "config/studies/paper_smoke.yaml", r"models:.*?(?=spaces:)", f"models: [{', '.join(FEW)}]\n"
    )
    project.edit("config/studies/paper_smoke.yaml", r"models: \[resnet50\]", f"models: [{FEW[0]}]")
    project.edit("config/studies/paper_smoke.yaml", r"closeup: resnet50", f"closeup: {FEW[0]}")
    for name in (
        "concepts.txt",
        "packaged_six.csv",
    ):  # what a space's large towers take seconds for each time
        path = project.folder / "config/vocab" / name
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:5]))
    run_study(project)
    assert_study(project, FEW)


def resnet_feature(model, images):
    for layer in (
        model.conv1,
        model.bn1,
        model.relu,
        model.maxpool,
        model.layer1,
        model.layer2,
        model.layer3,
        model.layer4,
    ):
        images = layer(images)
    return model.avgpool(images).flatten(1)


def densenet_feature(model, images):
    return nn.functional.adaptive_avg_pool2d(model.features(images).relu(), 1).flatten(1)


def vit_feature(model, images):
    patches = model._process_input(images)
    tokens = torch.cat([model.class_token.expand(len(images), -1, -1), patches], dim=1)
    return model.encoder.ln(model.encoder.layers(tokens + model.encoder.pos_embedding))[:, 0]


def dinov2_feature(model, images):
    return tokens_and_mean(model.dinov2(pixel_values=images).last_hidden_state)


def dino_feature(model, images):
    return tokens_and_mean(model.backbone.forward_features(images), interleaved=True)


FEATURES = {  # and the last layer
    "resnet50": (resnet_feature, lambda model: model.fc),
    "vgg16": (vgg_feature, lambda model: model.classifier[-1]),
    "vgg19": (vgg_feature, lambda model: model.classifier[-1]),
    "densenet121": (densenet_feature, lambda model: model.classifier),
    "dinovit_torchvision": (vit_feature, lambda model: model.heads),
    "dinov2_large": (dinov2_feature, lambda model: model.classifier),
    "dinovit_linear": (dino_feature, lambda model: model.head),
}


def own_parts(name, model, images):
    """Feature and logits, by the parts of the model's library."""
    if name not in FEATURES:
        return timm_parts(model, images)
    feature, last = FEATURES[name]
    features = feature(model, images)
    return features, last(model)(features)


@pytest.fixture(scope="module")
def built():
    """load_classifier as before, but for keeping the model that it built last."""
    build, kept = classifiers.load_classifier, {}

    def load(entry):
        if (key := entry.model_dump_json()) not in kept:
            kept.clear()
            gc.collect()
            kept[key] = build(entry)
        return kept[key]

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch, threadpool_limits(1):
        patch.setattr(classifiers, "load_classifier", load)
        patch.chdir(ROOT)
        yield load
    torch.set_num_threads(threads)


class Steps:
    """Steps of the smoke study, in this process."""

    def __init__(self, folder):
        self.study = read_study("paper_smoke")
        self.study["data"] |= {
            name: str(ROOT / self.study["data"][name]) for name in ("table", "classes")
        }
        self.study["extraction"]["device"] = "cpu"
        self.results = folder
        self.run(
            "build_manifest", "data", "seed", "threads", folds=self.study["translator"]["folds"]
        )
        self.images = pd.read_parquet(folder / "data/manifest.parquet")

    def run(self, name, *keys, **flags):
        """A step with these keys of the study, and other flags."""
        for key in keys:
            flags |= (
                self.study[key] if isinstance(self.study[key], dict) else {key: self.study[key]}
            )
        step = script(name)
        step["main"](step["Flags"](results=self.results, **flags))

    def resolve(self, model):
        """Where the model's entry is then."""
        self.run("resolve_model", "weights", model=model, classes=self.study["data"]["classes"])
        return self.results / f"registry/models/{model}.json"

    def extract(self, model, images):
        """Head, features of the first images, and projector."""
        self.images.head(images).to_parquet(self.results / "data/manifest.parquet", index=False)
        data = {name: self.study["data"][name] for name in ("source", "root", "max_pixels")}
        self.run("extract_head", model=model)
        self.run("extract_features", "extraction", "seed", "threads", model=model, shard=0, **data)
        self.run("fit_projector", "projector", "threads", model=model, shards=1)


@pytest.fixture(scope="module")
def steps(tmp_path_factory, built):
    return Steps(tmp_path_factory.mktemp("steps"))


@pytest.mark.parametrize("model", NULL_DIM)
def test_a_model_gives_its_librarys_own_pixels_feature_and_logits_and_fulfils_the_contract(
    model, steps, built
):
    path = steps.resolve(model)
    entry = read_model(path)
    classifier, transform = built(entry), own_transform(entry)
    photographs = square_and_wide()
    pixels = torch.stack([classifier.preprocess.whole(image) for image in photographs])
    assert torch.equal(pixels, torch.stack([transform(image) for image in photographs]))
    assert classifier.preprocess.size == (pixels.shape[3], pixels.shape[2])
    files = [data_root("packaged", ".") / file for file in steps.images["path"]]
    count = (
        3 if read_yaml(ROOT / "config/models.yaml")[model]["gmacs"] < LARGE else 2
    )  # three make two batches, of which one is not full
    last = transform(Image.open(files[count - 1]).convert("RGB"))[None]
    with torch.inference_mode():
        channels_last = {
            "memory_format": torch.channels_last
        }  # as in extraction: other layouts round otherwise
        feature, logits = own_parts(
            model, classifier.model.to(**channels_last), last.to(**channels_last)
        )
    steps.extract(model, count)
    assert_model(steps.results, model, count)
    folder = steps.results / f"features/{model}"
    features = torch.from_numpy(
        read_tensors(folder / "shard-00000.safetensors", ["features"])[0]["features"]
    )
    head = {
        name: torch.from_numpy(tensor)
        for name, tensor in read_tensors(folder / "head.safetensors", ["weight", "bias"])[0].items()
    }
    assert features.shape == (count, entry.feature_dim)
    for ours, theirs in ((features, feature), (features @ head["weight"].T + head["bias"], logits)):
        assert_same(ours[[-1, 0]], torch.cat([theirs, ours[:1]]))
