import re
from pathlib import Path

import pytest
from xdist.scheduler import LoadFileScheduling

from singflow.data import build_manifest, data_root, list_table, read_classes
from tests.project import Project

ROOT = Path(__file__).parents[1]


class Sharing(LoadFileScheduling):
    """Files of tests are shared out among processes; those that share Slurm, or a run of an engine, stay together."""

    def _split_scope(self, nodeid):
        file = nodeid.partition("::")[0]
        return "engines" if re.search(r"cluster/|workflow/test_(archives|engines)", file) else file


def pytest_xdist_make_scheduler(config, log):
    return Sharing(config, log)


@pytest.fixture(scope="session")
def packaged():
    """Root and manifest of the 20 packaged images."""
    root = data_root("packaged", ".")
    candidates, rejected = list_table(ROOT / "vocab/packaged.csv", "label", read_classes(ROOT / "vocab/imagenet_1k.csv"))
    options = {"per_class": None, "validation_fraction": 0.25, "max_pixels": 10**8, "max_rejected_fraction": 0.0}
    manifest, _ = build_manifest(root, candidates, rejected, **options, seed=0, threads=2, progress=lambda items, total: items)
    return root, manifest


@pytest.fixture(scope="session")
def snakemake_project(tmp_path_factory):
    project = Project(tmp_path_factory.mktemp("snakemake"))
    project.first_output = project.snakemake()
    return project


@pytest.fixture(scope="session")
def dvc_project(tmp_path_factory):
    project = Project(tmp_path_factory.mktemp("dvc"))
    project.first_output = project.dvc("repro")
    return project
