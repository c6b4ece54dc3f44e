"""Bit for bit: what a study's artifacts do not depend on."""

import re
from pathlib import Path

from tests.project import COMMAND, Project

PROBE = r"""
import locale, os, time, matplotlib, threadpoolctl, torch
print(*(locale.setlocale(locale.LC_ALL, ""), hash("SING"), time.tzname), sep="\n")
print(os.environ["HOME"], os.getcwd(), sep="\n")
print(max(each["num_threads"] for each in threadpoolctl.threadpool_info()))
styles = ("font.family", "font.size", "savefig.facecolor")
print(*(matplotlib.rcParams[name] for name in styles), sep="\n")
"""


def test_elsewhere_everything_differs_that_could_leak_into_an_artifact(
    snakemake_project, dvc_project, elsewhere
):
    probe = "scripts/probe.py"  # started as the steps are
    seen = []
    for project, variables in ((snakemake_project, {}), (dvc_project, elsewhere)):
        (project.folder / probe).write_text(PROBE)
        seen.append(project.run("python", probe, **variables).stdout.splitlines())
        (project.folder / probe).unlink()
    assert len(seen[0]) == 9
    assert [pair for pair in zip(*seen, strict=True) if pair[0] == pair[1]] == []
    pages = [
        project.folder / "results/demo/report.html" for project in (snakemake_project, dvc_project)
    ]
    modes = [page.stat().st_mode & 0o777 for page in pages]
    assert modes[0] != modes[1] == 0o600


def test_the_other_engine_elsewhere_writes_the_same_bytes_and_reproduce_says_so(
    snakemake_project, dvc_project
):
    last = dvc_project.said.splitlines()[-1]
    assert re.fullmatch(r"the same: (\d+) artifacts: \1 identical", last)
    prompts = dvc_project.folder / ".cache/prompts"
    assert not prompts.is_symlink(), "no text that others embedded was found there"
    assert snakemake_project.differs(dvc_project) == set()
    assert not [name for name in dvc_project.artifacts() if Path(name).name.startswith(".")]


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
