"""Checkpoints as training scripts, hubs and browsers write them.

The model's part is found, or the message says what the file is.
"""

import argparse
import logging
import pathlib

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from singflow.errors import InputError
from singflow.towers.checkpoints import read_checkpoint
from singflow.towers.classifiers import load_classifier, weights_sha256
from tests.towers.models import FIVE, RESNET, Payload, entry_of, saved

TRANSFORM = {
    "input_size": 96, "mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bicubic",
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


def without(state, *parts):
    return {name: tensor for name, tensor in state.items() if not name.startswith(parts)}


# fmt: off
FORMS = {
    "bare": lambda s: s,
    "old batch norms": lambda s: {
        name: tensor for name, tensor in s.items() if "num_batches_tracked" not in name},
    "model_state_dict": lambda s: {
        "epoch": 3, "model_state_dict": s,
        "optimizer_state_dict": {"state": {}, "param_groups": []}},
    "net": lambda s: {"net": s, "acc": 93.1},
    "model": lambda s: {
        "model": s, "loss": torch.tensor(0.3), "scaler": {"scale": torch.tensor(2.0)}},
    "teacher": lambda s: {
        "student": under("module.backbone.", zeros(s) | {"more.weight": torch.ones(1)}),
        "teacher": s, "center": [1]},
    "timm": lambda s: {
        "epoch": 3, "arch": "test_resnet", "state_dict": under("module.", s),
        "state_dict_ema": zeros(s), "optimizer": {"param_groups": [{"lr": 0.1}]},
        "args": argparse.Namespace(lr=0.1, model="test_resnet", mean=None, aug_splits=[0, 3])},
    "ema alone": lambda s: {"state_dict_ema": under("module.", s), "epoch": 1},
    "ema beside": lambda s: {
        "model_ema": under("module.", zeros(s)) | {"n_averaged": torch.tensor(1)},
        "model": under("module.", s)},
    "Lightning": lambda s: {
        "state_dict": under("model.", s) | {"criterion.weight": torch.ones(5)},
        "pytorch-lightning_version": "2.4"},
    "Lightning with an average": lambda s: {
        "state_dict": under("model.", s) | under("ema_model.", zeros(s)), "note": "x"},
    "DDP": lambda s: under("module.", s),
    "compiled DDP": lambda s: under("module._orig_mod.", s),
    "backbone of a teacher": lambda s: {
        "teacher": under("module.backbone.", s) | {
            "module.head.conv.weight": torch.zeros(3, 3),
            "module.head.mlp.0.weight": torch.zeros(2, 2)}},
    "numbers of NumPy": lambda s: {"state_dict": s, "best": np.float64(0.9), "epoch": np.int64(3)},
}
# fmt: on


@pytest.mark.parametrize("form", FORMS)
def test_the_models_part_of_a_checkpoint_is_taken_and_named(form, model, load, caplog):
    caplog.set_level(logging.INFO, "singflow")
    loaded = load(FORMS[form](model.state_dict())).model
    assert weights_sha256(loaded) == weights_sha256(model)
    assert ("mine.pth: took " in caplog.text) == (form not in ("bare", "old batch norms"))
    if form == "Lightning with an average":
        left = "left out: ema_model.conv1.0.weight, "
        assert f"mine.pth: took 'state_dict.model'; {left}" in caplog.text


def test_an_average_is_taken_where_the_entry_asks_for_it_and_of_equals_none_is_guessed(model, load):
    state = model.state_dict()
    both = {"state_dict": state, "state_dict_ema": zeros(state)}
    assert load(both).weight.any() and not load(both, checkpoint_key="state_dict_ema").weight.any()
    twins = {"teacher": under("module.", state), "student": zeros(state)}
    assert load(twins, checkpoint_key="teacher").weight.any()
    assert not load(twins, checkpoint_key="student").weight.any()
    for key, message in (
        (None, r"is in it as 'teacher\.module' and 'student': choose one as `checkpoint_key`"),
        ("tutor", r"not under checkpoint_key 'tutor', but under 'teacher\.module', 'student': "),
    ):
        with pytest.raises(InputError, match=rf"mine\.pth: .*{message}"):
            load(twins, checkpoint_key=key)


def test_a_head_of_ones_own_takes_the_place_of_the_checkpoints(tmp_path, model, load, caplog):
    caplog.set_level(logging.INFO, "singflow")
    head = saved(tmp_path / "head.safetensors", {"weight": torch.ones(5, 96)})
    classifier = load({"model": model.state_dict()}, head_weights=head)
    assert torch.equal(classifier.weight, torch.ones(5, 96))
    found, state = classifier.model.state_dict(), model.state_dict()
    assert torch.equal(found["conv1.0.weight"], state["conv1.0.weight"])
    assert "mine.pth: took 'model'; left out: fc.weight, fc.bias" in caplog.text


# fmt: off
MISFITS = [
    (lambda s: {"net": s},
     r"\(under 'net'\): not .* with 1000 classes: its head has 5 classes: .*`class_list`"),
    (lambda s: without(s, "fc."),
     r"it has no head \(fc\.weight, fc\.bias\): give one as `head_weights`"),
    (lambda s: without(s, "conv1."),
     r"it lacks conv1\.0\.weight.*: name as `id` the architecture that was trained"),
    (lambda s: s | {"se.weight": torch.ones(2)}, r"it has besides se\.weight: name as `id`"),
    (lambda s: s | {"conv1.0.weight": torch.ones(2)},
     r"of another shape: conv1\.0\.weight is \(2,\), not \(.*\): name as `id`"),
    (lambda s: s | {"fc.weight": torch.ones(5, 7)},
     r"of another shape: fc\.weight is \(5, 7\), not \(5, 96\)"),
    (lambda s: {"blocks.0.w": torch.ones(1), "epoch": 3},
     r"holds no tensor of .*, as conv1\.0.*; it holds blocks\.0\.w, epoch"),
    (lambda s: [1.0, torch.ones(1)], "holds no tensor of .*; it holds a list"),
    (lambda s: {f"key{n}": n for n in range(99)}, "it holds key0, .* and 93 more"),
    (lambda s: {"\x1b[31m" * 200: torch.ones(1)}, r"it holds \\x1b\[31m"),
]
# fmt: on


@pytest.mark.parametrize(("content", "message"), MISFITS)
def test_a_checkpoint_of_another_model_says_what_it_has_and_what_would_help(
    model, load, content, message
):
    names = None if "1000 classes" in message else FIVE
    with pytest.raises(InputError, match=r"mine\.pth.*" + message) as refused:
        load(content(model.state_dict()), class_names=names)
    assert len(str(refused.value)) < 2000 and "\x1b" not in str(refused.value)


class Mine(nn.Linear):
    """A module of a user's own."""


def cut(path):
    torch.save({"weight": torch.ones(99)}, path)
    path.write_bytes(path.read_bytes()[:-100])


# fmt: off
OTHERS = {
    "page": (b"\n<!DOCTYPE html><html><body>Sign in</body></html>",
             "a web page, not weights: open the address in a browser"),
    "denied": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
               "a web page, not weights"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
                "a pointer of git-LFS.*`git lfs pull`"),
    "text": (b'{"message":\n "Not Found"}', 'a text, not weights; it begins \'{"message"'),
    "empty": (b"", "not readable as tensors: an empty file: copy or download it again"),
    "keras": (b"\x89HDF\r\n\x1a\n\0", "not PyTorch's or safetensors'"),
    "module": (lambda path: torch.save(Mine(3, 2), path),
               r"a pickled tests\.towers\.test_checkpoints\.Mine, "
               r".*as a whole module saved by torch\.save\(model\) does"),
    "module inside": (lambda path: torch.save({"model": Mine(3, 2), "epoch": 3}, path),
                      r"a pickled tests\.towers\.test_checkpoints\.Mine"),
    "script": (lambda path: torch.jit.script(nn.Linear(3, 2)).save(path),
               r"a program of TorchScript: .*state_dict\(\)"),
    "path": (lambda path: torch.save({"w": torch.ones(1), "p": pathlib.PurePosixPath("x")}, path),
             r"a pickled pathlib\S*\.PurePosixPath"),
    "code": (lambda path: torch.save({"w": Payload()}, path), r"a pickled posix\.system"),
    "cut": (cut, "damaged, cut short, or of another kind .*: copy or download it again"),
    "noise": (bytes(range(200, 256)) * 9, "damaged, cut short, or of another kind"),
    "safetensors cut": (b"\x40" + b"\0" * 7 + b'{"w": 1',
                        "damaged, cut short, or of another kind"),
}
# fmt: on


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_no_checkpoint_is_called_by_its_name_and_no_one_is_told_to_run_its_code(
    tmp_path, monkeypatch, kind
):
    monkeypatch.chdir(tmp_path)
    (content, message), name = OTHERS[kind], "mine.pth"
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    else:
        content(tmp_path / name)
    with pytest.raises(InputError, match=f"{name}: .*{message}") as refused:
        read_checkpoint(tmp_path / name)
    assert "weights_only" not in str(refused.value) and "\n" not in str(refused.value)
    assert not (tmp_path / "executed").exists()


def test_the_content_tells_the_format_whatever_the_name_ends_in_and_no_file_is_named(tmp_path):
    save_file({"w": torch.ones(2)}, tmp_path / "a.pth")
    torch.save({"w": torch.ones(2)}, tmp_path / "a.safetensors")
    for name in ("a.pth", "a.safetensors"):
        assert torch.equal(read_checkpoint(tmp_path / name)["w"], torch.ones(2))
    with pytest.raises(InputError, match=r"absent\.pth: no such weight file"):
        read_checkpoint(tmp_path / "absent.pth")


DAMAGED = {"conv1.0.weight": "nan", "layer1.0.conv1.weight": "inf", "bn1.running_var": "nan"}


@pytest.mark.parametrize(("key", "value"), DAMAGED.items())
def test_damaged_weights_are_found_before_an_image_is_read(model, load, key, value):
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state[key].view(-1)[1] = float(value)
    message = f"{RESNET}: the weights hold NaN or infinite values, in {key}"
    with pytest.raises(InputError, match=message):
        load(state, "nan.safetensors")


def test_an_architecture_alone_takes_weights_and_a_transform_of_ones_own(load):
    untagged = [name for name in timm.list_models() if not timm.list_pretrained(f"{name}.*")]
    unpublished = next(name for name in untagged if name.startswith(("resnet", "regnet")))
    for name in (unpublished, "resnet10t"):
        own = timm.create_model(name, num_classes=5)
        classifier = load({"net": own.state_dict()}, id=name, transform=TRANSFORM)
        assert weights_sha256(classifier.model) == weights_sha256(own)
        normalize = classifier.preprocess.whole.transforms[-1]
        assert classifier.preprocess.size == (96, 96)
        assert (normalize.mean.tolist(), normalize.std.tolist()) == ([0.5] * 3, [0.25] * 3)
    said = rf"it has none .*or the architecture alone, id: {unpublished}, and"
    with pytest.raises(InputError, match=rf"timm has no weights '{unpublished}\.mine'; {said}"):
        load({}, id=f"{unpublished}.mine")


def test_what_only_a_file_of_ones_own_may_have_needs_one_and_the_whole_transform():
    for weights in ("hub", "random", "package:x"):
        with pytest.raises(ValueError, match="checkpoint_key is the part of a file of your own"):
            entry_of(weights=weights, checkpoint_key="ema")
        with pytest.raises(ValueError, match=r"id 'resnet10t' must be pinned as name\.tag"):
            entry_of("resnet10t", weights, transform=TRANSFORM)
    for absent in TRANSFORM:
        partial = {name: value for name, value in TRANSFORM.items() if name != absent}
        with pytest.raises(
            ValueError, match=rf"has no tag.* write a tag.*{absent} under transform"
        ):
            entry_of("resnet10t", "file:checkpoints/x.pth", transform=partial)
