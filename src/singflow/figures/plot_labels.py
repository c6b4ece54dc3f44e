"""Draw figure 4: |AS| per label."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from singflow import cli
from singflow.errors import check_labels
from singflow.figures import style
from singflow.figures.parameters import PlotLabels
from singflow.figures.style import Frames

MOST_LABELS = 16  # limit if the user chooses no labels


@style.styled
def draw(scores: Frames, table: pd.DataFrame, wanted: list[str]) -> Figure:
    """Violins of |AS| for the wanted labels, or else the labels with most images.

    All panels order the labels by their median over all models and spaces. A label with fewer than
    three images has only points, because a violin would invent a shape.
    """
    pairs = style.pairs_of(scores)
    everything = pd.concat(frame for _, _, frame in pairs).assign(size=lambda f: f["as_deg"].abs())
    counts = everything.groupby("label").size().sort_values(ascending=False, kind="stable")
    check_labels(wanted, counts.index, "plot_labels.labels")
    chosen = wanted or list(counts.index[:MOST_LABELS])
    drawn = everything[everything["label"].isin(chosen)]
    medians = drawn.groupby("label")["size"].median()
    labels = list(medians.sort_values(kind="stable").index)
    columns = min(3 if len(pairs) <= 9 else 8, len(pairs))
    rows = -(-len(pairs) // columns)
    few = columns <= 3
    size = (1.6 + (3.0 if few else 1.9) * columns, (1.2 + 0.26 * len(labels)) * rows)
    figure, grid = style.panels(rows, columns, size, sharex=True, sharey=True)
    for number, (axes, (space, model, frame)) in enumerate(zip(grid.flat, pairs, strict=False)):
        _violins(axes, frame, labels, style.colour(list(scores[space]).index(model)))
        name = style.caption(model, style.of_space(table, space), "\n")
        axes.set_title(f"{name}\n{space}", fontsize=9 if few else 8)
        if number + columns >= len(pairs):
            axes.set_xlabel("|AS| (degrees)")
            axes.tick_params(labelbottom=True)
    for axes in grid.flat[len(pairs) :]:
        axes.set_visible(False)
    largest = drawn["size"].max()
    grid.flat[0].set_xlim(0, 1.05 * largest if largest > 0 else 1.0)
    if len(counts) > len(chosen):
        kind = "chosen labels" if wanted else "labels with most images"
        said = f"{len(chosen)} {kind} of {len(counts)}; the others are in tables/labels.csv"
        figure.supxlabel(said, fontsize=8)
    return figure


def _violins(axes: Axes, scores: pd.DataFrame, labels: list[str], shade: str) -> None:
    for position, label in enumerate(labels):
        sizes = scores.loc[scores["label"] == label, "as_deg"].abs().to_numpy()
        if len(sizes) >= 3 and np.ptp(sizes) > 0:
            parts: Any = axes.violinplot(
                sizes, [position], orientation="horizontal", widths=0.85, showextrema=False
            )
            for body in parts["bodies"]:
                body.set(facecolor=shade, edgecolor=shade, alpha=0.35)
            axes.plot(np.median(sizes), position, "|", color=shade, ms=9, mew=2)
        places = np.full(len(sizes), position)
        dots = axes.scatter(sizes, places, s=7, color=shade, alpha=0.7, linewidths=0)
        dots.set_rasterized(len(sizes) > 500)  # a PDF would store every point
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(-0.7, len(labels) - 0.3)
    style.grid_lines(axes, "y")


class Flags(PlotLabels, cli.Selection): ...


def main(flags: Flags) -> None:
    style.write_figure(flags, "fig4", draw(*style.read_tables(flags, "scores"), flags.labels))


if __name__ == "__main__":
    cli.run_step(main, Flags)
