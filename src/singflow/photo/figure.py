"""The figure of one image's analysis."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from PIL import Image, ImageOps

from singflow.figures.overlay import FARTHER, NEARER
from singflow.figures.style import COLOURS, grid_lines, key, lines_of, say, styled
from singflow.photo.analysis import Analysis, Movement
from singflow.photo.facts import SCORES, facts_of, select

PHOTO_PIXELS, TILE_PIXELS = 900, 400  # longest sides, enough for 200 dots per inch
BEFORE, AFTER = "0.35", COLOURS[7]
ABSENT = {"va": "center", "color": "0.4"}
SHOWN = {  # a text of the list that is ranked by a score, and the unit of the score
    "as_contrast_deg": ("class", "AS less its mean over classes (degrees)"),
    "as_deg": ("concept", "AS (degrees)"),
}

# Lengths in inches: margins, photo, words, and room for texts beside axes.
WIDTH, MARGIN, GAP = 10.5, 0.15, 0.25
PHOTO, NAMES, TILE = 3.8, 2.0, 1.75
LINE, AXIS, TITLE = 0.17, 0.5, 0.3
WORDS_PT, NAMES_PT, TITLE_PT = 8.5, 8.0, 11.0


@styled
def draw_image(
    photo: Image.Image, name: str, analysis: Analysis, near: Sequence[Image.Image | None] = ()
) -> Figure:
    """Draw a photo, the nearest photos, scores in words, angles to texts, and texts beyond chance.

    Classes beyond chance are shown by contrastive AS, and the concepts of a study by AS. `near` has
    the photos of `analysis.nearest`, with None for a photo whose file is missing.
    """
    texts = [analysis.predicted, *analysis.texts]
    panels = [(*SHOWN[score], score, sides) for _, score, *sides in analysis.beyond_chance]
    nearest = analysis.nearest if near else []
    left = MARGIN + PHOTO + GAP
    title, words = _words(name, analysis, WIDTH - MARGIN - left)
    first, *others = (text.text for text in texts)
    names, lines = _broken([f"class: {first}", *others])
    broken = [[_broken([text.text for text in side]) for side in sides] for *_, sides in panels]
    most = [max(1.0, *(rows.sum() for _, rows in sides)) for sides in broken]
    title_height = 1.3 * LINE * (title.count("\n") + 1)
    words_height = title_height + LINE * (words.count("\n") + 1) + GAP
    plot_height = 1.5 * LINE * (lines.sum() + 0.4)
    bars_heights = [1.3 * LINE * (rows + 0.4) for rows in most]
    photo_height = PHOTO * min(1.0, photo.height / photo.width)
    font = FontProperties(size=NAMES_PT)
    paths = [lines_of(neighbour.path, TILE, font) for neighbour in nearest]
    near_height = TITLE + TILE + LINE * max(map(len, paths)) + GAP if paths else 0.0
    top = max(photo_height + GAP + near_height, words_height + TITLE + plot_height + AXIS)
    height = MARGIN + top + sum(TITLE + bars + AXIS for bars in bars_heights)
    figure = plt.figure(figsize=(WIDTH, height))

    axes_at = partial(place_axes, figure)

    def text_at(y: float, text: str, **font: Any) -> None:
        place = left / WIDTH, 1 - y / height
        figure.text(*place, text, va="top", linespacing=1.3, **font)

    axes = axes_at(MARGIN, MARGIN, PHOTO, photo_height if paths else top - GAP)
    small = photo.copy()
    small.thumbnail((PHOTO_PIXELS, PHOTO_PIXELS))
    axes.imshow(small)
    axes.set_anchor("N")
    axes.set_axis_off()
    below = MARGIN + photo_height + GAP + TITLE
    for place, (found, picture, path) in enumerate(zip(nearest, near, paths, strict=True)):
        axes = axes_at(MARGIN + place * (PHOTO - TILE), below, TILE, TILE)
        when = ("before", "after")[place]
        axes.set_title(f"nearest {when} ({found.angle_deg:.1f}°)", fontsize=NAMES_PT)
        _near(axes, picture, path)
    text_at(MARGIN, title, fontsize=TITLE_PT, fontweight="bold")
    text_at(MARGIN + title_height, words, fontsize=WORDS_PT)
    width = WIDTH - MARGIN - left - NAMES
    axes = axes_at(left + NAMES, MARGIN + words_height + TITLE, width, plot_height)
    _dumbbell(axes, texts, names, lines)
    half, below = (WIDTH - 2 * MARGIN - GAP) / 2, MARGIN + top + TITLE
    for (kind, unit, score, sides), labels_of, deep, rows_shown in zip(
        panels, broken, bars_heights, most, strict=True
    ):
        longest = max(abs(getattr(text, score)) for side in sides for text in side)
        for place, (side, (labels, rows)) in enumerate(zip(sides, labels_of, strict=True)):
            axes = axes_at(MARGIN + place * (half + GAP) + NAMES, below, half - NAMES, deep)
            change = ("gained: nearer", "lost: farther")[place]
            axes.set_title(f"{kind} {change} after null removal")
            _bars(axes, side, score, labels, rows, longest, (NEARER, FARTHER)[place])
            axes.set_xlabel(unit if side else "")
            axes.set_ylim(rows_shown + 0.2, -0.2)
        below += deep + AXIS + TITLE
    return figure


def place_axes(figure: Figure, x: float, y: float, width: float, height: float) -> Axes:
    """Axes with their upper left corner x, y inches from the figure's upper left corner."""
    across, down = figure.get_size_inches()
    return figure.add_axes((x / across, 1 - (y + height) / down, width / across, height / down))


def _words(name: str, analysis: Analysis, width: float) -> tuple[str, str]:
    """Title and text, in lines of at most `width` inches."""
    facts = facts_of(analysis)
    title = lines_of(select(facts, "class")[0], width, FontProperties(size=TITLE_PT, weight="bold"))
    lines = [
        *select(facts, "known zero"),
        name,
        *select(facts, "other classes", *SCORES, "words"),
        *(f"steered toward {f.about!r}: {f.sentence}" for f in facts if f.name == "steered"),
        *select(facts, "setting"),
    ]
    font = FontProperties(size=WORDS_PT)
    parts = (part for line in lines for part in lines_of(line, width, font))
    return "\n".join(title), "\n".join(parts)


def _broken(texts: list[str]) -> tuple[list[str], np.ndarray]:
    """Texts in lines that fit beside axes, and the number of lines of every text."""
    lines = [lines_of(text, NAMES - 0.1, FontProperties(size=NAMES_PT)) for text in texts]
    return ["\n".join(rows) for rows in lines], np.array([len(rows) for rows in lines], dtype=float)


def _near(axes: Axes, photo: Image.Image | None, path: list[str]) -> None:
    """Draw a photo of the study above its path."""
    if photo is None:
        say(axes, "not here", **ABSENT)
    else:
        axes.imshow(ImageOps.pad(photo, (TILE_PIXELS, TILE_PIXELS), color="white"))
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(photo is None)
    axes.set_xlabel("\n".join(path), fontsize=NAMES_PT)


def _rows(axes: Axes, names: list[str], lines: np.ndarray) -> np.ndarray:
    """Label rows from 0 downwards, so that every row has room for its lines; their centres."""
    places = np.cumsum(lines) - lines / 2
    axes.set_yticks(places, names, fontsize=8)
    axes.tick_params(axis="y", length=0)
    grid_lines(axes, "x")
    return places


def _dumbbell(axes: Axes, texts: list[Movement], names: list[str], lines: np.ndarray) -> None:
    places = _rows(axes, names, lines)
    axes.set_ylim(lines.sum() + 0.2, -0.2)
    before = np.array([text.angle_original_deg for text in texts])
    after = np.array([text.angle_equivalent_deg for text in texts])
    axes.hlines(places, before, after, color="0.55", lw=1.5, zorder=1)
    axes.scatter(after, places, s=24, color=AFTER, zorder=2)
    rings: dict[str, Any] = {"facecolors": "none", "edgecolors": BEFORE, "linewidths": 1.3}
    axes.scatter(before, places, s=60, zorder=3, **rings)
    low, high = min(before.min(), after.min()), max(before.max(), after.max())
    room = max(high - low, 1.0)
    axes.set_xlim(low - 0.08 * room, high + 0.42 * room)
    for place, end, text in zip(places, np.maximum(before, after), texts, strict=True):
        _note(axes, f"AS {text.as_deg:+.2f}", (end, place), 8, 8)
    axes.set_xlabel("angle of image and text (degrees)")
    marks = [
        key("before", ls="", marker="o", mfc="none", mec=BEFORE, ms=7.5),
        key("after null removal", ls="", marker="o", color=AFTER, ms=5),
    ]
    where: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.2}
    axes.legend(handles=marks, ncols=2, fontsize=8, **where)


def _note(axes: Axes, text: str, at: tuple[float, float], gap: float, size: float) -> None:
    axes.annotate(text, at, (gap, 0), textcoords="offset points", va="center", fontsize=size)


def _bars(
    axes: Axes,
    texts: list[Movement],
    score: str,
    names: list[str],
    lines: np.ndarray,
    longest: float,
    colour: str,
) -> None:
    if not texts:
        say(axes, "none", **ABSENT)
        axes.set(xticks=[], yticks=[])
        return
    places = _rows(axes, names, lines)
    values = np.array([getattr(text, score) for text in texts])
    axes.barh(places, values, 0.7, color=colour)
    axes.axvline(0, color="0.3", lw=0.8)
    side = np.sign(values[0])
    axes.set_xlim(*sorted((0.0, side * 2.1 * longest)))
    if side < 0:
        axes.invert_xaxis()
    for place, value, text in zip(places, values, texts, strict=True):
        angles = f"({text.angle_original_deg:.1f} to {text.angle_equivalent_deg:.1f})"
        _note(axes, f"{value:+.2f}  {angles}", (value, place), 4, 7.5)
