"""Draw figure 3: IS against AS of every image, and their means."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, Rectangle

from singflow import cli
from singflow.figures import style
from singflow.figures.style import Frames, Look

FLOOR = "floor: null components that tell nothing"
HATCHES = {"plain": None, "hatched": "///"}
LEGEND: Look = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "borderaxespad": 5}


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


@style.styled
def draw(scores: Frames, table: pd.DataFrame) -> Figure:
    """One row per space: (a) AS and IS of images, (b) means of IS and |AS|, (c) their ratio."""
    most = max(map(len, scores.values()))
    size = (11.5, max(3.6, 1.6 + 0.38 * most) * len(scores))
    figure, grid = style.panels(len(scores), 3, size, width_ratios=[1.5, 1.1, 0.8])
    for (images, means, ratios), (space, models) in zip(grid, scores.items(), strict=True):
        rows = style.of_space(table, space)
        _scatter(images, models, rows)
        _bars(means, rows, {"is": "IS", "as_abs": "|AS|"})
        _bars(ratios, rows, {"is_per_as": "IS / |AS|"})
        ratios.set_yticklabels([])
        images.set_title(f"(a) every image, space {space}", loc="left")
        means.set_title("(b) means with 95 % intervals", loc="left")
        ratios.set_title("(c) ratio of means", loc="left")
    return figure


def _scatter(axes: Axes, models: dict[str, pd.DataFrame], rows: pd.DataFrame) -> None:
    axes.axvline(0, color="0.85", lw=0.8, zorder=0)
    for number, (model, scores) in enumerate(models.items()):
        points = scores[["as_deg", "is_deg"]].to_numpy()
        look = style.look_of(number) | {"s": 14, "linewidths": 0}
        dots = axes.scatter(*points.T, label=style.caption(model, rows), **look)
        dots.set(alpha=0.55 if len(points) < 500 else 0.25, rasterized=len(points) > 2000)
        if len(points) >= 3 and np.ptp(points, axis=0).all():
            centre, width, height, angle = covariance_ellipse(points, 0.95)
            line: Look = {"fill": False, "color": style.colour(number), "lw": 1.4}
            axes.add_patch(Ellipse(tuple(centre), width, height, angle=angle, **line))
    axes.autoscale_view()
    axes.set(xlabel="AS toward the image's own label (degrees)", ylabel="IS (degrees)")
    legend = axes.legend(ncols=1 if len(models) < 4 else 2, fontsize=8, **LEGEND)
    for handle in filter(None, legend.legend_handles):
        handle.set_alpha(1)


def _bars(axes: Axes, rows: pd.DataFrame, scores: dict[str, str]) -> None:
    """Bars of one or two scores (columns and names); those of the second are hatched."""
    positions, width = np.arange(len(rows)), 0.8 / len(scores)
    colours = [style.colour(number) for number in range(len(rows))]
    for number, (column, hatch) in enumerate(zip(scores, HATCHES.values(), strict=False)):
        mean = rows[f"{column}_mean"] if f"{column}_mean" in rows else rows[column]
        mean, low, high = (
            values.astype(float).fillna(0.0)
            for values in (mean, rows[f"{column}_low"], rows[f"{column}_high"])
        )
        places = positions + (number - (len(scores) - 1) / 2) * width
        ends = [np.maximum(mean - low, 0), np.maximum(high - mean, 0)]
        look: Look = {"color": colours, "hatch": hatch, "edgecolor": "white" if hatch else "none"}
        whiskers = {"lw": 1, "capsize": 2}
        bars = axes.barh(places, mean, width * 0.92, xerr=ends, error_kw=whiskers, **look)
        values = [f"{value:.1f}" for value in mean]
        if column != "is":
            axes.bar_label(bars, values, fontsize=7, padding=2)
            continue
        inside: Look = {"label_type": "center", "color": "white", "fontweight": "bold"}
        axes.bar_label(bars, values, fontsize=7, **inside)
        known = rows["floor_is_mean"].notna().to_numpy()
        if known.any():
            floors = rows["floor_is_mean"][known]
            axes.plot(floors, places[known], "|", color="black", ms=13, mew=2, label=FLOOR)
    axes.set_yticks(positions, [style.caption(model, rows, "\n") for model in rows.index])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.margins(x=0.15)
    names = " and ".join(scores.values())
    axes.set_xlabel(names)
    if len(scores) == 1:
        return
    axes.set_xlabel(f"{names} (degrees)")
    box: Look = {"facecolor": "0.5", "edgecolor": "white"}
    patches = [
        Rectangle((0, 0), 1, 1, hatch=hatch, label=f"{name} ({how})", **box)
        for name, (how, hatch) in zip(scores.values(), HATCHES.items(), strict=True)
    ]
    floor, _ = axes.get_legend_handles_labels()
    axes.legend(handles=[*patches, *floor], fontsize=8, **LEGEND)


class Flags(cli.Selection): ...


def main(flags: Flags) -> None:
    style.write_figure(flags, "fig3", draw(*style.read_tables(flags, "scores")))


if __name__ == "__main__":
    cli.run_step(main, Flags)
