"""Draw figure 5: the concept scans of a few labels."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from singflow import cli
from singflow.artifacts.tables import read_models
from singflow.figures import style
from singflow.figures.parameters import MOST_PANELS, PlotConcepts
from singflow.figures.scans import (
    CONTRAST,
    SHADES,
    caption_in,
    count_images,
    read_scans,
    shades_up_to,
    spread,
    with_contrast,
)
from singflow.figures.style import Frames, Look

Cases = dict[tuple[str, str], dict[str, pd.DataFrame]]  # label and space -> model -> scan


@style.styled
def draw(scans: Frames, table: pd.DataFrame, labels: list[str], extremes: int) -> Figure:
    """Concepts with the weakest and strongest contrast for every label, with standard deviations.

    Up to MOST_PANELS cases of a label, space and model have a panel each. More are shown as one
    table per label and space, ranked by the mean size of the contrast: numbers are angles, colours
    are contrasts.
    """
    mine = {
        (label, space): {model: with_contrast(scan, label) for model, scan in models.items()}
        for label in labels
        for space, models in scans.items()
    }
    few = sum(map(len, mine.values())) <= MOST_PANELS
    figure = (_draw_panels if few else _draw_tables)(mine, table, extremes)
    _, label, model, concept = max(
        (abs(row["contrast"]), label, model, row["concept"])
        for (label, _), models in mine.items()
        for model, scan in models.items()
        for row in scan.to_dict("records")
    )
    seen = f"moves images of {label} most along {concept!r} ({style.bare(model)})"
    style.entitle(figure, f"Null removal {seen}")
    return figure


def _titled(label: str, scan: pd.DataFrame) -> str:
    return f"{label}, {count_images(int(scan['n'].iloc[0]))}"


def _extremes(sizes: pd.Series, count: int) -> tuple[list[str], bool]:
    """Concepts, smallest size first, and whether concepts between the extremes were left out."""
    ordered = list(sizes.sort_index().sort_values(kind="stable").index)
    cut = len(ordered) > 2 * count
    return (ordered[:count] + ordered[-count:] if cut else ordered), cut


def _draw_panels(scans: Cases, table: pd.DataFrame, extremes: int) -> Figure:
    cases = [(*key, *case) for key, models in scans.items() for case in models.items()]
    shown = min(2 * extremes, len(cases[0][-1]))
    columns = min(2, len(cases))
    rows = -(-len(cases) // columns)
    size = (style.PAGE, 0.3 + (0.95 + 0.14 * shown) * rows)
    figure = style.new_figure(size, layout="constrained")
    grid = figure.add_gridspec(rows, columns)
    places = [grid[number // columns, number % columns] for number in range(len(cases))]
    if len(cases) < rows * columns:  # the last one takes its row alone
        places[-1] = grid[-1, :]
    boxes = [figure.add_subfigure(place) for place in places]
    sides = []
    for box, (label, space, model, scan) in zip(boxes, cases, strict=True):
        left, right = box.subplots(1, 2, sharey=True)
        sides.append((left, right))
        shade = style.colour(list(style.of_space(table, space).index).index(model))
        _concepts(left, right, scan.set_index("concept"), extremes, shade)
        name = f"{caption_in(space, model, table)}, {space}"
        box.suptitle(f"{_titled(label, scan)}\n{name}", fontsize="medium", fontweight="normal")
    for same in zip(*sides, strict=True):
        lows, highs = zip(*(axes.get_xlim() for axes in same), strict=True)
        for axes in same:
            axes.set_xlim(min(lows), max(highs))
    return figure


def _concepts(left: Axes, right: Axes, scan: pd.DataFrame, extremes: int, shade: str) -> None:
    concepts, cut = _extremes(scan["contrast"].abs(), extremes)
    shown = scan.loc[concepts]
    positions = np.arange(len(shown))
    dots: Look = {"fmt": "o", "ms": 3.5, "lw": 1, "color": shade}
    left.errorbar(shown["angle_mean"], positions, xerr=spread(shown, "angle_std"), **dots)
    common = scan["as_mean"].mean()
    bars: Look = {
        "xerr": spread(shown, "as_std"),
        "error_kw": {"lw": 1, "ecolor": "0.3"},
        "color": shade,
    }
    right.barh(positions, shown["contrast"], 0.6, left=common, **bars)
    right.axvline(0, color="0.7", lw=0.8)
    right.axvline(common, color="0.3", lw=1, ls=":")
    left.set_yticks(positions, concepts)
    left.set(ylim=(-0.7, len(shown) - 0.3 + 0.4 * cut), xlabel="angle (degrees)")
    right.set_xlabel("AS (degrees), from its\nmean over concepts (dotted)")
    for axes in (left, right):
        axes.grid(axis="y")
        if cut:
            axes.axhline(extremes - 0.5, color="0.5", lw=0.8, ls=":")
    if cut:
        look: Look = {"ha": "right", "va": "top", "color": "0.4"}
        for text, place in (("strongest", len(shown)), ("weakest", extremes - 0.5)):
            right.annotate(text, (1, place), xycoords=("axes fraction", "data"), **look)


def _draw_tables(scans: Cases, table: pd.DataFrame, extremes: int) -> Figure:
    firsts = [next(iter(models.values())) for models in scans.values()]
    shown = min(2 * extremes, len(firsts[0]))
    size = (style.PAGE, 0.6 + (1.6 + 0.15 * shown) * len(scans))
    figure, grid = style.panels(len(scans), 1, size)
    tables = {}
    for key, models in scans.items():
        angles, contrasts = (
            pd.DataFrame({m: scan.set_index("concept")[column] for m, scan in models.items()})
            for column in ("angle_mean", "contrast")
        )
        concepts, cut = _extremes(contrasts.abs().mean(axis=1), extremes)
        cells = contrasts.loc[concepts].to_numpy()
        tables[key] = (angles.loc[concepts], cells, concepts, cut)
    largest = max(np.abs(cells).max() for _, cells, *_ in tables.values())
    shades = shades_up_to(largest)
    for axes, first, (key, (angles, cells, concepts, cut)) in zip(
        grid.flat, firsts, tables.items(), strict=True
    ):
        label, space = key
        axes.pcolormesh(cells, cmap=SHADES, norm=shades.norm, edgecolors="white", lw=1)
        for (row, column), angle in np.ndenumerate(angles.to_numpy()):
            ink = "black" if abs(cells[row, column]) <= 0.65 * largest else "white"
            place: Look = {"ha": "center", "va": "center"}
            axes.text(column + 0.5, row + 0.45, f"{angle:.0f}", color=ink, **place)
        names = [caption_in(space, model, table) for model in scans[key]]
        axes.set_xticks(np.arange(len(names)) + 0.5, names, rotation=45, ha="right")
        axes.set_yticks(np.arange(len(concepts)) + 0.5, concepts)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        kind = (
            f"{extremes} weakest (below the line) and {extremes} strongest concepts"
            if cut
            else "all concepts"
        )
        lines = [
            f"{_titled(label, first)}, {space}",
            kind,
            "by their contrast, over models; numbers: mean angle (degrees)",
        ]
        axes.set_title("\n".join(lines))
        if cut:
            axes.axhline(extremes, color="0.3", lw=1.2, ls=":")
    figure.colorbar(shades, ax=list(grid.flat), label=CONTRAST, shrink=0.6, aspect=30)
    return figure


class Flags(PlotConcepts, cli.Selection): ...


def main(flags: Flags) -> None:
    selected = flags.model_copy(update={"models": flags.shown or flags.models})
    scans, labels = read_scans(selected, flags.labels, 1, "plot_concepts.labels")
    models = read_models(flags.path("tables/models.csv"))
    style.write_figure(flags, "fig5", draw(scans, models, labels, flags.extremes))


if __name__ == "__main__":
    cli.run_step(main, Flags)
