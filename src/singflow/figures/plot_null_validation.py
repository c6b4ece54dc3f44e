"""Tabulate and draw figure 9: what null, random and principal perturbations of equal norm do."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from singflow import cli
from singflow.analyses.null_validation import summarize_validation
from singflow.analyses.tables import qualify
from singflow.artifacts.tables import read_models, read_parquet, write_table
from singflow.figures import style
from singflow.figures.style import Look

NO_NULL_SPACE = "no null space: every perturbation has norm 0"
LOOKS: dict[str, Look] = {  # perturbation -> colours that differ from those of the first models
    "null": {"color": style.COLOURS[7], "marker": "o"},
    "random": {"color": style.COLOURS[4], "marker": "s"},
    "principal": {"color": style.COLOURS[5], "marker": "^"},
}


def tabulate(
    effects: dict[str, pd.DataFrame], models: pd.DataFrame, confidence: float
) -> pd.DataFrame:
    """tables/null_validation.csv: one row per model and perturbation."""
    found = {model: summarize_validation(rows, confidence) for model, rows in effects.items()}
    rows = pd.concat(found, names=["model"]).reset_index("model")
    table = qualify(rows, models)
    return table.assign(note=np.where(table["null_dim"] == 0, NO_NULL_SPACE, ""))


@style.styled
def draw(effects: dict[str, pd.DataFrame], table: pd.DataFrame, models: pd.DataFrame) -> Figure:
    """Effects of perturbations of equal norm on (a) logits, (b) softmax and (c) the prediction."""
    empty = set(table.loc[table["null_dim"] == 0, "model"])
    names = [
        style.named(model, models.set_index("model")) + "\n(no null space)" * (model in empty)
        for model in effects
    ]
    size = style.PAGE, 0.9 + style.rows_high(names, 0.36)
    figure, ((logits, softmax, top1),) = style.panels(1, 3, size, sharey=True)
    shares = table.set_index(["model", "perturbation"])
    for position, (model, rows) in enumerate(effects.items()):
        for number, (name, look) in enumerate(LOOKS.items()):
            place = position + 0.26 * (number - 1)
            mine = rows[rows["perturbation"] == name]
            _box(logits, mine["logit_change"].to_numpy(), place, look)
            _box(softmax, mine["softmax_change"].to_numpy(), place, look)
            low, middle, high = (
                100 * shares[f"top1_changed_{column}"][model, name]
                for column in ("low", "share", "high")
            )
            top1.plot([low, high], [place, place], color=look["color"])
            top1.plot(middle, place, ls="", **look)
    changes = np.concatenate([rows["logit_change"].to_numpy() for rows in effects.values()])
    ends = changes[changes > 0].min(initial=1), max(changes.max(), 10)
    low, high = np.floor(np.log10(ends)).astype(int)
    logits.set_xscale("symlog", linthresh=10.0 ** (low - 1))  # which has a place for 0
    ticks = [0, *(10.0**decade for decade in range(low, high + 1, 1 + (high - low) // 4))]
    logits.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    logits.set_xlim(-0.02 * 10.0**low, 10.0 ** (high + 1))
    logits.set_xlabel("change of the logits\n(Euclidean norm)")
    softmax.set(xlabel="change of softmax\n(total variation)", xlim=(-0.03, 1.03))
    top1.set(xlabel="changed predictions\n(%, with intervals)", xlim=(-3, 103))
    logits.set_yticks(range(len(effects)), names)
    logits.set_ylim(len(effects) - 0.5, -0.5)
    for axes, title in zip(figure.axes, ["(a) logits", "(b) softmax", "(c) top-1"], strict=True):
        axes.set_title(title)
        axes.grid(axis="x")
        for position in range(1, len(effects)):
            axes.axhline(position - 0.5, color="0.85", lw=0.6, zorder=0)
    style.legend(figure, [style.key(name, **look) for name, look in LOOKS.items()])
    changed = pd.concat(effects).groupby("perturbation", sort=False)["top1_changed"]
    said = [f"{sum(of)} of {len(of)} ({name})" for name, of in changed]
    return style.titled(figure, f"Changed predictions: {', '.join(said)}")


def _box(axes: Axes, values: np.ndarray, place: float, look: Look) -> None:
    shade, both = look["color"], [place, place]
    least, lower, median, upper, most = np.quantile(values, [0, 0.25, 0.5, 0.75, 1])
    axes.plot([least, most], both, color=shade, lw=0.8)
    axes.plot([lower, upper], both, color=shade, lw=4, alpha=0.45, solid_capstyle="butt")
    axes.plot(median, place, ls="", **look)


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
    style.write_figure(flags, "fig9", draw(effects, table, models))


if __name__ == "__main__":
    cli.run_step(main, Flags)
