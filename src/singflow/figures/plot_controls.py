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
    mine, score = excess[excess["own"]], "is_deg_excess_random"
    names = [style.named(model, table.set_index("model")) for model in models]
    height = max(1.8, 0.6 + style.rows_high(names, 0.27))
    figure, grid = style.panels(len(spaces), 2, (style.PAGE, 0.4 + height * len(spaces)))
    more, less = (mine[f"{score}_low"] > 0).sum(), (mine[f"{score}_high"] < 0).sum()
    style.entitle(
        figure,
        f"Null spaces turn images more than random subspaces of their size in {more} of {len(mine)}"
        f" cases, less in {less}",
    )
    for (left, right), space in zip(grid, spaces, strict=True):
        rows = style.of_space(table, space)
        looks: dict[str, Look] = {
            model: style.look_of(number)
            for number, model in enumerate(models)
            if int(rows["null_dim"][model]) > 0
        }
        known = excess[excess["space"] == space]
        left.set_title(f"(a) null minus random, {space}")
        right.set_title("(b) null (solid), random (dashed), colours as in (a)")
        _excess(left, known[known["own"]].set_index("model").to_dict("index"), looks, rows)
        _dimensions(right, known, looks)
        if left_out := [style.bare(model) for model in models if model not in looks]:
            said = style.wrapped(f"no null space: {', '.join(left_out)}", 3)
            left.set_xlabel(f"{left.get_xlabel()}\n{said}")
    return figure


def _excess(axes: Axes, own: dict[Any, Any], looks: dict[str, Look], rows: pd.DataFrame) -> None:
    axes.axvline(0, color="0.3", lw=0.6)
    scores = ((-0.16, "is_deg", None), (0.16, "as_abs_deg", "white"))
    for position, (model, look) in enumerate(looks.items()):
        for offset, score, fill in scores:
            middle, low, high = (
                own[model][f"{score}_excess_random{end}"] for end in ("", "_low", "_high")
            )
            bar = [[middle - low], [high - middle]]
            axes.errorbar(middle, position + offset, xerr=bar, mfc=fill, ls="", **look)
    axes.set_yticks(range(len(looks)), [style.named(model, rows) for model in looks])
    axes.set_ylim(len(looks) - 0.5, -0.5)
    axes.set_xlabel("null minus random: IS (filled), |AS| (open), degrees")
    axes.grid(axis="x")


def _dimensions(axes: Axes, excess: pd.DataFrame, looks: dict[str, Look]) -> None:
    for number, (model, look) in enumerate(looks.items()):
        rows = excess[excess["model"] == model].sort_values("dimension")
        lines = axes.plot(rows["dimension"], rows["is_deg_null"], **look)
        lines += axes.plot(rows["dimension"], rows["is_deg_random"], ls="--", mfc="white", **look)
        style.apart(axes, lines, number, len(looks))
    axes.set_xscale("log")
    ticks: list[int] = []
    for dimension in sorted(excess["dimension"].unique()):
        if not ticks or dimension >= 2 * ticks[-1]:
            ticks.append(int(dimension))
    axes.set_xticks(ticks, list(map(str, ticks)), rotation=45 if len(ticks) > 6 else 0)
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set(xlabel="dimensions removed", ylabel="IS (degrees)")
    axes.grid(axis="both")


Flags = cli.Selection


def main(flags: Flags) -> None:
    excess, table = (
        read_table(flags.path(f"tables/{name}.csv")) for name in ("controls", "models")
    )
    if excess.empty or not excess["own"].any():
        return style.write_needs(flags, "controls", "a model with a null space")
    style.write_figure(flags, "controls", draw(flags.spaces, flags.models, excess, table))


if __name__ == "__main__":
    cli.run_step(main, Flags)
