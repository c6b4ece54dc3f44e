"""Kernels of the principal coordinates and the logits, in bands, and the weights of the bands.

A band is one idea of how an embedding may depend on what the logits see: linearly, through the
probabilities, smoothly, through products, through a few leading directions, through the length.
No single kernel is right for every model, so the weights of the bands are found by cross-validation
(banded ridge regression: Dupre la Tour et al. 2022, Feature-space selection with banded ridge
regression).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import scipy

from singflow.parallel import map_apart

TEMPERATURES = (1.0, 2.0, 4.0)  # T of the softmax band
TINY = np.finfo(np.float64).tiny
OFFSET = 0.5  # of the ReLU units, beside coordinates of mean square 1
LEADING = 32  # principal coordinates of a that have bands of their own
DIRICHLET, DRAWN, DRAWN_BY = 0.5, 24, 7  # concentration, number and seed of the drawn weights
PENALTIES = tuple((10.0 ** (np.arange(4, -9, -1) / 2)).tolist())  # times mean trace; falling
MIDDLE = 1.0  # penalty at which walks begin
TIE = 1e-9  # share of the variance by which errors may differ and count as equal
LEADING_RBF = {"leading_rbf_32": 32, "leading_rbf_8": 8, "leading_rbf_4": 4}  # coordinates
SINGLE = {"single_32": 32, "single_8": 8}  # coordinates, each alone
BANDS = (
    *("linear", "softmax", "relu", "rbf", "rbf_narrow", "square", "leading_square"),
    *(*LEADING_RBF, *SINGLE, "norm"),
)


@dataclass(frozen=True)
class Block:
    """Some images: coordinates a and b, logits, embeddings and folds.

    principal is a (n, r), null is b (n, k), logits (n, C), embeddings (n, m), fold (n,) from 0.
    group (n,): groups of the jackknife, each of which lies in one fold. cluster (n,): from 0, the
    same number for images that are drawn together: copies, or images of a film or a patient. image
    (n,): from 0, the same number for copies alone.
    """

    principal: np.ndarray
    null: np.ndarray
    logits: np.ndarray
    embeddings: np.ndarray
    fold: np.ndarray
    group: np.ndarray
    cluster: np.ndarray
    image: np.ndarray


Blocks = Callable[[], Iterable[Block]]  # every call yields all images, in the same order


def softmax(logits: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities (n, C) of logits (n, C) at a temperature."""
    return np.asarray(scipy.special.softmax(logits.astype(np.float64) / temperature, axis=1))


def first_best(errors: np.ndarray, scale: np.ndarray | float) -> np.ndarray:
    """Position of the least error along the first axis; the first one of equal errors.

    Errors that differ by less than TIE times `scale` are equal, so that rounding, which differs
    between processors, decides nothing.
    """
    return np.asarray((errors <= errors.min(axis=0) + TIE * scale).argmax(axis=0))


def descend(
    errors: Callable[[int, np.ndarray], np.ndarray],
    made: np.ndarray,
    wanted: np.ndarray,
    scale: np.ndarray,
) -> np.ndarray:
    """Position of the least error of each target, by steps to the neighbours of the best place.

    errors: of some targets at a place. made: (places, t), errors that are known, else infinite; is
    filled. wanted: (places, t) bool, where the walks begin. scale: (t,), see first_best.
    """
    places, walked = np.arange(len(made))[:, None], wanted.any(axis=0)
    while wanted.any():
        for place in np.flatnonzero(wanted.any(axis=1)):
            mine = np.flatnonzero(wanted[place])
            made[place, mine] = errors(int(place), mine)
        best = first_best(made, scale)
        wanted = walked & (np.abs(places - best) == 1) & ~np.isfinite(made)
    return first_best(made, scale)


class Bands:
    """The kernels between images and landmarks.

    A kernel has mean 0 over the landmarks (in rows and columns), and trace L there: so every band
    starts with the same weight, and no band can hold the mean. With the means over the landmarks,
    it is level * (k(x, z) - mean_z k(x, z) - mean_x k(x, z) + mean_xz k(x, z)), as in kernel PCA.

    principal, logits: of the landmarks, (L, r) and (L, C). covariance: (r, r) of the principal
    coordinates of all images; by default of the landmarks, which are too few to find the leading
    directions where they are about as many as coordinates.
    """

    def __init__(
        self, principal: np.ndarray, logits: np.ndarray, covariance: np.ndarray | None = None
    ) -> None:
        a = principal.astype(np.float64)
        self._mean = a.mean(axis=0)
        a = a - self._mean
        square = np.vecdot(a, a)
        mean, deviation = float(square.mean()), float(square.std())
        self._length = float(np.sqrt(max(mean, np.finfo(np.float64).tiny)))
        self._square = mean, deviation if deviation > TIE * mean else 1.0
        covariance = a.T @ a / len(a) if covariance is None else covariance
        spread, axes = leading_directions(covariance, LEADING)
        self._axes = axes / spread
        roots = [np.sqrt(softmax(logits, temperature)) for temperature in TEMPERATURES]
        self._roots_mean = [root.mean(axis=0) for root in roots]
        spreads = [root.var(axis=0).sum() * len(roots) for root in roots]
        self._roots_level = [spread**-0.5 if spread > 0 else 0.0 for spread in spreads]
        self._marks = self._coordinates(principal, logits)
        a, lead = self._marks[:2]
        self._dot = a @ a.T
        self._wide = {"rbf": _median(a)}
        self._wide["rbf_narrow"] = self._wide["rbf"] / 4
        self._leading = {name: _median(lead[:, :count]) for name, count in LEADING_RBF.items()}
        self._centre: dict[str, tuple[np.ndarray, float, float]] = {}
        for name in BANDS:
            kernel = self._raw(name, self._marks, self._dot)
            columns = kernel.mean(axis=0)
            mean = float(columns.mean())
            trace = float(np.trace(kernel)) - len(a) * mean
            level = len(a) / trace if trace > TIE * abs(np.trace(kernel)) else 0.0
            self._centre[name] = columns, mean, level

    def _coordinates(self, principal: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, ...]:
        """a at mean square 1, its whitened leading coordinates, softmax features, and |a|^2."""
        a = principal.astype(np.float64) - self._mean
        levels = zip(TEMPERATURES, self._roots_mean, self._roots_level, strict=True)
        roots = [(np.sqrt(softmax(logits, t)) - mean) * level for t, mean, level in levels]
        mean, spread = self._square
        square = ((np.vecdot(a, a) - mean) / spread)[:, None]
        return a / self._length, a @ self._axes, np.hstack(roots), square

    def _raw(self, name: str, images: tuple[np.ndarray, ...], dot: np.ndarray) -> np.ndarray:
        """The kernel before it is centred and scaled; dot: (n, L), products of a with landmarks."""
        (a, lead, roots, square), (za, zlead, zroots, zsquare) = images, self._marks
        match name:
            case "linear":
                return dot
            case "softmax":
                return roots @ zroots.T
            case "relu":
                return _arccosine(a, za, dot)
            case "rbf" | "rbf_narrow":
                return np.exp(-_distances(a, za, dot) / self._wide[name])
            case "square":
                return dot**2
            case "leading_square":
                return (lead @ zlead.T / LEADING) ** 2
            case "norm":
                return np.exp(-2.0 * _distances(square, zsquare))
        if name in LEADING_RBF:
            count = LEADING_RBF[name]
            return np.exp(-_distances(lead[:, :count], zlead[:, :count]) / self._leading[name])
        one = np.zeros((len(lead), len(zlead)))
        for own, mark in zip(lead.T[: SINGLE[name]], zlead.T, strict=False):
            one += np.exp(-2.0 * np.subtract.outer(own, mark) ** 2)
        return one

    def _settled(self, name: str, raw: np.ndarray) -> np.ndarray:
        columns, mean, level = self._centre[name]
        return (raw - raw.mean(axis=1)[:, None] - columns + mean) * level

    def among(self, names: Iterable[str] = BANDS) -> Iterator[tuple[str, np.ndarray]]:
        """The kernels (L, L) of the landmarks among themselves."""
        for name in names:
            yield name, self._settled(name, self._raw(name, self._marks, self._dot))

    def mixed(self, weights: Mapping[str, float], block: Block | None = None) -> np.ndarray:
        """The weighted sum of the bands between images and landmarks, or among landmarks."""
        images, dot = self._marks, self._dot
        if block is not None:
            images = self._coordinates(block.principal, block.logits)
            dot = images[0] @ self._marks[0].T
        total = np.zeros((len(images[0]), len(self._marks[0])))
        for name, weight in weights.items():
            if weight:
                total += weight * self._settled(name, self._raw(name, images, dot))
        return total


def leading_directions(covariance: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Standard deviations (q,) and principal directions (d, q) of a covariance (d, d).

    There are at most `most`, and none whose variance is rounding.
    """
    width = len(covariance)
    if not width:
        return np.zeros(0), np.zeros((0, 0))
    taken = [max(width - most, 0), width - 1]
    variance, axes = scipy.linalg.eigh(covariance, subset_by_index=taken, check_finite=False)
    kept = variance > width * np.finfo(np.float64).eps * max(variance[-1], 0.0)
    return np.sqrt(variance[kept])[::-1], axes[:, kept][:, ::-1]


def _distances(rows: np.ndarray, marks: np.ndarray, dot: np.ndarray | None = None) -> np.ndarray:
    squares = np.vecdot(rows, rows)[:, None] + np.vecdot(marks, marks)
    return np.maximum(squares - 2.0 * (rows @ marks.T if dot is None else dot), 0.0)


def _median(rows: np.ndarray) -> float:
    """Median squared distance of two rows; 1 where it is 0."""
    pairs = _distances(rows, rows)[np.triu_indices(len(rows), 1)]
    return float(np.median(pairs)) or 1.0 if len(pairs) else 1.0


def _arccosine(rows: np.ndarray, marks: np.ndarray, dot: np.ndarray) -> np.ndarray:
    """Kernel of infinitely many random ReLU units with an offset (Cho and Saul 2009, order 1).

    It is |x| |z| (sin c + (pi - c) cos c) / pi for the angle c of x and z, both with OFFSET as one
    more coordinate: the mean of relu(w . x) relu(w . z) over normal w, times 2.
    """
    dot = dot + OFFSET**2
    left, right = (np.sqrt(np.vecdot(one, one) + OFFSET**2) for one in (rows, marks))
    lengths = left[:, None] * right
    angle = np.arccos(np.clip(dot / lengths, -1.0, 1.0))
    return lengths * (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / np.pi


def candidates() -> list[dict[str, float]]:
    """Weights of the bands that are tried: equal, one band alone, and drawn; their sum is 1."""
    count = len(BANDS)
    drawn = np.random.default_rng(DRAWN_BY).dirichlet(np.full(count, DIRICHLET), DRAWN).round(3)
    rows = np.vstack([np.ones(count), np.eye(count), drawn])
    return [dict(zip(BANDS, row.tolist(), strict=True)) for row in rows / rows.sum(1)[:, None]]


def search_weights(
    kernels: Mapping[str, np.ndarray],
    target: np.ndarray,
    fold: np.ndarray,
    scale: np.ndarray,
    threads: int = 1,
) -> list[dict[str, float]]:
    """For each target the candidate whose kernel ridge regression has the least error.

    kernels: the bands (n, n) among some images. target: (n, t, m), what is read out, for t targets.
    fold: (n,); errors are cross-validated. scale: (t,), variances of the embeddings, which errors
    are compared with. threads: candidates that are tried at once.

    Every second penalty counts, and the walk begins at MIDDLE. The errors on a fold S are those of
    a refit without it, (M_SS)^-1 (M t)_S (see `readout.Exact`), with
    M = U diag(1 / (s + penalty)) U^T - 1 1^T / (n penalty). One decomposition K = U diag(s) U^T
    serves all penalties of a candidate.
    """
    n, count, m = target.shape
    columns = (target - target.mean(axis=0)).reshape(n, -1)
    rows, penalties = [np.flatnonzero(fold == one) for one in np.unique(fold)], PENALTIES[::2]
    stacked = np.stack(list(kernels.values()))

    def least(weights: dict[str, float]) -> np.ndarray:
        kernel = centred(np.tensordot([weights[name] for name in kernels], stacked, 1))
        spectrum, vectors = scipy.linalg.eigh(kernel, driver="evd", check_finite=False)
        spectrum, vectors = np.maximum(spectrum, 0.0), np.ascontiguousarray(vectors)
        parts, turned = [vectors[part] for part in rows], vectors.T @ columns

        def errors(at: int, mine: np.ndarray) -> np.ndarray:
            inverse = 1.0 / (spectrum + penalties[at])
            used = (mine[:, None] * m + np.arange(m)).ravel()
            scaled, found = inverse[:, None] * turned[:, used], np.zeros(len(mine))
            for part in parts:
                inner = (part * inverse) @ part.T - 1.0 / (n * penalties[at])
                missed = solved(inner, part @ scaled)
                found += np.einsum("nc,nc->c", missed, missed).reshape(-1, m).sum(axis=1)
            return found

        made = np.full((len(penalties), count), np.inf)
        wanted = np.zeros(made.shape, dtype=bool)
        wanted[penalties.index(MIDDLE)] = True
        return made[descend(errors, made, wanted, scale * n), np.arange(count)]

    tried = candidates()
    best = first_best(np.array(list(map_apart(least, tried, threads))), scale * n)
    return [tried[place] for place in best]


def solved(matrix: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Solution of a positive definite system; of many columns, by the inverse, which is faster."""
    factor = scipy.linalg.cho_factor(matrix, lower=True, check_finite=False)
    if values.shape[1] <= len(matrix):
        return np.asarray(scipy.linalg.cho_solve(factor, values, check_finite=False))
    inverse = scipy.linalg.cho_solve(factor, np.eye(len(matrix)), check_finite=False)
    return np.asarray(inverse @ values)


def centred(kernel: np.ndarray) -> np.ndarray:
    """A kernel (n, n) about the means of its rows and columns."""
    means = kernel.mean(axis=0)
    return np.asarray(kernel - means - means[:, None] + means.mean())
