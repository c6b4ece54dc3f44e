"""Make docs/cut_heads.png: what heads with fewer classes hide, and where in a photo of a jeep.

python docs/cut_heads.py results/demo

Maps and hidden texts are from a finished study with both models; D is from docs/evidence/heads.csv.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from PIL import Image

from singflow.analyses.evidence import EvidenceSettings
from singflow.analyses.findings import by_size
from singflow.artifacts.tables import read_table
from singflow.data.manifest import data_root
from singflow.figures import style
from singflow.photo.analysis import Analysis
from singflow.photo.analyzer import Analyzer
from singflow.photo.figure import map_panels

DOCS = Path(__file__).parent
WHOLE, CUT = "efficientnet_lite0", "animals_lite0"  # one backbone, and two heads
PHOTO, TEXT = "imagenet_06_609.jpg", "an image of a jeep"
MOST, LEAST = 6, 3  # texts, from both ends of the list
BLUE, ORANGE = style.COLOURS[:2]


@style.styled
def draw(
    heads: pd.DataFrame, photo: Image.Image, found: Mapping[str, Analysis], texts: pd.DataFrame
) -> Figure:
    """D over the classes that heads keep; maps of a photo by model; texts that a head hides.

    heads: rows of heads.csv. texts: rows of tables/hidden_texts.csv of one model.
    """
    figure = style.new_figure((style.PAGE, 3.5), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1, 1.02])
    upper, lower = right.subfigures(2, 1, height_ratios=[1, 1.15])
    figure.suptitle("The fewer classes are drawn, the more meaning a head ignores")
    _curve(left.subplots(), heads)
    _maps(upper, photo, found)
    _texts(lower.subplots(), texts)
    return figure


def _curve(axes: Axes, heads: pd.DataFrame) -> None:
    zero = heads["known_zero"]
    drawn = heads["model"].str.startswith("random") | heads["model"].eq(WHOLE)
    for rows, colour, marker, line, label in (
        (heads[drawn], BLUE, "o", "-", "classes drawn at random, or all"),
        (heads[~drawn & ~zero], ORANGE, "s", "", "classes of one subject"),
    ):
        shares = rows[["unique_r2", "unique_r2_low", "unique_r2_high"]]
        middle, low, high = 100 * shares.to_numpy().T
        look: style.Look = {"ls": line, "marker": marker, "ms": 5, "lw": 1.2}
        bars = np.clip([middle - low, high - middle], 0, None)
        axes.errorbar(rows["n_classes"], middle, bars, color=colour, label=label, **look)
    for row in heads[~drawn & ~zero].to_dict("records"):
        at = row["n_classes"], 100 * row["unique_r2"]
        axes.annotate(row["model"], at, (5, 3), textcoords="offset points")
    look = {"marker": "D", "ms": 8, "mfc": "none", "mec": "black", "ls": ""}
    axes.plot(heads["n_classes"][zero], 100 * heads["unique_r2"][zero], label="known zero", **look)
    margin = 100 * EvidenceSettings().margin
    axes.axhline(margin, color="0.4", lw=0.8, ls="--", zorder=0, label="margin")
    axes.set_xscale("log")
    axes.set_xticks([10, 100, 1000], ["10", "100", "1,000"])
    axes.set(xlabel="classes that the head keeps", ylabel="D, hidden share of the meaning (%)")
    axes.set_ylim(top=1.35 * axes.get_ylim()[1])  # room for the legend
    axes.legend(loc="upper right")
    axes.grid(axis="y")


def _maps(figure: SubFigure, photo: Image.Image, found: Mapping[str, Analysis]) -> None:
    """The photo, and over it, on one scale, the map of every model that has one."""
    most = max((each.maps.strongest_deg for each in found.values() if each.maps), default=0.0)
    first, *panels = figure.subplots(1, 1 + len(found))
    first.imshow(photo)
    first.set_title("photo")
    for axes, (model, each) in zip(panels, found.items(), strict=True):
        axes.set_title(f"{model}\nsays {each.predictions[0].name}")
        if each.maps:
            axes.imshow(map_panels(photo, each.maps, most)[0][1])
        else:
            axes.imshow(Image.new("RGB", photo.size, "white"))
            said, middle = style.wrapped(each.no_maps, 0.95), {"ha": "center", "va": "center"}
            axes.text(0.5, 0.5, said, middle, transform=axes.transAxes)
    for axes in (first, *panels):
        axes.set_axis_off()
    said = f"orange: null removal moves it away from “{TEXT}”"
    figure.supxlabel(f"{said},\nby {most:.2g}° at the strongest position")


def _texts(axes: Axes, texts: pd.DataFrame) -> None:
    listed = by_size(texts)
    style.draw_texts(axes, [listed[:MOST], listed[-LEAST:]], ORANGE)
    axes.axvline(0, color="0.6", lw=0.8, zorder=0)
    axes.set_xlabel("D along the text (%); filled: hidden")
    axes.set_title(f"{CUT} hides {int(texts['hidden'].sum()):,} of {len(texts):,} texts")


def main(results: Path) -> None:
    path = data_root("packaged", "") / PHOTO
    found = {
        model: Analyzer.load(model, results=results).analyze(path, [TEXT]) for model in (WHOLE, CUT)
    }
    texts = read_table(results / "tables/hidden_texts.csv")
    heads = pd.read_csv(DOCS / "evidence/heads.csv").sort_values("n_classes")
    figure = draw(heads, found[CUT].image, found, texts[texts["model"] == CUT])
    style.save(figure, DOCS / "cut_heads.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
