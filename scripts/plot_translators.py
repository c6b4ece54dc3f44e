"""Draw figures 7 and 8: held-out cosine and MSE of translators, by epoch and loss, and by architecture."""

from pathlib import Path

from singflow import cli
from singflow.artifacts.files import read_json
from singflow.artifacts.tables import read_models


class Flags(cli.Selection):
    """Draw figures 7 and 8: held-out cosine and MSE of translators, by epoch and loss, and by architecture."""

    kinds: list[str]
    translators: Path
    table: Path
    png: list[Path]
    pdf: list[Path]


def main(flags: Flags) -> None:
    from singflow.figures.style import save
    from singflow.figures.translators import fig7, fig8

    reports = flags.each(lambda s, m: {k: read_json(flags.translators / s / m / f"{k}.json") for k in ["linear", *flags.kinds]})
    for draw, png, pdf in zip((fig7, fig8), flags.png, flags.pdf, strict=True):
        save(draw(reports, read_models(flags.table)), png, pdf)


if __name__ == "__main__":
    cli.run(main, Flags)
