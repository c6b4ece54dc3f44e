"""Grids of pictures and words with their angles: the layout of several figures."""

import io
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from PIL import Image, ImageOps

from singflow.data.images import FORMATS
from singflow.figures import style
from singflow.figures.style import Frames, Sheet
from singflow.pictures.selection import ORIGINAL, STEERED
from singflow.pictures.words import ANGLES, WORDS

# Inches: names of rows, least width of a column, pictures, angles, gaps, lines.
NAMES, LEAST, PICTURE, ANGLE, GAP, MARGIN, LINE = 0.98, 0.98, 1.0, 0.34, 0.12, 0.06, 0.13
FONTS: dict[str, tuple[style.Look, float, str]] = {  # font, inches of a line, colour
    "title": ({"size": style.STYLE["figure.titlesize"], "weight": "bold"}, 0.15, "black"),
    "name": ({}, LINE, "black"),
    "new": ({"weight": "bold"}, LINE, "black"),
    "note": ({}, LINE, "0.35"),
}
MEANING = {
    "unclip": "pictures drawn by an UnCLIP generator from the translated features",
    "retrieval": "each picture is the study's real photo nearest to the translated feature, with "
    "its angle to it; cut to a square",
}
NEAREST = (
    "in words: the three labels or concepts nearest to the translated feature, with their angles "
    "to it; bold: not among the three before the change"
)


class Line(NamedTuple):
    """A line of text; its font is a key of FONTS, and `word` stands in a column of its own."""

    start: str
    word: str = ""
    font: str = "note"


class Cell(NamedTuple):
    """A row of the table of pictures, or an empty cell; note: text for a row without a picture."""

    row: pd.Series | None = None
    note: str = ""


Rows = list[tuple[str, list[Cell]]]  # name of each row, and its cells


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


def steering_prompts(pictures: pd.DataFrame) -> list[str]:
    return list(pictures.loc[pictures["change"] == STEERED, "text"].unique())


def name_row(model: str, space: str, table: pd.DataFrame, sets: Frames) -> str:
    """A model's name with its marks, and its space if there are several."""
    rows = style.of_space(table, space)
    none = "" if int(rows["null_dim"][model]) else "\n(no null space)"
    name = style.caption(model, rows, "\n").replace(", ", ",\n")
    return name + none + (f"\n{space}" if len(sets) > 1 else "")


class TextSheet(Sheet):
    """A sheet that writes in the fonts of FONTS."""

    def write_lines(
        self, left: float, top: float, lines: list[str], font: str, align: str = "top"
    ) -> float:
        """Add lines of text; returns where they end."""
        _, line, colour = FONTS[font]
        look = {"fontproperties": font_of(font), "color": colour, "va": align}
        self.write(left, top, "\n".join(lines), **look)
        return top + line * len(lines)

    def write_text(
        self, left: float, top: float, text: str, room: float, font: str = "name"
    ) -> float:
        """Add a text in lines that are at most as long as the room; returns where it ends."""
        return self.write_lines(left, top, broken(text, room, font), font)


def font_of(name: str) -> FontProperties:
    """A font of FONTS, whose family is that of the style in force."""
    return FontProperties(**FONTS[name][0])


def broken(text: str, room: float, font: str) -> list[str]:
    """The lines of a text, each at most as long as the room."""
    return [
        line for part in text.splitlines() for line in style.lines_of(part, room, font_of(font))
    ]


@style.styled
def draw_grid(title: str, rows: Rows, columns: list[str], sets: Frames) -> Figure:
    rows, columns = _without_missing_photos(rows, columns)
    used = {
        renderer for _, _, frame in style.pairs_of(sets) for renderer in frame["renderer"].unique()
    }
    said = [*(MEANING[renderer] for renderer in sorted(used & set(MEANING))), NEAREST]
    side = PICTURE if used & set(MEANING) else PHOTO
    sheet, top = TextSheet(NAMES + len(columns) * COLUMN), MARGIN
    for text, font in ((title, "title"), *((sentence, "line") for sentence in said)):
        top = sheet.write_text(MARGIN, top, text, sheet.width - 2 * MARGIN, font) + 0.03
    names = [broken(name, PICTURE, "name") for name in columns]
    top += 0.12 + max(map(len, names)) * FONTS["name"][1]
    for across, lines in enumerate(names):
        sheet.write_lines(NAMES + across * COLUMN, top - 0.05, lines, "name", "bottom")
    for name, cells in rows:
        bottom = sheet.write_text(MARGIN, top, name, NAMES - 2 * MARGIN)
        for across, cell in enumerate(cells):
            left, down = NAMES + across * COLUMN, top
            if cell.row is not None and cell.row["picture"]:
                sheet.place(left, down, side, side, partial(_draw, cell.row))
                down += side + 0.06
            for line in _lines(cell):
                for x, text in ((left, line.start), (left + ANGLE, line.word)):
                    if text:
                        sheet.write_lines(x, down, [text], line.font)
                down += FONTS[line.font][1]
            bottom = max(bottom, down)
        top = bottom + GAP
    return sheet.draw(top)


def _without_missing_photos(rows: Rows, columns: list[str]) -> tuple[Rows, list[str]]:
    """Rows and columns but for those of photos that imported features do not have."""

    def missing(cell: Cell) -> bool:
        return cell.row is not None and cell.row["change"] == "photo" and not cell.row["picture"]

    def empty(cell: Cell) -> bool:
        return (cell.row is None and not cell.note) or missing(cell)

    if not any(missing(cell) for _, cells in rows for cell in cells):
        return rows, columns
    rows = [(name, cells) for name, cells in rows if not all(map(empty, cells))]
    kept = [at for at in range(len(columns)) if not all(empty(cells[at]) for _, cells in rows)]
    return [(n, [cells[at] for at in kept]) for n, cells in rows], [columns[at] for at in kept]


def _draw(row: pd.Series, axes: Axes) -> None:
    axes.set(xticks=[], yticks=[])
    picture = Image.open(io.BytesIO(row["picture"]), formats=FORMATS)
    axes.imshow(np.asarray(ImageOps.fit(picture, (min(picture.size), min(picture.size)))))
    changed = row["change"] not in (ORIGINAL, "photo")
    axes.spines[:].set(visible=changed, color=style.COLOURS[5], linewidth=1.5)


def _lines(cell: Cell) -> Iterator[Line]:
    row = cell.row
    if row is None or row["change"] == "photo":
        return
    if not row["picture"] and (row["renderer"] != "words" or not row[WORDS[0]]):
        yield Line(cell.note or "no other image")
    elif row["renderer"] == "retrieval":
        yield Line(f"photo at {row['neighbour_deg']:.1f}°")
    for word, angle in zip(row[[*WORDS]], row[[*ANGLES]], strict=True):
        if not word:
            continue
        font = "word" if word in row["before"] else "new"
        first, *others = style.lines_of(word, WORD, font_of(font))
        yield Line(f"{angle:.1f}°", first, font)
        if others:
            yield Line("", others[0] if len(others) == 1 else f"{others[0][:-2]}…", font)
    if row["change"] != ORIGINAL and not np.isnan(row["is_deg"]):
        toward = row["as_text_deg"] if row["text"] else row["as_label_deg"]
        yield Line(f"IS {row['is_deg']:.1f}°, AS {toward:+.1f}°")
