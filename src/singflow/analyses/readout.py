"""Cross-fitted ridge read-outs of an embedding from logits, with and without the null component.

The features are the principal coordinates a = V_r^T f, the square roots of softmax(logits / T) for
each T, and random ReLU units of a; all blocks have the same mean square. The second read-out also
has the null coordinates b = V_0^T f, on the scale of a. There are two forms, which agree up to the
draw of random features: kernels for few images, and sums over features for many images. Both take
images in blocks, and measure the error on a fold with fits that did not see the fold.
"""

from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import dataclass

import numpy as np
import scipy

from singflow.analyses.geometry import random_basis

TEMPERATURES = (1.0, 2.0, 4.0)  # T of the softmax features
OFFSET = 0.5  # of the ReLU units, beside features of mean square 1
FEATURES = 3072  # features of a read-out in the form of sums, b included
FLEXIBLE = 1024  # the least number of softmax features and ReLU units
CLASSES = 1365  # the softmax of more classes is compressed to this width
LOOKED = 2  # folds on which penalties are chosen in the form of sums
PLAIN, WITH_NULL = 0, 1


@dataclass(frozen=True)
class Block:
    """Some images: coordinates a and b, logits, embeddings and folds.

    principal is a (n, r), null is b (n, k), logits (n, C), embeddings (n, m), fold (n,) from 0.
    """

    principal: np.ndarray
    null: np.ndarray
    logits: np.ndarray
    embeddings: np.ndarray
    fold: np.ndarray


Blocks = Callable[[], Iterable[Block]]  # every call yields all images, in the same order


def softmax(logits: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities (n, C) of logits (n, C) at a temperature."""
    return np.asarray(scipy.special.softmax(logits.astype(np.float64) / temperature, axis=1))


@dataclass(frozen=True)
class Targets:
    """Columns that are read out; the error of a target is a weighted sum over columns.

    columns: function that gives the columns (n, c) of a block whose first image is number `start`.
    groups: (c, t), weight of the squared error of each column in each target.
    variance: (t,), variance of a target's embeddings divided by that of the study's embeddings.
    """

    columns: Callable[[Block, int], np.ndarray]
    groups: np.ndarray
    variance: np.ndarray


@dataclass(frozen=True)
class Scale:
    """Scale of the features: means of a (r,) and b (k,), and mean square of a about its mean."""

    principal: np.ndarray
    null: np.ndarray
    square: float

    @classmethod
    def of(cls, blocks: Blocks) -> "Scale":
        n, square = 0, 0.0
        for block in blocks():
            rows = np.hstack([block.principal, block.null]).astype(np.float64)
            if not n:
                rank, first = block.principal.shape[1], rows[0].copy()
                sums = np.zeros(rows.shape[1])
            rows -= first
            n += len(rows)
            sums += rows.sum(axis=0)
            square += float((rows[:, :rank] ** 2).sum())
        mean = sums / n
        about = max(square / n - float((mean[:rank] ** 2).sum()), np.finfo(np.float64).tiny)
        return cls(first[:rank] + mean[:rank], first[rank:] + mean[rank:], about)


def _normed(kernel: np.ndarray) -> np.ndarray:
    """The kernel, centred and scaled to trace n."""
    kernel = kernel - kernel.mean(axis=0) - kernel.mean(axis=1)[:, None] + kernel.mean()
    trace = np.trace(kernel)
    return kernel * (len(kernel) / trace) if trace > 0 else kernel


def _arccosine(rows: np.ndarray) -> np.ndarray:
    """Kernel of infinitely many random ReLU units with an offset (Cho and Saul 2009, order 1)."""
    rows = np.hstack([rows, np.full((len(rows), 1), OFFSET)])
    norm = np.sqrt(np.vecdot(rows, rows))
    angle = np.arccos(np.clip(rows @ rows.T / norm[:, None] / norm, -1.0, 1.0))
    return norm[:, None] * norm * (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / np.pi


def _solved(factor: np.ndarray, values: np.ndarray) -> np.ndarray:
    """L^-1 values, for a lower triangular factor L."""
    return scipy.linalg.solve_triangular(factor, values, lower=True, check_finite=False)


def _descent(missed: float, square: np.ndarray, linear: np.ndarray) -> np.ndarray:
    """Squared errors after 0, 1, ... steps of a read-out that is built up direction by direction.

    missed: the error before the first step. square, linear: products of the steps with each other,
    and with what was missed.
    """
    steps = 2.0 * np.tril(square, -1).sum(axis=1) + np.diag(square) - 2.0 * linear
    return missed + np.cumsum(np.concatenate([[0.0], steps]))


class Kernels:
    """The read-outs PLAIN and WITH_NULL for few images: kernel ridge regression.

    They are judged by their errors on images not seen.
    """

    def __init__(self, blocks: Blocks, targets: Targets) -> None:
        scale, images = Scale.of(blocks), list(blocks())
        starts = np.cumsum([0, *(len(block.fold) for block in images)])
        self._columns = np.concatenate(
            [targets.columns(block, start) for block, start in zip(images, starts, strict=False)]
        )
        a, b, logits, self._fold = (
            np.concatenate([getattr(block, name) for block in images])
            for name in ("principal", "null", "logits", "fold")
        )
        self.folds, self._groups = np.unique(self._fold).tolist(), targets.groups
        a = (a.astype(np.float64) - scale.principal) / np.sqrt(scale.square)
        self._null = (b.astype(np.float64) - scale.null) / np.sqrt(scale.square)
        flexible = _normed(a @ a.T) + _normed(_arccosine(a))
        for temperature in TEMPERATURES:
            roots = np.sqrt(softmax(logits, temperature))
            flexible += _normed(roots @ roots.T)
        self._kernels = flexible, flexible + self._null @ self._null.T

    def select(self, which: int, lambdas: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
        """Position of the best penalty of each target (t,), and its squared errors (folds, t).

        Errors are summed over images and columns. Every penalty is tried.
        """
        errors = np.stack([self.errors(which, (fold,), lambdas)[0] for fold in self.folds], axis=1)
        chosen = errors.sum(axis=1).argmin(axis=0)
        return chosen, errors[chosen, :, np.arange(len(chosen))].T

    def errors(
        self,
        which: int,
        left_out: tuple[int, ...],
        lambdas: Sequence[float],
        wanted: np.ndarray | None = None,
    ) -> np.ndarray:
        """Squared errors (len(left_out), len(lambdas), t) on the folds that the fit leaves out.

        wanted: bool (len(lambdas), t); errors of targets that are not wanted mean nothing. Columns
        that no wanted target has are skipped.
        """
        kernel, train = self._kernels[which], np.flatnonzero(~np.isin(self._fold, left_out))
        inner = kernel[np.ix_(train, train)]
        means, mean = inner.mean(axis=0), inner.mean()
        spectrum, vectors = np.linalg.eigh(inner - means - means[:, None] + mean)
        spectrum = np.maximum(spectrum, 0.0)
        columns = self._columns
        middle = columns[train].mean(axis=0)
        rotated = vectors.T @ (columns[train] - middle)
        found = np.empty((len(left_out), len(lambdas), self._groups.shape[1]))
        for judge, fold in enumerate(left_out):
            test = np.flatnonzero(self._fold == fold)
            outer = kernel[np.ix_(test, train)]
            read = (outer - outer.mean(axis=1)[:, None] - means + mean) @ vectors
            missed = columns[test] - middle
            for place, penalty in enumerate(lambdas):
                mine = slice(None) if wanted is None else wanted[place]
                used = np.flatnonzero((self._groups[:, mine] != 0).any(axis=1))
                shrunk = (spectrum + penalty * spectrum.sum() / len(train))[:, None]
                weights = rotated[:, used]
                weights = np.divide(weights, shrunk, out=np.zeros_like(weights), where=shrunk > 0)
                errors = np.zeros(columns.shape[1])
                errors[used] = ((read @ weights - missed[:, used]) ** 2).sum(axis=0)
                found[judge, place] = errors @ self._groups
        return found

    def first(self) -> "Kernels":
        """The read-outs of the first target alone."""
        alone, mine = copy(self), self._groups[:, 0] != 0
        alone._columns, alone._groups = self._columns[:, mine], self._groups[mine, :1]
        return alone

    def nested(self, left_out: tuple[int, ...], penalty: float) -> np.ndarray:
        """Squared errors (len(left_out), 1 + p) of all columns with 0 to p null directions.

        The directions of ranked_null_directions(), computed from the images that fit, join the
        flexible features; p is at most min(k, c).
        """
        train = np.flatnonzero(~np.isin(self._fold, left_out))
        columns = self._columns
        middle = columns[train].mean(axis=0)
        centred = np.eye(len(train)) - 1.0 / len(train)
        inner = centred @ self._kernels[PLAIN][np.ix_(train, train)] @ centred
        null = self._null[train] - self._null[train].mean(axis=0)
        alpha = penalty * (np.trace(inner) + (null**2).sum()) / len(train)
        penalized = inner + alpha * np.eye(len(train))
        factor = scipy.linalg.cho_factor(penalized, lower=True, check_finite=False)
        seen = scipy.linalg.cho_solve(factor, columns[train] - middle, check_finite=False)
        hidden = scipy.linalg.cho_solve(factor, null, check_finite=False)
        # The penalized scatter of b after regression on the flexible features.
        scatter = alpha * null.T @ hidden + alpha * np.eye(null.shape[1])
        half = scipy.linalg.cholesky(scatter, lower=True, check_finite=False)
        basis = ranked_null_directions(half, _solved(half, alpha * null.T @ seen))
        shown = hidden @ basis
        half = scipy.linalg.cholesky(np.eye(basis.shape[1]) + (null @ basis).T @ shown, lower=True)
        weights = _solved(half, (null @ basis).T @ seen)
        found = []
        for judge in left_out:
            test = np.flatnonzero(self._fold == judge)
            outer = self._kernels[PLAIN][np.ix_(test, train)]
            outer = (outer - self._kernels[PLAIN][np.ix_(train, train)].mean(axis=0)) @ centred
            missed = columns[test] - middle - outer @ seen
            added = (self._null[test] - self._null[train].mean(axis=0)) @ basis - outer @ shown
            added = _solved(half, added.T).T
            square = (added.T @ added) * (weights @ weights.T)
            found.append(_descent((missed**2).sum(), square, np.vecdot(added.T @ missed, weights)))
        return np.array(found)


def ranked_null_directions(factor: np.ndarray, white: np.ndarray) -> np.ndarray:
    """Orthonormal null directions, ordered by how much they improve the read-out.

    The first q of them give the least penalized squared error that any q directions can give.

    Parameters
    ----------
    factor : ndarray (k, k)
        Lower Cholesky factor L of the penalized scatter of b, after regression on the other
        features.
    white : ndarray (k, m)
        L^-1 times the cross-products of b and the target, after the same regression; the
        coefficients of b in the read-out are L^-T white.

    Returns
    -------
    ndarray (k, p)
        One column for each direction in which the read-out moves the target, so p is at most min(k,
        m).

    References
    ----------
    Izenman, Reduced-rank regression for the multivariate linear model, 1975.
    """
    carried, directions = scipy.linalg.eigh(white.T @ white, check_finite=False)
    kept = carried > max(white.shape) * np.finfo(np.float64).eps * carried.max(initial=0.0)
    hidden = scipy.linalg.solve_triangular(
        factor, white @ directions[:, kept][:, ::-1], lower=True, trans=1, check_finite=False
    )
    return scipy.linalg.qr(hidden, mode="economic", overwrite_a=True, check_finite=False)[0][
        :, : len(factor)
    ]


@dataclass(frozen=True)
class Features:
    """Flexible features of a block, with b behind them: softmax features, and drawn ReLU units.

    sketch: (C, s), random projection that first compresses the softmax of many classes, or None.
    parts: one matrix (s, q) per temperature, which maps softmax features to their q leading
    components.
    units: (r + 1, h), weights of the ReLU units; the last row is for the offset.
    """

    scale: Scale
    sketch: np.ndarray | None
    parts: list[np.ndarray]
    units: np.ndarray

    @classmethod
    def draw(cls, blocks: Blocks, seed: int, features: int) -> "Features":
        """Draw softmax components and ReLU units, as many of each.

        There are `features` in all with a and b, but at least FLEXIBLE besides a and b.
        """
        scale, first = Scale.of(blocks), next(iter(blocks()))
        rank, classes = first.principal.shape[1], first.logits.shape[1]
        room = max(FLEXIBLE, features - rank - first.null.shape[1])
        sketch = random_basis(classes, CLASSES, seed, 0) if classes > CLASSES else None
        left, units, draw = room - room // 2, [], 1
        # Units that are orthogonal within a draw come nearer to the limit of infinitely many units.
        while left:
            taken = min(left, rank + 1)
            lengths = np.sqrt(np.random.default_rng([seed, draw]).chisquare(rank + 1, taken))
            units.append(random_basis(rank + 1, taken, seed, draw) * lengths)
            left, draw = left - taken, draw + 1
        drawn = cls(scale, sketch, [], np.hstack(units))
        widths = [len(TEMPERATURES) * min(classes, CLASSES), drawn.units.shape[1]]
        n, sums, squares = 0, np.zeros(sum(widths)), np.zeros(widths[1])
        scatter = np.zeros((widths[0], widths[0]))
        for block in blocks():
            roots, relu = np.hstack(drawn._roots(block)), drawn._relu(block)
            n, sums = n + len(relu), sums + np.concatenate([roots.sum(axis=0), relu.sum(axis=0)])
            scatter += roots.T @ roots
            squares += np.einsum("nh,nh->h", relu, relu)
        mean = sums / n
        scatter = scatter / n - np.outer(mean[: widths[0]], mean[: widths[0]])
        per_temperature = widths[0] // len(TEMPERATURES)
        level = _inverse_root(np.diag(scatter).reshape(-1, per_temperature).sum(axis=1))
        level = np.repeat(level, per_temperature)
        leading = scipy.linalg.eigh(scatter * level * level[:, None])[1][:, ::-1][:, : room // 2]
        parts = np.split((leading * level[:, None]).astype(np.float32), len(TEMPERATURES))
        relu_level = _inverse_root(np.array([squares.sum() / n - (mean[widths[0] :] ** 2).sum()]))
        return cls(scale, sketch, parts, drawn.units * relu_level)

    @property
    def width(self) -> int:
        """Number of features before b."""
        return len(self.scale.principal) + self.parts[0].shape[1] + self.units.shape[1]

    def of(self, block: Block) -> np.ndarray:
        """Features (n, p) of a block in float32: on the scale of a, b last."""
        softmaxes = sum(
            roots.astype(np.float32) @ part
            for roots, part in zip(self._roots(block), self.parts, strict=True)
        )
        b = (block.null - self.scale.null) / np.sqrt(self.scale.square)
        parts = self._principal(block), softmaxes, self._relu(block), b.astype(np.float32)
        return np.hstack(parts)

    def _principal(self, block: Block) -> np.ndarray:
        a = (block.principal - self.scale.principal) / np.sqrt(self.scale.square)
        return a.astype(np.float32)

    def _roots(self, block: Block) -> list[np.ndarray]:
        roots = [np.sqrt(softmax(block.logits, temperature)) for temperature in TEMPERATURES]
        return roots if self.sketch is None else [root @ self.sketch for root in roots]

    def _relu(self, block: Block) -> np.ndarray:
        units = self.units.astype(np.float32)
        return np.maximum(self._principal(block) @ units[:-1] + OFFSET * units[-1], 0.0)


def _inverse_root(squares: np.ndarray) -> np.ndarray:
    return np.divide(1.0, np.sqrt(squares), out=np.zeros_like(squares), where=squares > 0)


class Moments:
    """Sums of x, t, x x^T, x t^T and t^2 over images, of features x (p,) and target columns t (c,).

    The caller subtracts an origin from x and t.
    """

    def __init__(self, width: int, columns: int) -> None:
        self.n, self.x, self.xx = 0, np.zeros(width), np.zeros((width, width))
        self.t, self.tt, self.xt = np.zeros(columns), np.zeros(columns), np.zeros((width, columns))

    def add(self, x: np.ndarray, t: np.ndarray) -> None:
        self.n += len(x)
        self.x += x.sum(axis=0)
        self.t += t.sum(axis=0)
        self.xx += x.T @ x
        self.xt += x.T @ t
        self.tt += np.einsum("nc,nc->c", t, t)

    def of(self, columns: np.ndarray) -> "Moments":
        """The sums of some of the columns."""
        some = copy(self)
        some.t, some.xt, some.tt = self.t[columns], self.xt[:, columns], self.tt[columns]
        return some

    def about(self, x: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Sums of x x^T, x t^T and t^2 about the means x (p,) and t (c,)."""
        xx = np.outer(self.x, -x)
        xx += xx.T
        xx += self.n * np.outer(x, x)
        xx += self.xx
        xt = self.xt - np.outer(self.x, t) - np.outer(x, self.t - self.n * t)
        return xx, xt, self.tt - 2.0 * t * self.t + self.n * t * t

    def squared_errors(
        self, weight: np.ndarray, x: np.ndarray, t: np.ndarray, columns: np.ndarray
    ) -> np.ndarray:
        """Squared errors (c,) of some columns, read out by a weight (p, c) of the first p features.

        x (p,) and t (c,) are the means that the read-out subtracts and adds.
        """
        width = len(weight)
        own, moved, read = self.t[columns], x @ weight, self.x[:width] @ weight
        linear = np.einsum("pc,pc->c", weight, self.xt[:width, columns])
        linear = linear - read * t - moved * (own - self.n * t)
        # This is the largest product; float32 has enough digits for errors.
        product = self.xx[:width, :width].astype(np.float32) @ weight.astype(np.float32)
        square = np.einsum("pc,pc->c", weight, product) - 2.0 * read * moved + self.n * moved**2
        return self.tt[columns] - 2.0 * t * own + self.n * t * t - 2.0 * linear + square


class Sums:
    """The read-outs for many images: sums over features for each fold, in constant memory."""

    def __init__(self, blocks: Blocks, targets: Targets, features: Features) -> None:
        self._groups, self._flexible = targets.groups, features.width
        self._moments: dict[int, Moments] = {}
        start, origin = 0, None
        for block in blocks():
            x = features.of(block).astype(np.float64)
            t = targets.columns(block, start).astype(np.float64)
            origin = (x[0].copy(), t[0].copy()) if origin is None else origin
            x, t, start = x - origin[0], t - origin[1], start + len(x)
            for fold in np.unique(block.fold).tolist():
                of_fold = self._moments.setdefault(fold, Moments(x.shape[1], t.shape[1]))
                of_fold.add(x[block.fold == fold], t[block.fold == fold])
        self.folds = sorted(self._moments)

    def _width(self, which: int) -> int:
        return self._flexible if which == PLAIN else len(self._moments[self.folds[0]].x)

    def _fitted(
        self, left_out: tuple[int, ...], width: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, float]:
        """Means x and t, scatter, cross-products and total variance of the first features.

        They cover the folds that are not left out; penalties are multiples of the total variance.
        """
        kept = [self._moments[fold] for fold in self.folds if fold not in left_out]
        n = sum(moments.n for moments in kept)
        x = np.sum([moments.x[:width] for moments in kept], axis=0) / n
        t = np.sum([moments.t for moments in kept], axis=0) / n
        scatter, cross = -n * np.outer(x, x), -n * np.outer(x, t)
        for moments in kept:
            scatter += moments.xx[:width, :width]
            cross += moments.xt[:width]
        return x, t, scatter, cross, float(np.trace(scatter)) / n

    def select(self, which: int, lambdas: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
        """See Kernels; penalties are chosen on the first LOOKED folds.

        Every second penalty is tried, then the neighbours of the best one, until both have been
        tried.
        """
        order, targets = np.argsort(lambdas), self._groups.shape[1]
        made = np.full((len(lambdas), len(self.folds), targets), np.inf)

        def make(fold: int, places: np.ndarray, wanted: np.ndarray) -> None:
            tried = [lambdas[order[place]] for place in places]
            found = self.errors(which, (self.folds[fold],), tried, wanted)[0]
            made[places, fold] = np.where(wanted, found, made[places, fold])

        wanted = np.zeros((len(lambdas), targets), dtype=bool)
        wanted[::2] = True
        while wanted.any():
            places = np.flatnonzero(wanted.any(axis=1))
            for fold in range(len(self.folds))[:LOOKED]:
                make(fold, places, wanted[places])
            looked = made[:, :LOOKED].sum(axis=1)
            best, wanted = looked.argmin(axis=0), np.zeros_like(wanted)
            for step in (-1, 1):
                beside = best + step
                inside = np.flatnonzero((beside >= 0) & (beside < len(lambdas)))
                wanted[beside[inside], inside] |= ~np.isfinite(looked[beside[inside], inside])
        used = np.unique(best)
        for fold in range(len(self.folds))[LOOKED:]:
            make(fold, used, used[:, None] == best)
        return order[best], made[best, :, np.arange(targets)].T

    def errors(
        self,
        which: int,
        left_out: tuple[int, ...],
        lambdas: Sequence[float],
        wanted: np.ndarray | None = None,
    ) -> np.ndarray:
        """See Kernels; columns that no wanted target has are skipped."""
        width, targets = self._width(which), self._groups.shape[1]
        x, t, scatter, cross, scale = self._fitted(left_out, width)
        found = np.full((len(left_out), len(lambdas), targets), np.inf)
        for place, penalty in enumerate(lambdas):
            mine = np.ones(targets, dtype=bool) if wanted is None else wanted[place]
            columns = np.flatnonzero((self._groups[:, mine] != 0).any(axis=1))
            penalized = scatter.copy()
            penalized.flat[:: width + 1] += penalty * scale
            factor = scipy.linalg.cho_factor(
                penalized.T, lower=True, overwrite_a=True, check_finite=False
            )
            solved = scipy.linalg.cho_solve(factor, cross[:, columns], check_finite=False)
            for judge, fold in enumerate(left_out):
                missed = self._moments[fold].squared_errors(solved, x, t[columns], columns)
                found[judge, place, mine] = missed @ self._groups[np.ix_(columns, mine)]
        return found

    def first(self) -> "Sums":
        """See Kernels."""
        alone, mine = copy(self), np.flatnonzero(self._groups[:, 0])
        alone._groups = self._groups[mine, :1]
        alone._moments = {fold: moments.of(mine) for fold, moments in self._moments.items()}
        return alone

    def nested(self, left_out: tuple[int, ...], penalty: float) -> np.ndarray:
        """See Kernels."""
        rank, width = self._width(PLAIN), self._width(WITH_NULL)
        x, t, scatter, cross, scale = self._fitted(left_out, width)
        alpha = penalty * scale
        scatter.flat[:: width + 1] += alpha
        factor = scipy.linalg.cholesky(scatter, lower=True, check_finite=False)
        basis = ranked_null_directions(factor[rank:, rank:], _solved(factor, cross)[rank:])

        def narrow(rows: np.ndarray) -> np.ndarray:
            return np.concatenate([rows[:rank], basis.T @ rows[rank:]])

        factor = scipy.linalg.cholesky(narrow(narrow(scatter).T), lower=True, check_finite=False)
        white = _solved(factor, narrow(cross))
        found = []
        for fold in left_out:
            xx, xt, tt = self._moments[fold].about(x, t)
            xx, xt = narrow(narrow(xx).T), narrow(xt)
            square = _solved(factor, _solved(factor, xx).T) * (white @ white.T)
            linear = np.vecdot(_solved(factor, xt), white)
            found.append(_descent(tt.sum(), square, linear)[rank:])
        return np.array(found)


ReadOuts = Kernels | Sums


def read_out(blocks: Blocks, targets: Targets, seed: int, kernels: bool | None = None) -> ReadOuts:
    """The read-outs in the form that suits the number of images.

    Both forms give the same numbers, up to the draw of random features by `seed` in the form of
    sums. If `kernels` is None, kernels are used where there are fewer images than features.
    """
    if kernels is None:
        first = next(iter(blocks()))
        width = first.principal.shape[1] + first.null.shape[1]
        kernels = few_images(sum(len(block.fold) for block in blocks()), width)
    if kernels:
        return Kernels(blocks, targets)
    return Sums(blocks, targets, Features.draw(blocks, seed, FEATURES))


def few_images(n: int, width: int) -> bool:
    """Whether n images are fewer than the features of a read-out: then kernels are cheaper."""
    return n < max(FEATURES, width)
