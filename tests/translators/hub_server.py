"""A stand-in for a model hub: what huggingface_hub asks for over HTTP, on this machine."""

import base64
import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import unquote, urlsplit

TOKEN = "hf_writer"  # noqa: S105


class Hub(http.server.ThreadingHTTPServer):
    """Repositories with commits and references, and files of Git LFS by their SHA-256.

    `large`: how names of files end that go to Git LFS. `requests`: methods and paths.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.large: tuple[str, ...] = ()
        self.repositories: dict[str, dict] = {}
        self.stored: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []

    def commit(self, name: str, branch: str, files: dict[str, bytes], title: str) -> str:
        """A commit on a branch: what the branch has, and these files. Returns its name."""
        held = self.repositories[name]
        parent = held["refs"][branch]
        whole = held["commits"][parent]["files"] | files
        named = hashlib.sha1(repr((parent, title, sorted(whole.items()))).encode())  # noqa: S324
        commit = {"files": whole, "changed": set(files), "title": title}
        held["commits"][named.hexdigest()] = commit
        held["refs"][branch] = named.hexdigest()
        return named.hexdigest()

    def create(self, name: str, private: bool = False) -> None:
        empty = {"0" * 40: {"files": {}, "changed": set(), "title": ""}}
        refs = {"main": "0" * 40}
        self.repositories[name] = {"commits": empty, "refs": refs, "private": private}


class Refusal(Exception):
    """A status, the code by which the hub's client knows the reason, and perhaps a commit."""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_) -> None:
        pass

    def answer(self) -> None:
        path = urlsplit(self.path).path
        self.server.requests.append((self.command, path))
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        method = {"HEAD": "GET"}.get(self.command, self.command)
        try:
            for allowed, pattern, respond in ROUTES:
                if allowed == method and (match := re.fullmatch(pattern, path)):
                    writes = method == "POST"  # a storage of large files knows nobody
                    if writes and self.headers["Authorization"] != f"Bearer {TOKEN}":
                        raise Refusal(403, "")
                    return respond(self, body, *map(unquote, match.groups()))
            raise Refusal(404, "")
        except Refusal as refusal:
            status, *told = refusal.args
            self.send(status, {}, **dict(zip(("X-Error-Code", "X-Repo-Commit"), told)))  # noqa: B905

    do_HEAD = do_GET = do_POST = do_PUT = answer

    def send(self, status: int, content: object, **headers: str) -> None:
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def at(self, name: str, revision: str) -> tuple[dict, str]:
        """A repository, and the name of the commit of a revision."""
        held = self.server.repositories.get(name)
        if held is None:
            raise Refusal(404, "RepoNotFound")
        commit = held["refs"].get(revision, revision)
        if commit not in held["commits"]:
            raise Refusal(404, "RevisionNotFound")
        return held, commit

    def oid(self, path: str, content: bytes) -> str:
        """How Git LFS or git names the content of a file."""
        if path.endswith(self.server.large):
            return hashlib.sha256(content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()  # noqa: S324

    def create(self, body: bytes) -> None:
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.server.repositories:
            return self.send(409, {"url": f"{self.server.url}/{name}"})
        private = asked.get("visibility") == "private" or asked.get("private", False)
        self.server.create(name, private)
        self.send(200, {"url": f"{self.server.url}/{name}"})

    def validate(self, body: bytes) -> None:
        self.send(200, {"errors": [], "warnings": []})

    def refer(self, body: bytes, name: str, kind: str, revision: str) -> None:
        """Make a branch (its name is in the path) or a tag (its name is in the body)."""
        asked = json.loads(body)
        target = asked["tag"] if kind == "tag" else revision
        held, commit = self.at(name, revision if kind == "tag" else "main")
        held["refs"][target] = commit
        self.send(200, {})

    def preupload(self, body: bytes, name: str, revision: str) -> None:
        held, commit = self.at(name, revision)
        there = held["commits"][commit]["files"]
        files = []
        for path in (file["path"] for file in json.loads(body)["files"]):
            mode = "lfs" if path.endswith(self.server.large) else "regular"
            oid = self.oid(path, there[path]) if path in there else None
            files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self.send(200, {"files": files})

    def batch(self, body: bytes, name: str) -> None:
        objects = json.loads(body)["objects"]
        for asked in objects:
            asked["actions"] = {"upload": {"href": f"{self.server.url}/lfs/{asked['oid']}"}}
        self.send(200, {"transfer": "basic", "objects": objects})

    def store(self, body: bytes, oid: str) -> None:
        assert hashlib.sha256(body).hexdigest() == oid
        self.server.stored[oid] = body
        self.send(200, {})

    def commit(self, body: bytes, name: str, branch: str) -> None:
        self.at(name, branch)
        lines = [json.loads(line) for line in body.splitlines()]
        (title,) = [line["value"]["summary"] for line in lines if line["key"] == "header"]
        files = {}
        for kind, file in ((line["key"], line["value"]) for line in lines):
            if kind == "file":
                files[file["path"]] = base64.b64decode(file["content"])
            elif kind == "lfsFile":
                files[file["path"]] = self.server.stored[file["oid"]]
        commit = self.server.commit(name, branch, files, title)
        url = f"{self.server.url}/{name}/commit/{commit}"
        self.send(200, {"success": True, "commitOid": commit, "commitUrl": url})

    def info(self, body: bytes, name: str, revision: str) -> None:
        self.send(200, {"id": name, "sha": self.at(name, revision)[1], "siblings": []})

    def tree(self, body: bytes, name: str, revision: str) -> None:
        held, commit = self.at(name, revision)
        files = held["commits"][commit]["files"].items()
        self.send(200, [
            {"type": "file", "path": path, "size": len(content), "oid": self.oid(path, content)}
            for path, content in files
        ])  # fmt: skip

    def resolve(self, body: bytes, name: str, revision: str, path: str) -> None:
        held, commit = self.at(name, revision)
        files = held["commits"][commit]["files"]
        if path not in files:
            raise Refusal(404, "EntryNotFound", commit)
        tag = f'"{self.oid(path, files[path])}"'
        self.send(200, files[path], **{"ETag": tag, "X-Repo-Commit": commit})


NAME = r"([\w.-]+/[\w.-]+)"
ROUTES = [
    ("POST", "/api/repos/create", Handler.create),
    ("POST", "/api/validate-yaml", Handler.validate),
    ("POST", rf"/api/models/{NAME}/(tag|branch)/([^/]+)", Handler.refer),
    ("POST", rf"/api/models/{NAME}/preupload/([^/]+)", Handler.preupload),
    ("POST", rf"/{NAME}\.git/info/lfs/objects/batch", Handler.batch),
    ("PUT", r"/lfs/([0-9a-f]{64})", Handler.store),
    ("POST", rf"/api/models/{NAME}/commit/([^/]+)", Handler.commit),
    ("GET", rf"/api/models/{NAME}/revision/([^/]+)", Handler.info),
    ("GET", rf"/api/models/{NAME}/tree/([^/]+)", Handler.tree),
    ("GET", rf"/{NAME}/resolve/([^/]+)/(.+)", Handler.resolve),
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
