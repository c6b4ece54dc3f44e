"""Draw figures 7 and 8: held-out scores of translators by epoch and loss, and by architecture."""

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from singflow import cli
from singflow.artifacts.files import read_json
from singflow.artifacts.tables import read_models
from singflow.figures import style
from singflow.figures.style import Look
from singflow.translators.linear import with_held_out_figures

OfKinds = dict[str, dict[str, Any]]  # kind -> report
Reports = dict[str, dict[str, OfKinds]]  # space -> model -> kind -> report
NAMES = {
    "linear": "linear",
    "mlp3": "3-layer MLP",
    "mlp4": "4-layer MLP",
    "residual": "residual MLP",
}
# The curve of the sum often equals the curve of the cosine loss: a wide line below a thin one.
LINES: dict[str, Look] = {
    "mse": {"color": style.COLOURS[0], "lw": 1, "label": "loss MSE"},
    "cosine": {"color": style.COLOURS[1], "lw": 1, "label": "loss cosine"},
    "both": {"color": style.COLOURS[2], "lw": 2.5, "label": "loss MSE + cosine"},
}
LEVEL: Look = {"color": "0.45", "ls": "--", "lw": 0.8}
COSINE, MSE = "validation_cosine", "validation_mse"
MEASURES = {COSINE: "held-out cosine", MSE: "held-out MSE"}


@style.styled
def draw_training(reports: Reports, table: pd.DataFrame) -> Figure:
    """Held-out cosine and MSE by epoch: a column per architecture, two rows per space."""
    kinds, rows = kinds_of(reports)[1:], 2 * len(reports)
    size = style.PAGE, 0.4 + 1.6 * rows
    figure, grid = style.panels(rows, len(kinds), size, sharex="col")
    for number, (space, models) in enumerate(reports.items()):
        for row, measure in zip(grid[2 * number :], MEASURES, strict=False):
            for axes, kind in zip(row, kinds, strict=True):
                _curves(axes, models, kind, measure)
            row[0].set_ylabel(MEASURES[measure])
        for axes, kind in zip(grid[2 * number], kinds, strict=True):
            axes.set_title(f"{NAMES[kind]}, {space}")
    for axes in grid[-1]:
        axes.set_xlabel("epoch")
    names = table.set_index("model")
    marks = [
        style.key(style.named(model, names), color="0.25", ls="", marker=style.marker(number))
        for number, model in enumerate(next(iter(reports.values())))
    ]
    tried = {line.get_label() for line in grid[0, 0].lines}
    losses = [style.key(**look) for look in LINES.values() if look["label"] in tried]
    style.legend(figure, [*losses, style.key("linear translator", **LEVEL), *marks], 4)
    return style.titled(figure, _finding(reports))


def _finding(reports: Reports) -> str:
    """How many networks have a smaller MSE than the linear translator of their model."""
    pairs = [
        (run[MSE], of["linear"][MSE])
        for *_, of in style.pairs_of(reports)
        for kind, run in of.items()
        if kind != "linear"
    ]
    better = sum(network < linear for network, linear in pairs)
    return f"{better} of {len(pairs)} networks have a smaller held-out MSE than linear translators"


def _curves(axes: Axes, models: dict[str, OfKinds], kind: str, measure: str) -> None:
    for number, reports in enumerate(models.values()):
        level, shape = reports["linear"][measure], style.marker(number)
        axes.axhline(level, zorder=1, **LEVEL)
        edge: Look = {"transform": axes.get_yaxis_transform(), "clip_on": False, "zorder": 3}
        axes.plot([1], [level], marker=shape, color=LEVEL["color"], **edge)
        for loss, run in reports[kind]["losses"].items():
            history = pd.DataFrame(run["history"])
            width = LINES[loss]["lw"]
            rim: Look = {"ms": 3.5 + width, "markeredgecolor": "white", "markeredgewidth": 0.5}
            look: Look = LINES[loss] | rim | {"marker": shape, "zorder": 2 - width / 10}
            at = [run["best_epoch"] - 1]
            axes.plot(history["epoch"], history[measure], markevery=at, **look)
    low, high = axes.dataLim.intervaly
    if high > 10 * low:  # as the MSE of networks that are trained by the cosine alone
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))


@style.styled
def draw_architectures(reports: Reports, table: pd.DataFrame) -> Figure:
    """Held-out cosine and MSE of every architecture with its kept loss: one row per space."""
    kinds, most = kinds_of(reports), max(map(len, reports.values()))
    size = style.PAGE, 0.5 + (0.6 + max(0.3, 0.1 * most) * len(kinds)) * len(reports)
    figure, grid = style.panels(len(reports), 2, size, sharey=True)
    for row, (space, models) in zip(grid, reports.items(), strict=True):
        names = style.of_space(table, space)
        row[0].set_title(space)
        for axes, measure in zip(row, MEASURES, strict=True):
            for number, (model, found) in enumerate(models.items()):
                values = [found[kind][measure] for kind in kinds]
                lower = 0.7 * ((number + 0.5) / len(models) - 0.5)
                places = [place + lower for place in range(len(kinds))]
                look = style.look_of(number) | {"ls": "", "label": style.named(model, names)}
                axes.plot(values, places, **look)
                if measure == COSINE:
                    baseline = found["linear"]["baseline_cosine"]
                    axes.axvline(baseline, color="0.35", ls=":", zorder=0)
            axes.set_xlabel(MEASURES[measure])
            axes.xaxis.set_major_locator(MaxNLocator(5))
            axes.grid(axis="y")
    grid[0, 0].set_yticks(range(len(kinds)), [NAMES[kind] for kind in kinds])
    grid[0, 0].set_ylim(len(kinds) - 0.5, -0.5)
    handles, _ = grid[0, 1].get_legend_handles_labels()
    style.legend(figure, [*handles, style.key("mean of the training images", color="0.35", ls=":")])
    return style.titled(figure, _finding(reports))


def kinds_of(reports: Reports) -> list[str]:
    """The kinds of translators that were compared; linear is the first."""
    found = {kind for _, _, kinds in style.pairs_of(reports) for kind in kinds}
    return [kind for kind in NAMES if kind in found]


class Flags(cli.Selection):
    kinds: list[str]


def main(flags: Flags) -> None:
    def linear(path: Path) -> OfKinds:
        return {"linear": with_held_out_figures(read_json(path))}

    reports = flags.gather("translator_report", linear)
    for space, model, found in style.pairs_of(reports):
        for kind in flags.kinds:
            path = flags.path("network_report", space=space, model=model, kind=kind)
            found[kind] = read_json(path)
    models = read_models(flags.path("tables/models.csv"))
    for name, draw in (("fig7", draw_training), ("fig8", draw_architectures)):
        figure = draw(reports, models) if kinds_of(reports)[1:] else None
        style.write_figure(flags, name, figure, style.NETWORKS)


if __name__ == "__main__":
    cli.run_step(main, Flags)
