"""A study of several layers, and texts of any kind."""

import re

import pytest
import yaml

from singflow.artifacts.tensors import read_tensors
from tests.project import COMMAND

OVERLAY = """\
study: layered
models: [tiny]
extraction: {views: 1, shards: 1, shard_ids: ['00000']}
comparison: {models: []}
pictures: {closeup: tiny}
"""
FILE = ("--configfile", "overlay.yaml")
VALUES = ("--config", "summary={'confidence': 0.9}", "plot_concepts={'extremes': 3}")
LAYERS = (*FILE, *VALUES)
STEP = r"(?:scripts/|figures\.)(\w+)"
MADE = [f"results/layered/{name}" for name in ("params.yaml", "projectors/tiny.json")]


@pytest.fixture(scope="module")
def layered(snakemake_project, tmp_path_factory):
    """A checkout with the tests' study, and some artifacts of the study of the layers."""
    project = snakemake_project.copy(tmp_path_factory.mktemp("layered") / "checkout")
    (project.folder / "overlay.yaml").write_text(OVERLAY)
    project.before = project.artifacts()
    targets = ("--printshellcmds", *MADE)  # not further files
    project.said = project.command("run", "--cores", "2", *FILE, *targets, *VALUES)
    return project


def test_a_run_of_layers_is_of_their_study_and_every_command_has_their_values(layered):
    assert re.search(r"^(\d+) of \1 steps", layered.said, flags=re.MULTILINE)
    study = yaml.safe_load((layered.folder / MADE[0]).read_text())
    summary = study["summary"]
    assert (study["study"], study["models"]) == ("layered", ["tiny"])
    assert (summary["confidence"], summary["resamples"]) == (0.9, 200)
    tensors = list((layered.folder / "results/layered").rglob("*.safetensors"))
    assert tensors and all(read_tensors(path, [])[1]["study"] == "layered" for path in tensors)
    said = layered.snakemake("--dry-run", "--printshellcmds", *LAYERS)
    commands = {re.search(STEP, line)[1]: f"{line} " for line in re.findall(COMMAND, said)}
    assert len(commands) > 25 and "results/demo" not in said and "lite0" not in str(commands)
    for step in ("summarize", "compare_models", "measure_evidence", "write_report"):
        assert "--confidence 0.9 " in commands[step], step
    assert "--extremes 3 " in commands["plot_concepts"]


def test_a_layered_study_leaves_the_other_one_alone_and_what_is_made_is_finished(layered):
    assert layered.differs(layered.before) == set()
    assert "Nothing to be done" in layered.snakemake()
    assert "Nothing to be done" in layered.snakemake(*MADE, *LAYERS)


def test_an_edit_of_params_yaml_re_runs_no_study_that_does_not_read_the_key(layered):
    layered.edit("params.yaml", "study: demo ", "study: other ")
    layered.edit("params.yaml", "# The study in force", "# Another comment")
    assert "Nothing to be done" in layered.snakemake(*MADE, *LAYERS)
    layered.edit("params.yaml", "study: other ", "study: demo ")
    assert "Nothing to be done" in layered.snakemake()
