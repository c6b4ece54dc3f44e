"""A study computed with Snakemake, published with DVC, cloned and fetched.

Nobody computes anything twice, and nothing is lost.
"""

import os
import re
import shutil
import signal
import subprocess
import sys

import pytest

from singflow.artifacts.catalog import artifact_of, brought
from tests.project import MADE, ROOT, blocks, files_of

PAGE, TABLE = "results/demo/report.html", "results/demo/tables/labels.csv"
MINE, CODE = "checkpoints/mine.pth", "src/singflow/analyses/controls.py"
PUBLISHED = "study demo is published"
KILLED_PUSH = ROOT / "tests/faults/killed_push.py"
README = blocks((ROOT / "README.md").read_text())
(FETCH,) = (block.splitlines() for block in README if block.startswith("make fetch"))


@pytest.fixture
def publisher(published, tmp_path):
    project = published.copy(tmp_path / "publisher")
    project.store = shutil.copytree(published.store, tmp_path / "store")
    point(project, project.store)
    return project


@pytest.fixture
def reader(published, tmp_path):
    """What a colleague has cloned."""
    return published.clone(tmp_path / "reader")


def point(project, store):
    """What `dvc remote modify --local local url <store>` writes."""
    (project.folder / ".dvc/config.local").write_text(f"['remote \"local\"']\n    url = {store}\n")


def object_of(project, path, store):
    """Where a cache or remote keeps an artifact."""
    found = rf"path: {re.escape(path)}\n +hash: md5\n +md5: (\w\w)(\w+)"
    return store.joinpath("files/md5", *re.search(found, project.lock()).groups())


def flip(path):
    """Change one byte, and no time stamp."""
    before = path.stat()
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    path.chmod(before.st_mode)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_what_is_published_is_fetched_and_nothing_is_computed_again(published, reader):
    assert PUBLISHED in published.said
    assert "study/demo" in published.run("git", "tag", "--points-at", "HEAD").stdout
    assert "no step is left to run" in reader.shell(FETCH[0])
    assert reader.changed() == set() and "Nothing to be done" in reader.snakemake()
    assert reader.differs(published) == set()
    assert reader.run("git", "status", "--short").stdout == ""
    reader.edit("params.yaml", "extremes: 8", "extremes: 7")
    assert reader.planned() == {"plot_concepts", "resolve_study"}
    assert reader.changed() == {"report"}


def test_the_small_tiers_are_enough_to_compute_every_table_again(published, reader):
    whole = published.artifacts()
    reader.command("fetch", "--tier", "report")
    names = [name for name in whole if artifact_of(name) in brought("report")]
    assert names and {*names} <= reader.artifacts().keys()
    assert "Nothing to be done" in reader.snakemake("--dry-run")
    reader.shell(FETCH[1])
    rows = {name for name in whole if name.startswith(("features/", "embeddings/"))}
    assert rows and reader.differs(whole) == rows
    shutil.rmtree(reader.folder / "results/demo/tables")
    tables = {name for name in whole if name.startswith("tables/")}
    reader.shell(f"{FETCH[2]} {' '.join(f'results/demo/{name}' for name in tables)}")
    assert not reader.differs(whole) & tables and not rows & reader.artifacts().keys()


def remove_model(project):
    project.edit("params.yaml", r"lite0, tiny\]", "lite0]")
    project.commit()
    project.snakemake()


REFUSALS = {
    "unfinished": (
        lambda p: (p.folder / "results/demo/tables/probes.csv").unlink(),
        "error: the run is not finished: `singflow run` does the rest",
    ),
    "dirty": (
        lambda p: p.edit(CODE, '"""', '"""Edited. '),
        f"error: changed since the last commit: {CODE}: commit it",
    ),
    "new code": (
        lambda p: (p.folder / "src/singflow/analyses/mine.py").touch(),
        "error: changed since the last commit: src/singflow/analyses/mine.py: commit it",
    ),
    "own file": (
        lambda p: (p.folder / MINE).write_bytes(b"weights"),
        f"neither in git nor in DVC: {MINE}: `dvc add {MINE}` and commit {MINE}.dvc",
    ),
    "edited result": (
        lambda p: (p.folder / "results/demo/figures/fig3.pdf").open("ab").write(b"%"),
        "1 files were made elsewhere .*: results/demo/figures/fig3.pdf",
    ),
    "no model any more": (
        remove_model,
        "results/demo/.*tiny.*: params.yaml knows no such files any more: remove them",
    ),
    "remote does not verify": (
        lambda p: p.dvc("remote", "modify", "--local", "local", "verify", "false"),
        "`dvc remote modify local verify true`",
    ),
    "remote away": (
        lambda p: point(p, "ssh://nobody@127.0.0.1:9/store"),
        "error: the remote does not answer .*: `make doctor` asks it, too",
    ),
    "half written": (
        lambda p: (p.folder / "dvc.lock").write_text(""),
        "error: dvc.lock: must be a mapping .*: `git checkout dvc.lock` brings back",
    ),
    "in the middle of a merge": (
        lambda p: (p.folder / "dvc.lock").write_text(f"<<<<<<< HEAD\n{p.lock()}>>>>>>> other\n"),
        "dvc.lock: holds conflict markers of a merge, first in line 1",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_publish_refuses_and_names_what_is_wrong(publisher, name):
    spoil, message = REFUSALS[name]
    spoil(publisher)
    tag = publisher.run("git", "rev-parse", "study/demo").stdout
    assert re.search(message, publisher.refused("make", *MADE, "publish"))
    assert publisher.run("git", "rev-parse", "study/demo").stdout == tag


def test_own_files_travel_with_the_study(publisher, tmp_path):
    (publisher.folder / MINE).write_bytes(b"weights")
    guide = (publisher.folder / "docs/sharing.md").read_text()
    publisher.shell(blocks(guide)[-1])
    publisher.run("git", "commit", "-qm", "mine")
    publisher.run("git", "tag", "-d", "study/demo")
    assert PUBLISHED in publisher.command("publish")
    reader = publisher.clone(tmp_path / "reader")
    point(reader, publisher.store)
    reader.command("fetch", "--tier", "report")
    assert (reader.folder / MINE).read_bytes() == b"weights"
    (reader.folder / "checkpoints/other.pth").write_bytes(b"other")
    assert "not as the published study had it: checkpoints: " in reader.refused("singflow", "fetch")


def test_the_same_results_are_published_again_and_others_under_another_tag(publisher):
    commit = publisher.run("git", "rev-parse", "HEAD").stdout
    assert PUBLISHED in publisher.command("publish")
    assert publisher.run("git", "rev-parse", "HEAD").stdout == commit
    publisher.edit("params.yaml", "extremes: 8", "extremes: 7")
    publisher.commit()
    publisher.snakemake()
    lock = publisher.lock()
    said = publisher.refused("singflow", "publish")
    (fix,) = re.findall(r"tag study/demo: keeps other results.*`(git tag .*)`", said)
    assert publisher.lock() == lock
    publisher.shell(fix.replace("<name>", "before"))
    publisher.command("publish")
    assert publisher.lock() != lock == publisher.run("git", "show", "before:dvc.lock").stdout
    assert publisher.run("git", "show", "study/demo:dvc.lock").stdout == publisher.lock()


def test_a_damaged_or_missing_object_of_the_remote_is_refused_and_publishing_heals_it(
    published, publisher, reader
):
    point(reader, publisher.store)
    flip(object_of(publisher, PAGE, publisher.store))
    assert "as said above" in reader.refused("singflow", "fetch", "--tier", "report")
    assert not (reader.folder / PAGE).exists()
    object_of(publisher, PAGE, publisher.store).unlink(missing_ok=True)
    publisher.command("publish")
    reader.command("fetch")
    assert reader.differs(published) == set()
    empty = publisher.store.with_name("empty")
    point(reader, empty)
    shutil.rmtree(reader.folder / ".dvc/cache")
    (reader.folder / PAGE).unlink()
    assert "as said above" in reader.refused("singflow", "fetch", "--tier", "report")


def test_a_damaged_object_of_the_local_cache_is_no_result(published, reader):
    reader.command("fetch", "--tier", "report")
    cache = reader.folder / ".dvc/cache"
    flip(object_of(published, PAGE, cache))
    (reader.folder / PAGE).unlink()
    said = reader.refused("singflow", "fetch", "--tier", "report")
    assert f"{PAGE}: not as published" in said
    (reader.folder / PAGE).unlink()
    shutil.rmtree(cache)
    reader.command("fetch")
    assert reader.differs(published) == set()


def test_fetch_replaces_nothing_of_ones_own_and_takes_no_other_study(reader):
    fetch = ("make", *MADE, "fetch", "FETCH=--tier report")
    reader.command("fetch", "--tier", "report")
    table = reader.folder / TABLE
    table.write_text("mine\n")
    assert "as said above" in reader.refused(*fetch) and table.read_text() == "mine\n"
    table.unlink()
    for file, *change, differs in (
        ("params.yaml", "extremes: 8", "extremes: 7", "params.yaml: plot_concepts"),
        (CODE, '"""', '"""Edited. ', "src/singflow/analyses"),
    ):
        reader.edit(file, *change)
        said = reader.refused(*fetch)
        assert f"not as the published study had it: {differs}" in said
        reader.run("git", "checkout", "-q", file)
    assert "remote nope: DVC has local: " in reader.refused(*fetch[:-1], "FETCH=--remote nope")
    reader.edit("params.yaml", "study: demo", "study: other")
    said = "dvc.lock: holds demo, and params.yaml names other: `git tag --list 'study/*'`"
    assert said in reader.refused(*fetch)


# Event, path, number and more of each moment, found by listing every change of a file that publish
# makes (EVENTS of faults/sitecustomize.py).
CACHED, STORED = (rf"/{place}/files/md5/\w\w/\." for place in ("cache", "store"))
HALF_CACHED, HALF_STORED = ".dvc/cache/files/md5/??/.*", "../store/files/md5/??/.*"
CACHING = {
    "before an object lies in the cache": ("open", CACHED, 5, {}),
    "within an object of the cache": ("os.rename", CACHED, 5, {"cut": HALF_CACHED}),
}
PUBLISHING = CACHING | {
    "as a stage is committed": ("open", r"rwlock$", 9, {}),
    "before dvc.lock is written": ("open", "dvc.lock$", 1, {}),
    "between two tiers in dvc.lock": ("open", "dvc.lock$", 3, {}),
    "before an object lies in the remote": ("open", STORED, 5, {}),
    "within an object of the remote": ("os.rename", STORED, 9, {"cut": HALF_STORED}),
}
FETCHING = CACHING | {
    "before a result lies in its place": ("open", "/results/demo/", 9, {}),
    "within a result": ("os.rename", "/results/demo/", 9, {"cut": "results/demo/**/.*"}),
    "as a stage is checked out": ("open", r"rwlock$", 9, {}),
    "between the records for Snakemake": ("open", "/metadata/", 9, {"program": "--touch"}),
}


def kill(project, command, event, path, nth, more):
    fault = {"program": "dvc", "event": event, "path": path, "nth": nth}
    project.killed("singflow", command, fault=fault | more)


def test_publish_killed_at_any_moment_loses_nothing_and_completes_when_run_again(
    publisher, published
):
    whole = published.artifacts()
    shutil.rmtree(publisher.store)
    shutil.rmtree(publisher.folder / ".dvc/cache")
    publisher.run("git", "tag", "-d", "study/demo")
    publisher.run("git", "rm", "-q", "dvc.lock")
    publisher.run("git", "commit", "-qm", "t")
    for moment, fault in PUBLISHING.items():
        kill(publisher, "publish", *fault)
        assert publisher.differs(whole) == set(), moment
    publisher.command("publish")
    assert publisher.differs(whole) == set()
    assert files_of(published.store).items() <= files_of(publisher.store).items()
    assert publisher.lock() == published.lock()


def test_fetch_killed_at_any_moment_loses_nothing_and_completes_when_run_again(published, reader):
    whole = published.artifacts()
    for moment, fault in FETCHING.items():
        kill(reader, "fetch", *fault)
        held = reader.artifacts()
        assert [n for n in held.keys() & whole.keys() if held[n] != whole[n]] == [], moment
    assert "can be removed with the --unlock" in reader.refused("singflow", "fetch")
    reader.snakemake("--unlock")
    reader.command("fetch")
    assert whole.items() <= reader.artifacts().items()  # half files stay, hidden
    assert reader.changed() == set() and "Nothing to be done" in reader.snakemake("--dry-run")


def test_a_list_that_dvc_was_killed_writing_leaves_no_object_out(publisher, published):
    shutil.rmtree(publisher.store)
    assert publisher.run("python", KILLED_PUSH, check=False).returncode == -signal.SIGKILL
    publisher.command("publish")
    assert files_of(publisher.store) == files_of(published.store)


def test_two_who_publish_at_once_lose_nothing(publisher, published):
    shutil.rmtree(publisher.store)
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    streams |= {"cwd": publisher.folder, "env": publisher.environment()}
    command = [sys.executable, "-m", "singflow", "publish"]
    commands = [subprocess.Popen(command, **streams) for _ in range(2)]
    said = [command.communicate()[0] for command in commands]
    codes = sorted(command.returncode for command in commands)
    assert codes[0] == 0 and (codes[1] == 0 or any("lock" in text for text in said)), said
    assert files_of(publisher.store).keys() == files_of(published.store).keys()
