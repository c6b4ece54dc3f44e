"""A stand-in for a model hub: what huggingface_hub asks for over HTTP, on this machine."""

import base64
import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants


class Hub(http.server.ThreadingHTTPServer):
    """Repositories with commits and branches. `requests`: paths."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.repositories: dict[str, dict] = {}
        self.requests: list[str] = []

    def create(self, name: str, private: bool = False) -> None:
        empty = {"0" * 40: {"files": {}, "title": ""}}
        refs = {"main": "0" * 40}
        self.repositories[name] = {"commits": empty, "refs": refs, "private": private}

    def commit(self, name: str, branch: str, files: dict[str, bytes], title: str = "") -> str:
        """A commit on a branch: what the branch has, and these files. Returns its name."""
        held = self.repositories[name]
        parent = held["refs"].get(branch, "0" * 40)
        whole = held["commits"][parent]["files"] | files
        made = hashlib.sha1(repr((parent, title, whole)).encode()).hexdigest()  # noqa: S324
        held["commits"][made] = {"files": whole, "title": title}
        held["refs"][branch] = made
        return made

    def reached_by(self, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
        """Let this process use the hub, and an empty cache."""
        template = f"{self.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        here = {"ENDPOINT": self.url, "HUGGINGFACE_CO_URL_TEMPLATE": template}
        for name, value in (here | {"HF_HUB_OFFLINE": False, "HF_HUB_CACHE": str(cache)}).items():
            monkeypatch.setattr(constants, name, value)


class Refusal(Exception):
    """The code by which the hub's client knows the reason, and perhaps a commit."""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_) -> None:
        pass

    def answer(self) -> None:
        path = urlsplit(self.path).path
        self.server.requests.append(path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            for pattern, respond in ROUTES:
                if match := re.fullmatch(pattern, path):
                    return respond(self, body, *map(unquote, match.groups()))
            raise Refusal("")
        except Refusal as refusal:
            self.send({}, 404, **dict(zip(("X-Error-Code", "X-Repo-Commit"), refusal.args)))  # noqa: B905

    do_HEAD = do_GET = do_POST = answer

    def send(self, content: object, status: int = 200, **headers: str) -> None:
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def at(self, name: str, revision: str) -> tuple[dict[str, bytes], str]:
        """The files of a revision of a repository, and the name of its commit."""
        held = self.server.repositories.get(name)
        if held is None:
            raise Refusal("RepoNotFound")
        commit = held["refs"].get(revision, revision)
        if commit not in held["commits"]:
            raise Refusal("RevisionNotFound")
        return held["commits"][commit]["files"], commit

    def create(self, body: bytes) -> None:
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        private = asked.get("visibility") == "private" or asked.get("private", False)
        if name not in self.server.repositories:
            self.server.create(name, private)
        self.send({"url": f"{self.server.url}/{name}"})

    def validate(self, body: bytes) -> None:
        self.send({"errors": [], "warnings": []})

    def preupload(self, body: bytes, name: str, revision: str) -> None:
        asked = json.loads(body)["files"]
        how = {"uploadMode": "regular", "shouldIgnore": False, "oid": None}
        self.send({"files": [{"path": file["path"]} | how for file in asked]})

    def commit(self, body: bytes, name: str, branch: str) -> None:
        header, *files = (json.loads(line)["value"] for line in body.splitlines())
        made = {file["path"]: base64.b64decode(file["content"]) for file in files}
        commit = self.server.commit(name, branch, made, header["summary"])
        url = f"{self.server.url}/{name}/commit/{commit}"
        self.send({"success": True, "commitOid": commit, "commitUrl": url})

    def info(self, body: bytes, name: str, revision: str) -> None:
        self.send({"id": name, "sha": self.at(name, revision)[1], "siblings": []})

    def tree(self, body: bytes, name: str, revision: str) -> None:
        files = self.at(name, revision)[0].items()
        self.send([
            {"type": "file", "path": path, "size": len(content), "oid": oid(content)}
            for path, content in files
        ])  # fmt: skip

    def resolve(self, body: bytes, name: str, revision: str, path: str) -> None:
        files, commit = self.at(name, revision)
        if path not in files:
            raise Refusal("EntryNotFound", commit)
        self.send(files[path], **{"ETag": f'"{oid(files[path])}"', "X-Repo-Commit": commit})


def oid(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


NAME = r"([\w.-]+/[\w.-]+)"
ROUTES = [
    ("/api/repos/create", Handler.create),
    ("/api/validate-yaml", Handler.validate),
    (rf"/api/models/{NAME}/preupload/([^/]+)", Handler.preupload),
    (rf"/api/models/{NAME}/commit/([^/]+)", Handler.commit),
    (rf"/api/models/{NAME}/revision/([^/]+)", Handler.info),
    (rf"/api/models/{NAME}/tree/([^/]+)", Handler.tree),
    (rf"/{NAME}/resolve/([^/]+)/(.+)", Handler.resolve),
]


@contextmanager
def running() -> Iterator[Hub]:
    """An empty hub, which answers until the block ends."""
    with Hub() as hub:
        thread = threading.Thread(target=hub.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()
