"""Ridge regressions on principal and null coordinates (a, b) of which only b changes: block elimination over one decomposition of a."""

from dataclasses import dataclass

import numpy as np
import scipy

from singflow.errors import InputError
from singflow.translators.crossfit import ALL_ALIKE
from singflow.translators.ridge import Affine, RidgePath, RidgeStatistics


@dataclass(frozen=True)
class Halves:
    """A translator by the halves of its inputs, and how it reads a prediction of one from the other; float32.

    visible: T_a a + c of principal coordinates a, less their origin; hidden: T_b, (m, k), of null coordinates b; predicted: T_b (B a + d)
    with the ridge prediction B a + d of b. embedding_mean: (m,), of the rows that it was fitted to.
    """

    visible: Affine
    hidden: np.ndarray
    predicted: Affine
    embedding_mean: np.ndarray


@dataclass(frozen=True)
class Partitioned:
    """Sums over rows (a, b) and embeddings z, about their means, in the axes in which the scatter of a is diagonal; float64.

    n: rows. path: of the regression of z on a. null_mean: (k,) of b. start: (r,), from where a is given to the translators.
    ab: (r, k), in these axes; bb: (k, k); zb: (m, k).
    """

    n: int
    path: RidgePath
    null_mean: np.ndarray
    start: np.ndarray
    ab: np.ndarray
    bb: np.ndarray
    zb: np.ndarray

    @classmethod
    def of(cls, sums: RidgeStatistics, rank: int, path: RidgePath | None = None) -> "Partitioned":
        """Take sums apart.

        Parameters
        ----------
        sums : RidgeStatistics
            Over rows (a, b) and embeddings.
        rank : int
            Number r of coordinates a.
        path : RidgePath, optional
            The regression of z on a, where it is known.

        Returns
        -------
        Partitioned
            Of the same rows.

        Raises
        ------
        InputError
            With fewer than two rows.
        """
        path = path or sums.regress(slice(0, rank)).decompose()
        features, _, scatter, cross = sums.centred()
        start = sums.origin[0][:rank] if sums.origin else np.zeros(rank)
        ab = path.eigenvectors.T @ scatter[:rank, rank:]
        return cls(sums.n, path, features[rank:], start, ab, scatter[rank:, rank:].copy(), cross[rank:].T.copy())

    def solve(self, lambdas: tuple[float, float], changes: tuple[np.ndarray, np.ndarray] | None = None) -> Halves:
        """The translator of (a, b), and its reading of the prediction of b from a.

        With D = (scatter of a + alpha)^-1 the null half solves (S_bb + alpha - S_ba D S_ab) T_b^T = S_bz - S_ba D S_az, and the principal
        half is T_a^T = D (S_az - S_ab T_b^T).

        Parameters
        ----------
        lambdas : tuple of float
            Penalties of translator and prediction, times the mean squared distance of their inputs from their mean.
        changes : ndarray of shape (r + m, k), ndarray of shape (k, k), optional
            What is added to the sums of (a, z) times b, and to those of b times b; means stay.

        Returns
        -------
        Halves
            Those of a regression on the rows.

        Raises
        ------
        InputError
            When the inputs do not vary.
        """
        axes, az, rank = self.path.eigenvectors.astype(np.float32), self.path.rotated, len(self.start)
        ab, rest, hidden = self.ab, self.bb.copy(), self.zb
        if changes is not None:
            mixed, squares = changes
            ab = ab + axes.T @ mixed[:rank].astype(np.float32)
            rest += squares
            hidden = hidden + mixed[rank:]
        energy = self.path.spectrum.sum() / self.n
        both = energy + np.trace(rest) / self.n
        if not both > 0 or not (energy > 0 or not rank):
            raise InputError(ALL_ALIKE)
        answer, predicting = (1.0 / (self.path.spectrum + penalty) for penalty in (lambdas[0] * both, lambdas[1] * energy))
        shrunk = np.sqrt(answer)[:, None] * ab
        rest -= shrunk.T @ shrunk
        rest.flat[:: len(rest) + 1] += lambdas[0] * both
        narrow = ab.astype(np.float32)
        hidden = hidden - (az.T * answer).astype(np.float32) @ narrow
        if len(rest):
            factor = scipy.linalg.cho_factor(rest.T, overwrite_a=True, check_finite=False)
            hidden = scipy.linalg.cho_solve(factor, hidden.T, overwrite_b=True, check_finite=False).T
        weight = hidden.astype(np.float32)
        through = weight @ narrow.T
        visible, predicted = (half.astype(np.float32) @ axes.T for half in ((az.T - through) * answer, through * predicting))
        middle, constant = self.path.feature_mean - self.start, hidden @ self.null_mean
        biases = self.path.embedding_mean - constant - visible @ middle, constant - predicted @ middle
        seen, guessed = (Affine(*each).astype(np.float32) for each in zip((visible, predicted), biases, strict=True))
        return Halves(seen, weight, guessed, self.path.embedding_mean)
