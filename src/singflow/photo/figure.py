"""The figure of one photo: angles to texts, texts beyond chance, and maps."""

from collections.abc import Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.font_manager import FontProperties
from PIL import Image, ImageOps

from singflow.analyses.maps import Maps
from singflow.figures.photo_maps import FARTHER, NEARER, ramp, toward_text
from singflow.figures.style import COLOURS, STYLE, key, lines_of, new_figure, styled, wrapped
from singflow.photo.analysis import Analysis, Movement
from singflow.photo.facts import compared, conclude, likeliest, map_notes

# Inches: the figure, names of rows, a line, an axis with its label, and most of a photo.
WIDTH, NAMES, LINE, AXIS, TALLEST = 5.5, 1.25, 0.13, 0.65, 2.4
LINES = 2  # most of a name
PIXELS = 600  # longest side of a photo
COLUMNS, WIDE = (4, 2), 2.0  # maps in a row: two if width / height of the photo is larger
BEFORE, AFTER = "0.35", COLOURS[7]
UNITS = {  # of the scores that rank texts
    "as_contrast_deg": "AS minus its mean over classes (degrees)",
    "as_deg": "AS (degrees)",
}

Panels = list[tuple[str, Image.Image]]


@styled
def draw(photo: Image.Image, name: str, analysis: Analysis) -> Figure:
    """Draw a photo, its angles to texts, texts beyond chance, and maps if it has some."""
    small, tall = ImageOps.contain(photo, (PIXELS, PIXELS)), photo.height / photo.width
    texts = compared(analysis)
    names = _short([f"class: {texts[0].text}", *(text.text for text in texts[1:])])
    high = max(min(TALLEST, 0.38 * WIDTH * tall), _height(names))
    parts = [(high, partial(_angles, small, texts, names))]
    for kind, score, *sides in analysis.beyond_chance:
        moved = [text for side in sides for text in side]
        names = _short([text.text for text in moved])
        bars = partial(_bars, kind, score, [getattr(text, score) for text in moved], names)
        parts.append((_height(names), bars))
    if analysis.maps:
        panels = map_panels(small, analysis.maps, analysis.maps.strongest_deg)
        columns = min(COLUMNS[tall < 1 / WIDE], len(panels))
        lines = max(title.count("\n") for title, _ in panels) + 2
        panel = min(TALLEST, WIDTH / columns * tall) + LINE * lines
        drawing = partial(_maps, panels, columns, analysis.maps.strongest_deg)
        parts.append((-(-len(panels) // columns) * panel + AXIS, drawing))
    title, notes = _title(name, analysis), _notes(analysis)
    heights = [height for height, _ in parts]
    room = LINE * (1.3 * title.count("\n") + notes.count("\n") + 4)
    figure = new_figure((WIDTH, sum(heights) + room), layout="constrained")
    places = figure.subfigures(len(parts), 1, squeeze=False, height_ratios=heights)[:, 0]
    for place, (_, part) in zip(places, parts, strict=True):
        part(place)
    figure.suptitle(title, x=0.02, ha="left")
    figure.supxlabel(notes, x=0.02, ha="left")
    return figure


def map_panels(photo: Image.Image, maps: Maps, most: float) -> Panels:
    """A title and the photo under a map, of each text; colours are strongest at `most` degrees."""
    names = _short([text.text for text in maps.texts])
    return [
        (
            f"{name}\nAS {text.as_deg:+.2f}°",
            toward_text(photo, text.contribution_deg, most, maps.seen),
        )
        for name, text in zip(names, maps.texts, strict=True)
    ]


def _title(name: str, analysis: Analysis) -> str:
    bold = FontProperties(size=STYLE["figure.titlesize"], weight="bold")
    setting = analysis.setting
    said = (
        conclude(analysis),
        f"{name}: {likeliest(analysis)[0]}",
        f"{setting.model} in {setting.space}: {setting.verdict or 'no verdict'}",
    )
    return "\n".join(line for part in said for line in lines_of(part, WIDTH - 0.3, bold))


def _notes(analysis: Analysis) -> str:
    notes = map_notes(analysis, analysis.maps) if analysis.maps else [analysis.no_maps]
    return wrapped("\n".join(notes), WIDTH - 0.3)


def _short(texts: Sequence[str]) -> list[str]:
    """Texts in at most LINES lines, which fit beside axes."""
    lines = [lines_of(text, NAMES, FontProperties()) for text in texts]
    return ["\n".join(each[:LINES]) + "…" * (len(each) > LINES) for each in lines]


def _height(names: Sequence[str]) -> float:
    """Inches of axes with rows that have these names."""
    return LINE * (1.5 + any("\n" in name for name in names)) * len(names) + AXIS


def _label_rows(axes: Axes, names: Sequence[str]) -> np.ndarray:
    """Label rows, the first on top; their places."""
    places = np.arange(len(names))
    axes.set_yticks(places, names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    return places


def _angles(photo: Image.Image, texts: list[Movement], names: list[str], figure: SubFigure) -> None:
    """The photo, and its angles to texts before and after null removal."""
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=[0.38, 0.62])[0]
    picture, axes = left.subplots(), right.subplots()
    picture.imshow(photo)
    picture.set_anchor("N")
    picture.set_axis_off()
    places = _label_rows(axes, names)
    before = np.array([text.angle_original_deg for text in texts])
    after = np.array([text.angle_equivalent_deg for text in texts])
    axes.hlines(places, before, after, color="0.55", lw=1, zorder=1)
    axes.scatter(after, places, s=12, color=AFTER, zorder=2)
    axes.scatter(before, places, s=32, facecolors="none", edgecolors=BEFORE, linewidths=1, zorder=3)
    low, high = np.min([before, after]), np.max([before, after])
    room = max(high - low, 1.0)
    axes.set_xlim(low - 0.08 * room, high + 0.6 * room)
    for place, end, text in zip(places, np.maximum(before, after), texts, strict=True):
        said = f"AS {text.as_deg:+.2f}"
        axes.annotate(said, (end, place), (6, 0), textcoords="offset points", va="center")
    axes.set_xlabel("angle of photo and text (degrees)")
    marks = [
        key("before", ls="", marker="o", mfc="none", mec=BEFORE, ms=5.5),
        key("after null removal", ls="", marker="o", color=AFTER, ms=3.5),
    ]
    right.legend(handles=marks, ncols=2, loc="outside upper right", borderaxespad=0.2)


def _bars(kind: str, score: str, values: list[float], names: list[str], figure: SubFigure) -> None:
    """The texts that are gained, and those that are lost."""
    axes = figure.subplots()
    colours = [NEARER if value > 0 else FARTHER for value in values]
    bars = axes.barh(_label_rows(axes, names), values, 0.6, color=colours)
    axes.bar_label(bars, [f"{value:+.2f}" for value in values], padding=3)
    axes.margins(x=0.2)
    axes.axvline(0, color="0.3", lw=0.6)
    axes.set_title(f"{kind} beyond chance: gained (nearer after null removal) or lost (farther)")
    axes.set_xlabel(UNITS[score])


def _maps(panels: Panels, columns: int, most: float, figure: SubFigure) -> None:
    """The photo under each map, on one scale."""
    grid = figure.subplots(-(-len(panels) // columns), columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, (title, picture) in zip(grid.flat, panels, strict=False):
        axes.set_title(title)
        axes.imshow(picture)
    scale = ScalarMappable(Normalize(-most, most), ListedColormap(np.asarray(ramp())[0] / 255))
    bar = figure.colorbar(scale, ax=grid, location="bottom", aspect=40, shrink=0.6)
    bar.set_ticks([-most, most], labels=[f"farther {-most:.3g}°", f"{most:.3g}° nearer"])
    bar.set_label("movement by null removal, one scale for all maps")
