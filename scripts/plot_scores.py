"""Draw figure 3: IS against AS of every image, and their means."""

from pathlib import Path

from singflow import cli
from singflow.artifacts.tables import read_models, read_parquet


class Flags(cli.Selection):
    """Draw figure 3: IS against AS of every image, and their means."""

    scores: Path
    table: Path
    png: Path
    pdf: Path


def main(flags: Flags) -> None:
    from singflow.figures.models import fig3
    from singflow.figures.style import save

    scores = flags.each(lambda s, m: read_parquet(flags.scores / s / f"{m}.parquet", "scores"))
    save(fig3(scores, read_models(flags.table)), flags.png, flags.pdf)


if __name__ == "__main__":
    cli.run(main, Flags)
