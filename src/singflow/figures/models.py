"""Figures 3, 4 and 14, which compare models, and the figure of random subspaces."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, Rectangle

from singflow.errors import check_labels
from singflow.figures.style import STYLE, bare, caption, colour, marker

MOST_LABELS = 16  # limit of figure 4 if the user chooses no labels


def covariance_ellipse(
    points: np.ndarray, coverage: float
) -> tuple[np.ndarray, float, float, float]:
    """Ellipse around `coverage` of the normal distribution fitted to points (n, 2).

    Returns the centre, the full lengths of the longer and the shorter axis, and the angle from the
    x axis to the longer axis in degrees.
    """
    eigenvalues, eigenvectors = np.linalg.eigh(np.cov(points, rowvar=False))
    radius = np.sqrt(-2.0 * np.log1p(-coverage))  # chi-squared quantile, 2 degrees of freedom
    height, width = 2 * radius * np.sqrt(np.maximum(eigenvalues, 0.0))
    angle = np.degrees(np.arctan2(eigenvectors[1, 1], eigenvectors[0, 1]))
    return points.mean(axis=0), float(width), float(height), float(angle)


def fig3(scores: dict[str, dict[str, pd.DataFrame]], table: pd.DataFrame) -> Figure:
    """One row per space: (a) AS and IS of images, (b) means of IS and |AS|, (c) their ratio."""
    with plt.rc_context(STYLE):
        most = max(map(len, scores.values()))
        figure, grid = plt.subplots(
            len(scores),
            3,
            figsize=(11.5, max(3.6, 1.6 + 0.38 * most) * len(scores)),
            squeeze=False,
            width_ratios=[1.5, 1.1, 0.8],
            layout="constrained",
        )
        for axes, (space, models) in zip(grid, scores.items(), strict=True):
            rows = table[table["space"] == space].set_index("model")
            _scatter(axes[0], models, rows, space)
            _bars(axes[1], rows, ["is", "as_abs"], ["IS", "|AS|"], "degrees")
            _bars(axes[2], rows, ["is_per_as"], ["IS / |AS|"], "ratio")
            axes[2].set_yticklabels([])
            axes[0].set_title(f"(a) every image, space {space}", loc="left")
            axes[1].set_title("(b) means with 95 % intervals", loc="left")
            axes[2].set_title("(c) ratio of means", loc="left")
        return figure


def _scatter(axes: Axes, models: dict[str, pd.DataFrame], rows: pd.DataFrame, space: str) -> None:
    axes.axvline(0, color="0.85", lw=0.8, zorder=0)
    for number, (model, scores) in enumerate(models.items()):
        points = scores[["as_deg", "is_deg"]].to_numpy()
        axes.scatter(
            points[:, 0],
            points[:, 1],
            s=14,
            alpha=0.55 if len(points) < 500 else 0.25,
            color=colour(number),
            linewidths=0,
            marker=marker(number),
            label=caption(model, rows),
            rasterized=len(points) > 2000,
        )
        if len(points) >= 3 and np.ptp(points, axis=0).all():
            centre, width, height, angle = covariance_ellipse(points, 0.95)
            axes.add_patch(
                Ellipse(
                    (centre[0], centre[1]),
                    width,
                    height,
                    angle=angle,
                    fill=False,
                    color=colour(number),
                    lw=1.4,
                )
            )
    axes.autoscale_view()
    axes.set_xlabel("AS toward the image's own label (degrees)")
    axes.set_ylabel("IS (degrees)")
    legend = axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, 0),
        borderaxespad=5,
        ncols=1 if len(models) < 4 else 2,
        fontsize=8,
    )
    for handle in filter(None, legend.legend_handles):
        handle.set_alpha(1)


def _bars(axes: Axes, rows: pd.DataFrame, columns: list[str], names: list[str], unit: str) -> None:
    positions = np.arange(len(rows))
    width = 0.8 / len(columns)
    colours = [colour(number) for number in range(len(rows))]
    for number, (column, name) in enumerate(zip(columns, names, strict=True)):
        mean = rows[f"{column}_mean"] if f"{column}_mean" in rows else rows[column]
        mean = mean.astype(float).fillna(0.0)
        low, high = (rows[f"{column}_{end}"].astype(float).fillna(0.0) for end in ("low", "high"))
        offset = (number - (len(columns) - 1) / 2) * width
        bars = axes.barh(
            positions + offset,
            mean,
            width * 0.92,
            xerr=[np.maximum(mean - low, 0), np.maximum(high - mean, 0)],
            color=colours,
            hatch=None if number == 0 else "///",
            edgecolor="white" if number else "none",
            error_kw={"lw": 1, "capsize": 2},
            label=name,
        )
        values = [f"{value:.1f}" for value in mean]
        if column != "is":
            axes.bar_label(bars, values, fontsize=7, padding=2)
        else:
            axes.bar_label(
                bars, values, fontsize=7, label_type="center", color="white", fontweight="bold"
            )
            known = rows["floor_is_mean"].notna().to_numpy()
            if known.any():
                axes.plot(
                    rows["floor_is_mean"][known],
                    (positions + offset)[known],
                    "|",
                    color="black",
                    ms=13,
                    mew=2,
                    label=FLOOR,
                )
    axes.set_yticks(positions, [caption(model, rows, "\n") for model in rows.index])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel(f"{' and '.join(names)} ({unit})" if unit == "degrees" else names[0])
    axes.margins(x=0.15)
    if len(columns) > 1:
        handles = [
            Rectangle(
                (0, 0), 1, 1, facecolor="0.5", hatch=None if n == 0 else "///", edgecolor="white"
            )
            for n in range(len(columns))
        ]
        said = [
            f"{name} (plain)" if n == 0 else f"{name} (hatched)" for n, name in enumerate(names)
        ]
        floors, texts = axes.get_legend_handles_labels()
        drawn = [handle for handle, name in zip(floors, texts, strict=True) if name == FLOOR]
        shown = {"handles": [*handles, *drawn], "labels": [*said, *[FLOOR] * len(drawn)]}
        axes.legend(
            **shown, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, 0), borderaxespad=5
        )


FLOOR = "floor: null components that tell nothing"


def controls(
    spaces: list[str], models: list[str], excess: pd.DataFrame, table: pd.DataFrame
) -> Figure:
    """One row per space: (a) excess over random subspaces, (b) IS against the dimensions removed.

    Models without a null space are left out; the figure names them.
    """
    with plt.rc_context(STYLE):
        height = max(3.6, 1.7 + 0.4 * len(models))
        figure, grid = plt.subplots(
            len(spaces), 2, figsize=(9.5, height * len(spaces)), squeeze=False, layout="constrained"
        )
        for axes, space in zip(grid, spaces, strict=True):
            rows = table[table["space"] == space].set_index("model")
            shown = [model for model in models if int(rows["null_dim"][model]) > 0]
            mine = excess[excess["space"] == space]
            axes[0].set_title(f"(a) null minus random, {space}", loc="left")
            axes[1].set_title("(b) null (solid) and random (dashed) parts", loc="left")
            if not shown:
                for panel in axes:
                    panel.text(
                        0.5,
                        0.5,
                        "no model has a null space",
                        ha="center",
                        transform=panel.transAxes,
                    )
                continue
            _excess(
                axes[0], mine[mine["own"]].set_index("model").to_dict("index"), shown, models, rows
            )
            _dimensions(axes[1], mine, shown, models, rows)
            if len(shown) < len(models):
                left_out = ", ".join(bare(model) for model in models if model not in shown)
                axes[0].set_xlabel(f"{axes[0].get_xlabel()}\nno null space: {left_out}")
        return figure


def _excess(
    axes: Axes,
    own: dict[Any, dict[Any, Any]],
    shown: list[str],
    models: list[str],
    rows: pd.DataFrame,
) -> None:
    axes.axvline(0, color="0.3", lw=0.8)
    for position, model in enumerate(shown):
        number = models.index(model)
        for offset, score, fill in ((-0.16, "is_deg", True), (0.16, "as_abs_deg", False)):
            middle, low, high = (
                own[model][f"{score}_excess_random{end}"] for end in ("", "_low", "_high")
            )
            axes.errorbar(
                middle,
                position + offset,
                xerr=[[middle - low], [high - middle]],
                fmt=marker(number),
                color=colour(number),
                mfc=None if fill else "white",
                ms=6,
                capsize=2,
                lw=1.2,
            )
    axes.set_yticks(
        range(len(shown)),
        [caption(model, rows, "\n") + f"\nk = {own[model]['dimension']}" for model in shown],
    )
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_xlabel("null minus random: IS (filled), |AS| (open), degrees")
    axes.grid(axis="x", color="0.92", lw=0.6)


def _dimensions(
    axes: Axes, excess: pd.DataFrame, shown: list[str], models: list[str], table: pd.DataFrame
) -> None:
    for model in shown:
        rows = excess[excess["model"] == model].sort_values("dimension")
        style: dict[str, Any] = {
            "color": colour(models.index(model)),
            "marker": marker(models.index(model)),
            "ms": 4,
            "lw": 1.2,
        }
        axes.plot(rows["dimension"], rows["is_deg_null"], label=caption(model, table), **style)
        axes.plot(rows["dimension"], rows["is_deg_random"], ls="--", mfc="white", **style)
    axes.set_xscale("log")
    ticks: list[int] = []
    for dimension in sorted(excess["dimension"].unique()):
        if not ticks or dimension >= 2 * ticks[-1]:
            ticks.append(int(dimension))
    axes.set_xticks(ticks, [str(tick) for tick in ticks], rotation=45 if len(ticks) > 6 else 0)
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("dimensions removed")
    axes.set_ylabel("IS (degrees)")
    if len(shown) < 9:  # a longer legend would hide the curves; panel (a) has the same colours
        axes.set_ylim(top=axes.get_ylim()[1] * (1.05 + 0.07 * len(shown)))
        axes.legend(fontsize=7, loc="upper left")
    axes.grid(color="0.92", lw=0.6)


def fig4(
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
            rows = table[table["space"] == space].set_index("model")
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
