"""Draw the pictures of figures 1, 6, 11 and 13: images beside their equivalents, steered, by
translator, and by perturbation.
"""

from pathlib import Path

from singflow import cli
from singflow.artifacts.tables import read_models, read_parquet


class Flags(cli.Selection):
    """Draw the pictures of figures 1, 6, 11 and 13: images beside equivalents of them, steered, by
    translator, and by perturbation.
    """

    pictures: Path
    table: Path
    png: list[Path]
    pdf: list[Path]


def main(flags: Flags) -> None:
    from singflow.figures.pictures import fig1, fig6, fig11, fig13
    from singflow.figures.style import save

    sets = flags.each(lambda s, m: read_parquet(flags.pictures / s / f"{m}.parquet", "pictures"))
    for draw, png, pdf in zip((fig1, fig6, fig11, fig13), flags.png, flags.pdf, strict=True):
        save(draw(sets, read_models(flags.table)), png, pdf)


if __name__ == "__main__":
    cli.run(main, Flags)
