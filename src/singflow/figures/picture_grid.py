"""Grids of pictures with their angles, which several figures are."""

import io
import textwrap
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image, ImageOps

from singflow.data.images import FORMATS
from singflow.figures.style import COLOURS, STYLE, caption, of_space

# Inches: side of a picture, room for the words below it, room for the name of a row.
TILE, WORDS, NAMES = 1.45, 0.5, 1.35
ORIGINAL, REMOVED, STEERED = "original", "null removed", "steered"
CHANGED = COLOURS[5]
MEANING = {
    "unclip": "pictures drawn by an UnCLIP generator from the translated features",
    "retrieval": "each picture is the study's real photo nearest to the translated feature, with "
    "its angle to it; cut to a square",
}

Sets = dict[str, dict[str, pd.DataFrame]]  # space -> model -> table of pictures


@dataclass(frozen=True)
class Cell:
    """A cell of the grid: a row of the table of pictures, or None for an empty cell.

    note: text for a row without a picture.
    """

    row: pd.Series | None
    note: str = ""


def cell_of(rows: pd.DataFrame, note: str = "") -> Cell:
    return Cell(rows.iloc[0] if len(rows) else None, note)


def of_figure(frame: pd.DataFrame, figure: str) -> pd.DataFrame:
    return frame[frame["figure"] == figure]


def closeups(sets: Sets) -> list[tuple[str, str, pd.DataFrame]]:
    return [
        (space, model, frame)
        for space, models in sets.items()
        for model, frame in models.items()
        if "fig13" in set(frame["figure"])
    ]


def prompts_of(sets: Sets, figure: str) -> list[str]:
    texts = (
        text
        for _, _, frame in closeups(sets)
        for text in of_figure(frame, figure).query(f"change == '{STEERED}'")["text"]
    )
    return list(dict.fromkeys(texts))


def name_row(model: str, space: str, table: pd.DataFrame, sets: Sets) -> str:
    """A model's name with its marks, and its space if there are several."""
    rows = of_space(table, space)
    none = "" if int(rows["null_dim"][model]) else "\n(no null space)"
    name = caption(model, rows, "\n").replace(", ", ",\n")
    return name + none + (f"\n{space}" if len(sets) > 1 else "")


def draw_grid(
    title: str, rows: list[tuple[str, list[Cell]]], columns: list[str], sets: Sets
) -> Figure:
    renderers = sorted(
        {
            renderer
            for models in sets.values()
            for frame in models.values()
            for renderer in frame["renderer"].unique()
        }
        & set(MEANING)
    )
    names = [textwrap.fill(column, 20) for column in columns]
    lines = 1 + max(name.count("\n") for name in names)
    width, head = NAMES + len(columns) * TILE, 0.75 + 0.15 * lines
    height = head + len(rows) * (TILE + WORDS)
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(width, height))
        figure.text(0.1 / width, 1 - 0.12 / height, title, fontsize=11, fontweight="bold", va="top")
        words = "; ".join(MEANING[renderer] for renderer in renderers)
        figure.text(0.1 / width, 1 - 0.36 / height, words, fontsize=8, color="0.35", va="top")
        for down, (name, cells) in enumerate(rows):
            top = head + down * (TILE + WORDS)
            figure.text(
                0.1 / width,
                1 - (top + TILE / 2) / height,
                "\n".join(textwrap.fill(line, 24) for line in name.splitlines()),
                fontsize=8,
                va="center",
            )
            for across, cell in enumerate(cells):
                left = NAMES + across * TILE
                axes = figure.add_axes(
                    (left / width, 1 - (top + TILE) / height, 0.94 * TILE / width, TILE / height)
                )
                _draw(axes, cell)
                if down == 0:
                    axes.set_title(names[across], fontsize=8)
        return figure


def _draw(axes: plt.Axes, cell: Cell) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_anchor("S")
    axes.spines[:].set_visible(False)
    if cell.row is None:
        return
    if not cell.row["picture"]:
        axes.text(
            0.5,
            0.5,
            cell.note or "no other image",
            ha="center",
            va="center",
            fontsize=8,
            color="0.4",
            transform=axes.transAxes,
        )
        return
    picture = Image.open(io.BytesIO(cell.row["picture"]), formats=FORMATS)
    axes.imshow(np.asarray(ImageOps.fit(picture, (min(picture.size), min(picture.size)))))
    if cell.row["change"] not in (ORIGINAL, "photo"):
        axes.spines[:].set(visible=True, color=CHANGED, linewidth=1.5)
    axes.set_xlabel(_words(cell.row), fontsize=7, labelpad=3)


def _words(row: pd.Series) -> str:
    if row["change"] == "photo":
        return ""
    toward = row["as_text_deg"] if row["text"] else row["as_label_deg"]
    scores = "" if row["change"] == ORIGINAL else f"IS {row['is_deg']:.1f}°, AS {toward:+.1f}°"
    photo = f"photo at {row['neighbour_deg']:.1f}°" if row["renderer"] == "retrieval" else ""
    return "\n".join(filter(None, [scores, photo]))
