"""Options that several commands have, and the table that several print."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from singflow.errors import printable

if TYPE_CHECKING:
    from singflow.sharing.registries import Listed

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


def print_entries(entries: "Iterable[Listed]", as_json: bool) -> None:
    """Print entries of a registry as a table, or as JSON."""
    if as_json:
        print(json.dumps([asdict(entry) for entry in entries], indent=2))
        return
    rows: list[Sequence[str]]
    rows = [("name", "source", "id", "from", "width", "classes", "reference", "weights")]
    for entry in entries:
        numbers = (entry.width, entry.classes)
        known = ["-" if number is None else str(number) for number in numbers]
        named = (entry.name, entry.source, entry.id, entry.origin)
        state = ("yes" if entry.reference else "-", entry.weights)
        rows.append((*map(printable, named), *known, *map(printable, state)))
    print_table(rows)
