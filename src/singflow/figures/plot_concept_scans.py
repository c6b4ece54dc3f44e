"""Draw figure 15: the extended concept scans of some labels."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from singflow import cli
from singflow.artifacts.tables import read_models, read_table
from singflow.figures import style
from singflow.figures.parameters import PlotConceptScans
from singflow.figures.scans import (
    CONTRAST,
    caption_in,
    count_images,
    read_scans,
    shades_up_to,
    spread,
    with_contrast,
)
from singflow.figures.style import Frames, Look

MOST_PANELS, COLUMNS = 4, 2
CUE = ["space", "model", "label", "concept"]  # what names a candidate for a spurious cue
WHISKERS: Look = {"fmt": "none", "ecolor": "0.55", "elinewidth": 0.8}
CANDIDATE: Look = {"marker": "D", "facecolors": "none", "edgecolors": "black", "s": 45, "lw": 1}
DOT: Look = {"marker": "o", "mfc": "0.8", "mec": "0.2", "ms": 4}
DIAMOND: Look = {"marker": "D", "mfc": "none", "mec": "black", "ms": 6}
LEGEND = {
    "mean angle; whisker: standard deviation over images": DOT,
    "candidate for a spurious cue: near, yet hardly moved": DIAMOND,
}


@style.styled
def draw(
    scans: Frames, table: pd.DataFrame, spurious: pd.DataFrame, labels: list[str], most: int
) -> Figure:
    """The `most` concepts nearest to every label, in at most MOST_PANELS panels."""
    everything = style.pairs_of(scans)
    pairs, drawn = everything[: max(1, MOST_PANELS // len(labels))], labels[:MOST_PANELS]
    columns = min(COLUMNS, len(pairs))
    deep = -(-len(pairs) // columns)
    cues = set(spurious[CUE].itertuples(index=False, name=None))
    cells = {
        (label, space, model): _nearest(scan, label, most)
        for label in drawn
        for space, model, scan in pairs
    }
    height = 0.75 + 0.115 * max(map(len, cells.values()))
    size = (style.PAGE, 1.2 + height * deep * len(drawn))
    figure, grid = style.panels(deep * len(drawn), columns, size, sharex=True)
    shades = shades_up_to(max(rows["contrast"].abs().max() for rows in cells.values()))
    for row, label in enumerate(drawn):
        mine = grid[row * deep : (row + 1) * deep].ravel()
        for axes, (space, model, _) in zip(mine, pairs, strict=False):
            rows = cells[label, space, model]
            marked = [(space, model, label, concept) in cues for concept in rows["concept"]]
            _neighbours(axes, rows, np.array(marked, dtype=bool), shades)
            images = count_images(int(rows["n"].iloc[0]))
            name = caption_in(space, model, table)
            axes.set_title(f"{label}, {images}\n{name}, {space}")
        for axes in mine[len(pairs) :]:
            axes.set_axis_off()
    bar: Look = {"label": CONTRAST, "location": "bottom", "shrink": 0.5, "aspect": 40}
    figure.colorbar(shades, ax=list(grid.flat), **bar)
    style.entitle(figure, f"The concepts nearest to images of {' and '.join(drawn)}, and their AS")
    several = any(spread(rows, "angle_std") is not None for rows in cells.values())
    handles = [style.key(label, ls="", **look) for label, look in LEGEND.items()]
    style.legend(figure, handles if several else [style.key("mean angle", ls="", **DOT)], 2)
    if len(everything) > len(pairs) or len(labels) > len(drawn):
        said = _left_out(scans, table, len(pairs), labels[MOST_PANELS:])
        figure.legends[0].set_title(style.wrapped(said, style.PAGE - 0.4))
    return figure


def _left_out(scans: Frames, table: pd.DataFrame, shown: int, labels: list[str]) -> str:
    """A note on what figure 15 leaves out if it shows `shown` panels per label."""
    parts = [f"labels {', '.join(labels)}"] if labels else []
    for space, models in scans.items():
        rest = [
            style.caption(model, style.of_space(table, space))
            for model in list(models)[max(shown, 0) :]
        ]
        if rest:
            named = "all models" if len(rest) == len(models) else ", ".join(rest)
            parts.append(f"{named} in {space}")
        shown -= len(models)
    return (
        f"Not shown: {'; '.join(parts)}. The numbers are in concepts/<space>/<model>.parquet and "
        "tables/spurious.csv."
    )


def _nearest(scan: pd.DataFrame, label: str, most: int) -> pd.DataFrame:
    rows = with_contrast(scan, label)
    return rows.sort_values(["angle_mean", "concept"], kind="stable").iloc[:most]


def _neighbours(axes: Axes, rows: pd.DataFrame, marked: np.ndarray, shades: ScalarMappable) -> None:
    angles, positions = rows["angle_mean"], np.arange(len(rows))
    axes.errorbar(angles, positions, xerr=spread(rows, "angle_std"), zorder=1, **WHISKERS)
    colours = shades.to_rgba(rows["contrast"].to_numpy())
    axes.scatter(angles, positions, s=22, c=colours, edgecolors="0.2", linewidths=0.6, zorder=2)
    axes.scatter(angles[marked], positions[marked], zorder=3, **CANDIDATE)
    axes.set_yticks(positions, list(rows["concept"]))
    axes.set(ylim=(len(rows) - 0.4, -0.6), xlabel="angle (degrees)")
    axes.tick_params(labelbottom=True)
    axes.grid(axis="y")


class Flags(PlotConceptScans, cli.Selection): ...


def main(flags: Flags) -> None:
    scans, labels = read_scans(flags, flags.labels, 2, "plot_concept_scans.labels")
    models = read_models(flags.path("tables/models.csv"))
    spurious = read_table(flags.path("tables/spurious.csv"), CUE)
    style.write_figure(flags, "fig15", draw(scans, models, spurious, labels, flags.most))


if __name__ == "__main__":
    cli.run_step(main, Flags)
