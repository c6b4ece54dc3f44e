import pytest

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
