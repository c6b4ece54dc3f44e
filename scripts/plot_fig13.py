"""Draw figure 13: one image under null, random and principal perturbations."""

from pathlib import Path

from singflow import cli
from singflow.store import read_models, read_parquet


class Flags(cli.Command):
    """Draw figure 13: one image under null, random and principal perturbations."""

    models: list[str]
    spaces: list[str]
    pictures: Path
    table: Path
    png: Path
    pdf: Path


def main(flags: Flags) -> None:
    from singflow.figures import save
    from singflow.figures_pictures import fig13

    sets = {s: {m: read_parquet(flags.pictures / s / f"{m}.parquet", "pictures") for m in flags.models} for s in flags.spaces}
    save(fig13(sets, read_models(flags.table)), flags.png, flags.pdf)


if __name__ == "__main__":
    cli.run(main, Flags)
