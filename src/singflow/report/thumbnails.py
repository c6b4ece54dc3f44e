"""Sprite sheets: many small pictures in few files."""

import base64
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image, ImageOps

from singflow import cli
from singflow.data.images import read_unchanged
from singflow.parallel import map_ahead

COLUMNS = 32  # tiles in a row, and rows in a sheet
HIGHEST = 16383  # longest side of a WebP file, in pixels
FEW, LARGE, SMALL = 1000, 112, 48  # sides of tiles in pixels: LARGE up to FEW images, else SMALL


def tile_side(count: int) -> int:
    """Side of a tile in pixels, for a page with `count` images."""
    return LARGE if count <= FEW else SMALL


def tile(image: Image.Image, side: int) -> Image.Image:
    """The whole image, resized onto a white square of `side` pixels."""
    return ImageOps.pad(image, (side, side), Image.Resampling.BICUBIC, color="white")


def sheets(tiles: Iterable[Image.Image], side: int) -> list[str]:
    """Sheets as base64 WebP, with up to COLUMNS rows of COLUMNS tiles in reading order."""
    content, open_sheet, count = [], Image.new("RGB", (side * COLUMNS, side * COLUMNS), "white"), 0
    for count, picture in enumerate(tiles, 1):
        place = (count - 1) % COLUMNS**2
        open_sheet.paste(picture, (place % COLUMNS * side, place // COLUMNS * side))
        if count % COLUMNS**2 == 0:
            content.append(_webp(open_sheet))
            open_sheet = Image.new("RGB", open_sheet.size, "white")
    if count % COLUMNS**2:
        rows = -(-(count % COLUMNS**2) // COLUMNS)
        content.append(_webp(open_sheet.crop((0, 0, open_sheet.width, rows * side))))
    return content


def thumbnails(images: pd.DataFrame, root: Path, max_pixels: int, threads: int) -> list[str]:
    """Sheets of the images in some rows of a manifest, in their order."""
    side = tile_side(len(images))

    def small(row: Any) -> Image.Image:
        return tile(read_unchanged(root, row, max_pixels), side)

    tiles = map_ahead(small, images.itertuples(index=False), threads)
    return sheets(cli.progress(tiles, len(images), "images", "thumbnails"), side)


def figure_image(image: Image.Image, width: int) -> str:
    """A figure as base64 WebP, at most `width` pixels wide."""
    flat = image.convert("RGB")
    scale = min(1.0, width / flat.width, HIGHEST / flat.height)
    if scale < 1:
        size = max(1, round(flat.width * scale)), round(flat.height * scale)
        flat = flat.resize(size, Image.Resampling.LANCZOS)
    return _webp(flat, 80)


def _webp(image: Image.Image, quality: int = 50) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=quality, method=2)
    return base64.b64encode(buffer.getvalue()).decode()
