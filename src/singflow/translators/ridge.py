"""Affine maps from features to embeddings: ridge regression from streamed sums (equation 4)."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import scipy
from numpy.typing import DTypeLike

from singflow.errors import InputError

ALIKE = (
    "every held-out embedding is the mean of the training embeddings, so there is nothing to "
    "explain: add images"
)


@dataclass(frozen=True)
class Affine:
    """An affine map T f + c: weight T (m, d), bias c (m,)."""

    weight: np.ndarray
    bias: np.ndarray

    def astype(self, dtype: DTypeLike) -> Self:
        """The same map in another type; arrays that have the type already are shared."""
        weight, bias = (array.astype(dtype, copy=False) for array in (self.weight, self.bias))
        return replace(self, weight=weight, bias=bias)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Embeddings (n, m) of features (n, d)."""
        embeddings = features @ self.weight.T
        embeddings += self.bias
        return embeddings


class RidgeStatistics:
    """Sums over rows that determine every ridge solution and its error on other rows, in float64.

    The memory does not grow with the number of rows. An origin is subtracted from every row: the
    first row, unless another origin is given. Thus a large mean of the features costs no precision.
    """

    def __init__(
        self, width: int, dim: int, origin: tuple[np.ndarray, np.ndarray] | None = None
    ) -> None:
        self.n = 0
        self.origin = origin
        self._x = np.zeros(width)
        self._z = np.zeros(dim)
        self._xx = np.zeros((width, width))
        self._xz = np.zeros((width, dim))
        self._zz = 0.0

    def update(self, features: np.ndarray, embeddings: np.ndarray) -> None:
        """Add rows (n, d) and (n, m); raises InputError if a value is NaN or infinite."""
        if not len(features):
            return
        x = features.astype(np.float64)
        z = embeddings.astype(np.float64)
        origin = self.origin or (x[0].copy(), z[0].copy())
        with np.errstate(invalid="ignore", over="ignore"):
            x -= origin[0]
            z -= origin[1]
            sums = x.sum(axis=0), z.sum(axis=0)
        for name, total in zip(("a feature", "an embedding"), sums, strict=True):
            if not np.isfinite(total).all():
                raise InputError(
                    f"{name} is NaN or infinite: look at the weights and the precision that gave it"
                )
        self.origin = origin
        self.n += len(x)
        self._x += sums[0]
        self._z += sums[1]
        self._xx += x.T @ x
        self._xz += x.T @ z
        self._zz += float(np.vdot(z, z))

    def add(self, other: "RidgeStatistics", times: int = 1) -> None:
        """Add the sums of other rows (times = 1), or subtract them (times = -1).

        Raises ValueError if both sums have rows, and different origins.
        """
        if self.n and other.n and not all(map(np.array_equal, self._start, other._start)):
            raise ValueError("sums from different origins cannot be added")
        self.origin = other.origin if other.n else self.origin
        combine = np.add if times == 1 else np.subtract
        for name in ("_x", "_z", "_xx", "_xz"):
            mine = getattr(self, name)
            combine(mine, getattr(other, name), out=mine)
        self.n += times * other.n
        self._zz += times * other._zz

    @property
    def shape(self) -> tuple[int, int]:
        """Width d of the features, and width m of the embeddings."""
        return len(self._x), len(self._z)

    @property
    def mean_squared_distance(self) -> float:
        """Mean squared distance of the features from their mean, the unit of penalties()."""
        return float(np.trace(self._xx) / self.n - np.sum((self._x / self.n) ** 2))

    @property
    def feature_mean(self) -> np.ndarray:
        """Mean features (d,)."""
        return self._start[0] + self._x / self.n

    @property
    def embedding_mean(self) -> np.ndarray:
        """Mean embedding (m,): the prediction of the baseline for every image."""
        return self._start[1] + self._z / self.n

    @property
    def _start(self) -> tuple[np.ndarray, np.ndarray]:
        return self.origin or (np.zeros_like(self._x), np.zeros_like(self._z))

    def centred(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Means of features (d,) and embeddings (m,), and sums of products about these means.

        sum (x - mean x)(x - mean x)^T = sum x x^T - n (mean x)(mean x)^T, and z likewise.
        The products are the scatter (d, d), n times the covariance of the features, and the
        cross-products (d, m) of features and embeddings. Raises InputError when there are no rows.
        """
        if not self.n:
            raise InputError(
                "a translator needs training rows: add images, or lower translator.folds"
            )
        x, z = self._x / self.n, self._z / self.n
        scatter, cross = np.outer(-self.n * x, x), np.outer(-self.n * x, z)
        scatter += self._xx
        cross += self._xz
        return self._start[0] + x, self._start[1] + z, scatter, cross

    def about(self, x: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        """Sums over rows of x x^T, x z^T and z^T z, with x and z as differences from x0 and z0.

        sum (x - x0)(z - z0)^T = sum x z^T - (sum x) z0^T - x0 (sum z)^T + n x0 z0^T: the sums about
        any mean follow from those about the origin. x: x0 (d,). z: z0 (m,).
        """
        x, z = x - self._start[0], z - self._start[1]
        xx = self._xx - np.outer(self._x, x) - np.outer(x, self._x) + self.n * np.outer(x, x)
        xz = self._xz - np.outer(self._x, z) - np.outer(x, self._z) + self.n * np.outer(x, z)
        return xx, xz, self._zz - 2.0 * self._z @ z + self.n * (z @ z)

    def decompose(self) -> "RidgePath":
        """The ridge solutions for all penalties, from one eigendecomposition.

        Those of a single row are the constant map to its embedding. Raises InputError when there
        are no rows.
        """
        x, z, scatter, cross = self.centred()
        eigenvalues, eigenvectors = np.linalg.eigh(scatter)
        return RidgePath(np.maximum(eigenvalues, 0.0), eigenvectors, eigenvectors.T @ cross, x, z)

    def solve(self, alpha: float) -> Affine:
        """The ridge solution for one penalty, as RidgePath.at(), without an eigendecomposition.

        T^T = (S + alpha I)^-1 C, with the scatter S and the cross-products C of centred().
        Raises InputError when there are no rows.
        """
        x, z, penalized, cross = self.centred()
        if not len(x) or not len(z):
            return Affine(np.zeros((len(z), len(x))), z)
        penalized.flat[:: len(x) + 1] += alpha
        # NumPy's solver: fits that run in other threads would wait for SciPy's.
        weight = np.ascontiguousarray(np.linalg.solve(penalized, cross).T)
        return Affine(weight, z - weight @ x)

    def inverse(self, alpha: float) -> np.ndarray:
        """Inverse (d, d) of the features' scatter matrix with a penalty alpha on its diagonal.

        The solution is linear in the embeddings, T^T = inverse C, so that other embeddings of the
        same rows need no new factorization. It comes from the Cholesky factor, in place.
        """
        penalized = self.centred()[2]
        penalized.flat[:: len(penalized) + 1] += alpha
        if not len(penalized):
            return penalized
        # Both results are zero above the diagonal.
        factor, _ = scipy.linalg.lapack.dpotrf(penalized.T, lower=1, overwrite_a=1)
        inverse, _ = scipy.linalg.lapack.dpotri(factor, lower=1, overwrite_c=1)
        inverse += inverse.T
        inverse.flat[:: len(inverse) + 1] /= 2.0
        return inverse

    def squared_distance(self, embedding: np.ndarray) -> float:
        """Sum over the rows of the squared distance of their embeddings from one embedding (m,).

        This is the squared error of a baseline that predicts this embedding for every image.
        """
        offset = embedding - self._start[1]
        return float(self._zz - 2.0 * offset @ self._z + self.n * offset @ offset)

    def path(self, alphas: Iterable[float]) -> Iterator[Affine]:
        """The ridge solution (float64) for each penalty, in their order; see RidgePath.at()."""
        yield from map(self.decompose().at, alphas)


@dataclass(frozen=True)
class RidgePath:
    """The ridge solutions of a set of rows for all penalties.

    With the scatter S = U diag(s) U^T, (S + alpha I)^-1 C = U diag(1 / (s + alpha)) U^T C: one
    decomposition serves all penalties.

    spectrum: (d,), eigenvalues of the features' scatter matrix. eigenvectors: (d, d), its
    eigenvectors as columns. rotated: (d, m), the transposed eigenvectors times the cross-scatter.
    feature_mean: (d,). embedding_mean: (m,).
    """

    spectrum: np.ndarray
    eigenvectors: np.ndarray
    rotated: np.ndarray
    feature_mean: np.ndarray
    embedding_mean: np.ndarray

    def at(self, alpha: float) -> Affine:
        """The minimizer of sum ||T f + c - z||^2 + alpha ||T||^2 (equation 4), in float64.

        The penalty alpha, above 0, is in squared feature units. The intercept c is not penalized,
        as in scikit-learn's Ridge.
        """
        weight = (self.rotated / (self.spectrum + alpha)[:, None]).T @ self.eigenvectors.T
        return Affine(weight, self.embedding_mean - weight @ self.feature_mean)

    def squared_errors(self, held_out: RidgeStatistics, alphas: Iterable[float]) -> np.ndarray:
        """Sum of squared errors on other rows for each penalty, computed from their sums alone.

        With w = 1 / (s + alpha), R = U^T C, and the other rows about the means of the fit, the
        prediction is R^T diag(w) U^T x, and sum |z - prediction|^2 = sum z . z - 2 w . l + w . Q w,
        where l is the diagonal of R (U^T sum x z^T)^T, and Q the product, entry by entry, of
        U^T (sum x x^T) U and R R^T. So a penalty costs a product with one small matrix, and no row.

        The errors are summed over rows and coordinates. The penalties, above 0, are in squared
        feature units.
        """
        xx, xz, zz = held_out.about(self.feature_mean, self.embedding_mean)
        quadratic = (self.eigenvectors.T @ xx @ self.eigenvectors) * (self.rotated @ self.rotated.T)
        linear = np.einsum("dm,dm->d", self.rotated, self.eigenvectors.T @ xz)
        shrunk = [1.0 / (self.spectrum + alpha) for alpha in alphas]
        return np.array(
            [zz - 2.0 * factor @ linear + factor @ quadratic @ factor for factor in shrunk]
        )


@dataclass
class Agreement:
    """Agreement of predictions with embeddings, summed over rows."""

    n: int = 0
    cosine_sum: float = 0.0
    squared_error: float = 0.0

    def update(self, predicted: np.ndarray, embeddings: np.ndarray) -> None:
        """Add rows (n, m); raises InputError if a row of either has no direction, being zero."""
        z = embeddings.astype(np.float64)
        norms = np.linalg.norm(predicted, axis=1) * np.linalg.norm(z, axis=1)
        if not (norms > 0).all():
            raise InputError(
                "a zero embedding has no direction: look at the image or the space that gave it"
            )
        self.n += len(z)
        self.cosine_sum += float((np.einsum("nm,nm->n", predicted, z) / norms).sum())
        self.squared_error += float(((predicted - z) ** 2).sum())

    @property
    def cosine(self) -> float:
        """Mean cosine similarity, from -1 to 1."""
        return self.cosine_sum / self.n

    def mse(self, dim: int) -> float:
        """Mean squared error per coordinate (equation 14); dim is the width m."""
        return self.squared_error / (self.n * dim)

    def r2(self, baseline: "Agreement") -> float:
        """Share of the baseline's squared error that is explained, at most 1; below 0 it is worse.

        baseline: agreement of the mean embedding with the same rows. Raises InputError if it has no
        error.
        """
        if baseline.squared_error == 0:
            raise InputError(ALIKE)
        return 1.0 - self.squared_error / baseline.squared_error
