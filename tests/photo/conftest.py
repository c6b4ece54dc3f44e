import shutil
from contextlib import chdir

import pytest

from singflow.photo.analyzer import Analyzer
from tests.photo import handmade
from tests.project import Project

MODEL, SPACE = "efficientnet_lite0", "conse_minilm"
ZERO, LEAK = "efficientnet_lite2", "animals_lite0"
STUDY = "results/demo/tables/models.csv", "results/demo/params.yaml"
SCORES = f"results/demo/scores/{SPACE}/{MODEL}.parquet"


@pytest.fixture(scope="session")
def project(once):
    """A study of the packaged images, whose translators are fitted on the packaged reference.

    The fits that live analyses need are in its cache.
    """

    def make(folder):
        project = Project(folder)
        study = {"models": [MODEL], "comparison": {"models": []}, "pictures": {"closeup": MODEL}}
        study |= {"extraction": {"views": 2}, "controls": {"known": "none"}}
        project.study(**study, translator={"reference": "packaged"})
        said = project.snakemake(SCORES, *STUDY)
        with chdir(folder):
            for model in (MODEL, ZERO, LEAK):
                Analyzer.load(model)
        return said

    return once("photo", make)


@pytest.fixture(scope="module")
def home(project):
    """The working directory of all tests here."""
    with chdir(project.folder):
        yield project.folder


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """Folder of the handmade study."""
    folder = tmp_path_factory.mktemp("made")
    handmade.write_study(folder)
    return folder


@pytest.fixture
def study(made, tmp_path, monkeypatch):
    """The handmade study, in a folder that a test may change."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return handmade.Study(tmp_path / "results/tiny", handmade.MODEL, "conse_minilm", shards=2)
