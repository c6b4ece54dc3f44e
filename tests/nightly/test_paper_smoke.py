"""The paper's 16 classifiers and both spaces give what their own libraries give, untrained."""

import gc

import pandas as pd
import pytest
import torch
from PIL import Image
from threadpoolctl import threadpool_limits
from torch import nn

from singflow.analyses.tables import as_in_paper
from singflow.artifacts.tensors import read_null_basis, read_tensors
from singflow.config.reading import read_yaml
from singflow.config.registry import read_model, resolve_models
from singflow.config.sections import PACKAGE_DATA
from singflow.data.manifest import data_root
from singflow.study import with_derived_keys
from singflow.towers import classifiers, spaces
from tests.project import ROOT
from tests.results import script
from tests.towers.test_classifiers import (
    assert_same,
    own_transform,
    square_and_wide,
    timm_parts,
    tokens_and_mean,
    vgg_feature,
)

NULL_DIM = {
    "resnet50": 1048, "vgg16": 3096, "vgg19": 3096, "densenet121": 24, "efficientnet_b4": 792,
    "efficientnet_b0": 280, "bit_resnet50": 1048, "resnext101": 1048, "convnext_base": 24,
    "swin_large": 536, "dinov2_large": 1048, "deit3_large": 24, "eva02_large": 24, "dinovit": 24,
    "dinovit_torchvision": 24, "dinovit_linear": 536,
}  # fmt: skip
SPACES = ["clip_vit_l14", "eva02_l14"]
LARGE = 3e7  # parameters of a model, of whose views every one is spared


def read_study(name):
    return with_derived_keys(read_yaml(ROOT / f"config/studies/{name}.yaml"))


def test_the_study_of_the_chart_has_exactly_its_models_and_may_be_compared_with_it():
    paper, study = read_yaml(ROOT / "report/paper.yaml"), read_study("paper_13")
    charted = {name for name, facts in paper["models"].items() if "ratio" in facts}
    assert len(study["models"]) == 13 and set(study["models"]) == charted
    entries = resolve_models(PACKAGE_DATA / "models.yaml", study["models"])
    rows = [(m, e.id, e.weights, study["spaces"][0]) for m, e in entries.items()]
    table = pd.DataFrame(rows, columns=["model", "weights_id", "weights", "space"])
    assert as_in_paper(table, pd.Series(range(paper["classes"])), paper).all()


def resnet_feature(model, images):
    stages = (model.layer1, model.layer2, model.layer3, model.layer4)
    for layer in (model.conv1, model.bn1, model.relu, model.maxpool, *stages):
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
    if name not in FEATURES:
        return timm_parts(model, images)
    feature, last = FEATURES[name]
    features = feature(model, images)
    return features, last(model)(features)


def shorten(network):
    """Keep two of the equal blocks that follow each other: parts and head are those of all."""
    for module in [*network.modules()]:
        repeated = isinstance(module, nn.Sequential | nn.ModuleList) and len(module) > 8
        if repeated and len({type(block) for block in module}) == 1:
            del module[2:]


@pytest.fixture(scope="module")
def built():
    """load_classifier for networks that are less deep; it keeps the one that it built last.

    Towers of spaces are less deep, too.
    """
    build, build_tower, kept = classifiers.load_classifier, spaces.load_image_tower, {}

    def load(entry):
        if (key := entry.model_dump_json()) not in kept:
            kept.clear()
            gc.collect()
            kept[key] = build(entry)
            shorten(kept[key].model)
        return kept[key]

    def load_tower(entry):
        shorten(tower := build_tower(entry))
        return tower

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch, threadpool_limits(1):
        patch.setattr(classifiers, "load_classifier", load)
        patch.setattr(spaces, "load_image_tower", load_tower)
        patch.chdir(ROOT)
        yield load
    torch.set_num_threads(threads)


class Steps:
    """Steps of the smoke study, in this process."""

    def __init__(self, folder):
        self.study = read_study("paper_smoke")
        data = self.study["data"]
        data |= {name: str(ROOT / data[name]) for name in ("table", "classes")}
        self.images_of = {name: data[name] for name in ("source", "root", "max_pixels")}
        self.study["extraction"]["device"] = "cpu"
        self.results, self.source = folder, {"source": "packaged", "root": "."}
        folds = self.study["translator"]["folds"]
        self.run("build_manifest", "data", "seed", "threads", folds=folds)
        self.images = pd.read_parquet(folder / "data/manifest.parquet")

    def run(self, name, *keys, **flags):
        """A step with these keys of the study, and other flags."""
        given = {}
        for key in keys:
            value = self.study[key]
            given |= value if isinstance(value, dict) else {key: value}
        step = script(name)
        step["main"](step["Flags"](results=self.results, **given | flags))

    def first(self, images):
        """Let the manifest hold the first images only."""
        self.images.head(images).to_parquet(self.results / "data/manifest.parquet", index=False)

    def resolve(self, model):
        """Where the model's entry is then."""
        classes = self.study["data"]["classes"]
        self.run("resolve_model", "weights", model=model, classes=classes, **self.source)
        return self.results / f"registry/models/{model}.json"

    def extract(self, model, images):
        """Head, features of the first images, and projector."""
        self.first(images)
        self.run("extract_head", model=model, whole=[], **self.source)
        keys = ("extraction", "seed", "threads")
        self.run("extract_features", *keys, model=model, shard=0, whole=[], **self.images_of)
        self.run("fit_projector", "projector", "threads", model=model, shards=1)

    def embed(self, space, images, texts):
        """Embeddings of the first images, and of texts, with few concepts."""
        self.first(images)
        self.run("resolve_space", "weights", space=space)
        keys = ("extraction", "seed", "threads")
        self.run("embed_images", *keys, space=space, shard=0, **self.images_of)
        flags = {"targets": self.study["steering"]["prompts"]}
        flags |= {"classes": ROOT / self.study["data"]["classes"]}
        flags |= {"space": space, "vocabulary": texts, "device": "cpu", "reference": None}
        self.run("embed_prompts", "prompts", "threads", **flags)


@pytest.fixture(scope="module")
def steps(tmp_path_factory, built):
    return Steps(tmp_path_factory.mktemp("steps"))


@pytest.mark.parametrize("space", SPACES)
def test_images_and_texts_of_a_space_are_embedded(space, steps, tmp_path):
    (tmp_path / "concepts.txt").write_text("a rug\na temple\n")
    steps.embed(space, 2, tmp_path / "concepts.txt")
    shard = steps.results / f"embeddings/{space}/shard-00000.safetensors"
    assert read_tensors(shard, ["embeddings"])[0]["embeddings"].shape == (2, 768)
    texts = read_tensors(steps.results / f"prompts/{space}.safetensors", ["concept_embeddings"])[0]
    rows = texts["concept_embeddings"].astype(float)
    assert rows.shape == (2, 768) and (abs((rows**2).sum(axis=1) - 1) < 1e-5).all()


@pytest.mark.parametrize("model", NULL_DIM)
def test_a_model_gives_its_librarys_own_pixels_feature_and_logits(model, steps, built):
    entry = read_model(steps.resolve(model))
    classifier, transform = built(entry), own_transform(entry)
    photographs = square_and_wide()
    pixels = torch.stack([classifier.preprocess.whole(image) for image in photographs])
    assert torch.equal(pixels, torch.stack([transform(image) for image in photographs]))
    assert classifier.preprocess.size == (pixels.shape[3], pixels.shape[2])
    files = [data_root("packaged", ".") / file for file in steps.images["path"]]
    # Three images make two batches, of which one is not full.
    size = sum(parameter.numel() for parameter in classifier.model.parameters())
    count = 3 if size < LARGE else 2
    last = transform(Image.open(files[count - 1]).convert("RGB"))[None]
    # As in extraction: other layouts round otherwise.
    layout = {"memory_format": torch.channels_last}
    with torch.inference_mode():
        feature, logits = own_parts(model, classifier.model.to(**layout), last.to(**layout))
    steps.extract(model, count)
    basis = read_null_basis(steps.results / f"projectors/{model}.safetensors")
    assert basis.shape == (entry.feature_dim, NULL_DIM[model])

    def read(name, *tensors):
        found = read_tensors(steps.results / f"{name}.safetensors", tensors)[0]
        return [torch.from_numpy(found[tensor]) for tensor in tensors]

    (features,) = read(f"features/{model}/shard-00000", "features")
    weight, bias = read(f"heads/{model}", "weight", "bias")
    assert features.shape == (count, entry.feature_dim)
    for ours, theirs in ((features, feature), (features @ weight.T + bias, logits)):
        assert_same(ours[[-1, 0]], torch.cat([theirs, ours[:1]]))
