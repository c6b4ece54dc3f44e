"""Maps of an image, in colours over the image."""

from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.colors import to_rgb
from PIL import Image
from scipy.ndimage import binary_erosion

from singflow.analyses.maps import Maps
from singflow.figures.style import COLOURS

NEARER, FARTHER = COLOURS[0], COLOURS[5]  # where removal moves an image toward a text, and away
SEQUENTIAL = "cividis"
PAPER, INK = 0.5, 0.8  # share of white in the grey photo, and most of a colour over it
AMOUNT = 0.65  # share of a colour of SEQUENTIAL over the photo
WHOLE = (0.0, 0.0, 1.0, 1.0)
RAMP = (256, 16)  # pixels

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Overlays:
    """A photo under each of its maps.

    used_ends, ignored_ends, text_ends: the values at the ends of the colours, as text. All
    texts share text_ends.
    """

    used: Image.Image
    used_ends: tuple[str, str]
    ignored: Image.Image
    ignored_ends: tuple[str, str]
    texts: list[Image.Image]
    text_ends: tuple[str, str]


def overlay(photo: Image.Image, maps: Maps) -> Overlays:
    """All maps over a photo; the maps of texts have one scale."""
    used = min(0.0, float(maps.used.min())), max(0.0, float(maps.used.max()))
    ignored = float(maps.null_energy.min()), float(maps.null_energy.max())
    most = max((float(np.abs(text.contribution_deg).max()) for text in maps.texts), default=0.0)
    return Overlays(
        used=amount(photo, maps.used, used, maps.seen),
        used_ends=(f"{used[0]:.2g}", f"{used[1]:.2g}"),
        ignored=amount(photo, maps.null_energy, ignored, maps.seen),
        ignored_ends=(f"{100 * ignored[0]:.2g}", f"{100 * ignored[1]:.2g}"),
        texts=[
            toward_text(photo, text.contribution_deg, most, maps.seen, text.beyond)
            for text in maps.texts
        ],
        text_ends=(f"farther -{most:.2g}", f"{most:.2g} nearer"),
    )


def toward_text(
    photo: Image.Image, values: np.ndarray, most: float, seen: Box, beyond: np.ndarray
) -> Image.Image:
    """A photo under a map of movements (h, w): NEARER above 0, FARTHER below, strongest at `most`.

    seen: the part of the photo that the map covers, in shares. Positions that are beyond chance (h,
    w) have an outline.
    """
    box = _pixels(photo, seen)
    fine = _enlarged(values / (most or 1.0), box).clip(-1, 1)
    sides = np.where(fine[..., None] > 0, to_rgb(NEARER), to_rgb(FARTHER))
    drawn = _over(_grey(photo), sides, np.abs(fine)[..., None] * INK, box)
    if beyond.any():
        _outline(drawn, beyond, box)
    return Image.fromarray((255 * drawn).round().astype(np.uint8))


def amount(
    photo: Image.Image, values: np.ndarray, ends: tuple[float, float], seen: Box
) -> Image.Image:
    """A photo under a map of amounts (h, w), in the colours of SEQUENTIAL between two ends."""
    box, (low, high) = _pixels(photo, seen), ends
    fine = _enlarged((values - low) / ((high - low) or 1.0), box).clip(0, 1)
    colours = matplotlib.colormaps[SEQUENTIAL](fine)[..., :3]
    drawn = _over(_grey(photo), colours, np.full((*fine.shape, 1), AMOUNT), box)
    return Image.fromarray((255 * drawn).round().astype(np.uint8))


def keys() -> tuple[Image.Image, Image.Image, Image.Image]:
    """Over a grey photo: the colours of toward_text(), those of amount(), and an outline."""
    grey, signed, square = (
        Image.new("L", RAMP, 160),
        np.linspace(-1, 1, RAMP[0])[None],
        np.ones((1, 1)),
    )
    return (
        toward_text(grey, signed, 1.0, WHOLE, signed > 1),
        amount(grey, signed, (-1.0, 1.0), WHOLE),
        toward_text(grey.crop((0, 0, RAMP[1], RAMP[1])), 0 * square, 1.0, WHOLE, square > 0),
    )


def _grey(photo: Image.Image) -> np.ndarray:
    grey = np.asarray(photo.convert("L"), dtype=np.float64)[..., None] / 255
    return np.repeat(PAPER + (1 - PAPER) * grey, 3, axis=2)


def _pixels(photo: Image.Image, seen: Box) -> tuple[int, int, int, int]:
    left, top, right, bottom = np.clip(seen, 0, 1).tolist()
    sides = left * photo.width, top * photo.height, right * photo.width, bottom * photo.height
    first, above, last, below = map(round, sides)
    first, above = min(first, photo.width - 1), min(above, photo.height - 1)
    return first, above, max(last, first + 1), max(below, above + 1)


def _enlarged(
    values: np.ndarray,
    box: tuple[int, int, int, int],
    by: Image.Resampling = Image.Resampling.BILINEAR,
) -> np.ndarray:
    coarse = Image.fromarray(values.astype(np.float32))
    return np.asarray(coarse.resize((box[2] - box[0], box[3] - box[1]), by), dtype=np.float64)


def _over(
    grey: np.ndarray, colours: np.ndarray, strength: np.ndarray, box: tuple[int, int, int, int]
) -> np.ndarray:
    """Colours over the part of a grey photo that a map covers; the rest becomes paler."""
    left, top, right, bottom = box
    shown = 0.6 + 0.4 * grey
    inside = grey[top:bottom, left:right]
    shown[top:bottom, left:right] = inside * (1 - strength) + colours * strength
    return shown


def _outline(drawn: np.ndarray, beyond: np.ndarray, box: tuple[int, int, int, int]) -> None:
    """A black and a white line inside the positions that are beyond chance."""
    left, top, right, bottom = box
    area, inner = (
        drawn[top:bottom, left:right],
        _enlarged(beyond, box, Image.Resampling.NEAREST) > 0,
    )
    thick = max(1, min(area.shape[:2]) // 100)
    for colour in (0.0, 1.0):
        outer, inner = inner, binary_erosion(inner, np.ones((3, 3)), thick)
        area[outer & ~inner] = colour
