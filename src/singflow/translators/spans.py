"""Orthonormal bases that follow from what they span, whatever the processor."""

from collections.abc import Iterable

import numpy as np
import scipy


def of_span(basis: np.ndarray) -> np.ndarray:
    """An orthonormal basis (d, k) of the same span that follows from the span alone.

    A decomposition leaves signs and rotations of its vectors to the processor's last bits, and with
    them all that is drawn in their coordinates. With a fixed normal G (d, k) and basis' G = Q R,
    where the diagonal of R is positive, the result is basis Q. For another basis of the span,
    basis S, the factor is S' Q, so that the result is the same.
    """
    normal = np.random.default_rng(basis.shape).standard_normal(basis.shape)
    turned, upper = scipy.linalg.qr(basis.T @ normal, check_finite=False)
    return np.ascontiguousarray(basis @ (turned * np.sign(upper.diagonal())))


def row_span(blocks: Iterable[np.ndarray]) -> np.ndarray | None:
    """Orthonormal basis (d, q) of the differences between rows (n, d); None for d rows or more.

    A ridge regression on the coordinates in this basis loses nothing. Reading stops after d rows.
    """
    rows: list[np.ndarray] = []
    for block in blocks:
        rows.append(block.astype(np.float64))
        if sum(map(len, rows)) >= block.shape[1]:
            return None
    differences = np.concatenate(rows)
    differences -= differences[0].copy()
    _, singular, right = scipy.linalg.svd(differences, full_matrices=False, check_finite=False)
    rounding = max(differences.shape) * np.finfo(np.float64).eps * singular.max(initial=0.0)
    return of_span(right[singular > rounding].T)
