from pathlib import Path
from typing import Annotated

import typer


def pack_reference(
    results: Annotated[Path, typer.Argument(help="Results folder of a study.")],
    output: Annotated[
        Path, typer.Argument(help="Folder to write, to be named as translator.reference.")
    ],
) -> None:
    """Pack the results of a study as a reference for other studies.

    A reference holds the manifest, features as float16, and embeddings of images and texts.
    """
    from singflow.translators.reference import pack

    size = pack(results, output)
    print(f"{output}: {size / 1e6:.1f} MB")
