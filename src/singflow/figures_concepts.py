"""Figures of concepts: figures 5, 15 and 16."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from singflow.figures import COLOURS, STYLE, caption


def fig5(scans: dict[str, dict[str, pd.DataFrame]], table: pd.DataFrame, label: str, extremes: int) -> Figure:
    """Concept scan of one label: for each space and model the mean angle to the concepts, and their AS beside it.

    scans: space -> model -> concept table. The concepts with the weakest and the strongest mean |AS|, strongest on top.
    Whiskers are standard deviations over images.
    """
    panels = [(space, model, scan[scan["label"] == label]) for space, models in scans.items() for model, scan in models.items()]
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    shown = min(2 * extremes, len(panels[0][2]))
    count = int(panels[0][2]["n"].iloc[0])
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(0.6 + 4.4 * columns, 0.5 + (1.3 + 0.25 * shown) * rows), layout="constrained")
        boxes = figure.subfigures(rows, columns, squeeze=False, wspace=0.03)
        pairs = []
        for number, (space, model, scan) in enumerate(panels):
            box = boxes.flat[number]
            left, right = box.subplots(1, 2, sharey=True)
            pairs.append((left, right))
            _concepts(left, right, scan, extremes, COLOURS[list(scans[space]).index(model) % len(COLOURS)])
            box.suptitle(f"{caption(model, table[table['space'] == space].set_index('model'))}, {space}", fontsize=9)
        for same in zip(*pairs, strict=True):
            limits = [axes.get_xlim() for axes in same]
            for axes in same:
                axes.set_xlim(min(low for low, _ in limits), max(high for _, high in limits))
        figure.suptitle(f"{label}, {count} image{'s' if count != 1 else ''}", fontsize=11)
        return figure


def _concepts(left: Axes, right: Axes, scan: pd.DataFrame, extremes: int, colour: str) -> None:
    ordered = scan.sort_values(["as_abs_mean", "concept"], kind="stable")
    cut = len(ordered) > 2 * extremes
    shown = pd.concat([ordered.iloc[:extremes], ordered.iloc[-extremes:]]) if cut else ordered
    positions = np.arange(len(shown))
    left.errorbar(shown["angle_mean"], positions, xerr=shown["angle_std"], fmt="o", color=colour, ms=4, lw=1)
    right.barh(positions, shown["as_mean"], 0.6, xerr=shown["as_std"], color=colour, error_kw={"lw": 1, "ecolor": "0.3"})
    right.axvline(0, color="0.3", lw=0.8)
    left.set_yticks(positions, list(shown["concept"]))
    left.set_ylim(-0.7, len(shown) - 0.3)
    left.set_xlabel("angle (degrees)")
    right.set_xlabel("AS (degrees)")
    for axes in (left, right):
        axes.grid(axis="y", color="0.92", lw=0.6)
        axes.set_axisbelow(True)
        if cut:
            axes.axhline(extremes - 0.5, color="0.5", lw=0.8, ls=":")
    if cut:
        for text, place in (("strongest", len(shown) - 0.5), ("weakest", extremes - 0.5)):
            right.annotate(text, (1, place), xycoords=("axes fraction", "data"), ha="right", va="top", fontsize=7, color="0.4")
