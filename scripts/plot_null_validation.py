"""Tabulate and draw figure 9: what null, random and principal perturbations of equal norm do."""

from pathlib import Path

import numpy as np
import pandas as pd

from singflow import cli
from singflow.analyses.null_validation import summarize_validation
from singflow.analyses.tables import qualify
from singflow.artifacts.tables import read_models, read_parquet, write_table

NO_NULL_SPACE = "no null space: every perturbation has norm 0"


class Flags(cli.Command):
    """Tabulate and draw figure 9: what null, random and principal perturbations of equal norm
    do.
    """

    models: list[str]
    null_validation: Path
    table: Path
    confidence: float
    output: Path
    png: Path
    pdf: Path


def main(flags: Flags) -> None:
    from singflow.figures.null_validation import fig9
    from singflow.figures.style import save

    effects = {
        model: read_parquet(flags.null_validation / f"{model}.parquet", "null_validation")
        for model in flags.models
    }
    rows = pd.concat(
        [
            summarize_validation(effect, flags.confidence).assign(model=model)
            for model, effect in effects.items()
        ]
    )
    models = read_models(flags.table)
    table = qualify(rows[["model", *rows.columns.drop("model")]], models)
    table["note"] = np.where(table["null_dim"] == 0, NO_NULL_SPACE, "")
    write_table(flags.output, table)
    save(fig9(effects, table, models, flags.confidence), flags.png, flags.pdf)


if __name__ == "__main__":
    cli.run(main, Flags)
