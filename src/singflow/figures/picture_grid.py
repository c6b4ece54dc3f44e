"""A table of pictures and words: the layout of several figures."""

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from PIL import Image, ImageOps

from singflow.data.images import FORMATS
from singflow.figures import style

MOST_COLUMNS, TALLEST, LINE, GAP = 6, 9.0, 0.13, 0.1  # the last three in inches
LOOKS: dict[str, style.Look] = {"word": {}, "new": {"weight": "bold"}, "note": {"color": "0.35"}}


class Cell(NamedTuple):
    """A picture file and lines below it, each with its look; a change of the image is framed."""

    lines: Sequence[tuple[str, str]] = ()
    picture: bytes = b""
    framed: bool = False


def text_cell(text: str, picture: bytes = b"") -> Cell:
    return Cell([(line, "word") for line in text.splitlines()], picture)


@style.styled
def draw_grid(heads: list[str], rows: list[list[Cell]], finding: str) -> Figure:
    """Below what they find, rows of cells, of which the first names the row; at most a page high.

    Columns beyond MOST_COLUMNS are continued below.
    """
    width = style.PAGE if len(heads) > 2 else style.COLUMN
    fit = min(len(heads), MOST_COLUMNS)
    side, table = width / (fit + 1) - GAP, []
    for start in range(0, len(heads), fit):
        part = slice(start, start + fit)
        table.append([Cell(), *map(text_cell, heads[part])])
        table += [[row[0], *row[1:][part]] for row in rows if any(map(any, row[1:][part]))]
    table = [[_broken(cell, side) for cell in row] for row in table]
    heights = [max(_tall(cell, side) for cell in row) for row in table]
    fits = int((np.cumsum(heights) < TALLEST).sum())
    if fits < len(table):
        said = _broken(text_cell(f"{len(table) - fits} further rows do not fit"), side)
        table[fits:], heights[fits:] = [[said]], [_tall(said, 0)]
    figure = style.titled(style.new_figure((width, sum(heights)), None), finding)
    top = (sum(heights) - 0.5 * GAP) / figure.get_figheight()
    ends = {"left": 0.01, "right": 0.99, "top": top, "bottom": 0}
    apart = {"hspace": 0, "wspace": GAP / side}
    grid = figure.add_gridspec(len(table), fit + 1, height_ratios=heights, **ends, **apart)
    for number, row in enumerate(table):
        for column, cell in enumerate(row):
            if any(cell):
                _draw(figure.add_subplot(grid[number, column]), cell)
    return figure


def _broken(cell: Cell, side: float) -> Cell:
    lines = [
        (line, look)
        for text, look in cell.lines
        for line in style.lines_of(text, side, FontProperties(weight=LOOKS[look].get("weight")))
    ]
    return cell._replace(lines=lines)


def _tall(cell: Cell, side: float) -> float:
    return bool(cell.picture) * side + LINE * len(cell.lines) + GAP


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
