import numpy as np

from singflow.figures.verdicts import draw
from tests.figures.drawn import models_table, names, said

FACTS = {"known_zero": False, "verdict": "nothing found", "margin": 0.005, "detectable": 0.03}


def test_d_stands_beside_its_margin_and_detectable_leak_and_controls_are_last_and_hollow():
    table = models_table(["leak", "a", "none"], "st", **FACTS)
    table["known_leak"] = table["model"] == "leak"
    others = {"none": "no null space", "leak": "known leak: found"}
    table["verdict"] = table["model"].map(others).fillna(table["verdict"])
    d = table["model"].map({"leak": 0.06, "a": 0.02})
    table = table.assign(unique_r2=d, unique_r2_low=d - 0.01, unique_r2_high=d + 0.01)
    figure = draw(table, 0.9)
    for axes, space in zip(figure.axes, "st", strict=True):
        assert axes.get_title("left") == space
        order = ["a\n(weak translator)", "none\n(weak translator)", "leak"]
        assert names(axes) == order
        bars, dots = axes.collections
        assert dots.get_offsets()[:, 0].tolist() == [2, None, 6]
        ends = [segment[:, 0] for segment in bars.get_segments() if len(segment)]
        np.testing.assert_allclose(ends, [[1, 3], [5, 7]])
        assert [bool(shade[:3].min() < 1) for shade in dots.get_facecolor()[::2]] == [True, False]
        zero, margin, leak, _ = (line.get_xdata() for line in axes.lines)
        assert (*zero, *margin) == (0, 0, 0.5, 0.5)
        np.testing.assert_array_equal(leak, [3, 3, np.nan])  # none where something was found
        assert [text.get_text() for text in axes.texts] == ["no null space"]
    assert figure.axes[1].get_xlabel() == "D (%), with 90 % intervals"
    assert said(figure.legends[0])[:2] == ["D", "D of a control"]
