"""Studies published to and fetched from every kind of remote.

What is damaged there is refused, and no publication loses anything.
"""

import hashlib
import re
import subprocess
import sys
import tomllib

import pytest
import requests
import yaml

from singflow.artifacts.catalog import IN_GIT
from tests import PATIENCE
from tests.parts.remotes.servers import KINDS, Folder
from tests.project import ROOT

FIGURE, TABLE = "results/demo/figures/fig3.png", "results/demo/tables/labels.csv"
DOCUMENTATION = (ROOT / "docs/sharing.md").read_text()
PUBLISH, FETCH, REPAIR = re.findall(r"^make .*", DOCUMENTATION, flags=re.MULTILINE)


def kinds(*names):
    """Parameters: `make test-parts` tries a folder and SSH."""
    nightly = pytest.mark.nightly
    return [n if n in ("directory", "ssh") else pytest.param(n, marks=nightly) for n in names]


def on(*names):
    return pytest.mark.parametrize("remote", kinds(*names), indirect=True)


@pytest.fixture(scope="module", params=kinds(*KINDS))
def remote(request, tmp_path_factory):
    """A remote of each kind; what it asks of its user's home is there too."""
    folder = tmp_path_factory.mktemp(request.param)
    with KINDS[request.param](folder) as served, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))
        patch.setenv("DVC_SITE_CACHE_DIR", str(folder / "site"))
        yield served


@pytest.fixture(scope="module")
def publisher(remote, request, tmp_path_factory):
    """A study published to this remote; on a writable one after a publication that was killed."""
    # not a fixture among the arguments: where the server is missing, no study is computed
    published = request.getfixturevalue("published")
    project = published.copy(tmp_path_factory.mktemp("checkout") / "project")
    for added in {remote, remote.writer}:
        for command in added.commands:
            project.dvc(*command)
    project.commit()
    if remote.writer is remote:
        kill_while_it_pushes(project, remote)
    project.said = make(project, PUBLISH, remote.writer).stdout
    project.commit()
    return project


def publish(project, remote, *program):
    command = [*program, "publish", "--remote", remote.name]
    given = {"cwd": project.folder, "env": project.environment(), "text": True}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **given)


def make(project, line, remote, **kwargs):
    """Run a line of the documentation, but with this remote, and the environment that is there."""
    line = line.replace("make", "make -o .venv/workflow").replace("lab", remote.name)
    return project.run("sh", "-euc", line, **kwargs)


def md5s(project):
    """MD5 of each artifact, as the published dvc.lock has them."""
    stages = yaml.safe_load((project.folder / "dvc.lock").read_text())["stages"].values()
    found = {out["path"]: out["md5"] for stage in stages for out in stage["outs"]}
    in_git = ("results/code.json", *(f"results/demo/{name}" for name in IN_GIT))
    return {path: md5 for path, md5 in found.items() if path not in in_git}


def damaged(remote):
    """Objects of a remote whose content is not what their name says."""
    return {md5 for md5 in remote.objects() if md5_of(remote.read(md5)) != md5}


def md5_of(content):
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def reader(publisher, remote, folder):
    """A clone, and in it what its user keeps out of git."""
    project = publisher.clone(folder)
    for command in remote.commands:
        if "--local" in command:
            project.dvc(*command)
    return project


def kill_while_it_pushes(checkout, remote):
    """Kill a publication, so that only a part of its objects is there.

    DVC sends files under their final names, so one of them may be left half written.
    """
    with publish(checkout, remote, sys.executable, "-m", "singflow") as publication:
        while not remote.objects():
            assert publication.poll() is None, publication.communicate()[0]
        publication.kill()
    if len(remote.objects()) > 1:  # however late the kill came, something is missing
        remote.delete(max(remote.objects()))
    checkout.left, checkout.left_damaged = remote.objects(), damaged(remote)
    if isinstance(remote, Folder):
        remote.tear(min(checkout.left))


@on(*(kind for kind in KINDS if kind != "http"))
def test_a_publication_killed_while_it_pushes_is_completed_by_the_next(publisher, remote):
    assert 0 < len(publisher.left) < len(remote.objects())
    assert publisher.left_damaged == set() or isinstance(remote, Folder)
    assert remote.objects() == set(md5s(publisher).values()) and damaged(remote) == set()
    sizes = "metrics .* MB, translators .* MB, features .* MB"
    assert re.search(rf"pushed to remote {remote.name}; tiers.*: {sizes}", publisher.said)


def test_what_is_damaged_or_missing_there_is_healed_and_a_colleague_fetches_the_same_bytes(
    publisher, remote, tmp_path
):
    figure, table = (md5s(publisher)[path] for path in (FIGURE, TABLE))
    remote.flip(figure)
    remote.delete(table)
    colleague = reader(publisher, remote, tmp_path / "colleague")
    done = make(colleague, FETCH, remote, check=False)
    assert done.returncode != 0
    for path, fault in ((FIGURE, "damaged"), (TABLE, "missing")):
        assert re.search(rf"{path}: its object \S+ is {fault} in remote {remote.name}", done.stdout)
        assert not (colleague.folder / path).exists()
    cache = (colleague.folder / ".dvc/cache/files/md5").glob("*/*")
    assert not {figure, table} & {"".join(path.parts[-2:]) for path in cache}
    said = make(publisher, REPAIR, remote.writer).stdout
    replaced = f"its object in remote {remote.writer.name} was damaged, and is replaced"
    assert f"{FIGURE}: {replaced}" in said and " 2 pushed" in said
    assert remote.objects() == set(md5s(publisher).values()) and damaged(remote) == set()
    assert "nothing is left to do" in colleague.command("fetch", "--remote", remote.name)
    assert colleague.artifacts() == publisher.artifacts()
    same = colleague.command("verify", "--against", remote.name).splitlines()[-1]
    assert re.fullmatch(r"the same: (\d+) artifacts: \1 identical", same)


@pytest.mark.nightly
@on("directory")
def test_dvc_takes_what_is_damaged_where_it_does_not_verify_and_fetch_refuses_such_a_remote(
    publisher, remote, tmp_path
):
    colleague = reader(publisher, remote, tmp_path / "colleague")
    pull = ("dvc", "pull", "--remote", remote.name, FIGURE)
    figure = md5s(publisher)[FIGURE]
    place, content = remote.place(figure), remote.read(figure)
    wrong = bytes([content[0] ^ 1]) + content[1:]
    remote.flip(figure)
    assert colleague.run(*pull, check=False).returncode != 0  # DVC has removed the object
    assert not (colleague.folder / FIGURE).exists()
    remote.filesystem.pipe_file(place, wrong)
    colleague.dvc("remote", "modify", "--local", remote.name, "verify", "false")
    colleague.run(*pull)
    remote.filesystem.pipe_file(place, content)
    assert (colleague.folder / FIGURE).read_bytes() == wrong
    done = colleague.run("singflow", "fetch", "--remote", remote.name, check=False)
    assert done.returncode != 0 and f"`dvc remote modify {remote.name} verify true`" in done.stdout


@pytest.mark.nightly
@on("ssh")
def test_two_who_publish_at_once_lose_nothing(publisher, remote, tmp_path):
    (add,) = re.findall(r"```sh\n(dvc add .*?)```", DOCUMENTATION, flags=re.DOTALL)
    checkouts = [publisher.copy(tmp_path / name) for name in ("first", "second")]
    for number, project in enumerate(checkouts):
        (project.folder / "own.bin").write_bytes(bytes([number]) * 10**6)
        project.run("sh", "-euc", add.replace("checkpoints/mine.pth", "own.bin"))
        project.commit()
    for md5 in remote.objects():
        remote.delete(md5)
    publications = [publish(project, remote, "singflow") for project in checkouts]
    said = [process.communicate(timeout=PATIENCE)[0] for process in publications]
    assert [process.returncode for process in publications] == [0, 0], said
    own = {md5_of(bytes([number]) * 10**6) for number in (0, 1)}
    assert remote.objects() == set(md5s(publisher).values()) | own and damaged(remote) == set()


@on("http")
def test_a_public_remote_takes_nothing(publisher, remote):
    done = publisher.run("singflow", "publish", "--remote", remote.name, check=False)
    assert done.returncode != 0
    assert re.search(rf"remote {remote.name} .*is for reading only", done.stdout)
    url = f"{remote.url}/files/md5/00/{'0' * 30}"
    assert requests.put(url, data=b"x", timeout=PATIENCE).status_code == 403


def shared(cache):
    """Whether the group may write to all folders of a cache, which hand their group on."""
    folders = [cache, *cache.glob("files/md5/*")]
    return all(folder.stat().st_mode & 0o2070 == 0o2070 for folder in folders)


@pytest.mark.nightly
@on("directory")
def test_a_group_shares_one_cache_as_documented(publisher, remote, tmp_path):
    commands = r"## One cache.*?```sh\n(.*?)```.*?```sh\n(.*?)```"
    setup, relink = re.search(commands, DOCUMENTATION, re.DOTALL).groups()
    here = {"/shared": str(tmp_path), "/scratch": str(tmp_path)}
    for given, ours in (here | {"chgrp lab": f"chgrp {tmp_path.group()}"}).items():
        assert given in setup
        setup = setup.replace(given, ours)
    project = publisher.copy(tmp_path / "publisher")
    project.run("sh", "-euc", setup)
    project.commit()
    project.command("publish", "--remote", remote.name)
    project.run("sh", "-euc", relink)
    colleague = project.clone(tmp_path / "colleague")
    colleague.command("fetch", "--remote", remote.name, "--tier", "metrics")
    assert (colleague.folder / FIGURE).resolve() == (project.folder / FIGURE).resolve()
    places = [(project.folder / path).resolve() for path in md5s(project)]
    assert all(place.is_relative_to(tmp_path / "dvc-cache") for place in places)
    assert project.artifacts() == publisher.artifacts()
    assert "Nothing to be done" in project.snakemake("--dry-run") and project.changed() == set()
    assert shared(tmp_path / "dvc-cache")


def test_the_documentation_installs_extras_that_there_are():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    (named,) = re.findall(r"pip install -c constraints.txt -e '\.\[(.*)\]'", DOCUMENTATION)
    assert named == "ssh,s3,gs,azure,webdav" and set(named.split(",")) <= set(extras)
