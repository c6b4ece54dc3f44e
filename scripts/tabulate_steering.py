"""Tabulate steering: one row per space, model, prompt and target (table 1 of the paper)."""

from pathlib import Path

import pandas as pd

from singflow import cli
from singflow.analyses.steering import summarize_steering
from singflow.analyses.tables import qualify
from singflow.artifacts.tables import read_models, read_parquet, write_table


class Flags(cli.Selection):
    """Tabulate steering: one row per space, model, prompt and target (table 1 of the paper)."""

    steering: Path
    table: Path
    output: Path


def main(flags: Flags) -> None:
    tables = flags.each(
        lambda s, m: summarize_steering(
            read_parquet(flags.steering / s / f"{m}.parquet", "steering")
        )
    )
    rows = pd.concat(
        {(s, m): rows for s, models in tables.items() for m, rows in models.items()},
        names=["space", "model"],
    )
    write_table(
        flags.output,
        qualify(
            rows.reset_index(["space", "model"]).reset_index(drop=True), read_models(flags.table)
        ),
    )


if __name__ == "__main__":
    cli.run(main, Flags)
