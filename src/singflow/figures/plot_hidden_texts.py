"""Draw which texts the hidden meaning is about, and which it is not."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from singflow import cli
from singflow.analyses.findings import by_size, looked_at
from singflow.artifacts.tables import BASIS, read_models, read_table
from singflow.figures import style

MOST, LEAST = 12, 6  # texts of a model, from both ends
LETTERS = 24  # of a text
NEEDS = "a null space in which the test found meaning"


@style.styled
def draw(texts: pd.DataFrame, models: pd.DataFrame) -> Figure:
    """The texts with the largest and the smallest D of each model, with their intervals."""
    pairs = looked_at(models)
    columns = min(2, len(pairs))
    rows = -(-len(pairs) // columns)
    width = style.COLUMN if columns == 1 else style.PAGE
    figure, grid = style.panels(rows, columns, (width, 0.5 + 2.8 * rows))
    shown = texts[texts["p"].notna()].merge(pairs[["space", "model"]])
    style.entitle(
        figure,
        f"The null space holds {shown['hidden'].sum():,} of {len(shown):,} texts"
        + f", over {len(pairs)} heads" * (len(pairs) > 1),
    )
    handles = [
        style.key("found", color="0.3", marker="o"),
        style.key("not found", color="0.3", marker="o", mfc="white"),
        style.key("margin", color="0.4", ls="--", lw=0.8),
    ]
    for axes, row in zip(grid.flat, pairs.to_dict("records"), strict=False):
        space, model = row["space"], row["model"]
        found = by_size(texts[(texts["space"] == space) & (texts["model"] == model)])
        number = models["model"].unique().tolist().index(model)
        _panel(axes, found, style.colour(number), row["margin"])
        name = style.wrapped(style.caption(model, style.of_space(models, space)), 2.2)
        said = f": {found['hidden'].sum():,} of {len(found):,} texts" * (len(pairs) > 1)
        axes.set_title(f"{name}\n{space}{said}")
    if len(pairs) < grid.size:
        grid[-1, -1].set_axis_off()
        grid[-1, -1].legend(handles=handles, loc="center")
    else:
        style.legend(figure, handles)
    return figure


def _panel(axes: Axes, found: pd.DataFrame, colour: str, margin: float) -> None:
    ends = [found] if len(found) <= MOST + LEAST else [found[:MOST], found[-LEAST:]]
    heights = style.draw_texts(axes, ends, colour)
    axes.axvline(0, color="0.6", lw=0.6, zorder=0)
    axes.axvline(100 * margin, color="0.4", lw=0.8, ls="--", zorder=0)
    axes.set_yticks(heights, [_short(str(text)) for text in pd.concat(ends)["text"]])


def _short(text: str) -> str:
    return text if len(text) <= LETTERS else f"{text[: LETTERS - 1]}…"


Flags = cli.Selection


def main(flags: Flags) -> None:
    models = read_models(flags.path("tables/models.csv"), [*BASIS, "verdict", "margin"])
    if looked_at(models).empty:
        return style.write_needs(flags, "hidden_texts", NEEDS)
    texts = read_table(flags.path("tables/hidden_texts.csv"))
    style.write_figure(flags, "hidden_texts", draw(texts, models))


if __name__ == "__main__":
    cli.run_step(main, Flags)
