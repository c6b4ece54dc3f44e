"""The images that translators are fitted on: those of the study, or those of its reference."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from singflow.artifacts.catalog import CATALOG
from singflow.artifacts.files import read_header
from singflow.artifacts.tables import count_rows
from singflow.config.reading import read_yaml
from singflow.config.sections import at_hand, outside
from singflow.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import pandas as pd

    from singflow.artifacts.tensors import Tensors
    from singflow.config.registry import ModelEntry, SpaceEntry
    from singflow.translators.crossfit import Split

log = logging.getLogger("singflow")

PACKAGED = Path("reference/imagenet507")
SHARDS = ("embeddings", "features")
RECORDED = {  # in the metadata of shards
    "tower": "architecture and transform",
    "weights_sha256": "weights",
    "decode": "extraction.decode",
    "precision": "extraction.precision",
}
TOWER = RECORDED | {"width": "width"}
# How far a precision moves IS from that in float32, in degrees: the median over images, for the
# classifiers with the smallest and the largest one (docs/performance.md).
PRICES = {"tf32": (0.0059, 0.026), "float16": (0.0075, 0.039), "bfloat16": (0.048, 0.17)}

Made = Mapping[str, str | None]  # metadata of shards by the names in TOWER; None: not recorded


class Images(Protocol):
    """Images with features and embeddings, in blocks that every pass reads anew.

    manifest: columns split and fold, by image_id. features: where they are, for messages.
    """

    @property
    def manifest(self) -> pd.DataFrame: ...

    @property
    def features(self) -> Any: ...

    def __iter__(self) -> Iterator[tuple[Tensors, np.ndarray]]: ...

    def features_alone(self) -> Iterator[np.ndarray]: ...

    def split(self, folds: int) -> Split: ...


AnyImages = TypeVar("AnyImages", bound=Images)


@dataclass(frozen=True)
class Pool(Generic[AnyImages]):
    """The images of a study that are scored, and those of its reference, if it has one.

    Translators are fitted on `training` alone. D is measured on all images, the reference first.
    """

    scored: AnyImages
    reference: AnyImages | None = None

    @property
    def training(self) -> AnyImages:
        """The images that translators are fitted on."""
        return self.scored if self.reference is None else self.reference

    def __iter__(self) -> Iterator[AnyImages]:
        if self.reference is not None:
            yield self.reference
        yield self.scored


@dataclass(frozen=True)
class Paired:
    """Images with the features of a model and the embeddings of a space, in folders of shards."""

    manifest: pd.DataFrame
    features: Path
    embeddings: Path
    shards: int
    reference: bool = False  # whether the images are those of a reference; the study scores none

    def __iter__(self) -> Iterator[tuple[Tensors, np.ndarray]]:
        """Shards of features, and the embeddings of the same rows; see iterate_pairs()."""
        from singflow.artifacts.shards import iterate_pairs

        return iterate_pairs(self.features, self.embeddings, self.shards, self.manifest)

    def features_alone(self) -> Iterator[np.ndarray]:
        """Features (n, d) of all rows, one shard at a time."""
        from singflow.artifacts.shards import iterate_shards

        return (
            shard["features"]
            for shard in iterate_shards(self.features, "features", self.shards, self.manifest)
        )

    def split(self, folds: int) -> Split:
        """How translators are fitted on these images; a reference always has folds."""
        from singflow.translators.crossfit import split

        return split(self.manifest, folds or int(self.reference))


def reference_folder(reference: str) -> Path:
    """The results folder that translator.reference, which is not null, names."""
    return at_hand(PACKAGED) if reference == "packaged" else outside(reference)


def _towers(folder: Path) -> dict[Path, dict[str, str]]:
    """The metadata of the first shard in every folder of shards."""
    first = sorted(folder.rglob("shard-00000.safetensors"))
    return {path.parent: _read(path)[0] for path in first}


def _read(path: Path) -> tuple[dict[str, str], int]:
    """The metadata of a shard with the width of its rows, and the number of rows."""
    try:
        header = json.loads(read_header(path))
        (rows, width), *_ = (header[kind]["shape"] for kind in SHARDS if kind in header)
        return {**header["__metadata__"], "width": str(width)}, int(rows)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InputError(
            f"{path}: not a shard of a study: remove it, or name another translator.reference"
        ) from None


def find_shards(folder: Path, tower: str, weights_sha256: str | None = None) -> Path | None:
    """The folder of a tower's shards, made with these weights if a hash is given; or None."""
    wanted = {"tower": tower}
    if weights_sha256 is not None:
        wanted["weights_sha256"] = weights_sha256
    found = (path for path, facts in _towers(folder).items() if wanted.items() <= facts.items())
    return next(found, None)


def missing_towers(
    folder: Path, models: dict[str, ModelEntry], spaces: dict[str, SpaceEntry], **made: str
) -> dict[str, list[str]]:
    """Names of models (`features`) and spaces (`embeddings`) of which a folder has no shards.

    made: further metadata that the shards must have, as in precision="float32".
    """
    absent = {}
    wanted: dict[str, Mapping[str, ModelEntry | SpaceEntry]]
    wanted = {"features": models, "embeddings": spaces}
    for kind, entries in wanted.items():
        towers = _towers(folder / kind).values()
        held = {facts.get("tower") for facts in towers if made.items() <= facts.items()}
        if names := [name for name, entry in entries.items() if entry.identity not in held]:
            absent[kind] = names
    return absent


def _closest(
    held: Mapping[Path, Made], made: Made, reference: Path
) -> tuple[Path | None, list[str]]:
    """The shards of a tower that were made most like `made`, and what forbids them, in words.

    None if there are no shards of the tower. Another precision is allowed, and the log says so.
    """
    differing = {
        path: {key for key, value in made.items() if facts.get(key) != value}
        for path, facts in held.items()
        if facts.get("tower") == made["tower"]
    }
    for path, keys in differing.items():
        if {held[path].get("precision"), made["precision"]} <= {"float32", *PRICES}:
            keys.discard("precision")
    closest = min(
        differing,
        key=lambda path: (len(differing[path]), held[path].get("precision") != made["precision"]),
        default=None,
    )
    if closest is None:
        return None, []
    if not differing[closest]:
        _tell_precision(reference, held[closest].get("precision"), made["precision"])
    return closest, [words for key, words in TOWER.items() if key in differing[closest]]


@cache
def _tell_precision(folder: Path, theirs: str | None, own: str | None) -> None:
    """Say once what it costs that the reference in a folder was made in another precision."""
    if theirs == own:
        return
    prices = [
        f"{precision} moves IS by a median of {low} to {high} degrees"
        for precision, (low, high) in PRICES.items()
        if precision in (theirs, own)
    ]
    log.warning(
        f"{folder} was made in {theirs}, and this study is made in {own}: allowed, because "
        f"compared with float32, {' and '.join(prices)} (docs/performance.md)"
    )


def check_reference(
    reference: str, weights: str | None, wanted: Mapping[str, Mapping[str, Made]]
) -> None:
    """Refuse a reference that is unfinished, lacks a tower of the study, or was made otherwise.

    weights: those of the study, registry or random; None: imported. wanted: what is known of the
    study's shards before they are made, for every model (`features`) and space (`embeddings`).
    """
    folder = reference_folder(reference)
    named = f"translator.reference {reference}: {folder}"
    if not (manifest := CATALOG["manifest"].at(folder)).is_file():
        raise InputError(
            f"{named} holds no data/manifest.parquet: name the results folder of a finished study"
        )
    if (images := count_rows(manifest)) < 2:
        raise InputError(f"{named} has fewer than two images: name another, or null")
    params = folder / "params.yaml"
    made_with = read_yaml(params).get("weights") if params.is_file() else None
    if reference == "packaged":
        made_with = "registry"
    if weights and made_with not in (None, weights):
        raise InputError(
            f"{named} was made with weights: {made_with}, and this study has weights: {weights}: "
            "write the same, or translator.reference: null"
        )
    lacking, wrong = [], []
    for kind, towers in wanted.items():
        held = _towers(folder / kind)
        closest = {name: _closest(held, made, folder) for name, made in towers.items()}
        if absent := [name for name, (path, _) in closest.items() if path is None]:
            known = ", ".join(str(path.relative_to(folder / kind)) for path in held)
            lacking.append(f"no {kind} of {', '.join(absent)}; it has those of {known or 'none'}")
        wrong += [
            f"{kind} of {name} with other {', '.join(differing)}"
            for name, (path, differing) in closest.items()
            if path and differing
        ]
        for part in {path for path, _ in closest.values() if path}:
            rows = sum(_read(shard)[1] for shard in part.glob("shard-*.safetensors"))
            if not rows or rows % images:
                wrong.append(
                    f"{rows} rows in {part.relative_to(folder)}, a part of its {images} images"
                )
    if lacking:
        raise InputError(
            f"{named} has {'; '.join(lacking)}: take these models or spaces out of the study, add "
            "them to that study and run it, or write reference: null"
        )
    if wrong:
        raise InputError(
            f"{named} has {'; '.join(wrong)}: write the same settings, run that study to its end, "
            "or write reference: null"
        )


def fingerprint(reference: str | None) -> str | None:
    """SHA-256 of a reference's manifest, and of its shards' headers, which hold hashes of the data.

    None if the study has no reference, or if the reference is missing.
    """
    if reference is None:
        return None
    folder = reference_folder(reference)
    manifest = CATALOG["manifest"].at(folder)
    if not manifest.is_file():
        return None
    digest = hashlib.sha256(manifest.read_bytes())
    for path in [path for kind in SHARDS for path, _ in CATALOG[kind].among(folder)]:
        header = hashlib.sha256(read_header(path)).hexdigest()
        digest.update(f"{path.relative_to(folder)} {path.stat().st_size} {header}\n".encode())
    return digest.hexdigest()


def training_images(reference: str | None, own: Paired) -> Paired:
    """The images that translators are fitted on: the study's own, or those of the reference.

    These must be made in the same way with the same weights, and hold no image of the study.
    """
    from singflow.artifacts.shards import count_shards

    if reference is None:
        return own
    folder = reference_folder(reference)
    features = _same(folder / "features", own.features)
    embeddings = _same(folder / "embeddings", own.embeddings)
    manifest = unseen_images(reference, own.manifest)
    return Paired(manifest, features, embeddings, count_shards(features), reference=True)


def unseen_images(reference: str, own: pd.DataFrame) -> pd.DataFrame:
    """The index of a reference's images. None of them may be among the study's own (by sha256)."""
    from singflow.artifacts.shards import read_index, read_manifest

    folder = reference_folder(reference)
    path = CATALOG["manifest"].at(folder)
    manifest = read_index(path, "sha256")
    shared = own["sha256"].isin(manifest["sha256"])
    if shared.any():
        known = read_manifest(path)["path"][manifest["sha256"].isin(own["sha256"])]
        raise InputError(
            f"{folder}: holds {shared.sum()} of the study's images, its {known.iloc[0]} among "
            "them, which would be scored in sample: write translator.reference: null, or take "
            "these images out of the study"
        )
    return manifest


def _same(folder: Path, mine: Path) -> Path:
    """Shards of a reference that were made as those in `mine`."""
    from singflow.artifacts.shards import shard_path

    facts, _ = _read(shard_path(mine, 0))
    made = {key: facts.get(key) for key in TOWER}
    path, differing = _closest(_towers(folder), made, folder.parent)
    if path is None:
        raise InputError(
            f"{folder}: has nothing of the tower that made {mine}: name another "
            "translator.reference, or null"
        )
    if differing:
        raise InputError(
            f"{path} was made with other {', '.join(differing)} than {mine}: run the reference's "
            "study again, or name another, or null"
        )
    return path
