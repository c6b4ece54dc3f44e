"""Tabulate and draw the norms of features."""

import pandas as pd
from matplotlib.figure import Figure

from singflow import cli
from singflow.analyses.tables import qualify
from singflow.artifacts.tables import read_models, read_parquet, write_table
from singflow.figures.style import colour, panels, styled, write_figure


@styled
def draw(table: pd.DataFrame) -> Figure:
    """Mean norm of every label's features, one row of dots per model.

    The table has the columns model, label and norm_mean.
    """
    figure, ((axes,),) = panels(1, 1, (6, 3))
    for number, (model, rows) in enumerate(table.groupby("model", sort=False)):
        axes.plot(rows["norm_mean"], [model] * len(rows), "o", color=colour(number))
    axes.set_xlabel("mean norm of a label's features")
    return figure


class Flags(cli.Step):
    models: list[str]


def main(flags: Flags) -> None:
    norms = [
        read_parquet(flags.path("feature_norms", model=model), "feature_norms").assign(model=model)
        for model in flags.models
    ]
    rows = pd.concat(norms)[["model", "label", "n", "norm_mean"]]
    table = qualify(rows, read_models(flags.path("tables/models.csv")))
    write_table(flags.path("tables/feature_norms.csv"), table)
    write_figure(flags, "feature_norms", draw(table))


if __name__ == "__main__":
    cli.run_step(main, Flags)
