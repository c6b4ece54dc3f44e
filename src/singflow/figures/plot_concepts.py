"""Draw figure 5: the concept scan of one label."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from singflow import cli
from singflow.artifacts.tables import read_models
from singflow.figures import style
from singflow.figures.parameters import PlotConcepts
from singflow.figures.scans import (
    CONTRAST,
    SHADES,
    caption_in,
    count_images,
    read_scans,
    shades_up_to,
    with_contrast,
)
from singflow.figures.style import Frames, Look

PANELS = 6  # with more panels, the figure shows one table per space


@style.styled
def draw(scans: Frames, table: pd.DataFrame, label: str, extremes: int) -> Figure:
    """Concepts with the weakest and strongest contrast for one label, with standard deviations.

    Up to PANELS pairs of space and model have a panel each. More are shown as one table per space,
    ranked by the mean size of the contrast: numbers are angles, colours are contrasts.
    """
    mine = {
        space: {model: with_contrast(scan, label) for model, scan in models.items()}
        for space, models in scans.items()
    }
    pairs = style.pairs_of(mine)
    first = pairs[0][2]
    shown = min(2 * extremes, len(first))
    draw_them = _draw_panels if len(pairs) <= PANELS else _draw_tables
    figure = draw_them(mine, table, extremes, shown)
    figure.suptitle(f"{label}, {count_images(int(first['n'].iloc[0]))}", fontsize=11)
    return figure


def _extremes(sizes: pd.Series, count: int) -> tuple[list[str], bool]:
    """Concepts, smallest size first, and whether concepts between the extremes were left out."""
    ordered = list(sizes.sort_index().sort_values(kind="stable").index)
    cut = len(ordered) > 2 * count
    return (ordered[:count] + ordered[-count:] if cut else ordered), cut


def _draw_panels(scans: Frames, table: pd.DataFrame, extremes: int, shown: int) -> Figure:
    pairs = style.pairs_of(scans)
    columns = min(3, len(pairs))
    rows = -(-len(pairs) // columns)
    size = (0.6 + 4.4 * columns, 0.5 + (1.3 + 0.25 * shown) * rows)
    figure = style.new_figure(size, layout="constrained")
    boxes = figure.subfigures(rows, columns, squeeze=False, wspace=0.03).flat
    sides = []
    for box, (space, model, scan) in zip(boxes, pairs, strict=False):
        left, right = box.subplots(1, 2, sharey=True)
        sides.append((left, right))
        shade = style.colour(list(scans[space]).index(model))
        _concepts(left, right, scan.set_index("concept"), extremes, shade)
        box.suptitle(f"{caption_in(space, model, table)}, {space}", fontsize=9)
    for same in zip(*sides, strict=True):
        lows, highs = zip(*(axes.get_xlim() for axes in same), strict=True)
        for axes in same:
            axes.set_xlim(min(lows), max(highs))
    return figure


def _concepts(left: Axes, right: Axes, scan: pd.DataFrame, extremes: int, shade: str) -> None:
    concepts, cut = _extremes(scan["contrast"].abs(), extremes)
    shown = scan.loc[concepts]
    positions = np.arange(len(shown))
    dots: Look = {"fmt": "o", "ms": 4, "lw": 1, "color": shade}
    left.errorbar(shown["angle_mean"], positions, xerr=shown["angle_std"], **dots)
    common = scan["as_mean"].mean()
    bars: Look = {"xerr": shown["as_std"], "error_kw": {"lw": 1, "ecolor": "0.3"}, "color": shade}
    right.barh(positions, shown["contrast"], 0.6, left=common, **bars)
    right.axvline(0, color="0.7", lw=0.8)
    right.axvline(common, color="0.3", lw=1, ls=":")
    left.set_yticks(positions, concepts)
    left.set(ylim=(-0.7, len(shown) - 0.3 + 0.4 * cut), xlabel="angle (degrees)")
    right.set_xlabel("AS (degrees), from its mean\nover all concepts (dotted)")
    for axes in (left, right):
        style.grid_lines(axes, "y")
        if cut:
            axes.axhline(extremes - 0.5, color="0.5", lw=0.8, ls=":")
    if cut:
        look: Look = {"ha": "right", "va": "top", "fontsize": 7, "color": "0.4"}
        for text, place in (("strongest", len(shown)), ("weakest", extremes - 0.5)):
            right.annotate(text, (1, place), xycoords=("axes fraction", "data"), **look)


def _draw_tables(scans: Frames, table: pd.DataFrame, extremes: int, shown: int) -> Figure:
    columns = max(map(len, scans.values()))
    size = (4.0 + 0.5 * columns, 0.6 + (1.9 + 0.24 * shown) * len(scans))
    figure, grid = style.panels(len(scans), 1, size)
    tables = {}
    for space, models in scans.items():
        angles, contrasts = (
            pd.DataFrame({m: scan.set_index("concept")[column] for m, scan in models.items()})
            for column in ("angle_mean", "contrast")
        )
        concepts, cut = _extremes(contrasts.abs().mean(axis=1), extremes)
        cells = contrasts.loc[concepts].to_numpy()
        tables[space] = (angles.loc[concepts], cells, concepts, cut)
    largest = max(np.abs(cells).max() for _, cells, *_ in tables.values())
    shades = shades_up_to(largest)
    for axes, (space, (angles, cells, concepts, cut)) in zip(
        grid.flat, tables.items(), strict=True
    ):
        axes.pcolormesh(cells, cmap=SHADES, norm=shades.norm, edgecolors="white", lw=1)
        for (row, column), angle in np.ndenumerate(angles.to_numpy()):
            ink = "black" if abs(cells[row, column]) <= 0.65 * largest else "white"
            place: Look = {"ha": "center", "va": "center", "fontsize": 7}
            axes.text(column + 0.5, row + 0.45, f"{angle:.0f}", color=ink, **place)
        names = [caption_in(space, model, table) for model in scans[space]]
        axes.set_xticks(np.arange(len(names)) + 0.5, names, rotation=45, ha="right", fontsize=8)
        axes.set_yticks(np.arange(len(concepts)) + 0.5, concepts, fontsize=8)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        kind = (
            f"{extremes} weakest (below the line) and {extremes} strongest concepts"
            if cut
            else "all concepts"
        )
        title = f"{space}: {kind} by their contrast, over models\nnumbers: mean angle (degrees)"
        axes.set_title(title, fontsize=9)
        if cut:
            axes.axhline(extremes, color="0.3", lw=1.2, ls=":")
    figure.colorbar(shades, ax=list(grid.flat), label=CONTRAST, shrink=0.6, aspect=30)
    return figure


class Flags(PlotConcepts, cli.Selection): ...


def main(flags: Flags) -> None:
    wanted = [flags.label] if flags.label else []
    scans, (label,) = read_scans(flags, wanted, 1, "plot_concepts.label")
    models = read_models(flags.path("tables/models.csv"))
    style.write_figure(flags, "fig5", draw(scans, models, label, flags.extremes))


if __name__ == "__main__":
    cli.run_step(main, Flags)
