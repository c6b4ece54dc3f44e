"""Bit for bit: what a study's artifacts do not depend on."""

import re
from pathlib import Path

from tests.project import COMMAND, Project

PROBE = r"""
import locale, os, time, matplotlib, threadpoolctl, torch
print(*(locale.setlocale(locale.LC_ALL, ""), hash("SING"), time.tzname, os.environ["HOME"], os.getcwd()), sep="\n")
print(max(each["num_threads"] for each in threadpoolctl.threadpool_info()))
print(*(matplotlib.rcParams[name] for name in ("font.family", "font.size", "savefig.facecolor")), sep="\n")
"""  # noqa: E501


def test_elsewhere_everything_differs_that_could_leak_into_an_artifact(
    snakemake_project, dvc_project, elsewhere
):
    probe = "scripts/probe.py"  # started as the steps are
    for project in (snakemake_project, dvc_project):
        (project.folder / probe).write_text(PROBE)
    here = snakemake_project.run("python", probe).stdout.splitlines()
    there = dvc_project.run("python", probe, **elsewhere).stdout.splitlines()
    for project in (snakemake_project, dvc_project):
        (project.folder / probe).unlink()
    assert len(here) == len(there) == 9
    assert [
        (ours, theirs) for ours, theirs in zip(here, there, strict=True) if ours == theirs
    ] == []
    modes = [
        (project.folder / "results/demo/report.html").stat().st_mode & 0o777
        for project in (snakemake_project, dvc_project)
    ]
    assert modes[0] != modes[1] == 0o600


def test_the_other_engine_elsewhere_writes_the_same_bytes_and_reproduce_says_so(
    snakemake_project, dvc_project
):
    assert re.fullmatch(
        r"the same: (\d+) artifacts: \1 identical", dvc_project.said.splitlines()[-1]
    )
    assert not (dvc_project.folder / ".cache/prompts").is_symlink(), (
        "no text that others embedded was found there"
    )
    ours, theirs = snakemake_project.artifacts(), dvc_project.artifacts()
    assert set(ours) == set(theirs)
    assert [name for name in ours if ours[name] != theirs[name]] == []
    assert not [name for name in ours if Path(name).name.startswith(".")]


def test_the_number_of_cores_changes_no_command(tmp_path):
    project = Project(tmp_path)
    project.edit("params.yaml", "threads: 1", "threads: 4")
    few, many = (
        project.snakemake("--dry-run", "--printshellcmds", "--cores", cores)
        for cores in ("1", "64")
    )
    assert re.search(r"threads: 4\n", many) and not re.search(r"threads: 4\n", few)
    commands = [sorted(re.findall(COMMAND, output)) for output in (few, many)]
    assert commands[0] == commands[1] and len(commands[0]) == 65
