from pathlib import Path
from typing import Annotated

import typer

from singflow.cli import log
from singflow.commands.options import Models, Spaces
from singflow.config.sections import LOCAL
from singflow.errors import InputError

ARRAY = "a file or a folder of files (.npy, .npz, .safetensors, .parquet, .hdf5), or <path>:<key>"


def import_features(
    name: Annotated[
        str, typer.Argument(help=f"Name of the source, a folder in {LOCAL}/features/.")
    ],
    table: Annotated[
        Path | None,
        typer.Option(
            help="Ids and labels, a row for each row of the arrays: CSV, Parquet, a folder of "
            "Parquet files, or a .txt of ids. Not needed if the source exists."
        ),
    ] = None,
    id_column: Annotated[str, typer.Option(help="Column of the ids.")] = "id",
    label_column: Annotated[
        str, typer.Option(help="Column of the labels; without it, the folder in the id.")
    ] = "label",
    features: Annotated[
        str | None, typer.Option(help=f"Features (n, d), the input of the head: {ARRAY}.")
    ] = None,
    head: Annotated[
        str | None, typer.Option(help="Weight (C, d) of the head, and in the same file its bias.")
    ] = None,
    bias: Annotated[str | None, typer.Option(help="Bias (C,), if it is elsewhere.")] = None,
    logits: Annotated[
        str | None, typer.Option(help="The model's logits (n, C), to compare W f + b with.")
    ] = None,
    embeddings: Annotated[
        str | None, typer.Option(help="Embeddings (n, m) of the same rows in the space.")
    ] = None,
    classes: Annotated[
        Path | None,
        typer.Option(help="Names of the head's classes in order: one a line, or a CSV."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Name of the model; by default that of the source.")
    ] = None,
    space: Annotated[
        str | None, typer.Option(help="Name of the space, in config/spaces.yaml.")
    ] = None,
    models: Models = Path("config/models.yaml"),
    spaces: Spaces = Path("config/spaces.yaml"),
) -> None:
    """Import features and embeddings that other programs computed, for data.source: features.

    A source has the rows of one table, and features of any number of models and spaces: call the
    command again for another model or space.
    """
    from singflow.config.registry import (
        MODELS,
        SPACES,
        read_registry,
        resolve_models,
        resolve_spaces,
    )
    from singflow.config.sections import ModelName, Name
    from singflow.data.arrays import find_arrays
    from singflow.data.importing import Offer, checked_name, import_source, study_of

    model = model or name
    known = read_registry(models, MODELS).entries
    model = model if model in known or "/" in model else f"features/{model}"
    for kind, value in (Name, name), (ModelName, model), (Name, space or name):
        checked_name(kind, value)
    if (features is None) != (head is None):
        raise InputError("--features and --head belong together: give both, or neither")
    if (embeddings is None) != (space is None):
        raise InputError("--embeddings and --space belong together: give both, or neither")
    if features is None and (logits or bias or classes):
        raise InputError("--logits, --bias and --classes are of a head: give --features and --head")
    if features is None and embeddings is None:
        raise InputError("nothing to import: give --features and --head, --embeddings and --space")
    resolve_models(models, [model], files=False)
    registered = space in read_registry(spaces, SPACES).entries
    dim = resolve_spaces(spaces, [space], files=False)[space].dim if space and registered else None
    root = Path(LOCAL, "features", name)
    offer = Offer(
        table, id_column, label_column, features, head, bias, logits, embeddings, classes,
        model, space, dim,
    )  # fmt: skip
    for line in import_source(root, offer):
        log.info("%s: %s", root, line)
    if space and not registered:
        log.warning(
            f"{spaces}: has no {space}: add the line\n  {space}: {{source: features, dim: "
            f"{find_arrays(str(embeddings), 2).shape[1]}, text: package:<sentence encoder>, or "
            f"file:{LOCAL}/<texts with their embeddings>.npz}}"
        )
    path = Path("config/studies", f"{name}.yaml")
    if path.exists():
        log.info("%s: is there already, and stays as it is", path)
    elif study := study_of(root):
        from singflow.artifacts.files import write_bytes

        write_bytes(path, study.encode())
        log.info("%s: a study of this source; next: singflow study %s && singflow run", path, name)
