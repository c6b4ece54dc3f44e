"""Maps of an image, in colours over the image."""

import matplotlib
import numpy as np
from matplotlib.colors import to_rgb
from PIL import Image, ImageDraw

from singflow.figures.style import COLOURS

NEARER, FARTHER = COLOURS[2], COLOURS[5]  # where removal moves an image toward a text, and away
SEQUENTIAL = "cividis"
PAPER, INK = 0.35, 0.75  # share of white in the grey photo, and most of a colour over it

Box = tuple[float, float, float, float]


def toward_text(
    photo: Image.Image, values: np.ndarray, most: float, seen: Box, beyond: np.ndarray
) -> Image.Image:
    """A photo under a map of movements (h, w): NEARER above 0, FARTHER below, strongest at `most`.

    seen: the part of the photo that the map covers, in shares. Positions that are beyond chance (h,
    w) have an outline.
    """
    grey, box = _grey(photo), _pixels(photo, seen)
    fine = _enlarged(values / (most or 1.0), box).clip(-1, 1)
    sides = np.where(fine[..., None] > 0, to_rgb(NEARER), to_rgb(FARTHER))
    drawn = _over(grey, sides, np.abs(fine)[..., None] * INK, box)
    _outline(drawn, beyond, box)
    return drawn


def amount(
    photo: Image.Image, values: np.ndarray, low: float, high: float, seen: Box
) -> Image.Image:
    """A photo under a map of amounts (h, w), in the colours of SEQUENTIAL from low to high."""
    box = _pixels(photo, seen)
    fine = _enlarged((values - low) / ((high - low) or 1.0), box).clip(0, 1)
    colours = matplotlib.colormaps[SEQUENTIAL](fine)[..., :3]
    return _over(_grey(photo), colours, np.full((*fine.shape, 1), INK * 0.9), box)


def _grey(photo: Image.Image) -> np.ndarray:
    grey = np.asarray(photo.convert("L"), dtype=np.float64)[..., None] / 255
    return np.repeat(PAPER + (1 - PAPER) * grey, 3, axis=2)


def _pixels(photo: Image.Image, seen: Box) -> tuple[int, int, int, int]:
    left, top, right, bottom = np.clip(seen, 0, 1).tolist()
    sides = left * photo.width, top * photo.height, right * photo.width, bottom * photo.height
    first, above, last, below = map(round, sides)
    return first, above, max(last, first + 1), max(below, above + 1)


def _enlarged(values: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    size = box[2] - box[0], box[3] - box[1]
    coarse = Image.fromarray(values.astype(np.float32))
    return np.asarray(coarse.resize(size, Image.Resampling.BILINEAR), dtype=np.float64)


def _over(
    grey: np.ndarray, colours: np.ndarray, strength: np.ndarray, box: tuple[int, int, int, int]
) -> Image.Image:
    """Colours over the part of a grey photo that a map covers; the rest becomes paler."""
    left, top, right, bottom = box
    shown = 0.5 + 0.5 * grey
    inside = grey[top:bottom, left:right]
    shown[top:bottom, left:right] = inside * (1 - strength) + colours * strength
    return Image.fromarray((255 * shown).round().astype(np.uint8))


def _outline(drawn: Image.Image, beyond: np.ndarray, box: tuple[int, int, int, int]) -> None:
    """A line around the positions that are beyond chance."""
    canvas, (height, width) = ImageDraw.Draw(drawn), beyond.shape
    across = np.linspace(box[0], box[2] - 1, width + 1).round().astype(int).tolist()
    down = np.linspace(box[1], box[3] - 1, height + 1).round().astype(int).tolist()
    padded = np.pad(beyond, 1)
    edges = [
        ((across[x], down[y]), (across[x + 1], down[y]))
        for y, x in np.argwhere(padded[:-1, 1:-1] != padded[1:, 1:-1]).tolist()
    ]
    edges += [
        ((across[x], down[y]), (across[x], down[y + 1]))
        for y, x in np.argwhere(padded[1:-1, :-1] != padded[1:-1, 1:]).tolist()
    ]
    thick = max(1, min(drawn.size) // 150)
    for colour, line in (("white", 3 * thick), ("black", thick)):
        for edge in edges:
            canvas.line(edge, fill=colour, width=line)
