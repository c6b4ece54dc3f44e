"""Grids of pictures and words with their angles: the layout of several figures."""

import io
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageOps

from singflow.data.images import FORMATS
from singflow.figures import style
from singflow.figures.sheet import LINE, MARGIN, Sheet, broken
from singflow.figures.style import Frames
from singflow.pictures.selection import ORIGINAL, STEERED
from singflow.pictures.word_neighbours import ANGLES, WORDS

# Inches: names of rows, least width of a column, pictures, gaps of rows and columns.
NAMES, LEAST, PICTURE, GAP, APART = 0.98, 0.98, 1.0, 0.12, 0.05
DRAWN = "pictures drawn by an UnCLIP generator from the translated features"
NEAREST = (
    "in words: the three labels or concepts nearest to the translated feature, with their angles "
    "to it; bold: not among the three before the change"
)


class Cell(NamedTuple):
    """A row of the table of pictures, or an empty cell; note: text for a row without a picture."""

    row: pd.Series | None = None
    note: str = ""


class Row(NamedTuple):
    """A row of cells, with its name and perhaps a photo below the name."""

    name: str
    cells: list[Cell]
    photo: Cell = Cell()


def opened(content: bytes) -> Image.Image:
    """A picture of the table of pictures."""
    return Image.open(io.BytesIO(content), formats=FORMATS)


def cell_of(rows: pd.DataFrame, note: str = "") -> Cell:
    return Cell(rows.iloc[0] if len(rows) else None, note)


def of_figure(frame: pd.DataFrame, figure: str) -> pd.DataFrame:
    """The rows of a figure; `before` has the words before the change of their feature."""
    rows = frame[frame["figure"] == figure]
    originals = rows[rows["change"] == ORIGINAL].groupby(["image_id", "kind"])
    known = {of: set(own[[*WORDS]].to_numpy().ravel()) for of, own in originals}
    own = zip(rows["image_id"], rows["kind"], strict=True)
    before = pd.Series([known.get(of, set()) for of in own], rows.index, dtype=object)
    return rows.assign(before=before)


def closeups(sets: Frames, figure: str) -> list[tuple[str, str, pd.DataFrame, pd.DataFrame]]:
    """Space, model, photos, and pictures of a figure, for each model that is shown in detail."""
    return [
        (space, model, of_figure(frame, "photo"), of_figure(frame, figure))
        for space, model, frame in style.pairs_of(sets)
        if "fig13" in set(frame["figure"])
    ]


def changed(rows: pd.DataFrame) -> str:
    """In how many cases a change brings words that were not among the nearest."""
    found = rows[~rows["change"].isin([ORIGINAL, "photo"]) & (rows["word_1"] != "")]
    new = [bool(set(row[[*WORDS]]) - row["before"] - {""}) for _, row in found.iterrows()]
    return f"new words in {sum(new)} of {len(new)} cases"


def steering_prompts(pictures: pd.DataFrame) -> list[str]:
    return list(pictures.loc[pictures["change"] == STEERED, "text"].unique())


def name_row(model: str, space: str, table: pd.DataFrame, sets: Frames) -> str:
    """A model's name with its marks, and its space if there are several."""
    rows = style.of_space(table, space)
    none = "" if int(rows["null_dim"][model]) else "\n(no null space)"
    name = style.caption(model, rows, "\n").replace(", ", ",\n")
    return name + none + (f"\n{space}" if len(sets) > 1 else "")


@style.styled
def draw_grid(title: str, rows: list[Row], columns: list[str], sets: Frames) -> Figure:
    """Rows of cells, at most a page high; columns beyond the width are continued below."""
    generated = any("unclip" in set(frame["renderer"]) for *_, frame in style.pairs_of(sets))
    said = [DRAWN, NEAREST] if generated else [NEAREST]
    sheet = Sheet(style.PAGE if len(columns) > 2 else style.COLUMN)
    room, top = sheet.width - 2 * MARGIN, MARGIN
    fit = min(len(columns), int((room - NAMES) / LEAST))
    step = (room - NAMES) / fit
    for text, font in ((title, "title"), *((sentence, "note") for sentence in said)):
        top = sheet.write_text(MARGIN, top, text, room, font) + 0.03
    left_out = 0
    for start in range(0, len(columns), fit):
        part = slice(start, start + fit)
        heads = [broken(name, step - APART, "name") for name in columns[part]]
        top += GAP / 2 + max(map(len, heads)) * LINE
        for number, lines in enumerate(heads):
            x = MARGIN + NAMES + number * step
            sheet.write_lines(x, top - 0.03, lines, "name", "bottom")
        for name, cells, photo in rows:
            if not any(map(_shows, cells[part])):
                continue
            drawn = Sheet(sheet.width)
            bottom = drawn.write_text(MARGIN, top, name, NAMES - APART)
            bottom = _show(drawn, MARGIN, bottom, NAMES - APART, photo)
            for number, cell in enumerate(cells[part]):
                x = MARGIN + NAMES + number * step
                bottom = max(bottom, _show(drawn, x, top, step - APART, cell))
            if left_out or bottom + GAP + LINE > style.TALLEST:
                left_out += 1
                continue
            sheet.texts += drawn.texts
            sheet.panels += drawn.panels
            top = bottom + GAP
    if left_out:
        top = sheet.write_text(MARGIN, top, f"{left_out} further rows do not fit", room, "note")
    return sheet.draw(top)


def _shows(cell: Cell) -> bool:
    return bool(cell.note) or (
        cell.row is not None and (cell.row["change"] != "photo" or bool(cell.row["picture"]))
    )


def _show(sheet: Sheet, left: float, top: float, room: float, cell: Cell) -> float:
    """Add the picture of a cell and what is said below it; returns where it ends."""
    row = cell.row
    if row is None or not _shows(cell):
        return sheet.write_lines(left, top, [cell.note], "note") if cell.note else top
    if row["picture"]:
        side = min(PICTURE, room)
        sheet.place(left, top, side, side, partial(_draw, row))
        top += side + 0.05
    if row["change"] == "photo":
        return top
    if not row["picture"] and not row[WORDS[0]]:
        top = sheet.write_lines(left, top, [cell.note], "note")
    for word, angle in zip(row[[*WORDS]], row[[*ANGLES]], strict=True):
        if not word:
            continue
        font = "name" if word in row["before"] else "new"
        first, *others = broken(f"{angle:.1f}° {word}", room, font)
        second = others[:1] if len(others) < 2 else [f"{others[0][:-2]}…"]
        top = sheet.write_lines(left, top, [first, *second], font)
    if row["change"] != ORIGINAL and not np.isnan(row["is_deg"]):
        toward = row["as_text_deg"] if row["text"] else row["as_label_deg"]
        scores = f"IS {row['is_deg']:.1f}°", f"AS {toward:+.1f}°"
        one = ", ".join(scores)
        lines = [one] if len(broken(one, room, "note")) == 1 else [*scores]
        top = sheet.write_lines(left, top, lines, "note")
    return top


def _draw(row: pd.Series, axes: Axes) -> None:
    axes.set(xticks=[], yticks=[])
    picture = opened(row["picture"])
    axes.imshow(np.asarray(ImageOps.fit(picture, (min(picture.size), min(picture.size)))))
    changed = row["change"] not in (ORIGINAL, "photo")
    axes.spines[:].set(visible=changed, color=style.COLOURS[5], linewidth=1)
