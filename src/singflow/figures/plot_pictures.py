"""Draw the pictures of figures 1, 6, 11 and 13: removal, steering, translators, perturbations."""

import pandas as pd
from matplotlib.figure import Figure

from singflow import cli
from singflow.figures.picture_grid import (
    Cell,
    Rows,
    cell_of,
    closeups,
    draw_grid,
    name_row,
    of_figure,
    steering_prompts,
)
from singflow.figures.style import Frames, pairs_of, read_tables, write_figure
from singflow.pictures.selection import ORIGINAL, REMOVED
from singflow.pictures.words import WORDS

NUMBERED = {"unclip": "seed {0}", "retrieval": "neighbour {1}", "words": "nearest words"}


def draw_equivalents(sets: Frames, table: pd.DataFrame) -> Figure:
    """Images before and after null removal: one row per space and model, two columns per image."""
    pairs = pairs_of(sets)
    photos = of_figure(pairs[0][2], "photo")
    rows: Rows = [("photo", [cell for _, row in photos.iterrows() for cell in (Cell(row), Cell())])]
    for space, model, frame in pairs:
        mine = of_figure(frame, "fig1")
        cells = [
            cell_of(mine[(mine["image_id"] == image) & (mine["change"] == change)])
            for image in photos["image_id"]
            for change in (ORIGINAL, REMOVED)
        ]
        rows.append((name_row(model, space, table, sets), cells))
    columns = [
        name for label in photos["label"] for name in (f"{label}: before", "null component removed")
    ]
    title = "Same logits, other meaning? Images before and after their null component is removed"
    return draw_grid(title, rows, columns, sets)


def draw_steered(sets: Frames, table: pd.DataFrame) -> Figure:
    """Images steered inside the null space: one row per image, one column per prompt."""
    shown = closeups(sets, "fig6")
    everything = pd.concat(pictures for *_, pictures in shown)
    prompts = steering_prompts(everything)
    rows: Rows = []
    for space, model, photos, pictures in shown:
        for _, photo in photos.iterrows():
            own = pictures[pictures["image_id"] == photo["image_id"]]
            cells = [Cell(photo), cell_of(own[own["change"] == ORIGINAL])]
            cells += [cell_of(own[own["text"] == prompt], "out of reach") for prompt in prompts]
            rows.append((f"{photo['label']}\n{name_row(model, space, table, sets)}", cells))
    target = everything["target_is_deg"].max()
    title = (
        f"Steered inside the null space by {target:g} degrees: the logits stay"
        if prompts
        else "No prompt to steer toward"
    )
    return draw_grid(title, rows, ["photo", ORIGINAL, *prompts], sets)


def draw_translators(sets: Frames, table: pd.DataFrame) -> Figure:
    """One image before and after null removal: one column per translator."""
    shown = closeups(sets, "fig11")
    kinds = list(pd.concat(pictures for *_, pictures in shown)["kind"].unique())
    rows: Rows = []
    for space, model, photos, pictures in shown:
        for change, first in ((ORIGINAL, Cell(photos.iloc[0])), (REMOVED, Cell())):
            own = pictures[pictures["change"] == change]
            cells = [first, *(cell_of(own[own["kind"] == kind]) for kind in kinds)]
            rows.append((f"{change}\n{name_row(model, space, table, sets)}", cells))
    title = "One feature, translated by different translators"
    return draw_grid(title, rows, ["photo", *kinds], sets)


def draw_perturbations(sets: Frames, table: pd.DataFrame) -> Figure:
    """One image under perturbations of equal norm, one row per perturbation."""
    shown = closeups(sets, "fig13")
    rows: Rows = []
    columns: list[str] = []
    for space, model, photos, pictures in shown:
        for change, own in pictures.groupby("change", sort=False):
            first, name = Cell(photos.iloc[0]), ORIGINAL
            if change != ORIGINAL:
                moved = own["logit_change"].iloc[0]
                first, name = Cell(), f"{change}: logits move by {moved:.2g}"
            # One feature, drawn several times, has the same words.
            own.loc[own.duplicated("change"), [*WORDS]] = ""
            cells = [first, *(Cell(row) for _, row in own.iterrows())]
            rows.append((f"{name}\n{name_row(model, space, table, sets)}", cells))
            drawn = zip(own["renderer"], own["draw"], strict=True)
            numbers = [NUMBERED[renderer].format(draw, draw + 1) for renderer, draw in drawn]
            columns = max(columns, numbers, key=len)
    title = "Null, random and principal perturbations of equal norm"
    return draw_grid(title, rows, ["photo", *columns], sets)


FIGURES = {
    "fig1": draw_equivalents,
    "fig6": draw_steered,
    "fig11": draw_translators,
    "fig13": draw_perturbations,
}


class Flags(cli.Selection): ...


def main(flags: Flags) -> None:
    sets, models = read_tables(flags, "pictures")
    for name, draw in FIGURES.items():
        write_figure(flags, name, draw(sets, models))


if __name__ == "__main__":
    cli.run_step(main, Flags)
