"""Angles and scores in the vision-language space (equations 5 to 8), in degrees."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from singflow.errors import InputError
from singflow.translators.crossfit import CrossFitted
from singflow.translators.ridge import Affine

CACHED_ROWS = 128  # their float64 copies stay in the processor's cache
NO_DIRECTION = (
    "the angle to a zero vector is undefined: look at the image, text or translator that gave it"
)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows (n, m), or one vector (m,), scaled to norm 1, in float64.

    Raises InputError when a row is zero or has NaN.
    """
    wide = vectors.astype(np.float64)
    norms = np.linalg.norm(wide, axis=-1, keepdims=True)
    if not (norms > 0).all():
        raise InputError(NO_DIRECTION)
    return wide / norms


def centred_texts(texts: np.ndarray) -> np.ndarray:
    """Unit texts (T, m) less their mean, which all pictures share; one text stays as it is."""
    wide = texts.astype(np.float64)
    return unit(wide - wide.mean(axis=0) if len(wide) > 1 else wide)


def angle_deg(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Angle between the rows of two arrays.

    It is 2 atan2(||u - v||, ||u + v||) of unit vectors, which is exact near 0 and 180 where arccos
    is not. Raises InputError when a row is zero or has NaN.

    Parameters
    ----------
    a, b : ndarray (n, m) or (m,)
        Rows; a single vector is compared with every row of the other array.

    Returns
    -------
    ndarray (n,)
        Degrees, 0 to 180.

    References
    ----------
    Equation 5 of the paper.
    """
    u, v = unit(a), unit(b)
    apart, together = np.linalg.norm(u - v, axis=-1), np.linalg.norm(u + v, axis=-1)
    return np.degrees(2.0 * np.arctan2(apart, together))


def rescale(equivalent: np.ndarray, original: np.ndarray) -> np.ndarray:
    """Equivalent embeddings (n, m) at the norms of the original ones, in float64 (equation 19).

    Raises InputError when the shapes differ, or when a row is zero or not finite.
    """
    moved, source = np.asarray(equivalent, np.float64), np.asarray(original, np.float64)
    if moved.ndim != 2 or moved.shape != source.shape:
        raise InputError(
            f"equivalent embeddings are {moved.shape} and original ones {source.shape}: "
            "both must be the same (n, m)"
        )
    norms = [np.linalg.norm(vectors, axis=1) for vectors in (moved, source)]
    for name, norm in zip(("equivalent", "original"), norms, strict=True):
        usable = np.isfinite(norm) & (norm > 0)
        if not usable.all():
            row = int(np.argmin(usable))
            raise InputError(
                f"{name} embedding {row} has norm {norm[row]}, "
                "so no direction to keep: leave its image out"
            )
    return moved * (norms[1] / norms[0])[:, None]


def subspace_translator(translator: Affine, basis: np.ndarray) -> Affine:
    """The translator's share of a subspace, T V V^T.

    T minus its share translates equivalent features, so that no feature has to be projected.

    Parameters
    ----------
    translator : Affine
        T (m, d) and c (m,).
    basis : ndarray (d, k)
        Orthonormal basis V of the subspace.

    Returns
    -------
    Affine
        Weight T V V^T (m, d) and bias 0, in float64.
    """
    weight = (translator.weight.astype(np.float64) @ basis) @ basis.T
    return Affine(weight, np.zeros(len(translator.bias)))


def _wide(*arrays: np.ndarray) -> Iterator[tuple[slice, list[np.ndarray]]]:
    """Rows of arrays of equal length, in float64, in blocks."""
    for start in range(0, len(arrays[0]), CACHED_ROWS):
        part = slice(start, start + CACHED_ROWS)
        yield part, [array[part].astype(np.float64) for array in arrays]


@dataclass(frozen=True)
class Removal:
    """Translated features before a subspace is removed, and the part that the removal takes away.

    original and removed are both (n, m). The scores use float64 dot products and no copy of the
    embeddings: an angle is atan2(|a x b|, a . b), where |a x b|^2 is |a|^2 |b|^2 - (a . b)^2. The
    rounding error is below 2e-6 degrees near 0 and 180, where float32 embeddings are no better, and
    far smaller elsewhere. Scores raise InputError when a row is zero.
    """

    original: np.ndarray
    removed: np.ndarray

    @property
    def equivalent(self) -> np.ndarray:
        """Translated features without the removed part: (n, m) float64."""
        return self.original.astype(np.float64) - self.removed

    @cached_property
    def _products(self) -> np.ndarray:
        """|o|^2, o . r, |r|^2, o . e, |e|^2 of original o, removed r and equivalent e: (5, n)."""
        products = np.empty((5, len(self.original)))
        for part, (o, r) in _wide(self.original, self.removed):
            e = o - r
            for row, (a, b) in zip(products, ((o, o), (o, r), (r, r), (o, e), (e, e)), strict=True):
                np.vecdot(a, b, out=row[part])
        return products

    def image_score(self) -> np.ndarray:
        """Image score (IS; equation 8) of every row: the angle between original and equivalent.

        It is in degrees, 0 to 180; exactly 0 where nothing is removed. The area can be computed
        from the original and either the removed part or the equivalent: the shorter of the two is
        taken, which keeps more digits.
        """
        oo, of_removed, rr, product, ee = self._products
        area2 = np.where(rr < ee, oo * rr - of_removed**2, oo * ee - product**2)
        return _angles(area2, product, oo, ee)

    def angles(self, texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Angles of original and equivalent to one text per row.

        Parameters
        ----------
        texts : ndarray (n, m)
            Text embeddings of any norm.

        Returns
        -------
        original, equivalent : ndarray (n,)
            Degrees, 0 to 180.
        """
        products = np.empty((3, len(texts)))
        for part, (o, r, t) in _wide(self.original, self.removed, texts):
            for row, (a, b) in zip(products, ((o, t), (o - r, t), (t, t)), strict=True):
                np.vecdot(a, b, out=row[part])
        before, after, tt = products
        oo, _, _, _, ee = self._products
        original = _angles(oo * tt - before**2, before, oo, tt)
        return original, _angles(ee * tt - after**2, after, ee, tt)

    def attribute_score(self, texts: np.ndarray) -> np.ndarray:
        """Attribute score (AS) toward one text per row.

        Parameters
        ----------
        texts : ndarray (n, m)
            Text embeddings of any norm.

        Returns
        -------
        ndarray (n,)
            Degrees; positive if the removal moves a row closer to its text.

        References
        ----------
        Equation 7 of the paper.
        """
        original, equivalent = self.angles(texts)
        return original - equivalent


@dataclass(frozen=True)
class NullRemoval:
    """Removal of the null component, spanned by a basis (d, k), with translators of all folds."""

    translators: CrossFitted
    basis: np.ndarray

    @cached_property
    def _of_null(self) -> CrossFitted:
        """What the translators make of the null component alone (equation 9), float32."""
        return self.translators.map(
            lambda translator: subspace_translator(translator, self.basis).astype(np.float32)
        )

    def __call__(self, features: np.ndarray, image_id: np.ndarray) -> Removal:
        """The removal from features (n, d) of images (n,)."""
        original = self.translators(features, image_id)
        return Removal(original, self._of_null(features, image_id))


def contrast_deg(removal: Removal, texts: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Contrastive AS: AS toward the own label minus the mean AS toward all other labels.

    A shift toward all texts alike gives 0.

    Parameters
    ----------
    removal : Removal
        Removal for n rows.
    texts : ndarray (L, m)
        Text embeddings of the labels, of any norm.
    own : ndarray of int (n,)
        For each row, the position of its label in texts.

    Returns
    -------
    ndarray (n,)
        Degrees; NaN if there is only one label.
    """
    contrast, toward = np.full(len(own), np.nan), unit(texts)
    if len(texts) < 2:
        return contrast
    for part, (o, r) in _wide(removal.original, removal.removed):
        scores = angles_to_all_deg(unit(o), toward)
        scores -= angles_to_all_deg(unit(o - r), toward)
        mine = scores[np.arange(len(scores)), own[part]]
        contrast[part] = mine - (scores.sum(axis=1) - mine) / (len(texts) - 1)
    return contrast


def _angles(area2: np.ndarray, product: np.ndarray, *squares: np.ndarray) -> np.ndarray:
    """Degrees from squared areas, dot products and squared norms of two vectors per row.

    Raises InputError when a squared norm is not above 0.
    """
    if not all((square > 0).all() for square in squares):
        raise InputError(NO_DIRECTION)
    return np.degrees(np.arctan2(np.sqrt(np.maximum(area2, 0.0)), product))


def remove(features: np.ndarray, translator: Affine, removed: Affine) -> Removal:
    """Translate features with and without a part of them, by two products in the features' type.

    Parameters
    ----------
    features : ndarray (n, d)
        Features f.
    translator : Affine
        T (m, d) and c (m,).
    removed : Affine
        The translator's share of a subspace, as subspace_translator() gives it.

    Returns
    -------
    Removal
        The translated features, and the part of them that the removal takes away.
    """
    both = (of.astype(features.dtype)(features) for of in (translator, removed))
    return Removal(*both)


def angles_to_all_deg(units: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """Angles between unit embeddings (n, m) and unit texts (p, m): (n, p) degrees in their type.

    They are the arccos of one matrix product. In float32 the error is below 1e-4 degrees between 5
    and 175 degrees, where images and texts lie.
    """
    angles = units @ texts.T
    np.arccos(np.clip(angles, -1.0, 1.0, out=angles), out=angles)
    return np.multiply(angles, 180.0 / np.pi, out=angles)
