"""collect() gives what a model's own parts compute, or says why not, and changes nothing."""

import weakref
from contextlib import ExitStack, nullcontext
from copy import deepcopy
from dataclasses import replace
from types import MethodType

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.utils import data
from torch.utils.data import DataLoader, TensorDataset

import singflow
from singflow.artifacts.shards import towers_in
from singflow.data.imported import imported_shard
from singflow.errors import InputError
from singflow.towers.device import _tf32_flags, without_tf32
from tests.towers.models import DISTILLED, IMAGES, LABELS, LOADER, RESNET, Nested
from tests.towers.models import FIVE as NAMES
from tests.towers.test_classifiers import two_tokens
from tests.towers.tiny_transformers import CLASSIFIERS

HEAD = "backbone.classifier.1"


def assert_gives(model, loader, features, logits, path, **options):
    """What is collected is these parts, and the head explains the logits."""
    found = singflow.collect(model, loader, **options)
    assert found.head_path == path
    torch.testing.assert_close(torch.from_numpy(found.features), features.flatten(1).float())
    torch.testing.assert_close(torch.from_numpy(found.logits), logits.float())
    explained = found.features @ found.head.weight.T + found.head.bias
    error = float(np.abs(explained - found.logits).max())
    assert error == pytest.approx(found.max_error, abs=1e-5) and error < 1e-4
    parts = found.features, found.logits, *found.head
    assert {part.dtype for part in parts} == {np.dtype("float32")}
    return found


@torch.no_grad()
def test_a_nested_head_is_found_and_the_rows_are_those_of_torch_to_the_bit():
    model = Nested()
    twin = deepcopy(model).eval()
    found = singflow.collect(model, LOADER)
    assert found.head_path == HEAD and found.labels.tolist() == LABELS.tolist()
    for rows, part in ((found.features, twin.pooled), (found.logits, twin)):
        expected = torch.cat([part(images) for images, _ in LOADER])
        assert torch.equal(torch.from_numpy(rows), expected)
    assert np.array_equal(found.head.weight, twin.backbone.classifier[1].weight.numpy())
    before = deepcopy(found)
    model.backbone.classifier[1].weight.add_(1)  # which is not the weight in what was collected
    assert np.array_equal(found.head.weight, before.head.weight)
    assert repr(found).startswith("7 rows with labels: 8 features before the head 'backbone.class")
    for head in (HEAD, model.backbone.classifier[1]):
        assert singflow.collect(model, LOADER, head).head_path == HEAD


@torch.no_grad()
def test_the_heads_of_libraries_are_found_by_themselves():
    torch.manual_seed(0)
    resnet = torchvision.models.resnet18(num_classes=5).eval()
    body = nn.Sequential(*[*resnet.children()][:-1])
    assert_gives(resnet, [IMAGES], body(IMAGES), resnet(IMAGES), "fc")
    small = timm.create_model(RESNET, num_classes=5).eval()
    feature = small.forward_head(small.forward_features(IMAGES), pre_logits=True)
    assert_gives(small, [IMAGES], feature, small(IMAGES), "fc")
    pooled = nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1)
    for bias in (True, False):
        model = nn.Sequential(*pooled, nn.Conv2d(8, 5, 1, bias=bias), nn.Flatten())
        found = assert_gives(model, [IMAGES], model[:2](IMAGES), model(IMAGES), "2")
        assert found.head.weight.shape == (5, 8) and found.head.bias.any() == bias
    linear = nn.Linear(8, 5)
    rows = IMAGES[0, 0, :, :8]
    assert_gives(linear, [rows], rows, linear(rows), "")


@torch.no_grad()
def test_heads_whose_mean_is_the_output_are_one_head():
    model = timm.create_model(DISTILLED, num_classes=5, img_size=32).eval()
    parts = torch.cat(two_tokens(model, IMAGES), dim=1)
    for head in (None, ["head", model.head_dist]):
        assert_gives(model, [IMAGES], parts, model(IMAGES), "head and head_dist", head=head)


def test_a_layer_that_runs_after_the_head_is_not_the_head():
    class Auxiliary(Nested):
        def forward(self, images):
            return super().forward(images), self.spare(self.pooled(images))

    assert singflow.collect(Auxiliary(), LOADER).head_path == HEAD


@pytest.mark.parametrize("kind", CLASSIFIERS)
@torch.no_grad()
def test_mappings_of_transformers_are_keyword_arguments(kind):
    torch.manual_seed(5)
    model = CLASSIFIERS[kind]().eval()
    batch = {"pixel_values": IMAGES, "labels": LABELS}
    path = {"resnet": "classifier.1"}.get(kind, "classifier")
    inputs = []
    hook = model.get_submodule(path).register_forward_pre_hook(lambda _, args: inputs.append(*args))
    logits = model(pixel_values=IMAGES).logits
    hook.remove()
    found = assert_gives(model, [batch], inputs[0], logits, path)
    assert found.labels.tolist() == LABELS.tolist()
    assert singflow.collect(model, [{"pixel_values": IMAGES}]).labels is None


class ByKeyword(Nested):
    def forward(self, images):
        return self.backbone.classifier[1](input=self.pooled(images))


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("network", [Nested, ByKeyword])
@torch.no_grad()
def test_a_head_is_compared_in_float32_and_its_own_forward_function_is_run(network, kind):
    model = network().to(kind).eval()
    head = model.backbone.classifier[1]
    features = model.pooled(IMAGES.to(kind)).float()
    logits = features @ head.weight.float().T + head.bias.float()
    assert assert_gives(model, [IMAGES], features, logits, HEAD).max_error < 1e-6
    assert head.weight.dtype == model(IMAGES.to(kind)).dtype == kind
    head.forward = MethodType(lambda self, input: 2 * type(self).forward(self, input), head)
    with pytest.raises(InputError, match=r"W f \+ b differs from the model's logits"):
        singflow.collect(model, [IMAGES], HEAD)
    assert isinstance(head.forward, MethodType) and head.forward.__self__ is head


def test_under_autocast_the_head_is_computed_in_float32():
    with torch.autocast("cpu", torch.bfloat16):
        found = singflow.collect(Nested(), LOADER)
    exact = singflow.collect(Nested(), LOADER)
    gap = np.abs(found.features - exact.features).max()
    assert 0 < gap < 0.02 and found.max_error < 1e-6


def test_labels_are_integers_tensors_or_texts_and_a_batch_may_hold_more():
    for given, wanted in (
        ([2, 0, 1], [2, 0, 1]),
        (torch.tensor([1, 1, 0], dtype=torch.uint8), [1, 1, 0]),
        (("ant", "bee", "cat"), ["ant", "bee", "cat"]),
    ):
        found = singflow.collect(Nested(), [[IMAGES[:3], given, ["path"] * 3]] * 2)
        assert found.labels.tolist() == [*wanted, *wanted] and len(found.features) == 6
    set_ = TensorDataset(IMAGES, LABELS)
    assert singflow.collect(Nested(), DataLoader(set_, 3)).labels.tolist() == LABELS.tolist()
    assert singflow.collect(Nested(), DataLoader(TensorDataset(IMAGES), 3)).labels is None


def state_of(model):
    """All of a model that a call could change, and whether gradients are on."""
    modules = dict(model.named_modules())
    return {
        "modes": {name: module.training for name, module in modules.items()},
        "attributes": {name: sorted(vars(module)) for name, module in modules.items()},
        "hooks": {
            name: [len(hooks) for key, hooks in vars(module).items() if key.endswith("_hooks")]
            for name, module in modules.items()
        },
        "tensors": {
            name: (id(part), part.data_ptr(), part.requires_grad, part.device, part.tolist())
            for name, part in (*model.named_parameters(), *model.named_buffers())
        },
        "grads": {name: part.grad is None for name, part in model.named_parameters()},
        "process": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
    }


def fails():
    yield LOADER[0]
    raise RuntimeError("the disk is gone")


@pytest.mark.parametrize(
    ("loader", "head", "error"),
    [
        (lambda: LOADER, None, None),
        (fails, None, RuntimeError),
        (lambda: LOADER, "spare", InputError),
        (lambda: [torch.zeros(2, 5, 8, 8)], HEAD, RuntimeError),
    ],
)
def test_the_model_is_as_before_also_after_an_error(loader, head, error):
    model = Nested()
    model.backbone[1].eval()  # a frozen norm in a model that trains
    model.backbone[0].requires_grad_(False)
    own = model.backbone.classifier[1].register_forward_hook(lambda *_: None)
    model(IMAGES).sum().backward()
    before = state_of(model)
    with pytest.raises(error) if error else nullcontext():
        singflow.collect(model, loader(), head)
    assert state_of(model) == before
    own.remove()
    assert model(IMAGES).grad_fn is not None


def drawing(sampler, **options):
    return DataLoader(TensorDataset(IMAGES), sampler=sampler, **options)


RANDOM = data.BatchSampler(data.RandomSampler(range(7)), 3, False)
SHUFFLING = [
    DataLoader(TensorDataset(IMAGES), 3, shuffle=True),
    drawing(RANDOM, batch_size=None),
    drawing(data.DistributedSampler(range(7), 1, 0, shuffle=True)),
]
BYTES = (255 * IMAGES).to(torch.uint8)
INFINITE = IMAGES.index_fill(0, torch.tensor([5]), torch.inf)


@pytest.mark.parametrize(
    ("loader", "said"),
    [
        *((loader, "shuffles, so that .*: make it with shuffle=False$") for loader in SHUFFLING),
        ([], "gave no batch: its data set is empty, or it is an iterator that was used$"),
        ([LOADER[0], (IMAGES[:1], ["ant"])], "batch 1 has other labels than those before: give in"),
        (["photo.jpg"], "batch 0 is a str: give tensors of images, tuples of "),
        ([(IMAGES, LABELS[:3])], r"batch 0 has labels of shape \(3,\) for 7 rows: give one label"),
        ([(IMAGES, torch.rand(7))], "labels are float32, not integers or texts: convert"),
        ([IMAGES, INFINITE], "features hold NaN or infinite values, first in row 12: "),
        (TensorDataset(IMAGES), r"is a data set, .*: write torch\.utils"),
        (IMAGES, r"is one array: give a list of batches, as in \[images\]$"),
        ([(BYTES, LABELS)], "holds images of uint8: let the data set convert "),
    ],
)
def test_a_loader_that_gives_no_rows_in_a_fixed_order_is_refused(refused, loader, said):
    refused(f"^(loader: )?{said}", singflow.collect, Nested(), loader)


class Early(Nested):
    """The head is applied to every position, and then pooled."""

    def forward(self, images):
        values = self.backbone[:3](images).movedim(1, -1)
        return self.backbone.classifier(values).mean(dim=(1, 2))


class Twice(Nested):
    def forward(self, images):
        return super().forward(images.flip(3)) * 0 + super().forward(images)


NAME = r': name the last linear layer, as in head="fc", of a model that returns logits$'
FOUR = Nested(lambda logits: logits[:, :4])


@pytest.mark.parametrize(
    ("model", "head", "said"),
    [
        (Nested(), "fc", f"^collect: has no module 'fc'{NAME}"),
        (Nested(), "backbone.1", f"is BatchNorm2d, not a linear layer or 1 x 1 convolution{NAME}"),
        (Nested(), nn.Linear(8, 5), f"^collect: head is a Linear of another model{NAME}"),
        (Nested(), 5, f"^collect: head is 5, not a path or a module{NAME}"),
        (Twice(), None, f"the head '{HEAD}' 2 times in a pass{NAME}"),
        (Early(), None, rf"has shape \(4, 30, 30, 8\), not \(n, 8\): .* before pooling{NAME}"),
        (Nested(lambda x: 2 * x), None, f"differs from .* logits by .*, or a softmax or .*{NAME}"),
        (FOUR, HEAD, f"the head '{HEAD}' gives 5 numbers, but the model 4{NAME}"),
        (Nested(lambda x: x[:, 0]), None, r"is of shape \(4,\), not logits \(n, C\): return the l"),
        (torch.sin, None, r"model is builtin_f.*, not a torch\.nn\.Module: wrap it in one$"),
    ],
)
def test_a_model_without_such_a_head_is_refused(refused, model, head, said):
    refused(said, singflow.collect, model, LOADER, head)


def test_what_a_model_keeps_from_the_pass_can_be_trained_with():
    class Keeps(Nested):
        scale = None

        def pooled(self, images):
            self.scale = images.new_ones(()) if self.scale is None else self.scale
            return super().pooled(images) * self.scale

    model = Keeps()
    singflow.collect(model, LOADER)
    model(IMAGES).sum().backward()
    assert model.backbone.classifier[1].weight.grad.abs().sum() > 0


def test_no_more_than_two_batches_are_in_memory():
    living = weakref.WeakSet()

    def loader():
        for _ in range(6):
            batch = Batch(torch.rand(2, 3, 8, 8))
            living.add(batch)
            assert len(living) <= 2
            yield batch

    assert len(singflow.collect(Nested(), loader()).features) == 12


class Batch(torch.Tensor):
    __hash__ = object.__hash__


def test_hooks_run_in_a_model_that_is_compiled():
    plain = singflow.collect(Nested(), LOADER)
    in_place, wrapped = Nested(), torch.compile(Nested())
    in_place.compile()
    for model in (in_place, wrapped):
        found = singflow.collect(model, LOADER)
        assert np.array_equal(found.features, plain.features)
        assert found.head_path.endswith(HEAD)


MATMUL, CUDNN = torch.backends.cuda.matmul, torch.backends.cudnn


@pytest.mark.parametrize(
    ("place", "name", "chosen"), [(MATMUL, "allow_tf32", True), (MATMUL, "fp32_precision", "tf32")]
)
def test_tf32_is_off_inside_blocks_that_overlap_and_then_as_the_user_chose_it(place, name, chosen):
    def is_off():
        return not MATMUL.allow_tf32 and not CUDNN.allow_tf32

    found = _tf32_flags()
    try:
        setattr(place, name, chosen)
        before, first, second = _tf32_flags(), ExitStack(), ExitStack()
        for block in (first, second):
            block.enter_context(without_tf32(torch.device("cuda")))
            assert is_off() and MATMUL.fp32_precision == "ieee"
        first.close()  # as where another thread began earlier
        assert is_off() and MATMUL.fp32_precision == "ieee"
        second.close()
        assert _tf32_flags() == before
    finally:
        for place, name, value in found:
            setattr(place, name, value)


def test_what_was_collected_is_saved_as_the_same_arrays_are(tmp_path):
    collected = singflow.collect(Nested(), LOADER)
    embeddings = np.random.default_rng(1).standard_normal((7, 3))
    more = {"class_names": NAMES, "space": "minilm", "embeddings": embeddings}
    said = collected.save(tmp_path / "one/mine", **more)
    ids = [f"{row:07d}" for row in range(7)]
    given = collected.labels, collected.features, collected.head
    hashed = {"logits": collected.logits, "weights_sha256": collected.weights_sha256}
    assert singflow.save_features(tmp_path / "two/mine", ids, *given, **more, **hashed) == said
    one, two = tmp_path / "one/mine", tmp_path / "two/mine"
    files = [path.relative_to(one) for path in one.rglob("*") if path.is_file()]
    assert len(files) == 5
    assert all((one / path).read_bytes() == (two / path).read_bytes() for path in files)
    found, facts = imported_shard(one, ids, "features", model="features/mine")
    np.testing.assert_array_equal(found, collected.features)
    assert facts["weights_sha256"] == collected.weights_sha256
    collected.save(one, class_names=NAMES, model="other")
    assert towers_in(one)[0] == ["features/mine", "features/other"]
    with pytest.raises(InputError, match=r"give features, head, and labels .* let the loader"):
        replace(collected, labels=None).save(tmp_path / "new")
