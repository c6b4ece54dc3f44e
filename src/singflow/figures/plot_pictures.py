"""Draw the pictures of figures 1, 6, 11 and 13: images beside their equivalents, steered, by
translator, and by perturbation.
"""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from singflow import cli
from singflow.artifacts.tables import read_models, read_parquet
from singflow.figures.picture_grid import (
    ORIGINAL,
    REMOVED,
    Cell,
    Sets,
    cell_of,
    closeups,
    draw_grid,
    name_row,
    of_figure,
    prompts_of,
)
from singflow.figures.style import write_figure


def draw_equivalents(sets: Sets, table: pd.DataFrame) -> Figure:
    """Images before and after null removal: one row per space and model, two columns per image."""
    photos = of_figure(next(iter(next(iter(sets.values())).values())), "photo")
    rows = [
        ("photo", [cell for _, photo in photos.iterrows() for cell in (Cell(photo), Cell(None))])
    ]
    for space, models in sets.items():
        for model, frame in models.items():
            mine = of_figure(frame, "fig1")
            cells = [
                cell_of(mine[(mine["image_id"] == image) & (mine["change"] == change)])
                for image in photos["image_id"]
                for change in (ORIGINAL, REMOVED)
            ]
            rows.append((name_row(model, space, table, sets), cells))
    columns = [name for label in photos["label"] for name in (label, "null component removed")]
    return draw_grid(
        "Same logits, other meaning? Images before and after their null component is removed",
        rows,
        columns,
        sets,
    )


def draw_steered(sets: Sets, table: pd.DataFrame) -> Figure:
    """Images steered inside the null space: one row per image, one column per prompt."""
    rows = []
    prompts = prompts_of(sets, "fig6")
    for space, model, frame in closeups(sets):
        mine, photos = of_figure(frame, "fig6"), of_figure(frame, "photo")
        for _, photo in photos.iterrows():
            own = mine[mine["image_id"] == photo["image_id"]]
            cells = [Cell(photo), cell_of(own[own["change"] == ORIGINAL])]
            cells += [cell_of(own[own["text"] == prompt], "out of reach") for prompt in prompts]
            rows.append((f"{photo['label']}\n{name_row(model, space, table, sets)}", cells))
    target = max(
        (of_figure(frame, "fig6")["target_is_deg"].max() for _, _, frame in closeups(sets)),
        default=np.nan,
    )
    title = (
        f"Steered inside the null space by {target:g} degrees: the logits stay"
        if prompts
        else "No prompt to steer toward"
    )
    return draw_grid(title, rows, ["photo", ORIGINAL, *prompts], sets)


def draw_translators(sets: Sets, table: pd.DataFrame) -> Figure:
    """One image before and after null removal: one column per translator."""
    rows = []
    frames = pd.concat(of_figure(frame, "fig11") for _, _, frame in closeups(sets))
    kinds = list(frames["kind"].unique())
    for space, model, frame in closeups(sets):
        mine = of_figure(frame, "fig11")
        photo = Cell(of_figure(frame, "photo").iloc[0])
        for change in (ORIGINAL, REMOVED):
            cells = [
                cell_of(mine[(mine["kind"] == kind) & (mine["change"] == change)]) for kind in kinds
            ]
            rows.append(
                (
                    f"{change}\n{name_row(model, space, table, sets)}",
                    [photo if change == ORIGINAL else Cell(None), *cells],
                )
            )
    return draw_grid(
        "One feature, translated by different translators", rows, ["photo", *kinds], sets
    )


def draw_perturbations(sets: Sets, table: pd.DataFrame) -> Figure:
    """One image under perturbations of equal norm, one row per perturbation.

    The pictures of a row are drawn with different seeds, or are the nearest neighbours by rank.
    """
    rows: list[tuple[str, list[Cell]]] = []
    for space, model, frame in closeups(sets):
        mine = of_figure(frame, "fig13")
        numbers = sorted(mine["draw"].unique())
        for change in mine["change"].unique():
            own = mine[mine["change"] == change].set_index("draw", drop=False)
            photo = Cell(of_figure(frame, "photo").iloc[0]) if change == ORIGINAL else Cell(None)
            name = (
                change
                if change == ORIGINAL
                else f"{change}: logits move by {own['logit_change'].iloc[0]:.2g}"
            )
            cells = [photo, *(cell_of(own[own["draw"] == number]) for number in numbers)]
            rows.append((f"{name}\n{name_row(model, space, table, sets)}", cells))
    shown = pd.concat(of_figure(frame, "fig13") for _, _, frame in closeups(sets))
    generated = set(shown["renderer"]) == {"unclip"}
    columns = [
        f"seed {draw}" if generated else f"neighbour {draw + 1}"
        for draw in sorted(set(shown["draw"]))
    ]
    return draw_grid(
        "Null, random and principal perturbations of equal norm", rows, ["photo", *columns], sets
    )


FIGURES = {
    "fig1": draw_equivalents,
    "fig6": draw_steered,
    "fig11": draw_translators,
    "fig13": draw_perturbations,
}


class Flags(cli.Selection):
    pass


def main(flags: Flags) -> None:
    sets = flags.gather("pictures", lambda path: read_parquet(path, "pictures"))
    models = read_models(flags.path("tables/models.csv"))
    for name, draw in FIGURES.items():
        write_figure(flags, name, draw(sets, models))


if __name__ == "__main__":
    cli.run_step(main, Flags)
