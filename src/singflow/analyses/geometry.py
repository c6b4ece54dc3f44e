"""Geometry of a classifier head: what its logits see and cannot see (equations 1 to 3 and 9)."""

from dataclasses import dataclass

import numpy as np
import scipy

from singflow.errors import InputError
from singflow.translators.spans import of_span

EPS = {"bfloat16": 2.0**-7}
EPS |= {name: float(np.finfo(name).eps) for name in ("float16", "float32", "float64")}


@dataclass(frozen=True)
class NullSpace:
    """A split of the feature space into null space and principal space.

    singular_values: (min(C, d),) float64, descending, of W, or of W minus its mean row for the rule
    `centered`. basis: (d, k) float64, orthonormal columns that span the null space. rank: d - k.
    principal: (d, rank) float64, the leading right singular vectors, which span the rest.
    tolerance: singular value up to which a direction counts as null. rank_stored, rank_float64:
    rank of W at the precision in which its weights are stored, and at float64, whatever the rule.
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

    W - mean = U diag(S) V^T, where mean is W's mean row for the rule `centered`, and 0 otherwise: a
    direction V_i changes the logits by S_i for each unit of its length. So those with the `rank`
    largest S_i span the principal space, and all others, V_0, the null space: P_0 = V_0 V_0^T. A
    head with d <= C and full rank has the null dimension 0.

    Parameters
    ----------
    weight : ndarray (C, d)
        The head's weight W; the computation is in float64.
    rule : {"exact", "exact64", "energy", "fixed", "centered"}
        `exact`: the kernel of W at the precision in which the weights are stored
        (`rank_tolerance`). `exact64`: the same at float64. `energy`: all but the fewest leading
        directions that hold the share `energy` of ||W||_F^2; never more of them than `exact` keeps.
        `fixed`: all but the `rank` leading directions. `centered`: the kernel of W minus its mean
        row, which is what softmax cannot see; its tolerance uses the larger of S_1 and sqrt(C)
        times the norm of the mean row.
    energy : float
        Share, 0 to 1; for the rule `energy` alone.
    rank : int, optional
        Number of leading directions that are kept; for the rule `fixed` alone.
    stored : {"bfloat16", "float16", "float32", "float64"}, optional
        Precision in which the weights are stored; by default that of the array.

    Returns
    -------
    NullSpace
        The split of the feature space.

    Raises
    ------
    InputError
        When the weight is not a matrix, is empty or not finite; when the rule `fixed` has no rank
        or a rank above min(C, d); or for another precision.

    References
    ----------
    Equations 1 to 3 of the paper.
    """
    if weight.ndim != 2 or not weight.size or not np.isfinite(weight).all():
        raise InputError(
            f"a head's weight must be a finite, non-empty matrix, "
            f"not shape {weight.shape} or with NaN"
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
                f"projector.rank is {rank}, but a head of shape {weight.shape} "
                f"has at most {len(singular)} directions"
            )
        kept = rank
    if rule in ("energy", "fixed"):
        tolerance = float(singular[kept]) if kept < len(singular) else 0.0
    basis, principal = of_span(right[kept:].T), right[:kept].T
    return NullSpace(singular, basis, principal, kept, tolerance, ranks[stored], ranks["float64"])


def rank_tolerance(weight: np.ndarray, largest: float, stored: str) -> float:
    """Singular value up to which a direction counts as null, for weights W stored at a precision.

    From float32 on, it is NumPy's convention, max(C, d) * eps * S_1, with S_1 = `largest`. In half
    precision this would exceed S_1 itself (10 times, for 1000 x 1280 weights in bfloat16). There it
    is the norm of the matrix of rounding errors, which are up to eps / 2 times a weight of mean
    size: eps / 2 * ||W||_F * (1 / sqrt(C) + 1 / sqrt(d)). A C x d matrix of independent errors of
    variance s^2 has a norm of about s * (sqrt(C) + sqrt(d)).
    """
    eps = EPS[stored]
    if eps > EPS["float32"]:
        classes, width = weight.shape
        return eps / 2 * float(np.linalg.norm(weight)) * (classes**-0.5 + width**-0.5)
    return max(weight.shape) * eps * largest


def energy_rank(singular: np.ndarray, energy: float) -> int:
    """Fewest leading singular values whose squares hold a share of the sum of all squares.

    At least 1. Where rounding keeps the sums below the share, or all k values are 0, it is k + 1:
    callers limit it to the exact rank.
    """
    shares = np.cumsum(singular**2) / max(float((singular**2).sum()), np.finfo(np.float64).tiny)
    return int(np.searchsorted(shares, energy)) + 1


def remove_null(features: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Equivalent features: features without their null components.

    Parameters
    ----------
    features : ndarray (n, d)
        Features f.
    basis : ndarray (d, k)
        Orthonormal basis of the null space.

    Returns
    -------
    ndarray (n, d)
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
    features : ndarray (n, d)
        Features f.
    basis : ndarray (d, k)
        Orthonormal basis of the null space.

    Returns
    -------
    ndarray (n,)
        Shares in float64, from 0 to 1; 0 for a zero feature.
    """
    wide = features.astype(np.float64)
    total = np.einsum("nd,nd->n", wide, wide)
    hidden = wide @ basis
    return np.einsum("nk,nk->n", hidden, hidden) / np.where(total > 0, total, 1.0)


def logit_change(weight: np.ndarray, features: np.ndarray, equivalent: np.ndarray) -> np.ndarray:
    """Norm of the change of the logits, ||W (f' - f)||, by row: (n,) float64 (equation 16)."""
    moved = equivalent.astype(np.float64) - features.astype(np.float64)
    change = moved @ weight.astype(np.float64).T
    return np.sqrt(np.einsum("nc,nc->n", change, change))


def orthonormal(columns: np.ndarray) -> np.ndarray:
    """Orthonormal basis of linearly independent columns (d, k), which may be overwritten."""
    basis, _ = scipy.linalg.qr(columns, mode="economic", overwrite_a=True, check_finite=False)
    return basis


def complement(basis: np.ndarray) -> np.ndarray:
    """Orthonormal basis (d, d - k) of the orthogonal complement of a basis (d, k)."""
    width, dimension = basis.shape
    if not dimension:
        return np.eye(width)
    return of_span(scipy.linalg.qr(basis, check_finite=False)[0][:, dimension:])


def random_basis(width: int, dimension: int, seed: int, draw: int) -> np.ndarray:
    """Orthonormal basis (width, dimension) of a uniformly drawn subspace, in float64.

    seed and draw seed the generator, together with width and dimension.
    """
    return orthonormal(
        np.random.default_rng([seed, draw, width, dimension]).standard_normal((width, dimension))
    )
