"""Draw the rank curves of all models and write them as one table."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from singflow import cli
from singflow.analyses.tables import qualify
from singflow.artifacts.tables import write_table
from singflow.artifacts.tolerances import rounded
from singflow.figures import style
from singflow.figures.style import Frames, Look

FLOOR = 1e-6
LINES = ["-", "--", ":", "-."]
RULES = {
    "exact": ("o", "exact: what no logit sees"),
    "energy": ("s", "energy"),
    "centered": ("D", "centered: what softmax cannot see"),
}
PANELS = {  # column -> title, unit, least value that is drawn
    "logit_relative_mean": ("(a) logit change / spread of the logits", 1, FLOOR),
    "top1_changed": ("(b) images whose top-1 flips (%)", 100, 0.0),
    "is_mean_deg": ("(c) mean IS (degrees)", 1, 0.0),
}


def tabulate(curves: Frames, models: pd.DataFrame) -> pd.DataFrame:
    """Rows of all curves, by space and model, with the columns that `qualify` adds.

    removed_dim is the null dimension of a row; null_dim is that of the study's projector.
    """
    rows = [
        table.assign(space=space, model=model)[["space", "model", *table]]
        for space, model, table in style.pairs_of(curves)
    ]
    joined = pd.concat(rows, ignore_index=True)
    return qualify(joined.rename(columns={"null_dim": "removed_dim"}), models)


@style.styled
def draw(curves: pd.DataFrame, table: pd.DataFrame) -> Figure:
    """Logit change, top-1 flips and IS against the share of the head's rank that is kept."""
    spaces = curves["space"].unique()
    names = len(curves["model"].unique())
    height = len(spaces) * (4.0 + 0.17 * -(-names // 3)) + 0.5
    figure, subfigures = style.subfigures(len(spaces), 11.5, height)
    rules = [
        style.key(name, color="0.4", ls="", marker=marker, mec="black")
        for marker, name in RULES.values()
    ]
    for subfigure, space in zip(subfigures, spaces, strict=True):
        mine, rows = curves[curves["space"] == space], style.of_space(table, space)
        grid = subfigure.subplots(1, len(PANELS))
        for axes, (column, (title, unit, least)) in zip(grid, PANELS.items(), strict=True):
            for number, (_, curve) in enumerate(mine.groupby("model", sort=False)):
                value = (curve[column] * unit).clip(lower=least)
                _draw_curve(axes, curve.assign(value=value), number)
            _ticks(axes, mine["kept"])
            axes.set_title(title, loc="left")
        grid[0].set_yscale("log")
        grid[0].set_ylim(FLOOR * 0.6)
        grid[0].set_ylabel(f"ratio (less than {FLOOR:g} is drawn there)".replace("e-0", "e-"))
        for axes in grid[1:]:
            axes.set_ylim(0, max(axes.get_ylim()[1], 1))
        title = "Counting almost-null directions as null: invariance and meaning lost, space"
        subfigure.suptitle(f"{title} {space}", fontsize=11)
        models = [
            style.key(style.caption(str(model), rows), color=style.colour(number), ls=_line(number))
            for number, model in enumerate(mine["model"].unique())
        ]
        options: Look = {"ncols": 3, "fontsize": 8, "handlelength": 3}
        subfigure.legend(handles=rules + models, loc="outside lower center", **options)
    return figure


def _line(number: int) -> str:
    return LINES[number // len(style.COLOURS) % len(LINES)]


def _draw_curve(axes: Axes, curve: pd.DataFrame, number: int) -> None:
    curve = curve.assign(removed=1 - curve["kept"]).sort_values("kept", ascending=False)
    shade = style.colour(number)
    line = curve[curve["point"] != "centered"]
    look: Look = {"ls": _line(number), "lw": 1.3, "marker": ".", "ms": 4}
    axes.plot(line["removed"], line["value"], color=shade, **look)
    edge: Look = {"ls": "", "ms": 6, "mec": "black", "mew": 0.6, "zorder": 3, "clip_on": False}
    for rule, (marker, _) in RULES.items():
        at = curve[curve["point"] == rule]
        axes.plot(at["removed"], at["value"], marker=marker, color=shade, **edge)


def _ticks(axes: Axes, kept: pd.Series) -> None:
    axes.set_xscale("symlog", linthresh=1e-3, linscale=0.4)
    most = float((1 - kept).max())
    removed = [0.0, *[tick for tick in (0.001, 0.01, 0.1, 0.5) if tick <= most * 1.01]]
    axes.set_xticks(removed, [f"{100 * (1 - tick):g}" for tick in removed])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set(xlim=(-2e-4, max(most, 1e-3) * 1.25), xlabel="share of the head's rank kept (%)")
    style.grid_lines(axes, "y")


class Flags(cli.Selection): ...


def main(flags: Flags) -> None:
    curves, models = style.read_tables(flags, "rank_curves")
    rows = tabulate(curves, models)
    write_table(flags.path("tables/rank_curves.csv"), rounded(rows))
    style.write_figure(flags, "rank_curves", draw(rows, models))


if __name__ == "__main__":
    cli.run_step(main, Flags)
