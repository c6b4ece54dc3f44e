"""Draw figure 15: the extended concept scans of some labels."""

import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from singflow import cli
from singflow.artifacts.tables import read_models, read_table
from singflow.figures.parameters import PlotConceptScans
from singflow.figures.scans import (
    CONTRAST,
    Scans,
    caption_in,
    count_images,
    panels_of,
    read_scans,
    shades_up_to,
    with_contrast,
)
from singflow.figures.style import STYLE, caption, of_space, write_figure

MOST_PANELS = 8
COLUMNS = 4
CUE = ["space", "model", "label", "concept"]  # what names a candidate for a spurious cue


def draw(
    scans: Scans, table: pd.DataFrame, spurious: pd.DataFrame, labels: list[str], most: int
) -> Figure:
    """Extended concept scans (figures 15 and 16): the `most` concepts nearest to every label.

    Dots are mean angles, whiskers standard deviations over images, colours contrasts. Candidates of
    `spurious` are marked. At most MOST_PANELS panels are drawn; the figure names what it leaves
    out.
    """
    everything = panels_of(scans)
    panels = everything[: max(1, MOST_PANELS // len(labels))]
    drawn = labels[:MOST_PANELS]
    columns = min(COLUMNS, len(panels))
    deep = -(-len(panels) // columns)
    cues = set(spurious[CUE].itertuples(index=False, name=None))
    with plt.rc_context(STYLE):
        cells = {
            (label, space, model): _nearest(scan, label, most)
            for label in drawn
            for space, model, scan in panels
        }
        height = 1.3 + 0.155 * max(map(len, cells.values()))
        size = (1.0 + 3.9 * columns, 1.0 + height * deep * len(drawn))
        figure, grid = plt.subplots(
            deep * len(drawn),
            columns,
            figsize=size,
            sharex=True,
            squeeze=False,
            layout="constrained",
        )
        shades = shades_up_to(max(rows["contrast"].abs().max() for rows in cells.values()))
        for row, label in enumerate(drawn):
            mine = grid[row * deep : (row + 1) * deep].ravel()
            for axes, (space, model, _) in zip(mine, panels, strict=False):
                rows = cells[label, space, model]
                marked = [(space, model, label, concept) in cues for concept in rows["concept"]]
                _neighbours(axes, rows, np.array(marked, dtype=bool), shades)
                name = caption_in(space, model, table)
                axes.set_title(
                    f"{label}, {count_images(int(rows['n'].iloc[0]))}\n{name}\n{space}",
                    fontsize=8.5,
                )
            for axes in mine[len(panels) :]:
                axes.set_visible(False)
        figure.colorbar(
            shades, ax=list(grid.flat), label=CONTRAST, shrink=min(1.0, 4.0 / size[1]), aspect=20
        )
        legend = [
            Line2D(
                [],
                [],
                ls="",
                marker="o",
                mfc="0.8",
                mec="0.2",
                ms=4.5,
                label="mean angle; whisker: standard deviation over images",
            ),
            Line2D(
                [],
                [],
                ls="",
                marker="D",
                mfc="none",
                mec="black",
                ms=8,
                label="candidate for a spurious cue: near, yet hardly moved",
            ),
        ]
        figure.legend(
            handles=legend, loc="outside upper center", ncols=2 if columns > 1 else 1, fontsize=8
        )
        if len(everything) > len(panels) or len(labels) > len(drawn):
            figure.supxlabel(
                textwrap.fill(
                    _left_out(scans, table, len(panels), labels[MOST_PANELS:]), 50 * columns
                ),
                fontsize=8,
            )
        return figure


def _left_out(scans: Scans, table: pd.DataFrame, shown: int, labels: list[str]) -> str:
    """A note on what figure 15 leaves out if it shows `shown` panels per label."""
    parts = [f"labels {', '.join(labels)}"] if labels else []
    for space, models in scans.items():
        rest = [caption(model, of_space(table, space)) for model in list(models)[max(shown, 0) :]]
        parts += (
            [f"{'all models' if len(rest) == len(models) else ', '.join(rest)} in {space}"]
            if rest
            else []
        )
        shown -= len(models)
    return (
        f"Not shown: {'; '.join(parts)}. The numbers are in concepts/<space>/<model>.parquet and "
        "tables/spurious.csv."
    )


def _nearest(scan: pd.DataFrame, label: str, most: int) -> pd.DataFrame:
    return (
        with_contrast(scan, label).sort_values(["angle_mean", "concept"], kind="stable").iloc[:most]
    )


def _neighbours(axes: Axes, rows: pd.DataFrame, marked: np.ndarray, shades: ScalarMappable) -> None:
    positions = np.arange(len(rows))
    axes.errorbar(
        rows["angle_mean"],
        positions,
        xerr=rows["angle_std"],
        fmt="none",
        ecolor="0.55",
        elinewidth=0.8,
        zorder=1,
    )
    colours = shades.to_rgba(rows["contrast"].to_numpy())
    axes.scatter(
        rows["angle_mean"], positions, s=22, c=colours, edgecolors="0.2", linewidths=0.6, zorder=2
    )
    axes.scatter(
        rows["angle_mean"][marked],
        positions[marked],
        s=75,
        marker="D",
        facecolors="none",
        edgecolors="black",
        lw=1,
        zorder=3,
    )
    axes.set_yticks(positions, list(rows["concept"]), fontsize=7)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel("angle (degrees)")
    axes.tick_params(labelbottom=True)
    axes.grid(axis="y", color="0.92", lw=0.6)
    axes.set_axisbelow(True)


class Flags(PlotConceptScans, cli.Selection):
    pass


def main(flags: Flags) -> None:
    scans, labels = read_scans(flags, flags.labels, 2, "plot_concept_scans.labels")
    models = read_models(flags.path("tables/models.csv"))
    spurious = read_table(flags.path("tables/spurious.csv"), CUE)
    write_figure(flags, "fig15", draw(scans, models, spurious, labels, flags.most))


if __name__ == "__main__":
    cli.run_step(main, Flags)
