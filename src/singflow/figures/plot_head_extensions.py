"""Draw D of all models against visible null directions and against the number of images.

A table says how many directions each model needs.
"""

from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from singflow import cli
from singflow.analyses.findings import OPEN
from singflow.analyses.head_extension import ENOUGH, enough
from singflow.analyses.tables import percent, qualify, with_interval
from singflow.artifacts.tables import BASIS, read_models, read_parquet, write_table
from singflow.figures import style
from singflow.figures.style import Frames

# Columns of tables/models.csv.
D = ["n_evidence", "verdict", "unique_r2", "unique_r2_low", "unique_r2_high"]
LEARNING = ["unique_r2_quarter", "unique_r2_half", "unique_r2"]


def tabulate(curves: Frames, models: pd.DataFrame) -> pd.DataFrame:
    """One row per model: D with its interval, and the directions that give 90 % of it.

    There are no such directions where D is not above the margin.
    """
    rows = [(space, model, enough(curve)) for space, model, curve in style.pairs_of(curves)]
    table = pd.DataFrame(rows, columns=["space", "model", "directions_90"])
    table = table.astype({"directions_90": "Int64"})
    facts = models[["space", "model", *D]]
    found = facts.merge(table, on=["space", "model"], validate="one_to_one")
    found["directions_90"] = found["directions_90"].where(found["verdict"].isin(OPEN))
    return qualify(found, models)


@style.styled
def draw(curves: Frames, rows: pd.DataFrame, models: pd.DataFrame) -> Figure:
    """D, with its interval, against the number of visible null directions, and of images."""
    height = 1.9 + 0.16 * max(map(len, curves.values()))
    figure, subfigures = style.subfigures(len(curves), style.PAGE, 0.3 + len(curves) * height)
    style.entitle(figure, _title(rows))
    for subfigure, (space, tables) in zip(subfigures, curves.items(), strict=True):
        found: dict[str, dict[str, Any]] = style.of_space(rows, space).to_dict("index")  # type: ignore[assignment]
        named = style.of_space(models, space)
        axes, learning = subfigure.subplots(1, 2, sharey=True, width_ratios=[2, 1])
        measured = named[["n_evidence", *LEARNING]].astype(float)
        handles = []
        for number, (model, curve) in enumerate(tables.items()):
            row, x = found[model], curve["directions"]
            above = pd.notna(row["directions_90"])
            look = style.look_of(number)
            look["mfc"] = look["color"] if above else "white"
            at = [int(row["directions_90"]) if above else len(curve) - 1]
            low, middle, high = style.d_percent(curve)
            axes.fill_between(x, low, high, color=look["color"], alpha=0.12, lw=0)
            style.apart(axes, axes.plot(x, middle, markevery=at, **look), number, len(tables))
            images, *shown = measured.loc[[model]].to_numpy()[0]
            shown = [100 * d for d in shown]
            points = learning.plot([images / 4, images / 2, images], shown, **look)
            style.apart(learning, points, number, len(tables))
            handles.append(style.key(f"{style.caption(model, named)}: {_said(row)}", **look))
        axes.axhline(0, color="0.6", lw=0.6, zorder=0)
        axes.set(ylabel="D (%)", title=f"(a) by visible null directions, {space}")
        learning.set(xscale="log", xlabel="images of the test", title="(b) by images")
        shares = [measured["n_evidence"].max() / part for part in (4, 2, 1)]
        learning.set_xticks(shares, [f"{share:,.0f}" for share in shares])
        learning.xaxis.set_minor_locator(NullLocator())
        learning.grid(axis="y")
        style.directions_axis(axes, max(len(curve) - 1 for curve in tables.values()))
        axes.grid(axis="y")
        style.legend(subfigure, handles, 1)
    return figure


def _title(rows: pd.DataFrame) -> str:
    """What is seen."""
    found = rows[rows["directions_90"].notna()]
    if found.empty:
        return "No model's D is above the margin, however many null directions are visible"
    few = style.span(found["directions_90"].astype(int), "{:,}", "")
    dims = style.span(found["null_dim"], "{:,}", "")
    names = ", ".join(dict.fromkeys(map(style.bare, found["model"])))
    return f"{few} of {dims} null directions give {percent(ENOUGH)} of D in {names}"


def _said(row: dict[str, Any]) -> str:
    """The text of a model in the legend."""
    if not row["null_dim"]:
        return "no null space"
    if pd.isna(row["unique_r2"]):
        return "too few images"
    ends = (100 * row[f"unique_r2{end}"] for end in ("", "_low", "_high"))
    size = f"D {with_interval(ends, 2, ' %')}"
    if pd.isna(row["directions_90"]):
        return f"{size}, not above the margin"
    few = f"{row['directions_90']} of {row['null_dim']} directions"
    return f"{size}, {percent(ENOUGH)} of it with {few}"


Flags = cli.Selection


def main(flags: Flags) -> None:
    models = read_models(flags.path("tables/models.csv"), [*BASIS, *D, *LEARNING[:2], "known_zero"])
    curves = flags.gather("head_extensions", lambda path: read_parquet(path, "head_extensions"))
    rows = tabulate(curves, models)
    write_table(flags.path("tables/head_extensions.csv"), rows)
    if rows["unique_r2"].isna().all():
        return style.write_needs(flags, "head_extensions", "a null space and enough images")
    style.write_figure(flags, "head_extensions", draw(curves, rows, models))


if __name__ == "__main__":
    cli.run_step(main, Flags)
