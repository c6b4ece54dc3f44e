"""What the registries offer, and what of it is on this machine."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from singflow.artifacts.made import Made
from singflow.config.registry import (
    MODELS,
    SPACES,
    ConSEEntry,
    FeaturesEntry,
    ModelEntry,
    Registry,
    SpaceEntry,
    read_registry,
    resolve_models,
    resolve_spaces,
)
from singflow.errors import InputError
from singflow.extras import explained
from singflow.towers.weights import lacking
from singflow.translators.reference import find_shards, reference_folder


@dataclass(frozen=True)
class Listed:
    """An entry of a registry."""

    name: str
    source: str
    id: str
    origin: str  # own or packaged
    width: int | None  # of features or embeddings, as far as the entry says it
    classes: int | None  # of the head
    reference: bool  # whether the packaged reference has it
    weights: str  # here, not here, random, imported, or why they cannot be found


def listed_models(path: Path) -> Iterator[Listed]:
    """The packaged models, and those of the user's registry."""
    registry = read_registry(path, MODELS)
    for name, entry in resolve_models(path, list(registry.entries), files=False).items():
        listed = None if entry.class_list else entry.head_classes
        classes = len(entry.kept) if entry.kept else listed
        yield _listed(registry, name, entry, entry.id, entry.feature_dim, classes)


def listed_spaces(path: Path) -> Iterator[Listed]:
    """The packaged spaces, and those of the user's registry."""
    registry = read_registry(path, SPACES)
    for name, entry in resolve_spaces(path, list(registry.entries), files=False).items():
        identifier = entry.text if isinstance(entry, ConSEEntry | FeaturesEntry) else entry.id
        yield _listed(registry, name, entry, identifier, entry.dim, None)


def _listed(
    registry: Registry,
    name: str,
    entry: ModelEntry | SpaceEntry,
    identifier: str,
    width: int | None,
    classes: int | None,
) -> Listed:
    packaged = registry.packaged.get(name)
    origin = "packaged" if registry.own.get(name, packaged) == packaged else "own"
    tower = entry.classifier if isinstance(entry, ConSEEntry) else entry
    shipped = getattr(tower, "weights", "").startswith("package:")
    kind = "features" if isinstance(entry, ModelEntry) else "embeddings"
    held, _ = find_shards(reference_folder("packaged") / kind, Made(entry.identity))
    found = origin, width, classes, shipped and held is not None, _weights(entry)
    return Listed(name, entry.source, identifier, *found)


def _weights(entry: ModelEntry | SpaceEntry) -> str:
    """Whether an entry's weights are here."""
    if entry.source == "features" and isinstance(entry, ModelEntry):
        return "imported"
    if getattr(entry, "weights", "") == "random":
        return "random"
    try:
        with explained():
            return "not here" if any(lacking(entry)) else "here"
    except InputError as error:
        return str(error)
