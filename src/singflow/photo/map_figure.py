"""The figure of one image's maps."""

from functools import partial
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from PIL import Image, ImageOps

from singflow.analyses.maps import Maps
from singflow.figures.photo_maps import ramp, toward_text
from singflow.figures.sheet import Sheet
from singflow.figures.style import PAGE, lines_of, styled
from singflow.photo.analysis import Analysis
from singflow.photo.facts import TOWARD, map_notes
from singflow.photo.figure import LINE, MARGIN

DOTS = 200  # per inch
COLUMNS, WIDE = (4, 2), 2.0  # most panels in a row: two if width / height of the photo is larger
GAP, BAR, AXIS, HIGHEST = 0.2, 0.08, 0.3, 2.4  # inches
BOLD = {"weight": "bold"}


class MapPanel(NamedTuple):
    """A photo, which may be under a map, with words above it."""

    title: str
    picture: Image.Image
    said: str = ""


def map_panels(photo: Image.Image, maps: Maps, most: float) -> list[MapPanel]:
    """A photo under the map of every text; colours are strongest at `most` degrees."""
    return [
        MapPanel(
            text.text,
            toward_text(photo, text.contribution_deg, most, maps.seen),
            f"AS {text.as_deg:+.2f}°",
        )
        for text in maps.texts
    ]


def ends(most: float) -> tuple[str, str]:
    """The words at the ends of the colours."""
    return f"farther -{most:.3g}°", f"{most:.3g}° nearer"


@styled
def draw_maps(photo: Image.Image, name: str, analysis: Analysis) -> Figure:
    """Draw a photo and its maps, or a line that says why there are none."""
    maps = analysis.maps
    many = COLUMNS[photo.width > WIDE * photo.height]
    columns = min(many, max(2, 1 + len(maps.texts))) if maps else many
    step = (PAGE - 2 * MARGIN + GAP) / columns
    panel = step - GAP
    across = min(panel, HIGHEST * photo.width / photo.height)
    deep = across * photo.height / photo.width
    small = ImageOps.contain(photo, (round(DOTS * across), max(1, round(DOTS * deep))))
    panels = [MapPanel(name, small)]
    if maps:
        panels += map_panels(small, maps, maps.strongest_deg)
    sheet, y = Sheet(PAGE), MARGIN
    for start in range(0, len(panels), columns):
        row = panels[start : start + columns]
        texts = [
            (_lines(shown.title, panel, **BOLD), _lines(shown.said, panel) if shown.said else [])
            for shown in row
        ]
        y += LINE * max(len(title) + len(said) for title, said in texts)
        for column, (shown, (title, said)) in enumerate(zip(row, texts, strict=True)):
            x, top = MARGIN + column * step, y - LINE * len(said)
            _write(sheet, x, top - LINE * len(title), title, **BOLD)
            _write(sheet, x, top, said)
            sheet.place(x, y, across, deep, partial(_show, shown.picture))
        y += deep + GAP
    if maps is None:
        beside = MARGIN + across + GAP
        said = _lines(analysis.no_maps, PAGE - MARGIN - beside)
        _write(sheet, beside, y - GAP - deep, said)
        return sheet.draw(max(y - GAP, y - GAP - deep + LINE * len(said)) + MARGIN)
    unit = _lines(TOWARD, panel)
    notes = _lines("\n".join(map_notes(analysis, maps)), PAGE - 2 * MARGIN - step)
    sheet.place(MARGIN, y, panel, BAR, partial(_scale, ends(maps.strongest_deg), unit))
    _write(sheet, MARGIN + step, y, notes)
    return sheet.draw(y + max(BAR + AXIS + LINE * len(unit), LINE * len(notes)) + MARGIN)


def _lines(text: str, width: float, **font: Any) -> list[str]:
    return [
        line for part in text.splitlines() for line in lines_of(part, width, FontProperties(**font))
    ]


def _write(sheet: Sheet, x: float, y: float, lines: list[str], **font: Any) -> None:
    for number, line in enumerate(lines):
        sheet.write(x, y + number * LINE, line, **font)


def _show(picture: Image.Image, axes: Axes) -> None:
    axes.imshow(picture)
    axes.set_axis_off()


def _scale(words: tuple[str, str], unit: list[str], axes: Axes) -> None:
    """The colours of maps, with words at their ends and below them."""
    axes.imshow(ramp(), extent=(0, 1, 0, 1), aspect="auto")
    axes.spines[:].set_visible(False)
    axes.set_yticks([])
    axes.set_xticks([0, 1], words)
    first, last = axes.get_xticklabels()
    first.set_horizontalalignment("left")
    last.set_horizontalalignment("right")
    axes.set_xlabel("\n".join(unit))
