"""Draw the rank curves of all models and write them as one table."""

from pathlib import Path

from singflow import cli
from singflow.rank_curve import gather
from singflow.store import read_models, read_parquet, write_table


class Flags(cli.Command):
    """Draw the rank curves of all models and write them as one table."""

    models: list[str]
    spaces: list[str]
    curves: Path
    table: Path
    output: Path
    png: Path
    pdf: Path


def main(flags: Flags) -> None:
    from singflow.figures import save
    from singflow.figures_rank_curve import rank_curves

    models = read_models(flags.table)
    curves = gather(
        {s: {m: read_parquet(flags.curves / s / f"{m}.parquet", "rank_curves") for m in flags.models} for s in flags.spaces}, models
    )
    write_table(flags.output, curves)
    save(rank_curves(curves, models), flags.png, flags.pdf)


if __name__ == "__main__":
    cli.run(main, Flags)
