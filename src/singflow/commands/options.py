"""Options that several commands have."""

from pathlib import Path
from typing import Annotated, Literal

import typer

PARAMS = Path("params.yaml")

Params = Annotated[Path, typer.Option(help="The study, a complete params.yaml.")]
Models = Annotated[Path, typer.Option(help="Registry of the models.")]
Spaces = Annotated[Path, typer.Option(help="Registry of the spaces.")]
Device = Annotated[
    Literal["auto", "cpu", "cuda", "mps"],
    typer.Option(
        help="Where towers run. auto: an NVIDIA GPU when there is one; mps: an Apple GPU, untested."
    ),
]
MaxPixels = Annotated[
    int, typer.Option(min=1, max=10**9, help="Pixels; larger images are refused unread.")
]
TowerThreads = Annotated[
    int, typer.Option(min=1, max=1024, help="Threads of the towers, and of what is fitted first.")
]
Remote = Annotated[str | None, typer.Option(help="DVC remote; by default the default one.")]
Reference = Annotated[
    str,
    typer.Option(
        help="Results folder on whose images translators are fitted; packaged: 507 ImageNet images."
    ),
]
