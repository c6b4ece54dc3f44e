"""The photos of a study."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from singflow.analyses.maps import OTHERS
from singflow.config.sections import at_hand
from singflow.data.images import decode, read_unchanged
from singflow.data.manifest import data_root
from singflow.errors import InputError
from singflow.pictures.selection import choose_images

if TYPE_CHECKING:
    from PIL import Image

PACKAGED = Path("config/vocab/packaged.csv")


@dataclass
class Photos:
    """The photos of a study.

    root: folder that the paths in the manifest are relative to; None if the files are not
    available.
    """

    manifest: pd.DataFrame
    root: Path | None

    def sample(self, max_pixels: int) -> "Iterator[tuple[str, Image.Image]]":
        """Hash and image of some photos, drawn from as many labels as possible.

        They are the packaged photos if the files of the study are not available.
        """
        if self.root is None:
            folder = data_root("packaged", "")
            for path in pd.read_csv(at_hand(PACKAGED))["path"]:
                content = (folder / path).read_bytes()
                yield hashlib.sha256(content).hexdigest(), decode(content, max_pixels)
            return
        drawn = choose_images(self.manifest, [], OTHERS + 1, 0)
        for row, image in zip(drawn["sha256"], _read(self.root, drawn, max_pixels), strict=True):
            if image is not None:
                yield row, image


def _read(root: Path, rows: pd.DataFrame, max_pixels: int) -> "Iterator[Image.Image | None]":
    for row in rows.itertuples():
        try:
            yield read_unchanged(root, row, max_pixels)
        except InputError:
            yield None
