"""A page on which texts, pictures and axes stand where they are placed, in inches."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from PIL import Image

from singflow.figures.style import STYLE, Look, lines_of, new_figure

MARGIN, LINE = 0.06, 0.13
FONTS: dict[str, tuple[Look, float, str]] = {  # font, inches of a line, colour
    "title": ({"size": STYLE["figure.titlesize"], "weight": "bold"}, 0.15, "black"),
    "name": ({}, LINE, "black"),
    "new": ({"weight": "bold"}, LINE, "black"),
    "note": ({}, LINE, "0.35"),
}

Place = tuple[float, float, float, float]  # left, top, width and height


@dataclass
class Sheet:
    """Texts, pictures and axes, placed from the upper left corner. draw() makes the figure."""

    width: float
    texts: list[tuple[float, float, str, Look]] = field(default_factory=list)
    panels: list[tuple[Place, Callable[[Axes], Any]]] = field(default_factory=list)
    pictures: list[tuple[Place, Image.Image]] = field(default_factory=list)

    def write(self, left: float, top: float, text: str, **look: Any) -> None:
        """Add a text below `top`."""
        self.texts.append((left, top, text, {"va": "top"} | look))

    def write_lines(
        self, left: float, top: float, lines: list[str], font: str, align: str = "top"
    ) -> float:
        """Add lines in a font of FONTS; returns where they end."""
        _, line, colour = FONTS[font]
        look = {"fontproperties": font_of(font), "color": colour, "va": align}
        self.write(left, top, "\n".join(lines), **look)
        return top + line * len(lines)

    def write_text(
        self, left: float, top: float, text: str, room: float, font: str = "name"
    ) -> float:
        """Add a text in lines that are at most as long as the room; returns where it ends."""
        return self.write_lines(left, top, broken(text, room, font), font)

    def place(
        self, left: float, top: float, width: float, height: float, draw: Callable[[Axes], Any]
    ) -> None:
        """Add axes and the function that draws in them."""
        self.panels.append(((left, top, width, height), draw))

    def show(
        self, left: float, top: float, width: float, height: float, picture: Image.Image
    ) -> None:
        """Add a picture; all pictures share one pair of axes, which many are drawn faster with."""
        self.pictures.append(((left, top, width, height), picture))

    def draw(self, height: float) -> Figure:
        figure = new_figure((self.width, height), "none")
        for left, top, text, look in self.texts:
            figure.text(left / self.width, 1 - top / height, text, **look)
        for (left, top, width, tall), draw in self.panels:
            place = left / self.width, 1 - (top + tall) / height, width / self.width, tall / height
            draw(figure.add_axes(place))
        if self.pictures:
            axes = figure.add_axes((0, 0, 1, 1))
            for (left, top, width, tall), picture in self.pictures:
                axes.imshow(picture, extent=(left, left + width, top + tall, top), aspect="auto")
            axes.set(xlim=(0, self.width), ylim=(height, 0))
            axes.set_axis_off()
        return figure


def font_of(name: str) -> FontProperties:
    """A font of FONTS, whose family is that of the style in force."""
    return FontProperties(**FONTS[name][0])


def broken(text: str, room: float, font: str) -> list[str]:
    """The lines of a text, each at most as long as the room."""
    return [line for part in text.splitlines() for line in lines_of(part, room, font_of(font))]
