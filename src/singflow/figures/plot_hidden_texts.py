"""Draw which texts and groups of images the hidden meaning is about, and which it is not."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from singflow import cli
from singflow.analyses.findings import by_size, looked_at
from singflow.artifacts.tables import BASIS, read_models, read_table
from singflow.figures import style

FROM_TOP, FROM_BOTTOM = 12, 6  # rows of a panel
NEEDS = "a null space in which the test found meaning"


@style.styled
def draw(texts: pd.DataFrame, groups: pd.DataFrame, models: pd.DataFrame) -> Figure:
    """D along texts and within groups of images, the largest and the smallest of each model."""
    pairs = looked_at(models)
    figure, grid = style.panels(len(pairs), 2, (style.PAGE, 1))
    groups = groups.assign(text=groups["group"] + " (" + groups["n"].astype(str) + ")")
    most = 0.0  # lines of a panel
    for row, both in zip(pairs.to_dict("records"), grid, strict=True):
        space, model = row["space"], row["model"]
        shade = style.colour(models["model"].unique().tolist().index(model))
        tables = {"along the text": texts, "within the group": groups}
        for axes, (of, table) in zip(both, tables.items(), strict=True):
            mine = by_size(table[(table["space"] == space) & (table["model"] == model)])
            axes.set_visible(len(mine) > 0)
            if len(mine):
                most = max(most, _panel(axes, mine, shade, row["margin"]))
                axes.set_xlabel(f"D {of} (%)")
        name = style.caption(model, style.of_space(models, space))
        both[0].set_title(f"{style.wrapped(name, 3)}\n{space}")
    figure.set_figheight(0.3 + (0.6 + 0.13 * most) * len(pairs))
    handles = [
        style.key("found", color="0.3", marker="o"),
        style.key("not found", color="0.3", marker="o", mfc="white"),
        style.key("margin", color="0.4", ls="--", lw=0.8),
    ]
    style.legend(figure, handles)
    return figure


def _panel(axes: Axes, found: pd.DataFrame, shade: str, margin: float) -> float:
    few = len(found) <= FROM_TOP + FROM_BOTTOM
    ends = [found] if few else [found[:FROM_TOP], found[-FROM_BOTTOM:]]
    axes.axvline(0, color="0.6", lw=0.6, zorder=0)
    axes.axvline(100 * margin, color="0.4", lw=0.8, ls="--", zorder=0)
    return style.draw_texts(axes, ends, shade)


Flags = cli.Selection


def main(flags: Flags) -> None:
    models = read_models(flags.path("tables/models.csv"), [*BASIS, "verdict", "margin"])
    texts, groups = (
        read_table(flags.path(f"tables/hidden_{of}.csv")) for of in ("texts", "groups")
    )
    figure = None if looked_at(models).empty else draw(texts, groups, models)
    style.write_figure(flags, "hidden_texts", figure, NEEDS)


if __name__ == "__main__":
    cli.run_step(main, Flags)
