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
    from singflow.config.reading import read_yaml
    from singflow.config.registry import OpenCLIPEntry, resolve_models, resolve_spaces
    from singflow.towers.classifiers import feature_width
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
    if f"{entry.source}/{entry.id}" != found.model_id:
        entries = {name: each for name, each in read_yaml(models).items() if isinstance(each, dict)}
        named = [name for name, each in entries.items() if f"{each.get('source')}/{each.get('id')}" == found.model_id]
        raise InputError(
            f"{release}: {found.model!r} was fitted for {found.model_id}, but {model} is {entry.source}/{entry.id}: "
            f"write --model {(named or [found.model_id])[0]}, here and in the study"
        )
    width = entry.feature_dim or feature_width(entry)
    if width != in_dim:
        raise InputError(f"{release}: it translates {in_dim} features, but {model} has {width}: it was fitted for another head")
    if entry.weights.startswith("file:") or entry.head_weights:
        log.warning("%s has weights of your own: this translator was fitted for the published ones of %s", model, found.model_id)
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
