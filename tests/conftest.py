import ctypes
import gc
import os
import platform
import re
import shutil
import signal

import pytest
from filelock import FileLock
from hypothesis import settings
from xdist.scheduler import LoadFileScheduling

from singflow.data.manifest import build_manifest, data_root, list_table, read_classes
from tests import warm
from tests.project import ELSEWHERE, ROOT, Project

settings.register_profile("untimed", deadline=None, derandomize="FUZZ" not in os.environ)
settings.load_profile("untimed")


def pytest_configure(config):
    if (
        signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    ):  # as in the background of a shell: what is tested would ignore it too
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if not hasattr(config, "workerinput"):
        warm.announce()


class Sharing(LoadFileScheduling):
    """Distribute test files over processes; users of Slurm or of shared runs stay together."""

    def _split_scope(self, nodeid):
        file = nodeid.partition("::")[0]
        together = re.search(r"/(cluster)/|workflow/test_(determinism|engines)", file)
        return "slurm" if together and together[1] else "engines" if together else file


def pytest_xdist_make_scheduler(config, log):
    return Sharing(config, log)


def pytest_collection_modifyitems(items):
    """Files that run engines come first: they take longest, and must not be last alone."""
    items.sort(key=lambda item: item.path.parent.name not in ("cluster", "workflow"))


def pytest_collection_finish():
    gc.freeze()  # what has been loaded stays, and need not be looked at again in every collection


@pytest.hookimpl(trylast=True)  # after the file's own fixtures
def pytest_runtest_teardown(item, nextitem):
    if (nextitem is None or nextitem.path != item.path) and platform.libc_ver()[0] == "glibc":
        # Give back the memory that the tests of a file needed; towers/extraction tells processes to
        # keep it.
        ctypes.CDLL(None).malloc_trim(0)


@pytest.fixture(scope="session")
def packaged():
    """Root and manifest of the 20 packaged images."""
    root = data_root("packaged", ".")
    candidates, rejected = list_table(
        ROOT / "config/vocab/packaged.csv",
        "label",
        read_classes(ROOT / "config/vocab/imagenet_1k.csv"),
    )
    options = {"per_class": None, "folds": 5, "max_pixels": 10**8, "max_rejected_fraction": 0.0}
    manifest, _ = build_manifest(
        root,
        candidates,
        rejected,
        **options,
        seed=0,
        threads=2,
        progress=lambda items, total: items,
    )
    return root, manifest


@pytest.fixture(scope="session")
def snakemake_project(tmp_path_factory, worker_id):
    """A finished study, by `singflow run`; computed once per test run, copied per process."""
    folder = tmp_path_factory.mktemp("snakemake")
    once = folder if worker_id == "master" else folder.parents[1] / "snakemake"
    with FileLock(once.with_suffix(".lock")):
        if not (once / "results/demo/report.html").exists():
            once.mkdir(exist_ok=True)
            Project(once).run("singflow", "run", "--cores", "2", warm_start=False)
    return Project.at(
        once if once == folder else shutil.copytree(once, folder, symlinks=True, dirs_exist_ok=True)
    )


@pytest.fixture(scope="session")
def published(snakemake_project, tmp_path_factory):
    """A checkout whose study is published to a folder beside it, and committed. Read-only."""
    folder = tmp_path_factory.mktemp("published")
    project = snakemake_project.copy(folder / "checkout")
    project.store = folder / "store"
    project.dvc("remote", "modify", "local", "url", str(project.store))
    project.commit()
    project.said = project.command("publish")
    project.commit()
    return project


@pytest.fixture(scope="session")
def elsewhere(tmp_path_factory):
    """Variables that no artifact may show: other home, clock, language, figure style, threads."""
    home = tmp_path_factory.mktemp("home")
    style = {
        "font.family": "serif",
        "font.size": 14,
        "axes.grid": True,
        "savefig.facecolor": "yellow",
        "lines.linewidth": 4,
    }
    (home / "matplotlibrc").write_text(
        "".join(f"{name}: {value}\n" for name, value in style.items())
    )
    threads = [str(1 + (os.cpu_count() or 1))] * 3
    return dict(
        zip(
            ELSEWHERE,
            (str(home), str(home), "C", "Pacific/Kiritimati", "12345", *threads),
            strict=True,
        )
    )


@pytest.fixture(scope="session")
def dvc_project(published, tmp_path_factory, elsewhere):
    """The published study, computed again elsewhere by `make reproduce`: a fresh clone, DVC."""
    folder = tmp_path_factory.mktemp("deuxième essai") / "clone"
    mask = os.umask(0o077)
    try:
        said = published.run(
            "make",
            "-o",
            ".venv/workflow",
            "reproduce",
            f"REPRODUCE=--folder '{folder}'",
            **elsewhere,
        ).stdout
    finally:
        os.umask(mask)
    project = Project.at(folder)
    project.said = said
    return project
