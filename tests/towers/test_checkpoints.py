"""Checkpoints as training scripts, hubs and browsers write them.

The model's part is found, or the message says what the file is.
"""

import argparse

import numpy as np
import pytest
import timm
import torch

from singflow.towers.classifiers import load_classifier, weights_sha256
from tests.towers.models import FIVE, RESNET, entry_of, saved

TRANSFORM = {
    "input_size": [3, 96, 96], "mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bicubic",
    "crop_pct": 1.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(5)
    return timm.create_model(RESNET, num_classes=5)


@pytest.fixture
def load(tmp_path):
    """The classifier of a checkpoint of any content."""

    def from_content(content, name="mine.pth", **fields):
        weights = saved(tmp_path / name, content)
        return load_classifier(entry_of(weights=weights, **{"class_names": FIVE} | fields))

    return from_content


def under(prefix, state):
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def zeros(state):
    return {name: torch.zeros_like(tensor) for name, tensor in state.items()}


# fmt: off
FORMS = {  # what a training script saves, and the checkpoint_key that its entry needs
    "bare": (lambda s: s, None),
    "old batch norms": (lambda s: {
        name: tensor for name, tensor in s.items() if "num_batches_tracked" not in name}, None),
    "timm": (lambda s: {
        "epoch": 3, "arch": "test_resnet", "state_dict": under("module.", zeros(s)),
        "state_dict_ema": s, "optimizer": {"param_groups": [{"lr": 0.1}]},
        "args": argparse.Namespace(lr=0.1, model="test_resnet", mean=None, aug_splits=[0, 3])},
        None),
    "not the average": (lambda s: {"state_dict": s, "state_dict_ema": zeros(s)}, "state_dict"),
    "model": (lambda s: {"model": s, "scaler": {"scale": torch.tensor(2.0)}}, None),
    "compiled DDP": (lambda s: under("module._orig_mod.", s), None),
    "numbers of NumPy": (
        lambda s: {"state_dict": s, "best": np.float64(0.9), "epoch": np.int64(3)}, None),
    "net": (lambda s: {"net": s, "acc": 93.1}, "net"),
    "Lightning": (lambda s: {
        "state_dict": under("model.", s) | {"criterion.weight": torch.ones(5)},
        "pytorch-lightning_version": "2.4"}, "state_dict.model"),
    "backbone of a teacher": (lambda s: {
        "student": under("module.backbone.", zeros(s)),
        "teacher": under("module.backbone.", s) | {"module.head.conv.weight": torch.zeros(3, 3)}},
        "teacher.module.backbone"),
}
# fmt: on


@pytest.mark.parametrize("form", FORMS)
def test_the_models_part_of_a_checkpoint_is_taken(form, model, load):
    content, key = FORMS[form]
    loaded = load(content(model.state_dict()), checkpoint_key=key).model
    assert weights_sha256(loaded) == weights_sha256(model)


def test_a_head_of_ones_own_takes_the_place_of_the_checkpoints(tmp_path, model, load):
    head = saved(tmp_path / "head.safetensors", {"weight": torch.ones(5, 96)})
    classifier = load({"model": model.state_dict()}, head_weights=head)
    assert torch.equal(classifier.weight, torch.ones(5, 96))
    found, state = classifier.model.state_dict(), model.state_dict()
    assert torch.equal(found["conv1.0.weight"], state["conv1.0.weight"])


def test_an_architecture_alone_takes_weights_and_a_transform_of_ones_own(load):
    untagged = [name for name in timm.list_models() if not timm.list_pretrained(f"{name}.*")]
    unpublished = next(name for name in untagged if name.startswith(("resnet", "regnet")))
    for name in (unpublished, "resnet10t"):
        own = timm.create_model(name, num_classes=5)
        classifier = load(own.state_dict(), id=name, transform=TRANSFORM)
        assert weights_sha256(classifier.model) == weights_sha256(own)
        normalize = classifier.preprocess.whole.transforms[-1]
        assert classifier.preprocess.size == (96, 96)
        assert (normalize.mean.tolist(), normalize.std.tolist()) == ([0.5] * 3, [0.25] * 3)


def test_what_only_a_file_of_ones_own_may_have_needs_one_and_the_whole_transform():
    for weights in ("hub", "random", "package:x"):
        with pytest.raises(ValueError, match="checkpoint_key is the part of a file of your own"):
            entry_of(weights=weights, checkpoint_key="ema")
        with pytest.raises(ValueError, match=r"id 'resnet10t' must be pinned as name\.tag"):
            entry_of("resnet10t", weights, transform=TRANSFORM)
    for absent in TRANSFORM:
        partial = {name: value for name, value in TRANSFORM.items() if name != absent}
        words = rf"has no tag.* write a tag.*{absent} under transform"
        with pytest.raises(ValueError, match=words):
            entry_of("resnet10t", "file:checkpoints/x.pth", transform=partial)
