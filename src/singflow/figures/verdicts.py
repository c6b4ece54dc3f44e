"""Draw D of every model of a study, which the page begins with."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from singflow.analyses.findings import OPEN
from singflow.analyses.summary import controls_last
from singflow.analyses.tables import is_control
from singflow.figures import style

WIDTH = 2.9  # inches; as wide as a phone, its texts are as large as those of the page
BLUE, ORANGE, GREY = style.COLOURS[0], style.COLOURS[5], "0.4"
UNSEEN = "smallest leak, spread\nevenly, that would show"
SEEN: style.Look = {"color": GREY, "marker": "D", "mfc": "none", "ls": ""}


@style.styled
def draw(models: pd.DataFrame, confidence: float) -> Figure:
    """D with its interval and margin, and where nothing was found the detectable leak, by space."""
    spaces = [controls_last(rows) for _, rows in models.groupby("space", sort=False)]
    names = [[style.named(of, rows.set_index("model")) for of in rows["model"]] for rows in spaces]
    lines = [np.array([name.count("\n") + 1.5 for name in of]) for of in names]  # with a gap
    deep = [many.sum() for many in lines]
    size = WIDTH, 0.7 + sum(0.14 * many + 0.35 for many in deep)
    figure, grid = style.panels(len(spaces), 1, size, sharex=True, height_ratios=deep)
    for axes, rows, of, many in zip(grid[:, 0], spaces, names, lines, strict=True):
        _panel(axes, rows, of, many)
    grid[-1, 0].set_xlabel(f"D (%), with {100 * confidence:g} % intervals")
    keys = {
        "D": {"color": BLUE, "marker": "o"},
        "D of a control": {"color": BLUE, "marker": "o", "mfc": "white"},
        "margin": {"color": ORANGE, "ls": "--"},
        UNSEEN: SEEN,
    }
    if not is_control(models).any():
        del keys["D of a control"]
    if models["verdict"].isin(OPEN).all():
        del keys[UNSEEN]
    style.legend(figure, [style.key(name, **look) for name, look in keys.items()], 2)
    return figure


def _panel(axes: Axes, rows: pd.DataFrame, names: list[str], lines: np.ndarray) -> None:
    places, control = lines.cumsum() - lines / 2, is_control(rows)
    d = {end: 100 * rows[f"unique_r2{end}"].astype(float) for end in ("", "_low", "_high")}
    axes.axvline(0, color=GREY, lw=0.6, zorder=0)
    axes.axvline(100 * rows["margin"].iloc[0], color=ORANGE, ls="--", zorder=0)
    axes.hlines(places, d["_low"], d["_high"], color=BLUE)
    missed = ~rows["verdict"].isin(OPEN)
    axes.plot(100 * rows["detectable"].astype(float).where(missed), places, **SEEN)
    fill = ["white" if of else BLUE for of in control]
    axes.scatter(d[""], places, 16, fill, edgecolors=BLUE, zorder=3)
    if control.any() and not control.all():
        axes.axhline(lines[~control].sum(), color="0.85", lw=0.6)
    for place, verdict in zip(places[d[""].isna()], rows["verdict"][d[""].isna()], strict=True):
        axes.annotate(verdict, (0, place), (4, 0), textcoords="offset points", va="center")
    axes.set_yticks(places, names)
    axes.set_ylim(lines.sum(), 0)
    axes.set_title(rows["space"].iloc[0])
    axes.grid(axis="x")
