"""Draw figure 10: one image steered by growing angles, with its table."""

import pandas as pd
from matplotlib.figure import Figure

from singflow import cli
from singflow.analyses.tables import qualify
from singflow.artifacts.shards import read_manifest
from singflow.artifacts.tables import write_table
from singflow.figures.picture_grid import cell_of, closeups, draw_grid, text_cell
from singflow.figures.style import Frames, read_tables, write_figure, write_needs
from singflow.pictures.selection import ORIGINAL

LADDER_COLUMNS = (
    "space model n path label text target_is_deg is_deg as_text_deg as_label_deg logit_change"
    " reachable"
)


def tabulate(sets: Frames, manifest: pd.DataFrame, models: pd.DataFrame) -> pd.DataFrame:
    """The numbers of figure 10: one row per space and step; NaN for a step out of reach."""
    steps = pd.concat(found for *_, found in closeups(sets, models, "fig10"))
    path = manifest["path"].iloc[steps["image_id"]].to_numpy()
    steps = steps.assign(n=1, path=path, reachable=steps["is_deg"].notna())
    return steps[LADDER_COLUMNS.split()]


def draw(sets: Frames, table: pd.DataFrame) -> Figure:
    """One image steered by growing angles, to show what a degree means: one row per space."""
    shown = closeups(sets, table, "fig10")
    everything = pd.concat(steps for *_, steps in shown)
    wanted = sorted(everything["target_is_deg"].dropna().unique())
    rows = []
    for model, photos, steps in shown:
        name = text_cell(model, photos["picture"].iloc[0])
        cells = [cell_of(steps[steps["target_is_deg"] == deg], "out of reach") for deg in wanted]
        rows.append([name, cell_of(steps[steps["change"] == ORIGINAL]), *cells])
    return draw_grid(["0 degrees", *(f"{target:g} degrees" for target in wanted)], rows)


Flags = cli.Selection


def main(flags: Flags) -> None:
    sets, models = read_tables(flags, "pictures")
    rows = tabulate(sets, read_manifest(flags.path("manifest")), models)
    write_table(flags.path("tables/angle_ladder.csv"), qualify(rows, models))
    if rows["text"].eq("").all():
        return write_needs(flags, "fig10", "a prompt in steering.prompts")
    write_figure(flags, "fig10", draw(sets, models))


if __name__ == "__main__":
    cli.run_step(main, Flags)
