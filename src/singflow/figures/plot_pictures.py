"""Draw figure 1: what features mean before and after null removal, in pictures or words."""

import pandas as pd
from matplotlib.figure import Figure

from singflow import cli
from singflow.analyses.tables import ZERO
from singflow.figures import style
from singflow.figures.picture_grid import Cell, draw_grid, text_cell
from singflow.figures.style import Frames
from singflow.pictures.selection import ORIGINAL, REMOVED
from singflow.pictures.word_neighbours import WORDS

NEEDS = "an image whose nearest words change when the null component is removed"
NAMED = 4  # models, in what the figure finds


def draw(sets: Frames, table: pd.DataFrame) -> Figure | None:
    """Images before and after null removal: a row for each model whose words or pictures change.

    None if nothing changes.
    """
    rows, counts = [], dict[str, int]()
    pairs = [
        (name_of(space, model, table, sets), of_figure(frame, "fig1", marks), frame)
        for space, model, frame in style.pairs_of(sets)
        if ZERO not in (marks := style.of_space(table, space)["marks"][model])
    ]
    photos = pairs[0][2][pairs[0][2]["figure"] == "photo"] if pairs else pd.DataFrame()
    for _, photo in photos.iterrows():
        picture = photo["picture"]
        for name, found, _ in pairs:
            own = found[found["image_id"] == photo["image_id"]].set_index("change", drop=False)
            counts[name] = counts.get(name, 0) + int(own["new"][REMOVED])
            if own["new"][REMOVED] or own["picture"][REMOVED]:
                first = text_cell(f"{photo['label']}\n{name}", picture)
                rows.append([first, *(cell_of(own.loc[of]) for of in (ORIGINAL, REMOVED))])
                picture = b""
    if not rows:
        return None
    most = sorted(counts, key=counts.__getitem__, reverse=True)
    said = [f"{' '.join(name.split())} {counts[name]} of {len(photos)}" for name in most[:NAMED]]
    said += [f"{len(most) - NAMED} others no more"] * (len(most) > NAMED)
    finding = "Photos that get a new word without their null component: "
    return draw_grid([ORIGINAL, REMOVED], rows, finding + ", ".join(said))


def of_figure(frame: pd.DataFrame, figure: str, marks: str) -> pd.DataFrame:
    """The rows of a figure; `before` has the words that are not new, and `new` says if one is.

    New are words that were not the nearest before the change; none are new of a known zero, whose
    changes mean nothing.
    """
    rows = frame[frame["figure"] == figure]
    originals = rows[rows["change"] == ORIGINAL].groupby(["image_id", "kind"])
    known = {of: set(own[[*WORDS]].to_numpy().ravel()) for of, own in originals}
    if ZERO in marks:
        known = {of: set(rows[[*WORDS]].to_numpy().ravel()) for of in known}
    own = zip(rows["image_id"], rows["kind"], strict=True)
    rows = rows.assign(before=pd.Series([known[of] for of in own], rows.index, dtype=object))
    new = [bool({*row[[*WORDS]]} - row["before"] - {""}) for _, row in rows.iterrows()]
    return rows.assign(new=pd.Series(new, rows.index, dtype=bool))


def cell_of(row: pd.Series) -> Cell:
    """The picture of a row, its words, and how far it moved."""
    lines = [(word, "word" if word in row["before"] else "new") for word in row[[*WORDS]] if word]
    if not lines and not row["picture"]:
        lines = [("out of reach", "note")]
    if row["change"] != ORIGINAL and not pd.isna(row["is_deg"]):
        toward = row["as_text_deg"] if row["text"] else row["as_label_deg"]
        lines.append((f"IS {row['is_deg']:.1f}°, AS\xa0{toward:+.1f}°", "note"))
    if row["figure"] == "fig13":
        lines.append((f"logits move by {row['logit_change']:.2g}", "note"))
    return Cell(lines, row["picture"], row["change"] != ORIGINAL)


def name_of(space: str, model: str, table: pd.DataFrame, sets: Frames) -> str:
    """A model's name with its marks, and its space if there are several."""
    rows = style.of_space(table, space)
    none = "" if int(rows["null_dim"][model]) else "\n(no null space)"
    return style.caption(model, rows, "\n") + none + (f"\n{space}" if len(sets) > 1 else "")


Flags = cli.Selection


def main(flags: Flags) -> None:
    style.write_figure(flags, "fig1", draw(*style.read_tables(flags, "pictures")), NEEDS)


if __name__ == "__main__":
    cli.run_step(main, Flags)
