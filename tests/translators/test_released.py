import contextlib
import os
import re
from pathlib import Path

import numpy as np
import torch
import yaml
from safetensors.torch import save_file

from singflow.artifacts.files import sha256_of
from singflow.artifacts.tensors import write_tensors
from singflow.commands.import_translator import import_translator
from singflow.config.reading import read_yaml
from singflow.config.registry import resolve_models
from singflow.config.sections import PACKAGE_DATA
from singflow.study import settle, with_derived_keys
from singflow.towers.weights import addresses, in_hub
from singflow.translators.hub import Translator
from singflow.translators.linear import read_imported
from singflow.translators.released import MODELS, read_offered, read_release
from tests.project import ROOT
from tests.refusals import refused

FACTS = {"model_name": "densenet", "translator_name": "linear", "architecture": "linear"}
FACTS |= {"in_dim": 5, "out_dim": 3, "hidden_dim": 1024, "checkpoint_file": "best.pt"}
FACTS["embedding_backend"] = "kakao_karlo_v1_alpha_image_variations"
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
    translator, facts = read_release(release(tmp_path))
    features = np.random.default_rng(0).standard_normal((4, 5)).astype(np.float32)
    expected = features @ STATE["weight"].numpy().T + STATE["bias"].numpy()
    np.testing.assert_allclose(translator(features), expected, rtol=1e-6)
    model, space = "torchvision/densenet121.IMAGENET1K_V1", "ViT-L-14-quickgelu/openai"
    assert facts == {"model_id": model, "space_id": space}
    named = {name: tensor.contiguous() for name, tensor in STATE.items()}
    safe = release(tmp_path, checkpoint_file="best.safetensors")
    save_file(named, safe / "best.safetensors")
    np.testing.assert_array_equal(read_release(safe)[0].weight, STATE["weight"].numpy())
    named = release(tmp_path, model_name="timm/resnet18.a1_in1k")
    assert read_release(named)[1]["model_id"] == "timm/resnet18.a1_in1k"


def test_the_authors_models_exist_and_are_those_of_the_registry():
    known = PACKAGE_DATA / "models.yaml"
    names = list(MODELS.values())
    entries, listed = (resolve_models(known, of).values() for of in (names, list(read_yaml(known))))
    assert [f"{entry.source}/{entry.id}" for entry in entries] == names
    # The libraries have weights of these names.
    assert all(in_hub(entry) or addresses(entry) for entry in entries)
    assert {f"{entry.source}/{entry.id}" for entry in listed} >= set(MODELS.values())


def test_what_is_no_linear_release_is_refused_and_its_code_not_run(tmp_path):
    for state, facts, message in (
        (
            STATE | {"weight": torch.zeros(3, 4)},
            {},
            r"best.pt: holds tensors .*\(3, 4\).* says .*\(3, 5\)",
        ),
        (torch.zeros(3, 5), {}, r"holds tensors"),
        (STATE | {"weight": torch.full((3, 5), float("nan"))}, {}, "NaN or infinite"),
        ({"weight": Payload(), "bias": torch.zeros(3)}, {}, "best.pt: not readable as tensors"),
        (STATE, {"architecture": "mlp3"}, "architecture 'mlp3' cannot be imported"),
        (STATE, {"model_name": "resnet18"}, "unknown model_name 'resnet18': write <source>/<id>"),
        (STATE, {"embedding_backend": "other"}, "unknown embedding_backend 'other'"),
        (STATE, {"checkpoint_file": "../best.pt"}, "may hold only letters"),
        (STATE, {"checkpoint_file": "absent.pt"}, "absent.pt: not readable as tensors"),
        (STATE, {"more": 1}, "more: unknown key"),
    ):
        with contextlib.chdir(tmp_path):
            refused(message, read_release, release(tmp_path / "release", state, **facts))
        assert not (tmp_path / "executed").exists()


def test_of_a_folder_of_releases_that_of_the_model_is_taken_by_its_id_and_no_network(tmp_path):
    for name in ("densenet", "deit", "swin_large"):
        (tmp_path / name).mkdir()
        state = STATE | {"bias": torch.full((3,), float(len(name)))}
        release(tmp_path / name / "linear", state, model_name=name)
    release(tmp_path / "deit/mlp3", model_name="deit", architecture="mlp3")
    release(tmp_path / "eva", model_name="eva02_large", architecture="residual")
    assert read_offered(tmp_path, MODELS["deit"])[0].bias[0] == 4
    (tmp_path / "other").mkdir()
    (tmp_path / "other/metadata.yaml").write_text("title: a data set\n")  # stops no import
    own = "timm/resnet18.a1_in1k"
    known = "it has those of deit, densenet, eva02_large, swin_large"
    network = "'residual' cannot be imported: only linear is an affine map"
    refused(network, read_offered, tmp_path, MODELS["eva02_large"])
    refused(rf"no translator of timm/resnet18\.a1_in1k; {known}", read_offered, tmp_path, own)
    release(tmp_path / "mine", model_name="resnet18.a1_in1k")  # an id of timm's without its source
    assert read_offered(tmp_path, own)[1]["model_id"] == own
    refused("--release .*absent: no such file or folder", read_offered, tmp_path / "absent", own)


def run(folder, path, model, space="clip_vit_l14"):
    """Import what lies at a path below a folder for a model and a space; the imported file."""
    with contextlib.chdir(folder):
        import_translator(Path(path), model, space)
    return folder / f"checkpoints/translators/{space}/{model}.safetensors"


def wide(folder, in_dim=1024, model_name="densenet"):
    state = {"weight": torch.randn(768, in_dim), "bias": torch.randn(768)}
    release(folder / "release", state, in_dim=in_dim, out_dim=768, model_name=model_name)
    return state


def assert_holds(path, state):
    found = Translator.load(path)
    for array, tensor in zip((found.weight, found.bias), state.values(), strict=True):
        np.testing.assert_array_equal(array, tensor.numpy())


def test_the_printed_line_names_the_file_for_a_study_and_is_the_same_each_time(tmp_path, caplog):
    state, model, space = wide(tmp_path), "densenet121", "clip_vit_l14"
    caplog.set_level("INFO")
    (path,) = {run(tmp_path, "release", model) for _ in range(2)}
    assert_holds(path, state)
    pin = f"{space}/{model}:{sha256_of(path)[:16]}"
    assert re.findall(r"  imported: \[(.*)\]", caplog.text) == [pin] * 2
    with contextlib.chdir(tmp_path):
        assert np.array_equal(read_imported([pin], space, model).bias, state["bias"].numpy())
        assert read_imported([pin], space, "resnet50") is None
        other = [f"{space}/{model}:{'0' * 16}"]
        refused("its SHA-256 is", read_imported, other, space, model)
        path.unlink()
        refused("no such file: make it with", read_imported, [pin], space, model)


DEIT = "timm/deit3_large_patch16_224.fb_in1k"
DENSENET = "torchvision/densenet121.IMAGENET1K_V1"
RESNET18 = "timm/resnet18.a1_in1k"
DINO = "transformers/facebook/dinov2-large-imagenet1k-1-layer"


def test_a_translator_is_taken_for_its_own_model_and_space_alone(tmp_path):
    for released, model, space, message in (
        ({}, "resnet50", "", f"{DENSENET}, not for torchvision/resnet50.IMAGENET1K_V1"),
        ({"model_name": "deit"}, "densenet121", "", f"{DEIT}, not for {DENSENET}"),  # as wide
        ({"model_name": RESNET18}, RESNET18, "", r"\(768, 1024\), but .* needs \(768, 512\)"),
        ({"model_name": "dinov2", "in_dim": 2048}, DINO, "", "hub alone: write its feature_dim"),
        ({}, "densenet121", "eva02_l14", "ViT-L-14-quickgelu/openai, not for EVA02-L-14/merged2b"),
        ({}, "densnet121", "", "did you mean 'densenet121'"),
    ):
        wide(tmp_path, **released)
        refused(message, run, tmp_path, "release", model, *filter(None, [space]))
        assert not list(tmp_path.rglob("*.safetensors"))
    state = wide(tmp_path, model_name="deit")
    assert_holds(run(tmp_path, "release", DEIT), state)  # its own model, which has no entry


def test_an_imported_file_is_taken_for_its_model_and_space_alone(tmp_path, monkeypatch):
    for name in ("config", "reference"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    models, space = ["efficientnet_lite0", "efficientnet_lite1"], "clip_vit_l14"
    own, other = (tmp_path / f"checkpoints/translators/{space}/{m}.safetensors" for m in models)
    arrays = {"weight": np.ones((768, 1280), np.float32), "bias": np.zeros(768, np.float32)}
    write_tensors(own, arrays, {"kind": "linear", "model": models[0], "space": space})
    other.write_bytes(own.read_bytes())  # as wide
    study = {"study": "s", "models": models, "spaces": [space]}
    study |= {"pictures": {"renderer": "words"}}
    pins = [{"imported": [f"{space}/{model}:{sha256_of(own)[:16]}"]} for model in models]
    first, second = (with_derived_keys(study | {"translator": pin}) for pin in pins)
    assert settle(first, "params.yaml")[0].translator.imported
    message = rf"lite1\.safetensors: was imported for {models[0]} and {space}, not for {models[1]}"
    refused(message, settle, second, "params.yaml")
