"""Sums over images, which determine every ridge regression on the images."""

from collections.abc import Sequence
from copy import copy
from operator import iadd

import numpy as np


class Moments:
    """Sums of x, t, x x^T, x t^T and t t^T over images, of features x (p,) and columns t (c,).

    They determine every ridge regression of t on x, and its errors on other images. So each fold
    has sums, which are added up or subtracted, and no image is read again. The caller subtracts an
    origin from x and t.
    """

    def __init__(self, width: int, columns: int) -> None:
        self.n, self.x, self.xx = 0, np.zeros(width), np.zeros((width, width))
        self.t, self.tt = np.zeros(columns), np.zeros((columns, columns))
        self.xt = np.zeros((width, columns))

    @classmethod
    def over(cls, parts: Sequence["Moments"]) -> "Moments":
        """The sums over images of all parts."""
        made = cls(*parts[0].xt.shape)
        for one in parts:
            for name, sums in vars(one).items():
                setattr(made, name, iadd(getattr(made, name), sums))
        return made

    def add(self, x: np.ndarray, t: np.ndarray) -> None:
        self.n += len(x)
        self.x += x.sum(axis=0)
        self.t += t.sum(axis=0)
        self.xx += x.T @ x
        self.xt += x.T @ t
        self.tt += t.T @ t

    def derive(self, features: np.ndarray, columns: np.ndarray, constant: np.ndarray) -> "Moments":
        """The sums for the columns t' = x @ features + t @ columns + constant.

        With F, C and c for these, sum x t'^T = xx F + xt C + x c^T, and likewise
        sum t' t'^T = F^T xx F + F^T xt C + (F^T xt C)^T + C^T tt C, and the terms with c.
        """
        made, moved = copy(self), self.xx @ features
        crossed, linear = features.T @ self.xt @ columns, self.x @ features + self.t @ columns
        shifted = np.outer(linear, constant)
        made.t = linear + self.n * constant
        made.xt = moved + self.xt @ columns + np.outer(self.x, constant)
        made.tt = features.T @ moved + crossed + crossed.T + columns.T @ self.tt @ columns
        made.tt += shifted + shifted.T + self.n * np.outer(constant, constant)
        return made

    def about(self, x: np.ndarray) -> np.ndarray:
        """Sums of x x^T about x (p,).

        sum (x - x0)(x - x0)^T = sum x x^T - (sum x) x0^T - x0 (sum x - n x0)^T.
        """
        return self.xx - np.outer(self.x, x) - np.outer(x, self.x - self.n * x)

    def errors(
        self, weight: np.ndarray, x: np.ndarray, t: np.ndarray, used: np.ndarray, pairs: np.ndarray
    ) -> np.ndarray:
        """Products (p,) of the errors of two columns each, read out by a weight (q, c).

        x (q,) and t (c,) are the means that the read-out subtracts and adds; used: (c,) positions
        of the columns; pairs: (2, p) places among them.

        For columns i and j, the error of i is t_i - w_i . x, about the means, so that the product
        is sum t_i t_j - w_i . sum x t_j - w_j . sum x t_i + w_i . (sum x x^T) w_j: tt - linear +
        square. Centring costs products of sums alone, whose means are not subtracted from xx.
        """
        width, (first, second) = len(weight), pairs
        own, moved, read = self.t[used] - self.n * t, x @ weight, self.x[:width] @ weight
        shift = read - self.n * moved
        tt = self.tt[np.ix_(used, used)][first, second] - t[first] * self.t[used][second]
        tt = tt - t[second] * own[first]
        # The largest product; float32 has enough digits for errors.
        single, xt = weight.astype(np.float32), self.xt[:width, used]
        product = self.xx[:width, :width].astype(np.float32) @ single
        if (first == second).all():
            linear = 2.0 * np.einsum("qc,qc->c", weight, xt)[first]
            square = np.einsum("qc,qc->c", weight, product)[first]
        else:
            both = weight.T @ xt
            linear = both[first, second] + both[second, first]
            square = (single.T @ product)[first, second].astype(np.float64)
        linear = linear - read[first] * t[second] - moved[first] * own[second]
        linear = linear - read[second] * t[first] - moved[second] * own[first]
        square = square - read[first] * moved[second] - moved[first] * shift[second]
        return np.asarray(tt - linear + square)
