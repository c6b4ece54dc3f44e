"""Studies as versions in one history, and translators in another repository.

Every command of docs/versions.md is run as a reader would.
"""

import hashlib
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from tests.project import ROOT, Project, artifacts_of, blocks, files_of

LINEAR = "translators/conse_minilm/efficientnet_lite0/linear.safetensors"
SECTIONS = dict(
    part.split("\n", 1) for part in (ROOT / "docs/versions.md").read_text().split("\n## ")[1:]
)
REPRO, RECORD = blocks(SECTIONS["Snakemake or DVC"])
(PUBLISH,), (ANOTHER,) = blocks(SECTIONS["Publish a study"]), blocks(SECTIONS["Another study"])
CHANGE, DIFFS = blocks(SECTIONS["Change a study"])
ELSEWHERE = SECTIONS["Translators and projectors in another project"]
GET, ARTIFACT, BY_NAME, CHECK = blocks(ELSEWHERE)
NARROW = {
    "models": ["tiny"],
    "data": {"table": "config/vocab/packaged_six.csv"},
    "extraction": {"views": 1},
    "comparison": {"models": []},
    "summary": {"resamples": 200, "confidence": 0.9},
}


@pytest.fixture(scope="module")
def study(snakemake_project, tmp_path_factory):
    """A checkout whose history holds two versions of a study and another study.

    Beside it is what the servers of git and DVC have of it.
    """
    folder = tmp_path_factory.mktemp("sharing")
    project = snakemake_project.copy(folder / "study")
    project.store = folder / "store"
    project.dvc("remote", "modify", "local", "url", str(project.store))
    project.commit()
    project.run("git", "clone", "-q", "--bare", str(project.folder), str(folder / "study.git"))
    project.run("git", "remote", "add", "origin", str(folder / "study.git"))
    project.run("git", "config", "push.autoSetupRemote", "true")
    project.shell(PUBLISH)
    project.first = project.artifacts()
    project.edit("params.yaml", "confidence: 0.95", "confidence: 0.9")
    project.shell(CHANGE)
    project.second = project.artifacts()
    project.study("narrow", **NARROW)
    project.numbers = project.shell(ANOTHER)
    project.narrow = artifacts_of(project.folder / "results/narrow")
    project.shell(ARTIFACT)
    project.run("git", "push", "-q", "--follow-tags", "--force")
    project.run("git", "push", "-q", "--tags", "--force")
    return project


@pytest.fixture
def other(study, tmp_path):
    """Another repository, beside the study's on the server; nothing of it is in DVC's cache."""
    shutil.copytree(study.folder.with_name("study.git"), tmp_path / "study.git")
    project = Project.at(tmp_path / "other")
    project.folder.mkdir()
    project.run("git", "init", "-q")
    project.dvc("init", "-q")
    return project


def test_three_commands_tell_what_a_change_did(study):
    params, metrics, plots = DIFFS.splitlines()
    changed = ["params.yaml", "summary.confidence", "0.95", "0.9"]
    assert study.shell(params).split()[-4:] == changed
    before, after = (
        json.loads(artifacts["metrics.json"])["conse_minilm"]
        for artifacts in (study.first, study.second)
    )
    changed = {
        f"conse_minilm.{model}.{name}": (value, after[model][name])
        for model, values in before.items()
        for name, value in values.items()
        if value != after[model][name]
    }
    told = json.loads(study.shell(f"{metrics} --json"))["results/demo/metrics.json"]
    told = {name: (entry["old"], entry["new"]) for name, entry in told.items()}
    assert changed and told == changed
    page = study.shell(plots).strip().removeprefix("file://")
    assert "vega" in (study.folder / page).read_text()
    drawn = json.loads(study.shell(f"{plots} --json"))["data"]
    plotted = {name for name, kinds in drawn.items() if kinds[0]["type"] == "vega"}
    assert plotted == {"models", "labels"}
    points = drawn["models"][0]["content"]["data"]["values"]
    for version, results in {"demo-1": study.first, "study/demo": study.second}.items():
        low = [float(row["is_low"]) for row in points if row["rev"] == version]
        assert low == list(pd.read_csv(io.BytesIO(results["tables/models.csv"]))["is_low"])
    page = study.shell("dvc plots show").strip().removeprefix("file://")
    assert "results/narrow" in (study.folder / page).read_text()
    assert study.run("git", "status", "--short").stdout == ""
    listed = re.findall(r"^(study/\w+|demo-1) +results/(\S+) ", study.numbers, flags=re.MULTILINE)
    studies = {"demo-1": "demo", "study/demo": "demo", "study/narrow": "narrow"}
    files = ("metrics.json", "tables/translators.json")
    assert {*listed} == {(tag, f"{name}/{file}") for tag, name in studies.items() for file in files}


def test_two_studies_of_one_repository_are_fetched_by_a_clone(study, tmp_path):
    reader = study.clone(tmp_path / "reader")
    for name, results in (("narrow", study.narrow), ("demo", study.second)):
        assert f"study {name}, tier towers" in reader.command("fetch", "--study", name)
        assert reader.changed() == set() and "Nothing to be done" in reader.snakemake("--dry-run")
        assert artifacts_of(reader.folder / "results" / name) == results
    reader.shell(blocks(SECTIONS["Go back to a version"])[0])
    assert reader.artifacts() == study.first and reader.changed() == set()


def test_pull_of_one_folder_brings_it_alone(study, tmp_path):
    reader = study.clone(tmp_path / "reader")
    reader.run("git", "checkout", "-q", "study/demo")
    (pull,) = re.findall(r"^dvc pull .*", (ROOT / "docs/sharing.md").read_text(), re.MULTILINE)
    reader.shell(pull)
    assert reader.artifacts() == {
        name: data
        for name, data in study.second.items()
        if name.startswith("tables/") or name == "metrics.json"
    }


def test_dvc_makes_a_stale_tier_again_and_records_what_snakemake_kept(snakemake_project, tmp_path):
    project = snakemake_project.copy(tmp_path / "project")
    project.edit("src/singflow/report/page.py", '"""', '"""Edited. ')
    project.shell(RECORD)
    assert project.changed() == set() and project.differs(snakemake_project) == set()
    project.edit("src/singflow/report/page.py", '"""', '"""Edited. ')
    assert project.ran_by_dvc(project.shell(REPRO)) == ["report"]
    assert project.differs(snakemake_project) == set() and project.changed() == set()


def test_another_project_translates_features_with_three_lines(study, other):
    other.shell(GET)
    save = (
        'import numpy as np\nnp.savez("made.npz", embeddings=embeddings, equivalent=equivalent)\n'
    )
    other.run("python", "-c", "".join([*blocks(ELSEWHERE, "python"), save]))
    made, results = np.load(other.folder / "made.npz"), study.folder / "results/demo"
    linear = load_file(results / LINEAR)
    shard = load_file(results / "features/efficientnet_lite0/shard-00000.safetensors")
    expected = shard["features"] @ linear["weight"].T + linear["bias"]
    np.testing.assert_array_equal(made["embeddings"], expected)

    # The published scores are angles between two such translations by the translator of the fold.
    whole = shard["view"] == 0
    scores = pd.read_parquet(results / "scores/conse_minilm/efficientnet_lite0.parquet")
    scores = scores.set_index("image_id").loc[shard["image_id"][whole]]
    weights, biases = (
        linear[f"fold_{name}"][scores["fold"]].astype(float) for name in ("weight", "bias")
    )
    one, two = (
        np.einsum("nmd,nd->nm", weights, rows[whole].astype(float)) + biases
        for rows in (shard["features"], made["equivalent"])
    )
    cosine = (one * two).sum(axis=1) / np.linalg.norm(one, axis=1) / np.linalg.norm(two, axis=1)
    np.testing.assert_allclose(np.degrees(np.arccos(cosine)), scores["is_deg"], atol=1e-3)


def test_another_project_gets_a_version_of_a_folder_by_its_name(study, other):
    other.shell(BY_NAME)
    assert files_of(other.folder / "by_name") == {
        name.removeprefix("translators/"): data
        for name, data in study.second.items()
        if name.startswith("translators/")
    }


def test_a_damaged_object_is_told_by_its_address(study, other):
    md5 = hashlib.md5(study.second[LINEAR], usedforsecurity=False).hexdigest()
    place = study.store / "files/md5" / md5[:2] / md5[2:]
    content = place.read_bytes()
    for damage in (0, 1):
        place.chmod(0o644)
        place.write_bytes(content[:-1] + bytes([content[-1] ^ damage]))
        (other.folder / Path(LINEAR).name).unlink(missing_ok=True)
        try:
            other.shell(GET.splitlines()[0])
            url, found = other.shell(CHECK).splitlines()[-2:]
        finally:
            place.write_bytes(content)
        assert "".join(url.split("/")[-2:]) == md5
        assert (found.split()[0] == md5) == (damage == 0)
