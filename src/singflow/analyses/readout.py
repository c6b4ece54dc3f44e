"""Cross-fitted read-outs of an embedding from what the logits see, with and without the null component.

A read-out is a ridge regression on flexible features of the principal coordinates a = V_r^T f and the logits: a itself, the square
roots of softmax(logits / T), and random ReLU units of a, all blocks at equal mean square. The second read-out also has the null
coordinates b = V_0^T f, on the scale of a. Two forms give the same numbers: kernels where there are few images, sums over features
where there are many. Both take images in blocks and judge every fold by fits that did not see it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import scipy

from singflow.analyses.geometry import random_basis

TEMPERATURES = (1.0, 2.0, 4.0)  # of the softmax features
OFFSET = 0.5  # of the ReLU units, beside features of mean square 1
FEATURES = 3072  # of the read-outs in the form of sums, b among them
FLEXIBLE = 1024  # of these at least are softmax features and ReLU units
CLASSES = 1365  # whose softmax features are taken as they are; more are compressed first
LOOKED = 2  # folds on which penalties are chosen in the form of sums
PLAIN, WITH_NULL = 0, 1


@dataclass(frozen=True)
class Block:
    """Some images.

    principal (n, r), null (n, k): their coordinates a and b; logits (n, C); embeddings (n, m); fold (n,) from 0.
    """

    principal: np.ndarray
    null: np.ndarray
    logits: np.ndarray
    embeddings: np.ndarray
    fold: np.ndarray


Blocks = Callable[[], Iterable[Block]]  # all images, each time anew and in the same order


def softmax(logits: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities (n, C) of logits (n, C) at a temperature."""
    return np.asarray(scipy.special.softmax(logits.astype(np.float64) / temperature, axis=1))


@dataclass(frozen=True)
class Targets:
    """Columns that are read out; a target is a group of columns, whose errors are added.

    columns: gives those (n, c) of a block that begins with image `start`; groups: (c, t) 0 or 1, the columns of each target.
    variance: (t,) of the embedding that a target is a part of, as a multiple of that of the study's embeddings.
    """

    columns: Callable[[Block, int], np.ndarray]
    groups: np.ndarray
    variance: np.ndarray


class ReadOuts(Protocol):
    """The two read-outs of all targets, by their errors on images that they did not see."""

    folds: list[int]

    def select(self, which: int, lambdas: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
        """Position of the penalty of every target (targets,), and with it squared errors (folds, targets) over images and columns."""

    def errors(
        self,
        which: int,
        left_out: tuple[int, ...],
        lambdas: Sequence[float],
        wanted: np.ndarray | None = None,
    ) -> np.ndarray:
        """Squared errors (len(left_out), len(lambdas), targets) on folds that are left out of a fit.

        wanted: (len(lambdas), targets) bool; the errors of targets that are not wanted may be infinite.
        """


@dataclass(frozen=True)
class Scale:
    """Means and mean squares that put features on one scale: of a (r,), of b (k,), and the mean square of a about its mean."""

    principal: np.ndarray
    null: np.ndarray
    square: float

    @classmethod
    def of(cls, blocks: Blocks) -> "Scale":
        """Read them off all images."""
        n, rank, first, sums, square = 0, 0, np.zeros(0), np.zeros(0), 0.0
        for block in blocks():
            rows = np.hstack([block.principal, block.null]).astype(np.float64)
            if not n:
                rank, first, sums = (
                    block.principal.shape[1],
                    rows[0].copy(),
                    np.zeros(rows.shape[1]),
                )
            rows -= first
            n, sums, square = (
                n + len(rows),
                sums + rows.sum(axis=0),
                square + float((rows[:, :rank] ** 2).sum()),
            )
        mean = sums / n
        about = max(square / n - float((mean[:rank] ** 2).sum()), np.finfo(np.float64).tiny)
        return cls(first[:rank] + mean[:rank], first[rank:] + mean[rank:], about)


def _normed(kernel: np.ndarray) -> np.ndarray:
    """A kernel centred, with trace n."""
    kernel = kernel - kernel.mean(axis=0) - kernel.mean(axis=1)[:, None] + kernel.mean()
    trace = np.trace(kernel)
    return kernel * (len(kernel) / trace) if trace > 0 else kernel


def _arccosine(rows: np.ndarray) -> np.ndarray:
    """The kernel of infinitely many random ReLU units (Cho and Saul 2009, order 1) of rows with an offset beside them."""
    rows = np.hstack([rows, np.full((len(rows), 1), OFFSET)])
    norm = np.sqrt(np.vecdot(rows, rows))
    angle = np.arccos(np.clip(rows @ rows.T / norm[:, None] / norm, -1.0, 1.0))
    return norm[:, None] * norm * (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / np.pi


class Kernels:
    """The read-outs where images are few: kernel ridge regression, decomposed once for every set of folds that fits."""

    def __init__(self, blocks: Blocks, targets: Targets) -> None:
        scale, images = Scale.of(blocks), list(blocks())
        starts = np.cumsum([0, *(len(each.fold) for each in images)])
        self._columns = np.concatenate(
            [targets.columns(each, start) for each, start in zip(images, starts, strict=False)]
        )
        a, b, logits, self._fold = (
            np.concatenate([getattr(each, name) for each in images])
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
        """As ReadOuts has it; every penalty is looked at."""
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
        """As ReadOuts has it; all errors are made."""
        kernel, train = self._kernels[which], np.flatnonzero(~np.isin(self._fold, left_out))
        inner = kernel[np.ix_(train, train)]
        means, mean = inner.mean(axis=0), inner.mean()
        spectrum, vectors = np.linalg.eigh(inner - means - means[:, None] + mean)
        spectrum = np.maximum(spectrum, 0.0)
        columns = self._columns
        middle = columns[train].mean(axis=0)
        rotated = vectors.T @ (columns[train] - middle)
        found = []
        for judge in left_out:
            test = np.flatnonzero(self._fold == judge)
            outer = kernel[np.ix_(test, train)]
            read = (outer - outer.mean(axis=1)[:, None] - means + mean) @ vectors
            missed = columns[test] - middle
            shrunk = (spectrum + each * spectrum.sum() / len(train) for each in lambdas)
            solved = (
                np.divide(
                    rotated, each[:, None], out=np.zeros_like(rotated), where=each[:, None] > 0
                )
                for each in shrunk
            )
            found.append(
                [((read @ each - missed) ** 2).sum(axis=0) @ self._groups for each in solved]
            )
        return np.array(found)

    def nested(self, left_out: tuple[int, ...], penalty: float) -> np.ndarray:
        """Squared errors (len(left_out), 1 + p) of the first target with 0, 1, ..., p null directions beside the flexible features.

        Directions are those of null_directions(), made of the images that fit; p = min(k, columns of the target).
        """
        train = np.flatnonzero(~np.isin(self._fold, left_out))
        columns = self._columns[:, self._groups[:, 0] > 0]
        middle = columns[train].mean(axis=0)
        centred = np.eye(len(train)) - 1.0 / len(train)
        inner = centred @ self._kernels[PLAIN][np.ix_(train, train)] @ centred
        null = self._null[train] - self._null[train].mean(axis=0)
        alpha = penalty * (np.trace(inner) + (null**2).sum()) / len(train)
        factor = scipy.linalg.cho_factor(
            inner + alpha * np.eye(len(train)), lower=True, check_finite=False
        )
        seen, hidden = (
            scipy.linalg.cho_solve(factor, each, check_finite=False)
            for each in (columns[train] - middle, null)
        )
        scatter = alpha * null.T @ hidden + alpha * np.eye(
            null.shape[1]
        )  # of b, less what the flexible features tell of it
        half = scipy.linalg.cholesky(scatter, lower=True, check_finite=False)
        basis = null_directions(
            half,
            scipy.linalg.solve_triangular(
                half, alpha * null.T @ seen, lower=True, check_finite=False
            ),
        )
        shown = hidden @ basis
        half = scipy.linalg.cholesky(np.eye(basis.shape[1]) + (null @ basis).T @ shown, lower=True)
        weights = scipy.linalg.solve_triangular(half, (null @ basis).T @ seen, lower=True)
        found = []
        for judge in left_out:
            test = np.flatnonzero(self._fold == judge)
            outer = self._kernels[PLAIN][np.ix_(test, train)]
            outer = (outer - self._kernels[PLAIN][np.ix_(train, train)].mean(axis=0)) @ centred
            missed = columns[test] - middle - outer @ seen
            added = (self._null[test] - self._null[train].mean(axis=0)) @ basis - outer @ shown
            added = scipy.linalg.solve_triangular(half, added.T, lower=True).T
            linear, square = (
                np.vecdot(added.T @ missed, weights),
                (added.T @ added) * (weights @ weights.T),
            )
            steps = 2.0 * np.tril(square, -1).sum(axis=1) + np.diag(square) - 2.0 * linear
            found.append((missed**2).sum() + np.cumsum(np.concatenate([[0.0], steps])))
        return np.array(found)


def null_directions(factor: np.ndarray, white: np.ndarray) -> np.ndarray:
    """Orthonormal null directions: with the first q the penalized squared error is the least that any q of them give.

    Parameters
    ----------
    factor : ndarray of shape (k, k)
        Lower Cholesky factor L of the penalized scatter of b, less what other features tell of it.
    white : ndarray of shape (k, m)
        L^-1 times the products of b and the target, less the same: the read-out's part on b is L^-T white.

    Returns
    -------
    ndarray of shape (k, p)
        As many columns as the read-out moves the target in, so at most min(k, m).

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
    """Flexible features of a block, and b behind them, in the form of sums: leading parts of the softmax features, and drawn ReLU units.

    scale: as Scale has it; sketch: (C, s) by which many classes are compressed first, or None; parts: for each temperature (s, q), by which
    softmax features become their leading sums; units: (r + 1, h) of the ReLU units.
    """

    scale: Scale
    sketch: np.ndarray | None
    parts: list[np.ndarray]
    units: np.ndarray

    @classmethod
    def draw(cls, blocks: Blocks, seed: int, features: int = FEATURES) -> "Features":
        """Draw them, so that there are `features` with a and b, but FLEXIBLE beside these at least: half from softmax, half ReLU units."""
        scale, first = Scale.of(blocks), next(iter(blocks()))
        rank, classes = first.principal.shape[1], first.logits.shape[1]
        room = max(FLEXIBLE, features - rank - first.null.shape[1])
        sketch = random_basis(classes, CLASSES, seed, 0) if classes > CLASSES else None
        left, units, draw = room - room // 2, [], 1
        while left:  # orthogonal within a draw: nearer to infinitely many than independent ones
            taken = min(left, rank + 1)
            lengths = np.sqrt(np.random.default_rng([seed, draw]).chisquare(rank + 1, taken))
            units.append(random_basis(rank + 1, taken, seed, draw) * lengths)
            left, draw = left - taken, draw + 1
        drawn = cls(scale, sketch, [], np.hstack(units))
        widths = [len(TEMPERATURES) * min(classes, CLASSES), drawn.units.shape[1]]
        n, sums, scatter, squares = (
            0,
            np.zeros(sum(widths)),
            np.zeros((widths[0], widths[0])),
            np.zeros(widths[1]),
        )
        for block in blocks():
            roots, relu = np.hstack(drawn._roots(block)), drawn._relu(block)
            n, sums = n + len(relu), sums + np.concatenate([roots.sum(axis=0), relu.sum(axis=0)])
            scatter += roots.T @ roots
            squares += np.einsum("nh,nh->h", relu, relu)
        mean = sums / n
        scatter = scatter / n - np.outer(mean[: widths[0]], mean[: widths[0]])
        one = widths[0] // len(TEMPERATURES)
        level = np.repeat(_inverse_root(np.diag(scatter).reshape(-1, one).sum(axis=1)), one)
        leading = scipy.linalg.eigh(scatter * level * level[:, None])[1][:, ::-1][:, : room // 2]
        parts = np.split((leading * level[:, None]).astype(np.float32), len(TEMPERATURES))
        relu_level = _inverse_root(np.array([squares.sum() / n - (mean[widths[0] :] ** 2).sum()]))
        return cls(scale, sketch, parts, drawn.units * relu_level)

    @property
    def width(self) -> int:
        """Number of features before b."""
        return len(self.scale.principal) + self.parts[0].shape[1] + self.units.shape[1]

    def of(self, block: Block) -> np.ndarray:
        """Features (n, p) of a block in float32, b last, and on the scale of a."""
        softmaxes = sum(
            roots.astype(np.float32) @ part
            for roots, part in zip(self._roots(block), self.parts, strict=True)
        )
        b = (block.null - self.scale.null) / np.sqrt(self.scale.square)
        return np.hstack(
            [self._principal(block), softmaxes, self._relu(block), b.astype(np.float32)]
        )

    def _principal(self, block: Block) -> np.ndarray:
        return ((block.principal - self.scale.principal) / np.sqrt(self.scale.square)).astype(
            np.float32
        )

    def _roots(self, block: Block) -> list[np.ndarray]:
        roots = [np.sqrt(softmax(block.logits, temperature)) for temperature in TEMPERATURES]
        return roots if self.sketch is None else [each @ self.sketch for each in roots]

    def _relu(self, block: Block) -> np.ndarray:
        units = self.units.astype(np.float32)
        return np.maximum(self._principal(block) @ units[:-1] + OFFSET * units[-1], 0.0)


def _inverse_root(squares: np.ndarray) -> np.ndarray:
    return np.divide(1.0, np.sqrt(squares), out=np.zeros_like(squares), where=squares > 0)


class Moments:
    """Sums over some images of features x (p,) and columns t (c,), both less an origin: x, t, x x^T, x t^T and t^2."""

    def __init__(self, width: int, columns: int) -> None:
        self.n, self.x, self.t = 0, np.zeros(width), np.zeros(columns)
        self.xx, self.xt, self.tt = (
            np.zeros((width, width)),
            np.zeros((width, columns)),
            np.zeros(columns),
        )

    def add(self, x: np.ndarray, t: np.ndarray) -> None:
        """Add images."""
        self.n += len(x)
        self.x += x.sum(axis=0)
        self.t += t.sum(axis=0)
        self.xx += x.T @ x
        self.xt += x.T @ t
        self.tt += np.einsum("nc,nc->c", t, t)

    def about(
        self, x: np.ndarray, t: np.ndarray, width: int, columns: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """x x^T, x t^T and t^2 of the first features and of some columns, about the means x (width,) and t (c,)."""
        mine, t, own = self.x[:width], t[columns], self.t[columns]
        xx = np.outer(mine, -x)
        xx += xx.T
        xx += self.n * np.outer(x, x)
        xx += self.xx[:width, :width]
        xt = self.xt[:width, columns] - np.outer(mine, t) - np.outer(x, own - self.n * t)
        return xx, xt, self.tt[columns] - 2.0 * t * own + self.n * t * t

    def squared_errors(
        self, weight: np.ndarray, x: np.ndarray, t: np.ndarray, columns: np.ndarray
    ) -> np.ndarray:
        """Squared errors (c,) of some columns, read out by a weight (p, c) of the first features about the means x (p,) and t (c,)."""
        width = len(weight)
        own, moved, read = self.t[columns], x @ weight, self.x[:width] @ weight
        linear = (
            np.einsum("pc,pc->c", weight, self.xt[:width, columns])
            - read * t
            - moved * (own - self.n * t)
        )
        product = self.xx[:width, :width].astype(np.float32) @ weight.astype(
            np.float32
        )  # the largest product: digits enough for errors
        square = np.einsum("pc,pc->c", weight, product) - 2.0 * read * moved + self.n * moved**2
        return self.tt[columns] - 2.0 * t * own + self.n * t * t - 2.0 * linear + square


class Sums:
    """The read-outs where images are many: sums over features for each fold, whose memory does not grow with the images."""

    def __init__(self, blocks: Blocks, targets: Targets, features: Features) -> None:
        self._groups, self._flexible = targets.groups, features.width
        self._moments: dict[int, Moments] = {}
        start, origin = 0, None
        for block in blocks():
            x, t = (
                features.of(block).astype(np.float64),
                targets.columns(block, start).astype(np.float64),
            )
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
        """Means, scatter and cross-products of the first features over the folds that fit, and what a penalty is a multiple of."""
        kept = [self._moments[fold] for fold in self.folds if fold not in left_out]
        n = sum(each.n for each in kept)
        x, t = (
            np.sum([each.x[:width] for each in kept], axis=0) / n,
            np.sum([each.t for each in kept], axis=0) / n,
        )
        scatter, cross = -n * np.outer(x, x), -n * np.outer(x, t)
        for each in kept:
            scatter += each.xx[:width, :width]
            cross += each.xt[:width]
        return x, t, scatter, cross, float(np.trace(scatter)) / n

    def select(self, which: int, lambdas: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
        """As ReadOuts has it: every second penalty and then the best one's neighbours, for every target, on the first LOOKED folds."""
        order, targets = np.argsort(lambdas), self._groups.shape[1]
        made = np.full((len(lambdas), len(self.folds), targets), np.inf)

        def make(fold: int, places: np.ndarray, wanted: np.ndarray) -> None:
            found = self.errors(
                which, (self.folds[fold],), [lambdas[order[place]] for place in places], wanted
            )[0]
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
        """As ReadOuts has it; nothing is made of columns that no wanted target has."""
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

    def nested(self, left_out: tuple[int, ...], penalty: float) -> np.ndarray:
        """As Kernels has it."""
        rank, width, chosen = self._width(PLAIN), self._width(WITH_NULL), self._groups[:, 0] > 0
        x, t, scatter, cross, scale = self._fitted(left_out, width)
        cross, alpha = cross[:, chosen], penalty * scale
        scatter.flat[:: width + 1] += alpha
        factor = scipy.linalg.cholesky(scatter, lower=True, check_finite=False)
        white = scipy.linalg.solve_triangular(factor, cross, lower=True, check_finite=False)
        basis = null_directions(factor[rank:, rank:], white[rank:])

        def narrow(rows: np.ndarray) -> np.ndarray:
            return np.concatenate([rows[:rank], basis.T @ rows[rank:]])

        factor = scipy.linalg.cholesky(narrow(narrow(scatter).T), lower=True, check_finite=False)
        white = scipy.linalg.solve_triangular(factor, narrow(cross), lower=True, check_finite=False)
        found = []
        for fold in left_out:
            xx, xt, tt = self._moments[fold].about(x, t, width, np.flatnonzero(chosen))
            xx, xt = narrow(narrow(xx).T), narrow(xt)
            half = scipy.linalg.solve_triangular(factor, xx, lower=True, check_finite=False)
            square = scipy.linalg.solve_triangular(
                factor, half.T, lower=True, check_finite=False
            ) * (white @ white.T)
            linear = np.vecdot(
                scipy.linalg.solve_triangular(factor, xt, lower=True, check_finite=False), white
            )
            steps = 2.0 * np.tril(square, -1).sum(axis=1) + np.diag(square) - 2.0 * linear
            found.append(tt.sum() + np.cumsum(np.concatenate([[0.0], steps]))[rank:])
        return np.array(found)


def read_out(
    blocks: Blocks, targets: Targets, seed: int, kernels: bool | None = None
) -> Kernels | Sums:
    """The read-outs in the form that suits the number of images.

    Parameters
    ----------
    blocks : callable
        Gives all images in blocks, each time anew.
    targets : Targets
        What is read out.
    seed : int
        Of random features in the form of sums.
    kernels : bool, optional
        Whether the form is that of kernels; by default where images are fewer than features.

    Returns
    -------
    Kernels or Sums
        Which give the same numbers but for the draw of random features.
    """
    if kernels is None:
        first = next(iter(blocks()))
        kernels = few_images(
            sum(len(each.fold) for each in blocks()), first.principal.shape[1] + first.null.shape[1]
        )
    return (
        Kernels(blocks, targets) if kernels else Sums(blocks, targets, Features.draw(blocks, seed))
    )


def few_images(n: int, width: int) -> bool:
    """Whether n images of `width` features are fewer than the features of a read-out, so that kernels are cheaper."""
    return n < max(FEATURES, width)
