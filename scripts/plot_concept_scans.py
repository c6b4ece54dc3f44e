"""Draw figure 15: the extended concept scans of some labels."""

from pathlib import Path

from singflow import cli
from singflow.artifacts.tables import iterate_row_groups, read_models, read_rows, read_table
from singflow.figures.parameters import PlotConceptScans


class Flags(PlotConceptScans, cli.Selection):
    """Draw figure 15: the extended concept scans of some labels."""

    concepts: Path
    spurious: Path
    table: Path
    png: Path
    pdf: Path


def main(flags: Flags) -> None:
    from singflow.figures.concepts import choose_labels, fig15
    from singflow.figures.style import save

    paths = flags.each(lambda s, m: flags.concepts / s / f"{m}.parquet")
    first = next(
        iterate_row_groups(paths[flags.spaces[0]][flags.models[0]], ["label"], ["label", "n"])
    )
    labels = choose_labels(first, flags.labels, 2, "plot_concept_scans.labels")
    scans = flags.each(lambda s, m: read_rows(paths[s][m], "label", labels))
    spurious = read_table(flags.spurious, ["space", "model", "label", "concept"])
    save(fig15(scans, read_models(flags.table), spurious, labels, flags.most), flags.png, flags.pdf)


if __name__ == "__main__":
    cli.run(main, Flags)
