"""Figures that compare labels: figures 4 and 14."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from singflow.errors import check_labels
from singflow.figures import STYLE, caption, colour


def fig4(scores: dict[str, dict[str, pd.DataFrame]], table: pd.DataFrame, wanted: list[str], most_labels: int = 16) -> Figure:
    """Violins of |AS| per label, one panel per space and model: of the wanted labels, or of those with most images.

    Labels are in the same order in every panel, by their median over all models. A label with fewer than three images
    shows its images as points, because a violin would invent a shape.
    """
    everything = pd.concat(each for models in scores.values() for each in models.values())
    counts = everything.groupby("label").size().sort_values(ascending=False, kind="stable")
    check_labels(wanted, counts.index, "plot_fig4.labels")
    chosen = wanted or list(counts.index[:most_labels])
    order = everything[everything["label"].isin(chosen)].assign(size=lambda f: f["as_deg"].abs()).groupby("label")["size"].median()
    labels = list(order.sort_values(kind="stable").index)
    panels = [(space, model, each) for space, models in scores.items() for model, each in models.items()]
    columns = min(3 if len(panels) <= 9 else 8, len(panels))
    width, height = 1.6 + (3.0 if columns <= 3 else 1.9) * columns, 1.2 + 0.26 * len(labels)
    with plt.rc_context(STYLE):
        figure, grid = plt.subplots(
            -(-len(panels) // columns), columns, figsize=(width, height * -(-len(panels) // columns)),
            sharex=True, sharey=True, squeeze=False, layout="constrained",
        )  # fmt: skip
        for number, (space, model, each) in enumerate(panels):
            axes = grid.flat[number]
            rows = table[table["space"] == space].set_index("model")
            _violins(axes, each, labels, colour(list(scores[space]).index(model)))
            axes.set_title(f"{caption(model, rows)}\n{space}".replace(" (", "\n("), fontsize=9 if columns <= 3 else 8)
            if number + columns >= len(panels):
                axes.set_xlabel("|AS| (degrees)")
                axes.tick_params(labelbottom=True)
        for axes in grid.flat[len(panels) :]:
            axes.set_visible(False)
        largest = everything.loc[everything["label"].isin(chosen), "as_deg"].abs().max()
        grid.flat[0].set_xlim(0, 1.05 * largest if largest > 0 else 1.0)
        if len(counts) > len(chosen):
            kind = "chosen labels" if wanted else "labels with most images"
            figure.supxlabel(f"{len(chosen)} {kind} of {len(counts)}; the others are in tables/labels.csv", fontsize=8)
        return figure


def _violins(axes: Axes, scores: pd.DataFrame, labels: list[str], shade: str) -> None:
    for position, label in enumerate(labels):
        sizes = scores.loc[scores["label"] == label, "as_deg"].abs().to_numpy()
        if len(sizes) >= 3 and np.ptp(sizes) > 0:
            parts = axes.violinplot(sizes, [position], orientation="horizontal", widths=0.85, showextrema=False)
            bodies: Any = parts["bodies"]
            for body in bodies:
                body.set(facecolor=shade, edgecolor=shade, alpha=0.35)
            axes.plot(np.median(sizes), position, "|", color=shade, ms=9, mew=2)
        axes.scatter(sizes, np.full(len(sizes), position), s=7, color=shade, alpha=0.7, linewidths=0)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(-0.7, len(labels) - 0.3)
    axes.grid(axis="y", color="0.92", lw=0.6)
    axes.set_axisbelow(True)
