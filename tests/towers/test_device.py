"""Which device a step gets, and what is said where a GPU cannot be used; without a GPU."""

import re

import pytest
import torch

from singflow import system
from singflow.config.registry import resolve_models
from singflow.errors import InputError
from singflow.towers.classifiers import run_on_images
from singflow.towers.device import misfit, pick_device
from singflow.towers.gpu_errors import in_memory
from singflow.towers.live import load_entry
from tests.project import ROOT

LITE0 = "efficientnet_lite0"
IMAGES = torch.zeros(1, 3, 8, 8)


@pytest.fixture(autouse=True)
def machine(monkeypatch, tmp_path):
    """A machine whose driver is older than the build of PyTorch, outside of any job."""
    for name in ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_GPUS"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "version").write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  535.54.03  Release Build\n"
    )
    monkeypatch.setattr(system, "DRIVER", tmp_path / "version")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.parametrize(
    ("variables", "given"),
    [
        ({"SLURM_JOB_GPUS": "3", "CUDA_VISIBLE_DEVICES": "0"}, "0"),
        ({"CUDA_VISIBLE_DEVICES": "GPU-5ad0, 1, -1, 2"}, "GPU-5ad0,1"),
    ],
)
def test_a_job_whose_gpu_pytorch_does_not_see_is_refused_with_driver_and_build(
    monkeypatch, variables, given
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    said = (
        rf"this job was given GPU {given}, but PyTorch sees no GPU \(version .*, built for CUDA "
        r"13\.0; NVIDIA driver 535\.54\.03\): install a build of PyTorch .*, or choose device cpu"
    )
    for wanted in ("auto", "cuda"):
        with pytest.raises(InputError, match=said):
            pick_device(wanted)
    assert pick_device("cpu").type == "cpu"


@pytest.mark.parametrize("hidden", [None, "", "-1", "NoDevFiles"])
def test_a_job_without_a_gpu_computes_on_the_cpu(monkeypatch, hidden):
    if hidden is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert pick_device("auto").type == "cpu"
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(system, "DRIVER", system.DRIVER.with_name("absent"))
    said = r"device is cuda, but PyTorch sees no GPU \(version .*, built without CUDA; no NVIDIA"
    with pytest.raises(InputError, match=said):
        pick_device("cuda")


@pytest.mark.parametrize(
    ("capability", "built", "runs"),
    [
        ((7, 0), "sm_75 sm_80 sm_86 sm_90 sm_100 sm_120", False),
        ((8, 9), "sm_75 sm_80 sm_86", True),
        ((12, 1), "sm_90 compute_90", True),
        ((8, 9), "sm_100 compute_120", False),
        ((8, 9), "", True),  # a build that does not say
    ],
)
def test_a_card_that_a_build_of_pytorch_has_no_code_for_is_refused(
    monkeypatch, capability, built, runs
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_arch_list", built.split)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla")
    assert bool(misfit()) != runs
    if runs:
        types = [pick_device(wanted).type for wanted in ("auto", "cuda", "cpu")]
        assert types == ["cuda", "cuda", "cpu"]
        return
    card = rf"Tesla has compute capability {capability[0]}\.{capability[1]}"
    said = f"{card}, but PyTorch .* has code for {built.split()[0]}, .* alone: install a build"
    with pytest.raises(InputError, match=said):
        pick_device("auto")


@pytest.mark.parametrize(
    ("words", "of_size"),
    [
        ("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(...)`", False),
        ("CUDA out of memory. Tried to allocate 2.00 GiB", False),
        ("mat1 and mat2 shapes cannot be multiplied (1x8 and 4x2)", True),
        ("Input height (160) doesn't match model (224).", True),
    ],
)
def test_only_an_error_that_speaks_of_a_size_is_told_as_that_of_the_images_size(words, of_size):
    def tower(_):
        raise RuntimeError(words)

    with pytest.raises(InputError if of_size else RuntimeError) as raised:
        run_on_images(tower, IMAGES, "resnet50", "look at `head`")
    said = r"resnet50 cannot run on images of .*look at `head`$"
    assert re.match(said, str(raised.value)) if of_size else str(raised.value) == words


def test_the_memory_of_the_machine_that_is_too_small_is_told_as_that():
    said = r"^the memory is too small for all \(.*allocate memory: "
    with pytest.raises(InputError, match=said), in_memory("all"):
        torch.empty(2**50)


def test_weights_that_do_not_fit_into_a_gpu_are_told(monkeypatch):
    entry = resolve_models(ROOT / "config/models.yaml", [LITE0])[LITE0]

    def to(*_, **__):
        raise torch.OutOfMemoryError("CUDA error: out of memory\nmore")

    monkeypatch.setattr("singflow.towers.classifiers.LoadedClassifier.to", to)
    said = (
        rf"memory is too small for the weights of {LITE0} \(CUDA error: out of memory\): take a l"
    )
    with pytest.raises(InputError, match=said):
        load_entry(entry, LITE0, [], "cpu")
