"""Write the registry entry of one model, completed by what it refers to."""

from pathlib import Path
from typing import Literal

from singflow import cli
from singflow.artifacts.files import sha256_of, write_json
from singflow.config.registry import ModelEntry, resolve_models
from singflow.data.manifest import read_classes
from singflow.data.vocabulary import read_class_list
from singflow.errors import InputError
from singflow.towers.weights import locate


class Flags(cli.Command):
    """Write the registry entry of one model, completed by what it refers to."""

    registry: Path
    model: str
    weights: Literal["registry", "random"]
    classes: Path
    output: Path


def complete(entry: ModelEntry, registry: Path, name: str, study_classes: Path) -> ModelEntry:
    """The entry with the names of its classes, their number before keep_classes, and the hashes of its local files."""
    names = read_class_list(Path(entry.class_list)) if entry.class_list else entry.class_names
    source = entry.class_list or ("class_names" if names else str(study_classes))
    of_head = names or read_classes(study_classes).names
    count = len(of_head)
    if entry.classes not in (None, count):
        raise InputError(f"{registry}: {name}: classes is {entry.classes}, but {source} has {count}: name the right file as class_list")
    if entry.kept:
        if entry.kept[-1] >= count:
            raise InputError(
                f"{registry}: {name}: keep_classes {entry.keep_classes} goes beyond the {count} classes of {source}: correct it"
            )
        names = [of_head[position] for position in entry.kept]
    hashes = {file: sha256_of(Path(file)) for file in entry.local_files()}
    return entry.model_copy(update={"class_list": None, "class_names": names, "classes": count, "sha256": hashes})


def main(flags: Flags) -> None:
    entry = resolve_models(flags.registry, [flags.model], flags.weights)[flags.model]
    entry = complete(entry, flags.registry, flags.model, flags.classes)
    locate(entry)
    write_json(flags.output, entry.model_dump())


if __name__ == "__main__":
    cli.run(main, Flags)
