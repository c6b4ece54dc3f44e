"""SING as a workflow: what an image classifier's head does not see, in words, degrees and pictures.

These are the public names; docs/api.md shows how to use them. Each name is imported when it is
first used.
"""

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # `as` tells type checkers that the name is public
    from singflow.analyses.geometry import NullSpace as NullSpace
    from singflow.analyses.geometry import null_energy as null_energy
    from singflow.analyses.geometry import null_space as null_space
    from singflow.analyses.geometry import remove_null as remove_null
    from singflow.analyses.metrics import Removal as Removal
    from singflow.analyses.metrics import angle_deg as angle_deg
    from singflow.analyses.metrics import contrast_deg as contrast_deg
    from singflow.analyses.metrics import remove as remove
    from singflow.analyses.metrics import subspace_translator as subspace_translator
    from singflow.data.features import save_features as save_features
    from singflow.errors import InputError as InputError
    from singflow.evidence import Evidence as Evidence
    from singflow.measuring import measure as measure
    from singflow.photo.analysis import Steered as Steered
    from singflow.photo.analyzer import Analyzer as Analyzer
    from singflow.photo.analyzer import Result as Result
    from singflow.photo.analyzer import analyze as analyze
    from singflow.results import Study as Study
    from singflow.results import load_study as load_study
    from singflow.results import packaged_reference as packaged_reference
    from singflow.towers.collected import Collected as Collected
    from singflow.towers.collected import collect as collect
    from singflow.towers.live import Classifier as Classifier
    from singflow.towers.live import Space as Space
    from singflow.translators.hub import Translator as Translator

_PUBLIC = {
    "analyses.geometry": ("NullSpace", "null_energy", "null_space", "remove_null"),
    "analyses.metrics": ("Removal", "angle_deg", "contrast_deg", "remove", "subspace_translator"),
    "data.features": ("save_features",),
    "errors": ("InputError",),
    "evidence": ("Evidence",),
    "measuring": ("measure",),
    "photo.analysis": ("Steered",),
    "photo.analyzer": ("Analyzer", "Result", "analyze"),
    "towers.live": ("Classifier", "Space"),
    "results": ("Study", "load_study", "packaged_reference"),
    "towers.collected": ("Collected", "collect"),
    "translators.hub": ("Translator",),
}
_MODULES = {name: module for module, names in _PUBLIC.items() for name in names}
__all__ = sorted(_MODULES)
__version__ = version("singflow")


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    from singflow.extras import check_installed, explained

    if _MODULES[name].startswith(("towers.", "photo.")):  # which import it when they are called
        check_installed("torch")
    with explained():
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
