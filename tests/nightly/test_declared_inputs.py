"""Each step gives the same bytes in a folder that holds the code and its declared inputs alone."""

import shlex
import shutil

import pytest

from singflow.engines.code import step_files
from tests.project import ROOT, Project

# Files that Snakemake watches by the entries in them, or that can only stop a step.
TRACKED = ["config/models.yaml", "config/spaces.yaml", "params.yaml"]


@pytest.fixture(scope="module")
def jobs(snakemake_project):
    """For each step, the command, inputs and outputs of its job with the most inputs."""
    listed = snakemake_project.snakemake("--detailed-summary").splitlines()
    columns, *rows = (line.split("\t") for line in listed if line.count("\t") > 5)
    found = {}
    for row in (dict(zip(columns, row, strict=True)) for row in rows):
        inputs = list(filter(None, row["input-file(s)"].split(",")))
        own = found.setdefault(row["rule"], {})
        own.setdefault(row["shellcmd"], (inputs, []))[1].append(row["output_file"])
    return {
        step: max(
            ((command, *files) for command, files in own.items()), key=lambda job: len(job[1])
        )
        for step, own in found.items()
    }


@pytest.mark.parametrize("step", step_files(ROOT))
def test_a_step_reads_nothing_but_its_declared_inputs(step, jobs, snakemake_project, tmp_path):
    study, (command, inputs, outputs) = snakemake_project.folder, jobs[step]
    for name in ("src", "scripts", "reference"):
        (tmp_path / name).symlink_to(study / name)
    for name in [*inputs, *TRACKED]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        if not (tmp_path / name).exists():
            shutil.copy(study / name, tmp_path / name)
    Project.at(tmp_path).run(*shlex.split(command))
    for name in outputs:
        assert (tmp_path / name).read_bytes() == (study / name).read_bytes(), name
