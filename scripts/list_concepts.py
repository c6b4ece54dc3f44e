"""List every label's strongest and weakest concepts, and nearby ones that may be spurious cues."""

from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import Field

from singflow import cli
from singflow.analyses.concepts import (
    FEWEST,
    Concepts,
    Scan,
    extreme_concepts,
    spurious_cues,
    with_intervals,
)
from singflow.analyses.tables import qualify
from singflow.artifacts.tables import iterate_row_groups, read_models, write_table
from singflow.errors import InputError

NAMES = ["label", "concept"]


class Flags(Concepts, cli.Selection):
    confidence: float = Field(gt=0, lt=1)


def read_scan(path: Path) -> Scan:
    """The columns that rank a scan's concepts; its rows must be in the order of scan_concepts."""
    labels: list[str] = []
    concepts: list[str] = []
    for block in iterate_row_groups(path, NAMES, NAMES):
        found, order = list(block["label"].unique()), np.arange(len(block))
        labels, width = labels or found, len(block) // len(found)
        codes = [pd.factorize(block[name])[0] for name in NAMES]
        if (
            found != labels
            or (codes[0] != order // width).any()
            or (codes[1] != order % width).any()
        ):
            raise InputError(
                f"{path}: its rows are not in the order that scan_concepts writes: "
                "remove it and run the workflow again"
            )
        concepts += list(block["concept"][:width])
    angle, score = np.empty((2, len(labels), len(concepts)), dtype=np.float32)
    done = 0
    for block in iterate_row_groups(path, [], ["angle_mean", "as_mean"]):
        mine = slice(done, done := done + len(block) // len(labels))
        for matrix, column in ((angle, "angle_mean"), (score, "as_mean")):
            matrix[:, mine] = block[column].to_numpy().reshape(len(labels), -1)
    common = score.mean(axis=1, dtype=np.float64)
    score -= common[:, None]
    return Scan(labels, concepts, angle, score, common)


def read_cells(path: Path, scan: Scan, cells: pd.DataFrame) -> pd.DataFrame:
    """The rows of a scan for `cells` (positions of labels and concepts), in their order."""
    parts, done = [], 0
    for block in iterate_row_groups(path, NAMES):
        width = len(block) // len(scan.labels)
        mine = cells[cells["concept"].between(done, done + width - 1)]
        parts.append(
            block.iloc[mine["label"] * width + mine["concept"] - done]
            .astype(dict.fromkeys(NAMES, str))
            .set_index(mine.index)
        )
        done += width
    return pd.concat(parts).loc[cells.index]


def list_scan(flags: Flags, space: str, model: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Extreme concepts and candidates for spurious cues of one model in one space."""
    path = flags.path("concepts", space=space, model=model)
    scan = read_scan(path)
    if not scan.contrast.any():
        cli.log.info(
            f"{model} in {space}: nothing was removed, so AS is 0 everywhere and there are no "
            "candidates for spurious cues"
        )
    extremes, cues = extreme_concepts(scan, flags.extremes), spurious_cues(scan, flags.nearest)
    chosen = pd.concat([extremes, cues], ignore_index=True)
    cells = read_cells(path, scan, chosen)
    rows = pd.concat(
        [cells[NAMES], with_intervals(cells, scan, flags.confidence), chosen.drop(columns=NAMES)],
        axis=1,
    )
    rows = rows.assign(space=space, model=model)
    listed, found = rows.iloc[: len(extremes)], rows.iloc[len(extremes) :]
    return listed, found[found["n"] >= FEWEST]


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
