"""Colours, style and captions of all figures, and figure files without dates."""

import io
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from singflow.artifacts.files import write_bytes
from singflow.cli import Step

plt.rcdefaults()  # ignore the user's matplotlibrc
# Palette of Okabe and Ito, safe for colour-blind readers; black last.
COLOURS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*"]
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "legend.frameon": False,
    "figure.dpi": 150,
    "savefig.dpi": 200,
    "pdf.fonttype": 42,
    "text.parse_math": False,
}


def colour(number: int) -> str:
    """The colour of the model at a position in the study; colours repeat after eight models."""
    return COLOURS[number % len(COLOURS)]


def marker(number: int) -> str:
    """The marker of the model at a position in the study; with the colour unique for 64 models."""
    return MARKERS[(number + number // len(COLOURS)) % len(MARKERS)]


def save(figure: Figure, png: Path, pdf: Path | None = None) -> None:
    """Write a figure without time or software stamps, so that files are reproducible; close it."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # both files keep the layout computed above
    edges = figure.get_tightbbox().padded(0.1)  # inches
    for path, kind, metadata in (
        (png, "png", {"Software": None}),
        (pdf, "pdf", {"CreationDate": None, "Producer": None, "Creator": None}),
    ):
        if path is None:
            continue
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, metadata=metadata, bbox_inches=edges)
        write_bytes(path, buffer.getvalue())
    plt.close(figure)


def write_figure(flags: Step, name: str, figure: Figure) -> None:
    """Write a figure of the study in both formats."""
    save(figure, *(flags.path(f"figures/{name}.{kind}") for kind in ("png", "pdf")))


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
        said = [
            f"{marks} in {space}"
            for space, marks in zip(mine["space"], mine["marks"], strict=True)
            if marks
        ]
    return bare(model) + (f"{between}({'; '.join(said)})" if any(said) else "")
