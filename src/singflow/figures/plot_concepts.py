"""Draw figures 5, 15 and 16 of the paper: angles to concepts, and AS, of a few labels."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from singflow import cli
from singflow.analyses.concepts import FEWEST, Scan, lowest, read_scan
from singflow.artifacts.tables import read_models, read_table
from singflow.errors import check_labels
from singflow.figures import style
from singflow.figures.parameters import MOST_PANELS, PlotConcepts
from singflow.figures.style import Look

CUE = ["space", "model", "label", "concept"]  # what names a candidate for a spurious cue
DOT: Look = {"marker": "o", "color": "0.5", "ms": 3.5}
DIAMOND: Look = {"marker": "D", "mfc": "none", "mec": "black", "ms": 6}
TITLE: Look = {"x": 0.02, "ha": "left", "size": "medium", "weight": "normal"}
DOTTED: Look = {"color": "0.3", "lw": 1, "ls": ":"}


class Panel(NamedTuple):
    """One label in the scan of one model in one space."""

    space: str
    model: str
    label: str
    n: int
    rows: pd.DataFrame  # of the concepts shown: group, concept, moments, contrast, cue
    common: float  # mean AS over all concepts


def panel_of(
    space: str, model: str, scan: Scan, label: str, count: int, cues: set[tuple[str, ...]]
) -> Panel:
    """The `count` concepts nearest to a label, and of the others the strongest and the weakest.

    Nearest, and then strongest, is first.
    """
    row = scan.labels.index(label)
    rows = pd.DataFrame({name: values[row] for name, values in scan.moments.items()})
    rows = rows.assign(concept=scan.concepts, contrast=scan.contrast[row])
    near = lowest(scan.moments["angle_mean"][row], count)
    others = np.setdiff1d(np.arange(len(rows)), near)
    others = others[np.argsort(-np.abs(scan.contrast[row, others]), kind="stable")]
    groups = {
        "nearest": near,
        "others: strongest": others[:count],
        "others: weakest": others[count:][-count:],
    }
    shown = pd.concat(rows.iloc[which].assign(group=group) for group, which in groups.items())
    shown["cue"] = [(space, model, label, concept) in cues for concept in shown["concept"]]
    return Panel(space, model, label, int(scan.n[row]), shown, float(scan.common[row]))


@style.styled
def draw(
    scans: dict[str, dict[str, Scan]],
    table: pd.DataFrame,
    spurious: pd.DataFrame,
    labels: list[str],
    extremes: int,
) -> Figure:
    """Angles and AS of the nearest, strongest and weakest concepts, with standard deviations.

    At most MOST_PANELS panels are shown, with as many models for every label.
    """
    pairs = style.pairs_of(scans)[: max(1, MOST_PANELS // len(labels))]
    cues = set(spurious[CUE].itertuples(index=False, name=None))
    panels = [panel_of(*pair, label, extremes, cues) for label in labels for pair in pairs]
    columns = min(2, len(panels))
    deep = -(-len(panels) // columns)
    rows = max(len(panel.rows) + panel.rows["group"].nunique() for panel in panels)
    figure = style.new_figure((style.PAGE, 0.4 + (0.85 + 0.125 * rows) * deep))
    places, sides = figure.subfigures(deep, columns, squeeze=False).flat, []
    for place, panel in zip(places, panels, strict=False):
        models = style.of_space(table, panel.space)
        name = style.caption(panel.model, models)
        name += "" if int(models["null_dim"][panel.model]) else " (no null space)"
        images = f"{panel.n} image{'s' if panel.n != 1 else ''}"
        left, right = place.subplots(1, 2, sharey=True)
        sides.append((left, right))
        title = f"{panel.label}, {images}\n{name}, {panel.space}"
        place.suptitle(style.wrapped(title, style.PAGE / columns - 0.2), **TITLE)
        number = list(models.index).index(panel.model)
        _concepts(left, right, panel, style.colour(number))
    for same in zip(*sides, strict=True):
        ends = np.array([axes.get_xlim() for axes in same])
        for axes in same:
            axes.set_xlim(ends.min(), ends.max())
    handles = [
        style.key("mean angle", ls="", **DOT),
        style.key("mean AS over all concepts, at which bars begin", **DOTTED),
        style.key("candidate for a spurious cue", ls="", **DIAMOND),
    ]
    style.legend(figure, handles[: 2 + any(panel.rows["cue"].any() for panel in panels)])
    return figure


def _concepts(left: Axes, right: Axes, panel: Panel, shade: str) -> None:
    rows, begins = panel.rows, ~panel.rows["group"].duplicated().to_numpy()
    positions = np.arange(len(rows)) + np.cumsum(begins)  # with a line for the name of each group
    angle, score = (rows[of] if panel.n >= FEWEST else None for of in ("angle_std", "as_std"))
    dots: Look = {"fmt": "o", "ms": 3.5, "lw": 1, "color": shade}
    left.errorbar(rows["angle_mean"], positions, xerr=angle, **dots)
    cue = rows["cue"].to_numpy()
    left.plot(rows["angle_mean"][cue], positions[cue], ls="", **DIAMOND)
    bars: Look = {"xerr": score, "error_kw": {"lw": 1, "ecolor": "0.3"}, "color": shade}
    right.barh(positions, rows["contrast"], 0.6, left=panel.common, **bars)
    right.axvline(0, color="0.7", lw=0.8)
    right.axvline(panel.common, **DOTTED)
    left.set_yticks(positions, rows["concept"])
    left.set_yticks(positions[begins] - 1, rows["group"][begins], minor=True)
    left.tick_params(axis="y", which="minor", length=0, labelcolor="0.4")
    left.set(ylim=(positions[-1] + 0.7, -0.7), xlabel="angle (degrees)")
    right.tick_params(axis="y", which="minor", length=0)
    right.set_xlabel("AS (degrees)")
    for axes in (left, right):
        axes.grid(axis="y")


class Flags(PlotConcepts, cli.Selection): ...


def main(flags: Flags) -> None:
    scans: dict[str, dict[str, Scan]] = {space: {} for space in flags.spaces}
    labels = flags.labels
    for space, of in scans.items():
        for model in flags.shown or flags.models:
            path = flags.path("concepts", space=space, model=model)
            moments = ("angle_mean", "angle_std", "as_mean", "as_std")
            scan = read_scan(path, flags.path("names", space=space), moments)
            check_labels(labels, scan.labels, "plot_concepts.labels")
            labels = labels or [scan.labels[int(np.argmax(scan.n))]]
            of[model] = scan.only(labels)
    models = read_models(flags.path("tables/models.csv"))
    spurious = read_table(flags.path("tables/spurious.csv"), CUE)
    style.write_figure(flags, "fig5", draw(scans, models, spurious, labels, flags.extremes))


if __name__ == "__main__":
    cli.run_step(main, Flags)
