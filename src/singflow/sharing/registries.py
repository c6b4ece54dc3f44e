"""What the registries offer, and what of it is on this machine."""

from pathlib import Path
from typing import Any

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
from singflow.study import in_packaged_reference
from singflow.towers.weights import lacking


def listed_models(path: Path) -> list[dict[str, Any]]:
    """The packaged models, and those of the user's registry."""
    registry, rows = read_registry(path, MODELS), []
    for name, entry in resolve_models(path, list(registry.entries), files=False).items():
        listed = None if entry.class_list else entry.head_classes
        classes = len(entry.kept) if entry.kept else listed
        rows.append(_row(registry, name, entry, entry.id, entry.feature_dim, classes))
    return rows


def listed_spaces(path: Path) -> list[dict[str, Any]]:
    """The packaged spaces, and those of the user's registry."""
    registry, rows = read_registry(path, SPACES), []
    for name, entry in resolve_spaces(path, list(registry.entries), files=False).items():
        identifier = entry.text if isinstance(entry, ConSEEntry | FeaturesEntry) else entry.id
        rows.append(_row(registry, name, entry, identifier, entry.dim, None))
    return rows


def _row(
    registry: Registry,
    name: str,
    entry: ModelEntry | SpaceEntry,
    identifier: str,
    width: int | None,
    classes: int | None,
) -> dict[str, Any]:
    packaged = registry.packaged.get(name)
    return {
        "name": name,
        "source": entry.source,
        "id": identifier,
        "origin": "packaged" if registry.own.get(name, packaged) == packaged else "own",
        "width": width,  # of features or embeddings, as far as the entry says it
        "classes": classes,  # of the head
        "reference": in_packaged_reference(entry),
        "weights": _weights(entry),
    }


def _weights(entry: ModelEntry | SpaceEntry) -> str:
    """Whether an entry's weights are here, or why they cannot be found."""
    if entry.source == "features" and isinstance(entry, ModelEntry):
        return "imported"
    if getattr(entry, "weights", "") == "random":
        return "random"
    try:
        with explained():
            return "not here" if any(lacking(entry)) else "here"
    except InputError as error:
        return str(error)
