"""Draw figures 7 and 8: held-out scores of translators by epoch and loss, and by architecture."""

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

Kinds = dict[str, dict[str, Any]]  # kind -> report
Reports = dict[str, dict[str, Kinds]]  # space -> model -> kind -> report
KINDS = {
    "linear": "linear",
    "mlp3": "3-layer MLP",
    "mlp4": "4-layer MLP",
    "residual": "residual MLP",
}
LOSSES = {"mse": "MSE", "cosine": "cosine", "both": "MSE + cosine"}
# The curve of the sum often equals the curve of the cosine loss: a wide line below a thin one.
LINES: dict[str, Look] = {
    loss: {"color": style.COLOURS[number], "lw": width}
    for number, (loss, width) in enumerate([("mse", 1.0), ("cosine", 1.0), ("both", 2.5)])
}
LEVEL: Look = {"color": "0.45", "ls": "--", "lw": 0.8}
MEASURES = {"validation_cosine": "held-out cosine", "validation_mse": "held-out MSE"}


@style.styled
def draw_training(reports: Reports, table: pd.DataFrame) -> Figure:
    """Held-out cosine and MSE by epoch: a column per architecture, two rows per space."""
    kinds = kinds_of(reports)[1:]
    height = 0.7 + 0.13 * (len(LINES) + 1) + (2.6 + 0.2) * len(reports)
    figure, subfigures = style.subfigures(len(reports), style.PAGE, height)
    style.entitle(figure, _title(reports))
    for block, (space, models) in zip(subfigures, reports.items(), strict=True):
        grid = block.subplots(2, len(kinds), squeeze=False, sharex="col")
        for row, measure in zip(grid, MEASURES, strict=True):
            for axes, kind in zip(row, kinds, strict=True):
                _curves(axes, models, kind, measure)
            row[0].set_ylabel(MEASURES[measure])
        for axes, kind in zip(grid[0], kinds, strict=True):
            axes.set_title(f"{KINDS[kind]}, {space}")
        for axes in grid[-1]:
            axes.set_xlabel("epoch")
    tried = {
        loss
        for _, _, found in style.pairs_of(reports)
        for report in found.values()
        for loss in report.get("losses", {})
    }
    handles = [
        style.key(f"loss {name}", **LINES[loss]) for loss, name in LOSSES.items() if loss in tried
    ]
    handles.append(style.key("linear translator", **LEVEL))
    names = table.set_index("model")
    handles += [
        style.key(style.caption(model, names), color="0.25", ls="", marker=style.marker(number))
        for number, model in enumerate(next(iter(reports.values())))
    ]
    style.legend(figure, handles)
    return figure


def _title(reports: Reports) -> str:
    """How many nonlinear translators are better than the linear one."""
    better = [
        report["validation_mse"] < kinds["linear"]["validation_mse"]
        for _, _, kinds in style.pairs_of(reports)
        for kind, report in kinds.items()
        if kind != "linear"
    ]
    return (
        f"{sum(better)} of {len(better)} nonlinear translators have a lower held-out MSE than the"
        " linear one"
    )


def _curves(axes: Axes, models: dict[str, Kinds], kind: str, measure: str) -> None:
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
    if measure == "validation_mse":
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs="auto", numticks=6))
        axes.yaxis.set_major_formatter("{x:.3g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))


@style.styled
def draw_architectures(reports: Reports, table: pd.DataFrame) -> Figure:
    """Held-out cosine and MSE of every architecture with its kept loss: one row per space."""
    kinds = kinds_of(reports)
    rows = max(map(len, reports.values())) * (len(kinds) + 1)
    size = (style.PAGE, 0.4 + (0.7 + 0.15 * rows) * len(reports))
    figure, grid = style.panels(len(reports), 2, size, sharey="row")
    style.entitle(figure, _title(reports))
    for row, (space, models) in zip(grid, reports.items(), strict=True):
        for axes, measure in zip(row, MEASURES, strict=True):
            _points(axes, models, kinds, measure, style.of_space(table, space))
        if len(reports) > 1:
            row[1].set_title(f"space {space}")
    return figure


def _points(
    axes: Axes, models: dict[str, Kinds], kinds: list[str], measure: str, rows: pd.DataFrame
) -> None:
    ticks: dict[int, str] = {}
    beside: Look = {"textcoords": "offset points", "va": "center"}
    for number, (model, reports) in enumerate(models.items()):
        top = number * (len(kinds) + 1)
        places = range(top + 1, top + 1 + len(kinds))
        values = [reports[kind][measure] for kind in kinds]
        axes.plot(values, places, ls="", **style.look_of(number))
        for value, place in zip(values, places, strict=True):
            axes.annotate(f"{value:#.3g}", (value, place), (6, 0), **beside)
        if measure == "validation_cosine":
            label = "constant baseline" if number == 0 else None
            baseline = [reports["linear"]["baseline_cosine"]] * 2
            ends = [top + 0.6, places[-1] + 0.4]
            axes.plot(baseline, ends, color="0.35", ls=":", label=label)
            bold: Look = {"va": "center", "fontweight": "bold"}
            inside = axes.get_yaxis_transform()
            name = axes.text(0.01, top, style.caption(model, rows), transform=inside, **bold)
            name.set_in_layout(False)
        for kind, place in zip(kinds, places, strict=True):
            loss = reports[kind].get("loss")
            ticks[place] = KINDS[kind] + (f" (loss {LOSSES[loss]})" if loss else "")
            axes.axhline(place, color="0.93", lw=0.6, zorder=0)
    axes.set_yticks(list(ticks), list(ticks.values()))
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(max(ticks) + 0.7, -0.7)
    axes.margins(x=0.22)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.spines["left"].set_visible(False)
    axes.patch.set_visible(False)
    axes.set_xlabel(MEASURES[measure])
    if measure == "validation_cosine":
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0)


def kinds_of(reports: Reports) -> list[str]:
    """The kinds of translators that were compared; linear is the first."""
    found = {kind for _, _, kinds in style.pairs_of(reports) for kind in kinds}
    return [kind for kind in KINDS if kind in found]


class Flags(cli.Selection):
    kinds: list[str]


def main(flags: Flags) -> None:
    linear = flags.gather("translator_report", read_json)
    reports = {
        space: {
            model: {"linear": with_held_out_figures(report)}
            | {
                kind: read_json(flags.path("network_report", space=space, model=model, kind=kind))
                for kind in flags.kinds
            }
            for model, report in models.items()
        }
        for space, models in linear.items()
    }
    models = read_models(flags.path("tables/models.csv"))
    for name, draw in (("fig7", draw_training), ("fig8", draw_architectures)):
        if kinds_of(reports)[1:]:
            style.write_figure(flags, name, draw(reports, models))
        else:
            style.write_needs(flags, name, style.NETWORKS)


if __name__ == "__main__":
    cli.run_step(main, Flags)
