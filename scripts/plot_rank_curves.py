"""Draw the rank curves of all models and write them as one table."""

from pathlib import Path

from singflow import cli
from singflow.analyses.rank_curve import gather
from singflow.artifacts.tables import read_models, read_parquet, write_table


class Flags(cli.Selection):
    """Draw the rank curves of all models and write them as one table."""

    rank_curves: Path
    table: Path
    output: Path
    png: Path
    pdf: Path


def main(flags: Flags) -> None:
    from singflow.figures.rank_curve import rank_curves
    from singflow.figures.style import save

    models = read_models(flags.table)
    curves = gather(
        flags.each(
            lambda s, m: read_parquet(flags.rank_curves / s / f"{m}.parquet", "rank_curves")
        ),
        models,
    )
    write_table(flags.output, curves)
    save(rank_curves(curves, models), flags.png, flags.pdf)


if __name__ == "__main__":
    cli.run(main, Flags)
