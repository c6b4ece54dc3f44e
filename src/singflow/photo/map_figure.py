"""The figure of one image's maps."""

from functools import partial
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from PIL import Image, ImageOps

from singflow.analyses.maps import Maps
from singflow.figures import photo_maps
from singflow.figures.sheet import Sheet
from singflow.figures.style import PAGE, lines_of, styled
from singflow.photo.analysis import Analysis
from singflow.photo.facts import IGNORED, TOWARD, USED, map_caption, map_notes
from singflow.photo.figure import LINE, MARGIN

DOTS = 200  # per inch
COLUMNS, WIDE = (4, 2), 2.0  # panels in a row: two if width / height of the photo is larger
GAP, BAR, AXIS, HIGHEST = 0.2, 0.08, 0.3, 2.4  # inches
BOLD = {"weight": "bold"}


class MapPanel(NamedTuple):
    """A photo under a map. said: what the map shows, or the unit of colours that have ends."""

    title: str
    picture: Image.Image
    said: str = ""
    ends: tuple[str, ...] = ()


def map_panels(photo: Image.Image, maps: Maps) -> tuple[list[MapPanel], tuple[str, ...]]:
    """What is used, what is ignored, and every text; the ends of the colours of all texts."""
    used, ignored, *texts = photo_maps.map_panels(photo, maps)
    panels = [
        MapPanel(f"used: {maps.predicted}", used.picture, USED, used.ends),
        MapPanel("ignored", ignored.picture, IGNORED, ignored.ends),
    ]
    for text, panel in zip(maps.texts, texts, strict=True):
        panels.append(MapPanel(text.text, panel.picture, map_caption(text)))
    return panels, texts[0].ends if texts else ()


@styled
def draw_maps(photo: Image.Image, name: str, analysis: Analysis, maps: Maps) -> Figure:
    """Draw a photo, the maps of what is used and ignored in it, and the maps of texts."""
    columns = COLUMNS[photo.width > WIDE * photo.height]
    step = (PAGE - 2 * MARGIN + GAP) / columns
    panel = step - GAP
    across = min(panel, HIGHEST * photo.width / photo.height)
    deep = across * photo.height / photo.width
    small = ImageOps.contain(photo, (round(DOTS * across), max(1, round(DOTS * deep))))
    panels, text_ends = map_panels(small, maps)
    panels, (movements, amounts, outline) = [MapPanel(name, small), *panels], photo_maps.keys()
    room = PAGE - 2 * MARGIN - step - 2 * BAR
    notes = [line for note in map_notes(analysis, maps) for line in _lines(note, room)]
    sheet, y = Sheet(PAGE), MARGIN
    for start in range(0, len(panels), columns):
        row = panels[start : start + columns]
        titles = [_lines(shown.title, panel, **BOLD) for shown in row]
        captions = [
            _lines(shown.said, panel) if shown.said and not shown.ends else [] for shown in row
        ]
        texts = list(zip(titles, captions, strict=True))
        y += LINE * max(len(title) + len(caption) for title, caption in texts)
        for column, (shown, (title, caption)) in enumerate(zip(row, texts, strict=True)):
            x, top = MARGIN + column * step, y - LINE * len(caption)
            _write(sheet, x, top - LINE * len(title), title, **BOLD)
            _write(sheet, x, top, caption)
            sheet.place(x, y, across, deep, partial(_show, shown.picture))
            if shown.ends:
                scale = partial(_scale, amounts, shown.ends, [shown.said])
                sheet.place(x, y + deep + GAP / 3, panel, BAR, scale)
        y += deep + (BAR + AXIS + LINE) * any(shown.ends for shown in row) + GAP
    unit = _lines(TOWARD, panel)
    if maps.texts:
        scale = partial(_scale, movements, text_ends, unit)
        sheet.place(MARGIN, y, panel, BAR, scale)
    if maps.outlined:
        sheet.place(MARGIN + step, y, BAR, BAR, partial(_show, outline))
    _write(sheet, MARGIN + step + 2 * BAR, y, notes)
    return sheet.draw(
        y + max((BAR + AXIS + LINE * len(unit)) * bool(maps.texts), LINE * len(notes)) + MARGIN
    )


def _lines(text: str, width: float, **font: Any) -> list[str]:
    return lines_of(text, width, FontProperties(**font))


def _write(sheet: Sheet, x: float, y: float, lines: list[str], **font: Any) -> None:
    for number, line in enumerate(lines):
        sheet.write(x, y + number * LINE, line, **font)


def _show(picture: Image.Image, axes: Axes) -> None:
    axes.imshow(picture)
    axes.set_axis_off()


def _scale(colours: Image.Image, ends: tuple[str, ...], unit: list[str], axes: Axes) -> None:
    """The colours of a map, with words at their ends and below them."""
    axes.imshow(colours, extent=(0, 1, 0, 1), aspect="auto")
    axes.spines[:].set_visible(False)
    axes.set_yticks([])
    axes.set_xticks([0, 1], ends)
    first, last = axes.get_xticklabels()
    first.set_horizontalalignment("left")
    last.set_horizontalalignment("right")
    axes.set_xlabel("\n".join(unit))
