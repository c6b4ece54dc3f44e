"""Ridge regressions on principal and null coordinates (a, b) of which only b changes: block elimination over one decomposition of a."""

from dataclasses import dataclass

import numpy as np

from singflow.errors import InputError
from singflow.translators.crossfit import ALL_ALIKE
from singflow.translators.ridge import Affine, RidgePath, RidgeStatistics


@dataclass(frozen=True)
class Halves:
    """A translator by the halves of its inputs, and how it reads a prediction of one from the other; float32.

    visible: T_a a + c of principal coordinates a, less their mean and in the axes of Partitioned.path; hidden: T_b, (m, k), of null
    coordinates b; predicted: T_b (B a + d) with the ridge prediction B a + d of b. embedding_mean: (m,), of the rows that it was fitted to.
    """

    visible: Affine
    hidden: np.ndarray
    predicted: Affine
    embedding_mean: np.ndarray


@dataclass(frozen=True)
class Partitioned:
    """Sums over rows (a, b) and embeddings z, about their means, in the axes in which the scatter of a is diagonal; float64.

    n: rows. path: of the regression of z on a. null_mean: (k,) of b. ab: (r, k), in these axes; bb: (k, k); zb: (m, k).
    """

    n: int
    path: RidgePath
    null_mean: np.ndarray
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
        ab = path.eigenvectors.T @ scatter[:rank, rank:]
        return cls(sums.n, path, features[rank:], ab, scatter[rank:, rank:].copy(), cross[rank:].T.copy())

    def solve(self, lambdas: tuple[float, float], changes: tuple[np.ndarray, np.ndarray] | None = None) -> Halves:
        """The translator of (a, b), and its reading of the prediction of b from a.

        With D = (scatter of a + alpha)^-1 the null half solves (S_bb + alpha - S_ba D S_ab) T_b^T = S_bz - S_ba D S_az, and the principal
        half is T_a^T = D (S_az - S_ab T_b^T).

        Parameters
        ----------
        lambdas : tuple of float
            Penalties of translator and prediction, times the mean squared distance of their inputs from their mean.
        changes : ndarray of shape (r + m, k), ndarray of shape (k, k), optional
            What is added to the sums of (a, z) times b, and to those of b times b; float32. Means stay.

        Returns
        -------
        Halves
            Those of a regression on the rows.

        Raises
        ------
        InputError
            When the inputs do not vary.
        """
        path, rank, ab, rest, hidden = self.path, len(self.ab), self.ab, self.bb.copy(), self.zb
        if changes is not None:
            mixed, squares = changes
            ab = ab + path.eigenvectors.T.astype(np.float32) @ mixed[:rank]
            rest += squares
            hidden = hidden + mixed[rank:]
        energy = path.spectrum.sum() / self.n
        both = energy + np.trace(rest) / self.n
        if not both > 0 or not (energy > 0 or not rank):
            raise InputError(ALL_ALIKE)
        answer, predicting = (1.0 / (path.spectrum + penalty) for penalty in (lambdas[0] * both, lambdas[1] * energy))
        narrow = ab.astype(np.float32)
        hidden = hidden - (path.rotated.T * answer).astype(np.float32) @ narrow
        if len(rest):
            rest.flat[:: len(rest) + 1] += lambdas[0] * both
            shrunk = np.sqrt(answer)[:, None] * ab
            rest -= shrunk.T @ shrunk
            hidden = np.ascontiguousarray(np.linalg.solve(rest, hidden.T).T)  # beside other fits, which would wait for SciPy's solvers
        weight = hidden.astype(np.float32)
        through, constant = narrow @ weight.T, hidden @ self.null_mean
        seen = Affine(((path.rotated - through) * answer[:, None]).T, path.embedding_mean - constant)
        guessed = Affine((through * predicting[:, None]).T, constant)
        return Halves(seen.astype(np.float32), weight, guessed.astype(np.float32), path.embedding_mean)
