"""Towers of three libraries from a stand-in of the hub, and then without any socket."""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import open_clip
import pytest
import timm
import torch
import yaml
from safetensors.torch import save

from singflow.commands.prefetch import prefetch
from singflow.config.reading import read_yaml
from singflow.config.registry import ModelEntry
from singflow.config.sections import PACKAGE_DATA
from singflow.errors import InputError
from singflow.towers.classifiers import load_classifier
from tests.project import ROOT, files_of
from tests.results import Results
from tests.towers.models import FIVE, OPEN_CLIP, RESNET
from tests.towers.tiny_transformers import save_dual_encoder
from tests.translators.hub_server import running

SMALL, KARLO = f"timm/{RESNET}", "kakaobrain/karlo-v1-alpha-image-variations"
LITE0 = read_yaml(PACKAGE_DATA / "models.yaml")["efficientnet_lite0"]
PICTURES = read_yaml(ROOT / "params.yaml")["pictures"]
CONSE = read_yaml(PACKAGE_DATA / "spaces.yaml")["conse_minilm"]
CLIP = {"source": "open_clip", "id": "tiny/published", "dim": 256}
SHARDED = {"source": "transformers", "id": "some/siglip", "dim": 16, "revision": "v1.0"}
# Every Python program of the test knows a small model of open_clip, whose tokenizer is in the hub,
# and lists the sockets that it opens.
SITE = """
import os, sys
opened = sys.opened = []
def refuse(event, _):
    if event in ("socket.__new__", "socket.getaddrinfo") and "NO_SOCKETS" in os.environ:
        opened.append(event)
        raise PermissionError("a socket")
sys.addaudithook(refuse)
"""
OWN = """
import open_clip
open_clip.add_model_config("tiny.json")
open_clip.pretrained._PRETRAINED["tiny"] = {"published": {"hf_hub": "some/clip/"}}
"""
PREFETCH = f"""
import sys{OWN}
from singflow.commands import main
sys.argv = ["singflow", "prefetch"]
main()
"""
NOTEBOOK = f"""
from huggingface_hub import constants
import socket, sys, timm{OWN}
import singflow
from singflow.towers.classifiers import weights_sha256
assert not constants.HF_HUB_OFFLINE
print(singflow.Classifier.load("{SMALL}").weights_sha256)
for name in ("clip", "sharded"):
    space = singflow.Space.load(name)
    print(space.embed_texts(["a dog"]).shape, weights_sha256(space.tower))
for load in (singflow.Classifier.load, singflow.Space.load):
    try:
        load("timm/resnet18.a1_in1k" if load == singflow.Classifier.load else "absent")
    except singflow.InputError as error:
        print(error)
assert sys.opened == []
try:
    socket.create_connection(("127.0.0.1", 9))
except PermissionError:
    print(sys.opened)
"""


def write(models, spaces, **study):
    params = read_yaml(ROOT / "params.yaml") | {"comparison": {"models": [], "kinds": []}}
    params |= {"models": [*models], "spaces": [*spaces]} | study
    params["pictures"] = params["pictures"] | {"closeup": params["models"][0]}
    written = {name: entry for name, entry in models.items() if entry}
    Path("config").mkdir(exist_ok=True)
    for name, content in (
        ("params", params),
        ("config/models", written),
        ("config/spaces", spaces),
    ):
        Path(f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


@pytest.fixture
def hub():
    with running() as hub:
        yield hub


@pytest.fixture
def place(tmp_path, hub, monkeypatch):
    """A working directory with empty caches, and variables for programs that may use the hub."""
    monkeypatch.chdir(tmp_path)
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    settings = {"HF_HUB_CACHE": str(tmp_path / "hub"), "TORCH_HOME": str(tmp_path / "torch")}
    settings |= {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "no_proxy": "127.0.0.1"}
    settings |= {"PYTHONPATH": f"{tmp_path}:{ROOT / 'src'}", "OMP_NUM_THREADS": "1"}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    hub.reached_by(monkeypatch, tmp_path / "hub")
    Path("sitecustomize.py").write_text(SITE)
    Path("config").mkdir()
    Path("config/vocab").symlink_to(ROOT / "config/vocab")
    return tmp_path


def python(*words, status=0):
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    return done


def published(hub, name, files, branch="main"):
    if name not in hub.repositories:
        hub.create(name)
    return hub.commit(name, branch, files)


def weights_of(model, seed=0):
    torch.manual_seed(seed)
    for parameter in model.parameters():
        parameter.data = 0.1 * torch.randn_like(parameter)
    return {"model.safetensors": save(model.state_dict())}


def test_three_libraries_build_from_the_hub_once_and_then_open_no_socket(place, hub):
    save_dual_encoder("siglip", place / "siglip", max_shard_size="8KB")
    sharded = files_of(place / "siglip")
    assert sum(name.endswith(".safetensors") for name in sharded) > 2
    words = {name: data for name, data in sharded.items() if name.startswith("tokenizer")}
    config = open_clip.get_model_config(OPEN_CLIP)
    config["text_cfg"] |= {"hf_tokenizer_name": "some/words"}
    (place / "tiny.json").write_text(json.dumps(config))
    clip = weights_of(open_clip.create_model(OPEN_CLIP))["model.safetensors"]
    commits = {
        SMALL: published(hub, SMALL, weights_of(timm.create_model(RESNET))),
        "some/clip": published(hub, "some/clip", {"open_clip_model.safetensors": clip}),
        "some/siglip": published(hub, "some/siglip", sharded, "v1.0"),
        "some/words": published(hub, "some/words", words),
    }
    write({SMALL: None, "efficientnet_lite0": LITE0}, {"clip": CLIP, "sharded": SHARDED})
    told = python("-c", PREFETCH).stdout
    found = {}
    for name, of in ((SMALL, SMALL), ("clip", "some/clip"), ("sharded", "some/siglip")):
        line = rf"^{name}: {of}@{commits[of][:12]}, weights ([0-9a-f]{{16}}), [\d.]+ s$"
        (found[name],) = re.findall(line, told, re.M)
    assert told.endswith("Study demo: 4 models and spaces are here; every later step runs without"
                         " a network.\n")  # fmt: skip

    published(hub, SMALL, weights_of(timm.create_model(RESNET), seed=1))  # which nothing must take
    asked = len(hub.requests)
    os.environ["NO_SOCKETS"] = ""
    absent = CLIP | {"id": "ViT-B-16-SigLIP/webli", "dim": 768}
    write({SMALL: None}, {"clip": CLIP, "sharded": SHARDED, "absent": absent})
    said = python("-c", NOTEBOOK).stdout.splitlines()
    assert said[0].startswith(found[SMALL])
    assert said[1].startswith(f"(1, 256) {found['clip']}"), said
    assert said[2].startswith(f"(1, 16) {found['sharded']}")
    fix = rf"is not in the hub cache {place}/hub \(HF_HUB_CACHE sets it\).*: run .*download=True$"
    assert re.match(rf"timm/resnet18\.a1_in1k: model\.safetensors {fix}", said[3])
    assert re.match(r"timm/ViT-B-16-SigLIP: open_clip_model\.safetensors .*; ViT-B-16-SigLIP: its "
                    rf"tokenizer {fix}", said[4])  # fmt: skip
    assert said[5] == "['socket.getaddrinfo']", "they are listed"

    results = Results(place / "s", model=SMALL)
    entry = {"source": "timm", "id": RESNET}
    results.path("model_entry").parent.mkdir(parents=True)
    results.path("model_entry").write_text(ModelEntry(**entry).model_dump_json())
    step = [ROOT / "scripts/extract_head.py"]
    step += results.words("extract_head", source="packaged", root=".")
    python(*step)
    (place / "hub/models--timm--test_resnet.r160_in1k/refs/main").unlink()
    refused = python(*step, status=1)
    assert re.search(rf"{RESNET}: model\.safetensors {fix}", refused.stderr, re.M)
    assert len(hub.requests) == asked


def test_what_cannot_be_had_is_listed_and_the_rest_is_fetched(place, hub, capsys):
    (incomplete, absent), whole = ("timm/test_vit.r160_in1k", "timm/resnet18.a1_in1k"), SMALL
    hub.create(incomplete)
    published(hub, whole, weights_of(timm.create_model(RESNET)))
    unpinned = {"source": "timm", "id": RESNET, "revision": "v9"}
    models = {incomplete: None, absent: None, "unpinned": unpinned, whole: None}
    write(models, {"demo_space": CONSE}, pictures=PICTURES | {"renderer": "unclip"})
    with pytest.raises(InputError) as refused:
        prefetch(Path("params.yaml"))
    first, *rest = str(refused.value).splitlines()
    assert first == "4 of 6 could not be had:"
    assert [line.partition(": ")[0] for line in rest] == [incomplete, absent, "unpinned", KARLO]
    for line, reason in zip(rest, ("EntryNotFound", "RepositoryNotFound", "Revision", "Repository"),
                            strict=True):  # fmt: skip
        assert reason in line
    assert re.match(rf"{whole}: {whole}@.*\ndemo_space: conse, weights ", capsys.readouterr().out)


def test_a_head_with_an_address_is_downloaded_once_and_its_hash_verified(place, hub):
    torch.save({"weight": torch.ones(5, 96)}, "head.pth")
    content = Path("head.pth").read_bytes()
    named = f"head-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    published(hub, "some/heads", {named: content, "head-0123abcd.pth": content})
    published(hub, SMALL, weights_of(timm.create_model(RESNET)))
    entry = ModelEntry(source="timm", id=RESNET, class_names=FIVE)

    def loaded(name, **options):
        url = f"url:{hub.url}/some/heads/resolve/main/{name}"  # a registry takes https alone
        return load_classifier(entry.model_copy(update={"head_weights": url}), **options)

    with pytest.raises(InputError, match=rf"{named} is not in PyTorch's cache {place}/torch"):
        loaded(named)
    with pytest.raises(RuntimeError, match="invalid hash value"):
        loaded("head-0123abcd.pth", download=True)
    assert (loaded(named, download=True).weight == 1).all()
    asked = len(hub.requests)
    assert (loaded(named).weight == 1).all() and len(hub.requests) == asked
    assert [path.name for path in Path("torch/hub/checkpoints").iterdir()] == [named]
