"""What runs again after an edit of a tower, a parameter or an archive; versions of libraries."""

import json
import re

import pytest

from singflow.artifacts.tensors import read_tensors, write_tensors
from singflow.engines.flags import spell
from tests.data.archives import pack, picture
from tests.project import COMMAND, Project
from tests.workflow.test_layered import STEP

SHARD = "results/demo/features/tiny/shard-00000.safetensors"
FOLDED = {"build_manifest", "fit_translator", "measure_evidence", "probe_principal"}
NETWORKS = {"compare_translators", "plot_translators", "render_pictures"}
READ_BY = {  # a parameter of each section, with another value, and the steps that read it
    "data": ("max_rejected_fraction", 0.06, {"build_manifest"}),
    "extraction": ("batch_size", 7, {"extract_features", "embed_images"}),
    "prompts": ("batch_size", 63, {"embed_prompts", "embed_classes"}),
    "projector": ("energy", 0.98, {"fit_projector"}),
    "translator": ("folds", 3, FOLDED),
    "controls": ("known", "none", set()),
    "evidence": ("draws", 5, {"measure_evidence"}),
    "concepts": ("nearest", 6, {"list_concepts"}),
    "steering": ("target_is_deg", [6.5], {"steer_concepts", "render_pictures"}),
    "training": ("epochs", 4, {"train_translator"}),
    "comparison": ("kinds", ["mlp4"], NETWORKS),
    "probe": ("alphas", [0.7], {"probe_principal"}),
    "pictures": ("guidance", 7.5, {"render_pictures"}),
    "summary": ("resamples", 300, {"summarize"}),
    "plot_labels": ("labels", ["beaker"], {"plot_labels"}),
    "plot_concepts": ("extremes", 9, {"plot_concepts"}),
    "report": ("max_images", 9000, {"write_report"}),
}


STUDY = {"resolve_study"}
MANIFEST, TOWERS = {"build_manifest"}, {"extract_features", "embed_images"} | STUDY
SPLIT = {"embed_prompts", "fit_projector", "fit_translator"} | STUDY
LISTED = {"list_concepts", "train_translator", "probe_principal"} | STUDY
DRAWN = {"render_pictures", "compare_translators", "plot_translators"} | STUDY
CHANGES = [  # of params.yaml, and the steps that run again, without those that follow another one
    (MANIFEST, ("seed: 0", "seed: 1"), ("threads: 1", "threads: 2")),
    (MANIFEST, ("fraction: 0.05", "fraction: 0.06")),
    (TOWERS, ("decode_threads: 8", "decode_threads: 7")),
    (SPLIT, ("'an image", "'the image"), ("exact ", "exact64 "), ("- 0.001", "- 0.002")),
    (
        LISTED,
        ("nearest: 5", "nearest: 6"),
        ("epochs: 3", "epochs: 4"),
        ("alphas: .0", "alphas: [1"),
    ),
    (DRAWN, ("guidance: 8.0", "guidance: 7.0"), (", residual]", "]")),
    ({"summarize"} | STUDY, ("- probes\n", "")),
    ({"summarize"} | STUDY, ("resamples: 200", "resamples: 201")),
    (STUDY, ("known: auto", "known: none")),
]


def steps_of(jobs):
    return {job.partition("@")[0] for job in jobs}


def test_a_parameter_is_in_the_commands_of_exactly_the_steps_that_read_it(tmp_path):
    project = Project(tmp_path)
    project.study(**{section: {name: value} for section, (name, value, _) in READ_BY.items()})
    said = project.snakemake("--dry-run", "--printshellcmds")
    commands = [(re.search(STEP, line)[1], f"{line} ") for line in re.findall(COMMAND, said)]
    for name, value, steps in READ_BY.values():
        word = f" {spell({name: value})} "
        assert {step for step, command in commands if word in command} == steps, word


@pytest.mark.nightly
def test_a_changed_parameter_re_runs_the_steps_that_read_it(snakemake_project, tmp_path):
    """test_engines has the sections evidence, steering, plot_labels, plot_concepts and report."""
    project = snakemake_project.copy(tmp_path / "copy")
    before = (project.folder / "params.yaml").read_text()
    for steps, *changes in CHANGES:
        for change in changes:
            project.edit("params.yaml", *change)
        assert steps_of(project.planned()) == steps, changes
        (project.folder / "params.yaml").write_text(before)


def test_an_edit_of_a_tower_re_runs_the_steps_that_import_it(snakemake_project, tmp_path):
    project = snakemake_project.copy(tmp_path / "copy")
    project.edit("src/singflow/towers/extraction.py", "\n    return ", "\n    print()\n    return ")
    direct = {"extract_features", "embed_images", "embed_prompts"}
    assert steps_of(project.planned()) == direct
    planned = steps_of(project.planned(direct=False))
    assert "embed_classes" in planned and not {"build_manifest", "extract_head"} & planned


def test_another_photo_in_an_archive_is_listed_anew(tmp_path):
    project, archive = Project(tmp_path), tmp_path / "photos/a.tar"
    photos = {f"{label}/{n}.png": picture(n + 9 * (label == "a")) for label in "ab" for n in (1, 2)}
    pack(archive, photos)
    data = {"source": "archive", "root": "photos", "archives": ["a.tar"]}
    project.study(models=["tiny"], data=data)
    project.snakemake("data")
    assert project.planned("data") == set()
    pack(archive, photos | {"a/1.png": picture(99)})
    assert steps_of(project.planned("data")) == {"build_manifest", "resolve_model"}


def test_features_of_another_torch_are_said_and_stay(snakemake_project, tmp_path):
    project = snakemake_project.copy(tmp_path / "copy")
    tensors, facts = read_tensors(project.folder / SHARD)
    software = json.dumps(json.loads(facts["software"]) | {"torch": "1.0"})
    write_tensors(project.folder / SHARD, tensors, {**facts, "software": software})
    assert "extract_features" not in steps_of(project.planned(direct=False))
    said = project.command("run", "--", "--dry-run")
    assert said.count("made with") == 1 and f"{SHARD}: made with torch 1.0, and torch" in said
