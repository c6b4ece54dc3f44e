"""Concept lists and class lists: one phrase per line."""

from pathlib import Path

from singflow.artifacts.files import sha256_of
from singflow.config.registry import ModelEntry
from singflow.config.sections import phrases
from singflow.data.manifest import read_classes
from singflow.errors import InputError, readable_as
from singflow.system import regular


def read_vocabulary(path: Path) -> list[str]:
    """Read the phrases of a text file. Blank lines at its end are ignored."""
    with readable_as("UTF-8 text", path, "name or save it anew"):
        lines = regular(path).read_text(encoding="utf-8-sig").rstrip().splitlines()
    if not lines:
        raise InputError(f"{path}: holds no concepts: write one phrase a line")
    try:
        return phrases(lines, "line")
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None


def read_class_list(path: Path) -> list[str]:
    """Names of a head's classes, from a CSV as in read_classes(), or from one name per line."""
    return read_classes(path).names if path.suffix.lower() == ".csv" else read_vocabulary(path)


def with_classes_and_hashes(
    entry: ModelEntry, registry: Path, name: str, study_classes: Path
) -> ModelEntry:
    """A copy of a model's entry with class names, number of classes and hashes of its local files.

    `study_classes` is for a head without a class list.
    """
    names = read_class_list(Path(entry.class_list)) if entry.class_list else entry.class_names
    source = entry.class_list or ("class_names" if names else str(study_classes))
    of_head = names or read_classes(study_classes).names
    count = len(of_head)
    if entry.classes not in (None, count):
        raise InputError(
            f"{registry}: {name}: classes is {entry.classes}, but {source} has {count}: name the "
            "right file as class_list"
        )
    entry = entry.model_copy(update={"classes": count})
    if entry.kept:
        if entry.kept[-1] >= count:
            raise InputError(
                f"{registry}: {name}: keep_classes {entry.keep_classes} goes beyond the {count} "
                f"classes of {source}: correct it"
            )
        names = [of_head[position] for position in entry.kept]
    hashes = {file: sha256_of(Path(file)) for file in entry.local_files()}
    return entry.model_copy(update={"class_list": None, "class_names": names, "sha256": hashes})
