import ctypes
import gc
import os
import platform
import shutil
import signal
import socket
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import settings
from xdist.scheduler import LoadFileScheduling

from singflow.data.listing import list_table
from singflow.data.manifest import data_root
from tests import warm
from tests.data.manifests import CLASSES, build
from tests.project import ROOT, Project
from tests.wheel import Built, Environment

settings.register_profile("untimed", deadline=None, derandomize="FUZZ" not in os.environ)
settings.load_profile("untimed")
STARTED = Path.cwd()


def pytest_configure(config):
    # In the background of a shell it is ignored, and by what is tested too.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if not hasattr(config, "workerinput"):
        warm.announce()


class Sharing(LoadFileScheduling):
    """Distribute test files over processes; users of Slurm stay together."""

    def _split_scope(self, nodeid):
        file = nodeid.partition("::")[0]
        return "slurm" if "/cluster/" in file else file


def pytest_xdist_make_scheduler(config, log):
    return Sharing(config, log)


@pytest.hookimpl(tryfirst=True)  # before what is not asked for is left out
def pytest_collection_modifyitems(items):
    """Mark the tests of tests/nightly, and put first what takes longest, so that it is not last."""
    for item in items:
        if item.path.parent.name == "nightly":
            item.add_marker("nightly")
    first = ("cluster", "workflow", "nightly", "browser", "remotes", "tests")
    items.sort(key=lambda item: (*first, item.path.parent.name).index(item.path.parent.name))


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    gc.disable()  # what is loaded now stays, and need not be looked at again and again
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(trylast=True)  # after the file's own fixtures
def pytest_runtest_teardown(item, nextitem):
    if nextitem is not None and nextitem.path == item.path:
        return
    if platform.libc_ver()[0] == "glibc":
        # Give back memory that a file's tests needed; towers/extraction tells processes to keep it.
        ctypes.CDLL(None).malloc_trim(0)
    left, _ = Path.cwd(), os.chdir(STARTED)
    assert left == STARTED, f"{item.path} leaves the working directory {left}"


@pytest.fixture(scope="session")
def packaged():
    root = data_root("packaged", ".")
    found, rejected = list_table(ROOT / "config/vocab/packaged.csv", "label", CLASSES)
    manifest, _ = build(root, found, rejected, max_rejected_fraction=0.0)
    return root, manifest


@pytest.fixture
def closed_port():
    """A port that refuses connections: it is taken, so that no server gets it meanwhile."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.fixture(scope="session")
def once(tmp_path_factory, worker_id):
    """A function that makes a checkout once per test run, and gives each process a copy."""

    def once(name, make):
        own = tmp_path_factory.mktemp(name)
        made = own if worker_id == "master" else own.parents[1] / name
        said = made / "said"
        with FileLock(made.with_suffix(".lock")):
            if not said.exists():
                made.mkdir(exist_ok=True)
                said.write_text(make(made / "checkout"))
        if made != own:
            shutil.copytree(made / "checkout", own / "checkout", symlinks=True)
        project = Project.at(own / "checkout")
        project.said, project.store = said.read_text(), made / "store"
        return project

    return once


@pytest.fixture(scope="session")
def snakemake_project(once):
    """A finished study, by `singflow run`."""
    return once("snakemake", lambda folder: Project(folder).command("run", "--cores", "2"))


@pytest.fixture(scope="session")
def published(snakemake_project, once):
    """A checkout whose study is published to a folder that all copies share. Read-only."""

    def publish(folder):
        project = snakemake_project.copy(folder)
        project.dvc("remote", "modify", "local", "url", str(folder.with_name("store")))
        project.commit()
        return project.command("publish")

    return once("published", publish)


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    return Built(tmp_path_factory.mktemp("built"))


@pytest.fixture(scope="session")
def core(built, tmp_path_factory):
    """An environment with the wheel and without extras."""
    return Environment(tmp_path_factory.mktemp("core") / "venv", built)
