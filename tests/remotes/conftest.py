import pytest

from tests.remotes.servers import KINDS


@pytest.fixture(scope="module", params=KINDS)
def remote(request, tmp_path_factory):
    """A remote of each kind; what it asks of its user's home is there too."""
    folder = tmp_path_factory.mktemp(request.param)
    with KINDS[request.param](folder) as served, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))
        patch.setenv("DVC_SITE_CACHE_DIR", str(folder / "site"))
        yield served


@pytest.fixture(scope="module")
def checkout(remote, request, tmp_path_factory):
    """A published study whose git also knows this remote; none if the server is missing."""
    project = request.getfixturevalue("published").copy(
        tmp_path_factory.mktemp("checkout") / "project"
    )
    for folder in {remote, remote.writer}:
        for command in folder.commands:
            project.dvc(*command)
    project.commit()
    return project
