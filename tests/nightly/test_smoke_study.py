"""Whole studies of the guides: the paper's without its weights, and heads that keep few classes."""

import re

import pandas as pd
import yaml
from PIL import Image

from singflow.artifacts.tensors import read_tensors
from tests.nightly.test_evidence import HEADS, STUDY
from tests.nightly.test_paper_smoke import NULL_DIM, SPACES, assert_model, assert_space
from tests.nightly.test_readme import SMOKE
from tests.project import Project


def assert_model_in_spaces(results, model, images, scanned):
    """A model's translators and scores, and scans of so many labels and concepts, are valid."""
    head = results / f"heads/{model}.safetensors"
    width = read_tensors(head, ["weight"])[0]["weight"].shape[1]
    for space in SPACES:
        path = results / f"translators/{space}/{model}/linear.safetensors"
        translator = read_tensors(path, ["weight", "bias"])[0]
        assert translator["weight"].shape == (768, width) and translator["bias"].shape == (768,)
        scores = pd.read_parquet(results / f"scores/{space}/{model}.parquet")
        assert list(scores["image_id"]) == list(range(images)) and scores.notna().all().all()
        assert (scores["is_deg"] >= 0).all()
        scan = read_tensors(results / f"concepts/{space}/{model}.safetensors")[0]
        assert scan["as_mean"].shape == scanned and scan["n"].sum() == images


def assert_table(said, models):
    """The study ends with a table that says what it is worth."""
    table = said[said.index("Study paper_smoke: features or logits?") :]
    assert "RANDOM WEIGHTS, untrained: " in table and "TOP-1 FAR" not in table
    for name in models:
        begin, null = rf"{re.escape(name)}[*~+^]* ", f" {NULL_DIM[name]} "
        rows = [line for line in table.splitlines() if re.match(begin, line) and null in line]
        assert len(rows) == len(SPACES)


def test_the_smoke_study_of_all_models_says_what_it_is_worth_and_fulfils_the_contract(tmp_path):
    project = Project(tmp_path)
    said = project.shell("\n".join(SMOKE), patience=None)  # hours on a slow machine
    results = project.folder / "results/paper_smoke"
    study = yaml.safe_load((project.folder / "params.yaml").read_text())
    table = pd.read_csv(project.folder / study["data"]["table"])
    concepts = (project.folder / study["concepts"]["vocabulary"]).read_text().splitlines()
    scanned = table["label"].nunique(), len(concepts)
    assert_table(said, NULL_DIM)
    for model in NULL_DIM:
        assert_model(results, model, len(table))
        assert_model_in_spaces(results, model, len(table), scanned)
    for space in SPACES:
        assert_space(results, space, study, len(table))


def test_the_study_of_heads_gives_the_numbers_of_the_page(tmp_path):
    project = Project(tmp_path)
    project.equip()
    project.shell("\n".join(STUDY), patience=None)
    found = pd.read_csv(tmp_path / "docs/evidence/heads.csv")
    pd.testing.assert_frame_equal(found, HEADS, atol=0.02, rtol=0.05)
    with Image.open(tmp_path / "docs/cut_heads.png") as picture:
        assert picture.size == (1400, 700)
