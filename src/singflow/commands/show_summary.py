"""Print the table of a finished study, the order of its models, and the paths of its figures and of its report."""

import sys
from pathlib import Path

from singflow.config import check, read_yaml
from singflow.errors import InputError


def main(params: str) -> None:
    results = Path("results") / check(read_yaml(params), params).study
    try:
        for name in ("summary", "orders"):
            print((results / "tables" / f"{name}.txt").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{results}: the study has not been run: snakemake --cores all") from None
    print("\n".join(map(str, [*sorted((results / "figures").glob("*.png")), *results.glob("report.html")])))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except InputError as error:
        sys.exit(f"error: {error}")
