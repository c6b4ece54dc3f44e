"""DVC remotes as docs/sharing.md sets them up, served on this machine by the real programs."""

import getpass
import os
import random
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem
from s3fs import S3FileSystem

from tests import PATIENCE
from tests.parts.cluster.slurm import wait_for
from tests.project import ROOT, without

BUCKET = "studies/store"
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


def documented(name: str) -> list[list[str]]:
    """The words of each command by which docs/sharing.md makes and sets up a remote."""
    guide, command = (ROOT / "docs/sharing.md").read_text(), rf"remote (?:add|modify) .*\b{name} .*"
    return [line.split() for line in re.findall(rf"^dvc ({command})$", guide, re.MULTILINE)]


class Remote:
    """A remote: its name, the `dvc` commands that add it, and its objects by MD5.

    filesystem: fsspec's; path: of a bucket and a folder in it, or of a folder on this machine.
    `settings` replace the values of docs/sharing.md.
    """

    def __init__(
        self, filesystem: AbstractFileSystem, path: str, name: str, url: str, **settings: str
    ) -> None:
        self.filesystem, self.path, self.name, self.url = filesystem, path, name, url
        values, known = settings | {name: url}, documented(name)
        self.commands = [[*words[:-1], values.pop(words[-2], words[-1])] for words in known]
        assert values == {} and [name, "verify", "true"] in [words[-3:] for words in self.commands]

    def objects(self) -> set[str]:
        self.filesystem.invalidate_cache()
        found = map(OBJECT.search, self.filesystem.find(self.path))
        return {"".join(match.groups()) for match in found if match}

    def read(self, md5: str) -> bytes:
        return self.filesystem.cat_file(self.place(md5))

    def write(self, md5: str, content: bytes) -> None:
        self.filesystem.pipe_file(self.place(md5), content)

    def delete(self, md5: str) -> None:
        self.filesystem.rm_file(self.place(md5))

    def flip(self, md5: str) -> None:
        content = bytearray(self.read(md5))
        content[len(content) // 2] ^= 1
        self.write(md5, bytes(content))

    def place(self, md5: str) -> str:
        return f"{self.path}/files/md5/{md5[:2]}/{md5[2:]}"


class Folder(Remote):
    """A remote whose objects are files on this machine."""

    def __init__(self, store: Path, name: str, url: str, **settings: str) -> None:
        super().__init__(LocalFileSystem(), str(store), name, url, **settings)

    def write(self, md5: str, content: bytes) -> None:
        """As a failing disk does: neither rights nor time stamps tell of it."""
        path = Path(self.place(md5))
        before = path.stat()
        path.chmod(0o644)
        path.write_bytes(content)
        path.chmod(before.st_mode)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def program(name: str, package: str) -> str:
    return shutil.which(name) or without(f"no {name} on PATH: install {package}")


def installed(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def free_port() -> int:
    """A free port below those that systems hand out, so that no client is given it meanwhile."""
    while True:
        port = random.randrange(10_000, 16_000)  # noqa: S311
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@contextmanager
def serving(port: int, folder: Path, server_program: str, options: str) -> Iterator[None]:
    """Run a server that stays in the foreground; it and all that it started are gone afterwards."""
    log, command = folder / "server.log", [server_program, *options.split()]
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
    yield Folder(folder / "store", "drive", str(folder / "store"))


@contextmanager
def ssh(folder: Path) -> Iterator[Remote]:
    """An SSH server that knows one key, and that the home in this folder knows."""
    port, user = free_port(), getpass.getuser()
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    for name in ("host", "user"):
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N"]
        subprocess.run([*words, "", "-f", str(folder / name)], check=True)
    (folder / "sshd_config").write_text(SSHD_CONFIG.format(port=port, folder=folder))
    (folder / ".ssh").mkdir()
    host = (folder / "host.pub").read_text()
    (folder / ".ssh/known_hosts").write_text(f"[127.0.0.1]:{port} {host}")
    server, store = program("sshd", "openssh-server"), folder / "store"
    with serving(port, folder, server, f"-D -e -f {folder}/sshd_config"):
        url = f"ssh://{user}@127.0.0.1:{port}{store}"
        yield Folder(store, "lab", url, keyfile=str(folder / "user"))


@contextmanager
def s3(folder: Path) -> Iterator[Remote]:
    port = free_port()
    keys = {"access_key_id": "someone", "secret_access_key": "something"}
    address = f"http://127.0.0.1:{port}"
    with serving(port, folder, installed("moto_server"), f"-H 127.0.0.1 -p {port}"):
        filesystem = S3FileSystem(key="someone", secret="something", endpoint_url=address)  # noqa: S106
        filesystem.mkdir("studies")
        yield Remote(filesystem, BUCKET, "cloud", f"s3://{BUCKET}", endpointurl=address, **keys)


SERVERS: dict[str, Callable] = {server.__name__: server for server in (directory, ssh, s3)}
