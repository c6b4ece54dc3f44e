"""Draw the removal of random subspaces: excess over random subspaces, and IS by dimension."""

from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from singflow import cli
from singflow.artifacts.tables import read_table
from singflow.figures.style import STYLE, bare, caption, colour, marker, of_space, write_figure


def draw(spaces: list[str], models: list[str], excess: pd.DataFrame, table: pd.DataFrame) -> Figure:
    """One row per space: (a) excess over random subspaces, (b) IS against the dimensions removed.

    Models without a null space are left out; the figure names them.
    """
    with plt.rc_context(STYLE):
        height = max(3.6, 1.7 + 0.4 * len(models))
        figure, grid = plt.subplots(
            len(spaces), 2, figsize=(9.5, height * len(spaces)), squeeze=False, layout="constrained"
        )
        for axes, space in zip(grid, spaces, strict=True):
            rows = of_space(table, space)
            shown = [model for model in models if int(rows["null_dim"][model]) > 0]
            mine = excess[excess["space"] == space]
            axes[0].set_title(f"(a) null minus random, {space}", loc="left")
            axes[1].set_title("(b) null (solid) and random (dashed) parts", loc="left")
            if not shown:
                for panel in axes:
                    panel.text(
                        0.5,
                        0.5,
                        "no model has a null space",
                        ha="center",
                        transform=panel.transAxes,
                    )
                continue
            _excess(
                axes[0], mine[mine["own"]].set_index("model").to_dict("index"), shown, models, rows
            )
            _dimensions(axes[1], mine, shown, models, rows)
            if len(shown) < len(models):
                left_out = ", ".join(bare(model) for model in models if model not in shown)
                axes[0].set_xlabel(f"{axes[0].get_xlabel()}\nno null space: {left_out}")
        return figure


def _excess(
    axes: Axes,
    own: dict[Any, dict[Any, Any]],
    shown: list[str],
    models: list[str],
    rows: pd.DataFrame,
) -> None:
    axes.axvline(0, color="0.3", lw=0.8)
    for position, model in enumerate(shown):
        number = models.index(model)
        for offset, score, fill in ((-0.16, "is_deg", True), (0.16, "as_abs_deg", False)):
            middle, low, high = (
                own[model][f"{score}_excess_random{end}"] for end in ("", "_low", "_high")
            )
            axes.errorbar(
                middle,
                position + offset,
                xerr=[[middle - low], [high - middle]],
                fmt=marker(number),
                color=colour(number),
                mfc=None if fill else "white",
                ms=6,
                capsize=2,
                lw=1.2,
            )
    axes.set_yticks(
        range(len(shown)),
        [caption(model, rows, "\n") + f"\nk = {own[model]['dimension']}" for model in shown],
    )
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_xlabel("null minus random: IS (filled), |AS| (open), degrees")
    axes.grid(axis="x", color="0.92", lw=0.6)


def _dimensions(
    axes: Axes, excess: pd.DataFrame, shown: list[str], models: list[str], table: pd.DataFrame
) -> None:
    for model in shown:
        rows = excess[excess["model"] == model].sort_values("dimension")
        style: dict[str, Any] = {
            "color": colour(models.index(model)),
            "marker": marker(models.index(model)),
            "ms": 4,
            "lw": 1.2,
        }
        axes.plot(rows["dimension"], rows["is_deg_null"], label=caption(model, table), **style)
        axes.plot(rows["dimension"], rows["is_deg_random"], ls="--", mfc="white", **style)
    axes.set_xscale("log")
    ticks: list[int] = []
    for dimension in sorted(excess["dimension"].unique()):
        if not ticks or dimension >= 2 * ticks[-1]:
            ticks.append(int(dimension))
    axes.set_xticks(ticks, [str(tick) for tick in ticks], rotation=45 if len(ticks) > 6 else 0)
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("dimensions removed")
    axes.set_ylabel("IS (degrees)")
    if len(shown) < 9:  # a longer legend would hide the curves; panel (a) has the same colours
        axes.set_ylim(top=axes.get_ylim()[1] * (1.05 + 0.07 * len(shown)))
        axes.legend(fontsize=7, loc="upper left")
    axes.grid(color="0.92", lw=0.6)


class Flags(cli.Selection):
    pass


def main(flags: Flags) -> None:
    excess, table = (
        read_table(flags.path(f"tables/{name}.csv")) for name in ("controls", "models")
    )
    write_figure(flags, "controls", draw(flags.spaces, flags.models, excess, table))


if __name__ == "__main__":
    cli.run_step(main, Flags)
