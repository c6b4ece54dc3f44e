"""Draw the rank curves of all models and write them as one table."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from singflow import cli
from singflow.analyses.tables import qualify
from singflow.artifacts.tables import read_models, read_parquet, write_table
from singflow.figures.style import COLOURS, STYLE, caption, colour, of_space, write_figure

FLOOR = 1e-6
SCALE = {"linthresh": 1e-3, "linscale": 0.4}
LINES = ["-", "--", ":", "-."]
RULES = {
    "exact": ("o", "exact: what no logit sees"),
    "energy": ("s", "energy"),
    "centered": ("D", "centered: what softmax cannot see"),
}
PANELS = {
    "logit_relative_mean": "(a) logit change / spread of the logits",
    "top1_changed": "(b) images whose top-1 flips (%)",
    "is_mean_deg": "(c) mean IS (degrees)",
}


def tabulate(curves: dict[str, dict[str, pd.DataFrame]], models: pd.DataFrame) -> pd.DataFrame:
    """Rows of all curves, by space and model, with the columns that `qualify` adds.

    The null dimension of a row becomes removed_dim, because null_dim is that of the study's
    projector.
    """
    rows = [
        table.assign(space=space, model=model)[["space", "model", *table]]
        for space, tables in curves.items()
        for model, table in tables.items()
    ]
    return qualify(
        pd.concat(rows, ignore_index=True).rename(columns={"null_dim": "removed_dim"}), models
    )


def draw(curves: pd.DataFrame, table: pd.DataFrame) -> Figure:
    """Relative logit change, top-1 flips and IS against the share of the head's rank that is kept.

    There is one row of panels per space. Colours and line styles are models, symbols rank rules.
    """
    spaces = curves["space"].unique()
    with plt.rc_context(STYLE):
        names = len(curves["model"].unique())
        figure = plt.figure(
            figsize=(11.5, len(spaces) * (4.0 + 0.17 * -(-names // 3)) + 0.5), layout="constrained"
        )
        for subfigure, space in zip(
            figure.subfigures(len(spaces), 1, squeeze=False)[:, 0], spaces, strict=True
        ):
            mine, rows = curves[curves["space"] == space], of_space(table, space)
            grid = subfigure.subplots(1, len(PANELS))
            for axes, (column, title) in zip(grid, PANELS.items(), strict=True):
                for number, (_, curve) in enumerate(mine.groupby("model", sort=False)):
                    _draw_curve(axes, curve.sort_values("kept", ascending=False), column, number)
                _ticks(axes, mine["kept"])
                axes.set_title(title, loc="left")
            grid[0].set_yscale("log")
            grid[0].set_ylim(FLOOR * 0.6)
            grid[0].set_ylabel(f"ratio (less than {FLOOR:g} is drawn there)".replace("e-0", "e-"))
            grid[1].set_ylim(0, max(grid[1].get_ylim()[1], 1))
            grid[2].set_ylim(0, max(grid[2].get_ylim()[1], 1))
            subfigure.suptitle(
                "Counting almost-null directions as null: invariance and meaning lost, space "
                f"{space}",
                fontsize=11,
            )
            models = [
                Line2D(
                    [], [], color=colour(number), ls=_line(number), label=caption(str(model), rows)
                )
                for number, model in enumerate(mine["model"].unique())
            ]
            rules = [
                Line2D([], [], color="0.4", ls="", marker=marker, mec="black", label=name)
                for marker, name in RULES.values()
            ]
            subfigure.legend(
                handles=rules + models,
                loc="outside lower center",
                ncols=3,
                fontsize=8,
                handlelength=3,
            )
        return figure


def _line(number: int) -> str:
    return LINES[number // len(COLOURS) % len(LINES)]


def _draw_curve(axes: Axes, curve: pd.DataFrame, column: str, number: int) -> None:
    floor, scale = (
        (FLOOR, 1)
        if column == "logit_relative_mean"
        else (0.0, 100 if column == "top1_changed" else 1)
    )
    value = (curve[column] * scale).clip(lower=floor)
    on_curve = curve["point"] != "centered"
    axes.plot(
        1 - curve["kept"][on_curve],
        value[on_curve],
        color=colour(number),
        ls=_line(number),
        lw=1.3,
        marker=".",
        ms=4,
    )
    for rule, (marker, _) in RULES.items():
        at = curve["point"] == rule
        axes.plot(
            1 - curve["kept"][at],
            value[at],
            ls="",
            marker=marker,
            ms=6,
            color=colour(number),
            mec="black",
            mew=0.6,
            zorder=3,
            clip_on=False,
        )


def _ticks(axes: Axes, kept: pd.Series) -> None:
    axes.set_xscale("symlog", **SCALE)
    most = float((1 - kept).max())
    removed = [0.0, *[tick for tick in (0.001, 0.01, 0.1, 0.5) if tick <= most * 1.01]]
    axes.set_xticks(removed, [f"{100 * (1 - tick):g}" for tick in removed])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(-2e-4, max(most, 1e-3) * 1.25)
    axes.set_xlabel("share of the head's rank kept (%)")
    axes.grid(axis="y", color="0.92", lw=0.6)


class Flags(cli.Selection):
    pass


def main(flags: Flags) -> None:
    models = read_models(flags.path("tables/models.csv"))
    curves = flags.gather("rank_curves", lambda path: read_parquet(path, "rank_curves"))
    rows = tabulate(curves, models)
    write_table(flags.path("tables/rank_curves.csv"), rows)
    write_figure(flags, "rank_curves", draw(rows, models))


if __name__ == "__main__":
    cli.run_step(main, Flags)
