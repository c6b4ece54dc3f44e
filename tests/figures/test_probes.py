import numpy as np
import pytest

from singflow.figures import plot_probes
from tests.figures.drawn import assert_apart, models_table, said
from tests.results import BASIS

NAMES = [f"timm/a_classifier_with_a_long_name_{number}" for number in range(16)]
SAID = {"classifier": "logistic", "n_labels_left_out": 0, "n_test_in_sample": 0}
SAID |= {"n_test": 50, "n_labels": 5, "note": "", "by": "label"}
ENDS = [f"accuracy_{kind}_{end}" for kind in ("principal", "translated") for end in ("low", "high")]
NULL = SAID | dict.fromkeys(["accuracy_principal", "accuracy_translated", "chance", *ENDS])
NULL["note"] = "a probe needs two labels of two images or more; there are 1"


def reports(models=16, chance=0.1):
    accuracies = np.random.default_rng(0).uniform(0.5, 0.9, (models, 2))
    found = {}
    for name, (before, after) in zip(NAMES, accuracies, strict=False):
        middles = {"accuracy_principal": before, "accuracy_translated": after}
        ends = (before - 0.02, before + 0.02, after - 0.02, after + 0.02)
        found[name] = SAID | middles | {"chance": chance} | dict(zip(ENDS, ends, strict=True))
    return found


def drawn(probes):
    names = dict.fromkeys(model for of in probes.values() for model in of)
    models = models_table(names, probes).assign(**BASIS)
    table = plot_probes.tabulate(probes, models, 0.9)
    return table, plot_probes.draw(table, models, 0.9)


def titles(figure, line):
    return [axes.get_title(loc="left").splitlines()[line] for axes in figure.axes]


@pytest.mark.parametrize(("spaces", "models"), [(1, 1), (2, 16)])
def test_every_model_is_a_point_of_its_own_look_with_its_intervals_inside_the_axes(spaces, models):
    table, figure = drawn({space: reports(models) for space in "st"[:spaces]})
    figure.canvas.draw()
    for axes, (_, rows) in zip(figure.axes, table.groupby("space"), strict=True):
        points = [container[0] for container in axes.containers]
        expected = rows[["accuracy_principal", "accuracy_translated"]]
        np.testing.assert_allclose(np.vstack([p.get_xydata() for p in points]), expected)
        assert len({(p.get_color(), p.get_marker()) for p in points}) == models
        lines = [lines for container in axes.containers for lines in container[2]]
        bars = np.vstack([segment for line in lines for segment in line.get_segments()])
        assert axes.get_xlim() == axes.get_ylim()
        assert axes.get_xlim()[0] < bars.min() < bars.max() < axes.get_xlim()[1]
        np.testing.assert_allclose(np.ptp(bars.reshape(-1, 2, 2), axis=1).max(1), 0.04)
        legend = axes.get_legend()
        assert_apart(legend.get_texts(), slack=1)
        assert sum("(weak translator)" in text for text in said(legend)) == models
        assert legend.get_window_extent().x0 >= figure.axes[0].get_window_extent().x1


def test_the_title_says_what_is_probed_how_and_what_is_left_out():
    other = {"n_labels_left_out": 2, "n_test_in_sample": 3, "classifier": "ridge", "by": "group"}
    second = {name: facts | other for name, facts in reports(3).items()}
    groups = "groups of the reference: 5 (2 of one image left out)"
    assert titles(drawn({"s": reports(3), "t": second})[1], 1) == [
        "logistic; test images: 50, labels: 5",
        f"ridge; test images: 50 (3 in the translator's sample), {groups}",
    ]


@pytest.mark.parametrize(("chance", "label"), [(0.1, "0.100"), (-3.0, "-3.000, outside")])
def test_chance_far_below_all_points_stays_outside_and_is_said(chance, label):
    (axes,) = drawn({"s": reports(4, chance)})[1].axes
    assert f"chance: {label}" in said(axes.get_legend())
    assert (axes.get_xlim()[0] < chance) == (chance == 0.1)


def test_a_space_without_numbers_says_why_and_a_model_without_is_named():
    without = NULL | {"note": "the head has no principal space"}
    nothing = {"m": NULL, "n": NULL}
    _, figure = drawn({"s": nothing, "t": reports(3) | {"m": without}})
    (full,) = figure.axes
    reason = " ".join(figure.get_supxlabel().split())
    assert reason == f"Nothing can be probed in s: {NULL['note']}"
    assert len(full.containers) == 3
    named = " ".join(" ".join(said(full.get_legend())).split())
    assert "m (weak translator): the head has no principal space" in named
    assert drawn({"s": nothing})[1] is None
