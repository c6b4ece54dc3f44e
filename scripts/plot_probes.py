"""Draw figure 12: accuracy before and after translation over models, and write it as a table."""

from pathlib import Path

from singflow import cli
from singflow.probe import gather
from singflow.store import read_json, read_models, write_table


class Flags(cli.Command):
    """Draw figure 12: accuracy before and after translation over models, and write it as a table."""

    models: list[str]
    spaces: list[str]
    probes: Path
    table: Path
    confidence: float
    output: Path
    png: Path
    pdf: Path


def main(flags: Flags) -> None:
    from singflow.figures import save
    from singflow.figures_probe import fig12

    models = read_models(flags.table)
    probes = {s: {m: read_json(flags.probes / s / f"{m}.json") for m in flags.models} for s in flags.spaces}
    rows = gather(probes, models, flags.confidence)
    write_table(flags.output, rows)
    save(fig12(rows, models, flags.confidence), flags.png, flags.pdf)


if __name__ == "__main__":
    cli.run(main, Flags)
