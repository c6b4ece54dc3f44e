import shutil

import pytest

from tests.photo import handmade
from tests.project import Project

MODEL, SPACE = "efficientnet_lite0", "conse_minilm"
SCORES = f"results/demo/scores/{SPACE}/{MODEL}.parquet"


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    """A study of the packaged images, whose translators are fitted on the packaged reference."""
    project = Project(tmp_path_factory.mktemp("project"))
    differences = {
        "models": [MODEL],
        "comparison": {"models": []},
        "extraction": {"views": 2},
        "translator": {"reference": "packaged"},
    }
    project.study(**differences | {"controls": {"known": "none"}, "pictures": {"closeup": MODEL}})
    project.snakemake(SCORES, "results/demo/tables/models.csv", "results/demo/params.yaml")
    return project


@pytest.fixture(scope="module")
def home(project):
    """The working directory of all tests here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project.folder)
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
