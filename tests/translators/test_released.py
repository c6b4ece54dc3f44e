import contextlib
import os
import re

import numpy as np
import pytest
import torch
import yaml

from singflow.artifacts.files import sha256_of
from singflow.artifacts.tensors import write_tensors
from singflow.config.reading import read_yaml
from singflow.config.registry import resolve_models
from singflow.errors import InputError
from singflow.towers.weights import required
from singflow.translators.linear import read_imported
from singflow.translators.released import MODELS, read_release
from tests import warm
from tests.project import ROOT

FACTS = {
    "model_name": "densenet",
    "translator_name": "linear",
    "architecture": "linear",
    "embedding_backend": "kakao_karlo_v1_alpha_image_variations",
    "in_dim": 5,
    "out_dim": 3,
    "hidden_dim": 1024,
    "checkpoint_file": "best.pt",
}
STATE = {"weight": torch.arange(15.0).reshape(3, 5), "bias": torch.tensor([1.0, -1.0, 0.5])}


class Payload:
    def __reduce__(self):
        return os.system, ("touch executed",)


def release(folder, state=STATE, **facts):
    folder.mkdir(exist_ok=True)
    torch.save(state, folder / "best.pt")
    (folder / "metadata.yaml").write_text(yaml.safe_dump(FACTS | facts))
    return folder


def test_a_release_is_its_affine_map(tmp_path):
    read = read_release(release(tmp_path))
    features = np.random.default_rng(0).standard_normal((4, 5)).astype(np.float32)
    expected = torch.nn.functional.linear(torch.from_numpy(features), STATE["weight"], STATE["bias"]).numpy()
    np.testing.assert_allclose(read.translator(features), expected, rtol=1e-6)
    assert (read.model, read.model_id) == ("densenet", "torchvision/densenet121.IMAGENET1K_V1")
    assert read.space_id == "ViT-L-14-quickgelu/openai"
    assert read_release(release(tmp_path, model_name="timm/resnet18.a1_in1k")).model_id == "timm/resnet18.a1_in1k"


def test_the_authors_models_exist_and_are_those_of_the_registry_but_for_deit():
    entries = resolve_models(ROOT / "config/models.yaml", [*MODELS.values()])
    assert [f"{each.source}/{each.id}" for each in entries.values()] == [*MODELS.values()]
    for entry in entries.values():
        assert required(entry)  # the library has weights of this name
    registry = resolve_models(ROOT / "config/models.yaml", list(read_yaml(ROOT / "config/models.yaml")))
    absent = set(MODELS.values()) - {f"{each.source}/{each.id}" for each in registry.values()}
    assert absent == {"timm/deit3_large_patch16_224.fb_in1k"}


@pytest.mark.parametrize(
    ("state", "facts", "message"),
    [
        ({"weight": torch.zeros(3, 4), "bias": torch.zeros(3)}, {}, r"best.pt: holds tensors .*\(3, 4\).* says .*\(3, 5\)"),
        ({"weight": torch.zeros(5, 3), "bias": torch.zeros(3)}, {}, r"holds tensors"),
        ({"weight": torch.zeros(3, 5)}, {}, r"holds tensors"),
        (STATE | {"extra": torch.zeros(1)}, {}, r"holds tensors"),
        (STATE | {"note": "text"}, {}, r"holds tensors"),
        (torch.zeros(3, 5), {}, r"holds tensors"),
        ({"weight": torch.full((3, 5), float("nan")), "bias": torch.zeros(3)}, {}, "NaN or infinite"),
        ({"weight": Payload(), "bias": torch.zeros(3)}, {}, "best.pt: not readable as tensors"),
        (STATE, {"architecture": "mlp3"}, "architecture 'mlp3' cannot be imported"),
        (STATE, {"model_name": "resnet18"}, "unknown model_name 'resnet18': write <source>/<id>"),
        (STATE, {"embedding_backend": "other"}, "unknown embedding_backend 'other'"),
        (STATE, {"checkpoint_file": "../best.pt"}, "must be a file name in the same folder"),
        (STATE, {"checkpoint_file": "absent.pt"}, "absent.pt: no such weight file"),
        (STATE, {"in_dim": "5"}, "in_dim: '5'"),
        (STATE, {"more": 1}, "more: unknown key"),
    ],
)
def test_what_is_not_a_linear_release_is_refused_and_its_code_not_run(tmp_path, monkeypatch, state, facts, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        read_release(release(tmp_path / "release", state, **facts))
    assert not (tmp_path / "executed").exists()


def run(folder, *flags):
    registries = ["--models", ROOT / "config/models.yaml", "--spaces", ROOT / "config/spaces.yaml"]
    return warm.singflow(ROOT, "import_translator", *flags, *registries, cwd=folder)


def wide(folder, in_dim=1024, out_dim=768, model_name="densenet"):
    generator = torch.Generator().manual_seed(0)
    state = {"weight": torch.randn(out_dim, in_dim, generator=generator), "bias": torch.randn(out_dim, generator=generator)}
    return release(folder, state, in_dim=in_dim, out_dim=out_dim, model_name=model_name), state


def test_the_printed_line_names_the_file_for_a_study_and_is_the_same_each_time(tmp_path):
    folder, state = wide(tmp_path / "release")
    lines = {run(tmp_path, "--release", str(folder), "--model", "densenet121").stderr for _ in range(2)}
    (text,) = lines
    path = tmp_path / "checkpoints/translators/clip_vit_l14/densenet121.safetensors"
    pin = f"clip_vit_l14/densenet121:{sha256_of(path)[:16]}"
    assert f"  imported: [{pin}]" in text
    with contextlib.chdir(tmp_path):
        translator = read_imported([pin], "clip_vit_l14", "densenet121")
        np.testing.assert_array_equal(translator.weight, state["weight"].numpy())
        np.testing.assert_array_equal(translator.bias, state["bias"].numpy())
        assert read_imported([pin], "clip_vit_l14", "resnet50") is None
        with pytest.raises(InputError, match="its SHA-256 is"):
            read_imported(["clip_vit_l14/densenet121:" + "0" * 16], "clip_vit_l14", "densenet121")
        path.unlink()
        with pytest.raises(InputError, match="no such file: make it with"):
            read_imported([pin], "clip_vit_l14", "densenet121")


@pytest.mark.parametrize(
    ("flags", "shape", "message"),
    [
        (["--model", "resnet50"], {}, "fitted for torchvision/densenet121.IMAGENET1K_V1, but resnet50 is .*: write --model densenet121,"),
        (
            ["--model", "densenet121"],  # as wide as DeiT's
            {"model_name": "deit"},
            "'deit' was fitted for timm/deit3_large_patch16_224.fb_in1k, but densenet121 is torchvision/densenet121.IMAGENET1K_V1: "
            "write --model timm/deit3_large_patch16_224.fb_in1k, here and in the study",
        ),
        (["--model", "deit3_large"], {"model_name": "deit"}, "but deit3_large is timm/deit3_large_patch16_224.fb_in22k_ft_in1k"),
        (["--model", "densenet121"], {"in_dim": 1280}, "it translates 1280 features, but densenet121 has 1024"),
        (["--model", "timm/resnet18.a1_in1k"], {"model_name": "timm/resnet18.a1_in1k"}, "1024 features, but timm/resnet18.a1_in1k has 512"),
        (
            ["--model", "transformers/facebook/dinov2-large-imagenet1k-1-layer"],
            {"model_name": "dinov2", "in_dim": 2048},
            "known in the hub alone: write its feature_dim",
        ),
        (["--model", "densenet121", "--space", "eva02_l14"], {}, "which eva02_l14 of .*spaces.yaml is not"),
        (["--model", "densenet121", "--space", "conse_minilm"], {}, "which conse_minilm of .*spaces.yaml is not"),
        (["--model", "densenet121"], {"out_dim": 512}, r"\(512 dimensions\), which clip_vit_l14"),
        (["--model", "densnet121"], {}, "did you mean 'densenet121'"),
    ],
)
def test_a_release_for_another_model_or_space_is_refused_without_a_file(tmp_path, flags, shape, message):
    folder, _ = wide(tmp_path / "release", **shape)
    done = run(tmp_path, "--release", str(folder), *flags)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert re.search(message, done.stderr), done.stderr
    assert not list(tmp_path.rglob("*.safetensors"))


def test_deits_release_is_taken_for_its_own_model_which_has_no_entry(tmp_path):
    folder, state = wide(tmp_path / "release", model_name="deit")
    name = "timm/deit3_large_patch16_224.fb_in1k"
    text = run(tmp_path, "--release", str(folder), "--model", name).stderr
    pin = f"clip_vit_l14/{name}:{sha256_of(tmp_path / f'checkpoints/translators/clip_vit_l14/{name}.safetensors')[:16]}"
    assert f"  imported: [{pin}]" in text
    with contextlib.chdir(tmp_path):
        np.testing.assert_array_equal(read_imported([pin], "clip_vit_l14", name).weight, state["weight"].numpy())


def test_an_imported_file_with_nan_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "checkpoints/translators/s/m.safetensors"
    write_tensors(path, {"weight": np.full((2, 3), np.nan, np.float32), "bias": np.zeros(2, np.float32)}, {"kind": "linear"})
    with pytest.raises(InputError, match="weight holds NaN"):
        read_imported([f"s/m:{sha256_of(path)[:16]}"], "s", "m")
