"""Figures 5, 15 and 16: concept scans."""

import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from singflow.analyses.concepts import contrast
from singflow.errors import check_labels
from singflow.figures.style import STYLE, caption, colour

PANELS = 6  # limit of figure 5; with more panels it shows one table per space
MOST_PANELS = 8  # limit of figure 15
COLUMNS = 4
CONTRAST = "contrast: AS less its mean over concepts (degrees)"
SHADES = plt.get_cmap("RdBu_r")  # safe for colour-blind readers, white at 0

Scans = dict[str, dict[str, pd.DataFrame]]


def choose_labels(block: pd.DataFrame, wanted: list[str], most: int, key: str) -> list[str]:
    """The wanted labels, or else the `most` labels with most images (ties by name).

    Raises InputError, with the parameter `key`, if a wanted label does not exist.
    """
    counts = (
        block.drop_duplicates("label").astype({"label": str}).set_index("label")["n"].sort_index()
    )
    check_labels(wanted, counts.index, key)
    return wanted or list(counts.sort_values(ascending=False, kind="stable").index[:most])


def fig5(scans: Scans, table: pd.DataFrame, label: str, extremes: int) -> Figure:
    """Concept scan of one label: angle and AS of concepts with the weakest and strongest contrast.

    The contrast is AS minus the mean AS over all concepts (dotted line). Up to PANELS pairs of
    space and model have a panel each; whiskers are standard deviations over images. More pairs are
    shown as one table per space, ranked by the mean size of the contrast: numbers are angles,
    colours are contrasts.
    """
    mine = {
        space: {model: _with_contrast(scan, label) for model, scan in models.items()}
        for space, models in scans.items()
    }
    draw = _fig5_panels if sum(map(len, mine.values())) <= PANELS else _fig5_tables
    count = int(next(iter(next(iter(mine.values())).values()))["n"].iloc[0])
    with plt.rc_context(STYLE):
        figure = draw(mine, table, extremes)
        figure.suptitle(f"{label}, {_images(count)}", fontsize=11)
        return figure


def _with_contrast(scan: pd.DataFrame, label: str) -> pd.DataFrame:
    mine = scan[scan["label"] == label]
    return mine.assign(contrast=contrast(mine))


def _images(count: int) -> str:
    return f"{count} image{'s' if count != 1 else ''}"


def _caption(model: str, space: str, table: pd.DataFrame) -> str:
    rows = table[table["space"] == space].set_index("model")
    return caption(model, rows) + ("" if int(rows["null_dim"][model]) else " (no null space)")


def _panels(scans: Scans) -> list[tuple[str, str, pd.DataFrame]]:
    return [
        (space, model, scan) for space, models in scans.items() for model, scan in models.items()
    ]


def _extremes(sizes: pd.Series, count: int) -> tuple[list[str], bool]:
    """Concepts, smallest size first, and whether concepts between the extremes were left out."""
    ordered = list(sizes.sort_index().sort_values(kind="stable").index)
    cut = len(ordered) > 2 * count
    return (ordered[:count] + ordered[-count:] if cut else ordered), cut


def _fig5_panels(scans: Scans, table: pd.DataFrame, extremes: int) -> Figure:
    panels = _panels(scans)
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    shown = min(2 * extremes, len(panels[0][2]))
    figure = plt.figure(
        figsize=(0.6 + 4.4 * columns, 0.5 + (1.3 + 0.25 * shown) * rows), layout="constrained"
    )
    boxes = figure.subfigures(rows, columns, squeeze=False, wspace=0.03)
    pairs = []
    for number, (space, model, scan) in enumerate(panels):
        box = boxes.flat[number]
        left, right = box.subplots(1, 2, sharey=True)
        pairs.append((left, right))
        _concepts(
            left,
            right,
            scan.set_index("concept"),
            extremes,
            colour(list(scans[space]).index(model)),
        )
        box.suptitle(f"{_caption(model, space, table)}, {space}", fontsize=9)
    for same in zip(*pairs, strict=True):
        limits = [axes.get_xlim() for axes in same]
        for axes in same:
            axes.set_xlim(min(low for low, _ in limits), max(high for _, high in limits))
    return figure


def _concepts(left: Axes, right: Axes, scan: pd.DataFrame, extremes: int, shade: str) -> None:
    concepts, cut = _extremes(scan["contrast"].abs(), extremes)
    shown = scan.loc[concepts]
    positions = np.arange(len(shown))
    left.errorbar(
        shown["angle_mean"], positions, xerr=shown["angle_std"], fmt="o", color=shade, ms=4, lw=1
    )
    common = scan["as_mean"].mean()
    spread = {"lw": 1, "ecolor": "0.3"}
    right.barh(
        positions,
        shown["contrast"],
        0.6,
        left=common,
        xerr=shown["as_std"],
        color=shade,
        error_kw=spread,
    )
    right.axvline(0, color="0.7", lw=0.8)
    right.axvline(common, color="0.3", lw=1, ls=":")
    left.set_yticks(positions, concepts)
    left.set_ylim(-0.7, len(shown) - 0.3 + 0.4 * cut)
    left.set_xlabel("angle (degrees)")
    right.set_xlabel("AS (degrees), from its mean\nover all concepts (dotted)")
    for axes in (left, right):
        axes.grid(axis="y", color="0.92", lw=0.6)
        axes.set_axisbelow(True)
        if cut:
            axes.axhline(extremes - 0.5, color="0.5", lw=0.8, ls=":")
    if cut:
        for text, place in (("strongest", len(shown)), ("weakest", extremes - 0.5)):
            right.annotate(
                text,
                (1, place),
                xycoords=("axes fraction", "data"),
                ha="right",
                va="top",
                fontsize=7,
                color="0.4",
            )


def _fig5_tables(scans: Scans, table: pd.DataFrame, extremes: int) -> Figure:
    columns = max(map(len, scans.values()))
    shown = min(2 * extremes, len(_panels(scans)[0][2]))
    size = (4.0 + 0.5 * columns, 0.6 + (1.9 + 0.24 * shown) * len(scans))
    figure, grid = plt.subplots(len(scans), 1, figsize=size, squeeze=False, layout="constrained")
    angles, scores = (
        {
            space: pd.DataFrame(
                {m: scan.set_index("concept")[column] for m, scan in models.items()}
            )
            for space, models in scans.items()
        }
        for column in ("angle_mean", "contrast")
    )
    chosen = {
        space: _extremes(contrasts.abs().mean(axis=1), extremes)
        for space, contrasts in scores.items()
    }
    drawn = {
        space: scores[space].loc[concepts].to_numpy() for space, (concepts, _) in chosen.items()
    }
    limit = _limit(max(np.abs(cells).max() for cells in drawn.values()))
    shades = _shades(limit)
    for axes, (space, (concepts, cut)) in zip(grid.flat, chosen.items(), strict=True):
        cells = drawn[space]
        axes.pcolormesh(cells, cmap=SHADES, norm=shades.norm, edgecolors="white", lw=1)
        for (row, column), angle in np.ndenumerate(angles[space].loc[concepts].to_numpy()):
            pale = abs(cells[row, column]) < 0.65 * limit
            axes.text(
                column + 0.5,
                row + 0.45,
                f"{angle:.0f}",
                ha="center",
                va="center",
                fontsize=7,
                color="black" if pale else "white",
            )
        models = [_caption(model, space, table) for model in scans[space]]
        axes.set_xticks(np.arange(len(models)) + 0.5, models, rotation=45, ha="right", fontsize=8)
        axes.set_yticks(np.arange(len(concepts)) + 0.5, concepts, fontsize=8)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        kind = (
            f"{extremes} weakest (below the line) and {extremes} strongest concepts"
            if cut
            else "all concepts"
        )
        axes.set_title(
            f"{space}: {kind} by their contrast, over models\nnumbers: mean angle (degrees)",
            fontsize=9,
        )
        if cut:
            axes.axhline(extremes, color="0.3", lw=1.2, ls=":")
    figure.colorbar(shades, ax=list(grid.flat), label=CONTRAST, shrink=0.6, aspect=30)
    return figure


def _limit(largest: float) -> float:
    return largest if largest > 0 else 1.0


def _shades(limit: float) -> ScalarMappable:
    return ScalarMappable(Normalize(-limit, limit), SHADES)


def fig15(
    scans: Scans, table: pd.DataFrame, spurious: pd.DataFrame, labels: list[str], most: int
) -> Figure:
    """Extended concept scans (figures 15 and 16): the `most` concepts nearest to every label.

    Dots are mean angles, whiskers standard deviations over images, colours contrasts. Candidates of
    `spurious` are marked. At most MOST_PANELS panels are drawn; the figure names what it leaves
    out.
    """
    everything = _panels(scans)
    panels = everything[: max(1, MOST_PANELS // len(labels))]
    drawn = labels[:MOST_PANELS]
    columns = min(COLUMNS, len(panels))
    deep = -(-len(panels) // columns)
    cues = set(spurious[["space", "model", "label", "concept"]].itertuples(index=False, name=None))
    with plt.rc_context(STYLE):
        cells = {
            (label, space, model): _nearest(scan, label, most)
            for label in drawn
            for space, model, scan in panels
        }
        height = 1.3 + 0.155 * max(map(len, cells.values()))
        size = (1.0 + 3.9 * columns, 1.0 + height * deep * len(drawn))
        figure, grid = plt.subplots(
            deep * len(drawn),
            columns,
            figsize=size,
            sharex=True,
            squeeze=False,
            layout="constrained",
        )
        shades = _shades(_limit(max(rows["contrast"].abs().max() for rows in cells.values())))
        for row, label in enumerate(drawn):
            mine = grid[row * deep : (row + 1) * deep].ravel()
            for axes, (space, model, _) in zip(mine, panels, strict=False):
                rows = cells[label, space, model]
                marked = [(space, model, label, concept) in cues for concept in rows["concept"]]
                _neighbours(axes, rows, np.array(marked, dtype=bool), shades)
                name = _caption(model, space, table)
                axes.set_title(
                    f"{label}, {_images(int(rows['n'].iloc[0]))}\n{name}\n{space}", fontsize=8.5
                )
            for axes in mine[len(panels) :]:
                axes.set_visible(False)
        figure.colorbar(
            shades, ax=list(grid.flat), label=CONTRAST, shrink=min(1.0, 4.0 / size[1]), aspect=20
        )
        legend = [
            Line2D(
                [],
                [],
                ls="",
                marker="o",
                mfc="0.8",
                mec="0.2",
                ms=4.5,
                label="mean angle; whisker: standard deviation over images",
            ),
            Line2D(
                [],
                [],
                ls="",
                marker="D",
                mfc="none",
                mec="black",
                ms=8,
                label="candidate for a spurious cue: near, yet hardly moved",
            ),
        ]
        figure.legend(
            handles=legend, loc="outside upper center", ncols=2 if columns > 1 else 1, fontsize=8
        )
        if len(everything) > len(panels) or len(labels) > len(drawn):
            figure.supxlabel(
                textwrap.fill(
                    _left_out(scans, table, len(panels), labels[MOST_PANELS:]), 50 * columns
                ),
                fontsize=8,
            )
        return figure


def _left_out(scans: Scans, table: pd.DataFrame, shown: int, labels: list[str]) -> str:
    """A note on what figure 15 leaves out if it shows `shown` panels per label."""
    parts = [f"labels {', '.join(labels)}"] if labels else []
    for space, models in scans.items():
        rest = [
            caption(model, table[table["space"] == space].set_index("model"))
            for model in list(models)[max(shown, 0) :]
        ]
        parts += (
            [f"{'all models' if len(rest) == len(models) else ', '.join(rest)} in {space}"]
            if rest
            else []
        )
        shown -= len(models)
    return (
        f"Not shown: {'; '.join(parts)}. The numbers are in concepts/<space>/<model>.parquet and "
        "tables/spurious.csv."
    )


def _nearest(scan: pd.DataFrame, label: str, most: int) -> pd.DataFrame:
    return (
        _with_contrast(scan, label)
        .sort_values(["angle_mean", "concept"], kind="stable")
        .iloc[:most]
    )


def _neighbours(axes: Axes, rows: pd.DataFrame, marked: np.ndarray, shades: ScalarMappable) -> None:
    positions = np.arange(len(rows))
    axes.errorbar(
        rows["angle_mean"],
        positions,
        xerr=rows["angle_std"],
        fmt="none",
        ecolor="0.55",
        elinewidth=0.8,
        zorder=1,
    )
    colours = shades.to_rgba(rows["contrast"].to_numpy())
    axes.scatter(
        rows["angle_mean"], positions, s=22, c=colours, edgecolors="0.2", linewidths=0.6, zorder=2
    )
    axes.scatter(
        rows["angle_mean"][marked],
        positions[marked],
        s=75,
        marker="D",
        facecolors="none",
        edgecolors="black",
        lw=1,
        zorder=3,
    )
    axes.set_yticks(positions, list(rows["concept"]), fontsize=7)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel("angle (degrees)")
    axes.tick_params(labelbottom=True)
    axes.grid(axis="y", color="0.92", lw=0.6)
    axes.set_axisbelow(True)
