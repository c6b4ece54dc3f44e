"""Draw figure 4: |AS| per label."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from singflow import cli
from singflow.analyses.concepts import LABEL_IMAGES
from singflow.errors import check_labels
from singflow.figures import style
from singflow.figures.parameters import PlotLabels
from singflow.figures.style import Frames

MOST_LABELS = 16  # limit if the user chooses no labels
NEEDS = f"a label of {LABEL_IMAGES} images or more"


@style.styled
def draw(scores: Frames, table: pd.DataFrame, wanted: list[str]) -> Figure:
    """Violins of |AS| for the wanted labels, or else the labels with most images.

    All panels order the labels by their median over all models and spaces. A label with fewer than
    three images has only points, because a violin would invent a shape.
    """
    pairs = style.pairs_of(scores)
    everything = pd.concat(frame for *_, frame in pairs)
    everything = everything.assign(size=everything["as_deg"].abs())
    counts = everything.groupby("label").size().sort_values(ascending=False, kind="stable")
    check_labels(wanted, counts.index, "plot_labels.labels")
    drawn = everything[everything["label"].isin(wanted or counts.index[:MOST_LABELS])]
    medians = drawn.groupby("label")["size"].median().sort_values(kind="stable")
    labels = list(medians.index)
    columns = min(len(pairs), 4)
    rows = -(-len(pairs) // columns)
    size = (style.PAGE, 0.3 + (0.75 + 0.16 * len(labels)) * rows)
    figure, grid = style.panels(rows, columns, size, sharex=True, sharey=True)
    for number, (axes, (space, model, frame)) in enumerate(zip(grid.flat, pairs, strict=False)):
        _violins(axes, frame, labels, style.colour(list(scores[space]).index(model)))
        name = style.caption(model, style.of_space(table, space), "\n")
        name = style.wrapped(name, (style.PAGE - 2) / columns)
        axes.set_title(name if len(scores) == 1 else f"{name}\n{space}")
        if number + columns >= len(pairs):
            axes.set_xlabel("|AS| (degrees)")
            axes.tick_params(labelbottom=True)
    for axes in grid.flat[len(pairs) :]:
        axes.set_axis_off()
    grid.flat[0].set_xlim(0, 1.05 * drawn["size"].max() or 1.0)
    low, high = medians.iloc[0], medians.iloc[-1]
    finding = f"Median |AS| goes from {low:.1f}° ({labels[0]}) to {high:.1f}° ({labels[-1]})"
    return style.titled(figure, finding)


def _violins(axes: Axes, scores: pd.DataFrame, labels: list[str], shade: str) -> None:
    for position, label in enumerate(labels):
        sizes = scores.loc[scores["label"] == label, "as_deg"].abs().to_numpy()
        if len(sizes) >= LABEL_IMAGES and np.ptp(sizes) > 0:
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
    axes.grid(axis="y")


class Flags(PlotLabels, cli.Selection): ...


def main(flags: Flags) -> None:
    scores, models = style.read_tables(flags, "scores")
    counts = next(iter(scores[flags.spaces[0]].values()))["label"].value_counts()
    shown = flags.labels or counts.max() >= LABEL_IMAGES
    figure = draw(scores, models, flags.labels) if shown else None
    style.write_figure(flags, "fig4", figure, NEEDS)


if __name__ == "__main__":
    cli.run_step(main, Flags)
