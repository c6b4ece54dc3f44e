"""Decode images to upright 8-bit RGB, whatever a file holds, and draw the boxes of views."""

from __future__ import annotations

import hashlib
import io
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from singflow.data import archives
from singflow.errors import InputError, printable

if TYPE_CHECKING:
    from PIL import Image

# The decoders of other formats run programs, or are hardly maintained.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
# Most bytes of a file: for every pixel (four channels of 16 bits), and for everything else.
MOST_BYTES = (8, 2**26)
# Longer by shorter side. Towers resize the shorter side to a fixed length, whatever the longer.
MOST_OBLONG = 50
LONGEST_ASPECT = 4.0 / 3.0

ANY = 2**62  # pixels; None would fail in a thread that is inside Pillow's check
_lock, _inside, _limit = Lock(), 0, None  # of any_size()


@contextmanager
def any_size() -> Iterator[None]:
    """Lift Pillow's limit on pixels, which is that of the process, for threads that may overlap."""
    from PIL import Image

    global _inside, _limit
    with _lock:
        if not _inside:
            _limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, ANY
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                Image.MAX_IMAGE_PIXELS = _limit


class Unusable(Exception):
    """An image that cannot be used. The message is the reason."""


def read(path: Path, max_pixels: int) -> bytes:
    """Read an image file. A file that is too large for an image of `max_pixels` is Unusable."""
    facts = path.stat()
    if not stat.S_ISREG(facts.st_mode):
        raise Unusable("unreadable: not a regular file")
    _check_size(facts.st_size, max_pixels)
    return path.read_bytes()


def _check_size(size: int, max_pixels: int) -> None:
    if size > MOST_BYTES[0] * max_pixels + MOST_BYTES[1]:
        raise Unusable(f"absurdly large: {size} bytes, data.max_pixels is {max_pixels}")


def read_image(root: Path, image: Any, max_pixels: int) -> bytes:
    """Read an image of the study; `image` is a row of the manifest or a Candidate."""
    if not getattr(image, "archive", ""):
        return read(root / image.path, max_pixels)
    _check_size(image.bytes, max_pixels)
    try:
        return archives.read(root / image.archive, image.offset, image.bytes)
    except InputError as error:
        raise Unusable(f"unreadable: {error}") from None


def decode(content: bytes, max_pixels: int) -> Image.Image:
    """Decode the first frame of a file as upright 8-bit RGB. Transparency is laid over white."""
    from PIL import Image, UnidentifiedImageError

    if not content:
        raise Unusable("empty file")
    try:
        with any_size(), Image.open(io.BytesIO(content), formats=FORMATS) as image:
            return upright(image, max_pixels)
    except Unusable:
        raise
    except UnidentifiedImageError:
        raise Unusable(f"not an image, or none of {', '.join(FORMATS)}: convert it") from None
    except Exception as error:  # noqa: BLE001 (Pillow's decoders raise whatever a damaged file provokes)
        raise Unusable(f"truncated or corrupt: {printable(str(error))}") from None


def upright(image: Image.Image, max_pixels: int) -> Image.Image:
    """Turn an open image into upright 8-bit RGB."""
    from PIL import ImageOps

    if image.width * image.height > max_pixels:
        raise Unusable(
            f"absurdly large: {image.width} x {image.height} pixels, data.max_pixels is "
            f"{max_pixels}"
        )
    if max(image.size) > MOST_OBLONG * min(image.size):
        raise Unusable(
            f"absurdly oblong: {image.width} x {image.height} pixels, more than {MOST_OBLONG} to "
            "1: cut it"
        )
    with any_size():
        image.load()
    ImageOps.exif_transpose(image, in_place=True)
    return _rgb(image)


def _rgb(image: Image.Image) -> Image.Image:
    from PIL import Image

    if image.mode.startswith("I;16"):
        grey = np.round(np.asarray(image, dtype=np.float64) / 257).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if image.mode in ("I", "F"):
        raise Unusable(
            "32-bit pixels have no agreed brightness range: convert the file to 8 or 16 bits"
        )
    if image.has_transparency_data:
        overlay = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", overlay.size, "white"), overlay)
    return image if image.mode == "RGB" else image.convert("RGB")


def read_unchanged(root: Path, row: Any, max_pixels: int) -> Image.Image:
    """Read and decode an image of the manifest. InputError if it has changed since."""
    path = root / row.path
    again = "run build_manifest again (snakemake --cores all --forcerun build_manifest)"
    try:
        content = read_image(root, row, max_pixels)
        if hashlib.sha256(content).hexdigest() != row.sha256:
            raise InputError(f"{path}: has changed since the manifest was built: {again}")
        return decode(content, max_pixels)
    except OSError as error:
        raise InputError(
            f"{path}: {error.strerror} since the manifest was built: {again}"
        ) from None
    except Unusable as error:
        raise InputError(f"{path}: {error}: {again}") from None


@dataclass(frozen=True)
class Box:
    """A crop, in fractions of the image's width and height."""

    left: float
    top: float
    right: float
    bottom: float

    def crop(
        self, image: Image.Image, width: int, height: int, resample: Image.Resampling
    ) -> Image.Image:
        """Cut the box out of an image, and resize it to width x height pixels."""
        across, down = image.size
        box = self.left * across, self.top * down, self.right * across, self.bottom * down
        return image.resize((width, height), resample, box=box)


def view_box(seed: int, image_id: int, view: int, smallest: float, largest: float) -> Box:
    """The crop of a view above 0, which depends on (seed, image_id, view) alone.

    Its share of the image's area is between `smallest` and `largest`. Its aspect ratio differs from
    the image's by a factor of at most 4/3.
    """
    generator = np.random.default_rng([seed, image_id, view])
    area = generator.uniform(smallest, largest)
    stretch = np.exp(generator.uniform(-0.5, 0.5) * np.log(LONGEST_ASPECT))
    # The width is at least the area, so that the height is at most 1.
    width = min(1.0, max(area, np.sqrt(area) * stretch))
    height = min(1.0, area / width)
    left, top = generator.uniform(0.0, 1.0 - width), generator.uniform(0.0, 1.0 - height)
    return Box(*map(float, (left, top, min(1.0, left + width), min(1.0, top + height))))
