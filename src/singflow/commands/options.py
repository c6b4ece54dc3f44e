"""Options that several commands have, and the table that several print."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from singflow.errors import printable

PARAMS = Path("params.yaml")

Params = Annotated[Path, typer.Option(help="The study, a complete params.yaml.")]
Models = Annotated[Path, typer.Option(help="Your own models, beside the packaged ones.")]
Spaces = Annotated[Path, typer.Option(help="Your own spaces, beside the packaged ones.")]
Device = Annotated[
    Literal["auto", "cpu", "cuda"],
    typer.Option(help="Where towers run. auto: an NVIDIA GPU when there is one."),
]
MaxPixels = Annotated[
    int, typer.Option(min=1, max=10**9, help="Pixels; larger images are refused unread.")
]
TowerThreads = Annotated[
    int, typer.Option(min=1, max=1024, help="Threads of the towers, and of what is fitted first.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print everything as JSON.")]
Remote = Annotated[str | None, typer.Option(help="DVC remote; by default the default one.")]
Reference = Annotated[
    str,
    typer.Option(
        help="Results folder on whose images translators are fitted; packaged: 507 ImageNet images."
    ),
]


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows in columns of even width."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(map(str.ljust, row, widths)).rstrip())


def print_entries(entries: list[dict[str, Any]], as_json: bool) -> None:
    """Print entries of a registry as a table, or as JSON."""
    if as_json:
        print(json.dumps(entries, indent=2))
        return
    rows = [[*entries[0]]]
    for entry in entries:
        cells = ("yes" if cell is True else str(cell or "-") for cell in entry.values())
        rows.append([*map(printable, cells)])
    print_table(rows)
