import re
from pathlib import Path
from typing import Annotated

import typer

from singflow.cli import log
from singflow.commands.options import Spaces
from singflow.errors import InputError


def import_texts(
    file: Annotated[
        Path,
        typer.Argument(
            help="An .npz of embeddings, and of classes or prompts, as the authors' release has it."
        ),
    ],
    space: Annotated[str, typer.Option(help="Space that the embeddings are of.")] = "clip_vit_l14",
    spaces: Spaces = Path("config/spaces.yaml"),
) -> None:
    """Import embedded texts of others into a space. They then need no text tower."""
    from singflow.config.registry import resolve_spaces
    from singflow.towers.ready_texts import check_texts, read_npz, ready_path, write_ready
    from singflow.towers.spaces import load_text_tower
    from singflow.towers.weights import missing

    entry = resolve_spaces(spaces, [space])[space]
    texts = read_npz(file)
    if not re.fullmatch(r"[A-Za-z0-9_][\w.-]*", file.stem, re.ASCII):
        raise InputError(
            f"{file}: its name must be of letters, digits, '.', '_' and '-': rename it"
        )
    tower = None if missing(entry) else load_text_tower(entry)
    if doubt := check_texts(file, texts, space, entry, tower and tower.embed):
        log.warning(doubt)
    path = ready_path(space, file.stem)
    write_ready(path, texts, entry.identity)
    first, last = next(iter(texts)), next(reversed(texts))
    log.info("%s: %d texts of %s, from %r to %r", path, len(texts), space, first, last)
