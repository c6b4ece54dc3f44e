"""Draw the pictures of figures 6, 10, 11 and 13 of the paper, and write the table of figure 10.

They show one model in detail: steering toward texts and by growing angles, translators, and
perturbations.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from singflow import cli
from singflow.analyses.tables import qualify
from singflow.artifacts.shards import read_manifest
from singflow.artifacts.tables import write_table
from singflow.figures import style
from singflow.figures.picture_grid import Cell, draw_grid, text_cell
from singflow.figures.plot_pictures import cell_of, name_of, of_figure
from singflow.figures.style import Frames
from singflow.pictures.selection import LINEAR, ORIGINAL
from singflow.pictures.word_neighbours import WORDS

# Columns of the table of pictures that tell rows and columns apart, and the one that names a row.
CLOSEUPS = {
    "fig6": ("image_id", "text", "label"),
    "fig10": ("image_id", "target_is_deg", "label"),
    "fig11": ("kind", "change", "kind"),
    "fig13": ("draw", "change", "label"),
}
NEEDS = {
    "fig6": "a prompt in steering.prompts that gives an image a new word",
    "fig10": "a prompt in steering.prompts",
    "fig11": style.NETWORKS,
}
LADDER_COLUMNS = (
    "space model n path label text target_is_deg is_deg as_text_deg as_label_deg logit_change"
    " reachable"
)


def tabulate(sets: Frames, manifest: pd.DataFrame) -> pd.DataFrame:
    """The numbers of figure 10: one row per space and step; NaN for a step out of reach."""
    every = pd.concat(
        frame.assign(space=space, model=model) for space, model, frame in style.pairs_of(sets)
    )
    steps = every[every["figure"] == "fig10"]
    path = manifest["path"].iloc[steps["image_id"]].to_numpy()
    steps = steps.assign(n=1, path=path, reachable=steps["is_deg"].notna())
    return steps[LADDER_COLUMNS.split()]


def draw_closeup(figure: str, sets: Frames, table: pd.DataFrame) -> Figure | None:
    """A figure of CLOSEUPS, of every model that is shown in detail; None if it has nothing to show.

    Figure 6 has nothing to show without a new word, and the others without a change.
    """
    (down, across, named), rows, every = CLOSEUPS[figure], [], []
    heads: dict[Any, str] = {}
    for space, model, frame in style.pairs_of(sets):
        found = of_figure(frame, figure, style.of_space(table, space)["marks"][model])
        if figure == "fig10":
            found = found.fillna({"target_is_deg": 0}).sort_values("target_is_deg")
        if figure == "fig13":  # one feature, drawn again
            found.loc[found.duplicated("change"), [*WORDS]] = ""
            found = found.sort_values("draw", kind="stable")
        photos = dict(frame.loc[frame["figure"] == "photo", ["image_id", "picture"]].to_numpy())
        for _, own in found.groupby(down, sort=False):
            row = own.iloc[0]
            seed = f"\nseed {row['draw']}" if figure == "fig13" and row["draw"] >= 0 else ""
            name = f"{row[named]}\n{name_of(space, model, table, sets)}{seed}"
            cells = {row[across]: cell_of(row) for _, row in own.iterrows()}
            rows.append((text_cell(name, photos.pop(row["image_id"], b"")), cells))
            degrees = across == "target_is_deg"
            heads |= {of: f"{of:g} degrees" if degrees else of or ORIGINAL for of in cells}
        every.append(found[found["change"] != ORIGINAL])
    changed = pd.concat(every)
    if changed.empty or (figure == "fig6" and not changed["new"].any()):
        return None
    table_rows = [[first, *(cells.get(of, Cell()) for of in heads)] for first, cells in rows]
    return draw_grid([*heads.values()], table_rows, FINDINGS[figure](changed))


def _counted(what: str, cases: str, changed: pd.DataFrame) -> str:
    return f"{what} gives new words in {changed['new'].sum()} of {len(changed)} {cases}"


def _degrees(changed: pd.DataFrame) -> str:
    new = changed.loc[changed["new"], "target_is_deg"]
    if new.empty:
        return f"No new words up to {changed['is_deg'].max():.1f} degrees"
    return f"The first new word comes at {new.min():g} degrees"


def _logits(changed: pd.DataFrame) -> str:
    moved = changed.groupby("change", sort=False)["logit_change"].median()
    return "The logits move by " + ", ".join(f"{by:.2g} ({name})" for name, by in moved.items())


FINDINGS: dict[str, Callable[[pd.DataFrame], str]] = {
    "fig6": partial(_counted, "Steering", "pictures"),
    "fig10": _degrees,
    "fig11": partial(_counted, "Null removal", "translations"),
    "fig13": _logits,
}
Flags = cli.Selection


def main(flags: Flags) -> None:
    sets, models = style.read_tables(flags, "pictures")
    ladder = tabulate(sets, read_manifest(flags.path("manifest")))
    write_table(flags.path("tables/angle_ladder.csv"), qualify(ladder, models))
    networks = any({*frame["kind"]} - {LINEAR, ""} for *_, frame in style.pairs_of(sets))
    for name in CLOSEUPS:
        figure = draw_closeup(name, sets, models) if networks or name != "fig11" else None
        style.write_figure(flags, name, figure, NEEDS.get(name, ""))


if __name__ == "__main__":
    cli.run_step(main, Flags)
