"""A reference that others can take: what translators are fitted on, without pictures, and half as
large.
"""

from pathlib import Path
from typing import Annotated

import typer


def pack_reference(
    results: Annotated[Path, typer.Argument(help="Results folder of a study.")],
    output: Annotated[
        Path, typer.Argument(help="Folder to write, to be named as translator.reference.")
    ],
) -> None:
    """Copy of a study's results what a reference needs: manifest, features as float16, and embeddings of images and texts."""  # noqa: E501
    from singflow.translators.reference import pack

    size = pack(results, output)
    print(f"{output}: {size / 1e6:.1f} MB")
