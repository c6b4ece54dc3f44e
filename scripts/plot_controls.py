"""Draw the removal of random subspaces: excess over random subspaces, and IS by dimension."""

from pathlib import Path

from singflow import cli
from singflow.artifacts.tables import read_table


class Flags(cli.Selection):
    """Draw the removal of random subspaces: excess over random subspaces, and IS by dimension."""

    controls: Path
    table: Path
    png: Path
    pdf: Path


def main(flags: Flags) -> None:
    from singflow.figures.models import controls
    from singflow.figures.style import save

    excess, table = read_table(flags.controls), read_table(flags.table)
    save(controls(flags.spaces, flags.models, excess, table), flags.png, flags.pdf)


if __name__ == "__main__":
    cli.run(main, Flags)
