"""Draw figure 10: one image steered by growing angles, with its table."""

import pandas as pd
from matplotlib.figure import Figure

from singflow import cli
from singflow.analyses.tables import qualify
from singflow.artifacts.shards import read_manifest
from singflow.artifacts.tables import read_models, read_parquet, write_table
from singflow.figures.picture_grid import (
    ORIGINAL,
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


def tabulate(sets: Sets, manifest: pd.DataFrame) -> pd.DataFrame:
    """The numbers of figure 10: one row per space and step; NaN for a step out of reach."""
    blocks = []
    for space, model, frame in closeups(sets):
        steps = of_figure(frame, "fig10").assign(space=space, model=model)
        steps["path"] = manifest["path"].iloc[steps["image_id"]].to_numpy()
        steps["n"], steps["reachable"] = 1, steps["is_deg"].notna()
        blocks.append(steps)
    columns = [
        "space",
        "model",
        "n",
        "path",
        "label",
        "text",
        "target_is_deg",
        "is_deg",
        "as_text_deg",
        "as_label_deg",
        "logit_change",
        "reachable",
    ]
    return pd.concat(blocks)[columns]


def draw(sets: Sets, table: pd.DataFrame) -> Figure:
    """One image steered by growing angles, to show what a degree means: one row per space."""
    rows = []
    frames = pd.concat(of_figure(frame, "fig10") for _, _, frame in closeups(sets))
    wanted = sorted(frames["target_is_deg"].dropna().unique())
    for space, model, frame in closeups(sets):
        mine = of_figure(frame, "fig10")
        cells = [Cell(of_figure(frame, "photo").iloc[0]), cell_of(mine[mine["change"] == ORIGINAL])]
        cells += [
            cell_of(mine[mine["target_is_deg"] == target], "out of reach") for target in wanted
        ]
        rows.append((name_row(model, space, table, sets), cells))
    prompts = prompts_of(sets, "fig10")
    title = (
        f"What a degree means: steered toward {prompts[0]!r}"
        if prompts
        else "No prompt to steer toward"
    )
    return draw_grid(
        title, rows, ["photo", "0 degrees", *(f"{target:g} degrees" for target in wanted)], sets
    )


class Flags(cli.Selection):
    pass


def main(flags: Flags) -> None:
    sets = flags.gather("pictures", lambda path: read_parquet(path, "pictures"))
    models = read_models(flags.path("tables/models.csv"))
    rows = tabulate(sets, read_manifest(flags.path("manifest")))
    write_table(flags.path("tables/angle_ladder.csv"), qualify(rows, models))
    write_figure(flags, "fig10", draw(sets, models))


if __name__ == "__main__":
    cli.run_step(main, Flags)
