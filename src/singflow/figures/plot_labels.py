"""Draw figure 4: |AS| per label."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from singflow import cli
from singflow.artifacts.tables import read_models, read_parquet
from singflow.errors import check_labels
from singflow.figures.parameters import PlotLabels
from singflow.figures.style import STYLE, caption, colour, of_space, write_figure

MOST_LABELS = 16  # limit if the user chooses no labels


def draw(
    scores: dict[str, dict[str, pd.DataFrame]], table: pd.DataFrame, wanted: list[str]
) -> Figure:
    """Violins of |AS| for the wanted labels, or else the labels with most images.

    There is one panel per space and model. All panels order the labels by their median over all
    models and spaces. A label with fewer than three images has only points, because a violin would
    invent a shape.
    """
    everything = pd.concat(frame for models in scores.values() for frame in models.values())
    counts = everything.groupby("label").size().sort_values(ascending=False, kind="stable")
    check_labels(wanted, counts.index, "plot_labels.labels")
    chosen = wanted or list(counts.index[:MOST_LABELS])
    order = (
        everything[everything["label"].isin(chosen)]
        .assign(size=lambda f: f["as_deg"].abs())
        .groupby("label")["size"]
        .median()
    )
    labels = list(order.sort_values(kind="stable").index)
    panels = [
        (space, model, frame) for space, models in scores.items() for model, frame in models.items()
    ]
    columns = min(3 if len(panels) <= 9 else 8, len(panels))
    width, height = 1.6 + (3.0 if columns <= 3 else 1.9) * columns, 1.2 + 0.26 * len(labels)
    with plt.rc_context(STYLE):
        figure, grid = plt.subplots(
            -(-len(panels) // columns),
            columns,
            figsize=(width, height * -(-len(panels) // columns)),
            sharex=True,
            sharey=True,
            squeeze=False,
            layout="constrained",
        )
        for number, (space, model, frame) in enumerate(panels):
            axes = grid.flat[number]
            rows = of_space(table, space)
            _violins(axes, frame, labels, colour(list(scores[space]).index(model)))
            axes.set_title(
                f"{caption(model, rows, chr(10))}\n{space}", fontsize=9 if columns <= 3 else 8
            )
            if number + columns >= len(panels):
                axes.set_xlabel("|AS| (degrees)")
                axes.tick_params(labelbottom=True)
        for axes in grid.flat[len(panels) :]:
            axes.set_visible(False)
        largest = everything.loc[everything["label"].isin(chosen), "as_deg"].abs().max()
        grid.flat[0].set_xlim(0, 1.05 * largest if largest > 0 else 1.0)
        if len(counts) > len(chosen):
            kind = "chosen labels" if wanted else "labels with most images"
            figure.supxlabel(
                f"{len(chosen)} {kind} of {len(counts)}; the others are in tables/labels.csv",
                fontsize=8,
            )
        return figure


def _violins(axes: Axes, scores: pd.DataFrame, labels: list[str], shade: str) -> None:
    for position, label in enumerate(labels):
        sizes = scores.loc[scores["label"] == label, "as_deg"].abs().to_numpy()
        if len(sizes) >= 3 and np.ptp(sizes) > 0:
            parts = axes.violinplot(
                sizes, [position], orientation="horizontal", widths=0.85, showextrema=False
            )
            bodies: Any = parts["bodies"]
            for body in bodies:
                body.set(facecolor=shade, edgecolor=shade, alpha=0.35)
            axes.plot(np.median(sizes), position, "|", color=shade, ms=9, mew=2)
        many = len(sizes) > 500  # a PDF would store every point
        axes.scatter(
            sizes,
            np.full(len(sizes), position),
            s=7,
            color=shade,
            alpha=0.7,
            linewidths=0,
            rasterized=many,
        )
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(-0.7, len(labels) - 0.3)
    axes.grid(axis="y", color="0.92", lw=0.6)
    axes.set_axisbelow(True)


class Flags(PlotLabels, cli.Selection):
    pass


def main(flags: Flags) -> None:
    scores = flags.gather("scores", lambda path: read_parquet(path, "scores"))
    models = read_models(flags.path("tables/models.csv"))
    write_figure(flags, "fig4", draw(scores, models, flags.labels))


if __name__ == "__main__":
    cli.run_step(main, Flags)
