"""Draw which texts and groups of images the hidden meaning is about, and which it is not."""

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from singflow import cli
from singflow.analyses.findings import by_size, looked_at
from singflow.artifacts.tables import BASIS, read_models, read_table
from singflow.figures import style

FROM_TOP, FROM_BOTTOM = 10, 4  # rows of a panel
NEEDS = "a null space in which the test found meaning"


@style.styled
def draw(texts: pd.DataFrame, groups: pd.DataFrame, models: pd.DataFrame) -> Figure | None:
    """D along texts and within groups of images, the largest and the smallest of each model."""
    groups = groups.assign(text=groups["group"] + " (" + groups["n"].astype(str) + ")")
    panels: list[Any] = []
    said = []
    for row in looked_at(models).to_dict("records"):
        shade = style.colour(models["model"].unique().tolist().index(row["model"]))
        name = style.caption(row["model"], style.of_space(models, row["space"]))
        name += f" in {row['space']}" if models["space"].nunique() > 1 else ""
        counts = []
        for what, of, table in (
            ("texts", "along the text", texts),
            ("groups of images", "within the group", groups),
        ):
            own = (table["space"] == row["space"]) & (table["model"] == row["model"])
            mine = by_size(table[own]).drop_duplicates("text")
            few = len(mine) <= FROM_TOP + FROM_BOTTOM
            ends = [mine] if few else [mine[:FROM_TOP], mine[-FROM_BOTTOM:]]
            if len(mine):
                counts.append(f"{mine['hidden'].sum()} of {len(mine):,} {what}")
                panels.append((name, f"D {of} (%)", ends, shade, row["margin"]))
        said += [f"The head of {name} drops meaning of {' and '.join(counts)}."] if counts else []
    if not panels:
        return None
    figure, grid = style.panels(len(panels), 1, (style.COLUMN, 1))
    lines = []
    for axes, (name, of, ends, shade, margin) in zip(grid[:, 0], panels, strict=True):
        axes.axvline(0, color="0.6", lw=0.6, zorder=0)
        axes.axvline(100 * margin, color="0.4", lw=0.8, ls="--", zorder=0)
        lines.append(style.draw_texts(axes, ends, shade))
        axes.set_xlabel(of)
        axes.set_title(style.wrapped(name, style.COLUMN - style.NAMES - 0.2) if said[1:] else "")
    grid[0, 0].get_gridspec().set_height_ratios(lines)
    figure.set_figheight(0.3 + 0.13 * sum(lines) + 0.6 * len(panels))
    handles = [
        style.key("hidden", color="0.3", marker="o"),
        style.key("not found", color="0.3", marker="o", mfc="white"),
        style.key("margin", color="0.4", ls="--", lw=0.8),
    ]
    style.legend(figure, handles)
    return style.titled(figure, " ".join(said))


Flags = cli.Selection


def main(flags: Flags) -> None:
    models = read_models(flags.path("tables/models.csv"), [*BASIS, "verdict", "margin"])
    texts, groups = (
        read_table(flags.path(f"tables/hidden_{of}.csv")) for of in ("texts", "groups")
    )
    style.write_figure(flags, "hidden_texts", draw(texts, groups, models), NEEDS)


if __name__ == "__main__":
    cli.run_step(main, Flags)
