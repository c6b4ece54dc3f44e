"""Studies as versions in one history, and translators in another repository."""

import shutil

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from tests.project import Project, artifacts_of, files_of

RESULTS, MODEL = "results/demo", "efficientnet_lite0"
PUBLISH = "make publish\ngit push --follow-tags"
CHANGE = """
git tag demo-1 study/demo^{}
git tag --delete study/demo
git commit --all --message "narrower intervals"
singflow run
make publish
"""
GET = f"""
get() {{ dvc get --rev study/demo ../study.git {RESULTS}/$1 --out $2.safetensors; }}
get translators/conse_minilm/{MODEL}/linear.safetensors linear
get projectors/{MODEL}.safetensors projector
get features/{MODEL}/shard-00000.safetensors features
"""
APPLY = """
import numpy as np
import singflow
from safetensors.numpy import load_file
features = load_file("features.safetensors")["features"]
translator = singflow.Translator.load("linear.safetensors")
kept = singflow.remove_null(features, load_file("projector.safetensors")["null_basis"])
np.savez("made.npz", embeddings=translator(features), equivalent=kept)
"""
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
    project.run("git", "commit", "-qam", "study narrow, to be computed")
    project.command("run")
    project.make("publish")
    project.narrow = artifacts_of(project.folder / "results/narrow")
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


def test_two_studies_of_one_repository_are_fetched_by_a_clone(study, tmp_path):
    reader = study.clone(tmp_path / "reader")
    for name, results in (("narrow", study.narrow), ("demo", study.second)):
        assert f"study {name}, tier towers" in reader.command("fetch", "--study", name)
        assert reader.changed() == set() and "Nothing to be done" in reader.snakemake("--dry-run")
        assert artifacts_of(reader.folder / "results" / name) == results
    reader.shell("git checkout demo-1\nmake fetch")
    assert reader.artifacts() == study.first and reader.changed() == set()


def test_another_project_translates_features_with_three_lines(study, other):
    other.shell(GET)
    other.run("python", "-c", APPLY)
    made, results = np.load(other.folder / "made.npz"), study.folder / RESULTS
    linear = load_file(results / f"translators/conse_minilm/{MODEL}/linear.safetensors")
    shard = load_file(results / f"features/{MODEL}/shard-00000.safetensors")
    expected = shard["features"] @ linear["weight"].T + linear["bias"]
    np.testing.assert_array_equal(made["embeddings"], expected)

    # The published scores are angles between two such translations by the translator of the fold.
    whole = shard["view"] == 0
    scores = pd.read_parquet(results / f"scores/conse_minilm/{MODEL}.parquet")
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


def test_another_project_follows_the_versions_of_a_folder(study, other):
    other.dvc("import", "--rev", "demo-1", "../study.git", f"{RESULTS}/translators")
    other.dvc("update", "--rev", "study/demo", "translators.dvc")
    published = files_of(study.folder / RESULTS / "translators")
    assert files_of(other.folder / "translators") == published
