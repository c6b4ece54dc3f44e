"""Draw figure 3: IS against AS of every image, and their means."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, Patch

from singflow import cli
from singflow.figures import style
from singflow.figures.style import Frames, Look

FLOOR = "floor: parts without meaning"
ENOUGH_IMAGES = 3  # for an interval of their mean, and for an ellipse
TICK: Look = {"color": "black", "marker": "|", "ms": 7, "mew": 1.5}
SHADE: Look = {"facecolor": "0.5", "edgecolor": "white"}
HATCH = "////"


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
    size = style.PAGE, (0.8 + style.rows_high(names, 0.28)) * len(scores) + 0.4
    figure, grid = style.panels(len(scores), 3, size, width_ratios=[1.4, 1.2, 0.8])
    for (images, means, ratios), (space, models) in zip(grid, scores.items(), strict=True):
        rows = style.of_space(table, space)
        _scatter(images, models)
        _bars(means, rows, {"is": "is_mean", "as_abs": "as_abs_mean"}, "IS and |AS| (degrees)")
        _bars(ratios, rows, {"is_per_as": "is_per_as"}, "IS / |AS|")
        means.set_yticks(range(len(rows)), [style.named(model, rows) for model in rows.index])
        for number in range(len(rows)):
            edge: Look = {"mec": "white", "mew": 0.5, "clip_on": False, "zorder": 3}
            means.plot(0, number, **edge, **style.look_of(number))
        images.set_title(f"(a) images, {space}")
        means.set_title("(b) means, with intervals")
        ratios.set_title("(c) ratio of means")
    handles = [Patch(label="IS", **SHADE), Patch(label="|AS|", hatch=HATCH, **SHADE)]
    style.legend(figure, [*handles, style.key(FLOOR, ls="", **TICK)])
    return figure


def _scatter(axes: Axes, models: dict[str, pd.DataFrame]) -> None:
    axes.axvline(0, color="0.85", lw=0.6, zorder=0)
    for number, scores in enumerate(models.values()):
        points = scores[["as_deg", "is_deg"]].to_numpy()
        dots = axes.scatter(points[:, 0], points[:, 1], 8, linewidths=0, **style.look_of(number))
        dots.set(alpha=0.55 if len(points) < 500 else 0.25, rasterized=len(points) > 500)
        if len(points) >= ENOUGH_IMAGES and np.ptp(points, axis=0).all():
            centre, width, height, angle = covariance_ellipse(points, 0.95)
            line: Look = {"fill": False, "color": style.colour(number), "lw": 1}
            axes.add_patch(Ellipse(tuple(centre), width, height, angle=angle, **line))
    axes.autoscale_view()
    axes.set(xlabel="AS toward the image's own label (degrees)", ylabel="IS (degrees)")


def _bars(axes: Axes, rows: pd.DataFrame, scores: dict[str, str], label: str) -> None:
    """Bars of one or two scores (names and columns), the second hatched; the floor of IS."""
    colours = [style.colour(number) for number in range(len(rows))]
    few, width = rows["n_images"] < ENOUGH_IMAGES, 0.8 / len(scores)
    for number, (name, column) in enumerate(scores.items()):
        numbers = rows[[column, f"{name}_low", f"{name}_high"]].astype(float).fillna(0)
        mean, low, high = numbers.to_numpy().T
        places = np.arange(len(rows)) + (number - (len(scores) - 1) / 2) * width
        ends = np.where(few, np.nan, np.maximum([mean - low, high - mean], 0))
        look: Look = {"hatch": HATCH, "edgecolor": "white"} if number else {}
        axes.barh(
            places, mean, width * 0.92, xerr=ends, error_kw={"lw": 0.8}, color=colours, **look
        )
        last = mean + np.nan_to_num(ends[1])
        if name == "is":
            floors = rows["floor_is_mean"].to_numpy(float)
            last = np.fmax(last, floors)
            axes.plot(floors, places, ls="", label=FLOOR, **TICK)
        for value, end, place in zip(mean, last, places, strict=True):
            beside: Look = {"textcoords": "offset points", "va": "center"}
            axes.annotate(f"{value:.1f}", (end, place), (4, 0), **beside)
    axes.set(ylim=(len(rows) - 0.4, -0.6), xlim=(0, 1.25 * axes.get_xlim()[1]), xlabel=label)
    axes.set_yticks(range(len(rows)), [""] * len(rows))


Flags = cli.Selection


def main(flags: Flags) -> None:
    style.write_figure(flags, "fig3", draw(*style.read_tables(flags, "scores")))


if __name__ == "__main__":
    cli.run_step(main, Flags)
