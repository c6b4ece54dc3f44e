"""Grids of pictures with their angles, which several figures are."""

import io
import textwrap
from collections.abc import Iterator
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageOps

from singflow.data.images import FORMATS
from singflow.figures.style import COLOURS, Frames, caption, of_space, pairs_of, say, styled

# Inches: side of a picture, room for the words below it, room for the name of a row.
TILE, WORDS, NAMES = 1.45, 0.5, 1.35
ORIGINAL, REMOVED, STEERED = "original", "null removed", "steered"
MEANING = {
    "unclip": "pictures drawn by an UnCLIP generator from the translated features",
    "retrieval": "each picture is the study's real photo nearest to the translated feature, with "
    "its angle to it; cut to a square",
}


class Cell(NamedTuple):
    """A row of the table of pictures, or an empty cell; note: text for a row without a picture."""

    row: pd.Series | None = None
    note: str = ""


Rows = list[tuple[str, list[Cell]]]  # name of each row, and its cells


def cell_of(rows: pd.DataFrame, note: str = "") -> Cell:
    return Cell(rows.iloc[0] if len(rows) else None, note)


def of_figure(frame: pd.DataFrame, figure: str) -> pd.DataFrame:
    return frame[frame["figure"] == figure]


def closeups(sets: Frames, figure: str) -> list[tuple[str, str, pd.DataFrame, pd.DataFrame]]:
    """Space, model, photos, and pictures of a figure, for each model that is shown in detail."""
    return [
        (space, model, of_figure(frame, "photo"), of_figure(frame, figure))
        for space, model, frame in pairs_of(sets)
        if "fig13" in set(frame["figure"])
    ]


def prompts_of(pictures: pd.DataFrame) -> list[str]:
    return list(pictures.loc[pictures["change"] == STEERED, "text"].unique())


def name_row(model: str, space: str, table: pd.DataFrame, sets: Frames) -> str:
    """A model's name with its marks, and its space if there are several."""
    rows = of_space(table, space)
    none = "" if int(rows["null_dim"][model]) else "\n(no null space)"
    name = caption(model, rows, "\n").replace(", ", ",\n")
    return name + none + (f"\n{space}" if len(sets) > 1 else "")


@styled
def draw_grid(title: str, rows: Rows, columns: list[str], sets: Frames) -> Figure:
    used = {renderer for _, _, frame in pairs_of(sets) for renderer in frame["renderer"].unique()}
    words = "; ".join(MEANING[renderer] for renderer in sorted(used & set(MEANING)))
    names = [textwrap.fill(column, 20) for column in columns]
    lines = 1 + max(name.count("\n") for name in names)
    width, head = NAMES + len(columns) * TILE, 0.75 + 0.15 * lines
    height = head + len(rows) * (TILE + WORDS)
    figure = plt.figure(figsize=(width, height))
    left = 0.1 / width
    figure.text(left, 1 - 0.12 / height, title, fontsize=11, fontweight="bold", va="top")
    figure.text(left, 1 - 0.36 / height, words, fontsize=8, color="0.35", va="top")
    for down, (name, cells) in enumerate(rows):
        top = head + down * (TILE + WORDS)
        filled = "\n".join(textwrap.fill(line, 24) for line in name.splitlines())
        figure.text(left, 1 - (top + TILE / 2) / height, filled, fontsize=8, va="center")
        for across, cell in enumerate(cells):
            x, y = (NAMES + across * TILE) / width, 1 - (top + TILE) / height
            axes = figure.add_axes((x, y, 0.94 * TILE / width, TILE / height))
            _draw(axes, cell)
            if down == 0:
                axes.set_title(names[across], fontsize=8)
    return figure


def _draw(axes: Axes, cell: Cell) -> None:
    axes.set(xticks=[], yticks=[], anchor="S")
    axes.spines[:].set_visible(False)
    row = cell.row
    if row is None:
        return
    if not row["picture"]:
        say(axes, cell.note or "no other image", va="center", fontsize=8, color="0.4")
        return
    picture = Image.open(io.BytesIO(row["picture"]), formats=FORMATS)
    axes.imshow(np.asarray(ImageOps.fit(picture, (min(picture.size), min(picture.size)))))
    if row["change"] not in (ORIGINAL, "photo"):
        axes.spines[:].set(visible=True, color=COLOURS[5], linewidth=1.5)
    axes.set_xlabel("\n".join(_words(row)), fontsize=7, labelpad=3)


def _words(row: pd.Series) -> Iterator[str]:
    if row["change"] not in (ORIGINAL, "photo"):
        toward = row["as_text_deg"] if row["text"] else row["as_label_deg"]
        yield f"IS {row['is_deg']:.1f}°, AS {toward:+.1f}°"
    if row["renderer"] == "retrieval" and row["change"] != "photo":
        yield f"photo at {row['neighbour_deg']:.1f}°"
