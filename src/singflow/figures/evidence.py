"""Draw what the test of meaning says about one model: D, its controls, and IS beside its floor."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from singflow.figures import style

BLUE, ORANGE, GREEN = style.COLOURS[:3]


@style.styled
def draw(facts: dict[str, Any], controls: pd.DataFrame, images: pd.DataFrame) -> Figure:
    """(a) D beside what is planted, (b) IS and its floor."""
    d = facts["unique_r2"]
    figure, grid = (
        style.panels(1, 2, (style.PAGE, 2.3))
        if d is not None
        else style.panels(1, 1, (style.COLUMN, 2.3))
    )
    *measured, angles = grid[0]
    if d is not None:
        style.entitle(figure, f"D is {100 * d:.2g} %; the margin is {100 * facts['margin']:g} %")
        _planted(measured[0], facts, controls)
    _angles(angles, images)
    return figure


def _planted(axes: Axes, facts: dict[str, Any], controls: pd.DataFrame) -> None:
    middle, low, high = (facts[f"unique_r2{end}"] for end in ("", "_low", "_high"))
    if low is not None:
        axes.axhspan(100 * low, 100 * high, color=BLUE, alpha=0.15, lw=0)
    axes.axhline(100 * middle, color=BLUE, label="D, with its interval")
    axes.axhline(100 * facts["margin"], color="0.4", ls=":", label="margin")
    looks = {"leak, even": (ORANGE, "o"), "leak, first": (GREEN, "s")}
    for control, (colour, marker) in looks.items():
        rows = controls[controls["control"] == control]
        look: style.Look = {"color": colour, "marker": marker}
        label = f"planted {control}"
        axes.plot(100 * rows["share"], 100 * rows["unique_r2"], label=label, **look)
    axes.set(xscale="log", xlabel="planted leak (% of the variance)", ylabel="D (%)")
    shares = sorted(set(100 * controls["share"][controls["share"] > 0]))
    axes.set_xticks(shares, [f"{share:g}" for share in shares])
    axes.minorticks_off()
    axes.set_title("(a) D, and D of planted leaks")
    axes.legend()
    axes.grid(axis="y")


def _angles(axes: Axes, images: pd.DataFrame) -> None:
    score, floor = images["is_deg"], images["floor_is_deg"]
    bins = np.linspace(0, max(score.max(), floor.max(), 1.0), 31).tolist()
    axes.hist(floor, bins, color="0.7", label="floor: no meaning")
    axes.hist(score, bins, histtype="step", color=BLUE, label="IS")
    axes.set(xlabel="degrees", ylabel="images", ymargin=0.4)
    axes.set_title("(b) IS of the images")
    axes.legend()
