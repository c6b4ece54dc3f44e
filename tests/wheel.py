"""The sdist, the wheel that is built from it, and environments outside the checkout that have it.

An environment has the wheel, the libraries that the core or an extra of it requires, no other
library of the tests, and no network.
"""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.project import PROCESSOR, ROOT, THREADS

BUILD = "import sys; from setuptools import build_meta; build_meta.build_{}(sys.argv[1])"
NEEDED = ("pyproject.toml", "README.md", "LICENSE", "src", "config/vocab", "reference")
NO_NETWORK = """
import socket

connect, lookup = socket.socket.connect, socket.getaddrinfo
local = ("127.0.0.1", "::1", "localhost")

def connect_here(self, address):
    if self.family != socket.AF_UNIX and address[0] not in local:
        raise OSError(f"there is no network to {address}")
    return connect(self, address)

def look_up_here(host, *words, **named):
    if host not in (*local, None, "0.0.0.0", ""):
        raise OSError(f"there is no network to {host}")
    return lookup(host, *words, **named)

socket.socket.connect, socket.getaddrinfo = connect_here, look_up_here
"""


class Built:
    """The sdist of a copy of the checkout, and the wheel of that sdist, built without a network."""

    def __init__(self, folder: Path) -> None:
        source, unpacked = folder / "source", folder / "unpacked"
        for name in NEEDED:
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, source / name, **({"symlinks": True} if copy != shutil.copy else {}))
        self.folder = folder
        self.sdist = self._build("sdist", source)
        with tarfile.open(self.sdist) as archive:
            archive.extractall(unpacked, filter="data")
        (inside,) = unpacked.iterdir()
        self.wheel = self._build("wheel", inside)

    def _build(self, kind: str, source: Path) -> Path:
        made = self.folder / kind
        made.mkdir()
        command = [sys.executable, "-c", BUILD.format(kind), str(made)]
        subprocess.run(command, cwd=source, check=True, capture_output=True)
        (path,) = made.iterdir()
        return path


class Environment:
    """A Python outside the checkout with the wheel, and the libraries of the core or of extras.

    beside: further distributions that the user has.
    """

    def __init__(
        self, folder: Path, built: Built, *extras: str, beside: tuple[str, ...] = ()
    ) -> None:
        venv.create(folder, symlinks=True)
        self.programs, self.home = folder / "bin", folder / "home"
        self.home.mkdir()
        (site,) = folder.glob("lib/python*/site-packages")
        pip = [sys.executable, "-m", "pip", "--python", str(self.programs / "python")]
        install = ["install", "--quiet", "--no-index", "--no-deps", "--no-compile"]
        subprocess.run([*pip, *install, str(built.wheel)], check=True)
        (own,) = importlib.metadata.distributions(name="singflow", path=[str(site)])
        self.libraries = required([*(own.requires or []), *beside], extras)
        links = folder / "libraries"
        links.mkdir()
        for name in self.libraries:
            for place in _top(importlib.metadata.distribution(name)):
                if not (links / place.name).exists():
                    (links / place.name).symlink_to(place)
        (site / "no_network.py").write_text(NO_NETWORK)
        (site / "tests.pth").write_text(f"{links}\nimport no_network\n")

    def variables(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in (*THREADS, *PROCESSOR) if name in os.environ}
        path = f"{self.programs}:{os.environ['PATH']}"
        return kept | {"PATH": path, "HOME": str(self.home), "MPLBACKEND": "agg"}

    def run(self, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """What a program of the environment, such as `python`, gives in a folder."""
        command = [str(self.programs / words[0]), *words[1:]]
        options = {"env": self.variables(), "capture_output": True, "text": True}
        return subprocess.run(command, cwd=cwd, **options)


def required(requirements: list[str], extras: tuple[str, ...]) -> set[str]:
    """Names of the distributions that the core, or extras of it, require in turn."""
    waiting, seen = [(requirements, extras)], set()
    while waiting:
        named, wanted = waiting.pop()
        for requirement in map(Requirement, named):
            marker, other = requirement.marker, canonicalize_name(requirement.name)
            if marker and not any(marker.evaluate({"extra": extra}) for extra in wanted or ("",)):
                continue
            then = tuple(sorted(requirement.extras))
            if (other, then) not in seen:
                seen.add((other, then))
                of = requirements if other == "singflow" else importlib.metadata.requires(other)
                waiting.append((of or [], then))
    return {name for name, _ in seen} - {"singflow"}


def _top(distribution: importlib.metadata.Distribution) -> set[Path]:
    """The files and folders of a distribution that stand directly in site-packages."""
    first = {file.parts[0] for file in distribution.files or []}
    names = {name for name in first if not re.fullmatch(r"\.\.|__pycache__|.*\.pth|bin", name)}
    return {Path(str(distribution.locate_file(name))) for name in names}
