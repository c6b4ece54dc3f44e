"""Null energy as a detector: area under the curve against scikit-learn, interval by coverage."""

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError
from sklearn.metrics import roc_auc_score

from singflow.analyses.geometry import null_energy, null_space
from singflow.analyses.null_energy import (
    NullEnergy,
    area_under_curve,
    summarize_null_energy,
    two_sets,
)
from singflow.errors import InputError


@pytest.mark.parametrize(("m", "n"), [(1, 1), (2, 3), (40, 7), (300, 200)])
@pytest.mark.parametrize("digits", [1, 9])
def test_the_area_is_scikit_learns_also_with_ties(m, n, digits):
    for seed in range(5):
        generator = np.random.default_rng(seed)
        both = generator.uniform(0, 1, m + n) + np.repeat([0, 0.2], [m, n])
        both = both.round(digits)
        expected = roc_auc_score(np.repeat([0, 1], [m, n]), both)
        assert area_under_curve(both[:m], both[m:], 0.95)[0] == pytest.approx(expected, abs=1e-12)


def test_the_variance_is_delongs_by_its_definition():
    generator = np.random.default_rng(0)
    usual, unusual = generator.normal(0, 1, 30).round(1), generator.normal(0.8, 1, 20).round(1)
    above = (unusual[:, None] > usual) + 0.5 * (unusual[:, None] == usual)
    area, low, high = area_under_curve(usual, unusual, 0.95)
    error = np.sqrt(above.mean(axis=1).var(ddof=1) / 20 + above.mean(axis=0).var(ddof=1) / 30)
    odds = np.log(area / (1 - area)) + 1.959963985 * np.array([-1, 1]) * error / (area * (1 - area))
    np.testing.assert_allclose([low, high], 1 / (1 + np.exp(-odds)), rtol=1e-9)


def test_intervals_cover_what_they_say():
    generator, held = np.random.default_rng(0), 0
    for _ in range(600):
        usual, unusual = generator.normal(0, 1, 40), generator.normal(1, 1, 25)
        _, low, high = area_under_curve(usual, unusual, 0.95)
        held += low <= 0.7602499 <= high  # of normals one deviation apart: Phi(1/sqrt 2)
    assert 0.93 <= held / 600 <= 0.975


def test_there_is_no_interval_where_nothing_says_how_wide():
    assert area_under_curve(np.array([1.0, 2.0]), np.array([3.0, 4.0]), 0.95) == (1.0, None, None)
    assert area_under_curve(np.array([1.0]), np.array([0.5, 2.0]), 0.95) == (0.5, None, None)


def planted():
    """Images of a head of ten features, four classes; `odd` ones lie mostly in the null space."""
    generator = np.random.default_rng(0)
    weight = generator.standard_normal((4, 10)).astype(np.float32)
    space = null_space(weight, "exact64", "float32")
    odd = np.arange(400) % 4 == 3
    null = generator.standard_normal((400, 6)) @ space.basis.T
    features = generator.standard_normal((400, 10)) + 3 * odd[:, None] * null
    label = np.where(odd, "odd", np.where(np.arange(400) % 2 == 0, "even", "one"))
    energy = null_energy(features, space.basis)
    classes = np.where(odd, -1, 0)
    return pd.DataFrame({"label": label, "class_index": classes, "null_energy": energy})


def test_planted_images_are_told_apart_and_others_are_not():
    scores = planted()
    found = summarize_null_energy(scores, 6, [], [], 0.95)
    assert (found["null_energy_usual"], found["null_energy_unusual"]) == (300, 100)
    expected = roc_auc_score(scores["label"] == "odd", scores["null_energy"])
    assert found["null_energy_auc"] == pytest.approx(expected, abs=1e-12)
    assert found["null_energy_auc_low"] > 0.85
    named = summarize_null_energy(scores, 6, [], ["odd"], 0.95)
    assert named == found == summarize_null_energy(scores, 6, ["even", "one"], [], 0.95)
    alike = summarize_null_energy(scores, 6, ["even"], ["one"], 0.95)
    assert alike["null_energy_auc_low"] < 0.5 < alike["null_energy_auc_high"]
    assert alike["null_energy_unusual"] == 100
    swapped = summarize_null_energy(scores, 6, ["odd"], ["even", "one"], 0.95)
    assert swapped["null_energy_auc"] == pytest.approx(1 - found["null_energy_auc"], abs=1e-12)


def test_without_two_sets_or_a_null_space_there_is_nothing_to_say():
    scores = planted()
    for rows, null_dim in ((scores[scores["label"] != "odd"], 6), (scores, 0)):
        assert summarize_null_energy(rows, null_dim, [], [], 0.95)["null_energy_auc"] is None


def test_labels_that_are_in_both_lists_or_nowhere_are_refused():
    with pytest.raises(ValidationError, match="odd cannot be usual and unusual"):
        NullEnergy(usual_labels=["even", "odd"], unusual_labels=["odd"])
    with pytest.raises(InputError, match="labels that no image has: none, odt"):
        two_sets(planted(), ["none"], ["odd", "odt"])
