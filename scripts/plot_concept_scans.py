"""Draw figure 15: the extended concept scans of some labels."""

from pathlib import Path

from singflow import cli
from singflow.config import PlotFig15
from singflow.store import iterate_row_groups, read_models, read_rows, read_table


class Flags(PlotFig15, cli.Command):
    """Draw figure 15: the extended concept scans of some labels."""

    models: list[str]
    spaces: list[str]
    concepts: Path
    spurious: Path
    table: Path
    png: Path
    pdf: Path


def main(flags: Flags) -> None:
    from singflow.figures import save
    from singflow.figures_concepts import choose_labels, fig15

    paths = {s: {m: flags.concepts / s / f"{m}.parquet" for m in flags.models} for s in flags.spaces}
    first = next(iterate_row_groups(paths[flags.spaces[0]][flags.models[0]], ["label"], ["label", "n"]))
    labels = choose_labels(first, flags.labels, 2, "plot_fig15.labels")
    scans = {s: {m: read_rows(path, "label", labels) for m, path in each.items()} for s, each in paths.items()}
    spurious = read_table(flags.spurious, ["space", "model", "label", "concept"])
    save(fig15(scans, read_models(flags.table), spurious, labels, flags.most), flags.png, flags.pdf)


if __name__ == "__main__":
    cli.run(main, Flags)
