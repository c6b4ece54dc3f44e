"""Affine maps from features to embeddings: ridge regression out of streamed sums (equation 4), and how well they agree."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import DTypeLike

from singflow.errors import InputError


@dataclass(frozen=True)
class Affine:
    """An affine map T f + c: weight (m, d), bias (m,)."""

    weight: np.ndarray
    bias: np.ndarray

    def astype(self, dtype: DTypeLike) -> "Affine":
        """The same map in another type.

        Parameters
        ----------
        dtype : dtype
            Type of weight and bias.

        Returns
        -------
        Affine
            Arrays that have the type already are shared, not copied.
        """
        return Affine(self.weight.astype(dtype, copy=False), self.bias.astype(dtype, copy=False))

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Embeddings (n, m) of features (n, d)."""
        embeddings = features @ self.weight.T
        embeddings += self.bias
        return embeddings


class RidgeStatistics:
    """Sums over rows that determine every ridge solution, in float64; memory does not grow with the rows."""

    def __init__(self, width: int, dim: int) -> None:
        self.n = 0
        self._x = np.zeros(width)
        self._z = np.zeros(dim)
        self._xx = np.zeros((width, width))
        self._xz = np.zeros((width, dim))

    def update(self, features: np.ndarray, embeddings: np.ndarray) -> None:
        """Add rows.

        Parameters
        ----------
        features : ndarray of shape (n, d)
            Features of the rows.
        embeddings : ndarray of shape (n, m)
            Embeddings of the same rows.
        """
        x = features.astype(np.float64)
        z = embeddings.astype(np.float64)
        self.n += len(x)
        self._x += x.sum(axis=0)
        self._z += z.sum(axis=0)
        self._xx += x.T @ x
        self._xz += x.T @ z

    def __add__(self, other: "RidgeStatistics") -> "RidgeStatistics":
        """The statistics of the rows of both."""
        total = RidgeStatistics(len(self._x), len(self._z))
        total.n = self.n + other.n
        total._x, total._z = self._x + other._x, self._z + other._z
        total._xx, total._xz = self._xx + other._xx, self._xz + other._xz
        return total

    @property
    def mean_squared_norm(self) -> float:
        """Mean squared distance of the features from their mean."""
        return float(np.trace(self._xx) / self.n - np.sum((self._x / self.n) ** 2))

    @property
    def embedding_mean(self) -> np.ndarray:
        """Mean embedding (m,): the baseline that predicts it for every image."""
        return self._z / self.n

    def path(self, alphas: Iterable[float]) -> Iterator[Affine]:
        """The minimizer of sum ||T f + c - z||^2 + alpha ||T||^2 for each alpha, from one factorization.

        The intercept c is not penalized, as in scikit-learn's Ridge.

        Parameters
        ----------
        alphas : iterable of float
            Ridge penalties, above 0, in squared feature units.

        Yields
        ------
        Affine
            The solution for one alpha, float64, in their order.

        Raises
        ------
        InputError
            With fewer than two rows.

        References
        ----------
        Equation 4 of the paper.
        """
        if self.n < 2:
            raise InputError(f"a translator needs at least two training rows, not {self.n}: add images or lower data.validation_fraction")
        x_mean, z_mean = self._x / self.n, self._z / self.n
        scatter = self._xx - self.n * np.outer(x_mean, x_mean)
        eigenvalues, eigenvectors = scipy.linalg.eigh(scatter, driver="evd", overwrite_a=True, check_finite=False)
        rotated = eigenvectors.T @ (self._xz - self.n * np.outer(x_mean, z_mean))
        spectrum = np.maximum(eigenvalues, 0.0)
        for alpha in alphas:
            weight = (rotated / (spectrum + alpha)[:, None]).T @ eigenvectors.T
            yield Affine(weight, z_mean - weight @ x_mean)


@dataclass
class Agreement:
    """Agreement of predictions with embeddings, summed over rows."""

    n: int = 0
    cosine_sum: float = 0.0
    squared_error: float = 0.0

    def update(self, predicted: np.ndarray, embeddings: np.ndarray) -> None:
        """Add rows.

        Parameters
        ----------
        predicted, embeddings : ndarray of shape (n, m)
            Predictions, and the embeddings that they should be.

        Raises
        ------
        InputError
            When a row of either is zero, and so has no direction.
        """
        z = embeddings.astype(np.float64)
        norms = np.linalg.norm(predicted, axis=1) * np.linalg.norm(z, axis=1)
        if not (norms > 0).all():
            raise InputError("a zero embedding has no direction: look at the image or the space that gave it")
        self.n += len(z)
        self.cosine_sum += float((np.einsum("nm,nm->n", predicted, z) / norms).sum())
        self.squared_error += float(((predicted - z) ** 2).sum())

    @property
    def cosine(self) -> float:
        """Mean cosine similarity, from -1 to 1."""
        return self.cosine_sum / self.n

    def mse(self, dim: int) -> float:
        """Mean squared error per coordinate.

        Parameters
        ----------
        dim : int
            Width m of the embeddings.

        Returns
        -------
        float
            In squared units of the space.

        References
        ----------
        Equation 14.
        """
        return self.squared_error / (self.n * dim)

    def r2(self, baseline: "Agreement") -> float:
        """Share of the baseline's squared error that is explained.

        Parameters
        ----------
        baseline : Agreement
            Of the mean embedding with the same rows.

        Returns
        -------
        float
            1 is perfect, 0 no better than the baseline, below 0 worse.
        """
        return 1.0 - self.squared_error / baseline.squared_error
