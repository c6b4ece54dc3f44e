"""Draw figure 4: |AS| per label, or D by group where no label has images enough."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from singflow import cli
from singflow.analyses.concepts import LABEL_IMAGES
from singflow.artifacts.tables import read_parquet
from singflow.errors import check_labels
from singflow.figures import style
from singflow.figures.parameters import PlotLabels
from singflow.figures.style import Frames

MOST_LABELS = 16  # limit if the user chooses no labels
NEEDS = (
    f"a label of {LABEL_IMAGES} images or more, or a column of groups of images (evidence.groups), "
    "of which one has 10"
)


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
    labels = list(drawn.groupby("label")["size"].median().sort_values(kind="stable").index)
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
    return figure


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


@style.styled
def draw_groups(groups: Frames, table: pd.DataFrame) -> Figure:
    """D within each group of images, with its interval, for all models of a space."""
    most = max(len(one) for models in groups.values() for one in models.values())
    models = len(next(iter(groups.values())))
    height = (0.6 + most * max(0.17, 0.06 * models)) * len(groups) + 0.1 * models + 0.4
    figure, grid = style.panels(len(groups), 1, (style.PAGE, height))
    for axes, (space, found) in zip(grid.flat, groups.items(), strict=True):
        of_space, tables = style.of_space(table, space), list(found.values())
        d = pd.concat([one.set_index("group")["unique_r2"] for one in tables], axis=1)
        order = list(d.max(axis=1).sort_values(kind="stable").index)
        sizes = tables[0].set_index("group")["n"]
        for number, (model, one) in enumerate(found.items()):
            rows = one.set_index("group").loc[order]
            middle, low, high = (100 * rows[f"unique_r2{end}"] for end in ("", "_low", "_high"))
            places = np.arange(len(order)) + 0.7 * ((len(found) - number - 0.5) / len(found) - 0.5)
            ends = [middle - low, high - middle]
            look = style.look_of(number) | {"ls": "", "elinewidth": 0.8}
            name = style.named(model, of_space)
            axes.errorbar(middle, places, xerr=ends, label=name, **look)
        margin = 100 * float(of_space["margin"].iloc[0])
        axes.axvline(margin, color="0.4", lw=0.8, ls="--", label="margin")
        axes.set_yticks(range(len(order)), [f"{name} ({sizes[name]})" for name in order])
        axes.set(ylim=(-0.6, len(order) - 0.4), xlabel="D within the group (%)")
        axes.set_title(space)
        axes.grid(axis="x")
    style.legend(figure, grid[0, 0].get_legend_handles_labels()[0])
    return figure


class Flags(PlotLabels, cli.Selection): ...


def main(flags: Flags) -> None:
    scores, models = style.read_tables(flags, "scores")
    counts = next(iter(scores[flags.spaces[0]].values()))["label"].value_counts()
    if flags.labels or counts.max() >= LABEL_IMAGES:
        style.write_figure(flags, "fig4", draw(scores, models, flags.labels))
        return
    groups = flags.gather("evidence_groups", lambda path: read_parquet(path, "evidence_groups"))
    tested = {
        space: {
            model: one[(one["by"] == "column") & one["unique_r2_low"].notna()]
            for model, one in found.items()
        }
        for space, found in groups.items()
    }
    every = all(len(one) for _, _, one in style.pairs_of(tested))
    style.write_figure(flags, "fig4", draw_groups(tested, models) if every else None, NEEDS)


if __name__ == "__main__":
    cli.run_step(main, Flags)
