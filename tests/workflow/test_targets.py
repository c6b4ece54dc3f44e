"""What Snakemake lists and plans: steps, targets, analyses, and what jobs ask for."""

import re

import pytest
import yaml

from singflow.engines.code import step_files
from tests.project import ROOT, Project

PROFILE = (ROOT / "slurm/config.yaml").read_text(encoding="utf-8")
RULE = r"^(?:use )?rule (?:\w+ as )?(\w+)(?: with)?:\n"
STEPS = {*step_files(ROOT)}
DATA = {"resolve_model", "resolve_space", "build_manifest"}
TOWERS = {"extract_head", "extract_features", "embed_images", "embed_prompts", "embed_classes"}
FITTED = DATA | {"extract_head", "extract_features", "embed_images", "fit_projector"}
FITTED |= {"fit_translator"}
MEASURED = FITTED | TOWERS | {"measure_evidence"}
ANALYSES = {
    "scores": {"measure_scores", "plot_scores"},
    "steering": {"steer_concepts", "tabulate_steering"},
    "concepts": {"scan_concepts", "list_concepts", "plot_concepts"},
    "zero_shot": {"measure_zero_shot"},
    "null_validation": {"validate_null_space", "plot_null_validation"},
    "probes": {"probe_principal", "plot_probes"},
    "networks": {"train_translator", "compare_translators", "plot_translators"},
    "pictures": {"render_pictures", "plot_pictures"},
}
SHOWN = ANALYSES["scores"] | ANALYSES["pictures"]
ANALYSES["scores,pictures,paper"] = SHOWN | {"plot_labels", "plot_closeups"}
IN_SUMMARY = {"measure_scores", "measure_zero_shot"}
TARGETS = {
    "data": DATA,
    "towers": DATA | TOWERS,
    "translators": FITTED | {"train_translator"},
    "analyses": MEASURED
    | IN_SUMMARY
    | {"train_translator", "validate_null_space", "scan_concepts", "steer_concepts"}
    | {"probe_principal", "render_pictures"},
    "verdict": MEASURED | IN_SUMMARY | {"summarize"},
    "report": STEPS,
    "all": STEPS,
}
VERDICT = MEASURED | {"resolve_study", "summarize", "compare_models", "plot_hidden_texts"}
VERDICT |= {"write_report"}
BARE = """
import sys
from pathlib import Path

sys.path[:] = [path for path in sys.path if not Path(path, "singflow").is_dir()]
for name in ("ruamel", "scipy", "torch", "typer"):  # not of Snakemake
    sys.modules[name] = None
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return Project(tmp_path_factory.mktemp("targets") / "checkout")


@pytest.fixture(scope="module")
def rules():
    """The texts of the rules of steps."""
    found = {}
    for path in (ROOT / "rules").glob("*.smk"):
        parts = re.split(RULE, path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        found |= zip(parts[1::2], parts[2::2], strict=True)
    return found


def steps(project, *options):
    """Steps that Snakemake would run."""
    return {job.partition("@")[0] for job in project.planned(*options, direct=False)} - {*TARGETS}


@pytest.mark.parametrize("bare", [False, True], ids=["installed", "bare"])
def test_snakemake_lists_all_steps_and_targets_with_a_sentence_and_lints(project, tmp_path, bare):
    (tmp_path / "sitecustomize.py").write_text(BARE)
    alone = {"warm_start": False, "PYTHONPATH": str(tmp_path)} if bare else {}
    said = project.run("snakemake", "--list", **alone).stdout
    listed = dict(re.findall(r"^(\w+) \((.*)\)$", said, re.MULTILINE))
    assert listed.keys() == STEPS | TARGETS.keys()
    assert [said for said in listed.values() if not re.fullmatch(r"[A-Z](?!.*\. ).*\.", said)] == []
    assert "in a good condition" in project.run("snakemake", "--lint", **alone).stdout


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_runs_its_steps_and_those_before_them(project, target):
    assert steps(project, target) == TARGETS[target]


def test_a_study_of_no_analyses_has_the_verdict_and_every_analysis_adds_its_steps(project):
    assert steps(project, "--config", "analyses=[]") == VERDICT
    assert steps(project, "verdict", "--config", "analyses=[]") == MEASURED | {"summarize"}
    for name, own in ANALYSES.items():
        assert steps(project, "--config", f"analyses=[{name}]") == VERDICT | own, name
    assert VERDICT.union(*ANALYSES.values()) == STEPS


def test_a_job_on_a_cluster_is_local_or_of_a_group_or_of_a_shard_or_a_network(rules):
    assert rules.keys() == STEPS
    groups = yaml.safe_load(PROFILE)["groups"]
    local = {name for name, text in rules.items() if "localrule: True" in text}
    alone = {"extract_features", "embed_images", "train_translator"}
    assert groups.keys() == STEPS - local - alone
    assert groups.keys() == {name for name, text in rules.items() if " turn=1," in text}
