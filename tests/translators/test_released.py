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
from singflow.study import settle, with_derived_keys
from singflow.towers.weights import required
from singflow.translators.linear import read_imported
from singflow.translators.released import ALIGNERS, MODELS, read_aligner, read_offered, read_release
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
    expected = torch.nn.functional.linear(
        torch.from_numpy(features), STATE["weight"], STATE["bias"]
    ).numpy()
    np.testing.assert_allclose(read.translator(features), expected, rtol=1e-6)
    assert (read.model, read.model_id) == ("densenet", "torchvision/densenet121.IMAGENET1K_V1")
    assert read.space_id == "ViT-L-14-quickgelu/openai"
    assert (
        read_release(release(tmp_path, model_name="timm/resnet18.a1_in1k")).model_id
        == "timm/resnet18.a1_in1k"
    )


def test_the_authors_models_exist_and_are_those_of_the_registry_but_for_deit():
    entries = resolve_models(ROOT / "config/models.yaml", [*MODELS.values()])
    assert [f"{entry.source}/{entry.id}" for entry in entries.values()] == [*MODELS.values()]
    for entry in entries.values():
        assert required(entry)  # the library has weights of this name
    registry = resolve_models(
        ROOT / "config/models.yaml", list(read_yaml(ROOT / "config/models.yaml"))
    )
    absent = set(MODELS.values()) - {f"{entry.source}/{entry.id}" for entry in registry.values()}
    assert absent == {"timm/deit3_large_patch16_224.fb_in1k"}


@pytest.mark.parametrize(
    ("state", "facts", "message"),
    [
        (
            {"weight": torch.zeros(3, 4), "bias": torch.zeros(3)},
            {},
            r"best.pt: holds tensors .*\(3, 4\).* says .*\(3, 5\)",
        ),
        ({"weight": torch.zeros(5, 3), "bias": torch.zeros(3)}, {}, r"holds tensors"),
        ({"weight": torch.zeros(3, 5)}, {}, r"holds tensors"),
        (STATE | {"extra": torch.zeros(1)}, {}, r"holds tensors"),
        (STATE | {"note": "text"}, {}, r"holds tensors"),
        (torch.zeros(3, 5), {}, r"holds tensors"),
        (
            {"weight": torch.full((3, 5), float("nan")), "bias": torch.zeros(3)},
            {},
            "NaN or infinite",
        ),
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
def test_what_is_not_a_linear_release_is_refused_and_its_code_not_run(
    tmp_path, monkeypatch, state, facts, message
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        read_release(release(tmp_path / "release", state, **facts))
    assert not (tmp_path / "executed").exists()


B16 = """
clip_vit_b16:  # of config/spaces.yaml, where no study of the project names it
  source: open_clip
  id: ViT-B-16-quickgelu/openai
  dim: 512
"""
ALIGNED = {"W": torch.arange(12.0).reshape(3, 4), "b": torch.tensor([1.0, 0.5, -1.0])}


def test_an_aligner_is_its_affine_map_also_in_half_precision(tmp_path):
    features = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)
    expected = features @ ALIGNED["W"].numpy().T + ALIGNED["b"].numpy()
    for kind in (torch.float32, torch.float16):
        torch.save(
            {name: tensor.to(kind) for name, tensor in ALIGNED.items()},
            tmp_path / "pytorch_resnet18.pth",
        )
        read = read_offered(tmp_path / "pytorch_resnet18.pth", "")
        np.testing.assert_allclose(read.translator(features), expected, rtol=1e-6)
        assert read.translator.weight.dtype == read.translator.bias.dtype == np.float32
        assert (read.model_id, read.space_id) == (
            "torchvision/resnet18.IMAGENET1K_V1",
            "ViT-B-16-quickgelu/openai",
        )
    (tmp_path / "pytorch_resnet18.pth").rename(tmp_path / "mine.pth")
    assert read_aligner(tmp_path / "mine.pth").model_id is None
    assert [
        required(entry)
        for entry in resolve_models(ROOT / "config/models.yaml", [*ALIGNERS.values()]).values()
    ]


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (
            ALIGNED | {"mean": torch.zeros(4)},
            "holds tensors .* but an aligner of Text-to-concept holds W",
        ),
        ({"W": ALIGNED["W"]}, "holds tensors"),
        (STATE, r"holds tensors .*'weight': \(3, 5\)"),
        (ALIGNED | {"b": torch.zeros(4)}, "holds tensors"),
        (ALIGNED | {"W": torch.zeros(3)}, "holds tensors"),
        (torch.zeros(3, 4), "holds tensors"),
        (ALIGNED | {"b": torch.full((3,), float("inf"))}, "NaN or infinite"),
        (ALIGNED | {"b": Payload()}, "not readable as tensors"),
    ],
)
def test_what_is_no_aligner_is_refused_and_its_code_not_run(tmp_path, monkeypatch, state, message):
    monkeypatch.chdir(tmp_path)
    torch.save(state, "mine.pth")
    with pytest.raises(InputError, match=message):
        read_aligner(tmp_path / "mine.pth")
    assert not (tmp_path / "executed").exists()


def test_of_a_folder_of_releases_the_one_of_the_model_is_taken_by_its_id_and_a_network_is_refused(
    tmp_path,
):
    for name in ("densenet", "deit", "swin_large"):
        (tmp_path / name).mkdir()
        release(
            tmp_path / name / "linear",
            STATE | {"bias": torch.full((3,), float(len(name)))},
            model_name=name,
        )
    release(tmp_path / "deit/mlp3", model_name="deit", architecture="mlp3")
    release(tmp_path / "eva", model_name="eva02_large", architecture="residual")
    assert read_offered(tmp_path, "timm/deit3_large_patch16_224.fb_in1k").translator.bias[0] == 4
    with pytest.raises(
        InputError, match="architecture 'residual' cannot be imported: only linear is an affine map"
    ):
        read_offered(tmp_path, MODELS["eva02_large"])
    with pytest.raises(
        InputError,
        match=(
            r"no translator of timm/resnet18\.a1_in1k; it has those of deit, densenet, "
            r"eva02_large, swin_large"
        ),
    ):
        read_offered(tmp_path, "timm/resnet18.a1_in1k")
    release(tmp_path / "mine", model_name="resnet18.a1_in1k")  # an id of timm's without its source
    assert read_offered(tmp_path, "timm/resnet18.a1_in1k").model_id == "timm/resnet18.a1_in1k"
    with pytest.raises(InputError, match=r"--release .*absent: no such file or folder"):
        read_offered(tmp_path / "absent", "timm/resnet18.a1_in1k")


def run(folder, *flags):
    (folder / "spaces.yaml").write_text((ROOT / "config/spaces.yaml").read_text() + B16)
    registries = ["--models", ROOT / "config/models.yaml", "--spaces", folder / "spaces.yaml"]
    return warm.singflow(ROOT, "import_translator", *flags, *registries, cwd=folder)


def wide(folder, in_dim=1024, out_dim=768, model_name="densenet"):
    generator = torch.Generator().manual_seed(0)
    state = {
        "weight": torch.randn(out_dim, in_dim, generator=generator),
        "bias": torch.randn(out_dim, generator=generator),
    }
    return release(folder, state, in_dim=in_dim, out_dim=out_dim, model_name=model_name), state


def test_the_printed_line_names_the_file_for_a_study_and_is_the_same_each_time(tmp_path):
    folder, state = wide(tmp_path / "release")
    lines = {
        run(tmp_path, "--release", str(folder), "--model", "densenet121").stderr for _ in range(2)
    }
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
        (
            ["--model", "resnet50"],
            {},
            (
                "fitted for torchvision/densenet121.IMAGENET1K_V1, but resnet50 is .*: "
                "write --model densenet121,"
            ),
        ),
        (
            ["--model", "densenet121"],  # as wide as DeiT's
            {"model_name": "deit"},
            "'deit' was fitted for timm/deit3_large_patch16_224.fb_in1k, "
            "but densenet121 is torchvision/densenet121.IMAGENET1K_V1: "
            "write --model timm/deit3_large_patch16_224.fb_in1k, here and in the study",
        ),
        (
            ["--model", "deit3_large"],
            {"model_name": "deit"},
            "but deit3_large is timm/deit3_large_patch16_224.fb_in22k_ft_in1k",
        ),
        (
            ["--model", "densenet121"],
            {"in_dim": 1280},
            "it translates 1280 features, but densenet121 has 1024",
        ),
        (
            ["--model", "timm/resnet18.a1_in1k"],
            {"model_name": "timm/resnet18.a1_in1k"},
            "1024 features, but timm/resnet18.a1_in1k has 512",
        ),
        (
            ["--model", "transformers/facebook/dinov2-large-imagenet1k-1-layer"],
            {"model_name": "dinov2", "in_dim": 2048},
            "known in the hub alone: write its feature_dim",
        ),
        (
            ["--model", "densenet121", "--space", "eva02_l14"],
            {},
            "which eva02_l14 of .*spaces.yaml is not",
        ),
        (
            ["--model", "densenet121", "--space", "conse_minilm"],
            {},
            "which conse_minilm of .*spaces.yaml is not",
        ),
        (["--model", "densenet121"], {"out_dim": 512}, r"\(512 dimensions\), which clip_vit_l14"),
        (["--model", "densnet121"], {}, "did you mean 'densenet121'"),
    ],
)
def test_a_release_for_another_model_or_space_is_refused_without_a_file(
    tmp_path, flags, shape, message
):
    folder, _ = wide(tmp_path / "release", **shape)
    done = run(tmp_path, "--release", str(folder), *flags)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert re.search(message, done.stderr), done.stderr
    assert not list(tmp_path.rglob("*.safetensors"))


def test_deits_release_is_taken_for_its_own_model_which_has_no_entry(tmp_path):
    folder, state = wide(tmp_path / "release", model_name="deit")
    name = "timm/deit3_large_patch16_224.fb_in1k"
    text = run(tmp_path, "--release", str(folder), "--model", name).stderr
    pin = (
        f"clip_vit_l14/{name}:"
        f"{sha256_of(tmp_path / f'checkpoints/translators/clip_vit_l14/{name}.safetensors')[:16]}"
    )
    assert f"  imported: [{pin}]" in text
    with contextlib.chdir(tmp_path):
        np.testing.assert_array_equal(
            read_imported([pin], "clip_vit_l14", name).weight, state["weight"].numpy()
        )


def aligner(path, width=512, dim=512):
    generator = torch.Generator().manual_seed(0)
    state = {
        "W": torch.randn(dim, width, generator=generator),
        "b": torch.randn(dim, generator=generator),
    }
    torch.save(state, path)
    return state


@pytest.mark.parametrize("model", ["torchvision/resnet18.IMAGENET1K_V1", "timm/resnet18.tv_in1k"])
def test_an_aligner_is_imported_for_its_model_also_where_another_library_has_the_same_weights(
    tmp_path, model
):
    state = aligner(tmp_path / "pytorch_resnet18.pth")
    text = run(
        tmp_path, "--release", "pytorch_resnet18.pth", "--model", model, "--space", "clip_vit_b16"
    ).stderr
    (pin,) = re.findall(r"imported: \[(.*)\]", text)
    with contextlib.chdir(tmp_path):
        read = read_imported([pin], "clip_vit_b16", model)
    np.testing.assert_array_equal(read.weight, state["W"].numpy())
    np.testing.assert_array_equal(read.bias, state["b"].numpy())


def test_an_aligner_of_an_unknown_name_is_taken_by_its_width_and_that_is_said(tmp_path):
    aligner(tmp_path / "mine.pth")
    done = run(
        tmp_path,
        "--release",
        "mine.pth",
        "--model",
        "timm/resnet18.a1_in1k",
        "--space",
        "clip_vit_b16",
    )
    assert done.returncode == 0 and "that it was timm/resnet18.a1_in1k is your word" in done.stderr


@pytest.mark.parametrize(
    ("name", "shape", "flags", "message"),
    [
        (
            "pytorch_resnet18",
            {},
            ["timm/resnet18.a1_in1k", "clip_vit_b16"],
            "fitted for torchvision/resnet18.IMAGENET1K_V1, but timm/resn",
        ),
        (
            "mine",
            {},
            ["densenet121", "clip_vit_b16"],
            "it translates 512 features, but densenet121 has 1024",
        ),
        (
            "mine",
            {},
            ["timm/resnet18.a1_in1k", "clip_vit_l14"],
            r"open_clip's ViT-B-16-quickgelu/openai \(512 dimensions\), which clip_vit_l1",
        ),
        (
            "mine",
            {"dim": 768},
            ["timm/resnet18.a1_in1k", "clip_vit_b16"],
            r"\(768 dimensions\), which clip_vit_b16",
        ),
    ],
)
def test_an_aligner_for_another_model_or_space_is_refused(tmp_path, name, shape, flags, message):
    aligner(tmp_path / f"{name}.pth", **shape)
    done = run(tmp_path, "--release", f"{name}.pth", "--model", flags[0], "--space", flags[1])
    assert done.returncode == 1 and re.search(message, done.stderr), done.stderr
    assert not list(tmp_path.rglob("*.safetensors"))


def test_an_imported_file_with_nan_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "checkpoints/translators/s/m.safetensors"
    write_tensors(
        path,
        {"weight": np.full((2, 3), np.nan, np.float32), "bias": np.zeros(2, np.float32)},
        {"kind": "linear"},
    )
    with pytest.raises(InputError, match="weight holds NaN"):
        read_imported([f"s/m:{sha256_of(path)[:16]}"], "s", "m")


def test_an_imported_file_is_taken_for_the_model_and_space_that_it_was_imported_for_alone(
    tmp_path, monkeypatch
):
    (tmp_path / "config").symlink_to(ROOT / "config")
    (tmp_path / "reference").symlink_to(ROOT / "reference")
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "checkpoints/translators/clip_vit_l14"
    arrays = {"weight": np.ones((768, 1280), np.float32), "bias": np.zeros(768, np.float32)}
    made = {"kind": "linear", "model": "efficientnet_lite0", "space": "clip_vit_l14"}
    write_tensors(folder / "efficientnet_lite0.safetensors", arrays, made)
    (folder / "efficientnet_lite1.safetensors").write_bytes(
        (folder / "efficientnet_lite0.safetensors").read_bytes()
    )  # as wide
    pin = sha256_of(folder / "efficientnet_lite0.safetensors")[:16]
    models = ["efficientnet_lite0", "efficientnet_lite1"]
    study = {
        "study": "s",
        "models": models,
        "spaces": ["clip_vit_l14"],
        "pictures": {"renderer": "retrieval"},
    }
    for model in models:
        content = with_derived_keys(
            study | {"translator": {"imported": [f"clip_vit_l14/{model}:{pin}"]}}
        )
        if model == "efficientnet_lite0":
            assert settle(content, "params.yaml")[0].translator.imported
            continue
        with pytest.raises(
            InputError,
            match=(
                r"lite1\.safetensors: was imported for efficientnet_lite0 and clip_vit_l14, "
                r"not for efficientnet_lite1"
            ),
        ):
            settle(content, "params.yaml")
