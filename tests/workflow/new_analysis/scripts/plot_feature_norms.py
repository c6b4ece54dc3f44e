"""Tabulate and draw the norms of features."""

from pathlib import Path

import pandas as pd

from singflow import cli
from singflow.analyses.tables import qualify
from singflow.artifacts.tables import read_models, read_parquet, write_table


class Flags(cli.Command):
    """Tabulate and draw the norms of features."""

    models: list[str]
    feature_norms: Path
    table: Path
    output: Path
    png: Path
    pdf: Path


def main(flags: Flags) -> None:
    from singflow.figures.feature_norms import feature_norms

    from singflow.figures.style import save

    rows = pd.concat(
        [
            read_parquet(flags.feature_norms / f"{model}.parquet").assign(model=model)
            for model in flags.models
        ]
    )
    table = qualify(rows[["model", *rows.columns.drop("model")]], read_models(flags.table))
    write_table(flags.output, table)
    save(feature_norms(table), flags.png, flags.pdf)


if __name__ == "__main__":
    cli.run(main, Flags)
