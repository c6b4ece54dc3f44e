"""A study computed with Snakemake, published with DVC, cloned and fetched.

Nobody computes anything twice, and nothing is lost.
"""

import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from dvc.repo import Repo
from singflow.sharing.publishing import check_given

from singflow.errors import InputError
from tests.nightly.test_readme import FETCH
from tests.project import MADE, ROOT, files_of

STORE = "files/md5"
KILLED_PUSH = ROOT / "tests/faults/killed_push.py"
FIGURE, TABLE = "results/demo/figures/fig3.png", "results/demo/tables/labels.csv"


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


def object_of(project, path):
    """Where the remote keeps an artifact."""
    entry = rf"path: {re.escape(path)}\n +hash: md5\n +md5: (\w+)"
    md5 = re.search(entry, (project.folder / "dvc.lock").read_text())[1]
    return project.store / STORE / md5[:2] / md5[2:]


def stored(project):
    return files_of(project.store)


def flip(path):
    """Change one byte, and no time stamp."""
    before = path.stat()
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_what_is_published_is_fetched_and_nothing_is_computed_again(published, reader):
    tiers = "metrics .* MB, translators .* MB, features .* MB"
    pushed = r"study demo: \d+ artifacts, \d+ pushed to remote local; tiers.*: "
    assert re.search(pushed + tiers, published.said)
    assert "git add dvc.lock results/demo" in published.said
    assert "nothing is left to do" in reader.shell(FETCH[0])
    # docs/sharing.md says this.
    assert reader.dvc("status") == "check_study:\n\talways changed\n"
    assert reader.changed() == set() and "Nothing to be done" in reader.snakemake()
    assert reader.ran_by_dvc(reader.dvc("repro")) == []
    logs = (reader.folder / "results/demo/logs").rglob("*.log")
    assert {path.read_bytes() for path in logs} <= {b""}  # no step has run
    assert reader.differs(published) == set()
    assert reader.run("git", "status", "--short").stdout == ""

    reader.edit("params.yaml", "extremes: 8", "extremes: 7")
    assert reader.planned(direct=False) == {"plot_concepts", "write_report", "resolve_study"}
    # Of the page DVC hears when these have run.
    assert reader.changed() == {"plot_concepts", "resolve_study"}


def test_the_small_tiers_are_enough_to_compute_every_table_again(published, reader):
    everything = published.artifacts()
    said = reader.command("fetch", "--tier", "metrics")
    assert re.search(r"tier metrics, \d+ of \d+ artifacts", said)
    shown = {"tables", "figures", "metrics.json", "report.html"}
    assert {name.split("/")[0] for name in reader.artifacts()} == shown
    assert "Nothing to be done" in reader.snakemake("--dry-run")
    reader.shell(FETCH[1])
    shards = {name for name in everything if re.match(r"(features|embeddings)/.*/shard-", name)}
    assert shards and reader.differs(everything) == shards
    for table in (reader.folder / "results/demo/tables").iterdir():
        table.unlink()
    tables = {name for name in everything if name.startswith("tables/")}
    reader.shell(f"{FETCH[2]} {' '.join(f'results/demo/{name}' for name in tables)}")
    assert not reader.differs(everything) & tables and not shards & reader.artifacts().keys()


def lock_of_dvc(project):
    file = (project.folder / ".dvc/tmp/lock").open("w")
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


def lock_of_snakemake(project):
    (project.folder / ".snakemake/locks").mkdir(exist_ok=True)
    (project.folder / ".snakemake/locks/0.input.lock").write_text("results/demo/metrics.json\n")


REFUSALS = {
    "unfinished": (lambda p: (p.folder / "results/demo/tables/probes.csv").unlink(),
        "error: the run is not finished"),
    "dirty": (lambda p: p.edit("src/singflow/analyses/controls.py", '"""', '"""Edited. '),
        "error: changed since the last commit: src/singflow/analyses/controls.py"),
    "damaged result": (
        lambda p: flip(p.folder / "results/demo/features/tiny/shard-00001.safetensors"),
        r"error: results/demo/features/tiny/shard-00001.safetensors has changed since "
        r"results/demo/\S+ was computed from it"),
    "edited result": (lambda p: (p.folder / "results/demo/figures/fig3.pdf").open("ab").write(b"%"),
        "error: results/demo/figures/fig3.pdf is not as its step left it"),
    "changed input": (lambda p: flip(p.folder / "config/vocab/concepts.txt"),
        r"error: config/vocab/concepts.txt has changed since results/demo/prompts/\S+ was "
        r"computed from it: restore it, or run"),
    "held by DVC": (lock_of_dvc, r"error: .dvc/tmp/lock: held by process \w+: wait for it"),
    "held by Snakemake": (lock_of_snakemake, r"error: .snakemake/locks: Snakemake is at work here"),
    "remote away": (lambda p: point(p, "ssh://nobody@127.0.0.1:9/store"),
        r"error: local \(ssh://nobody@127.0.0.1:9/store\) cannot be reached"),
}  # fmt: skip


def test_publish_asks_for_the_files_that_the_study_is_made_of_and_for_no_other(
    publisher, monkeypatch, tmp_path
):
    mine = "checkpoints/mine.pth"
    (publisher.folder / mine).write_bytes(b"weights")
    assert "pushed to remote local" in publisher.command("publish")
    monkeypatch.chdir(publisher.folder)
    with Repo() as repo:
        for name, advice in (
            (mine, f"`dvc add {mine}`"),
            ("words.txt", "`git add words.txt`, `dvc add words.txt` where it is large"),
        ):
            Path(name).write_bytes(b"weights")
            said = re.escape(f"neither in git nor in DVC: {name}: {advice}")
            with pytest.raises(InputError, match=said):
                check_given(repo, [name])
    publisher.dvc("add", mine)
    with Repo() as repo:
        check_given(repo, [mine])
    publisher.run("git", "add", f"{mine}.dvc")  # which git does not ignore


@pytest.mark.parametrize("name", REFUSALS)
def test_publish_refuses_and_names_what_is_wrong(publisher, name):
    spoil, message = REFUSALS[name]
    path = publisher.folder / "dvc.lock"
    if name in ("damaged result", "edited result", "changed input"):
        path.unlink()  # it, too, knows nothing better
        publisher.commit()
    lock = path.read_bytes() if path.exists() else None
    held = spoil(publisher)
    if name == "changed input":  # which is found by its content, whatever its time stamp
        publisher.commit()
    assert re.search(message, publisher.refused("make", *MADE, "publish"))
    assert (path.read_bytes() if path.exists() else None) == lock
    del held


def test_a_damaged_object_in_the_local_cache_is_replaced_on_either_side(published, publisher):
    place = object_of(publisher, FIGURE).relative_to(publisher.store)
    flip(publisher.folder / ".dvc/cache" / place)
    (publisher.folder / FIGURE).unlink()
    healed = f"{FIGURE}: its object in the local cache was damaged, and is replaced"
    assert healed in publisher.command("fetch") and publisher.differs(published) == set()
    flip(publisher.folder / ".dvc/cache" / place)
    shutil.rmtree(publisher.store)
    publisher.command("publish")
    assert stored(publisher) == stored(published)


def test_a_remote_that_has_nothing_of_the_study_is_told_in_one_line(publisher, tmp_path):
    (publisher.folder / "checkpoints/mine.pth").write_bytes(b"weights")
    publisher.dvc("add", "checkpoints/mine.pth")
    publisher.commit()
    reader = publisher.clone(tmp_path / "reader")
    (tmp_path / "empty").mkdir()
    for store in (tmp_path / "empty", tmp_path / "absent"):
        point(reader, store)
        nothing = rf"error: remote local \({store}\) has nothing of this study: "
        said = reader.refused("singflow", "fetch")
        assert re.fullmatch(nothing + r"is it the right one\? [ -~]+\n", said)


def test_fetch_replaces_nothing_of_ones_own(reader):
    fetch = ("make", *MADE, "fetch")
    reader.command("fetch", "--tier", "metrics")
    table = reader.folder / TABLE
    table.write_text("mine\n")
    differ = f"error: results here differ from the published ones: {TABLE}"
    assert differ in reader.refused(*fetch) and table.read_text() == "mine\n"
    table.unlink()
    reader.edit("params.yaml", "extremes: 8", "extremes: 7")
    differ = r"error: not as the published study had it: .*params.yaml"
    assert re.search(differ, reader.refused(*fetch))
    reader.edit("params.yaml", "study: demo", "study: other")
    assert "no such study has been published in this commit" in reader.refused(*fetch)


def test_a_lock_in_the_middle_of_a_merge_is_refused_with_the_way_out(reader):
    lock = reader.folder / "dvc.lock"
    lock.write_text(f"<<<<<<< HEAD\n{lock.read_text()}=======\n>>>>>>> other\n")
    reader.commit()
    for command in ("fetch", "verify", "publish", "reproduce"):
        said = reader.refused("make", *MADE, command)
        assert "dvc.lock: holds conflict markers of a merge, first in line 1" in said


def litter(project):
    """Half files in a checkout and in its cache."""
    half = re.compile(r"\.tmp$|\.temp|^\.[^.]+\..+\.\w+$")
    paths = [path for path in project.folder.rglob("*") if half.search(path.name)]
    ignored = {".git", ".snakemake"}
    return [str(path) for path in paths if path.is_file() and not ignored & set(path.parts)]


# Event, path, number and more of each moment, found by listing every change of a file that publish
# makes (EVENTS of faults/sitecustomize.py).
CACHED, STORED = (rf"/{place}/files/md5/\w\w/\." for place in ("cache", "store"))
HALF_CACHED, HALF_STORED = ".dvc/cache/files/md5/??/.*", "../store/files/md5/??/.*"
HALF_RECORD, COLD = ".dvc/cache/runs/??/*/.*", {"cold": True}
CACHING = {
    "before an object lies in the cache": ("open", CACHED, 5, {}),
    "within an object of the cache": ("os.rename", CACHED, 5, {"cut": HALF_CACHED}),
}
PUBLISHING = CACHING | {
    "as a stage is committed": ("open", r"rwlock$", 9, {}),
    "within a record of a run": ("os.rename", r"/cache/runs/.*/\.", 9, {"cut": HALF_RECORD}),
    "before dvc.lock is written": ("open", "dvc.lock$", 1, COLD),
    "within dvc.lock": ("os.remove", "dvc.lock.before$", 2, {"cut": "dvc.lock"}),
    "before an object lies in the remote": ("open", STORED, 5, {}),
    "within an object of the remote": ("os.rename", STORED, 9, {"cut": HALF_STORED}),
}
FETCHING = CACHING | {
    "before a result lies in its place": ("open", "/results/demo/", 9, COLD),
    "within a result": ("os.rename", "/results/demo/", 9, {"cut": "results/demo/**/.*"}),
    "as a stage is checked out": ("open", r"rwlock$", 9, {}),
    "between the records for Snakemake": ("open", "/metadata/", 9, {"program": "--touch"}),
}


def kill(project, command, event, path, nth, more):
    fault = {"program": command, "event": event, "path": path, "nth": nth}
    project.killed("singflow", command, fault=fault | more)


@pytest.fixture(scope="module")
def publisher_killed(published, tmp_path_factory):
    """A checkout that publishes into an empty remote, killed at every moment.

    Its cache is empty at the start. It records what it held after each kill.
    """
    folder = tmp_path_factory.mktemp("killed")
    project = published.copy(folder / "publisher")
    project.store = folder / "store"
    point(project, project.store)
    shutil.rmtree(project.folder / ".dvc/cache")
    (project.folder / "dvc.lock").unlink()
    project.held, project.left = {}, set()
    for moment, fault in PUBLISHING.items():
        kill(project, "publish", *fault)
        project.held[moment] = project.artifacts()
        project.left |= set(litter(project))
    return project


def test_publish_killed_at_any_moment_loses_nothing_and_completes_when_run_again(
    publisher_killed, published
):
    before = published.artifacts()
    assert [moment for moment, held in publisher_killed.held.items() if held != before] == []
    publisher_killed.command("publish")
    assert publisher_killed.left != set()
    assert stored(published).items() <= stored(publisher_killed).items()
    assert litter(publisher_killed) == []


def test_fetch_killed_at_any_moment_loses_nothing_and_completes_when_run_again(published, reader):
    whole, left = published.artifacts(), set()
    for moment, fault in FETCHING.items():
        kill(reader, "fetch", *fault)
        left |= set(litter(reader))
        held = reader.artifacts()
        assert [n for n in held.keys() & whole.keys() if held[n] != whole[n]] == [], moment
    reader.command("fetch")
    assert reader.differs(whole) == set() and left != set() and litter(reader) == []
    assert reader.changed() == set() and "Nothing to be done" in reader.snakemake("--dry-run")


def test_a_list_that_dvc_was_killed_writing_leaves_nothing_out_and_a_record_stops_nobody(
    publisher, published
):
    shutil.rmtree(publisher.store)
    assert publisher.run("python", KILLED_PUSH, check=False).returncode == -signal.SIGKILL
    (publisher.folder / ".dvc/tmp/rwlock").write_text('{"results')
    assert "pushed to remote local" in publisher.command("publish")
    assert stored(publisher) == stored(published)


def test_two_who_publish_at_once_lose_nothing(publisher, published):
    shutil.rmtree(publisher.store)
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    streams |= {"cwd": publisher.folder, "env": publisher.environment()}
    command = [sys.executable, "-m", "singflow", "publish"]
    commands = [subprocess.Popen(command, **streams) for _ in range(2)]
    said = [command.communicate()[0] for command in commands]
    codes = sorted(command.returncode for command in commands)
    assert codes[0] == 0 and (codes[1] == 0 or any("lock" in text for text in said)), said
    assert stored(publisher) == stored(published)
