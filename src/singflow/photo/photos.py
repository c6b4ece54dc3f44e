"""The photos of a study, and the photo that is nearest to a point of a space."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from singflow.artifacts.shards import iterate_whole
from singflow.data.images import read_unchanged
from singflow.errors import InputError
from singflow.pictures.neighbours import exact_neighbours, first_copies

if TYPE_CHECKING:
    from PIL import Image

PACKAGED = Path("config/vocab/packaged.csv")


@dataclass(frozen=True)
class Neighbour:
    """A photo of the study or reference, and its embedding's angle to a translated feature."""

    image_id: int
    path: str
    angle_deg: float


@dataclass
class Photos:
    """The photos of a study, with their embeddings in a space; embeddings and files may be missing.

    folder: holds the embeddings, in `shards` files. root: folder that the paths in the manifest are
    relative to; None if the files are not available.
    """

    manifest: pd.DataFrame
    folder: Path
    shards: int
    root: Path | None

    def neighbours(self, points: np.ndarray, sha256: str) -> list[Neighbour]:
        """The photo nearest to each of the points (n, m), without photos of the given hash."""
        if not self.folder.is_dir():
            return []
        same = np.flatnonzero(self.manifest["sha256"] == sha256)
        own = np.full(len(points), same[0] if len(same) else -1)
        gallery = partial(iterate_whole, self.folder, "embeddings", self.shards, self.manifest)
        found = exact_neighbours(points, own, gallery, first_copies(self.manifest["sha256"]), 1)
        pairs = zip(found.image_id[:, 0].tolist(), found.angle_deg[:, 0].tolist(), strict=True)
        paths = self.manifest["path"]
        return [Neighbour(number, paths[number], angle) for number, angle in pairs if number >= 0]

    def pictures(self, found: list[Neighbour], max_pixels: int) -> "list[Image.Image | None]":
        """The images of photos; none at all if their files are not available.

        None stands for an image whose file is missing, has changed, or exceeds `max_pixels`.
        """
        if self.root is None:
            return []
        rows = self.manifest.iloc[[photo.image_id for photo in found]]
        return list(_read(self.root, rows, max_pixels))


def _read(root: Path, rows: pd.DataFrame, max_pixels: int) -> "Iterator[Image.Image | None]":
    for row in rows.itertuples():
        try:
            yield read_unchanged(root, row, max_pixels)
        except InputError:
            yield None
