"""Draw figure 12: accuracy before and after translation over models, and write it as a table."""

from pathlib import Path

from singflow import cli
from singflow.analyses.probes import gather
from singflow.artifacts.files import read_json
from singflow.artifacts.tables import read_models, write_table


class Flags(cli.Selection):
    """Draw figure 12: accuracy before and after translation over models, and write it as a
    table.
    """

    probes: Path
    table: Path
    confidence: float
    output: Path
    png: Path
    pdf: Path


def main(flags: Flags) -> None:
    from singflow.figures.probes import fig12
    from singflow.figures.style import save

    models = read_models(flags.table)
    probes = flags.each(lambda s, m: read_json(flags.probes / s / f"{m}.json"))
    rows = gather(probes, models, flags.confidence)
    write_table(flags.output, rows)
    save(fig12(rows, models, flags.confidence), flags.png, flags.pdf)


if __name__ == "__main__":
    cli.run(main, Flags)
