"""Tabulate and draw figure 9: what null, random and principal perturbations of equal norm do."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from singflow import cli
from singflow.analyses.null_validation import summarize_validation
from singflow.analyses.tables import qualify
from singflow.artifacts.tables import read_models, read_parquet, write_table
from singflow.figures.style import COLOURS, STYLE, caption, write_figure

NO_NULL_SPACE = "no null space: every perturbation has norm 0"
# perturbation -> colour (different from the colours of the first models) and marker
LOOKS = {"null": (COLOURS[7], "o"), "random": (COLOURS[4], "s"), "principal": (COLOURS[5], "^")}


def tabulate(
    effects: dict[str, pd.DataFrame], models: pd.DataFrame, confidence: float
) -> pd.DataFrame:
    """tables/null_validation.csv: one row per model and perturbation."""
    rows = pd.concat(
        [
            summarize_validation(effect, confidence).assign(model=model)
            for model, effect in effects.items()
        ]
    )
    table = qualify(rows[["model", *rows.columns.drop("model")]], models)
    return table.assign(note=np.where(table["null_dim"] == 0, NO_NULL_SPACE, ""))


def draw(
    effects: dict[str, pd.DataFrame], table: pd.DataFrame, models: pd.DataFrame, confidence: float
) -> Figure:
    """Effects of perturbations of equal norm on (a) logits, (b) softmax and (c) the prediction.

    In (a) and (b), markers are medians, bars quartiles and lines the range. In (c), lines are
    intervals. A logit change of exactly 0 cannot be shown on a logarithmic axis: it is drawn at a
    mark 0, one to two decades below the smallest other value.
    """
    changes = np.concatenate([rows["logit_change"].to_numpy() for rows in effects.values()])
    smallest = changes[changes > 0].min(initial=1.0)
    floor = 10.0 ** (np.floor(np.log10(smallest)) - 1)
    with plt.rc_context(STYLE):
        figure, grid = plt.subplots(
            1,
            3,
            figsize=(11.5, 1.9 + 0.5 * len(effects)),
            sharey=True,
            width_ratios=[1.6, 1, 1],
            layout="constrained",
        )
        for position, (model, rows) in enumerate(effects.items()):
            for number, (name, (colour, marker)) in enumerate(LOOKS.items()):
                place = position + 0.26 * (number - 1)
                mine = rows[rows["perturbation"] == name]
                _box(
                    grid[0],
                    np.maximum(mine["logit_change"].to_numpy(), floor),
                    place,
                    colour,
                    marker,
                )
                _box(grid[1], mine["softmax_change"].to_numpy(), place, colour, marker)
                share = table[(table["model"] == model) & (table["perturbation"] == name)].iloc[0]
                low, middle, high = (
                    100 * share[f"top1_changed_{column}"] for column in ("low", "share", "high")
                )
                grid[2].plot([low, high], [place, place], color=colour, lw=1.5)
                grid[2].plot(middle, place, marker, color=colour, ms=5)
        empty = table.loc[table["null_dim"] == 0, "model"].to_list()
        names = [caption(model, models.set_index("model"), "\n") for model in effects]
        grid[0].set_yticks(
            range(len(effects)),
            [
                name + "\n(no null space)" * (model in empty)
                for model, name in zip(effects, names, strict=True)
            ],
        )
        grid[0].set_ylim(len(effects) - 0.5, -0.5)
        _logarithmic(grid[0], floor, float(changes.max()), bool((changes == 0).any()))
        grid[1].set(xlabel="change of softmax\n(total variation)", xlim=(-0.03, 1.03))
        grid[2].set(
            xlabel=f"changed predictions\n(% of images, {100 * confidence:g} % interval)",
            xlim=(-3, 103),
        )
        for axes, title in zip(grid, ["(a) logits", "(b) softmax", "(c) top-1"], strict=True):
            axes.set_title(title, loc="left")
            axes.grid(axis="x", color="0.92", lw=0.6)
            axes.set_axisbelow(True)
            for position in range(1, len(effects)):
                axes.axhline(position - 0.5, color="0.85", lw=0.6, zorder=0)
        handles = [
            Line2D([], [], color=colour, marker=marker, ms=5, label=name)
            for name, (colour, marker) in LOOKS.items()
        ]
        figure.legend(
            handles=handles,
            loc="outside upper center",
            ncols=3,
            title="perturbations of equal norm",
        )
        return figure


def _box(axes: Axes, values: np.ndarray, place: float, colour: str, marker: str) -> None:
    least, lower, median, upper, most = np.quantile(values, [0, 0.25, 0.5, 0.75, 1])
    axes.plot([least, most], [place, place], color=colour, lw=1)
    axes.plot([lower, upper], [place, place], color=colour, lw=6, alpha=0.45, solid_capstyle="butt")
    axes.plot(median, place, marker, color=colour, ms=5)


def _logarithmic(axes: Axes, floor: float, largest: float, zeros: bool) -> None:
    low, high = round(np.log10(floor)), int(np.ceil(np.log10(max(largest, 1.0))))
    decades = range(low + 1, high + 1, 1 + (high - low) // 6)
    axes.set(xscale="log", xlim=(floor / 2, 3 * 10.0**high))
    axes.set_xticks(
        [10.0**decade for decade in decades],
        [f"1e{decade}" if decade else "1" for decade in decades],
    )
    axes.minorticks_off()
    if zeros:
        axes.set_xticks(
            [floor, *axes.get_xticks()],
            ["0", *(tick.get_text() for tick in axes.get_xticklabels())],
        )
        axes.axvline(floor, color="0.7", lw=0.8, ls=":", zorder=0)
    axes.set_xlabel(
        "change of the logits\n(Euclidean norm" + ("; exactly 0 at the mark 0)" if zeros else ")")
    )


class Flags(cli.Step):
    models: list[str]
    confidence: float


def main(flags: Flags) -> None:
    effects = {
        model: read_parquet(flags.path("null_validation", model=model), "null_validation")
        for model in flags.models
    }
    models = read_models(flags.path("tables/models.csv"))
    table = tabulate(effects, models, flags.confidence)
    write_table(flags.path("tables/null_validation.csv"), table)
    write_figure(flags, "fig9", draw(effects, table, models, flags.confidence))


if __name__ == "__main__":
    cli.run_step(main, Flags)
