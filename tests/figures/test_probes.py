import numpy as np

from singflow.figures import plot_probes
from tests.figures.drawn import finding, models_table, said
from tests.results import BASIS

NAMES = [f"timm/a_classifier_with_a_long_name_{number}" for number in range(16)]
SAID = {"classifier": "logistic", "n_labels_left_out": 0, "n_test_in_sample": 0}
SAID |= {"n_test": 50, "n_labels": 5, "note": "", "by": "label"}
ENDS = [f"accuracy_{kind}_{end}" for kind in ("principal", "translated") for end in ("low", "high")]
NULL = SAID | dict.fromkeys(["accuracy_principal", "accuracy_translated", "chance", *ENDS])
NULL["note"] = "a probe needs two labels of two images or more; there are 1"


def reports(models=16):
    accuracies = np.random.default_rng(0).uniform(0.5, 0.9, (models, 2))
    found = {}
    for name, (before, after) in zip(NAMES, accuracies, strict=False):
        middles = {"accuracy_principal": before, "accuracy_translated": after}
        ends = (before - 0.02, before + 0.02, after - 0.02, after + 0.02)
        found[name] = SAID | middles | {"chance": 0.1} | dict(zip(ENDS, ends, strict=True))
    return found


def drawn(probes):
    names = dict.fromkeys(model for of in probes.values() for model in of)
    models = models_table(names, probes).assign(**BASIS)
    table = plot_probes.tabulate(probes, models, 0.9)
    return table, plot_probes.draw(table, models)


def test_every_model_is_a_point_of_its_own_look_with_its_intervals_inside_the_axes():
    table, figure = drawn({space: reports(16) for space in "st"})
    lost = 100 * (table["accuracy_principal"] - table["accuracy_translated"])
    assert finding(figure).split()[2:5] == [f"{lost.min():.0f}", "to", f"{lost.max():.0f}"]
    for axes, (_, rows) in zip(figure.axes, table.groupby("space"), strict=True):
        points = [container[0] for container in axes.containers]
        expected = rows[["accuracy_principal", "accuracy_translated"]]
        np.testing.assert_allclose(np.vstack([p.get_xydata() for p in points]), expected)
        assert len({(p.get_color(), p.get_marker()) for p in points}) == 16
        lines = [lines for container in axes.containers for lines in container[2]]
        bars = np.vstack([segment for line in lines for segment in line.get_segments()])
        assert axes.get_xlim() == axes.get_ylim()
        assert axes.get_xlim()[0] < bars.min() < bars.max() < axes.get_xlim()[1]
        np.testing.assert_allclose(np.ptp(bars.reshape(-1, 2, 2), axis=1).max(1), 0.04)


def test_a_space_without_numbers_is_left_out_and_a_model_without_says_why():
    without = NULL | {"note": "the head has no principal space"}
    nothing = {"m": NULL, "n": NULL}
    (axes,) = drawn({"s": nothing, "t": reports(3) | {"m": without}})[1].axes
    assert axes.get_title("left") == "t" and len(axes.containers) == 4
    named = " ".join(said(axes.get_legend()))
    assert "m (weak translator): the head has no principal space" in named
    assert drawn({"s": nothing})[1] is None
