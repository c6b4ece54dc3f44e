"""Draw figure 5: the concept scan of one label."""

from pathlib import Path

from singflow import cli
from singflow.config import PlotFig5
from singflow.store import iterate_row_groups, read_models, read_rows


class Flags(PlotFig5, cli.Command):
    """Draw figure 5: the concept scan of one label."""

    models: list[str]
    spaces: list[str]
    concepts: Path
    table: Path
    png: Path
    pdf: Path


def main(flags: Flags) -> None:
    from singflow.figures import save
    from singflow.figures_concepts import choose_labels, fig5

    paths = {s: {m: flags.concepts / s / f"{m}.parquet" for m in flags.models} for s in flags.spaces}
    first = next(iterate_row_groups(paths[flags.spaces[0]][flags.models[0]], ["label"], ["label", "n"]))
    (label,) = choose_labels(first, [flags.label] if flags.label else [], 1, "plot_fig5.label")
    scans = {s: {m: read_rows(path, "label", [label]) for m, path in each.items()} for s, each in paths.items()}
    save(fig5(scans, read_models(flags.table), label, flags.extremes), flags.png, flags.pdf)


if __name__ == "__main__":
    cli.run(main, Flags)
