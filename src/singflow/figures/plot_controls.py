"""Draw the removal of random subspaces: excess over random subspaces, and IS by dimension."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from singflow import cli
from singflow.artifacts.tables import read_table
from singflow.figures import style
from singflow.figures.style import Look


@style.styled
def draw(spaces: list[str], models: list[str], excess: pd.DataFrame, table: pd.DataFrame) -> Figure:
    """One row per space: (a) excess over random subspaces, (b) IS by the dimensions removed."""
    height = max(3.6, 1.7 + 0.4 * len(models))
    figure, grid = style.panels(len(spaces), 2, (9.5, height * len(spaces)))
    for (left, right), space in zip(grid, spaces, strict=True):
        rows = style.of_space(table, space)
        looks: dict[str, Look] = {
            model: style.look_of(number) | {"lw": 1.2}
            for number, model in enumerate(models)
            if int(rows["null_dim"][model]) > 0
        }
        mine = excess[excess["space"] == space]
        left.set_title(f"(a) null minus random, {space}", loc="left")
        right.set_title("(b) null (solid) and random (dashed) parts", loc="left")
        if not looks:
            for axes in (left, right):
                style.say(axes, "no model has a null space")
            continue
        _excess(left, mine[mine["own"]].set_index("model").to_dict("index"), looks, rows)
        _dimensions(right, mine, looks, rows)
        if left_out := [style.bare(model) for model in models if model not in looks]:
            left.set_xlabel(f"{left.get_xlabel()}\nno null space: {', '.join(left_out)}")
    return figure


def _excess(axes: Axes, own: dict[Any, Any], looks: dict[str, Look], rows: pd.DataFrame) -> None:
    axes.axvline(0, color="0.3", lw=0.8)
    scores = ((-0.16, "is_deg", None), (0.16, "as_abs_deg", "white"))
    for position, (model, look) in enumerate(looks.items()):
        for offset, score, fill in scores:
            middle, low, high = (
                own[model][f"{score}_excess_random{end}"] for end in ("", "_low", "_high")
            )
            bar = [[middle - low], [high - middle]]
            axes.errorbar(
                middle, position + offset, xerr=bar, mfc=fill, ms=6, capsize=2, ls="", **look
            )
    names = [
        f"{style.caption(model, rows, chr(10))}\nk = {own[model]['dimension']}" for model in looks
    ]
    axes.set_yticks(range(len(looks)), names)
    axes.set_ylim(len(looks) - 0.5, -0.5)
    axes.set_xlabel("null minus random: IS (filled), |AS| (open), degrees")
    style.grid_lines(axes, "x")


def _dimensions(
    axes: Axes, excess: pd.DataFrame, looks: dict[str, Look], table: pd.DataFrame
) -> None:
    for model, look in looks.items():
        rows = excess[excess["model"] == model].sort_values("dimension")
        null, random = rows["is_deg_null"], rows["is_deg_random"]
        axes.plot(rows["dimension"], null, label=style.caption(model, table), ms=4, **look)
        axes.plot(rows["dimension"], random, ls="--", mfc="white", ms=4, **look)
    axes.set_xscale("log")
    ticks: list[int] = []
    for dimension in sorted(excess["dimension"].unique()):
        if not ticks or dimension >= 2 * ticks[-1]:
            ticks.append(int(dimension))
    axes.set_xticks(ticks, list(map(str, ticks)), rotation=45 if len(ticks) > 6 else 0)
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set(xlabel="dimensions removed", ylabel="IS (degrees)")
    if len(looks) < 9:  # a longer legend would hide the curves; panel (a) has the same colours
        axes.set_ylim(top=axes.get_ylim()[1] * (1.05 + 0.07 * len(looks)))
        axes.legend(fontsize=7, loc="upper left")
    style.grid_lines(axes, "both")


class Flags(cli.Selection): ...


def main(flags: Flags) -> None:
    excess, table = (
        read_table(flags.path(f"tables/{name}.csv")) for name in ("controls", "models")
    )
    style.write_figure(flags, "controls", draw(flags.spaces, flags.models, excess, table))


if __name__ == "__main__":
    cli.run_step(main, Flags)
