"""Draw the pictures of figures 1, 6, 11 and 13: removal, steering, translators, perturbations."""

import pandas as pd
from matplotlib.figure import Figure

from singflow import cli
from singflow.figures.picture_grid import (
    Cell,
    Row,
    cell_of,
    changed,
    closeups,
    draw_grid,
    name_row,
    of_figure,
    steering_prompts,
)
from singflow.figures.style import (
    NETWORKS,
    Frames,
    pairs_of,
    read_tables,
    span,
    write_figure,
    write_needs,
)
from singflow.pictures.selection import LINEAR, ORIGINAL, REMOVED
from singflow.pictures.word_neighbours import WORDS

NEEDS = {"fig6": "a prompt in steering.prompts", "fig11": NETWORKS}


def draw_equivalents(sets: Frames, table: pd.DataFrame) -> Figure:
    """Images before and after null removal: one row per space and model, two columns per image."""
    pairs = pairs_of(sets)
    photos = of_figure(pairs[0][2], "photo")
    rows = [Row("", [cell for _, row in photos.iterrows() for cell in (Cell(row), Cell())])]
    for space, model, frame in pairs:
        mine = of_figure(frame, "fig1")
        cells = [
            cell_of(mine[(mine["image_id"] == image) & (mine["change"] == change)])
            for image in photos["image_id"]
            for change in (ORIGINAL, REMOVED)
        ]
        rows.append(Row(name_row(model, space, table, sets), cells))
    columns = [
        name for label in photos["label"] for name in (f"{label}: before", "null component removed")
    ]
    every = pd.concat(of_figure(frame, "fig1") for *_, frame in pairs)
    title = f"Null removal moves logits by at most {most(every)}, and brings {changed(every)}"
    return draw_grid(title, rows, columns, sets)


def draw_steered(sets: Frames, table: pd.DataFrame) -> Figure:
    """Images steered inside the null space: one row per image, one column per prompt."""
    shown = closeups(sets, "fig6")
    every = pd.concat(pictures for *_, pictures in shown)
    prompts = steering_prompts(every)
    rows = []
    for space, model, photos, pictures in shown:
        for _, photo in photos.iterrows():
            own = pictures[pictures["image_id"] == photo["image_id"]]
            cells = [cell_of(own[own["change"] == ORIGINAL])]
            cells += [cell_of(own[own["text"] == prompt], "out of reach") for prompt in prompts]
            name = f"{photo['label']}\n{name_row(model, space, table, sets)}"
            rows.append(Row(name, cells, Cell(photo)))
    title = f"Steering by {every['target_is_deg'].max():g}° inside the null space moves logits by"
    title += f" at most {most(every)}, and brings {changed(every)}"
    return draw_grid(title, rows, [ORIGINAL, *prompts], sets)


def draw_translators(sets: Frames, table: pd.DataFrame) -> Figure:
    """One image before and after null removal: one column per translator."""
    shown = closeups(sets, "fig11")
    every = pd.concat(pictures for *_, pictures in shown)
    kinds = list(every["kind"].unique())
    rows = []
    for space, model, photos, pictures in shown:
        for change, photo in ((ORIGINAL, Cell(photos.iloc[0])), (REMOVED, Cell())):
            own = pictures[pictures["change"] == change]
            cells = [cell_of(own[own["kind"] == kind]) for kind in kinds]
            rows.append(Row(f"{change}\n{name_row(model, space, table, sets)}", cells, photo))
    words = every.loc[every["change"] == ORIGINAL, WORDS[0]].unique()
    title = f"Nearest word of one feature by {len(kinds)} translators: {', '.join(words)}"
    return draw_grid(title, rows, kinds, sets)


def draw_perturbations(sets: Frames, table: pd.DataFrame) -> Figure:
    """One image under perturbations of equal norm, one column per perturbation."""
    shown = closeups(sets, "fig13")
    every = pd.concat(pictures for *_, pictures in shown)
    changes, rows = list(every["change"].unique()), []
    for space, model, photos, pictures in shown:
        first, photo = name_row(model, space, table, sets), Cell(photos.iloc[0])
        pictures.loc[pictures.duplicated("change"), [*WORDS]] = ""  # one feature, drawn again
        for draw in map(int, pictures["draw"].unique()):
            own = pictures[pictures["draw"] == draw]
            number = f"seed {draw}" if own["renderer"].iloc[0] == "unclip" else ""
            cells = [cell_of(own[own["change"] == change]) for change in changes]
            rows.append(Row(f"{first}\n{number}".strip(), cells, photo))
            first, photo = "", Cell()
    moved = {change: most(own) for change, own in every.groupby("change") if change != ORIGINAL}
    said = ", ".join(f"{moved[change]} ({change})" for change in changes if change in moved)
    title = f"Perturbations of equal norm move the logits by {said}"
    return draw_grid(title, rows, changes, sets)


def most(pictures: pd.DataFrame) -> str:
    """The largest change of the logits."""
    return span([pictures["logit_change"].max()], "{:.2g}", "")


FIGURES = {
    "fig1": draw_equivalents,
    "fig6": draw_steered,
    "fig11": draw_translators,
    "fig13": draw_perturbations,
}


Flags = cli.Selection


def main(flags: Flags) -> None:
    sets, models = read_tables(flags, "pictures")
    every = pd.concat(frame for *_, frame in pairs_of(sets))
    drawn = {"fig6": steering_prompts(every), "fig11": set(every["kind"]) - {LINEAR, ""}}
    for name, draw in FIGURES.items():
        if drawn.get(name, True):
            write_figure(flags, name, draw(sets, models))
        else:
            write_needs(flags, name, NEEDS[name])


if __name__ == "__main__":
    cli.run_step(main, Flags)
