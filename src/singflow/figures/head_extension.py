"""Figure of the head extension: what a linear read-out tells against the number of null directions made visible."""

from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from singflow.analyses.head_extension import ENOUGH
from singflow.figures.style import STYLE, caption, colour, marker


def head_extensions(curves: dict[str, dict[str, pd.DataFrame]], rows: pd.DataFrame, models: pd.DataFrame) -> Figure:
    """Per space, one row of panels against the number of visible null directions: R2 with its interval, and the gain in R2.

    A model is a colour; its marker stands where 90 % of Delta R2 is reached, or at the end where Delta R2 is not above 0, and is
    hollow unless the interval of Delta R2 lies above 0.

    Parameters
    ----------
    curves : dict of str to dict
        Space -> model -> table of head_extension().
    rows : DataFrame
        tables/head_extensions.csv.
    models : DataFrame
        tables/models.csv.

    Returns
    -------
    Figure
        Two panels per space.
    """
    with plt.rc_context(STYLE):
        height = 3.6 + 0.17 * -(-max(map(len, curves.values())) // 2)
        figure = plt.figure(figsize=(9.5, len(curves) * height), layout="constrained")
        for subfigure, (space, tables) in zip(figure.subfigures(len(curves), 1, squeeze=False)[:, 0], curves.items(), strict=True):
            found: dict[str, dict[str, Any]] = rows[rows["space"] == space].set_index("model").to_dict("index")  # type: ignore[assignment]
            named = models[models["space"] == space].set_index("model")
            level, gain = subfigure.subplots(1, 2)
            handles = []
            for number, (model, curve) in enumerate(tables.items()):
                enough = found[model]["directions_90"]
                look: dict[str, Any] = {"color": colour(number), "lw": 1.4, "marker": marker(number), "ms": 6}
                look["mfc"] = colour(number) if found[model]["delta_r2_low"] > 0 else "white"
                at = [len(curve) - 1 if pd.isna(enough) else int(enough)]
                level.fill_between(curve["directions"], curve["r2_low"], curve["r2_high"], color=colour(number), alpha=0.12, lw=0)
                level.plot(curve["directions"], curve["r2"], markevery=at, **look)
                gain.plot(curve["directions"], curve["r2"] - curve["r2"].iloc[0], markevery=at, **look)
                handles.append(Line2D([], [], **look, label=f"{caption(model, named)}: {_said(found[model])}"))
            gain.axhline(0, color="0.6", lw=0.8, zorder=0)
            level.set_title("(a) R² of the embeddings, of images not seen", loc="left")
            gain.set_title("(b) what the null directions add to the principal space", loc="left")
            level.set_ylabel("R²")
            gain.set_ylabel("gain in R²")
            for axes in (level, gain):
                _ticks(axes, max(len(curve) - 1 for curve in tables.values()))
            subfigure.suptitle(f"Null directions made visible, space {space}", fontsize=11)
            subfigure.legend(handles=handles, loc="outside lower center", ncols=1 if len(handles) < 5 else 2, fontsize=8)
        return figure


def _said(row: dict[str, Any]) -> str:
    """What a model's curve comes to."""
    if not row["null_dim"]:
        return "no null space"
    low, high, enough = row["delta_r2_low"], row["delta_r2_high"], row["directions_90"]
    delta = f"Delta R² {row['delta_r2']:+.3f} " + ("(no interval)" if pd.isna(low) else f"[{low:+.3f}, {high:+.3f}]")
    if pd.isna(enough):
        return f"{delta}, not above 0"
    if low <= 0:
        return f"{delta}, not beyond chance"
    return f"{delta}, {ENOUGH:.0%} of it with {enough} of {row['null_dim']} directions".replace("0%", "0 %")


def _ticks(axes: Axes, most: int) -> None:
    axes.set_xscale("symlog", base=2, linthresh=1)
    ticks = [0, *(2**power for power in range(max(most, 1).bit_length()))]
    axes.set_xticks(ticks, list(map(str, ticks)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(-0.15, max(most, 1) * 1.1)
    axes.set_xlabel("null directions visible")
    axes.grid(axis="y", color="0.92", lw=0.6)
