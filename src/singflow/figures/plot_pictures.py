"""Draw the pictures of figures 1, 6, 10, 11 and 13, and write the table of figure 10.

They show removal, steering toward texts and by growing angles, translators, and perturbations.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from singflow import cli
from singflow.analyses.tables import ZERO, qualify
from singflow.artifacts.shards import read_manifest
from singflow.artifacts.tables import write_table
from singflow.figures import style
from singflow.figures.picture_grid import Cell, draw_grid, text_cell
from singflow.figures.style import Frames
from singflow.pictures.selection import LINEAR, ORIGINAL, REMOVED
from singflow.pictures.word_neighbours import ANGLES, WORDS

# Figures of models in detail: columns of the table of pictures that tell rows and columns apart,
# and the name of a row.
CLOSEUPS = {
    "fig6": ("image_id", "text", "{label}\n{shown}"),
    "fig10": ("image_id", "target_is_deg", "{shown}"),
    "fig11": ("change", "kind", "{change}\n{shown}"),
    "fig13": ("draw", "change", "{shown}\n{seed}"),
}
PROMPT = "a prompt in steering.prompts"
NEEDS = {"fig6": PROMPT, "fig10": PROMPT, "fig11": style.NETWORKS}
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


def draw_equivalents(sets: Frames, table: pd.DataFrame) -> Figure:
    """Images before and after null removal: one row per space and model, two columns per image."""
    pairs = style.pairs_of(sets)
    photos = pairs[0][2][pairs[0][2]["figure"] == "photo"]
    pictures = [cell for picture in photos["picture"] for cell in (Cell(picture=picture), Cell())]
    rows = [[Cell(), *pictures]]
    for space, model, frame in pairs:
        found = _of_figure(frame, "fig1", style.of_space(table, space)["marks"][model])
        cells = {(row["image_id"], row["change"]): _cell(row) for _, row in found.iterrows()}
        order = [cells[image, of] for image in photos["image_id"] for of in (ORIGINAL, REMOVED)]
        rows.append([text_cell(_name(space, model, table, sets)), *order])
    heads = [head for label in photos["label"] for head in (f"{label}: before", REMOVED)]
    return draw_grid(heads, rows)


def draw_closeup(figure: str, sets: Frames, table: pd.DataFrame) -> Figure:
    """A figure of CLOSEUPS, of every model that is shown in detail."""
    (down, across, form), rows = CLOSEUPS[figure], []
    heads: dict[Any, str] = {}
    for space, model, frame in style.pairs_of(sets):
        found = _of_figure(frame, figure, style.of_space(table, space)["marks"][model])
        if figure == "fig10":
            found = found.fillna({"target_is_deg": 0}).sort_values("target_is_deg")
        if figure == "fig13":  # one feature, drawn again
            found.loc[found.duplicated("change"), [*WORDS]] = ""
            found = found.sort_values("draw", kind="stable")
        photos = dict(frame.loc[frame["figure"] == "photo", ["image_id", "picture"]].to_numpy())
        for _, own in found.groupby(down, sort=False):
            row, shown = own.iloc[0], _name(space, model, table, sets)
            seed = f"seed {row['draw']}" if row["draw"] >= 0 else ""
            name = form.format(**row[["label", "change"]], shown=shown, seed=seed)
            cells = {row[across]: _cell(row) for _, row in own.iterrows()}
            rows.append((text_cell(name, photos.pop(row["image_id"], b"")), cells))
            degrees = across == "target_is_deg"
            heads |= {of: f"{of:g} degrees" if degrees else of or ORIGINAL for of in cells}
    table_rows = [[first, *(cells.get(of, Cell()) for of in heads)] for first, cells in rows]
    return draw_grid([*heads.values()], table_rows)


def _of_figure(frame: pd.DataFrame, figure: str, marks: str) -> pd.DataFrame:
    """The rows of a figure; `before` has the words that are not new.

    New are words that were not the nearest before the change; none are new of a known zero, whose
    changes mean nothing.
    """
    rows = frame[frame["figure"] == figure]
    originals = rows[rows["change"] == ORIGINAL].groupby(["image_id", "kind"])
    known = {of: set(own[[*WORDS]].to_numpy().ravel()) for of, own in originals}
    if ZERO in marks:
        known = {of: set(rows[[*WORDS]].to_numpy().ravel()) for of in known}
    own = zip(rows["image_id"], rows["kind"], strict=True)
    return rows.assign(before=pd.Series([known[of] for of in own], rows.index, dtype=object))


def _cell(row: pd.Series) -> Cell:
    """The picture of a row, its words, and how far it moved."""
    pairs = zip(row[[*WORDS]], row[[*ANGLES]], strict=True)
    lines = [
        (f"{angle:.1f}° {word}", "word" if word in row["before"] else "new")
        for word, angle in pairs
        if word
    ]
    if not lines and not row["picture"]:
        lines = [("out of reach", "note")]
    if row["change"] != ORIGINAL and not np.isnan(row["is_deg"]):
        toward = row["as_text_deg"] if row["text"] else row["as_label_deg"]
        lines.append((f"IS {row['is_deg']:.1f}°, AS\xa0{toward:+.1f}°", "note"))
    if row["figure"] == "fig13":
        lines.append((f"logits move by {row['logit_change']:.2g}", "note"))
    return Cell(lines, row["picture"], row["change"] != ORIGINAL)


def _name(space: str, model: str, table: pd.DataFrame, sets: Frames) -> str:
    """A model's name with its marks, and its space if there are several."""
    rows = style.of_space(table, space)
    none = "" if int(rows["null_dim"][model]) else "\n(no null space)"
    return style.caption(model, rows, "\n") + none + (f"\n{space}" if len(sets) > 1 else "")


Flags = cli.Selection


def main(flags: Flags) -> None:
    sets, models = style.read_tables(flags, "pictures")
    ladder = tabulate(sets, read_manifest(flags.path("manifest")))
    write_table(flags.path("tables/angle_ladder.csv"), qualify(ladder, models))
    style.write_figure(flags, "fig1", draw_equivalents(sets, models))
    every = pd.concat(frame for *_, frame in style.pairs_of(sets))
    drawn = {"fig11": set(every["kind"]) - {LINEAR, ""}}
    drawn |= dict.fromkeys(["fig6", "fig10"], set(every["text"]) - {""})
    for name in CLOSEUPS:
        figure = draw_closeup(name, sets, models) if drawn.get(name, True) else None
        style.write_figure(flags, name, figure, NEEDS.get(name, ""))


if __name__ == "__main__":
    cli.run_step(main, Flags)
