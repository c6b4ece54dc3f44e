"""A model in memory gets a photo's scores, maps and steering; a space embeds what loaders yield."""

import sys

import numpy as np
import pytest
import scipy.linalg
import torch
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, Normalize, Resize, ToTensor

import singflow
from singflow.errors import InputError
from singflow.towers.classifiers import of_model
from tests.photo.handmade import assert_refused
from tests.project import ROOT
from tests.towers.models import noise
from tests.towers.test_collected import NAMES, Nested, state_of

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
TRANSFORM = Compose([Resize(40), CenterCrop(32), ToTensor(), Normalize(MEAN, STD)])
TEXT, OTHER = "a rug", "a dog"


@pytest.fixture(scope="module")
def space():
    return singflow.Space.load("conse_minilm", spaces=ROOT / "config/spaces.yaml")


@pytest.fixture(scope="module")
def model():
    return Nested().train()


@pytest.fixture(scope="module")
def classifier(model):
    return singflow.Classifier.of(model, TRANSFORM, NAMES, name="mine")


@pytest.fixture(scope="module")
def planted(classifier, space):
    """A null direction that is translated into one text, and logits that are into another."""
    null = scipy.linalg.null_space(classifier.weight.astype(np.float64))[:, 0]
    rug, dog = space.embed_texts([TEXT, OTHER]).astype(np.float64)
    weight = np.outer(rug, 3 * null) + np.outer(dog, classifier.weight[0])
    return singflow.Translator(weight.astype(np.float32), 0.1 * dog.astype(np.float32))


@pytest.fixture(scope="module")
def analyzer(classifier, space, planted):
    return singflow.Analyzer.load(classifier, space, translator=planted)


@pytest.fixture(scope="module")
def photo():
    return noise(80, 50).resize((160, 100), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def result(analyzer, photo):
    return analyzer.analyze(photo, [TEXT, OTHER])


def angle(one, other):
    return np.degrees(np.arccos(one @ other / np.linalg.norm(one) / np.linalg.norm(other)))


def test_the_features_and_classes_are_those_of_the_model_itself(model, classifier, photo, result):
    images, twin = TRANSFORM(photo)[None], Nested().eval()
    with torch.no_grad():
        expected = twin(images).double().softmax(dim=1)[0]
        features = twin.pooled(images)
    np.testing.assert_allclose(classifier.features(photo), features, rtol=1e-5, atol=1e-6)
    assert np.array_equal(result.features, classifier.features([photo]))
    best = expected.argsort(descending=True)
    assert [found.name for found in result.predictions] == [NAMES[row] for row in best]
    shares = [found.probability for found in result.predictions]
    np.testing.assert_allclose(shares, expected[best], rtol=1e-5)
    collected = singflow.collect(model, [images])
    np.testing.assert_allclose(collected.features, result.features, rtol=1e-5, atol=1e-6)
    assert np.array_equal(collected.head.weight, classifier.weight)
    assert collected.weights_sha256 == classifier.weights_sha256


def test_the_scores_are_those_of_the_planted_translator(classifier, planted, result):
    feature, weight = result.features[0].astype(np.float64), planted.weight.astype(np.float64)
    basis = scipy.linalg.null_space(classifier.weight.astype(np.float64))
    before = weight @ feature + planted.bias
    after = weight @ (feature - basis @ (basis.T @ feature)) + planted.bias
    assert result.is_deg == pytest.approx(angle(before, after), abs=1e-3) and result.is_deg > 1
    assert result.setting.source == "translator in memory" and not result.judged
    assert result.logit_change < 1e-5


def test_of_an_own_transform_the_seen_part_is_known(classifier, photo):
    width = photo.width * 40 / photo.height
    left = (width - 32) / 2 / width
    assert classifier.locate(photo).seen == pytest.approx((left, 0.1, 1 - left, 0.9), abs=0.01)


def test_the_classifier_is_a_copy_and_the_model_stays_as_it_was(photo):
    model = Nested().train()
    before = state_of(model)
    classifier = singflow.Classifier.of(model, TRANSFORM, NAMES)
    assert state_of(model) == before
    features, sha256 = classifier.features(photo), classifier.weights_sha256
    with torch.no_grad():
        for part in model.parameters():
            part.add_(1)
    assert np.array_equal(classifier.features(photo), features)
    assert singflow.Classifier.of(model, TRANSFORM, NAMES).weights_sha256 != sha256
    half = singflow.Classifier.of(Nested().to(torch.bfloat16), TRANSFORM, NAMES)
    assert half.weight_dtype == "bfloat16" and half.entry is None
    np.testing.assert_allclose(half.features(photo), features, rtol=0, atol=0.05)
    path = "backbone.classifier.1"
    moved = of_model(Nested().half(), TRANSFORM, path, "m", torch.device("meta")).model
    in_float32 = moved.get_submodule(path).forward.args[0].__self__
    assert in_float32.weight.device.type == "meta"


@pytest.fixture(scope="module")
def images(packaged):
    root, manifest = packaged
    opened = [Image.open(root / path) for path in manifest["path"][:3]]
    return [image.convert("RGB").resize((300, 240)) for image in opened]


def tensors(images, mean=(0, 0, 0), std=(1, 1, 1)):
    return torch.stack([Compose([ToTensor(), Normalize(mean, std)])(image) for image in images])


def test_a_space_embeds_the_batches_of_a_loader_as_the_images_they_were_made_of(space, images):
    single = space.embed_images(images)
    assert np.array_equal(single, np.concatenate([space.embed_images(image) for image in images]))
    batched = space.embed_images([images])
    np.testing.assert_allclose(batched, single, rtol=0, atol=1e-5)
    normalized = tensors(images, MEAN, STD)
    for loader, options in (
        (tensors(images), {}),
        ([(tensors(images), torch.arange(3))], {}),
        ([{"pixel_values": normalized, "labels": [0, 1, 2]}], {"normalized": (MEAN, STD)}),
        ([(tuple(images), ("a", "b", "c"))], {}),
    ):
        assert np.array_equal(space.embed_images(loader, **options), batched)
    pairs = [(image, 0) for image in images]  # a data set without a loader
    assert np.array_equal(space.embed_images(pairs), single)


class Uncopied(Nested):
    def __deepcopy__(self, _):
        raise TypeError("a handle")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"class_names": NAMES[:4]}, "4 names, but the head of model has 5 rows"),
        ({"class_names": [*range(5)]}, "class_names: are not texts"),
        ({"class_names": ["", *NAMES]}, "class_names: name 1 is blank"),
        ({"model": None}, "model is NoneType, not a torch.nn.Module"),
        ({"transform": lambda image: image}, "transform gives Image, not a tensor (3, H, W)"),
        ({"transform": lambda image: TRANSFORM(image)[None]}, "transform gives (1, 3, 32, 32), "),
        ({"head": "fc"}, "model: has no module 'fc': name the last linear layer"),
        ({"model": Nested(lambda z: z[:, :3]), "name": "mine"}, "mine: * has 3 outputs: name"),
        ({"model": Uncopied()}, "model: the model cannot be copied (TypeError: a handle): build"),
    ],
)
def test_what_cannot_be_a_live_classifier_is_refused(changes, words):
    given = {"model": Nested(), "transform": TRANSFORM, "class_names": NAMES} | changes
    assert_refused(words, singflow.Classifier.of, **given)


@pytest.mark.parametrize(
    ("library", "unloaded", "call"),
    [
        ("PIL", ["singflow.towers.classifiers"],
         lambda: singflow.Classifier.of(Nested(), TRANSFORM, NAMES)),
        ("sentence_transformers", [], lambda: singflow.Space.load().embed_texts(["a bird"])),
        ("timm", [], lambda: singflow.Classifier.load("efficientnet_lite0")),
    ],
)  # fmt: skip
def test_a_library_that_is_missing_is_named_with_its_extra(monkeypatch, library, unloaded, call):
    monkeypatch.chdir(ROOT)
    for module in unloaded:
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(InputError, match=rf"^{library} is not installed: .*singflow\[demo\]"):
        call()


def test_what_does_not_fit_a_classifier_in_memory_is_refused(classifier, space, planted):
    narrow = singflow.Translator(planted.weight[:, :7], planted.bias)
    for options, words in (
        ({}, "mine: a model in memory has no images in a reference: give its translator"),
        ({"translator": narrow}, "translator of shape (384, 7), * conse_minilm needs (384, 8)"),
        ({"results": "results/demo"}, "results/demo: model and space are names of the study"),
    ):
        assert_refused(words, singflow.Analyzer.load, classifier, space, **options)


PIXELS = tensors([Image.new("RGB", (8, 8), (0, 90, 255))], MEAN, STD)


@pytest.mark.parametrize(
    ("images", "normalized", "words"),
    [
        ([PIXELS], None, f"values from {PIXELS.min():.3g} to * with normalized=None undone, not"),
        ([PIXELS * torch.nan], (MEAN, STD), "values from nan to nan with normalized="),
        ([PIXELS], (0.5, 0.5), "normalized is (0.5, 0.5): give (mean, std) of three numbers"),
        (PIXELS[0], (MEAN, STD), "a tensor of shape (3, 8, 8), not (k, 3, H, W): give batches"),
        ([5], None, "images: int holds no images: give images of Pillow, paths, or batches"),
        ([], None, "images: none were given: the loader or the list is empty"),
    ],
)
def test_what_holds_no_images_is_refused(space, images, normalized, words):
    assert_refused(words, space.embed_images, images, normalized=normalized)
