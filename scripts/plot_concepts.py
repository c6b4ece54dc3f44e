"""Draw figure 5: the concept scan of one label."""

from pathlib import Path

from singflow import cli
from singflow.artifacts.tables import iterate_row_groups, read_models, read_rows
from singflow.figures.parameters import PlotConcepts


class Flags(PlotConcepts, cli.Selection):
    """Draw figure 5: the concept scan of one label."""

    concepts: Path
    table: Path
    png: Path
    pdf: Path


def main(flags: Flags) -> None:
    from singflow.figures.concepts import choose_labels, fig5
    from singflow.figures.style import save

    paths = flags.each(lambda s, m: flags.concepts / s / f"{m}.parquet")
    first = next(
        iterate_row_groups(paths[flags.spaces[0]][flags.models[0]], ["label"], ["label", "n"])
    )
    (label,) = choose_labels(first, [flags.label] if flags.label else [], 1, "plot_concepts.label")
    scans = flags.each(lambda s, m: read_rows(paths[s][m], "label", [label]))
    save(fig5(scans, read_models(flags.table), label, flags.extremes), flags.png, flags.pdf)


if __name__ == "__main__":
    cli.run(main, Flags)
