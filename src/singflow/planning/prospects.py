"""What the images of a study can show, said before the study runs."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from singflow.analyses.power import ADVISED, smallest_leak, too_few
from singflow.artifacts.catalog import CATALOG
from singflow.config.registry import ModelEntry
from singflow.config.sections import outside
from singflow.data.imported import with_sizes
from singflow.data.manifest import data_root
from singflow.planning.sizes import WIDE, images_here, reference_size
from singflow.study import Params

log = logging.getLogger("singflow")
PUBLIC = "; Places365's validation set has 36,500 (docs/first-clip.md)"


def check_root(study: Params) -> None:
    """Refuse a folder of images that is not there, unless the images are listed already."""
    if not CATALOG["manifest"].at(Path("results", study.study)).is_file():
        data_root(study.data.source, study.data.root)


def leaks(images: int, study: Params, models: Mapping[str, ModelEntry]) -> dict[str, list[str]]:
    """The smallest leak that so many images show, in words, with the models that it is about."""
    if study.data.source == "features":
        models = with_sizes(outside(study.data.root), dict(models))
    found: dict[str, list[str]] = {}
    for name, entry in models.items():
        found.setdefault(smallest_leak(images, entry.feature_dim or WIDE), []).append(name)
    return found


def say_prospects(
    content: Mapping[str, Any], study: Params, models: Mapping[str, ModelEntry], origin: str
) -> None:
    """Say which leak the images of a study can show; warn if they are too few for a verdict."""
    if study.weights == "random" or not (study.translator.folds or study.translator.reference):
        return
    width = max(entry.feature_dim or WIDE for entry in models.values())
    images = images_here(content, Path("results", study.study))
    if not images and not study.translator.reference:
        said = smallest_leak(round(ADVISED * width), width)
        public = PUBLIC * (study.data.source != "features")
        log.info("%s: a verdict needs many images: %s%s", origin, said, public)
        return
    images += reference_size(content)[0]
    found = leaks(images, study, models)
    for said, names in found.items():
        of = ", ".join(names) if len(found) > 1 else "this study"
        log.info("%s: what %s can show: %s", origin, of, said)
    if too_few(images, width):
        log.warning("%s: the verdict will probably be *cannot tell*: give more images", origin)
