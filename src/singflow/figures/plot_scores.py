"""Draw figure 3: means of IS and |AS|, and IS against AS of every image."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from singflow import cli
from singflow.analyses.tables import is_control
from singflow.figures import style
from singflow.figures.style import Frames, Look

FLOOR = "floor of IS: no meaning"
ENOUGH_IMAGES = 3  # for an interval of their mean
TICK: Look = {"color": "black", "marker": "|", "ms": 7, "mew": 1.5}
SHADE: Look = {"facecolor": "0.5", "edgecolor": "white"}
HATCH = "////"


@style.styled
def draw(scores: Frames, table: pd.DataFrame) -> Figure:
    """For each space: means of IS and |AS|, and below them IS and AS of the images.

    Controls have bars alone, unless the space has no other models.
    """
    names = [style.named(model, table.set_index("model")) for model in table["model"].unique()]
    high = style.rows_high(names, 0.28)
    size = style.COLUMN, (3.2 + high) * len(scores) + 0.3
    ratios = [0.6 + high, 2.4] * len(scores)
    figure, grid = style.panels(2 * len(scores), 1, size, height_ratios=ratios)
    axes = grid[:, 0].reshape(-1, 2)
    for (means, images), (space, models) in zip(axes, scores.items(), strict=True):
        rows = style.of_space(table, space)
        control = is_control(rows)
        _bars(means, rows)
        shown = [model for model in models if control.all() or not control[model]]
        _scatter(images, {list(models).index(model): models[model] for model in shown})
        means.set_title(f"{space}: means, with intervals")
        images.set_title("images" + (" (controls are not shown)" if len(shown) < len(rows) else ""))
    handles = [Patch(label="IS", **SHADE), Patch(label="|AS|", hatch=HATCH, **SHADE)]
    style.legend(figure, [*handles, style.key(FLOOR, ls="", **TICK)])
    above = (table["is_mean"] - table["floor_is_mean"]).astype(float)
    if above.isna().all():
        return figure
    ends = table.loc[~is_control(table), ["is_low", "floor_is_mean"]].astype(float)
    if len(ends) and (ends["is_low"] <= ends["floor_is_mean"]).all():
        aside = " (controls aside)" if len(ends) < len(table) else ""
        return style.titled(figure, f"IS of every model is at its floor{aside}")
    most = table.iloc[int(above.argmax())]
    name = style.caption(most["model"], style.of_space(table, most["space"]))
    finding = f"IS is farthest above its floor in {name}: {most['is_mean']:.1f}°, floor "
    return style.titled(figure, f"{finding}{most['floor_is_mean']:.1f}°")


def _scatter(axes: Axes, models: dict[int, pd.DataFrame]) -> None:
    """IS against AS of images; models: by their position in the study."""
    axes.axvline(0, color="0.85", lw=0.6, zorder=0)
    for number, scores in models.items():
        points = scores[["as_deg", "is_deg"]].to_numpy()
        dots = axes.scatter(points[:, 0], points[:, 1], 8, linewidths=0, **style.look_of(number))
        dots.set(alpha=0.55 if len(points) < 500 else 0.25, rasterized=len(points) > 500)
    axes.set(xlabel="AS toward the image's own label (degrees)", ylabel="IS (degrees)")


def _bars(axes: Axes, rows: pd.DataFrame) -> None:
    """Bars of IS with its floor, and hatched of |AS| with the ratio of both."""
    colours = [style.colour(number) for number in range(len(rows))]
    few, floors = rows["n_images"] < ENOUGH_IMAGES, rows["floor_is_mean"].to_numpy(float)
    for number, name in enumerate(("is", "as_abs")):
        columns = [f"{name}_{end}" for end in ("mean", "low", "high")]
        mean, low, high = rows[columns].astype(float).fillna(0).to_numpy().T
        places = np.arange(len(rows)) + 0.4 * number - 0.2
        ends = np.where(few, np.nan, np.maximum([mean - low, high - mean], 0))
        look: Look = {"color": colours, "error_kw": {"lw": 0.8}, "xerr": ends}
        look |= {"hatch": HATCH, "edgecolor": "white"} if number else {}
        axes.barh(places, mean, 0.37, **look)
        last, said = mean + np.nan_to_num(ends[1]), [f"{value:.1f}" for value in mean]
        if number:
            ratios = rows["is_per_as"].astype(float)
            ratio = ["" if pd.isna(of) else f" (IS/|AS|: {of:.1f})" for of in ratios]
            said = [one + of for one, of in zip(said, ratio, strict=True)]
        else:
            last = np.fmax(last, floors)
            axes.plot(floors, places, ls="", label=FLOOR, **TICK)
        for text, end, place in zip(said, last, places, strict=True):
            axes.annotate(text, (end, place), (4, 0), textcoords="offset points", va="center")
    edge: Look = {"mec": "white", "mew": 0.5, "clip_on": False, "zorder": 3}
    for number in range(len(rows)):
        axes.plot(0, number, **edge, **style.look_of(number))
    axes.set(ylim=(len(rows) - 0.4, -0.6), xlim=(0, 1.25 * axes.get_xlim()[1]), xlabel="degrees")
    axes.set_yticks(range(len(rows)), [style.named(model, rows) for model in rows.index])


Flags = cli.Selection


def main(flags: Flags) -> None:
    style.write_figure(flags, "fig3", draw(*style.read_tables(flags, "scores")))


if __name__ == "__main__":
    cli.run_step(main, Flags)
