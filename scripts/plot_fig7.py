"""Draw figure 7: held-out cosine and MSE of nonlinear translators by epoch and loss."""

from pathlib import Path

from singflow import cli
from singflow.store import read_json, read_models


class Flags(cli.Command):
    """Draw figure 7: held-out cosine and MSE of nonlinear translators by epoch and loss."""

    models: list[str]
    spaces: list[str]
    kinds: list[str]
    translators: Path
    table: Path
    png: Path
    pdf: Path


def main(flags: Flags) -> None:
    from singflow.figures import save
    from singflow.figures_translators import fig7

    reports = {
        s: {m: {k: read_json(flags.translators / s / m / f"{k}.json") for k in ["linear", *flags.kinds]} for m in flags.models}
        for s in flags.spaces
    }
    save(fig7(reports, read_models(flags.table)), flags.png, flags.pdf)


if __name__ == "__main__":
    cli.run(main, Flags)
