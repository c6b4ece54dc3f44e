"""Draw figure 4: |AS| per label."""

from pathlib import Path

from singflow import cli
from singflow.artifacts.tables import read_models, read_parquet
from singflow.figures.parameters import PlotLabels


class Flags(PlotLabels, cli.Selection):
    """Draw figure 4: |AS| per label."""

    scores: Path
    table: Path
    png: Path
    pdf: Path


def main(flags: Flags) -> None:
    from singflow.figures.models import fig4
    from singflow.figures.style import save

    scores = flags.each(lambda s, m: read_parquet(flags.scores / s / f"{m}.parquet", "scores"))
    save(fig4(scores, read_models(flags.table), flags.labels), flags.png, flags.pdf)


if __name__ == "__main__":
    cli.run(main, Flags)
