"""A study of several layers, and texts of any kind: both engines see the same study."""

import json
import re

import pandas as pd
import pytest
import yaml

from singflow.artifacts.tensors import read_tensors
from tests.project import COMMAND, Project
from tests.workflow.test_engines import dvc_graph

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


@pytest.fixture(scope="module")
def layered(snakemake_project, tmp_path_factory):
    project = snakemake_project.copy(tmp_path_factory.mktemp("layered") / "checkout")
    (project.folder / "overlay.yaml").write_text(OVERLAY)
    project.before = project.artifacts()
    project.said = project.run("singflow", "run", "--cores", "2", *FILE, "--", *VALUES).stdout
    project.results = project.folder / "results/layered"
    return project


def test_a_run_of_a_layered_study_ends_with_its_summary(layered):
    assert "Study layered" in layered.said and layered.said.rstrip().endswith(
        "results/layered/report.html"
    )


def test_every_artifact_and_the_page_say_the_layers_values(layered):
    study = yaml.safe_load((layered.results / "params.yaml").read_text())
    assert (
        study["study"],
        study["models"],
        study["summary"]["confidence"],
        study["summary"]["resamples"],
    ) == ("layered", ["tiny"], 0.9, 200)
    tensors = list(layered.results.rglob("*.safetensors"))
    assert tensors and all(read_tensors(path, [])[1]["study"] == "layered" for path in tensors)
    assert list(pd.read_csv(layered.results / "tables/models.csv")["model"]) == ["tiny"]
    assert list(json.loads((layered.results / "metrics.json").read_text())["conse_minilm"]) == [
        "tiny"
    ]
    page = (layered.results / "report.html").read_text()
    assert (
        "Study layered" in page
        and "90 % interval" in page
        and "confidence: 0.9" in page
        and "extremes: 3" in page
    )
    assert "95 % interval" not in page and "Study demo" not in page


def test_a_layered_study_leaves_the_other_one_alone_and_is_finished(layered):
    assert layered.artifacts() == layered.before
    assert "Nothing to be done" in layered.snakemake()
    assert "Nothing to be done" in layered.snakemake(*LAYERS)


def test_an_edit_of_params_yaml_re_runs_no_study_that_does_not_read_the_key(layered):
    layered.edit("params.yaml", "study: demo ", "study: other ")
    layered.edit("params.yaml", "# The study in force", "# Another comment")
    assert "Nothing to be done" in layered.snakemake(*LAYERS)
    layered.edit("params.yaml", "study: other ", "study: demo ")
    assert "Nothing to be done" in layered.snakemake()


def test_a_mistake_in_a_layer_is_named(layered):
    done = layered.run(
        "snakemake", "--dry-run", "--config", "summary={'confidence': 'much'}", check=False
    )
    assert done.returncode == 1 and "summary.confidence: 'much'" in done.stdout


def test_the_home_folder_stands_for_a_tilde_in_snakemake_and_is_written_out_for_dvc(tmp_path):
    project = Project(tmp_path / "checkout")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/mine.csv").write_text("path,label\n")
    home = {"HOME": str(tmp_path / "mine")}
    project.study(data={"source": "table", "root": "~/photos", "table": "~/mine.csv"})
    said = project.snakemake("--dry-run", "--printshellcmds", "build_manifest", **home)
    assert (
        f"--root {tmp_path}/mine/photos --table {tmp_path}/mine/mine.csv" in said
        and "~" not in said
    )
    step = ("python", "scripts/check_study.py", "--params", "params.yaml", "--output", "code.json")
    refused = project.run(*step, check=False, **home)
    fix = (
        "params.yaml: data.root, data.table: DVC knows no ~: "
        "`singflow study params.yaml` writes it out"
    )
    assert refused.returncode == 1 and fix in refused.stdout
    project.command("study", "params.yaml", **home)
    assert (
        yaml.safe_load((project.folder / "params.yaml").read_text())["data"]["root"]
        == f"{tmp_path}/mine/photos"
    )
    project.run(*step, **home)


def test_every_text_reaches_the_commands_of_both_engines_as_it_is(tmp_path):
    texts = [
        "a {space} b",
        "{label}",
        "{0}",
        "{}",
        "{{x}}",
        "${HOME} $(id) `id`",
        'it\'s "quoted"',
        "a\\tb \\{ \\$",
        "é ✓ 犬",
        "two  spaces",
        "# no",
    ]
    project = Project(tmp_path)
    project.study(
        data={"source": "table", "label_column": "{label}", "root": "a {model} folder"},
        prompts={"label_templates": [f"{text} {{}}" for text in texts]},
        steering={"prompts": texts, "labels": texts},
        plot_labels={"labels": texts},
        plot_concepts={"label": "{model}"},
        pictures={"images": texts},
    )
    said = project.snakemake("--dry-run", "--printshellcmds", "--forceall")
    ours = {line.strip() for line in re.findall(COMMAND, said)}
    theirs = dvc_graph(project)
    assert ours == set(theirs) and len(ours) > 50
