"""List every label's strongest and weakest concepts, and nearby ones that may be spurious cues."""

import pandas as pd
from pydantic import Field

from singflow import cli
from singflow.analyses.concepts import (
    LABEL_IMAGES,
    Concepts,
    extreme_concepts,
    read_scan,
    spurious_cues,
    with_numbers,
)
from singflow.analyses.tables import qualify
from singflow.artifacts.tables import read_models, write_table

MOMENTS = ("angle_mean", "as_mean", "as_abs_mean", "contrast_std")


class Flags(Concepts, cli.Selection):
    confidence: float = Field(gt=0, lt=1)


def list_scan(flags: Flags, space: str, model: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Extreme concepts and candidates for spurious cues of one model in one space."""
    path = flags.path("concepts", space=space, model=model)
    scan = read_scan(path, flags.path("names", space=space), MOMENTS)
    if not scan.contrast.any():
        cli.log.info(
            f"{model} in {space}: nothing was removed, so AS is 0 everywhere and there are no "
            "candidates for spurious cues"
        )
    extremes, cues = (
        with_numbers(cells, scan, flags.confidence).assign(space=space, model=model)
        for cells in (extreme_concepts(scan, flags.extremes), spurious_cues(scan, flags.nearest))
    )
    return extremes, cues[cues["n"] >= LABEL_IMAGES]


def main(flags: Flags) -> None:
    models = read_models(flags.path("tables/models.csv"))
    extremes, cues = zip(
        *(list_scan(flags, space, model) for space in flags.spaces for model in flags.models),
        strict=True,
    )
    found = ["concept", "n", "angle_mean_deg"]
    moved = ["contrast_deg", "contrast_deg_low", "contrast_deg_high"]
    moved += ["as_mean_deg", "as_abs_mean_deg"]
    columns = {
        "concepts": ["kind", "place", *found, *moved],
        "spurious": ["place", *found, "lift_deg", *moved, "contrast_abs_median_deg"],
    }
    for (name, chosen), parts in zip(columns.items(), (extremes, cues), strict=True):
        rows = pd.concat(parts)[["space", "model", "label", *chosen]]
        write_table(flags.path(f"tables/{name}.csv"), qualify(rows, models))
    cli.log.info("%d candidates for spurious cues, for a person to check", sum(map(len, cues)))


if __name__ == "__main__":
    cli.run_step(main, Flags)
