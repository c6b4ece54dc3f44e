from pathlib import Path

from singflow.artifacts.catalog import CATALOG
from singflow.commands.options import PARAMS, Params
from singflow.errors import InputError


def show_summary(params: Params = PARAMS) -> None:
    """Print the summary of a finished study, and the paths of its figures and its report."""
    from singflow.study import read_params

    print_summary(Path("results") / read_params(params).study)


def print_summary(results: Path) -> None:
    """Print the summary and the paths of a finished study; InputError if it is not finished."""
    try:
        for name in ("tables/summary.txt", "tables/orders.txt"):
            print(CATALOG[name].at(results).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{results}: the study has not been run: singflow run") from None
    for path in (*sorted((results / "figures").glob("*.png")), *results.glob("report.html")):
        print(path)
