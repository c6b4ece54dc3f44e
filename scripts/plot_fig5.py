"""Draw figure 5: the concept scan of one label."""

from pathlib import Path

import pandas as pd

from singflow import cli
from singflow.config import PlotFig5
from singflow.errors import InputError
from singflow.figures import save
from singflow.figures_concepts import fig5
from singflow.store import read_parquet


class Flags(PlotFig5, cli.Command):
    """Draw figure 5: the concept scan of one label."""

    models: list[str]
    spaces: list[str]
    concepts: Path
    table: Path
    png: Path
    pdf: Path


def main(flags: Flags) -> None:
    scans = {s: {m: read_parquet(flags.concepts / s / f"{m}.parquet") for m in flags.models} for s in flags.spaces}
    counts: pd.Series = scans[flags.spaces[0]][flags.models[0]].groupby("label")["n"].first()
    label = flags.label or str(counts.sort_values(ascending=False, kind="stable").index[0])
    if label not in counts:
        raise InputError(f"plot_fig5.label {label!r} is no label of this study; it has {', '.join(counts.index)}")
    save(fig5(scans, pd.read_csv(flags.table), label, flags.extremes), flags.png, flags.pdf)


if __name__ == "__main__":
    cli.run(main, Flags)
