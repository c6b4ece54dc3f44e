"""Tabulate how well each detector separates unusual images: one row per model and detector."""

import pandas as pd

from singflow import cli
from singflow.analyses.tables import qualify
from singflow.analyses.unusual import NullEnergy, compare_detectors
from singflow.artifacts.files import read_json
from singflow.artifacts.tables import read_models, read_parquet, write_table


class Flags(NullEnergy, cli.Step):
    models: list[str]
    confidence: float


def main(flags: Flags) -> None:
    models = read_models(flags.path("tables/models.csv"))
    null_dims = models.groupby("model")["null_dim"].first()
    rows = {
        model: compare_detectors(
            read_parquet(flags.path("unusual", model=model), "unusual"),
            read_json(flags.path("unusual_report", model=model)),
            int(null_dims[model]),
            flags.usual_labels,
            flags.unusual_labels,
            flags.confidence,
        )
        for model in flags.models
    }
    table = pd.concat(rows, names=["model"]).reset_index("model")
    write_table(flags.path("tables/unusual.csv"), qualify(table, models))


if __name__ == "__main__":
    cli.run_step(main, Flags)
