"""Cross-fitted read-outs of targets from the bands of a and the logits, with and without b.

A read-out of columns t is a kernel ridge regression, mean t + K (K + penalty I)^-1 (t - mean t).
Its plain kernel K is a weighted sum of bands (analyses/bands.py). The other read-out adds the null
coordinates b with a weight of their own: K + own b b^T. Kernels are centred, so the mean is free.
D compares the errors of the two on images that the fits left out. Penalties are per distinct image:
copies change no read-out.

Up to LANDMARKS images the kernels are exact. Above, the bands are known by their kernels with
LANDMARKS images (Nystroem's method), and b stays exact.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy

from singflow.analyses.bands import (
    PENALTIES,
    Bands,
    Block,
    Blocks,
    centred,
    descend,
    first_best,
    solved,
)
from singflow.analyses.moments import Moments
from singflow.parallel import map_apart

LANDMARKS = 1024  # images up to which kernels are exact
OWN = (0.0, 0.01, 0.1, 1.0, 10.0)  # weights of b, beside a plain kernel of mean trace 1
LOOKED = 2  # folds on which penalties are chosen where every fold needs a fit of its own
JITTER = 1e-8  # of the landmarks' kernel, whose mean trace is 1

Columns = Callable[[Block], np.ndarray]  # of the images of a block


class Fit(NamedTuple):
    """A read-out: the weight of b, and the penalty."""

    own: float
    penalty: float


@dataclass(frozen=True)
class Targets:
    """What is read out; the error of a target is a weighted sum of products of column errors.

    pairs: (p, 2), positions of two columns; a column with itself gives its squared error. groups:
    (p, t), weight of the products in the targets. variance: (t,), variance of a target's embeddings
    divided by that of the study's embeddings.
    """

    pairs: np.ndarray
    groups: np.ndarray
    variance: np.ndarray

    @classmethod
    def of(cls, *sizes: int, variance: Sequence[float] = (1.0,)) -> "Targets":
        """Targets that consist of the first columns, the next columns and so on."""
        places = np.arange(sum(sizes))
        groups = np.repeat(np.eye(len(sizes)), sizes, axis=0)
        return cls(np.stack([places, places], axis=1), groups, np.array(variance))


class Exact:
    """The read-outs of few images, with a closed form for the errors on images left out.

    With M = (K + penalty I)^-1 - 1 1^T / (n penalty) for a centred kernel K, penalty M t are the
    errors of the fit to all images. The fit without the images S has the errors (M_SS)^-1 (M t)_S
    on them, as the inverse of a matrix in blocks shows; for one image this is the leave-one-out
    error e_i / (1 - h_ii). So no fold needs a fit of its own: one M serves all folds.

    kernel: (n, n), weighted sum of the bands. null: b (n, k), with mean square 1 about its mean.
    columns: (n, c), of the targets. block: the images.
    """

    def __init__(
        self, kernel: np.ndarray, null: np.ndarray, columns: np.ndarray, block: Block
    ) -> None:
        self._null, self._columns, self._fold, self._group = null, columns, block.fold, block.group
        self._copies = len(block.image) / len(np.unique(block.image))
        self.folds = self.looked = np.unique(block.fold).tolist()
        self._kernel = centred(kernel)
        self._spectra: dict[float, tuple[np.ndarray, np.ndarray]] = {}
        # The last one, which fits that leave out one fold after the other have in common.
        self._operators: dict[Fit, np.ndarray] = {}

    def _operator(self, fit: Fit) -> np.ndarray:
        """M (n, n), from the eigenvectors of the kernel, which all penalties have in common."""
        if (known := self._operators.get(fit)) is not None:
            return known
        if fit.own not in self._spectra:
            kernel = self._kernel + fit.own * centred(self._null @ self._null.T)
            spectrum, vectors = scipy.linalg.eigh(kernel, driver="evd", check_finite=False)
            self._spectra[fit.own] = np.maximum(spectrum, 0.0), vectors
        (spectrum, vectors), penalty = self._spectra[fit.own], fit.penalty * self._copies
        operator = (vectors / (spectrum + penalty)) @ vectors.T
        operator -= 1.0 / (len(operator) * penalty)
        self._operators = {fit: operator}
        return operator

    def _missed(
        self, operator: np.ndarray, moved: np.ndarray, fold: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the fold left out, and the errors there; moved is M t (n, c)."""
        rows = np.flatnonzero(self._fold == fold)
        return rows, solved(operator[np.ix_(rows, rows)], moved[rows])

    def errors(self, fit: Fit, folds: Sequence[int], pairs: np.ndarray) -> np.ndarray:
        """Products (folds, p) of column errors on folds, each of which is left out alone."""
        (used, (first, second)), operator = _used(pairs), self._operator(fit)
        moved = operator @ self._columns[:, used]
        missed = [np.ascontiguousarray(self._missed(operator, moved, f)[1].T) for f in folds]
        return np.stack([np.vecdot(part[first], part[second]) for part in missed])

    def errors_without(self, fit: Fit, pairs: np.ndarray) -> np.ndarray:
        """Products (groups, p) of column errors on all images but one group, left out of all fits.

        A fit leaves out a fold S and a group G. With U = (M_SS)^-1 M_SG, the errors on the fold are
        e_S - U e_G, where e_S are those without the group, and the errors on the group are
        e_G = (M_GG - M_GS U)^-1 ((M t)_G - M_GS e_S). A group of the fold needs no other fit.
        """
        (used, (first, second)), operator = _used(pairs), self._operator(fit)
        moved, groups = operator @ self._columns[:, used], np.unique(self._group)
        total = np.zeros((len(groups), len(pairs)))
        for fold in self.folds:
            inside, missed = self._missed(operator, moved, fold)
            outside = np.flatnonzero(self._fold != fold)
            crossed = operator[np.ix_(inside, outside)]
            moving = solved(operator[np.ix_(inside, inside)], crossed)
            inner = operator[np.ix_(outside, outside)] - crossed.T @ moving
            left = moved[outside] - crossed.T @ missed
            turned = np.ascontiguousarray(missed.T)
            for place, group in enumerate(groups):
                if (mine := self._group[inside] == group).any():
                    found = turned[:, ~mine]
                else:
                    rows = np.flatnonzero(self._group[outside] == group)
                    of_group = solved(inner[np.ix_(rows, rows)], left[rows])
                    found = turned - of_group.T @ moving[:, rows].T
                total[place] += np.vecdot(found[first], found[second])
        return total

    def residuals(
        self, fits: Sequence[Fit], m: int, blocks: Blocks
    ) -> Iterator[tuple[Block, list[np.ndarray]]]:
        """Blocks of images with the cross-fitted errors (n, m) of the first m columns, by fit."""
        missed, start = [self._cross_fitted(fit, m) for fit in fits], 0
        for block in blocks():
            yield block, [errors[start : start + len(block.fold)] for errors in missed]
            start += len(block.fold)

    def _cross_fitted(self, fit: Fit, m: int) -> np.ndarray:
        operator = self._operator(fit)
        moved = operator @ self._columns[:, :m]
        for fold in self.folds:
            rows, missed = self._missed(operator, moved, fold)
            moved[rows] = missed
        return moved

    def null_error(self, penalty: float, folds: Sequence[int]) -> float:
        """Squared error of the plain fit to b, on folds that are left out one by one."""
        operator = self._operator(Fit(0.0, penalty))
        moved = operator @ self._null
        missed = [self._missed(operator, moved, fold)[1] for fold in folds]
        return float(sum(np.trace(errors.T @ errors) for errors in missed))

    def derive(
        self, penalty: float, mix: np.ndarray, noise: np.ndarray, leak: np.ndarray
    ) -> "Exact":
        """Other columns: cross-fitted plain prediction @ mix + last columns @ noise + b @ leak."""
        y = self._columns[:, : len(mix)]
        predicted = y - self._cross_fitted(Fit(0.0, penalty), len(mix))
        last = self._columns[:, self._columns.shape[1] - len(noise) :]
        made = copy(self)
        made._columns = predicted @ mix + last @ noise + self._null @ leak
        return made


class Nystroem:
    """The read-outs of many images: sums over features for each group, in constant memory.

    With the kernel C (n, L) of the images and the landmarks, and A = F F^T that of the landmarks
    among themselves, C A^-1 C^T stands for the kernel of the images (Nystroem's method). It is
    x x^T for the features x = C F^-T, so the read-out is a ridge regression on these features, and
    on b beside them. Sums over the images of each group (Moments) are all that it needs.

    bands, weights: of the landmarks. null: b of a block (n, k), with mean square 1 about its mean.
    columns: of a block; together (n, c). threads: blocks and fits that are computed at once.
    """

    def __init__(
        self,
        blocks: Blocks,
        bands: Bands,
        weights: Mapping[str, float],
        null: Callable[[Block], np.ndarray],
        columns: Sequence[Columns],
        threads: int = 1,
    ) -> None:
        marks = bands.mixed(weights)
        marks.flat[:: len(marks) + 1] += JITTER
        self._factor = scipy.linalg.cholesky(marks, lower=True, check_finite=False)
        self._bands, self._weights, self._null, self._first = bands, weights, null, columns[0]
        self._plain, self._threads = len(marks), threads
        moments: dict[int, Moments] = {}
        self._groups: dict[int, list[int]] = {}  # by fold

        def rows_of(block: Block) -> tuple[np.ndarray, np.ndarray, Block]:
            return self._features(block), np.hstack([column(block) for column in columns]), block

        images: set[int] = set()
        for x, t, block in map_apart(rows_of, blocks(), threads):
            images.update(block.image.tolist())
            for group in np.unique(block.group).tolist():
                rows = block.group == group
                if group not in moments:
                    moments[group] = Moments(x.shape[1], t.shape[1])
                    self._groups.setdefault(int(block.fold[rows][0]), []).append(group)
                moments[group].add(x[rows], t[rows])
        self.folds = sorted(self._groups)
        self.looked = self.folds[:LOOKED]
        self._use(moments)
        self._copies = self._total.n / len(images)

    def _use(self, moments: dict[int, Moments]) -> None:
        """Sums over the images of each group, and over all of them."""
        self._moments = moments
        self._total = Moments.over([moments[group] for group in sorted(moments)])

    def _fold(self, fold: int) -> Moments:
        """Sums over the images of a fold."""
        return Moments.over([self._moments[group] for group in self._groups[fold]])

    def _features(self, block: Block) -> np.ndarray:
        """Features whose products are the plain kernel, then b: (n, L + k)."""
        kernel = self._bands.mixed(self._weights, block)
        half = scipy.linalg.solve_triangular(self._factor, kernel.T, lower=True, check_finite=False)
        return np.hstack([half.T, self._null(block)])

    def _kept(self, out: Sequence[Moments]) -> tuple[int, np.ndarray, np.ndarray]:
        """Number of images that are not left out, and their means of x and t."""
        n = self._total.n - sum(one.n for one in out)
        x, t = self._total.x - sum(one.x for one in out), self._total.t - sum(one.t for one in out)
        return n, x / n, t / n

    def _fitted(
        self, fit: Fit, out: Sequence[Moments], used: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Weights (p, c) of some columns, and the means of x (p,) and t (c,).

        They are (S + diag)^-1 C, with the scatter S and the cross-products C of the images that are
        not left out, by subtraction. The diagonal is the penalty for the features of the bands, and
        penalty / own for b: a kernel own b b^T is that of the features sqrt(own) b.
        """
        n, x, t = self._kept(out)
        width, penalty = len(x) if fit.own else self._plain, fit.penalty * self._copies
        x, t = x[:width], t[used]
        scatter = np.outer(n * x, x)
        np.subtract(self._total.xx[:width, :width], scatter, out=scatter)
        cross = self._total.xt[:width, used] - n * np.outer(x, t)
        for one in out:
            scatter -= one.xx[:width, :width]
            cross -= one.xt[:width, used]
        diagonal = scatter.reshape(-1)[:: width + 1]
        diagonal[: self._plain] += penalty
        if fit.own:
            diagonal[self._plain :] += penalty / fit.own
        return solved(scatter, cross), x, t

    def errors(self, fit: Fit, folds: Sequence[int], pairs: np.ndarray) -> np.ndarray:
        """See Exact."""
        used, places = _used(pairs)

        def judged(fold: int) -> np.ndarray:
            own = self._fold(fold)
            return own.errors(*self._fitted(fit, [own], used), used, places)

        return np.stack([*map_apart(judged, folds, self._threads)])

    def errors_without(self, fit: Fit, pairs: np.ndarray) -> np.ndarray:
        """See Exact."""
        used, places = _used(pairs)
        total = {group: np.zeros(len(pairs)) for group in sorted(self._moments)}
        for fold in self.folds:
            own, inside = self._fold(fold), self._groups[fold]
            fitted = self._fitted(fit, [own], used)
            parts = {group: self._moments[group].errors(*fitted, used, places) for group in inside}

            def judged(group: int, own: Moments = own) -> np.ndarray:
                fitted = self._fitted(fit, [own, self._moments[group]], used)
                return own.errors(*fitted, used, places)

            outside = [group for group in total if group not in inside]
            for group in inside:
                total[group] += sum(part for other, part in parts.items() if other != group)
            products = map_apart(judged, outside, self._threads)
            for group, of_group in zip(outside, products, strict=True):
                total[group] += of_group
        return np.stack([*total.values()])

    def residuals(
        self, fits: Sequence[Fit], m: int, blocks: Blocks
    ) -> Iterator[tuple[Block, list[np.ndarray]]]:
        """See Exact."""
        first, folds = np.arange(m), self.folds
        made = [{f: self._fitted(fit, [self._fold(f)], first) for f in folds} for fit in fits]

        def missed(block: Block) -> tuple[Block, list[np.ndarray]]:
            x, t = self._features(block), self._first(block).astype(np.float64)
            found = [t, *(t.copy() for _ in fits[1:])]
            for fold in np.unique(block.fold).tolist():
                rows = block.fold == fold
                for of_fold, out in zip(made, found, strict=True):
                    weight, mean, middle = of_fold[fold]
                    out[rows] -= middle + (x[rows, : len(weight)] - mean) @ weight
            return block, found

        yield from map_apart(missed, blocks(), self._threads)

    def null_error(self, penalty: float, folds: Sequence[int]) -> float:
        """See Exact.

        With the scatter S of features and b in blocks, and W = (S_xx + penalty I)^-1 S_xb, the
        errors on a fold are b - W^T x, and its sums give their products.
        """
        plain, b = slice(0, self._plain), slice(self._plain, None)

        def error(fold: int) -> float:
            of_fold = self._fold(fold)
            _, x, _ = self._kept([of_fold])
            scatter, own = self._total.about(x), of_fold.about(x)
            scatter -= own
            inner = scatter[plain, plain].copy()
            inner.flat[:: len(inner) + 1] += penalty * self._copies
            weight = solved(inner, scatter[plain, b])
            missed = own[b, b] - own[plain, b].T @ weight
            missed += weight.T @ (own[plain, plain] @ weight - own[plain, b])
            return float(np.trace(missed))

        return sum(map_apart(error, folds, self._threads))

    def derive(
        self, penalty: float, mix: np.ndarray, noise: np.ndarray, leak: np.ndarray
    ) -> "Nystroem":
        """See Exact."""
        m = len(mix)
        columns = np.zeros((len(self._total.t), mix.shape[1]))
        columns[len(columns) - len(noise) :] = noise

        def derived(fold: int) -> dict[int, Moments]:
            weight, mean, middle = self._fitted(Fit(0.0, penalty), [self._fold(fold)], np.arange(m))
            features, constant = np.vstack([weight @ mix, leak]), (middle - mean @ weight) @ mix
            return {
                group: self._moments[group].derive(features, columns, constant)
                for group in self._groups[fold]
            }

        found = map_apart(derived, self.folds, self._threads)
        made = copy(self)
        made._use({group: one for part in found for group, one in part.items()})
        return made


ReadOuts = Exact | Nystroem


def _used(pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The columns of some pairs, and the places (2, p) of the pairs among them."""
    used = np.unique(pairs)
    return used, np.searchsorted(used, pairs.T)


@dataclass(frozen=True)
class Selected:
    """The read-outs of every target: without b, and with b (of weight 0, if b does not help)."""

    plain: list[Fit]
    full: list[Fit]
    saved: np.ndarray  # (folds, t), squared errors without b minus those with b: D times variance


def select(
    readouts: ReadOuts,
    targets: Targets,
    scale: float,
    penalties: Sequence[float] = PENALTIES,
    own: Sequence[float] = OWN,
) -> Selected:
    """Choose the penalty of each target, and the weight of b, by the cross-validated error.

    Without b every second penalty is tried, then the neighbours of the best one until both have
    been tried. With b every weight is tried at this penalty, and then a walk over the penalties
    begins from the best weight. scale: sum of the squared distances of the embeddings, against
    which errors are equal or not.
    """
    folds, count = readouts.folds, len(targets.variance)
    looked = [folds.index(fold) for fold in readouts.looked]
    made = np.full((len(own), len(penalties), len(folds), count), np.inf)
    level = scale * targets.variance

    def judge(weight: int, place: int, mine: np.ndarray, judged: Sequence[int]) -> None:
        used = np.flatnonzero((targets.groups[:, mine] != 0).any(axis=1))
        found = readouts.errors(
            Fit(own[weight], penalties[place]), [folds[at] for at in judged], targets.pairs[used]
        )
        errors = found @ targets.groups[np.ix_(used, mine)]
        made[weight, place][np.ix_(np.array(judged), mine)] = errors

    def walk(weight: int, wanted: np.ndarray) -> np.ndarray:
        def errors(place: int, mine: np.ndarray) -> np.ndarray:
            judge(weight, place, mine, looked)
            return np.asarray(made[weight, place][looked][:, mine].sum(axis=0))

        total = made[weight][:, looked].sum(axis=1)
        return descend(errors, total, wanted & ~np.isfinite(total), level)

    every, places = np.arange(count), np.arange(len(penalties))[:, None]
    start = np.zeros((len(penalties), count), dtype=bool)
    start[::2] = True
    plain = walk(0, start)
    for weight in range(1, len(own)):
        for place in np.unique(plain):
            judge(weight, place, np.flatnonzero(plain == place), looked)
    best = first_best(made[:, plain, :, every][:, :, looked].sum(axis=2).T, level)
    for weight in np.unique(best):
        walk(weight, (best == weight) & (np.abs(places - plain) == 1))
    total = made[:, :, looked].sum(axis=2).reshape(-1, count)
    full = np.unravel_index(first_best(total, level), made.shape[:2])
    rest = [at for at in range(len(folds)) if at not in looked]
    for chosen in (np.zeros_like(plain), plain), full:
        for weight, place in np.unique(np.stack(chosen, axis=1), axis=0) if rest else ():
            mine = (chosen[0] == weight) & (chosen[1] == place)
            mine &= ~np.isfinite(made[weight, place, rest[0]])
            if mine.any():
                judge(weight, place, np.flatnonzero(mine), rest)
    without, with_null = made[0, plain, :, every].T, made[full[0], full[1], :, every].T
    return Selected(
        [Fit(0.0, penalties[place]) for place in plain],
        [Fit(own[weight], penalties[place]) for weight, place in zip(*full, strict=True)],
        without - with_null,
    )
