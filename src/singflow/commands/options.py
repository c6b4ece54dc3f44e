"""Options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

PARAMS = Path("params.yaml")

Params = Annotated[Path, typer.Option(help="The study, a complete params.yaml.")]
Models = Annotated[Path, typer.Option(help="Registry of the models.")]
Spaces = Annotated[Path, typer.Option(help="Registry of the spaces.")]
Remote = Annotated[str | None, typer.Option(help="DVC remote; by default the default one.")]
