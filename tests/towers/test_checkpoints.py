"""Checkpoints as training scripts, hubs and browsers write them.

The model's part is found, or the message says what the file is.
"""

import argparse
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import nn

from singflow.config.registry import FeaturesEntry
from singflow.towers.checkpoints import read_checkpoint
from singflow.towers.classifiers import load_classifier, weights_sha256
from singflow.towers.spaces import load_text_tower
from tests.towers.models import FIVE, RESNET, Payload, entry_of, saved

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
    "timm": (lambda s: {
        "epoch": 3, "arch": "test_resnet", "state_dict": under("module.", zeros(s)),
        "state_dict_ema": s, "optimizer": {"param_groups": [{"lr": 0.1}]},
        "args": argparse.Namespace(lr=0.1, model="test_resnet", mean=None, aug_splits=[0, 3])},
        None),
    "not the average": (lambda s: {"state_dict": s, "state_dict_ema": zeros(s)}, "state_dict"),
    "compiled DDP": (lambda s: under("module._orig_mod.", s), None),
    "numbers of NumPy": (
        lambda s: {"state_dict": s, "best": np.float64(0.9), "epoch": np.int64(3)}, None),
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
    own = timm.create_model("resnet10t", num_classes=5)
    classifier = load(own.state_dict(), id="resnet10t", transform=TRANSFORM)
    assert weights_sha256(classifier.model) == weights_sha256(own)
    normalize = classifier.preprocess.whole.transforms[-1]
    assert classifier.preprocess.size == (96, 96)
    assert (normalize.mean.tolist(), normalize.std.tolist()) == ([0.5] * 3, [0.25] * 3)


def test_what_only_a_file_of_ones_own_may_have_needs_one_and_the_whole_transform():
    with pytest.raises(ValueError, match="checkpoint_key is the part of a file of your own"):
        entry_of(weights="random", checkpoint_key="ema")
    with pytest.raises(ValueError, match=r"id 'resnet10t' must be pinned as name\.tag"):
        entry_of("resnet10t", "random", transform=TRANSFORM)
    rest = {name: value for name, value in TRANSFORM.items() if name != "std"}
    with pytest.raises(ValueError, match=r"has no tag.* write a tag.*std under transform"):
        entry_of("resnet10t", "file:checkpoints/x.pth", transform=rest)


def without_head(state):
    return {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}


def spoiled(name, value):
    return lambda s: s | {name: s[name].clone().index_fill(0, torch.tensor([1]), value)}


ONE, KEY = torch.ones(1), {"checkpoint_key": "tutor"}
NAN = "the weights hold NaN or infinite values"


@pytest.mark.parametrize(
    ("change", "fields", "said"),
    [
        (without_head, {}, r"Missing key.* \"fc\.weight\", .*: name as `id` .*as `head_weights`"),
        (lambda s: {"net": s, "epoch": 3}, {},
         r"mine\.pth: not test_resnet.* with 5 classes .*; it has net, epoch: .*checkpoint_key"),
        (lambda s: [1.0, ONE], {}, r"mine\.pth: not readable as tensors: .*of another kind"),
        (lambda s: {"\x1b[31m" * 200: ONE}, {}, r"it has \\x1b\[31m"),
        (lambda s: {"net": s}, KEY, "has nothing below checkpoint_key 'tutor'; it has net.conv1"),
        (lambda s: s, {"class_names": None},
         "its head has 5 classes, and its class list 1000: name .* as `class_list`"),
        (spoiled("bn1.running_var", torch.nan), {}, f"{RESNET}: {NAN}, in bn1.running_var"),
    ],
)  # fmt: skip
def test_a_checkpoint_that_is_not_the_models_is_refused(model, load, refused, change, fields, said):
    refused(said, lambda: load(change(model.state_dict()), **fields))


WEIGHT, NOT_ONE = torch.randn(5, 96), "a head file holds one weight .* not {}: save the head alone"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"weight": WEIGHT[:, :95]}, r"weight has shape \(5, 95\), but .* has 96 features"),
        ({"a": {"weight": WEIGHT}, "b": {"weight": WEIGHT}}, NOT_ONE.format("a.weight, b.weight")),
        ({"weight": WEIGHT, "bias": torch.ones(5) / 0}, NAN),
    ],
)
def test_a_head_file_that_is_no_head_is_refused(model, load, refused, content, said):
    head = saved(Path("head.pth"), content)
    backbone = without_head(model.state_dict())
    refused(rf"head\.pth: .*{said}", lambda: load(backbone, head_weights=head))


class Mine(nn.Linear):
    """A module of a user's own."""


def read(content):
    Path("mine.pth").write_bytes(content)
    read_checkpoint(Path("mine.pth"))


def read_saved(content, save=torch.save):
    save(content, "mine.pth")
    read(Path("mine.pth").read_bytes())


@pytest.mark.parametrize(
    ("call", "given", "said"),
    [
        (read, b"\n<!DOCTYPE html>", "a web page, not weights: open the address in a browser"),
        (read, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", ".*`git lfs pull`"),
        (read, b'{"message":\n "Not Found"}', "a text, not weights; it begins '{\"message\""),
        (read, b"", "not readable as tensors: an empty file: copy or download it again"),
        (read, bytes(range(200, 256)) * 9, ".*damaged, cut short, or of another kind .*: copy or"),
        (read_saved, Mine(3, 2), r".* a pickled tests\..*\.Mine, .*torch\.save\(model\) d"),
        (read_saved, {"w": Payload()}, r".*a pickled posix\.system"),
        (partial(read_saved, save=torch.jit.save), torch.jit.script(nn.Linear(3, 2)),
         r".*a program of TorchScript: .*state_dict\(\)"),
    ],
)  # fmt: skip
def test_a_file_that_holds_no_tensors_is_refused_and_not_run(refused, call, given, said):
    refused(rf"^mine\.pth: {said}", call, given)


def given_texts(path):
    load_text_tower(FeaturesEntry(source="features", dim=4, text=f"file:{path}"))


@pytest.mark.parametrize("reader", [read_checkpoint, given_texts])
def test_an_archive_that_unpacks_to_far_more_than_its_size_is_refused(refused, reader):
    with (
        zipfile.ZipFile("a.npz", "w", zipfile.ZIP_DEFLATED) as file,
        file.open("embeddings.npy", "w") as member,
    ):
        for _ in range(17):
            member.write(bytes(2**24))
    refused(
        r"a\.npz: not readable as .*: it unpacks to 285212672 bytes, as no", reader, Path("a.npz")
    )
    refused(r"^absent\.pth: no such weight file", read_checkpoint, Path("absent.pth"))
