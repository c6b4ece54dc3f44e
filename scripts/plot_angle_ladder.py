"""Draw figure 10: one image steered by growing angles, with its table."""

from pathlib import Path

from singflow import cli
from singflow.analyses.tables import qualify
from singflow.artifacts.shards import read_manifest
from singflow.artifacts.tables import read_models, read_parquet, write_table


class Flags(cli.Selection):
    """Draw figure 10: one image steered by growing angles, with its table."""

    pictures: Path
    manifest: Path
    output: Path
    table: Path
    png: Path
    pdf: Path


def main(flags: Flags) -> None:
    from singflow.figures.pictures import fig10, ladder_table
    from singflow.figures.style import save

    sets = flags.each(lambda s, m: read_parquet(flags.pictures / s / f"{m}.parquet", "pictures"))
    models = read_models(flags.table)
    write_table(flags.output, qualify(ladder_table(sets, read_manifest(flags.manifest)), models))
    save(fig10(sets, models), flags.png, flags.pdf)


if __name__ == "__main__":
    cli.run(main, Flags)
