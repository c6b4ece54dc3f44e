"""Style and files of all figures, and helpers that their modules share."""

import io
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.textpath import text_to_path

from singflow.artifacts.catalog import FORMATS, NEEDS
from singflow.artifacts.files import write_bytes
from singflow.artifacts.tables import read_models, read_parquet
from singflow.cli import Selection, Step

# Palette of Okabe and Ito, safe for colour-blind readers; black last.
COLOURS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*"]
COLUMN, PAGE = 3.4, 7.0  # inches: widths of a column, which a phone shows whole, and of a page
NAMES = 1.3  # inches for the name of a model
STYLE: dict[Any, Any] = {
    "font.size": 7,  # points, the least in a figure
    "axes.titlesize": "medium",
    "axes.titlelocation": "left",
    "xtick.labelsize": "medium",
    "ytick.labelsize": "medium",
    "legend.fontsize": "medium",
    "legend.title_fontsize": "medium",
    "figure.labelsize": "medium",
    "figure.titlesize": "medium",
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
    "figure.constrained_layout.wspace": 0.04,
    "figure.dpi": 200,
    "pdf.fonttype": 42,
    "svg.hashsalt": "singflow",
    "text.parse_math": False,
    "image.composite_image": False,
}
# Decorator of functions that draw and write, whatever the user's matplotlibrc says. Figures are
# made without pyplot, so that neither its backend nor its list of figures changes.
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


@styled
def written(figure: Figure, kind: str, needs: str = "") -> bytes:
    """The file of a figure, without time or software stamps.

    An SVG is transparent, and is light on dark where the reader's screen is. A PNG keeps `needs`.
    """
    buffer, own = io.BytesIO(), {NEEDS: needs} if needs and kind == "png" else {}
    metadata = UNSTAMPED[kind] | own
    figure.savefig(buffer, format=kind, metadata=metadata, transparent=kind == "svg")
    return buffer.getvalue().replace(b"<defs>", DARK + b"<defs>", kind == "svg")


def settled(figure: Figure) -> Figure:
    """The figure with the layout that all its files keep.

    Places are rounded: their last bits differ by run, and the ids of an SVG are hashes of them.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes in figure.axes:
        axes.set_position(np.round(axes.get_position(original=True).bounds, 6))
    return figure


def save(figure: Figure, *paths: Path, needs: str = "") -> None:
    """Write a figure in the formats that the paths end in."""
    settled(figure)
    for path in paths:
        write_bytes(path, written(figure, path.suffix[1:], needs))


def shown(figure: Figure) -> Figure:
    """The figure, which a notebook can show once pyplot has loaded the notebook's backend."""
    if "IPython" in sys.modules:
        import matplotlib.pyplot as plt

        plt.switch_backend(matplotlib.get_backend())
    return figure


@styled
def write_figure(flags: Step, name: str, figure: Figure | None, needs: str = "") -> None:
    """Write a figure of the study in all formats; without data, the figure says what it needs."""
    paths = [flags.path(f"figures/{name}.{kind}") for kind in FORMATS]
    if figure:
        return save(figure, *paths)
    figure, said = new_figure((COLUMN, 0.4)), wrapped(f"Not drawn: {needs}", COLUMN - 0.2)
    figure.text(0.5, 0.5, said, ha="center", va="center")
    save(figure, *paths, needs=needs)


def read_tables(flags: Selection, artifact: str) -> tuple[Frames, pd.DataFrame]:
    """The tables of an artifact of all models and spaces, and tables/models.csv."""
    frames = flags.gather(artifact, lambda path: read_parquet(path, artifact))
    return frames, read_models(flags.path("tables/models.csv"))


def pairs_of(gathered: dict[str, dict[str, Any]]) -> list[tuple[str, str, Any]]:
    """Space, model, and what was gathered of them."""
    return [(space, model, item) for space, of in gathered.items() for model, item in of.items()]


def of_space(table: pd.DataFrame, space: str) -> pd.DataFrame:
    """The rows of a space in a table of the study, by model."""
    return table[table["space"] == space].set_index("model")


def caption(model: str, rows: pd.DataFrame, between: str = " ") -> str:
    """A model's name with its marks, such as a weak translator; rows: tables/models.csv by model.

    If the marks differ between spaces, every mark is given with its space.
    """
    mine = rows.loc[[model]]
    said = list(mine["marks"].unique())
    if len(said) > 1:
        said = [f"{row['marks']} in {row['space']}" for _, row in mine.iterrows() if row["marks"]]
    bare = model.partition("/")[2] or model
    return bare + (f"{between}({'; '.join(said)})" if any(said) else "")


def named(model: str, rows: pd.DataFrame) -> str:
    """A model's caption in lines that fit beside panels and into legends."""
    return wrapped(caption(model, rows, "\n"), NAMES)


def rows_high(names: Sequence[str], least: float) -> float:
    """Inches for rows whose names do not overlap; a row has at least so many inches."""
    return len(names) * max(least, *(0.05 + 0.12 * (name.count("\n") + 1) for name in names))


def new_figure(size: tuple[float, float], layout: Any = "constrained") -> Figure:
    """An empty figure of `size` inches, which pyplot does not know."""
    return FigureCanvasAgg(Figure(figsize=size, layout=layout)).figure


def panels(rows: int, columns: int, size: tuple[float, float], **options: Any) -> Any:
    """A figure of `size` inches with a grid (rows, columns) of axes."""
    figure = new_figure(size)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def titled(figure: Figure, finding: str) -> Figure:
    """The figure with what it finds in bold above its panels, for which it grows."""
    width, tall = figure.get_size_inches()
    lines = lines_of(finding, width - 0.1, FontProperties(weight="bold"))
    figure.set_figheight(tall := tall + 0.06 + 0.12 * len(lines))
    y = None if figure.get_layout_engine() else 1 - 0.04 / tall
    figure.suptitle("\n".join(lines), x=0.05 / width, y=y, ha="left")
    return figure


def legend(figure: Figure, handles: Sequence[Any], columns: int = 3) -> None:
    """A legend below all panels."""
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, borderaxespad=0)


def draw_texts(axes: Axes, ends: Sequence[pd.DataFrame], color: str) -> float:
    """D along texts, with intervals, one text below the other; a gap between the ends of a list.

    A text that is hidden is a filled mark. Returns how many lines the texts have.
    """
    rows = pd.concat(ends)
    names = [wrapped(str(text), NAMES) for text in rows["text"]]
    lines = np.array([1 + name.count("\n") for name in names], dtype=float)
    gaps = np.repeat(np.arange(len(ends)), [*map(len, ends)])
    heights = lines / 2 - lines.cumsum() - gaps
    d, low, high = (100 * rows[f"unique_r2{end}"].astype(float) for end in ("", "_low", "_high"))
    filled = [color if hidden else "white" for hidden in rows["hidden"]]
    axes.hlines(heights, low, high, color=color)
    axes.scatter(d, heights, 16, filled, edgecolors=color, zorder=2)
    axes.set_yticks(heights, names)
    axes.set(xlabel="D along the text (%)", ymargin=0)
    axes.set_ylim(-lines.sum() - len(ends) + 0.7, 0.3)
    axes.grid(axis="x")
    return lines.sum() + len(ends) - 1


def key(label: str, **look: Any) -> Line2D:
    """An entry of a legend."""
    return Line2D([], [], label=label, **look)


def wrapped(text: str, width: float) -> str:
    """A text in lines of at most `width` inches, in the font of the style."""
    font = FontProperties()
    return "\n".join(line for part in text.splitlines() for line in lines_of(part, width, font))


def lines_of(text: str, width: float, font: FontProperties) -> list[str]:
    """A text in lines of at most `width` inches.

    It is broken at spaces (not at a no-break space), and a word that is longer than a line after a
    mark, or anywhere.
    """

    def fits(line: str) -> bool:
        return text_to_path.get_text_width_height_descent(line, font, ismath=False)[0] <= 72 * width

    lines = [""]
    for word in re.split(r"[^\S\xa0]+", text.strip()):
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
