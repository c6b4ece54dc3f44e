"""A finished study: what its artifacts hold; studies that are refused before their first tower."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from safetensors.numpy import load_file

from singflow.artifacts.catalog import CATALOG, artifact_of
from tests.project import Project


@pytest.fixture(scope="module")
def results(snakemake_project):
    return snakemake_project.folder / "results/demo"


@pytest.fixture(scope="module")
def read(results):
    """A reader of artifacts by name and suffix."""

    def read(name, suffix="parquet"):
        path = results / f"{name}.{suffix}"
        return pd.read_parquet(path) if suffix == "parquet" else json.loads(path.read_text())

    return read


def is_described(name, about):
    """Whether a column or tensor is in the text on its artifact, which may shorten its name."""
    shortened = {
        name,
        re.sub("_(low|high)$", "", name),
        re.sub(r"(?<=^word_)\d", "1", name),
        re.sub(r"^([a-z]+)[_.].*", r"\1_*", name),
        re.sub(r"^([a-z]+)[_.].*", r"\1.*", name),
    }
    return any(re.search(rf"(?<![\w.]){re.escape(form)}(?!\w)", about) for form in shortened)


def test_every_artifact_holds_what_docs_artifacts_says_of_it(results):
    found = set()
    for path in filter(Path.is_file, results.rglob("*")):
        place = path.relative_to(results).as_posix()
        name = artifact_of(place)
        assert name or place.startswith(("logs/", "benchmarks/", "figures/")), place
        found.add(name)
        if path.suffix == ".parquet":
            columns = pd.read_parquet(path).dtypes
            assert all(is_described(column, CATALOG[name].about) for column in columns.index), place
            assert CATALOG[name].columns.items() <= {n: d.kind for n, d in columns.items()}.items()
        if path.suffix == ".safetensors":
            about, expected = CATALOG[name].about, CATALOG[name].tensors
            for tensor, array in load_file(path).items():
                kind = (array.dtype.kind, array.ndim)
                assert is_described(tensor, about), (place, tensor)
                assert str(array.dtype) in about or kind[0] == "i", (place, tensor)
                assert expected.get(tensor, kind) == kind, (place, tensor)
    assert {*CATALOG} <= found
    for name in ("projector_report", "evidence"):
        for path, _ in CATALOG[name].among(results):
            keys = json.loads(path.read_text())
            assert all(is_described(key, CATALOG[name].about) for key in keys), path


def test_a_head_without_null_space_is_said_plainly_and_scores_zero(read, results):
    scores = read("scores/conse_minilm/tiny")
    assert not scores[["is_deg", "as_deg", "null_energy", "logit_change"]].any().any()
    assert read("projectors/tiny", "json")["null_dim"] == 0
    translator = read("translators/conse_minilm/tiny/linear", "json")
    r2 = read("evidence/conse_minilm/tiny", "json")["r2"]
    assert r2 == pytest.approx(translator["validation_r2"], abs=1e-4)
    text = (results / "tables/summary.txt").read_text()
    assert "tiny: no null space: the logits see every direction." in text
    assert "nan" not in text.lower()
    log = (results / "logs/fit_projector/tiny.log").read_text()
    assert "this head has no null space by rule exact" in log
    for path in (results / "logs").rglob("*.log"):
        assert "Warning" not in path.read_text(), path


def test_a_bad_study_stops_before_any_job(tmp_path):
    project = Project(tmp_path)
    for place, other, said in (
        ("  views: 2", "  veiws: 2", "params.yaml: extraction.veiws: unknown key; did you"),
        ("vocab/conc", "vocab/no conc", "Missing input files for rule embed_prompts"),
        ("seed: 0", "unheard_of: 1\nseed: 0", "params.yaml: unheard_of: unknown key"),
    ):
        project.study()
        project.edit("params.yaml", place, other)
        for command in ("snakemake", "singflow run"):
            assert said in project.refused(*command.split(), "--cores", "1")
        assert not [path for path in (tmp_path / "results").rglob("*") if path.is_file()]
