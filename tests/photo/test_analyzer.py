"""Real weights, the packaged reference, and a study on the same reference in which the photos are images."""

import json
import re
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import singflow
from singflow.analyses.floor import Floor, removals
from singflow.analyses.metrics import angle_deg, contrast_deg, remove
from singflow.analyses.steering import null_directions
from singflow.artifacts.tensors import read_tensors, write_tensors
from singflow.cli import limit_threads
from singflow.errors import InputError
from singflow.photo import fits
from singflow.photo.analyzer import IN_SAMPLE, Analyzer
from singflow.photo.study import KNOWN_ZERO
from singflow.translators.crossfit import WHOLE
from tests.project import ROOT, SMALL, Project

MODEL, SPACE = "efficientnet_lite0", "conse_minilm"
SCORES = f"results/demo/scores/{SPACE}/{MODEL}.parquet"
TEXTS = ["a rug", "an image of a jellyfish"]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The scores of a study of the packaged images, whose translators are fitted on the packaged reference."""
    project = Project(tmp_path_factory.mktemp("project"))
    differences = {"models": [MODEL], "comparison": {"models": []}, "extraction": {"views": 1}, "translator": {"reference": "packaged"}}
    project.study(**differences | {"floor": {"permutations": 20}, "pictures": {"closeup": MODEL}})
    project.snakemake(SCORES, f"results/demo/tables/models.csv")
    return project


@pytest.fixture(scope="module")
def home(project):
    """The working directory of all tests here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project.folder)
        yield project.folder


@pytest.fixture(scope="module")
def analyzer(home):
    limit_threads(1)
    return Analyzer.load(MODEL)


@pytest.fixture(scope="module")
def photos(packaged):
    root, manifest = packaged
    return [root / path for path in manifest["path"]]


@pytest.fixture(scope="module")
def results(analyzer, photos):
    labels = json.loads(Path(f"results/demo/prompts/{SPACE}.json").read_text())["labels"]
    return [analyzer.analyze(photo, [f"an image of a {label}" for label in labels]) for photo in photos]


def test_the_numbers_are_those_of_a_study_in_which_the_photo_is_an_image(results):
    scores = pd.read_parquet(SCORES)
    ours = pd.DataFrame({"is_deg": r.is_deg, "conditional_is_deg": r.conditional_is_deg, "null_energy": r.null_energy} for r in results)
    for name in ours:
        assert np.abs(ours[name] - scores[name]).max() < 1e-5, name
    assert [each.predictions[0].index for each in results] == list(scores["predicted_index"])
