"""`singflow verify` of a study that git, DVC, another folder or another processor made."""

import json
import os
import re
import shutil

import pytest
from safetensors.numpy import load_file

from singflow.artifacts.catalog import IN_GIT
from tests.project import CHECKOUT, PROCESSOR, ROOT, blocks

GUIDE = (ROOT / "docs/reproducibility.md").read_text()
COMMANDS = [line for block in blocks(GUIDE) for line in block.splitlines()]
OLDER_PROCESSOR = dict(zip(PROCESSOR, ("default", "SSE41", "Nehalem"), strict=True))
SCORES = "scores/conse_minilm/efficientnet_lite0.parquet"


def verify(project, *options):
    done = project.run("singflow", "verify", *options, check=False)
    return done.returncode, done.stdout.splitlines()


def test_the_commands_of_the_guide_say_that_all_is_identical(published, tmp_path):
    project = published.copy(tmp_path / "published")
    project.run("git", "tag", "--force", "study/demo")
    assert len(COMMANDS) == 6 and COMMANDS[-1] == "make reproduce"
    shutil.copytree(project.folder / "results/demo", tmp_path / "other/results/demo")
    for command in COMMANDS[:-1]:
        last = project.shell(command).splitlines()[-1]
        assert re.fullmatch(r"the same: (\d+) artifacts: \1 identical", last), last


def test_a_clone_computes_the_published_study_again_and_compares_it(published, tmp_path):
    project = published.copy(tmp_path / "published")
    again = f"{COMMANDS[-1]} CLONE='{tmp_path / 'noch einmal'}'"
    said = project.shell(again)
    assert project.ran_by_dvc(said) == ["data", "towers", "translators", "analyses", "report"]
    assert re.fullmatch(r"the same: (\d+) artifacts: \1 identical", said.splitlines()[-1])
    assert "is there already" in project.run("bash", "-c", f"{again} 2>&1", check=False).stdout


def test_before_a_publication_the_numbers_are_compared_with_those_in_git(
    snakemake_project, tmp_path
):
    code, said = verify(snakemake_project)  # whose results are not in git
    unknown = "error: HEAD: knows nothing of study demo: `make publish`"
    assert code == 1 and re.match(unknown, said[-1])
    project = snakemake_project.copy(tmp_path / "project")
    code, said = verify(project)
    assert code == 0 and said[-1] == f"the same: {len(IN_GIT)} artifacts: {len(IN_GIT)} identical"
    assert said[0] == "study demo was not published: only what git has is compared"
    project.edit("results/demo/metrics.json", r'(?<="is_mean": )[1-9][\d.]*', "88.5")
    code, said = verify(project)
    assert code == 1 and re.search(r"differs: metrics.json: .*is_mean: 88.5 here, \d", said[-2])
    assert "is_mean" in project.dvc("metrics", "diff")


def test_numbers_in_git_hinder_no_step_of_a_clone(snakemake_project, tmp_path):
    clone = snakemake_project.copy(tmp_path / "project").clone(tmp_path / "clone")
    assert {*clone.artifacts()} == {*IN_GIT}
    assert "the study has not run here: `singflow run` runs it" in verify(clone)[1][-1]
    planned = clone.planned(direct=False)
    shutil.rmtree(clone.folder / "results")
    assert planned == clone.planned(direct=False) and "summarize" in planned


def test_the_numbers_of_the_demo_in_git_are_of_this_version(snakemake_project):
    """Otherwise `make demo` makes them anew, to be committed."""
    ours, theirs = (root / "results/demo" for root in (CHECKOUT, snakemake_project.folder))
    ours, theirs = (json.loads((root / "metrics.json").read_text()) for root in (ours, theirs))
    lite0 = [numbers["conse_minilm"]["efficientnet_lite0"] for numbers in (ours, theirs)]
    assert lite0[0].keys() == lite0[1].keys()


def test_a_checkout_of_another_user_is_told_with_the_fix(published, tmp_path):
    project = published.clone(tmp_path / "other")
    try:
        os.chown(project.folder, 65534, 65534)
    except PermissionError:
        assert not os.environ.get("CI"), "a folder cannot be given to another user"
        pytest.skip("root alone can give a folder to another user")
    status, said = verify(project)
    assert status == 1 and len(said) == 1
    assert "is not owned by current user" in said[0]
    assert f"`git config --global --add safe.directory {project.folder}`" in said[0]


def test_another_processors_rounding_is_within_tolerance(snakemake_project, tmp_path):
    other = snakemake_project.copy(tmp_path / "other")
    extraction = ("--forcerun", "extract_head", "extract_features", "embed_images", "embed_prompts")
    other.snakemake(f"results/demo/{SCORES}", *extraction, **OLDER_PROCESSOR)
    ours, theirs = (project.folder / "results/demo" for project in (snakemake_project, other))
    shard = "features/efficientnet_lite0/shard-00000.safetensors"
    off = abs(load_file(ours / shard)["features"] - load_file(theirs / shard)["features"]).max()
    assert off < 1e-3
    code, said = verify(other, "--against", str(ours))
    assert code == 0 and re.fullmatch(
        r"the same(, where compared)?: \d+ artifacts: \d+ identical(, \d\d+ within tolerance)?"
        r"(, \d+ not compared)?",
        said[-1],
    )
    assert off == 0 or "within" in said[-1]
