"""Draw the controls: excess over random subspaces, IS by dimension, and the models' order by several criteria."""

from pathlib import Path

from singflow import cli
from singflow.store import read_table


class Flags(cli.Command):
    """Draw the controls: excess over random subspaces, IS by dimension, and the models' order by several criteria."""

    models: list[str]
    spaces: list[str]
    controls: Path
    orders: Path
    table: Path
    png: Path
    pdf: Path


def main(flags: Flags) -> None:
    from singflow.figures import save
    from singflow.figures_models import controls

    excess, orders, table = (read_table(path) for path in (flags.controls, flags.orders, flags.table))
    save(controls(flags.spaces, flags.models, excess, orders, table), flags.png, flags.pdf)


if __name__ == "__main__":
    cli.run(main, Flags)
