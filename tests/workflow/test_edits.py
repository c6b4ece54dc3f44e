"""What runs again after an edit of code, a parameter, the registry or an archive."""

import json
import re

import pytest

from singflow.artifacts.tensors import read_tensors, write_tensors
from singflow.engines.flags import spell
from tests.data.archives import pack, picture
from tests.project import COMMAND, Project
from tests.workflow.test_layered import STEP

MODELS = ["efficientnet_lite0", "tiny"]
SHARD = "results/demo/features/tiny/shard-00000.safetensors"
OWN, PACKAGED = "config/models.yaml", "src/singflow/packaged/models.yaml"
STEERED = "src/singflow/analyses/steering.py"
EDITED = ["params.yaml", OWN, PACKAGED]
STUDY = {"resolve_study"}  # which every change of a parameter runs again
FOLDED = {"build_manifest", "fit_translator", "measure_evidence", "probe_principal"}
NETWORKS = {"compare_translators", "plot_translators", "render_pictures"}
READ_BY = {  # a parameter of each section, with another value, and the steps that read it
    "data": ("max_rejected_fraction", 0.06, {"build_manifest"}),
    "extraction": ("batch_size", 7, {"extract_features", "embed_images"}),
    "prompts": ("batch_size", 63, {"embed_prompts", "embed_classes"}),
    "projector": ("energy", 0.98, {"fit_projector"}),
    "translator": ("folds", 3, FOLDED),
    "controls": ("known", "auto", {"summarize", "write_report"}),
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


@pytest.fixture(scope="module")
def finished(snakemake_project, tmp_path_factory):
    return snakemake_project.copy(tmp_path_factory.mktemp("edits") / "copy")


@pytest.fixture
def project(finished):
    """A finished study, whose files that a test edits are put back."""
    saved = {name: (finished.folder / name).read_bytes() for name in EDITED}
    yield finished
    for name, content in saved.items():
        (finished.folder / name).write_bytes(content)


def of_models(*steps):
    """Jobs of steps for each model in the space."""
    return {f"{step}@conse_minilm-{model}" for step in steps for model in MODELS}


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


def test_touching_every_file_re_runs_nothing(project):
    for path in sorted(project.folder.rglob("*"), reverse=True):
        tools = {".git", ".snakemake", ".dvc"} & set(path.relative_to(project.folder).parts)
        if path.is_file() and not tools:
            path.touch()
    assert "Nothing to be done" in project.snakemake()


def test_touched_files_are_kept_over_an_update_that_changes_no_number(snakemake_project, tmp_path):
    project = snakemake_project.copy(tmp_path / "copy")
    project.edit(STEERED, "$", "\n\nNEW = 1\n")
    assert project.planned() == of_models("steer_concepts", "render_pictures")
    files = [f"results/demo/steering/conse_minilm/{model}.parquet" for model in MODELS]
    project.snakemake("--touch", *files)
    assert project.planned() == of_models("render_pictures") | {"tabulate_steering"}
    project.snakemake("--touch")
    assert "Nothing to be done" in project.snakemake()
    assert project.differs(snakemake_project) == set()


def test_changed_parameters_re_run_exactly_the_steps_that_read_them(project):
    for before, after in (("plot_labels:\n", ""), ("plot_concepts:\n", ""), ("", ".*?steered")):
        place = rf"(?<={before})  labels: \[\](?={after})"
        project.edit("params.yaml", place, "  labels: [beaker]")
    models = of_models("steer_concepts", "render_pictures")
    assert project.planned() == models | {"plot_labels", "plot_concepts"} | STUDY
    planned = steps_of(project.planned(direct=False))
    assert not planned & {"build_manifest", "extract_head", "extract_features", "embed_images"}


def test_a_changed_registry_entry_re_runs_its_model_alone_and_an_added_one_nothing(project):
    added = "\nother:\n  source: timm\n  id: test_vit.r160_in1k\n  weights: random\n"
    (project.folder / OWN).open("a").write(added)
    project.edit(OWN, "weights: random", "weights: random, reported_top1: 1.0")
    planned = project.planned(direct=False)
    extraction = {"extract_head@tiny", "extract_features@00000-tiny", "extract_features@00001-tiny"}
    others = ("build_manifest", "embed_images", "embed_prompts")
    assert extraction <= planned and project.planned() == {"resolve_model@tiny"}
    assert not [job for job in planned if "lite0" in job or job.startswith(others)]
    project.edit(PACKAGED, r"reported_top1: 75\.1", "reported_top1: 75.2")
    assert project.planned() == {f"resolve_model@{model}" for model in MODELS}


def test_an_added_model_runs_its_own_steps_and_the_summaries(project):
    project.edit("params.yaml", r"lite0, tiny\]", "lite0, tiny, efficientnet_lite1]")
    gather = {"summarize", "compare_models", "list_concepts", "tabulate_steering", "write_report"}
    figures = "scores labels concepts null_validation probes hidden_texts pictures closeups"
    gather |= {f"plot_{name}" for name in (*figures.split(), "translators")} | STUDY
    assert {job for job in project.planned(direct=False) if "lite1" not in job} == gather


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


def test_features_of_another_torch_stay(snakemake_project, tmp_path):
    project = snakemake_project.copy(tmp_path / "copy")
    tensors, facts = read_tensors(project.folder / SHARD)
    software = json.dumps(json.loads(facts["software"]) | {"torch": "1.0"})
    write_tensors(project.folder / SHARD, tensors, {**facts, "software": software})
    assert "extract_features" not in steps_of(project.planned(direct=False))
