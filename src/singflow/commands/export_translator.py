from pathlib import Path
from typing import Annotated

import typer


def export_translator(
    output: Annotated[
        Path, typer.Argument(help="Folder to write: linear.safetensors and its card, README.md.")
    ],
    model: Annotated[str, typer.Option(help="Model that it translates.")],
    space: Annotated[str, typer.Option(help="Space that it translates into.")] = "conse_minilm",
    results: Annotated[
        Path | None,
        typer.Option(help="Results folder of a finished study; by default the packaged reference."),
    ] = None,
) -> None:
    """Write a translator of a study or of the packaged reference as a folder for a model hub."""
    from singflow.cli import limit_threads
    from singflow.sharing.translators import export, fit_packaged, of_study

    limit_threads(1)
    exported = of_study(results, space, model) if results else fit_packaged(space, model)
    path, r2 = export(exported, output), exported.figures["validation_r2"]
    print(f"{path}: R2 {r2:.3f}; with its card in {output / 'README.md'}")
