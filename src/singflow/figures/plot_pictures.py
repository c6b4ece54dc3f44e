"""Draw the pictures of figures 1, 6, 11 and 13: removal, steering, translators, perturbations."""

import pandas as pd
from matplotlib.figure import Figure

from singflow import cli
from singflow.figures import style
from singflow.figures.picture_grid import (
    Cell,
    cell_of,
    closeups,
    draw_grid,
    name_row,
    of_figure,
    steering_prompts,
    text_cell,
)
from singflow.figures.style import Frames
from singflow.pictures.selection import LINEAR, ORIGINAL, REMOVED
from singflow.pictures.word_neighbours import WORDS

NEEDS = {"fig6": "a prompt in steering.prompts", "fig11": style.NETWORKS}


def draw_equivalents(sets: Frames, table: pd.DataFrame) -> Figure:
    """Images before and after null removal: one row per space and model, two columns per image."""
    pairs = style.pairs_of(sets)
    photos = pairs[0][2][pairs[0][2]["figure"] == "photo"]
    pictures = [cell for picture in photos["picture"] for cell in (Cell(picture=picture), Cell())]
    rows = [[Cell(), *pictures]]
    for space, model, frame in pairs:
        mine = of_figure(frame, "fig1", style.of_space(table, space)["marks"][model])
        cells = [
            cell_of(mine[(mine["image_id"] == image) & (mine["change"] == change)])
            for image in photos["image_id"]
            for change in (ORIGINAL, REMOVED)
        ]
        rows.append([text_cell(name_row(model, space, table, sets)), *cells])
    heads = [head for label in photos["label"] for head in (f"{label}: before", REMOVED)]
    return draw_grid(heads, rows)


def draw_steered(sets: Frames, table: pd.DataFrame) -> Figure:
    """Images steered inside the null space: one row per image, one column per prompt."""
    shown = closeups(sets, table, "fig6")
    prompts = steering_prompts(pd.concat(pictures for *_, pictures in shown))
    rows = []
    for model, photos, pictures in shown:
        for _, photo in photos.iterrows():
            own = pictures[pictures["image_id"] == photo["image_id"]]
            name = f"{photo['label']}\n{model}"
            cells = [cell_of(own[own["text"] == prompt], "out of reach") for prompt in prompts]
            before = cell_of(own[own["change"] == ORIGINAL])
            rows.append([text_cell(name, photo["picture"]), before, *cells])
    return draw_grid([ORIGINAL, *prompts], rows)


def draw_translators(sets: Frames, table: pd.DataFrame) -> Figure:
    """One image before and after null removal: one column per translator."""
    shown = closeups(sets, table, "fig11")
    kinds = list(pd.concat(pictures for *_, pictures in shown)["kind"].unique())
    rows = []
    for model, photos, pictures in shown:
        for change, photo in ((ORIGINAL, photos["picture"].iloc[0]), (REMOVED, b"")):
            own = pictures[pictures["change"] == change]
            cells = [cell_of(own[own["kind"] == kind]) for kind in kinds]
            rows.append([text_cell(f"{change}\n{model}", photo), *cells])
    return draw_grid(kinds, rows)


def draw_perturbations(sets: Frames, table: pd.DataFrame) -> Figure:
    """One image under perturbations of equal norm, one column per perturbation."""
    shown = closeups(sets, table, "fig13")
    changes, rows = list(pd.concat(pictures for *_, pictures in shown)["change"].unique()), []
    for model, photos, pictures in shown:
        pictures.loc[pictures.duplicated("change"), [*WORDS]] = ""  # one feature, drawn again
        for number, (draw, own) in enumerate(pictures.groupby("draw")):
            seed = f"seed {draw}" if own["renderer"].iloc[0] == "unclip" else ""
            photo, cells = b"" if number else photos["picture"].iloc[0], []
            for change in changes:
                mine = own[own["change"] == change]
                moved = f"logits move by {mine['logit_change'].iloc[0]:.2g}", "note"
                cell = cell_of(mine)
                cells.append(cell._replace(lines=(*cell.lines, moved)))
            rows.append([text_cell(f"{model}\n{seed}", photo), *cells])
    return draw_grid(changes, rows)


FIGURES = {
    "fig1": draw_equivalents,
    "fig6": draw_steered,
    "fig11": draw_translators,
    "fig13": draw_perturbations,
}


Flags = cli.Selection


def main(flags: Flags) -> None:
    sets, models = style.read_tables(flags, "pictures")
    every = pd.concat(frame for *_, frame in style.pairs_of(sets))
    drawn = {"fig6": steering_prompts(every), "fig11": set(every["kind"]) - {LINEAR, ""}}
    for name, draw in FIGURES.items():
        if drawn.get(name, True):
            style.write_figure(flags, name, draw(sets, models))
        else:
            style.write_needs(flags, name, NEEDS[name])


if __name__ == "__main__":
    cli.run_step(main, Flags)
