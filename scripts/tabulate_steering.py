"""Tabulate steering: one row per space, model, prompt and target (table 1 of the paper)."""

from pathlib import Path

import pandas as pd

from singflow import cli
from singflow.steering import summarize_steering
from singflow.store import read_models, read_parquet, write_table
from singflow.tables import qualify


class Flags(cli.Command):
    """Tabulate steering: one row per space, model, prompt and target (table 1 of the paper)."""

    models: list[str]
    spaces: list[str]
    steering: Path
    table: Path
    output: Path


def main(flags: Flags) -> None:
    blocks = []
    for space in flags.spaces:
        for model in flags.models:
            summary = summarize_steering(read_parquet(flags.steering / space / f"{model}.parquet", "steering"))
            summary.insert(0, "space", space)
            summary.insert(1, "model", model)
            blocks.append(summary)
    write_table(flags.output, qualify(pd.concat(blocks, ignore_index=True), read_models(flags.table)))


if __name__ == "__main__":
    cli.run(main, Flags)
