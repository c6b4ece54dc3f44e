"""Grids of pictures and words with their angles: the layout of several figures."""

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from PIL import Image, ImageOps

from singflow.analyses.tables import ZERO
from singflow.data.images import FORMATS
from singflow.figures import style
from singflow.figures.style import Frames
from singflow.pictures.selection import ORIGINAL, STEERED
from singflow.pictures.word_neighbours import ANGLES, WORDS

MOST_COLUMNS, TALLEST, LINE, GAP = 6, 9.0, 0.13, 0.1  # the last three in inches
LOOKS: dict[str, style.Look] = {"word": {}, "new": {"weight": "bold"}, "note": {"color": "0.35"}}


class Cell(NamedTuple):
    """A picture file and lines below it, each with its look; a change of the image is framed."""

    lines: Sequence[tuple[str, str]] = ()
    picture: bytes = b""
    framed: bool = False


def text_cell(text: str, picture: bytes = b"") -> Cell:
    """A cell with a text, and perhaps a photo above it."""
    return Cell([(line, "word") for line in text.splitlines()], picture)


def cell_of(rows: pd.DataFrame, note: str = "") -> Cell:
    """The cell of the first of some rows of the table of pictures; a note where it has no words."""
    if rows.empty:
        return Cell([(note, "note")] if note else [])
    row = rows.iloc[0]
    pairs = zip(row[[*WORDS]], row[[*ANGLES]], strict=True)
    lines = [
        (f"{angle:.1f}° {word}", "word" if word in row["before"] else "new")
        for word, angle in pairs
        if word
    ]
    if not lines and not row["picture"]:
        lines = [(note, "note")]
    if row["change"] != ORIGINAL and not np.isnan(row["is_deg"]):
        toward = row["as_text_deg"] if row["text"] else row["as_label_deg"]
        lines.append((f"IS {row['is_deg']:.1f}°, AS\xa0{toward:+.1f}°", "note"))
    return Cell(lines, row["picture"], row["change"] != ORIGINAL)


def of_figure(frame: pd.DataFrame, figure: str, marks: str) -> pd.DataFrame:
    """The rows of a figure; `before` has the words that are not new.

    New are words that were not the nearest before the change; none are new of a known zero, whose
    changes mean nothing.
    """
    rows = frame[frame["figure"] == figure]
    originals = rows[rows["change"] == ORIGINAL].groupby(["image_id", "kind"])
    known = {of: set(own[[*WORDS]].to_numpy().ravel()) for of, own in originals}
    if ZERO in marks:
        known = {of: set(rows[[*WORDS]].to_numpy().ravel()) for of in known}
    own = zip(rows["image_id"], rows["kind"], strict=True)
    before = pd.Series([known.get(of, set()) for of in own], rows.index, dtype=object)
    return rows.assign(before=before)


def closeups(
    sets: Frames, table: pd.DataFrame, figure: str
) -> list[tuple[str, pd.DataFrame, pd.DataFrame]]:
    """Name, photos, and pictures of a figure, for each model that is shown in detail."""
    found = []
    for space, model, frame in style.pairs_of(sets):
        if "fig13" in set(frame["figure"]):
            name, marks = name_row(model, space, table, sets), style.of_space(table, space)["marks"]
            rows = of_figure(frame, figure, marks[model]).assign(space=space, model=model)
            found.append((name, frame[frame["figure"] == "photo"], rows))
    return found


def steering_prompts(pictures: pd.DataFrame) -> list[str]:
    return list(pictures.loc[pictures["change"] == STEERED, "text"].unique())


def name_row(model: str, space: str, table: pd.DataFrame, sets: Frames) -> str:
    """A model's name with its marks, and its space if there are several."""
    rows = style.of_space(table, space)
    none = "" if int(rows["null_dim"][model]) else "\n(no null space)"
    return style.caption(model, rows, "\n") + none + (f"\n{space}" if len(sets) > 1 else "")


@style.styled
def draw_grid(heads: list[str], rows: list[list[Cell]]) -> Figure:
    """Rows of cells, of which the first names the row; at most a page high.

    Columns beyond MOST_COLUMNS are continued below.
    """
    width = style.PAGE if len(heads) > 2 else style.COLUMN
    fit = min(len(heads), MOST_COLUMNS)
    room, table = width / (fit + 1), []
    for start in range(0, len(heads), fit):
        part = slice(start, start + fit)
        table.append([Cell(), *map(text_cell, heads[part])])
        table += [[row[0], *row[1:][part]] for row in rows if any(map(any, row[1:][part]))]
    table = [[_broken(cell, room - GAP) for cell in row] for row in table]
    heights = [max(_tall(cell, room - GAP) for cell in row) for row in table]
    fits = int((np.cumsum(heights) < TALLEST).sum())
    if fits < len(table):
        said = _broken(text_cell(f"{len(table) - fits} further rows do not fit"), room - GAP)
        table[fits:], heights[fits:] = [[said]], [_tall(said, 0)]
    figure = style.new_figure((width, sum(heights)), "none")
    ends = {"left": 0.01, "right": 0.99, "top": 1 - 0.5 * GAP / sum(heights), "bottom": 0}
    apart = {"hspace": 0, "wspace": GAP / (room - GAP)}
    grid = figure.add_gridspec(len(table), fit + 1, height_ratios=heights, **ends, **apart)
    for number, row in enumerate(table):
        for column, cell in enumerate(row):
            if any(cell):
                _draw(figure.add_subplot(grid[number, column]), cell)
    return figure


def _broken(cell: Cell, room: float) -> Cell:
    lines = [
        (line, look)
        for text, look in cell.lines
        for line in style.lines_of(text, room, FontProperties(weight=LOOKS[look].get("weight")))
    ]
    return cell._replace(lines=lines)


def _tall(cell: Cell, room: float) -> float:
    return bool(cell.picture) * room + LINE * len(cell.lines) + GAP


def _draw(axes: Axes, cell: Cell) -> None:
    axes.set(xticks=[], yticks=[], anchor="NW")
    axes.spines[:].set(visible=cell.framed and bool(cell.picture), color=style.COLOURS[5])
    if cell.picture:
        picture = Image.open(io.BytesIO(cell.picture), formats=FORMATS)
        axes.imshow(np.asarray(ImageOps.fit(picture, (min(picture.size), min(picture.size)))))
    top = (0, 0, -3) if cell.picture else (0, 1, 0)
    where: style.Look = {"xycoords": "axes fraction", "textcoords": "offset points", "va": "top"}
    for number, (text, look) in enumerate(cell.lines):
        axes.annotate(text, top[:2], (0, top[2] - 72 * LINE * number), **where, **LOOKS[look])
