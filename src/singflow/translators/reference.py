"""The images that translators are fitted on: those of the study, or those of its reference."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from singflow.artifacts.catalog import CATALOG
from singflow.artifacts.files import read_header
from singflow.artifacts.made import Made, differences
from singflow.artifacts.tables import count_rows
from singflow.artifacts.tensors import read_tensors
from singflow.config.sections import at_hand, outside
from singflow.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import pandas as pd

    from singflow.artifacts.tensors import Tensors
    from singflow.translators.crossfit import Split

PACKAGED = Path("reference/imagenet507")
SHARDS = ("embeddings", "features")


class Images(Protocol):
    """Images with features and embeddings, in blocks that every pass reads anew."""

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


def whole_features(images: Images) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """image_id and features of view 0, in blocks."""
    for shard, _ in images:
        rows = shard["view"] == 0
        yield shard["image_id"][rows], shard["features"][rows]


def together(manifest: pd.DataFrame) -> pd.Series:
    """What images that count as one have in common: their group, else their content."""
    return manifest["group"] if "group" in manifest else manifest["sha256"]


def reference_folder(reference: str) -> Path:
    """The results folder that translator.reference, which is not null, names."""
    return at_hand(PACKAGED) if reference == "packaged" else outside(reference)


def find_shards(folder: Path, made: Made) -> tuple[Path | None, str]:
    """The folder of shards below a folder that were made so; or None, and in words why not."""
    known, wrong = [], []
    for shard in sorted(folder.rglob("shard-00000.safetensors")):
        theirs, path = Made.read(read_tensors(shard, [])[1]), shard.parent
        known.append(path.relative_to(folder).as_posix())
        if theirs.tower == made.tower:
            if not (words := differences(theirs, made)):
                return path, ""
            wrong.append(f"{path} was made with {words}")
    if wrong:
        return None, wrong[0]
    return (
        None,
        f"{folder} has nothing of this tower; it has {', '.join(known) or 'nothing at all'}",
    )


def check_reference(reference: str, wanted: Mapping[str, Mapping[str, Made]]) -> None:
    """Refuse a reference that is unfinished, lacks a tower of the study, or was made otherwise.

    wanted: what is known of the study's shards before they are made, for every model (`features`)
    and space (`embeddings`).
    """
    folder = reference_folder(reference)
    named = f"translator.reference {reference}: {folder}"
    if not (manifest := CATALOG["manifest"].at(folder)).is_file():
        raise InputError(
            f"{named} holds no data/manifest.parquet: name the results folder of a finished study"
        )
    if (images := count_rows(manifest)) < 2:
        raise InputError(f"{named} has fewer than two images: name another, or null")
    wrong = []
    for kind, towers in wanted.items():
        for name, made in towers.items():
            path, words = find_shards(folder / kind, made)
            if path is None:
                wrong.append(f"{name}: {words}")
                continue
            rows = sum(_shape(shard)[0] for shard in path.glob("shard-*.safetensors"))
            if not rows or rows % images:
                wrong.append(f"{name}: {path} has {rows} rows, a part of its {images} images")
    if wrong:
        raise InputError(
            f"translator.reference {reference} does not serve {'; '.join(wrong)}: write the same "
            "settings, add these models and spaces to that study and run it to its end, or write "
            "reference: null"
        )


def _shape(path: Path) -> tuple[int, int]:
    """Rows and width of a shard."""
    header = json.loads(read_header(path))
    rows, width = next(header[kind]["shape"] for kind in SHARDS if kind in header)
    return rows, width


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
    from singflow.artifacts.shards import read_index

    folder = reference_folder(reference)
    path = CATALOG["manifest"].at(folder)
    manifest = read_index(path, "sha256", "path", "group")
    shared = own["sha256"].isin(manifest["sha256"])
    if shared.any():
        known = manifest["path"][manifest["sha256"].isin(own["sha256"])]
        raise InputError(
            f"{folder}: holds {shared.sum()} of the study's images, its {known.iloc[0]} among "
            "them, which would be scored in sample: write translator.reference: null, or take "
            "these images out of the study"
        )
    return manifest


def _same(folder: Path, mine: Path) -> Path:
    """Shards of a reference that were made as those in `mine`."""
    from singflow.artifacts.shards import shard_path

    own = shard_path(mine, 0)
    path, words = find_shards(folder, Made.read(read_tensors(own, [])[1]))
    if path and (there := _shape(shard_path(path, 0))[1]) != (here := _shape(own)[1]):
        path, words = None, f"{path} was made with width {there} instead of {here}"
    if path is None:
        raise InputError(
            f"{words}: {mine} needs the same: run the reference's study again, or name another "
            "translator.reference, or null"
        )
    return path
