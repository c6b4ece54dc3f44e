"""The figure of one image's analysis."""

from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from PIL import Image

from singflow.figures.photo_maps import FARTHER, NEARER
from singflow.figures.sheet import Sheet
from singflow.figures.style import COLOURS, PAGE, STYLE, key, lines_of, say, styled, wrapped
from singflow.photo.analysis import Analysis, Movement
from singflow.photo.facts import SCORES, facts_of, select

PHOTO_PIXELS = 900  # longest side, enough for 200 dots per inch
BEFORE, AFTER = "0.35", COLOURS[7]
ABSENT = {"va": "center", "color": "0.4"}
SHOWN = {  # a text of the list that is ranked by a score, and the unit of the score
    "as_contrast_deg": ("class", "AS less its mean over classes (degrees)"),
    "as_deg": ("concept", "AS (degrees)"),
}

RowNames = tuple[list[str], np.ndarray]  # names of rows, and how many lines every name has

# Lengths in inches: margins, photo, words, and room for texts beside axes.
MARGIN, GAP = 0.1, 0.2
PHOTO, NAMES = 2.4, 1.3
LINE, AXIS, TITLE = 0.13, 0.4, 0.25
BOLD = {"size": STYLE["figure.titlesize"], "weight": STYLE["figure.titleweight"]}


@styled
def draw_image(photo: Image.Image, name: str, analysis: Analysis) -> Figure:
    """Draw a photo, scores in words, angles to texts, and texts beyond chance.

    Classes beyond chance are shown by contrastive AS, and the concepts of a study by AS.
    """
    sheet = Sheet(PAGE)
    height = max(PHOTO * min(1.0, photo.height / photo.width), _words(sheet, name, analysis))
    small = photo.copy()
    small.thumbnail((PHOTO_PIXELS, PHOTO_PIXELS))
    sheet.place(MARGIN, MARGIN, PHOTO, height, partial(_show, small))
    bottom = _angles(sheet, MARGIN + height + GAP, analysis)
    for _, score, *sides in analysis.beyond_chance:
        bottom = _beyond_chance(sheet, bottom + TITLE, score, sides)
    return sheet.draw(bottom)


def _words(sheet: Sheet, name: str, analysis: Analysis) -> float:
    """Write the likeliest class and the scores in words beside the photo; returns their height."""
    left = MARGIN + PHOTO + GAP
    width, facts = PAGE - MARGIN - left, facts_of(analysis)
    title = lines_of(select(facts, "class")[0], width, FontProperties(**BOLD))
    told = select(facts, "other classes", *SCORES, "words", "steered", "setting")
    lines = wrapped("\n".join([*select(facts, "known zero"), name, *told]), width)
    height = 1.2 * LINE * len(title)
    sheet.write(left, MARGIN, "\n".join(title), **BOLD)
    sheet.write(left, MARGIN + height, lines)
    return height + LINE * (lines.count("\n") + 1)


def _angles(sheet: Sheet, top: float, analysis: Analysis) -> float:
    """Place the angles to texts; returns where they end."""
    first, *others = texts = [analysis.predicted, *analysis.texts]
    rows = _rows([f"class: {first.text}", *(text.text for text in others)])
    left, height = MARGIN + NAMES, 1.5 * LINE * (rows[1].sum() + 0.4)
    place = left, top + TITLE, PAGE - MARGIN - left, height
    sheet.place(*place, partial(_dumbbell, texts, rows))
    return top + TITLE + height + AXIS


def _beyond_chance(sheet: Sheet, top: float, score: str, sides: list[list[Movement]]) -> float:
    """Place the texts that are gained beside those that are lost; returns where they end."""
    half = (PAGE - 2 * MARGIN - GAP) / 2
    longest = max(abs(getattr(text, score)) for side in sides for text in side)
    rows = [_rows([text.text for text in side]) for side in sides]
    most = max(1.0, *(lines.sum() for _, lines in rows))
    height = 1.3 * LINE * (most + 0.4)
    for place, (change, colour) in enumerate(
        (("gained: nearer", NEARER), ("lost: farther", FARTHER))
    ):
        title = f"{SHOWN[score][0]} {change} after null removal"
        bars = partial(_bars, title, sides[place], score, rows[place], (longest, most), colour)
        left = MARGIN + place * (half + GAP) + NAMES
        sheet.place(left, top, half - NAMES, height, bars)
    return top + height + AXIS


def _rows(texts: list[str]) -> RowNames:
    """Texts in lines that fit beside axes, and the number of lines of every text."""
    lines = [lines_of(text, NAMES - 0.1, FontProperties()) for text in texts]
    return ["\n".join(rows) for rows in lines], np.array([len(rows) for rows in lines], dtype=float)


def _show(photo: Image.Image, axes: Axes) -> None:
    axes.imshow(photo)
    axes.set_anchor("N")
    axes.set_axis_off()


def _label_rows(axes: Axes, rows: RowNames, most: float) -> np.ndarray:
    """Label rows from 0 downwards, so that every row has room for its lines; their centres."""
    names, lines = rows
    places = np.cumsum(lines) - lines / 2
    axes.set_yticks(places, names)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(most + 0.2, -0.2)
    axes.grid(axis="x")
    return places


def _dumbbell(texts: list[Movement], rows: RowNames, axes: Axes) -> None:
    places = _label_rows(axes, rows, rows[1].sum())
    before = np.array([text.angle_original_deg for text in texts])
    after = np.array([text.angle_equivalent_deg for text in texts])
    axes.hlines(places, before, after, color="0.55", lw=1, zorder=1)
    axes.scatter(after, places, s=12, color=AFTER, zorder=2)
    rings: dict[str, Any] = {"facecolors": "none", "edgecolors": BEFORE, "linewidths": 1}
    axes.scatter(before, places, s=32, zorder=3, **rings)
    low, high = min(before.min(), after.min()), max(before.max(), after.max())
    room = max(high - low, 1.0)
    axes.set_xlim(low - 0.08 * room, high + 0.42 * room)
    for place, end, text in zip(places, np.maximum(before, after), texts, strict=True):
        _note(axes, f"AS {text.as_deg:+.2f}", (end, place), 6)
    axes.set_xlabel("angle of image and text (degrees)")
    marks = [
        key("before", ls="", marker="o", mfc="none", mec=BEFORE, ms=5.5),
        key("after null removal", ls="", marker="o", color=AFTER, ms=3.5),
    ]
    where: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.2}
    axes.legend(handles=marks, ncols=2, **where)


def _bars(
    title: str,
    texts: list[Movement],
    score: str,
    rows: RowNames,
    most: tuple[float, float],
    colour: str,
    axes: Axes,
) -> None:
    """Bars of a score. most: the longest bar and the most lines of both sides."""
    axes.set_title(title)
    if not texts:
        say(axes, "none", **ABSENT)
        axes.set(xticks=[], yticks=[])
        return
    places = _label_rows(axes, rows, most[1])
    values = np.array([getattr(text, score) for text in texts])
    axes.barh(places, values, 0.7, color=colour)
    axes.axvline(0, color="0.3", lw=0.6)
    side = np.sign(values[0])
    axes.set_xlim(*sorted((0.0, side * 2.1 * most[0])))
    if side < 0:
        axes.invert_xaxis()
    axes.set_xlabel(SHOWN[score][1])
    for place, value, text in zip(places, values, texts, strict=True):
        angles = f"({text.angle_original_deg:.1f} to {text.angle_equivalent_deg:.1f})"
        _note(axes, f"{value:+.2f}  {angles}", (value, place), 3)


def _note(axes: Axes, text: str, at: tuple[float, float], gap: float) -> None:
    axes.annotate(text, at, (gap, 0), textcoords="offset points", va="center")
