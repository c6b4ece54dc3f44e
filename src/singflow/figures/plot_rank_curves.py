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
    "logit_relative_mean": ("(a) logit change / spread of logits", 1, FLOOR),
    "top1_changed": ("(b) predictions that flip (%)", 100, 0.0),
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
    names = list(curves["model"].unique())
    height = 0.4 + len(spaces) * (2.2 + 0.13 * -(-(len(names) + len(RULES)) // 3))
    figure, subfigures = style.subfigures(len(spaces), style.PAGE, height)
    last = curves.loc[curves.groupby(["space", "model"])["kept"].idxmin()]
    flips = style.span(100 * last["top1_changed"], "{:.0f}", " %")
    style.entitle(
        figure,
        f"Removal down to {style.span(100 * last['kept'], '{:.0f}', ' %')} of a head's rank turns"
        f" images by {style.span(last['is_mean_deg'], '{:.0f}')} and flips {flips} of predictions",
    )
    for subfigure, space in zip(subfigures, spaces, strict=True):
        mine, rows = curves[curves["space"] == space], style.of_space(table, space)
        grid = subfigure.subplots(1, len(PANELS))
        for axes, (column, (title, unit, least)) in zip(grid, PANELS.items(), strict=True):
            for number, (_, curve) in enumerate(mine.groupby("model", sort=False)):
                value = (curve[column] * unit).clip(lower=least)
                _draw_curve(axes, curve.assign(value=value), number, len(names))
            _ticks(axes, mine["kept"])
            axes.set_title(title)
        grid[0].set(yscale="log", ylim=(FLOOR * 0.6, None))
        grid[0].set_yticks([FLOOR, 1e-4, 1e-2, 1], ["1e-6 or less", "1e-4", "0.01", "1"])
        grid[0].minorticks_off()
        for axes in grid[1:]:
            axes.set_ylim(bottom=min(0, axes.get_ylim()[0]), top=max(axes.get_ylim()[1], 1))
        handles = [
            style.key(name, color="0.4", ls="", marker=marker, mec="black")
            for marker, name in RULES.values()
        ]
        handles += [
            style.key(style.caption(model, rows), color=style.colour(number), ls=_line(number))
            for number, model in enumerate(names)
        ]
        style.legend(subfigure, handles)
        if len(spaces) > 1:
            subfigure.suptitle(space, fontsize="medium")
    return figure


def _line(number: int) -> str:
    return LINES[number // len(style.COLOURS) % len(LINES)]


def _draw_curve(axes: Axes, curve: pd.DataFrame, number: int, count: int) -> None:
    curve = curve.assign(removed=1 - curve["kept"]).sort_values("kept", ascending=False)
    look: Look = {"color": style.colour(number), "clip_on": False}
    line = curve[curve["point"] != "centered"]
    lines = axes.plot(line["removed"], line["value"], ls=_line(number), marker=".", **look)
    edge: Look = look | {"ls": "", "mec": "black", "mew": 0.5, "zorder": 3}
    for rule, (marker, _) in RULES.items():
        at = curve[curve["point"] == rule]
        lines += axes.plot(at["removed"], at["value"], marker=marker, **edge)
    style.apart(axes, lines, number, count)


def _ticks(axes: Axes, kept: pd.Series) -> None:
    axes.set_xscale("symlog", linthresh=1e-3, linscale=0.4)
    most = float((1 - kept).max())
    removed = [0.0, *[tick for tick in (0.001, 0.01, 0.1, 0.5) if tick <= most * 1.01]]
    axes.set_xticks(removed, [f"{100 * (1 - tick):g}" for tick in removed])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set(xlim=(-2e-4, max(most, 1e-3) * 1.25), xlabel="share of the head's rank kept (%)")
    axes.grid(axis="y")


Flags = cli.Selection


def main(flags: Flags) -> None:
    curves, models = style.read_tables(flags, "rank_curves")
    rows = tabulate(curves, models)
    write_table(flags.path("tables/rank_curves.csv"), rounded(rows))
    style.write_figure(flags, "rank_curves", draw(rows, models))


if __name__ == "__main__":
    cli.run_step(main, Flags)
