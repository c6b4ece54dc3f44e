"""Draw figures 5, 15 and 16 of the paper: angles to concepts, and AS, of a few labels."""

from itertools import product

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from singflow import cli
from singflow.analyses.concepts import LABEL_IMAGES, Scan, lowest, read_scan
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


def concepts_of(scan: Scan, label: str, count: int) -> pd.DataFrame:
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
    return pd.concat(rows.iloc[which].assign(group=group) for group, which in groups.items())


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
    columns = min(2, len(labels) * len(pairs))
    deep = -(-len(labels) * len(pairs) // columns)
    figure, sides, lines, moves = style.new_figure((style.PAGE, 1)), [], [], []
    places = figure.subfigures(deep, columns, squeeze=False).flat
    for place, (label, (space, model, scan)) in zip(places, product(labels, pairs), strict=False):
        models, row = style.of_space(table, space), scan.labels.index(label)
        name, n = style.caption(model, models), int(scan.n[row])
        name += "" if int(models["null_dim"][model]) else " (no null space)"
        title = f"{label}, {n} image{'s' if n != 1 else ''}\n{name}, {space}"
        place.suptitle(style.wrapped(title, style.PAGE / columns - 0.2), **TITLE)
        rows = concepts_of(scan, label, extremes)
        rows["cue"] = [(space, model, label, concept) in cues for concept in rows["concept"]]
        most = rows.iloc[int(rows["contrast"].abs().argmax())]
        way = "toward" if most["contrast"] > 0 else "away from"
        move, size = f"{label} {way} {most['concept']}", abs(most["contrast"])
        moves.append((size, f"{move} by {size:.1f}° against the mean of all concepts, in {name}"))
        left, right = place.subplots(1, 2, sharey=True)
        shade = style.colour(list(models.index).index(model))
        _concepts(left, right, rows, float(scan.common[row]), shade, whiskers=n >= LABEL_IMAGES)
        sides.append((left, right))
        lines.append(len(rows) + rows["group"].nunique())
    figure.set_figheight(0.4 + (0.85 + 0.125 * max(lines)) * deep)
    for same in zip(*sides, strict=True):
        ends = np.array([axes.get_xlim() for axes in same])
        for axes in same:
            axes.set_xlim(ends.min(), ends.max())
    handles = [
        style.key("mean angle", ls="", **DOT),
        style.key("mean AS over all concepts, at which bars begin", **DOTTED),
        style.key("candidate for a spurious cue, if any", ls="", **DIAMOND),
    ]
    style.legend(figure, handles)
    return style.titled(figure, f"Null removal moves {max(moves)[1]}")


def _concepts(
    left: Axes, right: Axes, rows: pd.DataFrame, common: float, shade: str, *, whiskers: bool
) -> None:
    """Angles on the left, and bars of AS on the right, which begin at `common`."""
    begins, cue = ~rows["group"].duplicated().to_numpy(), rows["cue"].to_numpy()
    positions = np.arange(len(rows)) + np.cumsum(begins)  # with a line for the name of each group
    angle, score = (rows[of] if whiskers else None for of in ("angle_std", "as_std"))
    left.errorbar(rows["angle_mean"], positions, xerr=angle, fmt="o", ms=3.5, color=shade)
    left.plot(rows["angle_mean"][cue], positions[cue], ls="", **DIAMOND)
    bars: Look = {"xerr": score, "error_kw": {"lw": 1, "ecolor": "0.3"}, "color": shade}
    right.barh(positions, rows["contrast"], 0.6, left=common, **bars)
    right.axvline(0, color="0.7", lw=0.8)
    right.axvline(common, **DOTTED)
    left.set_yticks(positions, rows["concept"])
    left.set_yticks(positions[begins] - 1, rows["group"][begins], minor=True)
    left.set(ylim=(positions[-1] + 0.7, -0.7), xlabel="angle (degrees)")
    right.set_xlabel("AS (degrees)")
    for axes in (left, right):
        axes.tick_params(axis="y", which="minor", length=0, labelcolor="0.4")
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
