"""The figure of one image's maps."""

from functools import partial
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from PIL import Image, ImageOps

from singflow.analyses.maps import Maps
from singflow.figures.overlay import keys, overlay
from singflow.figures.style import Sheet, lines_of, styled
from singflow.photo.analysis import Analysis
from singflow.photo.facts import IGNORED, OUTLINE, TOWARD, USED, map_caption, map_notes
from singflow.photo.figure import LINE, MARGIN, NAMES_PT, WIDTH

DOTS = 200  # per inch
COLUMNS, WIDE = (4, 2), 2.0  # panels in a row: two if width / height of the photo is larger
GAP, BAR, AXIS, TALLEST = 0.3, 0.1, 0.55, 3.5  # inches
BOLD = {"weight": "bold"}


class Panel(NamedTuple):
    """A picture, lines above it, and what is said at the ends of its colours and below them."""

    picture: Image.Image
    title: list[str]
    caption: list[str]
    ends: tuple[str, ...] = ()
    unit: str = ""


@styled
def draw_maps(photo: Image.Image, name: str, analysis: Analysis, maps: Maps) -> Figure:
    """Draw a photo, the maps of what is used and ignored in it, and the maps of texts."""
    columns = COLUMNS[photo.width > WIDE * photo.height]
    step = (WIDTH - 2 * MARGIN + GAP) / columns
    panel = step - GAP
    across = min(panel, TALLEST * photo.width / photo.height)
    deep = across * photo.height / photo.width
    small = ImageOps.contain(photo, (round(DOTS * across), max(1, round(DOTS * deep))))
    drawn, (movements, amounts, outline) = overlay(small, maps), keys()
    used, ignored = (
        _lines(title, panel, **BOLD) for title in (f"used: {maps.predicted}", "ignored")
    )
    panels = [
        Panel(small, _lines(name, panel, **BOLD), []),
        Panel(drawn.used, used, [], drawn.used_ends, USED),
        Panel(drawn.ignored, ignored, [], drawn.ignored_ends, IGNORED),
    ]
    for text, picture in zip(maps.texts, drawn.texts, strict=True):
        said = _lines(text.text, panel, **BOLD), _lines(map_caption(text), panel)
        panels.append(Panel(picture, *said))
    rows = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    room = WIDTH - 2 * MARGIN - step - 2 * BAR
    notes = [line for note in map_notes(analysis, maps) for line in _lines(note, room)]
    sheet, y = Sheet(WIDTH), MARGIN
    for row in rows:
        y += LINE * max(len(shown.title) + len(shown.caption) for shown in row)
        for column, shown in enumerate(row):
            x, top = MARGIN + column * step, y - LINE * len(shown.caption)
            _write(sheet, x, top - LINE * len(shown.title), shown.title, **BOLD)
            _write(sheet, x, top, shown.caption)
            sheet.place(x, y, across, deep, partial(_show, shown.picture))
            if shown.ends:
                scale = partial(_scale, amounts, shown.ends, [shown.unit])
                sheet.place(x, y + deep + GAP / 3, panel, BAR, scale)
        y += deep + (BAR + AXIS) * any(shown.ends for shown in row) + GAP
    if maps.texts:
        scale = partial(_scale, movements, drawn.text_ends, _lines(TOWARD, panel))
        sheet.place(MARGIN, y, panel, BAR, scale)
    if notes and notes[0].startswith(OUTLINE):
        sheet.place(MARGIN + step, y, BAR, BAR, partial(_show, outline))
    _write(sheet, MARGIN + step + 2 * BAR, y, notes)
    return sheet.draw(y + max((BAR + AXIS) * bool(maps.texts), LINE * len(notes)) + MARGIN)


def _lines(text: str, width: float, **font: Any) -> list[str]:
    return lines_of(text, width, FontProperties(size=NAMES_PT, **font))


def _write(sheet: Sheet, x: float, y: float, lines: list[str], **font: Any) -> None:
    for number, line in enumerate(lines):
        sheet.write(x, y + number * LINE, line, fontsize=NAMES_PT, **font)


def _show(picture: Image.Image, axes: Axes) -> None:
    axes.imshow(picture)
    axes.set_axis_off()


def _scale(colours: Image.Image, ends: tuple[str, ...], unit: list[str], axes: Axes) -> None:
    """The colours of a map, with words at their ends and below them."""
    axes.imshow(colours, extent=(0, 1, 0, 1), aspect="auto")
    axes.spines[:].set_visible(False)
    axes.set_yticks([])
    axes.set_xticks([0, 1], ends, fontsize=NAMES_PT)
    first, last = axes.get_xticklabels()
    first.set_horizontalalignment("left")
    last.set_horizontalalignment("right")
    axes.set_xlabel("\n".join(unit), fontsize=NAMES_PT)
