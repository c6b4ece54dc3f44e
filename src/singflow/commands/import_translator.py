"""A released translator, for a study."""

from pathlib import Path
from typing import Annotated

import typer

from singflow.cli import log
from singflow.commands.options import Models, Spaces
from singflow.errors import InputError


def import_translator(
    release: Annotated[Path, typer.Option(help="Folder with metadata.yaml and its checkpoint.")],
    model: Annotated[str, typer.Option(help="Model that it is to translate.")],
    space: Annotated[str, typer.Option(help="Space that it translates into.")] = "clip_vit_l14",
    models: Models = Path("config/models.yaml"),
    spaces: Spaces = Path("config/spaces.yaml"),
) -> None:
    """Turn a released translator (a folder with metadata.yaml and its checkpoint) into an artifact that a study can name."""
    from singflow.artifacts.files import sha256_of
    from singflow.artifacts.tensors import SCHEMA_VERSION, write_tensors
    from singflow.config.registry import OpenCLIPEntry, resolve_models, resolve_spaces
    from singflow.translators.linear import imported_path
    from singflow.translators.released import read_release

    entry = resolve_models(models, [model])[model]
    target = resolve_spaces(spaces, [space])[space]
    found = read_release(release)
    out_dim, in_dim = found.translator.weight.shape
    if not isinstance(target, OpenCLIPEntry) or target.id != found.space_id or target.dim != out_dim:
        raise InputError(
            f"{release}: it translates into open_clip's {found.space_id} ({out_dim} dimensions), which {space} of {spaces} is not"
        )
    if entry.feature_dim is None:
        raise InputError(f"{models}: {model} needs its feature_dim, to be compared with the translator's {in_dim}")
    if entry.feature_dim != in_dim:
        raise InputError(f"{release}: it translates {in_dim} features, but {model} has {entry.feature_dim}: name another model")
    path = imported_path(space, model)
    metadata = {  # no software versions: the study names this file by its hash, which must be the same everywhere
        "schema_version": SCHEMA_VERSION,
        "model": model,
        "space": space,
        "kind": "linear",
        "released_for": found.model,
    }
    write_tensors(path, {"weight": found.translator.weight, "bias": found.translator.bias}, metadata)
    log.info(
        "%s: released for %r; in params.yaml, under translator:\n  imported: [%s/%s:%s]",
        path, found.model, space, model, sha256_of(path)[:16],
    )  # fmt: skip
