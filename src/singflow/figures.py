"""The paper's figures. Each function draws one figure from tables; save() writes it twice, without dates."""

import difflib
import io
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scipy.stats
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, Rectangle

from singflow.errors import InputError
from singflow.store import write_bytes

# Okabe and Ito's palette, distinct under every common colour blindness; black last.
COLOURS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*"]
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "legend.frameon": False,
    "figure.dpi": 150,
    "savefig.dpi": 200,
    "pdf.fonttype": 42,
    "text.parse_math": False,
}


def save(figure: Figure, png: Path, pdf: Path) -> None:
    """Write PNG and PDF whole, without time or software stamps."""
    for path, kind, metadata in ((png, "png", {"Software": None}), (pdf, "pdf", {"CreationDate": None, "Producer": None, "Creator": None})):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, metadata=metadata, bbox_inches="tight")
        write_bytes(path, buffer.getvalue())
    plt.close(figure)


def covariance_ellipse(points: np.ndarray, coverage: float) -> tuple[np.ndarray, float, float, float]:
    """Ellipse that holds `coverage` of a normal distribution with the points' mean and covariance.

    points: (n, 2) with n >= 3. Returns the centre, the full width and height along its axes, and the angle in degrees.
    """
    eigenvalues, eigenvectors = np.linalg.eigh(np.cov(points, rowvar=False))
    radius = np.sqrt(scipy.stats.chi2.ppf(coverage, df=2))
    height, width = 2 * radius * np.sqrt(np.maximum(eigenvalues, 0.0))
    angle = np.degrees(np.arctan2(eigenvectors[1, 1], eigenvectors[0, 1]))
    return points.mean(axis=0), float(width), float(height), float(angle)


def fig3(scores: dict[str, dict[str, pd.DataFrame]], table: pd.DataFrame) -> Figure:
    """Per space, one row: (a) AS against IS of every image with 95 % ellipses, (b) IS, |AS| and their ratio.

    scores: space -> model -> scores table; table: tables/models.csv.
    """
    with plt.rc_context(STYLE):
        most = max(map(len, scores.values()))
        figure, grid = plt.subplots(
            len(scores), 3, figsize=(11.5, max(3.6, 1.6 + 0.38 * most) * len(scores)), squeeze=False,
            width_ratios=[1.5, 1.1, 0.8], layout="constrained",
        )  # fmt: skip
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


def _bare(model: str) -> str:
    """A model's name without its source."""
    return model.partition("/")[2] or model


def _caption(model: str, rows: pd.DataFrame) -> str:
    weak = " (weak translator)" if rows.at[model, "translator"] == "weak" else ""
    return f"{_bare(model)}{weak}"


def _scatter(axes: Axes, models: dict[str, pd.DataFrame], rows: pd.DataFrame, space: str) -> None:
    axes.axvline(0, color="0.85", lw=0.8, zorder=0)
    for number, (model, scores) in enumerate(models.items()):
        points = scores[["as_deg", "is_deg"]].to_numpy()
        colour = COLOURS[number % len(COLOURS)]
        axes.scatter(
            points[:, 0], points[:, 1], s=14, alpha=0.55 if len(points) < 500 else 0.25, color=colour, linewidths=0,
            marker=MARKERS[(number + number // len(COLOURS)) % len(MARKERS)], label=_caption(model, rows), rasterized=len(points) > 2000,
        )  # fmt: skip
        if len(points) >= 3 and np.ptp(points, axis=0).all():
            centre, width, height, angle = covariance_ellipse(points, 0.95)
            axes.add_patch(Ellipse((centre[0], centre[1]), width, height, angle=angle, fill=False, color=colour, lw=1.4))
    axes.autoscale_view()
    axes.set_xlabel("AS toward the image's own label (degrees)")
    axes.set_ylabel("IS (degrees)")
    legend = axes.legend(loc="upper center", bbox_to_anchor=(0.5, 0), borderaxespad=5, ncols=1 if len(models) < 4 else 2, fontsize=8)
    for handle in filter(None, legend.legend_handles):
        handle.set_alpha(1)


def _bars(axes: Axes, rows: pd.DataFrame, columns: list[str], names: list[str], unit: str) -> None:
    positions = np.arange(len(rows))
    width = 0.8 / len(columns)
    colours = [COLOURS[number % len(COLOURS)] for number in range(len(rows))]
    for number, (column, name) in enumerate(zip(columns, names, strict=True)):
        mean = rows[f"{column}_mean"] if f"{column}_mean" in rows else rows[column]
        mean = mean.astype(float).fillna(0.0)
        low, high = (rows[f"{column}_{end}"].astype(float).fillna(0.0) for end in ("low", "high"))
        offset = (number - (len(columns) - 1) / 2) * width
        bars = axes.barh(
            positions + offset, mean, width * 0.92, xerr=[np.maximum(mean - low, 0), np.maximum(high - mean, 0)], color=colours,
            hatch=None if number == 0 else "///", edgecolor="white" if number else "none", error_kw={"lw": 1, "capsize": 2}, label=name,
        )  # fmt: skip
        axes.bar_label(bars, [f"{value:.1f}" for value in mean], fontsize=7, padding=2)
    axes.set_yticks(positions, [_bare(model) for model in rows.index])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel(f"{' and '.join(names)} ({unit})" if unit == "degrees" else names[0])
    axes.margins(x=0.15)
    if len(columns) > 1:
        handles = [
            Rectangle((0, 0), 1, 1, facecolor="0.5", hatch=None if n == 0 else "///", edgecolor="white") for n in range(len(columns))
        ]
        axes.legend(handles, [f"{name} (plain)" if n == 0 else f"{name} (hatched)" for n, name in enumerate(names)], fontsize=8, loc="best")


def fig4(scores: dict[str, dict[str, pd.DataFrame]], table: pd.DataFrame, wanted: list[str], most_labels: int = 16) -> Figure:
    """Violins of |AS| per label, one panel per space and model: of the wanted labels, or of those with most images.

    Labels are in the same order in every panel, by their median over all models. A label with fewer than three images
    shows its images as points, because a violin would invent a shape.
    """
    everything = pd.concat(each for models in scores.values() for each in models.values())
    counts = everything.groupby("label").size().sort_values(ascending=False, kind="stable")
    missing = [label for label in wanted if label not in counts.index]
    if missing:
        near = {label: difflib.get_close_matches(label, counts.index, n=1) for label in missing}
        named = ", ".join(f"{label!r}" + (f" (did you mean {near[label][0]!r}?)" if near[label] else "") for label in missing)
        raise InputError(f"plot_fig4.labels: no image has the label {named}")
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
            colour = COLOURS[list(scores[space]).index(model) % len(COLOURS)]
            _violins(axes, each, labels, colour)
            axes.set_title(f"{_caption(model, rows)}\n{space}".replace(" (", "\n("), fontsize=9 if columns <= 3 else 8)
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


def _violins(axes: Axes, scores: pd.DataFrame, labels: list[str], colour: str) -> None:
    for position, label in enumerate(labels):
        sizes = scores.loc[scores["label"] == label, "as_deg"].abs().to_numpy()
        if len(sizes) >= 3 and np.ptp(sizes) > 0:
            parts = axes.violinplot(sizes, [position], orientation="horizontal", widths=0.85, showextrema=False)
            bodies: Any = parts["bodies"]
            for body in bodies:
                body.set(facecolor=colour, edgecolor=colour, alpha=0.35)
            axes.plot(np.median(sizes), position, "|", color=colour, ms=9, mew=2)
        axes.scatter(sizes, np.full(len(sizes), position), s=7, color=colour, alpha=0.7, linewidths=0)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(-0.7, len(labels) - 0.3)
    axes.grid(axis="y", color="0.92", lw=0.6)
    axes.set_axisbelow(True)


def fig5(scans: dict[str, dict[str, pd.DataFrame]], table: pd.DataFrame, label: str, extremes: int) -> Figure:
    """Concept scan of one label: for each space and model the mean angle to the concepts, and their AS beside it.

    scans: space -> model -> concept table. The concepts with the weakest and the strongest mean |AS|, strongest on top.
    Whiskers are standard deviations over images.
    """
    panels = [(space, model, scan[scan["label"] == label]) for space, models in scans.items() for model, scan in models.items()]
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    shown = min(2 * extremes, len(panels[0][2]))
    count = int(panels[0][2]["n"].iloc[0])
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(0.6 + 4.4 * columns, 0.5 + (1.3 + 0.25 * shown) * rows), layout="constrained")
        boxes = figure.subfigures(rows, columns, squeeze=False, wspace=0.03)
        pairs = []
        for number, (space, model, scan) in enumerate(panels):
            box = boxes.flat[number]
            left, right = box.subplots(1, 2, sharey=True)
            pairs.append((left, right))
            _concepts(left, right, scan, extremes, COLOURS[list(scans[space]).index(model) % len(COLOURS)])
            box.suptitle(f"{_caption(model, table[table['space'] == space].set_index('model'))}, {space}", fontsize=9)
        for same in zip(*pairs, strict=True):
            limits = [axes.get_xlim() for axes in same]
            for axes in same:
                axes.set_xlim(min(low for low, _ in limits), max(high for _, high in limits))
        figure.suptitle(f"{label}, {count} image{'s' if count != 1 else ''}", fontsize=11)
        return figure


def _concepts(left: Axes, right: Axes, scan: pd.DataFrame, extremes: int, colour: str) -> None:
    ordered = scan.sort_values(["as_abs_mean", "concept"], kind="stable")
    cut = len(ordered) > 2 * extremes
    shown = pd.concat([ordered.iloc[:extremes], ordered.iloc[-extremes:]]) if cut else ordered
    positions = np.arange(len(shown))
    left.errorbar(shown["angle_mean"], positions, xerr=shown["angle_std"], fmt="o", color=colour, ms=4, lw=1)
    right.barh(positions, shown["as_mean"], 0.6, xerr=shown["as_std"], color=colour, error_kw={"lw": 1, "ecolor": "0.3"})
    right.axvline(0, color="0.3", lw=0.8)
    left.set_yticks(positions, list(shown["concept"]))
    left.set_ylim(-0.7, len(shown) - 0.3)
    left.set_xlabel("angle (degrees)")
    right.set_xlabel("AS (degrees)")
    for axes in (left, right):
        axes.grid(axis="y", color="0.92", lw=0.6)
        axes.set_axisbelow(True)
        if cut:
            axes.axhline(extremes - 0.5, color="0.5", lw=0.8, ls=":")
    if cut:
        for text, place in (("strongest", len(shown) - 0.5), ("weakest", extremes - 0.5)):
            right.annotate(text, (1, place), xycoords=("axes fraction", "data"), ha="right", va="top", fontsize=7, color="0.4")
