"""The program that draws docs/cut_heads.png."""

import runpy

import numpy as np
import pandas as pd
import pytest

from singflow.analyses.maps import Maps, TextMap
from singflow.photo.analyzer import WITHIN_CHANCE
from tests.figures.drawn import names, words
from tests.figures.test_hidden_texts import texts
from tests.photo.handmade import analysis_of
from tests.project import ROOT
from tests.towers.models import noise

PROGRAM = runpy.run_path(str(ROOT / "docs/cut_heads.py"))
HEADS = pd.read_csv(ROOT / "docs/evidence/heads.csv").sort_values("n_classes")


@pytest.fixture
def figure():
    movement = TextMap("a jeep", -4.0, 0.0, np.full((2, 2), -1.0))
    found = {
        PROGRAM["WHOLE"]: analysis_of("beach wagon", 0, 0, no_maps=WITHIN_CHANCE),
        PROGRAM["CUT"]: analysis_of("wombat", 0, 0, maps=Maps([movement], (0, 0, 1, 1))),
    }
    listed = texts(PROGRAM["CUT"], np.arange(30) / 30)
    return PROGRAM["draw"](HEADS, noise(32, 24).convert("L").convert("RGB"), found, listed)


def test_a_map_is_coloured_and_a_model_without_one_says_why(figure):
    _, photo, without, mapped, _ = figure.axes
    colours = [
        np.ptp(axes.images[0].get_array(), axis=2).max() for axes in (photo, without, mapped)
    ]
    assert colours[:2] == [0, 0] and colours[2] > 100
    told = words(figure).replace("\n", " ")
    for said in (WITHIN_CHANCE, "says beach wagon", "says wombat", "by 1° at the strongest"):
        assert said in told


def test_heads_are_drawn_over_their_classes_and_texts_from_both_ends(figure):
    curve, *_, listed = figure.axes
    of_random, of_subject = (part.lines[0].get_xydata() for part in curve.containers)
    assert of_random[:, 0].tolist() == [10, 40, 200, 700, 1000]
    assert of_subject[:, 0].tolist() == [118, 398, 602]
    assert (np.diff(of_random[:, 1]) < 0).all(), "as the title says"
    by_label = {line.get_label(): line for line in curve.lines}
    assert by_label["known zero"].get_xydata().tolist() == [[1000, 0]]
    assert len(names(listed)) == PROGRAM["MOST"] + PROGRAM["LEAST"]
    assert "14 of 30" in listed.get_title("left")
