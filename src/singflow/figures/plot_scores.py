"""Draw figure 3: IS against AS of every image, and their means."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, Rectangle

from singflow import cli
from singflow.figures import style
from singflow.figures.style import Frames, Look

FLOOR = "floor: parts without meaning"
FEWEST = 3  # images whose mean has an interval
HATCHES = {"plain": None, "hatched": "////"}


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
    names = [style.named(model, table.set_index("model")) for model in table["model"].unique()]
    size = style.PAGE, (0.8 + style.rows_high(names, 0.28)) * len(scores) + 0.5
    figure, grid = style.panels(len(scores), 3, size, width_ratios=[1.4, 1.2, 0.8])
    floors = table["floor_is_mean"].dropna()
    said = f"; the floor is {style.span(floors)}" if len(floors) else ""
    style.entitle(figure, f"Null removal turns images by {style.span(table['is_mean'])}{said}")
    for (images, means, ratios), (space, models) in zip(grid, scores.items(), strict=True):
        rows = style.of_space(table, space)
        _scatter(images, models)
        _bars(means, rows, {"is": "IS", "as_abs": "|AS|"})
        _bars(ratios, rows, {"is_per_as": "IS / |AS|"})
        means.set_yticks(range(len(rows)), [style.named(model, rows) for model in rows.index])
        ratios.set_yticks(range(len(rows)), [""] * len(rows))
        for number in range(len(rows)):
            edge: Look = {"mec": "white", "mew": 0.5, "clip_on": False, "zorder": 3}
            means.plot(0, number, **edge, **style.look_of(number))
        images.set_title(f"(a) every image, {space}; marks as in (b)")
        means.set_title("(b) means, 95 % intervals")
        ratios.set_title("(c) ratio of means")
    handles: list[Any] = []
    box: Look = {"facecolor": "0.5", "edgecolor": "white"}
    for name, (how, hatch) in zip(("IS", "|AS|"), HATCHES.items(), strict=True):
        handles.append(Rectangle((0, 0), 1, 1, hatch=hatch, label=f"{name} ({how})", **box))
    if len(floors):
        handles.append(style.key(FLOOR, color="black", ls="", marker="|", ms=7, mew=1.5))
    style.legend(figure, handles)
    return figure


def _scatter(axes: Axes, models: dict[str, pd.DataFrame]) -> None:
    axes.axvline(0, color="0.85", lw=0.6, zorder=0)
    for number, scores in enumerate(models.values()):
        points = scores[["as_deg", "is_deg"]].to_numpy()
        look = style.look_of(number) | {"s": 8, "linewidths": 0}
        dots = axes.scatter(*points.T, **look)
        dots.set(alpha=0.55 if len(points) < 500 else 0.25, rasterized=len(points) > 500)
        if len(points) >= FEWEST and np.ptp(points, axis=0).all():
            centre, width, height, angle = covariance_ellipse(points, 0.95)
            line: Look = {"fill": False, "color": style.colour(number), "lw": 1}
            axes.add_patch(Ellipse(tuple(centre), width, height, angle=angle, **line))
    axes.autoscale_view()
    axes.set(xlabel="AS toward the image's own label (degrees)", ylabel="IS (degrees)")


def _bars(axes: Axes, rows: pd.DataFrame, scores: dict[str, str]) -> None:
    """Bars of one or two scores (columns and names); those of the second are hatched."""
    positions, width = np.arange(len(rows)), 0.8 / len(scores)
    colours = [style.colour(number) for number in range(len(rows))]
    enough = (rows["n_images"] >= FEWEST).to_numpy()
    for number, (column, hatch) in enumerate(zip(scores, HATCHES.values(), strict=False)):
        middle = f"{column}_mean" if f"{column}_mean" in rows else column
        mean, low, high = (
            rows[name].astype(float).fillna(0.0).to_numpy()
            for name in (middle, f"{column}_low", f"{column}_high")
        )
        places = positions + (number - (len(scores) - 1) / 2) * width
        ends = np.where(enough, np.maximum([mean - low, high - mean], 0), np.nan)
        look: Look = {"color": colours, "hatch": hatch, "edgecolor": "white" if hatch else "none"}
        axes.barh(places, mean, width * 0.92, xerr=ends, error_kw={"lw": 0.8}, **look)
        last = mean + np.nan_to_num(ends[1])
        if column == "is":
            floors = rows["floor_is_mean"].astype(float).to_numpy()
            known, last = ~np.isnan(floors), np.fmax(last, floors)
            marks: Look = {"color": "black", "ms": 7, "mew": 1.5, "label": FLOOR}
            axes.plot(floors[known], places[known], "|", **marks)
        for value, end, place in zip(mean, last, places, strict=True):
            beside: Look = {"textcoords": "offset points", "va": "center"}
            axes.annotate(f"{value:.1f}", (end, place), (4, 0), **beside)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, 1.25 * axes.get_xlim()[1])
    axes.set_xlabel(" and ".join(scores.values()) + " (degrees)" * (len(scores) > 1))


Flags = cli.Selection


def main(flags: Flags) -> None:
    style.write_figure(flags, "fig3", draw(*style.read_tables(flags, "scores")))


if __name__ == "__main__":
    cli.run_step(main, Flags)
