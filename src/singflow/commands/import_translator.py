from pathlib import Path
from typing import Annotated

import typer

from singflow.cli import log
from singflow.commands.options import Models, Spaces


def import_translator(
    release: Annotated[
        Path,
        typer.Option(
            help="One translator of the authors' release, or the folder of all; "
            "an aligner of Text-to-concept (.pth); "
            "or what export_translator wrote."
        ),
    ],
    model: Annotated[
        str,
        typer.Option(
            help="Model that it is to translate: a name of the registry, or <source>/<id>."
        ),
    ],
    space: Annotated[str, typer.Option(help="Space that it translates into.")] = "clip_vit_l14",
    models: Models = Path("config/models.yaml"),
    spaces: Spaces = Path("config/spaces.yaml"),
) -> None:
    """Check a translator of others for its model and space, and import it for a study."""
    from singflow.artifacts.files import sha256_of
    from singflow.artifacts.tensors import SCHEMA_VERSION, write_tensors
    from singflow.config.registry import MODELS, read_registry, resolve_models, resolve_spaces
    from singflow.translators.linear import imported_path
    from singflow.translators.released import check_model, check_space, read_offered

    entry = resolve_models(models, [model])[model]
    target = resolve_spaces(spaces, [space])[space]
    found = read_offered(release, f"{entry.source}/{entry.id}")
    entries = read_registry(models, MODELS).entries.items()
    listed = {name: own for name, own in entries if isinstance(own, dict)}
    known = {f"{own.get('source')}/{own.get('id')}": name for name, own in listed.items()}
    for doubt in (
        check_space(found, release, f"{space} of {spaces}", target),
        check_model(found, release, model, entry, known),
    ):
        if doubt:
            log.warning(doubt)
    path = imported_path(space, model)
    # no software versions: a study names this file by its hash, which must be the same everywhere
    metadata = {"schema_version": SCHEMA_VERSION, "model": model, "space": space, "kind": "linear"}
    metadata["released_for"] = found.model
    hashes = {"weights_sha256": found.weights_sha256, "space_sha256": found.space_sha256}
    metadata |= {key: value for key, value in hashes.items() if value} | found.figures
    translator = found.translator
    write_tensors(path, {"weight": translator.weight, "bias": translator.bias}, metadata)
    imported = f"imported: [{space}/{model}:{sha256_of(path)[:16]}]"
    log.info(
        f"{path}: released for {found.model!r}; in params.yaml, under translator:\n  {imported}"
    )
