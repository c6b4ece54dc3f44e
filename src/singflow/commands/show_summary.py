from collections.abc import Collection
from pathlib import Path

from singflow.artifacts.catalog import CATALOG, NEEDS, asked
from singflow.commands.options import PARAMS, Params
from singflow.errors import InputError, readable_as


def show_summary(params: Params = PARAMS) -> None:
    """Print the summary of a finished study, and the paths of its figures and its report."""
    from singflow.study import read_params

    study = read_params(params)
    print_summary(Path("results") / study.study, study.analyses)


def print_summary(results: Path, analyses: Collection[str] | None = None) -> None:
    """Print the summary of a finished study, and the paths of its figures; None: not the paths."""
    try:
        print(CATALOG["tables/summary.txt"].at(results).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{results}: the study has not been run: singflow run") from None
    if analyses is None:
        return
    shown, figures = asked(analyses), sorted((results / "figures").glob("*.png"))
    figures = [path for path in figures if f"figures/{path.name}" in shown and drawn(path)]
    for path in (*figures, *results.glob("report.html")):
        print(path)


def drawn(figure: Path) -> bool:
    """Whether a figure had data: the PNG of another one holds what it needs."""
    from PIL import Image

    with (
        readable_as("PNG", figure, "remove it, and run the study again"),
        Image.open(figure) as png,
    ):
        return NEEDS not in png.info
