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
from dvc.repo import Repo
from safetensors.numpy import load_file

from tests.project import ROOT, Project, blocks, files_of

LINEAR = "translators/conse_minilm/efficientnet_lite0/linear.safetensors"
SECTIONS = dict(
    part.split("\n", 1) for part in (ROOT / "docs/versions.md").read_text().split("\n## ")[1:]
)
CHANGE, ANOTHER = blocks(SECTIONS["Change a study"]), blocks(SECTIONS["Another study"])
ELSEWHERE = SECTIONS["Translators and projectors in another project"]
GET, CHECK, FOLLOW, ARTIFACT, BY_NAME = blocks(ELSEWHERE)


@pytest.fixture(scope="module")
def study(snakemake_project, tmp_path_factory):
    """A checkout whose history holds two versions of a study and another study.

    It also holds what the servers of git and DVC have of it.
    """
    folder = tmp_path_factory.mktemp("sharing")
    project = snakemake_project.copy(folder / "study")
    project.store = folder / "store"
    project.dvc("remote", "modify", "local", "url", str(project.store))
    project.commit()
    project.shell(blocks(SECTIONS["Tag a study"])[0])
    project.first = project.artifacts()
    project.edit("params.yaml", "confidence: 0.95", "confidence: 0.9")
    project.shell(CHANGE[0])
    project.second = project.artifacts()
    narrow = {"models": ["tiny"], "data": {"table": "config/vocab/packaged_six.csv"}}
    narrow |= {"extraction": {"views": 1}, "comparison": {"models": []}}
    narrow |= {"summary": {"resamples": 200, "confidence": 0.9}}
    project.study("narrow", **narrow)
    project.shell(ANOTHER[0])
    project.numbers = project.shell(ANOTHER[1])
    project.shell(ARTIFACT)
    project.run("git", "clone", "-q", "--bare", str(project.folder), str(folder / "study.git"))
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
    params, metrics, plots = CHANGE[1].splitlines()
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
    for version, results in {"study/demo-1": study.first, "study/demo-2": study.second}.items():
        low = [float(row["is_low"]) for row in points if row["rev"] == version]
        assert low == list(pd.read_csv(io.BytesIO(results["tables/models.csv"]))["is_low"])
        images = {
            name: Path(kind["url"]).read_bytes()
            for name, kinds in drawn.items()
            for kind in kinds
            if kind["revisions"] == [version]
        }
        assert images == {
            f"results/demo/{name}": content
            for name, content in results.items()
            if re.fullmatch(r"figures/\w+\.png", name)
        }
    assert study.run("git", "status", "--short").stdout == ""
    listed = re.findall(r"^(study/\S+) +results/(\S+) ", study.numbers, flags=re.MULTILINE)
    studies = {"study/demo-1": "demo", "study/demo-2": "demo", "study/narrow-1": "narrow"}
    assert {*listed} == {
        (tag, f"{name}/{file}")
        for tag, name in studies.items()
        for file in ("metrics.json", "tables/translators.json")
    }


def test_a_tag_gives_its_study_back_whatever_came_after(study, tmp_path):
    reader = study.clone(tmp_path / "reader")
    tags = {"study/narrow-1": None, "study/demo-1": study.first}
    for tag, results in tags.items():
        reader.run("git", "checkout", "-q", tag)
        said = reader.command("fetch", *([] if results else ["--tier", "metrics"]))
        assert "nothing is left to do" in said or not results
        assert not results or reader.artifacts() == results
        lock = (reader.folder / "dvc.lock").read_text()
        assert ("@efficientnet_lite0:" in lock) == (results is not None)
        shutil.rmtree(reader.folder / "results/demo")
        reader.run("git", "checkout", "-q", "--", ".")
    publisher = study.copy(tmp_path / "publisher")
    assert publisher.artifacts() == study.second
    assert "nothing is left to do" in publisher.shell(blocks(SECTIONS["Go back to a version"])[0])
    assert publisher.artifacts() == study.first
    assert publisher.changed() == set()


def test_another_project_translates_features_with_three_lines(study, other):
    other.shell(GET)
    save = (
        'import numpy as np\nnp.savez("made.npz", embeddings=embeddings, '
        "equivalent=equivalent, again=translator(features))\n"
    )
    other.run("python", "-c", "".join([*blocks(ELSEWHERE, "python"), save]))
    made, results = np.load(other.folder / "made.npz"), study.folder / "results/demo"
    linear = load_file(results / LINEAR)
    shard = load_file(results / "features/efficientnet_lite0/shard-00000.safetensors")
    expected = shard["features"] @ linear["weight"].T + linear["bias"]
    np.testing.assert_array_equal(made["embeddings"], expected)
    np.testing.assert_array_equal(made["again"], made["embeddings"])

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

    url, md5 = other.shell(CHECK).splitlines()[-2:]
    expected = hashlib.md5((results / LINEAR).read_bytes(), usedforsecurity=False).hexdigest()
    assert "".join(url.split("/")[-2:]) == md5.split()[0] == expected
    other.shell(FOLLOW)
    assert "rev: study/demo-2" in (other.folder / "translators.dvc").read_text()
    brought = {
        f"translators/{n}": data for n, data in files_of(other.folder / "translators").items()
    }
    assert brought == {n: data for n, data in study.first.items() if n.startswith("translators/")}


def test_every_translator_is_a_named_artifact(study, other):
    other.shell(BY_NAME)
    other.shell(f"dvc import --rev study/demo-1 ../study.git results/demo/{LINEAR}")
    for name in ("by_name.safetensors", "linear.safetensors"):
        assert (other.folder / name).read_bytes() == study.first[LINEAR]
    with Repo(str(study.folder), rev="study/demo-2") as repo:
        named = repo.artifacts.read()["results/demo/dvc.yaml"]
    translators = [n for n in study.first if re.match(r"translators/.*\.safetensors", n)]
    assert sorted(artifact.path for artifact in named.values()) == sorted(translators)
    artifact = named["conse_minilm/efficientnet_lite0/linear"]
    report = json.loads(study.first[LINEAR.replace(".safetensors", ".json")])
    assert artifact.type == "model" and "efficientnet_lite0" in artifact.labels
    assert artifact.meta["validation_r2"] == report["validation_r2"]


def test_a_damaged_object_is_told_by_its_address(study, other):
    md5 = hashlib.md5(study.first[LINEAR], usedforsecurity=False).hexdigest()
    place = study.store / "files/md5" / md5[:2] / md5[2:]
    content = place.read_bytes()
    place.chmod(0o644)
    place.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        other.shell(GET)
        url, found = other.shell(CHECK).splitlines()[-2:]
    finally:
        place.write_bytes(content)
    assert "".join(url.split("/")[-2:]) == md5 != found.split()[0]
