"""Bit for bit: what a study's artifacts do not depend on."""

import os
import re
from pathlib import Path

import pytest

from tests.project import COMMAND, Project

PROBE = r"""
import locale, os, time, matplotlib, threadpoolctl, torch
print(*(locale.setlocale(locale.LC_ALL, ""), hash("SING"), time.tzname), sep="\n")
print(os.environ["HOME"], os.getcwd(), sep="\n")
print(max(each["num_threads"] for each in threadpoolctl.threadpool_info()))
styles = ("font.family", "font.size", "savefig.facecolor")
print(*(matplotlib.rcParams[name] for name in styles), sep="\n")
"""


@pytest.fixture(scope="module")
def recomputed(snakemake_project, tmp_path_factory, elsewhere):
    """The study, computed again elsewhere in a fresh clone."""
    project = snakemake_project.clone(tmp_path_factory.mktemp("deuxième essai") / "clone")
    mask = os.umask(0o077)
    try:
        project.command("run", "--cores", "2", **elsewhere)
    finally:
        os.umask(mask)
    return project


def test_elsewhere_everything_differs_that_could_leak_into_an_artifact(
    snakemake_project, recomputed, elsewhere
):
    probe = "scripts/probe.py"  # started as the steps are
    seen = []
    for project, variables in ((snakemake_project, {}), (recomputed, elsewhere)):
        (project.folder / probe).write_text(PROBE)
        seen.append(project.run("python", probe, **variables).stdout.splitlines())
        (project.folder / probe).unlink()
    assert len(seen[0]) == 9
    assert [pair for pair in zip(*seen, strict=True) if pair[0] == pair[1]] == []
    pages = [
        project.folder / "results/demo/report.html" for project in (snakemake_project, recomputed)
    ]
    modes = [page.stat().st_mode & 0o777 for page in pages]
    assert modes[0] != modes[1] == 0o600


def test_a_study_elsewhere_has_the_same_bytes(snakemake_project, recomputed):
    assert snakemake_project.differs(recomputed) == set()
    assert not [name for name in recomputed.artifacts() if Path(name).name.startswith(".")]


def test_the_number_of_cores_changes_no_command(tmp_path):
    project = Project(tmp_path)
    project.edit("params.yaml", "threads: 1", "threads: 4")
    few, many = (
        project.snakemake("--dry-run", "--printshellcmds", "--cores", cores)
        for cores in ("1", "64")
    )
    assert re.search(r"threads: 4\n", many) and not re.search(r"threads: 4\n", few)
    commands = [sorted(re.findall(COMMAND, output)) for output in (few, many)]
    assert commands[0] == commands[1] and len(commands[0]) == 54
