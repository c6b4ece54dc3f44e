"""SING as a workflow: what an image classifier's head does not see, in words, degrees and pictures.

These are the public names; docs/api.md shows how to use them. Each name is imported when it is
first used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from singflow.analyses.geometry import NullSpace, null_energy, null_space, remove_null
    from singflow.analyses.metrics import (
        Removal,
        angle_deg,
        contrast_deg,
        remove,
        subspace_translator,
    )
    from singflow.errors import InputError
    from singflow.photo.analysis import Steered
    from singflow.photo.analyzer import Analyzer, Result, analyze
    from singflow.photo.towers import Classifier, Space
    from singflow.results import Study, load_study
    from singflow.translators.linear import Translator

_PUBLIC = {
    "analyses.geometry": ("NullSpace", "null_energy", "null_space", "remove_null"),
    "analyses.metrics": ("Removal", "angle_deg", "contrast_deg", "remove", "subspace_translator"),
    "errors": ("InputError",),
    "photo.analysis": ("Steered",),
    "photo.analyzer": ("Analyzer", "Result", "analyze"),
    "photo.towers": ("Classifier", "Space"),
    "results": ("Study", "load_study"),
    "translators.linear": ("Translator",),
}
_MODULES = {name: module for module, names in _PUBLIC.items() for name in names}
__all__ = [
    "Analyzer",
    "Classifier",
    "InputError",
    "NullSpace",
    "Removal",
    "Result",
    "Space",
    "Steered",
    "Study",
    "Translator",
    "analyze",
    "angle_deg",
    "contrast_deg",
    "load_study",
    "null_energy",
    "null_space",
    "remove",
    "remove_null",
    "subspace_translator",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    from singflow.extras import explained

    with explained():
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
