"""Maps of a photo, in colours over the photo."""

import numpy as np
from matplotlib.colors import to_rgb
from PIL import Image

from singflow.figures.style import COLOURS

NEARER, FARTHER = COLOURS[0], COLOURS[5]  # where removal moves an image toward a text, and away
PAPER, INK = 0.5, 0.8  # share of white in the grey photo, and most of a colour over it
WHOLE = (0.0, 0.0, 1.0, 1.0)
RAMP = (256, 16)  # pixels

Box = tuple[float, float, float, float]


def toward_text(photo: Image.Image, values: np.ndarray, most: float, seen: Box) -> Image.Image:
    """A photo under a map of movements (h, w): NEARER above 0, FARTHER below, strongest at `most`.

    seen: the part of the photo that the map covers, in shares.
    """
    left, top, right, bottom = box = _pixels(photo, seen)
    fine = _enlarged(values / (most or 1.0), box).clip(-1, 1)
    colours = np.where(fine[..., None] > 0, to_rgb(NEARER), to_rgb(FARTHER))
    strength = np.abs(fine)[..., None] * INK
    grey = _grey(photo)
    drawn = 0.6 + 0.4 * grey  # paler where the map does not reach
    inside = grey[top:bottom, left:right]
    drawn[top:bottom, left:right] = inside * (1 - strength) + colours * strength
    return Image.fromarray((255 * drawn).round().astype(np.uint8))


def ramp() -> Image.Image:
    """The colours of toward_text(), over a grey photo."""
    return toward_text(Image.new("L", RAMP, 160), np.linspace(-1, 1, RAMP[0])[None], 1.0, WHOLE)


def _grey(photo: Image.Image) -> np.ndarray:
    grey = np.asarray(photo.convert("L"), dtype=np.float64)[..., None] / 255
    return np.repeat(PAPER + (1 - PAPER) * grey, 3, axis=2)


def _pixels(photo: Image.Image, seen: Box) -> tuple[int, int, int, int]:
    left, top, right, bottom = np.clip(seen, 0, 1).tolist()
    sides = left * photo.width, top * photo.height, right * photo.width, bottom * photo.height
    first, above, last, below = map(round, sides)
    first, above = min(first, photo.width - 1), min(above, photo.height - 1)
    return first, above, max(last, first + 1), max(below, above + 1)


def _enlarged(values: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    coarse = Image.fromarray(values.astype(np.float32))
    size = box[2] - box[0], box[3] - box[1]
    return np.asarray(coarse.resize(size, Image.Resampling.BILINEAR), dtype=np.float64)
