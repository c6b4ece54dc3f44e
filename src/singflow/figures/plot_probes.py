"""Draw figure 12: accuracy before and after translation over models, and write it as a table."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from singflow import cli
from singflow.analyses.probes import PROBED, correlate
from singflow.analyses.tables import qualify
from singflow.artifacts.files import read_json
from singflow.artifacts.tables import read_models, write_table
from singflow.figures import style
from singflow.figures.style import Look

ENDS = [f"accuracy_{kind}_{end}" for kind in PROBED for end in ("low", "high")]
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
        before, after = (part[f"accuracy_{kind}"].to_numpy(np.float64) for kind in PROBED)
        parts.append(part.assign(**correlate(before, after, confidence)))
    return qualify(pd.concat(parts, ignore_index=True), models)


@style.styled
def draw(probes: pd.DataFrame, table: pd.DataFrame, confidence: float) -> Figure | None:
    """Accuracy after translation against accuracy before, a panel for each space with numbers."""
    probed = probes[probes["accuracy_principal"].notna()]
    spaces = probed["space"].unique()
    if not len(spaces):
        return None
    models = probes.groupby("space", sort=False).size().max()
    figure, subfigures = style.subfigures(
        len(spaces), style.PAGE, max(3.6, 0.9 + 0.25 * models) * len(spaces)
    )
    for subfigure, space in zip(subfigures, spaces, strict=True):
        axes = subfigure.subplots()
        mine = probes[probes["space"] == space]
        axes.set_title(_title(mine), loc="left")
        axes.set_xlabel("accuracy on principal features")
        axes.set_ylabel("accuracy on translated principal features")
        axes.set_aspect("equal", anchor="W")
        _points(axes, mine, style.of_space(table, space))
        _lines(axes, mine)
        note = f"bars: {100 * confidence:g} % intervals over test images"
        place: Look = {"loc": "upper left", "bbox_to_anchor": (1.02, 1.0)}
        axes.legend(**place, title=note, alignment="left")
    style.entitle(figure, f"Translation keeps {_kept(probed)} of the accuracy of a linear probe")
    if unprobed := [space for space in probes["space"].unique() if space not in spaces]:
        reasons = "; ".join(probes.loc[probes["space"].isin(unprobed), "note"].unique())
        said = f"Nothing can be probed in {', '.join(unprobed)}: {reasons}"
        figure.supxlabel(style.wrapped(said, style.PAGE - 0.4), x=0.02, ha="left")
    return figure


def _kept(rows: pd.DataFrame) -> str:
    before, after = (rows[f"accuracy_{kind}"].to_numpy(np.float64) for kind in PROBED)
    some = before > 0
    return style.span(100 * after[some] / before[some], "{:.0f}", " %") if some.any() else "none"


def _title(rows: pd.DataFrame) -> str:
    first = rows.dropna(subset=["accuracy_principal"]).iloc[0]
    n_out, n_seen = first["n_labels_left_out"], first["n_test_in_sample"]
    left_out = f" ({n_out} of one image left out)" if n_out else ""
    seen = f" ({n_seen} in the translator's sample)" if n_seen else ""
    of = "groups of the reference" if first["by"] == "group" else "labels"
    return (
        f"space {first['space']}\n{first['classifier']}; test images: {first['n']}{seen}, "
        f"{of}: {first['n_labels']}{left_out}"
    )


def _points(axes: Axes, rows: pd.DataFrame, models: pd.DataFrame) -> None:
    edge: Look = {"ms": 6, "mec": "black", "mew": 0.5, "elinewidth": 0.7, "zorder": 3}
    for number, row in enumerate(rows.to_dict("records")):
        name = style.caption(row["model"], models)
        look = style.look_of(number) | {"ls": ""}
        if pd.isna(row["accuracy_principal"]):
            axes.plot([], [], label=style.wrapped(f"{name}: {row['note']}", 2.6), **look)
            continue
        x, y = (row[f"accuracy_{kind}"] for kind in PROBED)
        across, up = (
            [[middle - row[f"accuracy_{kind}_low"]], [row[f"accuracy_{kind}_high"] - middle]]
            for kind, middle in zip(PROBED, (x, y), strict=True)
        )
        axes.errorbar(x, y, xerr=across, yerr=up, label=name, **look, **edge)


def _lines(axes: Axes, rows: pd.DataFrame) -> None:
    """Draw the diagonal and chance; chance is outside the view if it is far below the points."""
    ends = rows[ENDS].to_numpy(np.float64)
    low, high = float(np.nanmin(ends)), float(np.nanmax(ends))
    chance = float(rows["chance"].dropna().iloc[0])
    near = low - chance <= 2 * (high - low)
    start, end = (min(low, chance) if near else low), max(high, chance)
    margin = 0.05 * (end - start)
    axes.set(xlim=(start - margin, end + margin), ylim=(start - margin, end + margin))
    look: Look = {"color": "0.6", "zorder": 1}
    axes.axline((0, 0), slope=1, label="equal accuracy", **look)
    said = f"chance: {chance:.3f}" + ("" if near else ", outside")
    axes.axhline(chance, ls=":", label=said, **look)
    axes.axvline(chance, ls=":", **look)


class Flags(cli.Selection):
    confidence: float


def main(flags: Flags) -> None:
    models = read_models(flags.path("tables/models.csv"))
    rows = tabulate(flags.gather("probes", read_json), models, flags.confidence)
    write_table(flags.path("tables/probes.csv"), rows)
    if figure := draw(rows, models, flags.confidence):
        style.write_figure(flags, "fig12", figure)
    else:
        style.write_needs(flags, "fig12", NEEDS)


if __name__ == "__main__":
    cli.run_step(main, Flags)
