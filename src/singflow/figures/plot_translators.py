"""Draw figures 7 and 8: held-out scores of translators by epoch and loss, and by architecture."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

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
    for number, (loss, width) in enumerate([("mse", 1.2), ("cosine", 1.2), ("both", 3.0)])
}
LEVEL: Look = {"color": "0.45", "ls": "--", "lw": 0.9}
MEASURES = {
    "validation_cosine": "held-out cosine similarity",
    "validation_mse": "held-out MSE per coordinate",
}


@style.styled
def draw_training(reports: Reports, table: pd.DataFrame) -> Figure:
    """Held-out cosine and MSE by epoch: one row per space and architecture."""
    kinds = _kinds(reports)[1:]
    if not kinds:
        return _untrained()
    figure, subfigures = style.subfigures(
        len(reports), 8.2, 0.9 + (2.3 * len(kinds) + 0.5) * len(reports)
    )
    for block, (space, models) in zip(subfigures, reports.items(), strict=True):
        block.suptitle(f"space {space}", fontsize=10, x=0.01, ha="left")
        grid = block.subplots(len(kinds), 2, squeeze=False)
        for row, kind in zip(grid, kinds, strict=True):
            for axes, measure in zip(row, MEASURES, strict=True):
                _curves(axes, models, kind, measure)
                axes.set_title(KINDS[kind], loc="left", fontsize=9)
        for axes in grid[-1]:
            axes.set_xlabel("epoch")
    tried = {
        loss
        for _, _, found in style.pairs_of(reports)
        for report in found.values()
        for loss in report.get("losses", {})
    }
    losses = [
        style.key(f"loss {name}", **LINES[loss]) for loss, name in LOSSES.items() if loss in tried
    ]
    names = table.set_index("model")
    shapes = [
        style.key(style.caption(model, names), color="0.25", ls="", marker=style.marker(number))
        for number, model in enumerate(next(iter(reports.values())))
    ]
    handles = [*losses, style.key("linear translator", **LEVEL)]
    figure.legend(handles=handles, loc="outside lower left", fontsize=8)
    figure.legend(handles=shapes, loc="outside lower right", fontsize=8)
    return figure


def _curves(axes: Axes, models: dict[str, Kinds], kind: str, measure: str) -> None:
    for number, reports in enumerate(models.values()):
        level, shape = reports["linear"][measure], style.marker(number)
        axes.axhline(level, zorder=1, **LEVEL)
        edge: Look = {"transform": axes.get_yaxis_transform(), "clip_on": False, "zorder": 3}
        axes.plot([1], [level], marker=shape, ms=5, color=LEVEL["color"], **edge)
        for loss, run in reports[kind]["losses"].items():
            history = pd.DataFrame(run["history"])
            width = LINES[loss]["lw"]
            rim: Look = {"ms": 4.5 + width, "markeredgecolor": "white", "markeredgewidth": 0.6}
            look: Look = LINES[loss] | rim | {"marker": shape, "zorder": 2 - width / 10}
            at = [run["best_epoch"] - 1]
            axes.plot(history["epoch"], history[measure], markevery=at, **look)
    if measure == "validation_mse":
        axes.set_yscale("log")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel(MEASURES[measure])


@style.styled
def draw_architectures(reports: Reports, table: pd.DataFrame) -> Figure:
    """Held-out cosine and MSE of every architecture with its kept loss: one row per space."""
    kinds = _kinds(reports)
    if not kinds[1:]:
        return _untrained()
    rows = max(map(len, reports.values())) * (len(kinds) + 1)
    size = (9, (1.3 + 0.24 * rows) * len(reports))
    figure, grid = style.panels(len(reports), 2, size, sharey="row")
    for row, (space, models) in zip(grid, reports.items(), strict=True):
        for axes, measure in zip(row, MEASURES, strict=True):
            _points(axes, models, kinds, measure, style.of_space(table, space))
            axes.set_title(f"space {space}", loc="left")
    return figure


def _points(
    axes: Axes, models: dict[str, Kinds], kinds: list[str], measure: str, rows: pd.DataFrame
) -> None:
    ticks: dict[int, str] = {}
    beside: Look = {"textcoords": "offset points", "va": "center", "fontsize": 7}
    for number, (model, reports) in enumerate(models.items()):
        top = number * (len(kinds) + 1)
        places = range(top + 1, top + 1 + len(kinds))
        values = [reports[kind][measure] for kind in kinds]
        axes.plot(values, places, ms=6, ls="", **style.look_of(number))
        for value, place in zip(values, places, strict=True):
            axes.annotate(f"{value:#.3g}", (value, place), (6, 0), **beside)
        if measure == "validation_cosine":
            label = "constant baseline" if number == 0 else None
            baseline = [reports["linear"]["baseline_cosine"]] * 2
            ends = [top + 0.6, places[-1] + 0.4]
            axes.plot(baseline, ends, color="0.35", ls=":", lw=1.4, label=label)
            bold: Look = {"va": "center", "fontweight": "bold", "fontsize": 8}
            inside = axes.get_yaxis_transform()
            name = axes.text(0.01, top, style.caption(model, rows), transform=inside, **bold)
            name.set_in_layout(False)
        for kind, place in zip(kinds, places, strict=True):
            loss = reports[kind].get("loss")
            ticks[place] = KINDS[kind] + (f" (loss {LOSSES[loss]})" if loss else "")
            axes.axhline(place, color="0.93", lw=0.8, zorder=0)
    axes.set_yticks(list(ticks), list(ticks.values()), fontsize=8)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(max(ticks) + 0.7, -0.7)
    axes.margins(x=0.22)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.spines["left"].set_visible(False)
    axes.patch.set_visible(False)
    axes.set_xlabel(MEASURES[measure])
    if measure == "validation_cosine":
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), fontsize=8, borderaxespad=0)


def _kinds(reports: Reports) -> list[str]:
    """The kinds of translators that were compared; linear is the first."""
    found = {kind for _, _, kinds in style.pairs_of(reports) for kind in kinds}
    return [kind for kind in KINDS if kind in found]


def _untrained() -> Figure:
    """A figure that says that there is nothing to compare."""
    figure = style.new_figure((6, 1.2))
    said = "no nonlinear translator was trained\n(comparison.models or comparison.kinds is empty)"
    figure.text(0.5, 0.5, said, ha="center", va="center")
    return figure


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
    style.write_figure(flags, "fig7", draw_training(reports, models))
    style.write_figure(flags, "fig8", draw_architectures(reports, models))


if __name__ == "__main__":
    cli.run_step(main, Flags)
