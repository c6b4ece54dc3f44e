"""Draw figures 7 and 8: held-out cosine and MSE of translators, by epoch and loss, and by
architecture.
"""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from singflow import cli
from singflow.artifacts.files import read_json
from singflow.artifacts.tables import read_models
from singflow.figures.style import COLOURS, STYLE, caption, colour, marker, of_space, write_figure
from singflow.translators.linear import with_held_out_figures

Reports = dict[str, dict[str, dict[str, dict[str, Any]]]]  # space -> model -> kind -> report
KINDS = {
    "linear": "linear",
    "mlp3": "3-layer MLP",
    "mlp4": "4-layer MLP",
    "residual": "residual MLP",
}
LOSSES = {"mse": "MSE", "cosine": "cosine", "both": "MSE + cosine", "ridge": "ridge"}
# The curve of the sum often equals the curve of the cosine loss: a wide line below a thin one.
LINE_WIDTHS = {"mse": 1.2, "cosine": 1.2, "both": 3.0}
MEASURES = {
    "validation_cosine": "held-out cosine similarity",
    "validation_mse": "held-out MSE per coordinate",
}


def draw_training(reports: Reports, table: pd.DataFrame) -> Figure:
    """Held-out cosine and MSE by epoch: one row per space and architecture.

    Colours are losses, markers are models. A marker is at the best epoch or, for the linear
    translator, at the right edge.
    """
    with plt.rc_context(STYLE):
        if (empty := _untrained(reports)) is not None:
            return empty
        trained = [kind for kind in _kinds(reports) if kind != "linear"]
        figure = plt.figure(
            figsize=(8.2, 0.9 + (2.3 * len(trained) + 0.5) * len(reports)), layout="constrained"
        )
        blocks = np.atleast_1d(np.asarray(figure.subfigures(len(reports), 1)))
        for block, (space, models) in zip(blocks, reports.items(), strict=True):
            block.suptitle(f"space {space}", fontsize=10, x=0.01, ha="left")
            grid = block.subplots(len(trained), 2, squeeze=False)
            for axes, kind in zip(grid, trained, strict=True):
                for panel, measure in zip(axes, MEASURES, strict=True):
                    _curves(panel, models, kind, measure)
                    panel.set_title(KINDS[kind], loc="left", fontsize=9)
            for panel in grid[-1]:
                panel.set_xlabel("epoch")
        _key(figure, reports, table)
        return figure


def _curves(
    axes: Axes, models: dict[str, dict[str, dict[str, Any]]], kind: str, measure: str
) -> None:
    for number, reports in enumerate(models.values()):
        level = reports["linear"][measure]
        axes.axhline(level, color="0.45", ls="--", lw=0.9, zorder=1)
        axes.plot(
            [1],
            [level],
            marker=marker(number),
            ms=5,
            color="0.45",
            transform=axes.get_yaxis_transform(),
            clip_on=False,
            zorder=3,
        )
        for loss, run in reports[kind]["losses"].items():
            history = pd.DataFrame(run["history"])
            best = run["best_epoch"] - 1
            axes.plot(
                history["epoch"],
                history[measure],
                color=_loss_colour(loss),
                lw=LINE_WIDTHS[loss],
                marker=marker(number),
                markevery=[best],
                ms=4.5 + LINE_WIDTHS[loss],
                markeredgecolor="white",
                markeredgewidth=0.6,
                zorder=2 - LINE_WIDTHS[loss] / 10,
            )
    if measure == "validation_mse":
        axes.set_yscale("log")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel(MEASURES[measure])


def _loss_colour(loss: str) -> str:
    return COLOURS[list(LOSSES).index(loss)]


def _key(figure: Figure, reports: Reports, table: pd.DataFrame) -> None:
    losses = [
        loss for loss in LOSSES if any(loss in kind.get("losses", {}) for kind in _all(reports))
    ]
    handles = [
        Line2D([], [], color=_loss_colour(loss), lw=LINE_WIDTHS[loss], label=f"loss {LOSSES[loss]}")
        for loss in losses
    ]
    handles.append(Line2D([], [], color="0.45", ls="--", lw=0.9, label="linear translator"))
    models = [
        Line2D(
            [],
            [],
            color="0.25",
            ls="",
            marker=marker(number),
            label=caption(model, table.set_index("model")),
        )
        for number, model in enumerate(next(iter(reports.values())))
    ]
    figure.legend(handles=handles, loc="outside lower left", fontsize=8)
    figure.legend(handles=models, loc="outside lower right", fontsize=8)


def draw_architectures(reports: Reports, table: pd.DataFrame) -> Figure:
    """Held-out cosine and MSE of every architecture with its kept loss: one row per space."""
    with plt.rc_context(STYLE):
        if (empty := _untrained(reports)) is not None:
            return empty
        kinds = _kinds(reports)
        rows = max(map(len, reports.values())) * (len(kinds) + 1)
        figure, grid = plt.subplots(
            len(reports),
            2,
            figsize=(9, (1.3 + 0.24 * rows) * len(reports)),
            squeeze=False,
            sharey="row",
            layout="constrained",
        )
        for axes, (space, models) in zip(grid, reports.items(), strict=True):
            weak = of_space(table, space)
            for panel, measure in zip(axes, MEASURES, strict=True):
                _points(panel, models, kinds, measure, weak)
                panel.set_title(f"space {space}", loc="left")
        return figure


def _points(
    axes: Axes,
    models: dict[str, dict[str, dict[str, Any]]],
    kinds: list[str],
    measure: str,
    rows: pd.DataFrame,
) -> None:
    ticks: dict[int, str] = {}
    for number, (model, reports) in enumerate(models.items()):
        top = number * (len(kinds) + 1)
        places = range(top + 1, top + 1 + len(kinds))
        values = [reports[kind][measure] for kind in kinds]
        axes.plot(values, places, color=colour(number), marker=marker(number), ms=6, ls="")
        for value, place in zip(values, places, strict=True):
            axes.annotate(
                f"{value:#.3g}",
                (value, place),
                (6, 0),
                textcoords="offset points",
                va="center",
                fontsize=7,
            )
        if measure == "validation_cosine":
            label = "constant baseline" if number == 0 else None
            axes.plot(
                [reports["linear"]["baseline_cosine"]] * 2,
                [top + 0.6, places[-1] + 0.4],
                color="0.35",
                ls=":",
                lw=1.4,
                label=label,
            )
            name = axes.text(
                0.01,
                top,
                caption(model, rows),
                transform=axes.get_yaxis_transform(),
                va="center",
                fontweight="bold",
                fontsize=8,
            )
            name.set_in_layout(False)
        ticks |= {
            place: _architecture(kind, reports[kind])
            for kind, place in zip(kinds, places, strict=True)
        }
        for place in places:
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


def _architecture(kind: str, report: dict[str, Any]) -> str:
    return KINDS[kind] if kind == "linear" else f"{KINDS[kind]} (loss {LOSSES[report['loss']]})"


def _all(reports: Reports) -> list[dict[str, Any]]:
    return [
        report
        for models in reports.values()
        for kinds in models.values()
        for report in kinds.values()
    ]


def _kinds(reports: Reports) -> list[str]:
    found = {kind for models in reports.values() for kinds in models.values() for kind in kinds}
    return [kind for kind in KINDS if kind in found]


def _untrained(reports: Reports) -> Figure | None:
    """A figure that says that there is nothing to compare; None if there is."""
    if set(_kinds(reports)) - {"linear"}:
        return None
    figure = plt.figure(figsize=(6, 1.2))
    figure.text(
        0.5,
        0.5,
        "no nonlinear translator was trained\n(comparison.models or comparison.kinds is empty)",
        ha="center",
        va="center",
    )
    return figure


class Flags(cli.Selection):
    kinds: list[str]


def main(flags: Flags) -> None:
    def reports_of(space: str, model: str) -> dict[str, dict[str, Any]]:
        linear = read_json(flags.path("translator_report", space=space, model=model))
        return {"linear": with_held_out_figures(linear)} | {
            kind: read_json(flags.path("network_report", space=space, model=model, kind=kind))
            for kind in flags.kinds
        }

    reports = {
        space: {model: reports_of(space, model) for model in flags.models} for space in flags.spaces
    }
    models = read_models(flags.path("tables/models.csv"))
    write_figure(flags, "fig7", draw_training(reports, models))
    write_figure(flags, "fig8", draw_architectures(reports, models))


if __name__ == "__main__":
    cli.run_step(main, Flags)
