"""Draw the head extension curves of all models, and write how many directions each model needs as a
table.
"""

from pathlib import Path

from singflow import cli
from singflow.analyses.head_extension import gather
from singflow.artifacts.tables import BASIS, read_models, read_parquet, write_table


class Flags(cli.Selection):
    """Draw the head extension curves of all models, and write how many directions each takes as a
    table.
    """

    head_extensions: Path
    table: Path
    output: Path
    png: Path
    pdf: Path


def main(flags: Flags) -> None:
    from singflow.figures.head_extension import head_extensions
    from singflow.figures.style import save

    models = read_models(
        flags.table,
        [*BASIS, "n_evidence", "unique_r2", "unique_r2_low", "unique_r2_high", "known_zero"],
    )
    curves = flags.each(
        lambda s, m: read_parquet(flags.head_extensions / s / f"{m}.parquet", "head_extensions")
    )
    rows = gather(curves, models)
    write_table(flags.output, rows)
    save(head_extensions(curves, rows, models), flags.png, flags.pdf)


if __name__ == "__main__":
    cli.run(main, Flags)
