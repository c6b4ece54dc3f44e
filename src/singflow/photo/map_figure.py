"""The figure of one image's maps."""

from functools import partial
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from PIL import Image, ImageOps

from singflow.analyses.maps import Maps
from singflow.figures.overlay import keys, overlay
from singflow.figures.style import lines_of, styled
from singflow.photo.analysis import Analysis
from singflow.photo.facts import IGNORED, OUTLINE, TOWARD, USED, map_caption, map_notes
from singflow.photo.figure import LINE, MARGIN, NAMES_PT, WIDTH, place_axes

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
    above = [LINE * max(len(each.title) + len(each.caption) for each in row) for row in rows]
    bars = [(BAR + AXIS) * any(each.ends for each in row) for row in rows]
    room = WIDTH - 2 * MARGIN - step - 2 * BAR
    notes = [line for note in map_notes(analysis, maps) for line in _lines(note, room)]
    below = max((BAR + AXIS) * bool(maps.texts), LINE * len(notes))
    height = 2 * MARGIN + sum(above) + sum(bars) + len(rows) * (deep + GAP) + below
    figure = plt.figure(figsize=(WIDTH, height))
    axes_at, write = partial(place_axes, figure), partial(_write, figure)
    y = MARGIN
    for row, room, bar in zip(rows, above, bars, strict=True):
        y += room
        for column, each in enumerate(row):
            x, top = MARGIN + column * step, y - LINE * len(each.caption)
            write(x, top - LINE * len(each.title), each.title, **BOLD)
            write(x, top, each.caption)
            _show(axes_at(x, y, across, deep), each.picture)
            if each.ends:
                axes = axes_at(x, y + deep + GAP / 3, panel, BAR)
                _scale(axes, amounts, each.ends, [each.unit])
        y += deep + bar + GAP
    if maps.texts:
        axes = axes_at(MARGIN, y, panel, BAR)
        _scale(axes, movements, drawn.text_ends, _lines(TOWARD, panel))
    if notes and notes[0].startswith(OUTLINE):
        _show(axes_at(MARGIN + step, y, BAR, BAR), outline)
    write(MARGIN + step + 2 * BAR, y, notes)
    return figure


def _lines(text: str, width: float, **font: Any) -> list[str]:
    return lines_of(text, width, FontProperties(size=NAMES_PT, **font))


def _write(figure: Figure, x: float, y: float, lines: list[str], **font: Any) -> None:
    """Lines below y, right of x, in inches from the figure's upper left corner."""
    across, down = figure.get_size_inches()
    for number, line in enumerate(lines):
        place = x / across, 1 - (y + number * LINE) / down
        figure.text(*place, line, va="top", fontsize=NAMES_PT, **font)


def _show(axes: Axes, picture: Image.Image) -> None:
    axes.imshow(picture)
    axes.set_axis_off()


def _scale(axes: Axes, colours: Image.Image, ends: tuple[str, ...], unit: list[str]) -> None:
    """The colours of a map, with words at their ends and below them."""
    axes.imshow(colours, extent=(0, 1, 0, 1), aspect="auto")
    axes.spines[:].set_visible(False)
    axes.set_yticks([])
    axes.set_xticks([0, 1], ends, fontsize=NAMES_PT)
    first, last = axes.get_xticklabels()
    first.set_horizontalalignment("left")
    last.set_horizontalalignment("right")
    axes.set_xlabel("\n".join(unit), fontsize=NAMES_PT)
