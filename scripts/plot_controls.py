"""Draw the controls: excess over random subspaces, IS by dimension, and the models' order by several criteria."""

from pathlib import Path

from singflow import cli
from singflow.artifacts.tables import read_table


class Flags(cli.Selection):
    """Draw the controls: excess over random subspaces, IS by dimension, and the models' order by several criteria."""

    controls: Path
    orders: Path
    table: Path
    png: Path
    pdf: Path


def main(flags: Flags) -> None:
    from singflow.figures.models import controls
    from singflow.figures.style import save

    excess, orders, table = (read_table(path) for path in (flags.controls, flags.orders, flags.table))
    save(controls(flags.spaces, flags.models, excess, orders, table), flags.png, flags.pdf)


if __name__ == "__main__":
    cli.run(main, Flags)
