"""Draw figure 4: |AS| per label."""

from pathlib import Path

from singflow import cli
from singflow.config import PlotFig4
from singflow.store import read_models, read_parquet


class Flags(PlotFig4, cli.Command):
    """Draw figure 4: |AS| per label."""

    models: list[str]
    spaces: list[str]
    scores: Path
    table: Path
    png: Path
    pdf: Path


def main(flags: Flags) -> None:
    from singflow.figures import save
    from singflow.figures_models import fig4

    scores = {s: {m: read_parquet(flags.scores / s / f"{m}.parquet", "scores") for m in flags.models} for s in flags.spaces}
    save(fig4(scores, read_models(flags.table), flags.labels), flags.png, flags.pdf)


if __name__ == "__main__":
    cli.run(main, Flags)
