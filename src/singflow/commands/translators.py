"""The translators that are at hand."""

import json
from dataclasses import asdict
from typing import Annotated

import typer


def translators(
    as_json: Annotated[bool, typer.Option("--json", help="Everything, as JSON.")] = False,
) -> None:
    """List the translators of the packaged reference, imported ones, and those of the studies under results/."""
    from singflow.cli import limit_threads
    from singflow.sharing.translators import at_hand

    limit_threads(1)
    found = list(at_hand())
    if as_json:
        print(json.dumps([asdict(each) for each in found], indent=2))
        return
    header = ("from", "space", "model", "R2", "rows", "weights", "file")
    rows = [
        (
            each.origin,
            each.space,
            each.model,
            "-" if each.r2 is None else f"{each.r2:.3f}",
            "-" if each.rows is None else str(each.rows),
            (each.weights_sha256 or "-")[:12],
            (each.sha256 or "-")[:16],
        )
        for each in found
    ]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for cells in (header, *rows):
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
        )
