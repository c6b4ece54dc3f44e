"""DVC remotes of every kind that users are offered, served on this machine by the real programs."""

import base64
import getpass
import grp
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from adlfs import AzureBlobFileSystem
from fsspec import AbstractFileSystem
from gcsfs.core import GCSFileSystem
from s3fs import S3FileSystem

from tests import PATIENCE
from tests.cluster.slurm import wait_for
from tests.project import ROOT, without

OBJECT = re.compile(r"files/md5/([0-9a-f]{2})/([0-9a-f]{30}(?:\.dir)?)$")
SSHD_CONFIG = """
ListenAddress 127.0.0.1:{port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
PermitRootLogin yes
Subsystem sftp internal-sftp
"""
NGINX_CONF = """
daemon off;
pid {folder}/nginx.pid;
error_log stderr;
{user}
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  fastcgi_temp_path {folder}/fastcgi;
  proxy_temp_path {folder}/proxy;
  scgi_temp_path {folder}/scgi;
  uwsgi_temp_path {folder}/uwsgi;
  server {{
    listen 127.0.0.1:{port};
    root {store};
    location / {{ limit_except GET {{ deny all; }} }}
  }}
}}
"""


def documented(name: str) -> list[list[str]]:
    """The words of each command by which docs/sharing.md makes and sets up a remote."""
    lines = re.findall(
        rf"^dvc (remote (?:add|modify) .*\b{name} .*)$",
        (ROOT / "docs/sharing.md").read_text(),
        flags=re.MULTILINE,
    )
    return [line.split() for line in lines]


class Remote(ABC):
    """A remote: its name, the `dvc` commands that add it, and its objects by MD5.

    `settings` replace the values of docs/sharing.md.
    """

    def __init__(self, name: str, url: str, **settings: str) -> None:
        self.name, self.url = name, url
        values = settings | {name: url}
        self.commands = [
            [*words[:-1], values.pop(words[-2], words[-1])] for words in documented(name)
        ]
        assert values == {} and [name, "verify", "true"] in [words[-3:] for words in self.commands]
        self.writer: Remote = self
        """The remote that fills this one: another remote if this one is read-only."""

    @abstractmethod
    def objects(self) -> set[str]: ...

    @abstractmethod
    def read(self, md5: str) -> bytes: ...

    @abstractmethod
    def write(self, md5: str, content: bytes) -> None: ...

    @abstractmethod
    def delete(self, md5: str) -> None: ...

    def flip(self, md5: str) -> None:
        """Change one byte of an object."""
        content = bytearray(self.read(md5))
        content[len(content) // 2] ^= 1
        self.write(md5, bytes(content))


class Folder(Remote):
    """A remote whose objects are files on this machine, whatever serves them."""

    def __init__(self, store: Path, name: str, url: str, **settings: str) -> None:
        super().__init__(name, url, **settings)
        self.store = store

    def objects(self) -> set[str]:
        return {
            "".join(found.groups())
            for path in self.store.rglob("*")
            if (found := OBJECT.search(path.as_posix()))
        }

    def read(self, md5: str) -> bytes:
        return self._path(md5).read_bytes()

    def write(self, md5: str, content: bytes) -> None:
        """As a failing disk does: neither rights nor time stamps tell of it."""
        path, before = self._path(md5), self._path(md5).stat()
        path.chmod(0o644)
        path.write_bytes(content)
        path.chmod(before.st_mode)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    def delete(self, md5: str) -> None:
        self._path(md5).unlink()

    def tear(self, md5: str) -> None:
        """As DVC leaves an object when it is killed while it copies it."""
        content = self.read(md5)
        self._path(md5).chmod(0o644)
        self._path(md5).write_bytes(content[: len(content) // 2])

    def _path(self, md5: str) -> Path:
        return self.store / "files/md5" / md5[:2] / md5[2:]


class Bucket(Remote):
    """A remote in a bucket. filesystem: fsspec's; path: of the bucket, and a folder in it."""

    def __init__(
        self, filesystem: AbstractFileSystem, scheme: str, path: str, name: str, **settings: str
    ) -> None:
        super().__init__(name, f"{scheme}://{path}", **settings)
        self.filesystem, self.path = filesystem, path

    def objects(self) -> set[str]:
        self.filesystem.invalidate_cache()
        return {
            "".join(found.groups())
            for key in self.filesystem.find(self.path)
            if (found := OBJECT.search(key))
        }

    def read(self, md5: str) -> bytes:
        return self.filesystem.cat_file(self._path(md5))

    def write(self, md5: str, content: bytes) -> None:
        self.filesystem.pipe_file(self._path(md5), content)

    def delete(self, md5: str) -> None:
        self.filesystem.rm_file(self._path(md5))

    def _path(self, md5: str) -> str:
        return f"{self.path}/files/md5/{md5[:2]}/{md5[2:]}"


def program(name: str, package: str) -> str:
    """Absolute path of a server, which sshd insists on."""
    return shutil.which(name) or without(f"no {name} on PATH: install {package}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def serving(port: int, folder: Path, *command: str) -> Iterator[None]:
    """Run a server that stays in the foreground; it and all that it started are gone afterwards."""
    log = folder / "server.log"
    with log.open("wb") as output:
        server = psutil.Popen(command, cwd=folder, stdout=output, stderr=subprocess.STDOUT)

    def answers() -> bool:
        assert server.poll() is None, log.read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_for(answers, f"{command[0]} answers on port {port}", log.read_text)
        yield
    finally:
        started = [server, *server.children(recursive=True)]
        for process in started:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        assert psutil.wait_procs(started, timeout=PATIENCE)[1] == []


@contextmanager
def directory(folder: Path) -> Iterator[Remote]:
    """A folder on a drive."""
    yield Folder(folder / "store", "drive", str(folder / "store"))


@contextmanager
def ssh(folder: Path) -> Iterator[Remote]:
    """An SSH server that knows one key, and that the home in this folder knows."""
    port, user = free_port(), getpass.getuser()
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    for name in ("host", "user"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True
        )
    (folder / "sshd_config").write_text(SSHD_CONFIG.format(port=port, folder=folder))
    (folder / ".ssh").mkdir()
    (folder / ".ssh/known_hosts").write_text(
        f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}"
    )
    with serving(
        port,
        folder,
        program("sshd", "openssh-server"),
        "-D",
        "-e",
        "-f",
        str(folder / "sshd_config"),
    ):
        store = folder / "store"
        yield Folder(
            store, "lab", f"ssh://{user}@127.0.0.1:{port}{store}", keyfile=str(folder / "user")
        )


@contextmanager
def s3(folder: Path) -> Iterator[Remote]:
    """An S3 server with one bucket."""
    port = free_port()
    keys = {"access_key_id": "someone", "secret_access_key": "something"}
    address = f"http://127.0.0.1:{port}"
    with serving(
        port,
        folder,
        str(Path(sys.executable).with_name("moto_server")),
        "-H",
        "127.0.0.1",
        "-p",
        str(port),
    ):
        filesystem = S3FileSystem(key="someone", secret="something", endpoint_url=address)  # noqa: S106
        filesystem.mkdir("studies")
        yield Bucket(filesystem, "s3", "studies/store", "cloud", endpointurl=address, **keys)


@contextmanager
def http(folder: Path) -> Iterator[Remote]:
    """A web server that hands out the folder of another remote, and takes nothing."""
    port, store = free_port(), folder / "store"
    store.mkdir()
    user = (
        f"user {getpass.getuser()} {grp.getgrgid(os.getegid()).gr_name};"
        if os.geteuid() == 0
        else ""
    )
    (folder / "nginx.conf").write_text(
        NGINX_CONF.format(folder=folder, port=port, store=store, user=user)
    )
    with serving(
        port,
        folder,
        program("nginx", "nginx-light"),
        "-e",
        "stderr",
        "-c",
        str(folder / "nginx.conf"),
    ):
        remote = Folder(store, "public", f"http://127.0.0.1:{port}")
        with directory(folder) as remote.writer:
            yield remote


@contextmanager
def webdav(folder: Path) -> Iterator[Remote]:
    """A WebDAV server with one user."""
    port, store = free_port(), folder / "store"
    store.mkdir()
    settings = {
        "host": "127.0.0.1",
        "port": port,
        "provider_mapping": {"/studies": str(store)},
        "simple_dc": {"user_mapping": {"*": {"someone": {"password": "something"}}}},
    }
    (folder / "wsgidav.json").write_text(json.dumps(settings))
    with serving(
        port,
        folder,
        str(Path(sys.executable).with_name("wsgidav")),
        "--config",
        str(folder / "wsgidav.json"),
    ):
        yield Folder(
            store,
            "dav",
            f"webdav://127.0.0.1:{port}/studies",
            user="someone",
            password="something",  # noqa: S106
        )


@contextmanager
def gs(folder: Path) -> Iterator[Remote]:
    """An emulator of Google Cloud Storage with one bucket, which is open to all."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    options = (
        "--data-dir",
        str(folder),
        "start",
        "--quiet",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--default-bucket",
        "studies",
    )
    ((variable, value),) = re.findall(
        r"`(GCSFS_\w+)=(\w+)`", (ROOT / "docs/sharing.md").read_text()
    )
    emulator = str(Path(sys.executable).with_name("gcp-storage-emulator"))
    with serving(port, folder, emulator, *options), pytest.MonkeyPatch.context() as patch:
        patch.setenv(variable, value)
        filesystem = GCSFileSystem(token="anon", endpoint_url=address)  # noqa: S106
        remote = Bucket(
            filesystem, "gs", "studies/store", "google", endpointurl=address, credentialpath=""
        )
        remote.commands[-1][-2:] = ["allow_anonymous_login", "true"]
        yield remote


@contextmanager
def azure(folder: Path) -> Iterator[Remote]:
    """Azurite, Microsoft's emulator of Azure Blob Storage, with one account and one container."""
    port, key = free_port(), base64.b64encode(b"something").decode()
    options = (
        "--location",
        str(folder),
        "--blobPort",
        str(port),
        "--silent",
        "--disableTelemetry",
        "--skipApiVersionCheck",
    )
    connection = (
        f"AccountName=someone;AccountKey={key};BlobEndpoint=http://127.0.0.1:{port}/someone"
    )
    with serving(
        port,
        folder,
        "env",
        f"AZURITE_ACCOUNTS=someone:{key}",
        program("azurite-blob", "npm's azurite"),
        *options,
    ):
        filesystem = AzureBlobFileSystem(connection_string=connection)
        filesystem.mkdir("studies")
        yield Bucket(filesystem, "azure", "studies/store", "blobs", connection_string=connection)


KINDS: dict[str, Callable] = {
    server.__name__: server for server in (directory, ssh, s3, http, webdav, gs, azure)
}
