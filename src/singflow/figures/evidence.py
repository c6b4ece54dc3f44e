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
    measured = facts["unique_r2"] is not None
    width = style.PAGE if measured else style.COLUMN
    figure, ((*first, angles),) = style.panels(1, 1 + measured, (width, 2.2))
    for axes in first:
        _planted(axes, facts, controls)
    _angles(angles, images)
    return figure


def _planted(axes: Axes, facts: dict[str, Any], controls: pd.DataFrame) -> None:
    middle, low, high = (facts[f"unique_r2{end}"] for end in ("", "_low", "_high"))
    if low is not None:
        axes.axhspan(100 * low, 100 * high, color=BLUE, alpha=0.15, lw=0)
    axes.axhline(100 * middle, color=BLUE, label="D, with its interval")
    axes.axhline(100 * facts["margin"], color="0.4", ls=":", label="margin")
    for kind, colour, marker in (("even", ORANGE, "o"), ("first", GREEN, "s")):
        rows = 100 * controls.loc[controls["control"] == f"leak, {kind}", ["share", "unique_r2"]]
        axes.plot(*rows.to_numpy().T, color=colour, marker=marker, label=f"planted leak, {kind}")
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
