"""A published study, compared with what another machine, another reader or a fault made of it."""

import fcntl
import json
import os
import re
import shutil
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from dvc.repo import Repo
from safetensors.numpy import load_file

from singflow.artifacts.catalog import IN_GIT
from singflow.artifacts.tolerances import rounded
from tests.project import CHECKOUT, PROCESSOR, ROOT, Project, blocks

GUIDE = (ROOT / "docs/reproducibility.md").read_text()
COMMANDS = [line for block in blocks(GUIDE) for line in block.splitlines()]
OLDER_PROCESSOR = dict(zip(PROCESSOR, ("default", "SSE41", "Nehalem"), strict=True))
SCORES = "scores/conse_minilm/efficientnet_lite0.parquet"


def verify(project, *options):
    done = project.run("singflow", "verify", *options, check=False)
    return done.returncode, done.stdout.splitlines()


def files(project):
    return {
        path: path.stat().st_mtime_ns
        for path in project.folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_commands_of_the_guide_say_that_all_is_identical(published, tmp_path):
    options = ("--tier metrics", "--against local", "--against ../other/results/demo")
    others = [f'make verify VERIFY="{words}"' for words in options]
    assert ["make verify", *others, "make reproduce"] == COMMANDS
    other = published.folder.parent / "other/results/demo"
    shutil.copytree(published.folder / "results/demo", other)
    for command in COMMANDS[:-1]:
        last = published.shell(command).splitlines()[-1]
        assert re.fullmatch(r"the same: (\d+) artifacts: \1 identical", last), last
    assert "singflow reproduce" in published.shell(f"{COMMANDS[-1]} --dry-run")


def test_the_guide_counts_the_artifacts_of_the_demo(tmp_path):
    project = Project(tmp_path / "project")
    shutil.copy(ROOT / "params.yaml", project.folder)
    results = project.folder / "results/demo"
    with Repo(str(project.folder)) as repo:
        cached = {Path(out.fs_path): out.use_cache for out in repo.index.outs}
    artifacts = [out.relative_to(results) for out in cached if out.is_relative_to(results)]
    kept = {str(artifact) for artifact in artifacts if not cached[results / artifact]}
    ignored = project.run("git", "check-ignore", *map(str, cached)).stdout.splitlines()
    assert (
        kept == {*IN_GIT} == {str(name) for name in artifacts if str(results / name) not in ignored}
    )
    counts = Counter(out.parts[0] for out in artifacts)
    verdict, folder = r"(NOT the same|the same): (\d+) artifacts", r"([\w.]+)"
    line = rf"^(?:{verdict}|{folder}): (\d+) identical(?:, (\d+) different)?$"
    said = re.findall(line, GUIDE, flags=re.MULTILINE)
    assert len(said) == 8
    for verdict, total, folder, identical, different in said:
        expected = counts.total() if verdict else counts[folder]
        assert int(identical) + int(different or 0) == expected == int(total or expected), folder


def test_before_a_publication_the_numbers_are_compared_with_those_in_git(
    snakemake_project, tmp_path
):
    code, said = verify(snakemake_project)  # whose results are not in git
    unknown = r"error: dvc.lock: knows nothing of study demo: nothing of it was .*`make publish`"
    assert code == 1 and re.match(unknown, said[-1])
    project = snakemake_project.copy(tmp_path / "project")
    code, said = verify(project)
    assert code == 0 and said[-1] == f"the same: {len(IN_GIT)} artifacts: {len(IN_GIT)} identical"
    assert said[0] == "study demo was not published: only what git has of it is compared"
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
    for name in filter(lambda name: name.endswith(".csv"), IN_GIT):
        assert [*pd.read_csv(ours / name)] == [*pd.read_csv(theirs / name)], name
        table = pd.read_csv(theirs / name)
        pd.testing.assert_frame_equal(table, rounded(table), check_exact=True)
    ours, theirs = (json.loads((root / "metrics.json").read_text()) for root in (ours, theirs))
    lite0 = [numbers["conse_minilm"]["efficientnet_lite0"] for numbers in (ours, theirs)]
    assert lite0[0].keys() == lite0[1].keys()


def test_nothing_is_written_and_no_lock_is_waited_for(published):
    before = files(published)
    with (published.folder / ".dvc/tmp/lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert verify(published)[0] == verify(published, "--against", "local")[0] == 0
    assert files(published) == before


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


def test_who_fetched_the_small_tier_is_told_what_is_missing_and_how_to_look_at_the_rest(
    published, tmp_path
):
    reader = published.clone(tmp_path / "reader")
    code, said = verify(reader)
    assert code == 1 and "metrics.json: 1 identical" in said
    assert re.fullmatch(rf"NOT the same: .*: {len(IN_GIT)} identical, \d+ missing here", said[-1])
    reader.command("fetch", "--tier", "metrics")
    code, said = verify(reader)
    assert code == 1 and said[-1].startswith("NOT the same")
    assert re.match(r"missing here: .* and \d+ more: `singflow fetch`.*--tier", said[-2])
    assert verify(reader, "--tier", "metrics")[0] == 0


def test_how_far_a_result_is_off_is_known_from_the_cache_the_remote_or_git(published, tmp_path):
    reader = published.clone(tmp_path / "reader")
    reader.command("fetch")
    results = reader.folder / "results/demo"
    scores = pd.read_parquet(results / SCORES)
    true = scores["is_deg"][3]
    (results / SCORES).unlink()
    changed = scores["is_deg"].where(scores.index != 3, 77.0)
    scores.assign(is_deg=changed).to_parquet(results / SCORES, index=False)
    reader.edit("results/demo/metrics.json", r'(?<="is_mean": )[1-9][\d.]*', "88.5")
    first = (
        f"first that differs: {SCORES}: different; column is_deg, row 3: 77.0 here, {true} there"
    )
    for options in ((), ("--against", "local")):
        code, said = verify(reader, *options)
        differing = [line for line in said if "differs: " in line]
        assert code == 1 and len(differing) == 2
        assert first in differing[0]
        assert re.search(r"also differs: metrics.json: .*is_mean: 88.5 here, \d", differing[1])
        shutil.rmtree(reader.folder / ".dvc/cache", ignore_errors=True)
    (line,) = [line for line in verify(reader)[1] if f"{SCORES}: different" in line]
    assert f"{SCORES}: different; MD5: " in line


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
        r"the same: \d+ artifacts: \d+ identical(, \d\d+ within tolerance)?", said[-1]
    )
    assert off == 0 or "within" in said[-1]
