"""Tests of others, which docs/evidence.py --rivals compares with D.

z are embeddings, a and b principal and null coordinates of n images, in rows. Every test gives a
p-value for the hypothesis that z is independent of b given a.
"""

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np
import scipy

from singflow.analyses.bands import PENALTIES, centred
from singflow.errors import InputError

DRAWN = 99  # random weights, or permutations, behind a p-value


def operators(kernel: np.ndarray, fold: np.ndarray) -> list[np.ndarray]:
    """For each penalty the matrix (n, n) that turns columns (n, c) into their cross-fitted errors.

    The read-out is a kernel ridge regression with a free mean: see readout.Exact.
    """
    kernel, found = centred(kernel), []
    spectrum, vectors = scipy.linalg.eigh(kernel * (len(kernel) / np.trace(kernel)))
    for penalty in PENALTIES[::2]:
        whole = (vectors / (np.maximum(spectrum, 0.0) + penalty)) @ vectors.T
        whole -= 1.0 / (len(kernel) * penalty)
        missed = whole.copy()
        for one in np.unique(fold):
            rows = fold == one
            missed[rows] = scipy.linalg.solve(whole[np.ix_(rows, rows)], whole[rows])
        found.append(missed.astype(np.float32))
    return found


def cross_fitted(made: Sequence[np.ndarray], columns: np.ndarray) -> np.ndarray:
    """Cross-fitted errors (n, c) with the penalty that makes them least."""
    return min((one @ columns for one in made), key=lambda errors: float((errors**2).sum()))


def gcm(of_z: np.ndarray, of_b: np.ndarray, generator: np.random.Generator) -> float:
    """The generalised covariance measure, of errors (n, m) of z and (n, k) of b given a.

    The largest studentized mean of a product of errors, and its bootstrap with normal weights (Shah
    and Peters 2020, The hardness of conditional independence testing, 3.2).
    """
    n = len(of_z)
    products = (of_z[:, :, None] * of_b[:, None]).reshape(n, -1).astype(np.float32)
    means = products.mean(axis=0)
    products -= means
    spread = np.sqrt(np.einsum("np,np->p", products, products))
    weights = generator.standard_normal((DRAWN, n), dtype=np.float32)
    drawn = np.abs(weights @ products / spread).max(axis=1)
    return float((1 + (drawn >= (n * np.abs(means) / spread).max()).sum()) / (1 + DRAWN))


def linear_gain(
    z: np.ndarray,
    plain: Sequence[np.ndarray],
    full: Sequence[np.ndarray],
    generator: np.random.Generator,
) -> float:
    """Linear Delta R2: what b adds to the cross-fitted R2 of a ridge regression of z on a.

    plain, full: operators of a, and of a and b. The errors of the regression on a are permuted
    (Freedman and Lane 1983), and every permutation has penalties of its own.
    """
    errors = cross_fitted(plain, z)
    orders = [np.arange(len(z)), *(generator.permutation(len(z)) for _ in range(DRAWN))]
    columns = np.hstack([z - errors + errors[order] for order in orders]).astype(np.float32)
    without, with_b = (
        np.min(
            [((one @ columns) ** 2).sum(axis=0).reshape(-1, z.shape[1]).sum(1) for one in made], 0
        )
        for made in (plain, full)
    )
    gain = without - with_b
    return float((gain >= gain[0]).mean())


def kci(z: np.ndarray, b: np.ndarray, a: np.ndarray, width: str) -> float:
    """The kernel test of Zhang et al. 2011, with the null of get_uuprod() by its closed form."""
    test = _imported("KCI.KCI", "KCI_CInd")(est_width=width)
    statistic, of_z, of_b = test.KCI_V_statistic(*test.kernel_matrix(z, b, a))
    shape, scale = test.get_kappa(of_z * of_b)
    return float(scipy.stats.gamma.sf(statistic, shape, scale=scale))


def rcit(z: np.ndarray, b: np.ndarray, a: np.ndarray) -> float:
    """The same test with random features (Strobl et al. 2019), which numpy.random draws."""
    return float(_imported("RCIT.RCIT", "RCIT")().compute_pvalue(z, b, a)[0])


def _imported(module: str, name: str) -> Any:
    try:
        return getattr(import_module(f"causallearn.utils.{module}"), name)
    except ModuleNotFoundError as error:
        wanted = "pip install -c constraints.txt -e '.[rivals]'"
        raise InputError(f"causal-learn is not installed: {wanted}") from error
