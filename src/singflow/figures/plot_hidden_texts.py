"""Draw which texts the hidden meaning is about, and which it is not."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from singflow import cli
from singflow.analyses.findings import by_size, looked_at
from singflow.artifacts.tables import BASIS, read_models, read_table
from singflow.figures import style

MOST, LEAST = 12, 6  # texts of a model, from both ends
LETTERS = 40  # of a text
NOTHING = "Nothing was found in these null spaces, so no text is looked at."


@style.styled
def draw(texts: pd.DataFrame, models: pd.DataFrame) -> Figure:
    """The texts with the largest and the smallest D of each model, with their intervals."""
    pairs = looked_at(models)
    if pairs.empty:
        figure, grid = style.panels(1, 1, (6.5, 1.2))
        grid[0, 0].set_axis_off()
        style.say(grid[0, 0], NOTHING)
        return figure
    columns = min(2, len(pairs))
    rows = -(-len(pairs) // columns)
    figure, grid = style.panels(rows, columns, (5.2 * columns, 4.6 * rows))
    for axes, row in zip(grid.flat, pairs.to_dict("records"), strict=False):
        space, model = row["space"], row["model"]
        found = by_size(texts[(texts["space"] == space) & (texts["model"] == model)])
        number = models["model"].unique().tolist().index(model)
        _panel(axes, found, style.colour(number), row["margin"])
        name = style.caption(model, style.of_space(models, space))
        axes.set_title(f"{name}, {space}\n{found['hidden'].sum():,} of {len(found):,} texts found")
    for axes in grid.flat[len(pairs) :]:
        axes.set_visible(False)
    return figure


def _panel(axes: Axes, found: pd.DataFrame, colour: str, margin: float) -> None:
    ends = [found] if len(found) <= MOST + LEAST else [found[:MOST], found[-LEAST:]]
    height, names = 0, {}
    for end in ends:
        for row in end.to_dict("records"):
            low, d, high = (100 * row[f"unique_r2{part}"] for part in ("_low", "", "_high"))
            axes.plot([low, high], [height] * 2, color=colour, lw=1.4)
            axes.plot(d, height, "o", color=colour, ms=5, mfc=colour if row["hidden"] else "white")
            names[height] = _short(str(row["text"]))
            height -= 1
        height -= 1  # a gap between the ends
    axes.axvline(0, color="0.6", lw=0.8, zorder=0)
    axes.axvline(100 * margin, color="0.4", lw=0.8, ls="--", zorder=0)
    axes.set_yticks(list(names), list(names.values()))
    axes.set_xlabel("D along the text (%); filled: found, dashed: margin")
    style.grid_lines(axes, "x")


def _short(text: str) -> str:
    return text if len(text) <= LETTERS else f"{text[: LETTERS - 1]}…"


class Flags(cli.Selection): ...


def main(flags: Flags) -> None:
    models = read_models(flags.path("tables/models.csv"), [*BASIS, "verdict", "margin"])
    texts = read_table(flags.path("tables/hidden_texts.csv"))
    style.write_figure(flags, "hidden_texts", draw(texts, models))


if __name__ == "__main__":
    cli.run_step(main, Flags)
