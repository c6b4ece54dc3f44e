"""Draw figure 1: images beside their equivalents, for every model."""

from pathlib import Path

from singflow import cli
from singflow.store import read_models, read_parquet


class Flags(cli.Command):
    """Draw figure 1: images beside their equivalents, for every model."""

    models: list[str]
    spaces: list[str]
    pictures: Path
    table: Path
    png: Path
    pdf: Path


def main(flags: Flags) -> None:
    from singflow.figures import save
    from singflow.figures_pictures import fig1

    sets = {s: {m: read_parquet(flags.pictures / s / f"{m}.parquet", "pictures") for m in flags.models} for s in flags.spaces}
    save(fig1(sets, read_models(flags.table)), flags.png, flags.pdf)


if __name__ == "__main__":
    cli.run(main, Flags)
