"""Draw figure 5: the concept scan of one label."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from singflow import cli
from singflow.artifacts.tables import read_models
from singflow.figures.parameters import PlotConcepts
from singflow.figures.scans import (
    CONTRAST,
    SHADES,
    Scans,
    caption_in,
    count_images,
    panels_of,
    read_scans,
    shades_up_to,
    with_contrast,
)
from singflow.figures.style import STYLE, colour, write_figure

PANELS = 6  # with more panels, the figure shows one table per space


def draw(scans: Scans, table: pd.DataFrame, label: str, extremes: int) -> Figure:
    """Concept scan of one label: angle and AS of concepts with the weakest and strongest contrast.

    The contrast is AS minus the mean AS over all concepts (dotted line). Up to PANELS pairs of
    space and model have a panel each; whiskers are standard deviations over images. More pairs are
    shown as one table per space, ranked by the mean size of the contrast: numbers are angles,
    colours are contrasts.
    """
    mine = {
        space: {model: with_contrast(scan, label) for model, scan in models.items()}
        for space, models in scans.items()
    }
    few = len(panels_of(mine)) <= PANELS
    count = int(next(iter(next(iter(mine.values())).values()))["n"].iloc[0])
    with plt.rc_context(STYLE):
        figure = (_draw_panels if few else _draw_tables)(mine, table, extremes)
        figure.suptitle(f"{label}, {count_images(count)}", fontsize=11)
        return figure


def _extremes(sizes: pd.Series, count: int) -> tuple[list[str], bool]:
    """Concepts, smallest size first, and whether concepts between the extremes were left out."""
    ordered = list(sizes.sort_index().sort_values(kind="stable").index)
    cut = len(ordered) > 2 * count
    return (ordered[:count] + ordered[-count:] if cut else ordered), cut


def _draw_panels(scans: Scans, table: pd.DataFrame, extremes: int) -> Figure:
    panels = panels_of(scans)
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    shown = min(2 * extremes, len(panels[0][2]))
    figure = plt.figure(
        figsize=(0.6 + 4.4 * columns, 0.5 + (1.3 + 0.25 * shown) * rows), layout="constrained"
    )
    boxes = figure.subfigures(rows, columns, squeeze=False, wspace=0.03)
    pairs = []
    for number, (space, model, scan) in enumerate(panels):
        box = boxes.flat[number]
        left, right = box.subplots(1, 2, sharey=True)
        pairs.append((left, right))
        _concepts(
            left,
            right,
            scan.set_index("concept"),
            extremes,
            colour(list(scans[space]).index(model)),
        )
        box.suptitle(f"{caption_in(space, model, table)}, {space}", fontsize=9)
    for same in zip(*pairs, strict=True):
        limits = [axes.get_xlim() for axes in same]
        for axes in same:
            axes.set_xlim(min(low for low, _ in limits), max(high for _, high in limits))
    return figure


def _concepts(left: Axes, right: Axes, scan: pd.DataFrame, extremes: int, shade: str) -> None:
    concepts, cut = _extremes(scan["contrast"].abs(), extremes)
    shown = scan.loc[concepts]
    positions = np.arange(len(shown))
    left.errorbar(
        shown["angle_mean"], positions, xerr=shown["angle_std"], fmt="o", color=shade, ms=4, lw=1
    )
    common = scan["as_mean"].mean()
    spread = {"lw": 1, "ecolor": "0.3"}
    right.barh(
        positions,
        shown["contrast"],
        0.6,
        left=common,
        xerr=shown["as_std"],
        color=shade,
        error_kw=spread,
    )
    right.axvline(0, color="0.7", lw=0.8)
    right.axvline(common, color="0.3", lw=1, ls=":")
    left.set_yticks(positions, concepts)
    left.set_ylim(-0.7, len(shown) - 0.3 + 0.4 * cut)
    left.set_xlabel("angle (degrees)")
    right.set_xlabel("AS (degrees), from its mean\nover all concepts (dotted)")
    for axes in (left, right):
        axes.grid(axis="y", color="0.92", lw=0.6)
        axes.set_axisbelow(True)
        if cut:
            axes.axhline(extremes - 0.5, color="0.5", lw=0.8, ls=":")
    if cut:
        for text, place in (("strongest", len(shown)), ("weakest", extremes - 0.5)):
            right.annotate(
                text,
                (1, place),
                xycoords=("axes fraction", "data"),
                ha="right",
                va="top",
                fontsize=7,
                color="0.4",
            )


def _draw_tables(scans: Scans, table: pd.DataFrame, extremes: int) -> Figure:
    columns = max(map(len, scans.values()))
    shown = min(2 * extremes, len(panels_of(scans)[0][2]))
    size = (4.0 + 0.5 * columns, 0.6 + (1.9 + 0.24 * shown) * len(scans))
    figure, grid = plt.subplots(len(scans), 1, figsize=size, squeeze=False, layout="constrained")
    angles, scores = (
        {
            space: pd.DataFrame(
                {m: scan.set_index("concept")[column] for m, scan in models.items()}
            )
            for space, models in scans.items()
        }
        for column in ("angle_mean", "contrast")
    )
    chosen = {
        space: _extremes(contrasts.abs().mean(axis=1), extremes)
        for space, contrasts in scores.items()
    }
    drawn = {
        space: scores[space].loc[concepts].to_numpy() for space, (concepts, _) in chosen.items()
    }
    largest = max(np.abs(cells).max() for cells in drawn.values())
    shades = shades_up_to(largest)
    for axes, (space, (concepts, cut)) in zip(grid.flat, chosen.items(), strict=True):
        cells = drawn[space]
        axes.pcolormesh(cells, cmap=SHADES, norm=shades.norm, edgecolors="white", lw=1)
        for (row, column), angle in np.ndenumerate(angles[space].loc[concepts].to_numpy()):
            pale = abs(cells[row, column]) <= 0.65 * largest
            axes.text(
                column + 0.5,
                row + 0.45,
                f"{angle:.0f}",
                ha="center",
                va="center",
                fontsize=7,
                color="black" if pale else "white",
            )
        models = [caption_in(space, model, table) for model in scans[space]]
        axes.set_xticks(np.arange(len(models)) + 0.5, models, rotation=45, ha="right", fontsize=8)
        axes.set_yticks(np.arange(len(concepts)) + 0.5, concepts, fontsize=8)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        kind = (
            f"{extremes} weakest (below the line) and {extremes} strongest concepts"
            if cut
            else "all concepts"
        )
        axes.set_title(
            f"{space}: {kind} by their contrast, over models\nnumbers: mean angle (degrees)",
            fontsize=9,
        )
        if cut:
            axes.axhline(extremes, color="0.3", lw=1.2, ls=":")
    figure.colorbar(shades, ax=list(grid.flat), label=CONTRAST, shrink=0.6, aspect=30)
    return figure


class Flags(PlotConcepts, cli.Selection):
    pass


def main(flags: Flags) -> None:
    wanted = [flags.label] if flags.label else []
    scans, (label,) = read_scans(flags, wanted, 1, "plot_concepts.label")
    models = read_models(flags.path("tables/models.csv"))
    write_figure(flags, "fig5", draw(scans, models, label, flags.extremes))


if __name__ == "__main__":
    cli.run_step(main, Flags)
