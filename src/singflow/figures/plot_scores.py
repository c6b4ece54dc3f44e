"""Draw figure 3: IS against AS of every image, and their means."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, Rectangle

from singflow import cli
from singflow.artifacts.tables import read_models, read_parquet
from singflow.figures.style import STYLE, caption, colour, marker, of_space, write_figure

FLOOR = "floor: null components that tell nothing"


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


def draw(scores: dict[str, dict[str, pd.DataFrame]], table: pd.DataFrame) -> Figure:
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
            rows = of_space(table, space)
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


class Flags(cli.Selection):
    pass


def main(flags: Flags) -> None:
    scores = flags.gather("scores", lambda path: read_parquet(path, "scores"))
    write_figure(flags, "fig3", draw(scores, read_models(flags.path("tables/models.csv"))))


if __name__ == "__main__":
    cli.run_step(main, Flags)
