"""Concept lists and class lists: one phrase per line."""

from pathlib import Path

from singflow.artifacts.files import sha256_of
from singflow.config.registry import FEW, LEAST, ModelEntry, few
from singflow.config.sections import PACKAGE_DATA, phrases
from singflow.data.manifest import read_classes
from singflow.errors import InputError, readable_as
from singflow.system import regular

IMAGENET, ANIMALS = PACKAGE_DATA / "vocab/imagenet_1k.csv", "0-397"


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


def few_of(names: list[str]) -> str | None:
    """Rows that a head with these classes is cut to, the known leak; None: it has too few rows."""
    return ANIMALS if names == read_classes(IMAGENET).names else few(len(names))


def head_names(entry: ModelEntry, study_classes: Path) -> list[str]:
    """Names of the classes of a whole head; `study_classes` is for an entry without its own."""
    if entry.class_list:
        return read_class_list(Path(entry.class_list))
    return entry.class_names or read_classes(study_classes).names


def with_classes_and_hashes(
    entry: ModelEntry, registry: Path, name: str, study_classes: Path
) -> ModelEntry:
    """A copy of an entry with class names, number of classes and hashes of local files."""
    of_head, own = head_names(entry, study_classes), entry.class_list or entry.class_names
    names = of_head if own else None
    source = entry.class_list or ("class_names" if own else str(study_classes))
    count = len(of_head)
    if entry.classes not in (None, count):
        raise InputError(
            f"{registry}: {name}: classes is {entry.classes}, but {source} has {count}: name the "
            "right file as class_list"
        )
    entry = entry.model_copy(update={"classes": count})
    if entry.keep_classes == FEW:
        if (kept := few_of(of_head)) is None:
            raise InputError(
                f"{name}: the head has {count} classes, and is cut if it has {LEAST}: take {name} "
                "out of models"
            )
        entry = entry.model_copy(update={"keep_classes": kept})
    if entry.kept:
        if entry.kept[-1] >= count:
            raise InputError(
                f"{registry}: {name}: keep_classes {entry.keep_classes} goes beyond the {count} "
                f"classes of {source}: correct it"
            )
        names = [of_head[position] for position in entry.kept]
    hashes = {file: sha256_of(Path(file)) for file in entry.local_files()}
    return entry.model_copy(update={"class_list": None, "class_names": names, "sha256": hashes})
