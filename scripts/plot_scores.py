"""Draw figure 3: IS against AS of every image, and their means."""

from pathlib import Path

from singflow import cli
from singflow.store import read_models, read_parquet


class Flags(cli.Command):
    """Draw figure 3: IS against AS of every image, and their means."""

    models: list[str]
    spaces: list[str]
    scores: Path
    table: Path
    png: Path
    pdf: Path


def main(flags: Flags) -> None:
    from singflow.figures import save
    from singflow.figures_models import fig3

    scores = {s: {m: read_parquet(flags.scores / s / f"{m}.parquet", "scores") for m in flags.models} for s in flags.spaces}
    save(fig3(scores, read_models(flags.table)), flags.png, flags.pdf)


if __name__ == "__main__":
    cli.run(main, Flags)
