"""Studies published to and fetched from every kind of remote.

What is damaged there is refused, and no publication loses anything.
"""

import hashlib
import re

import pytest

from tests.parts.remotes.servers import SERVERS
from tests.project import ROOT, blocks

PAGE = "results/demo/report.html"
DOCUMENTATION = (ROOT / "docs/sharing.md").read_text()
PUBLISH, FETCH = re.findall(r"^make .*", DOCUMENTATION, flags=re.MULTILINE)


def kinds(*names):
    """Parameters: `make test-parts` tries a folder and SSH."""
    nightly = pytest.mark.nightly
    return [n if n in ("directory", "ssh") else pytest.param(n, marks=nightly) for n in names]


def on(*names):
    return pytest.mark.parametrize("remote", kinds(*names), indirect=True)


@pytest.fixture(scope="module", params=kinds(*SERVERS))
def remote(request, tmp_path_factory):
    """A remote of each kind; what it asks of its user's home is there too."""
    folder = tmp_path_factory.mktemp(request.param)
    with SERVERS[request.param](folder) as served, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))
        patch.setenv("DVC_SITE_CACHE_DIR", str(folder / "site"))
        yield served


@pytest.fixture(scope="module")
def publisher(remote, request, tmp_path_factory):
    """A study published to this remote."""
    # not a fixture among the arguments: where the server is missing, no study is computed
    published = request.getfixturevalue("published")
    project = published.copy(tmp_path_factory.mktemp("checkout") / "project")
    for command in remote.commands:
        project.dvc(*command)
    project.commit()
    make(project, PUBLISH, remote)
    return project


def make(project, line, remote, **kwargs):
    """Run a line of the documentation, but with this remote, and the environment that is there."""
    line = line.replace("make", "make -o .venv/workflow").replace("lab", remote.name)
    return project.run("sh", "-euc", line, **kwargs)


def cached(project):
    """The objects of the study in DVC's local cache, without the one that git keeps."""
    folder = project.folder / ".dvc/cache/files/md5"
    names = {"".join(path.parts[-2:]) for path in folder.glob("*/*")}
    return names - {md5(project, "results/demo/metrics.json")}


def md5(project, path):
    found = rf"path: {re.escape(path)}\n +hash: md5\n +md5: (\S+)"
    return re.search(found, project.lock())[1]


def damaged(remote):
    """Objects of a remote whose content is not what their name says."""
    wrong = (name for name in remote.objects() if name[:32] != md5_of(remote.read(name)))
    return {*wrong}


def md5_of(content):
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def reader(publisher, remote, folder):
    """A clone, and in it what its user keeps out of git."""
    project = publisher.clone(folder)
    for command in remote.commands:
        if "--local" in command:
            project.dvc(*command)
    return project


def test_what_is_damaged_or_missing_there_is_healed_and_a_colleague_fetches_the_same_bytes(
    publisher, remote, tmp_path
):
    page, params = (
        md5(publisher, f"results/demo/{name}") for name in ("report.html", "params.yaml")
    )
    remote.flip(page)
    if remote.name == "lab":  # as a killed publication leaves it
        remote.write(params, remote.read(params)[:100])
    else:
        remote.delete(params)
    colleague = reader(publisher, remote, tmp_path / "colleague")
    said = make(colleague, FETCH, remote, check=False)
    assert said.returncode != 0 and "as said above" in said.stdout
    assert not (colleague.folder / PAGE).exists() and not {page, params} & cached(colleague)
    if page in remote.objects():
        remote.delete(page)
    make(publisher, PUBLISH, remote)
    assert remote.objects() == cached(publisher) and damaged(remote) == set()
    assert "no step is left" in colleague.command("fetch", "--remote", remote.name)
    assert colleague.artifacts() == publisher.artifacts()


@pytest.mark.nightly
@on("directory")
def test_a_group_shares_one_cache_as_documented(publisher, remote, tmp_path):
    links, setup = blocks(DOCUMENTATION.split("\n## Caches")[1])[:2]
    here = {"/shared": str(tmp_path), "/scratch": str(tmp_path)}
    for given, ours in (here | {"chgrp lab": f"chgrp {tmp_path.group()}"}).items():
        assert given in setup
        setup = setup.replace(given, ours)
    project = publisher.copy(tmp_path / "publisher")
    project.run("sh", "-euc", setup)
    project.commit()
    project.command("publish", "--remote", remote.name)
    project.shell(links)
    project.commit()
    colleague = project.clone(tmp_path / "colleague")
    colleague.command("fetch", "--remote", remote.name, "--tier", "report")
    assert (colleague.folder / PAGE).samefile(project.folder / PAGE)
    assert project.artifacts() == publisher.artifacts() and project.changed() == set()
    assert "made elsewhere" in project.refused("singflow", "run")
    project.command("fetch", "--remote", remote.name)
    assert "Nothing to be done" in project.snakemake("--dry-run")
    assert " steps" not in project.command("run")
