"""Style, captions and files of all figures, and helpers that their modules share."""

import base64
import io
import re
import sys
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.textpath import text_to_path
from matplotlib.transforms import ScaledTranslation
from PIL import Image

from singflow.artifacts.catalog import FORMATS, NEEDS
from singflow.artifacts.files import write_bytes
from singflow.artifacts.tables import read_models, read_parquet
from singflow.cli import Selection, Step

# Palette of Okabe and Ito, safe for colour-blind readers; black last.
COLOURS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*"]
COLUMN, PAGE, TALLEST = 3.4, 7.0, 9.0  # inches: widths of a column and of a page, most height
STYLE: dict[Any, Any] = {
    "font.size": 7,  # points, the least in a figure
    "axes.titlesize": "medium",
    "axes.titlelocation": "left",
    "xtick.labelsize": "medium",
    "ytick.labelsize": "medium",
    "legend.fontsize": "medium",
    "legend.title_fontsize": "medium",
    "figure.labelsize": "medium",
    "figure.titlesize": 8,
    "figure.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.axisbelow": True,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1,
    "lines.markersize": 4,
    "errorbar.capsize": 1.5,
    "grid.color": "0.92",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "figure.dpi": 200,
    "pdf.fonttype": 42,
    "text.parse_math": False,
}
# Decorators of functions that write and that draw, whatever the user's matplotlibrc says. Figures
# are made without pyplot, so that neither its backend nor its list of figures changes.
plain = matplotlib.style.context("default")
styled = matplotlib.style.context(["default", STYLE])

# Metadata of each format that would hold the time or the software.
UNSTAMPED: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
    "svg": {"Date": None, "Creator": None},
}
NETWORKS = "a nonlinear translator: a model in comparison.models and a kind in comparison.kinds"
DARK = (  # all but photos, which keep their colours
    b"<style>@media (prefers-color-scheme: dark) "
    b"{ g:is([id^=figure], [id^=subfigure], [id^=axes]) > "
    b":not([id^=subfigure], [id^=axes], image, :has(image)) "
    b"{ filter: invert(1) hue-rotate(180deg); } }</style>"
)
# In an SVG, last digits of places and names made of them differ between runs.
DIGITS = re.compile(rb"(?<!scale\()(?<![\d.])\d+\.\d{4,}")
NAMES = re.compile(rb"(?<=[\"#])(?:[mph]|image|C\d+_\d+_)[0-9a-f]{10}\b")
EMBEDDED = re.compile(rb"data:image/png;base64,([^\"]+)")

Item = TypeVar("Item")
Look = dict[str, Any]  # keyword arguments of Matplotlib
Frames = dict[str, dict[str, pd.DataFrame]]  # space -> model -> table


def colour(number: int) -> str:
    """The colour of the model at a position in the study; colours repeat after eight models."""
    return COLOURS[number % len(COLOURS)]


def marker(number: int) -> str:
    """The marker of the model at a position in the study; with the colour unique for 64 models."""
    return MARKERS[(number + number // len(COLOURS)) % len(MARKERS)]


def look_of(number: int) -> Look:
    """Colour and marker of the model at a position in the study."""
    return {"color": colour(number), "marker": marker(number)}


@plain
def save(figure: Figure, *paths: Path, needs: str = "") -> None:
    """Write a figure without time or software stamps, in the formats that the paths end in.

    An SVG is transparent, and is light on dark where the reader's screen is. A PNG keeps `needs`.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # all files keep the layout computed above
    for path in paths:
        kind, buffer = path.suffix[1:], io.BytesIO()
        with matplotlib.rc_context({"image.composite_image": False}):
            figure.savefig(
                buffer,
                format=kind,
                metadata=UNSTAMPED[kind] | ({NEEDS: needs} if needs and kind == "png" else {}),
                transparent=kind == "svg",
            )
        content = buffer.getvalue()
        if kind == "svg":
            content = _reproducible(content.replace(b"<defs>", DARK + b"<defs>", 1))
        write_bytes(path, content)


def _reproducible(svg: bytes) -> bytes:
    """An SVG with places of three digits, names in the order in which they appear, and JPEGs."""
    svg, names = DIGITS.sub(lambda found: b"%.3f" % float(found[0]), svg), dict[bytes, bytes]()
    svg = NAMES.sub(lambda found: names.setdefault(found[0], b"id%d" % len(names)), svg)
    return EMBEDDED.sub(_smaller, svg)


def _smaller(found: re.Match[bytes]) -> bytes:
    """A PNG inside an SVG as JPEG, if it is opaque: an eighth of its size."""
    picture, buffer = Image.open(io.BytesIO(base64.b64decode(found[1]))), io.BytesIO()
    if picture.mode == "RGBA" and picture.getchannel("A").getextrema() != (255, 255):
        return found[0]
    picture.convert("RGB").save(buffer, "JPEG", quality=88)
    return b"data:image/jpeg;base64," + base64.b64encode(buffer.getvalue())


def shown(figure: Figure) -> Figure:
    """The figure, which a notebook can show once pyplot has loaded the notebook's backend."""
    if "IPython" in sys.modules:
        import matplotlib.pyplot as plt

        plt.switch_backend(matplotlib.get_backend())
    return figure


def write_figure(flags: Step, name: str, figure: Figure, needs: str = "") -> None:
    """Write a figure of the study in all formats."""
    save(figure, *(flags.path(f"figures/{name}.{kind}") for kind in FORMATS), needs=needs)


@styled
def write_needs(flags: Step, name: str, needs: str) -> None:
    """Write that a figure has no data here and what it needs, which the page says in its place."""
    figure = new_figure((COLUMN, 0.4))
    figure.text(0.5, 0.5, wrapped(f"Not drawn: {needs}", COLUMN - 0.2), ha="center", va="center")
    write_figure(flags, name, figure, needs)


def read_tables(flags: Selection, artifact: str) -> tuple[Frames, pd.DataFrame]:
    """The tables of an artifact of all models and spaces, and tables/models.csv."""
    frames = flags.gather(artifact, lambda path: read_parquet(path, artifact))
    return frames, read_models(flags.path("tables/models.csv"))


def pairs_of(gathered: dict[str, dict[str, Item]]) -> list[tuple[str, str, Item]]:
    """Space, model, and what was gathered of them."""
    return [(space, model, item) for space, of in gathered.items() for model, item in of.items()]


def of_space(table: pd.DataFrame, space: str) -> pd.DataFrame:
    """The rows of a space in a table of the study, by model."""
    return table[table["space"] == space].set_index("model")


def bare(model: str) -> str:
    """A model's name without `<source>/`."""
    return model.partition("/")[2] or model


def caption(model: str, rows: pd.DataFrame, between: str = " ") -> str:
    """A model's name with its marks, such as a weak translator; rows: tables/models.csv by model.

    If the marks differ between spaces, every mark is given with its space.
    """
    mine = rows.loc[[model]]
    said = list(mine["marks"].unique())
    if len(said) > 1:
        spaces_and_marks = zip(mine["space"], mine["marks"], strict=True)
        said = [f"{marks} in {space}" for space, marks in spaces_and_marks if marks]
    return bare(model) + (f"{between}({'; '.join(said)})" if any(said) else "")


def named(model: str, rows: pd.DataFrame) -> str:
    """A model's caption in lines that fit beside panels."""
    return wrapped(caption(model, rows, "\n"), 1.3)


def rows_high(names: Sequence[str], least: float) -> float:
    """Inches for rows whose names do not overlap; a row has at least so many inches."""
    lines = [name.count("\n") + 1 for name in names]
    close = (0.02 + 0.12 * (upper + lower) / 2 for upper, lower in pairwise(lines))
    return len(lines) * max([least, *close])


def new_figure(size: tuple[float, float], layout: Any = None) -> Figure:
    """An empty figure of `size` inches, which pyplot does not know."""
    figure = Figure(figsize=size, layout=layout)
    FigureCanvasAgg(figure)
    return figure


def panels(
    rows: int, columns: int, size: tuple[float, float], **options: Any
) -> tuple[Figure, np.ndarray]:
    """A figure of `size` inches with a grid (rows, columns) of axes."""
    figure = new_figure(size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def subfigures(count: int, width: float, height: float) -> tuple[Figure, Iterable[SubFigure]]:
    """A figure with `count` subfigures, one below the other: one for each space."""
    figure = new_figure((width, height), layout="constrained")
    return figure, figure.subfigures(count, 1, squeeze=False)[:, 0]


def entitle(figure: Figure, text: str) -> None:
    """A title above all panels: what is seen."""
    room, look = figure.get_figwidth() - 0.12, matplotlib.rcParams
    bold = FontProperties(size=look["figure.titlesize"], weight=look["figure.titleweight"])
    lines = "\n".join(lines_of(text, room, bold))
    figure.suptitle(lines, x=0.06 / figure.get_figwidth(), ha="left")


def legend(figure: Figure | SubFigure, handles: Sequence[Any], columns: int = 3) -> None:
    """A legend below all panels; long names are broken."""
    room = figure.get_figure(root=True).get_figwidth() / columns - 0.55
    for handle in handles:
        handle.set_label(wrapped(handle.get_label(), room))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, borderaxespad=0)


def apart(axes: Axes, lines: Iterable[Line2D], number: int, count: int) -> None:
    """Move the lines of a model up or down by a point or so, so that none hides another's."""
    inches = axes.get_figure(root=True).dpi_scale_trans  # type: ignore[union-attr]
    points = min(1.2, 6 / count) * (number - (count - 1) / 2)
    for line in lines:
        line.set_transform(axes.transData + ScaledTranslation(0, points / 72, inches))


def span(values: Iterable[float], form: str = "{:.1f}", unit: str = "°") -> str:
    """The smallest and the largest of some values in words, or the only one."""
    both = np.nanmin([*values]), np.nanmax([*values])
    ends = [form.format(end).replace("e-0", "e-") for end in both]
    return " to ".join(f"{end}{unit}" for end in dict.fromkeys(ends))


def draw_texts(axes: Axes, ends: Sequence[pd.DataFrame], color: str) -> list[float]:
    """D along texts, with intervals, one text below the other; a gap between the ends of a list.

    Returns the height of every text. A text that is hidden is a filled mark.
    """
    rows = pd.concat(ends)
    heights = -np.arange(len(rows)) - np.repeat(np.arange(len(ends)), [*map(len, ends)])
    for height, row in zip(heights, rows.to_dict("records"), strict=True):
        low, d, high = (100 * row[f"unique_r2{end}"] for end in ("_low", "", "_high"))
        axes.plot([low, high], [height] * 2, color=color, lw=1)
        axes.plot(d, height, "o", color=color, mfc=color if row["hidden"] else "white")
    axes.set_xlabel("D along the text (%)")
    axes.grid(axis="x")
    return list(heights)


def key(label: str, **look: Any) -> Line2D:
    """An entry of a legend."""
    return Line2D([], [], label=label, **look)


def say(axes: Axes, text: str, **look: Any) -> None:
    """Write a text in the middle of axes that show nothing else."""
    axes.text(0.5, 0.5, text, ha="center", transform=axes.transAxes, **look)


def wrapped(text: str, width: float) -> str:
    """A text in lines of at most `width` inches, in the font of the style."""
    font = FontProperties()
    return "\n".join(line for part in text.splitlines() for line in lines_of(part, width, font))


def lines_of(text: str, width: float, font: FontProperties) -> list[str]:
    """A text in lines of at most `width` inches.

    It is broken at spaces, and a word that is longer than a line after a mark, or anywhere.
    """

    def fits(line: str) -> bool:
        return text_to_path.get_text_width_height_descent(line, font, ismath=False)[0] <= 72 * width

    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}".strip()
        if fits(joined):
            lines[-1] = joined
            continue
        lines += [""] if lines[-1] else []
        for part in re.split("(?<=[-_.,/])", word):
            lines += [] if not lines[-1] or fits(lines[-1] + part) else [""]
            for character in part:
                lines += [] if fits(lines[-1] + character) else [""]
                lines[-1] += character
    return lines
