"""The geometry of a classifier head: what its logits see and what they cannot (equations 1 to 3 and 9)."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import scipy

from singflow.errors import InputError

EPS = {
    "bfloat16": 2.0**-7,
    **{name: float(np.finfo(name).eps) for name in ("float16", "float32", "float64")},
}


@dataclass(frozen=True)
class NullSpace:
    """A split of the feature space.

    singular_values: (min(C, d),) float64, descending, of W, or of W less its mean row for rule `centered`;
    basis: (d, k) float64, orthonormal columns that span the null space; rank: d - k;
    principal: (d, rank) float64, the leading right singular vectors, which span what is left;
    tolerance: the singular value up to which a direction counts as null; rank_stored, rank_float64: ranks of W at the precision in which
    its weights are stored and at float64, whatever the rule.
    """

    singular_values: np.ndarray
    basis: np.ndarray
    principal: np.ndarray
    rank: int
    tolerance: float
    rank_stored: int
    rank_float64: int

    @property
    def orthonormality_error(self) -> float:
        """Largest entry of |V_0^T V_0 - I|; 0 for an empty basis."""
        gram = self.basis.T @ self.basis
        return float(np.abs(gram - np.eye(len(gram))).max(initial=0.0))


def null_space(
    weight: np.ndarray,
    rule: str = "exact",
    energy: float = 1.0,
    rank: int | None = None,
    stored: str | None = None,
) -> NullSpace:
    """Null space of a head's weight matrix W, by one of five rules.

    Singular values are never negative, so a head with d <= C and full rank has the null dimension 0.

    Parameters
    ----------
    weight : ndarray of shape (C, d)
        The head's weight W; computed in float64.
    rule : {"exact", "exact64", "energy", "fixed", "centered"}
        `exact`: the kernel of W at the precision in which its weights are stored (`rank_tolerance`). `exact64`: the same at float64.
        `energy`: all but the fewest leading directions that hold the share `energy` of ||W||_F^2, which are never more than `exact`
        keeps. `fixed`: all but the `rank` leading directions. `centered`: the kernel of W less its mean row, which is what softmax
        cannot see; its tolerance takes the larger of S_1 and sqrt(C) times the norm of the mean row.
    energy : float
        Share, 0 to 1; for rule `energy` alone.
    rank : int, optional
        Number of leading directions kept; for rule `fixed` alone.
    stored : {"bfloat16", "float16", "float32", "float64"}, optional
        Precision in which the weights are stored; by default that of the array.

    Returns
    -------
    NullSpace
        The split of the feature space.

    Raises
    ------
    InputError
        When the weight is no matrix, empty or not finite, when rule `fixed` has no rank or one above min(C, d), or for another precision.

    References
    ----------
    Equations 1 to 3 of the paper.
    """
    if weight.ndim != 2 or not weight.size or not np.isfinite(weight).all():
        raise InputError(
            f"a head's weight must be a finite, non-empty matrix, not shape {weight.shape} or with NaN"
        )
    stored = stored or weight.dtype.name
    if stored not in EPS:
        raise InputError(
            f"weights are stored in {stored}, not in {', '.join(EPS)}: extract the head again"
        )
    matrix = np.asarray(weight, dtype=np.float64)
    mean = matrix.mean(axis=0) if rule == "centered" else np.zeros(matrix.shape[1])
    classes, width = matrix.shape
    _, singular, right = scipy.linalg.svd(
        matrix - mean, full_matrices=classes < width, check_finite=False
    )
    own = scipy.linalg.svdvals(matrix, check_finite=False) if rule == "centered" else singular
    ranks = {
        precision: int((own > rank_tolerance(matrix, float(own[0]), precision)).sum())
        for precision in (stored, "float64")
    }
    scale = max(float(singular[0]), float(np.sqrt(classes) * np.linalg.norm(mean)))
    tolerance = rank_tolerance(matrix, scale, "float64" if rule == "exact64" else stored)
    kept = int((singular > tolerance).sum())
    if rule == "energy":
        kept = min(kept, energy_rank(singular, energy))
    elif rule == "fixed":
        if rank is None or rank > len(singular):
            raise InputError(
                f"projector.rank is {rank}, but a head of shape {weight.shape} has at most {len(singular)} directions"
            )
        kept = rank
    if rule in ("energy", "fixed"):
        tolerance = float(singular[kept]) if kept < len(singular) else 0.0
    return NullSpace(
        singular,
        np.ascontiguousarray(right[kept:].T),
        right[:kept].T,
        kept,
        tolerance,
        ranks[stored],
        ranks["float64"],
    )


def rank_tolerance(weight: np.ndarray, largest: float, stored: str) -> float:
    """Singular value up to which a direction cannot be told from none at the precision in which weights are stored.

    From float32 on NumPy's convention, max(C, d) * eps * S_1. In half precision that is above S_1 itself (10 times, for 1000 x 1280
    weights in bfloat16), so there it is the norm that rounding errors have, each up to eps / 2 times a weight of the mean size:
    eps / 2 * ||W||_F * (1 / sqrt(C) + 1 / sqrt(d)).

    Parameters
    ----------
    weight : ndarray of shape (C, d)
        The head's weight W in float64.
    largest : float
        S_1.
    stored : str
        A key of EPS.

    Returns
    -------
    float
        The tolerance.

    References
    ----------
    numpy.linalg.matrix_rank. A matrix of C x d independent errors of variance s^2 has the norm s * (sqrt(C) + sqrt(d)), nearly.
    """
    eps = EPS[stored]
    if eps > EPS["float32"]:
        classes, width = weight.shape
        return eps / 2 * float(np.linalg.norm(weight)) * (classes**-0.5 + width**-0.5)
    return max(weight.shape) * eps * largest


def energy_rank(singular: np.ndarray, energy: float) -> int:
    """Fewest leading singular values whose squares hold a share of the sum of all squares.

    Parameters
    ----------
    singular : ndarray of shape (k,)
        All singular values, descending.
    energy : float
        The share, 0 to 1.

    Returns
    -------
    int
        At least 1. Where the sums round below the share, or all values are 0, it is k + 1: callers cap it at the exact rank.
    """
    shares = np.cumsum(singular**2) / max(float((singular**2).sum()), np.finfo(np.float64).tiny)
    return int(np.searchsorted(shares, energy)) + 1


def remove_null(features: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Equivalent features: features without their null components.

    Parameters
    ----------
    features : ndarray of shape (n, d)
        Features f.
    basis : ndarray of shape (d, k)
        Orthonormal basis of the null space.

    Returns
    -------
    ndarray of shape (n, d)
        f' = f - P_0 f, computed in float64, returned in the features' type.

    References
    ----------
    Equation 9 of the paper.
    """
    wide = features.astype(np.float64)
    return (wide - (wide @ basis) @ basis.T).astype(features.dtype)


def null_energy(features: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Share of each feature's squared norm that lies in the null space.

    Parameters
    ----------
    features : ndarray of shape (n, d)
        Features f.
    basis : ndarray of shape (d, k)
        Orthonormal basis of the null space.

    Returns
    -------
    ndarray of shape (n,)
        Shares in float64, from 0 to 1; 0 for a zero feature.
    """
    wide = features.astype(np.float64)
    total = np.einsum("nd,nd->n", wide, wide)
    hidden = wide @ basis
    return np.einsum("nk,nk->n", hidden, hidden) / np.where(total > 0, total, 1.0)


def logit_change(weight: np.ndarray, features: np.ndarray, equivalent: np.ndarray) -> np.ndarray:
    """Norm of the change of the logits between two features, ||W (f' - f)||.

    Parameters
    ----------
    weight : ndarray of shape (C, d)
        The head's weight W.
    features, equivalent : ndarray of shape (n, d)
        Features f and f' as they are stored.

    Returns
    -------
    ndarray of shape (n,)
        Norms, computed in float64.

    References
    ----------
    Equation 16.
    """
    change = (equivalent.astype(np.float64) - features.astype(np.float64)) @ weight.astype(
        np.float64
    ).T
    return np.sqrt(np.einsum("nc,nc->n", change, change))


def orthonormal(columns: np.ndarray) -> np.ndarray:
    """Orthonormal basis of the span of columns, by QR.

    Parameters
    ----------
    columns : ndarray of shape (d, k)
        Linearly independent columns; they may be overwritten.

    Returns
    -------
    ndarray of shape (d, k)
        Orthonormal columns.
    """
    basis, _ = scipy.linalg.qr(columns, mode="economic", overwrite_a=True, check_finite=False)
    return basis


def complement(basis: np.ndarray) -> np.ndarray:
    """Orthonormal basis of what a subspace leaves.

    Parameters
    ----------
    basis : ndarray of shape (d, k)
        Orthonormal basis of the subspace.

    Returns
    -------
    ndarray of shape (d, d - k)
        Orthonormal columns, orthogonal to those of basis.
    """
    width, dimension = basis.shape
    if not dimension:
        return np.eye(width)
    return scipy.linalg.qr(basis, check_finite=False)[0][:, dimension:]


def row_span(blocks: Iterable[np.ndarray]) -> np.ndarray | None:
    """Orthonormal basis of the space that differences of a few rows span; a ridge regression on them loses nothing in it.

    Parameters
    ----------
    blocks : iterable of ndarray of shape (n, d)
        The rows. No more of them are looked at than there are dimensions.

    Returns
    -------
    ndarray of shape (d, q), or None
        Orthonormal columns in float64; None where there are d rows or more.
    """
    rows: list[np.ndarray] = []
    for block in blocks:
        rows.append(block.astype(np.float64))
        if sum(map(len, rows)) >= block.shape[1]:
            return None
    differences = np.concatenate(rows)
    differences -= differences[0].copy()
    _, singular, right = scipy.linalg.svd(differences, full_matrices=False, check_finite=False)
    return right[
        singular > max(differences.shape) * np.finfo(np.float64).eps * singular.max(initial=0.0)
    ].T


def coordinate_axes(
    basis: np.ndarray, read: Callable[[], Iterable[np.ndarray]]
) -> tuple[np.ndarray, int]:
    """Directions of principal and then of null coordinates, as far as features differ in them.

    Parameters
    ----------
    basis : ndarray of shape (d, k)
        Orthonormal basis of the null space.
    read : callable
        Gives the features, each time anew: blocks of rows (n, d).

    Returns
    -------
    axes : ndarray of shape (d, q)
        Orthonormal columns in float32; all d of them unless there are few features.
    rank : int
        Number of the principal ones, which come first.
    """
    parts = [complement(basis), basis]
    spans = [row_span(block[: part.shape[1]] @ part for block in read()) for part in parts]
    parts = [part if span is None else part @ span for part, span in zip(parts, spans, strict=True)]
    return np.hstack(parts).astype(np.float32), parts[0].shape[1]


def random_basis(width: int, dimension: int, seed: int, draw: int) -> np.ndarray:
    """Orthonormal basis of a uniformly drawn subspace: the control for the null space.

    Parameters
    ----------
    width : int
        Dimension of the whole space.
    dimension : int
        Dimension of the subspace.
    seed, draw : int
        Seed the generator, together with width and dimension.

    Returns
    -------
    ndarray of shape (width, dimension)
        Orthonormal columns in float64.
    """
    return orthonormal(
        np.random.default_rng([seed, draw, width, dimension]).standard_normal((width, dimension))
    )
