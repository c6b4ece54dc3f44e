"""A study computed with Snakemake, published with DVC, cloned and fetched.

Nobody computes anything twice, and nothing is lost.
"""

import re
import shutil

import pytest

from singflow.artifacts.catalog import artifact_of, brought
from tests.project import MADE, ROOT, blocks

TABLE = "results/demo/tables/labels.csv"
MINE, CODE = "checkpoints/mine.pth", "src/singflow/analyses/ranking.py"
PUBLISHED = "study demo is published"
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


def test_what_is_published_is_fetched_and_nothing_is_computed_again(published, reader):
    assert PUBLISHED in published.said
    assert "study/demo" in published.run("git", "tag", "--points-at", "HEAD").stdout
    assert "no step is left to run" in reader.shell(FETCH[0])
    assert reader.changed() == set() and "Nothing to be done" in reader.snakemake()
    assert reader.differs(published) == set()
    assert reader.run("git", "status", "--short").stdout == ""
    said = reader.command("verify").splitlines()[-1]
    assert re.fullmatch(r"the same: (\d+) artifacts: \1 identical", said), said
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


def test_publish_refuses_an_unfinished_study_and_code_that_is_not_committed(publisher):
    publisher.edit(CODE, '"""', '"""Edited. ')
    said = f"error: changed since the last commit: {CODE}: commit it"
    assert said in publisher.refused("make", *MADE, "publish")
    publisher.run("git", "checkout", "-q", CODE)
    (publisher.folder / "results/demo/tables/probes.csv").unlink()
    said = "error: the run is not finished: `singflow run` does the rest"
    assert said in publisher.refused("make", *MADE, "publish")


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
