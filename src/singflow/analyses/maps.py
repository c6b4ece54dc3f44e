"""Maps: how much each position of an image adds to the movement toward a text by null removal.

A feature f that is a mean over positions has f = mean of F_p, so P_0 f = mean of P_0 F_p, and
T P_0 f is the sum of what the positions contribute. So is AS, with the mean gradient of the angle
along the removal.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from singflow.analyses.metrics import subspace_translator, unit
from singflow.towers.live import Located
from singflow.translators.ridge import Affine

NODES = 32  # of the integral along a removal


@dataclass(frozen=True)
class TextMap:
    """Where in an image the removal of the null component moves it relative to a text.

    as_deg: AS, which is rest_deg, the part without a position, plus the sum of contribution_deg (h,
    w) over positions; positive: toward the text.
    """

    text: str
    as_deg: float
    rest_deg: float
    contribution_deg: np.ndarray


@dataclass(frozen=True)
class Maps:
    """The maps of an image, at least one. seen: as in Located."""

    texts: list[TextMap]
    seen: tuple[float, float, float, float]

    @property
    def strongest_deg(self) -> float:
        """The largest size of a contribution."""
        return max(float(np.abs(text.contribution_deg).max()) for text in self.texts)


def angle_gradients(embedding: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """Gradients (p, m) of the angles of an embedding u (m,) to texts t (p, m), with respect to u.

    They are (cos u - t) / (|u| sin), with u and t of unit length, in degrees; 0 where the angle is
    0 or 180 and has no gradient. Raises InputError when a vector is zero.
    """
    (direction,), toward = unit(embedding[None]), unit(texts)
    across = (toward @ direction)[:, None] * direction - toward
    sines = np.linalg.norm(across, axis=1, keepdims=True)
    along = np.divide(across, sines, out=np.zeros_like(across), where=sines > 1e-12)
    return np.degrees(along / np.linalg.norm(embedding))


def removal_gradients(original: np.ndarray, removed: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """Mean gradients (p, m), in degrees, of the angles to texts along the removal of a part.

    Their product with the removed part is AS, exactly, and not to first order alone: the integral
    of a gradient along a line is the difference at its ends (integrated gradients; Sundararajan,
    Taly and Yan 2017).

    original: (m,), T f + c. removed: (m,), the part of it that the removal takes away. texts:
    (p, m), of any norm.
    """
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    mean = np.zeros(texts.shape)
    for node, weight in zip(nodes, weights, strict=True):
        mean += weight / 2 * angle_gradients(original - (node + 1) / 2 * removed, texts)
    return mean


def contributions(parts: np.ndarray, removed: Affine, gradients: np.ndarray) -> np.ndarray:
    """Movement (p, ..., h, w) of images relative to texts, by positions, in degrees.

    The sum over positions is AS if f is the mean of its parts. parts: (..., h, w, d), F_p of
    images. removed: T P_0, without a bias. gradients: (p, m), of removal_gradients().
    """
    values = parts @ (gradients @ removed.weight).T
    return np.moveaxis(values, -1, 0) / (parts.shape[-3] * parts.shape[-2])


def map_image(
    image: Located,
    translator: Affine,
    basis: np.ndarray,
    texts: Sequence[str],
    embeddings: np.ndarray,
) -> Maps:
    """The maps of an image toward p texts; raises InputError if it has no parts.

    basis: (d, k), V_0. embeddings: of the texts (p, m), of any norm.
    """
    wide, parts = translator.astype(np.float64), image.by_position()
    removed = subspace_translator(translator, basis)
    taken = removed(image.feature)[0]
    gradients = removal_gradients(wide(image.feature)[0], taken, embeddings)
    rows = zip(
        texts,
        (gradients @ taken).tolist(),
        (gradients @ removed.weight @ image.rest).tolist(),
        contributions(parts, removed, gradients),
        strict=True,
    )
    return Maps([TextMap(*row) for row in rows], image.seen)
