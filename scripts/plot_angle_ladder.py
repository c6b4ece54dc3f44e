"""Draw figure 10: one image steered by growing angles, with its table."""

from pathlib import Path

from singflow import cli
from singflow.store import read_manifest, read_models, read_parquet, write_table
from singflow.tables import qualify


class Flags(cli.Command):
    """Draw figure 10: one image steered by growing angles, with its table."""

    models: list[str]
    spaces: list[str]
    pictures: Path
    manifest: Path
    output: Path
    table: Path
    png: Path
    pdf: Path


def main(flags: Flags) -> None:
    from singflow.figures import save
    from singflow.figures_pictures import fig10, ladder_table

    sets = {s: {m: read_parquet(flags.pictures / s / f"{m}.parquet", "pictures") for m in flags.models} for s in flags.spaces}
    models = read_models(flags.table)
    write_table(flags.output, qualify(ladder_table(sets, read_manifest(flags.manifest)), models))
    save(fig10(sets, models), flags.png, flags.pdf)


if __name__ == "__main__":
    cli.run(main, Flags)
