"""How large a study is: what its jobs ask of memory, and its results of the disk."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

from singflow.artifacts.catalog import CATALOG
from singflow.artifacts.tables import count_rows
from singflow.config.registry import ModelEntry, SpaceEntry
from singflow.data import archives
from singflow.data.reading import class_folders
from singflow.pictures.parameters import Pictures
from singflow.pictures.weights import generates
from singflow.translators.reference import reference_folder

WIDE = 2048  # what an unknown feature_dim counts as
IMAGENET = 1_281_167  # images of a study whose data is not here yet
LOOKED_AT = 10  # class folders or archives whose images are counted


@dataclass(frozen=True)
class Sizes:
    """What the memory of a job grows with."""

    images: int  # of the study, or of its reference where that has more
    rows: int  # of the largest shard
    feature_dim: int  # the widest of the job's models; 0: it has none
    space_dim: int


def sizes_of(
    study: Mapping[str, Any],
    results: Path,
    models: Mapping[str, ModelEntry],
    spaces: Mapping[str, SpaceEntry],
) -> Sizes:
    """The sizes of a job of these models and spaces; results: the study's folder."""
    images, extraction = expected_images(study, results), study["extraction"]
    of_reference, shards = reference_size(study)
    shard = max(-(-images // extraction["shards"]), -(-of_reference // shards))
    return Sizes(
        images=max(images, of_reference),
        rows=shard * extraction["views"],
        feature_dim=max((entry.feature_dim or WIDE for entry in models.values()), default=0),
        space_dim=max((entry.dim for entry in spaces.values()), default=0),
    )


def reference_size(study: Mapping[str, Any]) -> tuple[int, int]:
    """Images of a study's reference and shards of one of its towers; (0, 1) without a reference."""
    reference = study["translator"]["reference"]
    return _images_and_shards(reference_folder(reference)) if reference else (0, 1)


@cache
def _images_and_shards(folder: Path) -> tuple[int, int]:
    shards = [len(list(space.glob("shard-*"))) for space in folder.glob("embeddings/*")]
    return count_rows(CATALOG["manifest"].at(folder)), max([1, *shards])


def expected_images(study: Mapping[str, Any], results: Path) -> int:
    """Images of a study; while its data is not here: per_class of every class, or ImageNet's."""
    per_class = study["data"]["per_class"] or 0
    drawn = per_class * _rows(Path(study["data"]["classes"]))
    return images_here(study, results) or drawn or IMAGENET


def images_here(study: Mapping[str, Any], results: Path) -> int:
    """Images in the manifest, or else in the data, told from some of it; 0: it is not here yet."""
    return _images_here(json.dumps(study["data"]), CATALOG["manifest"].at(results))


@cache
def _images_here(section: str, manifest: Path) -> int:
    data = json.loads(section)
    root, table, per_class = Path(data["root"]), Path(data["table"]), data["per_class"]
    if known := count_rows(manifest):
        return known
    if data["source"] == "features":
        return count_rows(CATALOG["manifest"].at(root))
    classes, found = _rows(Path(data["classes"])), 0.0
    if data["source"] == "archive":
        places = [root / archive for archive in archives.fitting(root, data["archives"])]
        found = _estimate(places, archives.estimate_images)
    elif data["source"] != "folder":
        found = count_rows(table) if table.suffix in (".parquet", ".pq") else _rows(table)
    elif root.is_dir():
        folders = class_folders(root)
        found = _estimate(folders, lambda folder: min(_entries(folder), per_class or 10**9))
        classes = max(classes, len(folders))
    return round(min(found, (per_class or found) * classes))


def _estimate(places: list[Path], count: Callable[[Path], float]) -> float:
    some = places[:: -(-len(places) // LOOKED_AT) or 1]
    return len(places) * fmean(map(count, some) if some else [0])


def _entries(folder: Path) -> int:
    return sum(1 for _ in folder.iterdir())


@cache
def _rows(path: Path) -> int:
    """Rows of a CSV table below its header; 0 if the file is missing."""
    if not path.is_file():
        return 0
    with path.open("rb") as file:
        return max(0, sum(1 for _ in file) - 1)


def disk_bytes(
    study: Mapping[str, Any],
    images: int,
    models: Mapping[str, ModelEntry],
    spaces: Mapping[str, SpaceEntry],
) -> int:
    """About what results/<study> will take: its large files, by the shapes of their tensors."""
    rows, width = images * study["extraction"]["views"], study["training"]["width"]
    fits, compared = study["translator"]["folds"] + 1, study["comparison"]
    kinds = len(compared["kinds"]) if "networks" in study["analyses"] else 0
    drawn = "pictures" in study["analyses"] and generates(
        Pictures.model_validate(study["pictures"]), spaces.values()
    )
    shown = len(study["pictures"]["images"]) or study["pictures"]["count"]
    pictures = 20 * shown * len(study["pictures"]["seeds"]) if drawn else 0
    total = sum(rows * (4 * space.dim + 12) for space in spaces.values())  # embeddings
    for name, model in models.items():
        dim = model.feature_dim or WIDE
        total += rows * (4 * dim + 12) + 8 * dim * max(1, dim - model.head_classes)  # null basis
        for space in spaces.values():
            total += 4 * fits * dim * space.dim + 150_000 * pictures
            if name in compared["models"]:
                total += 4 * kinds * width * (2 * dim + width + space.dim)
    return total
