"""Draw figure 12: accuracy before and after translation over models, and write it as a table."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from singflow import cli
from singflow.analyses.probes import correlate
from singflow.analyses.tables import qualify
from singflow.artifacts.files import read_json
from singflow.artifacts.tables import read_models, write_table
from singflow.figures import style
from singflow.figures.style import Look

BEFORE, AFTER = "accuracy_principal", "accuracy_translated"
NEEDS = "two labels of two images, or a reference and groups of its classes (evidence.groups)"


def tabulate(
    probes: dict[str, dict[str, dict[str, Any]]], models: pd.DataFrame, confidence: float
) -> pd.DataFrame:
    """One row per space and model, with the correlation over the space's models."""
    parts = []
    for space, reports in probes.items():
        part = pd.DataFrame(
            {"space": space, "model": model, "n": report["n_test"], **report}
            for model, report in reports.items()
        )
        before, after = (part[name].to_numpy(np.float64) for name in (BEFORE, AFTER))
        parts.append(part.assign(**correlate(before, after, confidence)))
    return qualify(pd.concat(parts, ignore_index=True), models)


@style.styled
def draw(probes: pd.DataFrame, table: pd.DataFrame) -> Figure | None:
    """Accuracy after translation against accuracy before, a panel for each space with numbers."""
    probed = probes[probes[BEFORE].notna()]
    spaces = probed["space"].unique()
    if not len(spaces):
        return None
    models = probes.groupby("space", sort=False).size().max()
    size = style.PAGE, max(3.4, 0.7 + 0.25 * models) * len(spaces)
    figure, grid = style.panels(len(spaces), 1, size)
    for axes, space in zip(grid.flat, spaces, strict=True):
        mine = probes[probes["space"] == space]
        axes.set_title(space)
        axes.set(xlabel="accuracy on principal features", ylabel="accuracy after translation")
        axes.set_aspect("equal", anchor="W")
        _points(axes, mine, style.of_space(table, space))
        _lines(axes, probed[probed["space"] == space])
        axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1))
    lost = 100 * (probed[BEFORE] - probed[AFTER]).astype(float)
    ends = f"{lost.min():.0f} to {lost.max():.0f}" if len(lost) > 1 else f"{lost.max():.0f}"
    return style.titled(figure, f"Translation loses {ends} points of accuracy")


def _points(axes: Axes, rows: pd.DataFrame, models: pd.DataFrame) -> None:
    edge: Look = {"ms": 6, "mec": "black", "mew": 0.5, "elinewidth": 0.7, "zorder": 3, "ls": ""}
    for number, row in enumerate(rows.to_dict("records")):
        name = style.caption(row["model"], models)
        name += f": {row['note']}" if pd.isna(row[BEFORE]) else ""
        (x, left, right), (y, down, up) = (
            np.array([row[f"{of}{end}"] for end in ("", "_low", "_high")], dtype=float)
            for of in (BEFORE, AFTER)
        )
        ends: Look = {"xerr": [[x - left], [right - x]], "yerr": [[y - down], [up - y]]}
        look = edge | style.look_of(number) | {"label": style.wrapped(name, 2.6)}
        axes.errorbar(x, y, **ends, **look)


def _lines(axes: Axes, rows: pd.DataFrame) -> None:
    """Draw the diagonal and chance."""
    chance = float(rows["chance"].iloc[0])
    start = min(chance, *(float(rows[f"{of}_low"].min()) for of in (BEFORE, AFTER)))
    end = max(chance, *(float(rows[f"{of}_high"].max()) for of in (BEFORE, AFTER)))
    margin = 0.05 * (end - start)
    axes.set(xlim=(start - margin, end + margin), ylim=(start - margin, end + margin))
    look: Look = {"color": "0.6", "zorder": 1}
    axes.axline((0, 0), slope=1, label="equal accuracy", **look)
    axes.axhline(chance, ls=":", label=f"chance: {chance:.3f}", **look)
    axes.axvline(chance, ls=":", **look)


class Flags(cli.Selection):
    confidence: float


def main(flags: Flags) -> None:
    models = read_models(flags.path("tables/models.csv"))
    rows = tabulate(flags.gather("probes", read_json), models, flags.confidence)
    write_table(flags.path("tables/probes.csv"), rows)
    style.write_figure(flags, "fig12", draw(rows, models), NEEDS)


if __name__ == "__main__":
    cli.run_step(main, Flags)
