from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from singflow.cli import log
from singflow.commands.options import Models, Spaces
from singflow.errors import InputError


def import_translator(
    release: Annotated[
        Path,
        typer.Option(
            help="One translator of the authors' release, or the folder of all; "
            "or what save_pretrained or a study wrote."
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
    from singflow.artifacts.made import Made
    from singflow.artifacts.tensors import SCHEMA_VERSION, write_tensors
    from singflow.config.registry import resolve_models, resolve_spaces
    from singflow.towers.classifiers import feature_width, load_classifier, weights_sha256
    from singflow.towers.spaces import load_image_tower
    from singflow.translators.linear import check_made, imported_path
    from singflow.translators.released import read_offered

    entry = resolve_models(models, [model])[model]
    target = resolve_spaces(spaces, [space])[space]
    translator, facts = read_offered(release, f"{entry.source}/{entry.id}")

    def here(key: str, name: str, tower: Callable[[], Any]) -> str | None:
        """Hash of weights, if the translator states one and they are here."""
        why = "it does not state their hash"
        if key in facts:
            try:
                return weights_sha256(tower())
            except InputError as error:
                why = str(error)
        log.warning(f"{release}: the weights of {name} were not compared: {why}")
        return None

    check_made(release, facts, Made(entry.identity), Made(target.identity))
    of_model = here("weights_sha256", model, lambda: load_classifier(entry).model)
    of_space = here("space_sha256", space, lambda: load_image_tower(target))
    check_made(release, facts, Made(weights=of_model), Made(weights=of_space))
    shape = target.dim, entry.feature_dim or feature_width(entry)
    if translator.weight.shape != shape:
        raise InputError(
            f"{release}: has shape {translator.weight.shape}, but {model} -> {space} needs {shape}"
        )
    path = imported_path(space, model)
    # no software versions: a study names this file by its hash, which must be the same everywhere
    metadata = {"schema_version": SCHEMA_VERSION, "model": model, "space": space, "kind": "linear"}
    tensors = {"weight": translator.weight, "bias": translator.bias}
    write_tensors(path, tensors, metadata | facts)
    imported = f"imported: [{space}/{model}:{sha256_of(path)[:16]}]"
    log.info(f"{path}: in params.yaml, under translator:\n  {imported}")
