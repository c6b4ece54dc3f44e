"""Draw figures 7 and 8: held-out cosine and MSE of translators, by epoch and loss, and by
architecture.
"""

from pathlib import Path
from typing import Any

from singflow import cli
from singflow.artifacts.files import read_json
from singflow.artifacts.tables import read_models
from singflow.translators.linear import judged_as_networks_are


class Flags(cli.Selection):
    """Draw figures 7 and 8: held-out cosine and MSE of translators, by epoch and loss, and by
    architecture.
    """

    kinds: list[str]
    translators: Path
    table: Path
    png: list[Path]
    pdf: list[Path]


def main(flags: Flags) -> None:
    from singflow.figures.style import save
    from singflow.figures.translators import fig7, fig8

    def of_model(space: str, model: str) -> dict[str, dict[str, Any]]:
        reports = {
            kind: read_json(flags.translators / space / model / f"{kind}.json")
            for kind in ["linear", *flags.kinds]
        }
        return reports | {"linear": judged_as_networks_are(reports["linear"])}

    reports = flags.each(of_model)
    for draw, png, pdf in zip((fig7, fig8), flags.png, flags.pdf, strict=True):
        save(draw(reports, read_models(flags.table)), png, pdf)


if __name__ == "__main__":
    cli.run(main, Flags)
