"""Tabulate steering: one row per space, model, prompt and target (table 1 of the paper)."""

import pandas as pd

from singflow import cli
from singflow.analyses.steering import summarize_steering
from singflow.analyses.tables import qualify
from singflow.artifacts.tables import read_models, read_parquet, write_table


class Flags(cli.Selection): ...


def main(flags: Flags) -> None:
    tables = flags.gather(
        "steering", lambda path: summarize_steering(read_parquet(path, "steering"))
    )
    rows = pd.concat(
        {(s, m): rows for s, models in tables.items() for m, rows in models.items()},
        names=["space", "model"],
    )
    rows = rows.reset_index(["space", "model"]).reset_index(drop=True)
    models = read_models(flags.path("tables/models.csv"))
    write_table(flags.path("tables/steering.csv"), qualify(rows, models))


if __name__ == "__main__":
    cli.run_step(main, Flags)
