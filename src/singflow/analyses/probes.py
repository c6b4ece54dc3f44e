"""Linear classifiers on principal features before and after translation (section 4 of the supplement, figure 12)."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import scipy
from pydantic import Field

from singflow.analyses.tables import qualify
from singflow.artifacts.scratch import Scratch
from singflow.artifacts.shards import in_blocks
from singflow.config.sections import PENALTY, Section
from singflow.errors import InputError
from singflow.parallel import map_ahead
from singflow.translators.ridge import Affine, RidgeStatistics

Matrix = np.ndarray | Scratch


class Probe(Section):
    """Linear classifiers on principal features before and after translation (figure 12)."""

    classifier: Literal["logistic", "ridge"] = Field(
        "logistic",
        description="logistic (regression on standardized features) | ridge (on one-hot labels; paper: not said)",
    )
    alphas: list[Annotated[float, Field(**PENALTY)]] = Field(
        [0.0001, 0.001, 0.01, 0.1, 1.0, 10.0],
        min_length=1,
        description="penalties tried, times the total variance of what is fitted",
    )


KINDS = ["principal", "translated"]
IN_MEMORY = (
    2**27
)  # rows times (features + labels) up to which scikit-learn fits them: half a GiB in float32
TOLERANCE, ITERATIONS = (
    1e-5,
    1000,
)  # of L-BFGS: the largest entry of the mean loss's gradient where it stops, and steps
CONSTANT = np.finfo(
    np.float32
).eps  # times the largest deviation: below it a feature is rounding alone


@dataclass(frozen=True)
class Roles:
    """What each image does; arrays (n,) by image_id.

    labels: those that are probed; codes: the label's position among them, -1 for another; inner, held_out, test: bool, disjoint,
    False for images of other labels.
    """

    labels: list[str]
    codes: np.ndarray
    inner: np.ndarray
    held_out: np.ndarray
    test: np.ndarray

    @property
    def training(self) -> np.ndarray:
        """Images that train, (n,) bool."""
        return self.inner | self.held_out

    def first_rows(self, views: int) -> np.ndarray:
        """Where the rows of each image begin: training images have one a view, test images view 0 alone.

        Parameters
        ----------
        views : int
            Views of an image.

        Returns
        -------
        ndarray of shape (n + 1,)
            Image i has the rows from entry i to before entry i + 1.
        """
        return np.concatenate([[0], np.cumsum(self.training * views + self.test)])


def assign_roles(manifest: pd.DataFrame) -> Roles:
    """Split by label: every label of two images or more trains and is tested.

    Validation images test. Of a label that has images in one split alone, every fifth tests, in order of their contents' hashes from the
    second on, and the others train; images of equal content stay together. A label of one image is left out. Of each label's training
    images by image_id, every fifth from the second on is held out: penalties are fitted on the inner images and judged on those.

    Parameters
    ----------
    manifest : DataFrame
        One row an image in order of image_id, with label, split and sha256.

    Returns
    -------
    Roles
        What each image does.
    """
    contents = manifest[["label", "sha256"]].drop_duplicates().sort_values("sha256")
    contents["place"] = contents.groupby("label").cumcount()
    place = manifest[["label", "sha256"]].merge(contents, how="left")["place"].to_numpy()
    label = manifest["label"].to_numpy()

    def sides(training: np.ndarray) -> np.ndarray:
        return pd.Series(training).groupby(label).transform("nunique").to_numpy()

    training = (manifest["split"] == "train").to_numpy()
    training = np.where(sides(training) == 1, place % 5 != 1, training)
    used = sides(training) == 2
    labels = sorted(set(label[used]))
    position = manifest.groupby([label, training]).cumcount().to_numpy()
    held_out = used & training & (position % 5 == 1)
    return Roles(
        labels,
        pd.Index(labels).get_indexer(label),
        used & training & ~held_out,
        held_out,
        used & ~training,
    )


def _finite(rows: Matrix, block: np.ndarray) -> np.ndarray:
    values = rows[block]
    if not np.isfinite(values).all():
        raise InputError(
            "a feature is NaN or infinite: look at the weights and the precision that gave it"
        )
    return values


def _alike(scale: float) -> None:
    if not scale > 0:
        raise InputError(
            "the features that the probe is trained on are all alike: look at the images and at the classifier"
        )


def fit_ridge(
    rows: Matrix, index: np.ndarray, codes: np.ndarray, alphas: list[float]
) -> Iterator[Affine]:
    """Ridge regressions onto one-hot labels: of an image with features f, the largest entry of T f + c is the label.

    Parameters
    ----------
    rows : ndarray or Scratch of shape (N, d)
        Features, of which blocks are read.
    index : ndarray of int, shape (n,)
        Rows to train on.
    codes : ndarray of int, shape (N,)
        Label of each row, 0 up, each of which occurs in `index`.
    alphas : list of float
        Times the mean squared distance of the features from their mean, each is a penalty of equation 4, so that it has no unit.

    Yields
    ------
    Affine
        T and c for one alpha, in their order.

    Raises
    ------
    InputError
        When the features do not vary, or one is NaN or infinite.
    """
    one_hot = np.eye(codes[index].max() + 1)
    statistics = RidgeStatistics(rows.shape[1], len(one_hot))
    for block in in_blocks(index):
        statistics.update(_finite(rows, block), one_hot[codes[block]])
    scale = statistics.mean_squared_distance
    _alike(scale)
    yield from statistics.path(alpha * scale for alpha in alphas)


def fit_logistic(
    rows: Matrix,
    index: np.ndarray,
    codes: np.ndarray,
    alphas: list[float],
    threads: int = 1,
    in_memory: int = IN_MEMORY,
) -> Iterator[Affine]:
    """Multinomial logistic regressions on standardized features: the largest entry of T f + c is the label.

    Means and deviations are those of the training rows; a feature that is rounding alone (a direction of the null space that is an
    axis) is not scaled. Up to `in_memory` numbers, rows times (d + labels), scikit-learn's LogisticRegression fits the rows (lbfgs,
    C = 1 / (alpha d)). More are never held: the same objective is minimized from the same start by the same algorithm with the same
    tolerance, whose every step reads the rows once, in blocks. What differs is rounding and with it, within the tolerance, where it stops.

    Parameters
    ----------
    rows, index, codes
        As for `fit_ridge`.
    alphas : list of float
        Times d, the total variance of standardized features, each is a penalty: the sum of the rows' losses + alpha d ||T||^2 / 2.
        Each is fitted from the solution before it, so the largest is best first.
    threads : int
        Threads that share the blocks; the result does not depend on them.
    in_memory : int
        Numbers that may be held.

    Yields
    ------
    Affine
        T and c for one alpha, in their order, to be used on features that are not standardized.

    Raises
    ------
    InputError
        When the features do not vary, or one is NaN or infinite.
    """
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler(copy=False)  # of blocks that are copies themselves
    for block in in_blocks(index):
        scaler.partial_fit(_finite(rows, block))
    deviation = np.sqrt(scaler.var_)
    _alike(deviation.max())
    scaler.scale_[deviation <= CONSTANT * deviation.max()] = 1.0
    width, labels = rows.shape[1], int(codes[index].max()) + 1
    if len(index) * (width + labels) <= in_memory:
        solve = _held(scaler.transform(rows[index]), codes[index])
    else:
        solve = _streamed(
            lambda block: (scaler.transform(rows[block]), codes[block]),
            in_blocks(index),
            (labels, width),
            threads,
        )
    for alpha in alphas:
        solution = solve(alpha * width).astype(np.float64)
        if len(solution) == 1:  # of two labels scikit-learn fits the second's row less the first's
            solution = np.vstack([np.zeros_like(solution), solution])
        weight = solution[:, :-1] / scaler.scale_
        yield Affine(weight, solution[:, -1] - weight @ scaler.mean_)


def _held(x: np.ndarray, y: np.ndarray) -> Callable[[float], np.ndarray]:
    """What fits weights and intercepts (labels, width + 1) with a penalty, from the last solution on."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(tol=TOLERANCE, max_iter=ITERATIONS, warm_start=True)

    def solve(penalty: float) -> np.ndarray:
        model.set_params(C=1 / penalty).fit(x, y)
        return np.column_stack([model.coef_, model.intercept_])

    return solve


def _streamed(
    read: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    blocks: list[np.ndarray],
    shape: tuple[int, int],
    threads: int,
) -> Callable[[float], np.ndarray]:
    """The same out of blocks that are read anew for every step."""
    labels, width = shape
    n = sum(map(len, blocks))
    solution = np.zeros((labels, width + 1))

    def loss_and_gradient(flat: np.ndarray, penalty: float) -> tuple[float, np.ndarray]:
        weight, intercept = np.split(flat.reshape(labels, width + 1), [width], axis=1)
        narrow = weight.T.astype(np.float32)

        def part(block: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
            x, y = read(block)
            logits = (x @ narrow).astype(np.float64) + intercept[:, 0]
            logits -= logits.max(axis=1, keepdims=True)
            own = np.arange(len(y)), y
            loss = -logits[own].sum()
            shares = np.exp(logits, out=logits)
            total = shares.sum(axis=1, keepdims=True)
            shares /= total
            shares[own] -= 1.0
            return (
                float(loss + np.log(total).sum()),
                shares.astype(np.float32).T @ x,
                shares.sum(axis=0),
            )

        loss, gradient = (
            penalty / 2 * float(np.vdot(weight, weight)),
            np.hstack([penalty * weight, np.zeros_like(intercept)]),
        )
        for mine, of_weight, of_intercept in map_ahead(part, blocks, threads, ahead=1):
            loss += mine
            gradient[:, :width] += of_weight
            gradient[:, width] += of_intercept
        return loss / n, gradient.ravel() / n

    def solve(penalty: float) -> np.ndarray:
        nonlocal solution
        shared = (
            2 * penalty if labels == 2 else penalty
        )  # of two rows, where scikit-learn penalizes their difference
        options = {
            "maxiter": ITERATIONS,
            "maxls": 50,
            "gtol": TOLERANCE,
            "ftol": 64 * np.finfo(float).eps,
        }  # scikit-learn's
        found = scipy.optimize.minimize(
            loss_and_gradient, solution.ravel(), (shared,), "L-BFGS-B", jac=True, options=options
        )
        if not found.success:
            warnings.warn(f"a logistic regression did not converge: {found.message}", stacklevel=2)
        solution = found.x.reshape(labels, width + 1)
        return solution

    return solve


def probe(
    rows: dict[str, Matrix],
    roles: Roles,
    views: int,
    rank: int,
    settings: Probe,
    confidence: float,
    threads: int = 1,
) -> dict[str, Any]:
    """Accuracy on the test images of a classifier on P_r f (principal) and of one on T P_r f + c (translated).

    Trained on all views of the training images, tested on view 0.

    Parameters
    ----------
    rows : dict of ndarray or Scratch, of shape (N, width)
        For each of KINDS the features, in the order that `Roles.first_rows` says; an image's T and c are of a fit that has not seen it.
    roles : Roles
        What each image does.
    views : int
        Views of an image.
    rank : int
        Dimensions of the principal space.
    settings : Probe
        The classifier, and the penalties tried. Used is the one by which the labels of the held-out images are most likely (logistic:
        penalties are tried from the largest on until they are less likely) or most often found (ridge), the largest of equals; where
        no image is held out, the middle one.
    confidence : float
        Coverage of the intervals, 0 to 1.
    threads : int
        Threads that work; no number depends on them as long as those of BLAS stay the same.

    Returns
    -------
    dict
        classifier; n_train, n_test, n_labels (images and labels); for each of KINDS accuracy_<kind> (share, 0 to 1), its Wilson interval
        accuracy_<kind>_low and _high, and alpha_<kind>; chance: share of the test images that the commonest label has; note.
        Accuracies, alphas and chance are None, and note says why, when there is nothing to tell apart.

    Raises
    ------
    InputError
        As `fit_ridge` does.
    """
    report: dict[str, Any] = {"classifier": settings.classifier}
    report |= dict.fromkeys([f"{name}_{kind}" for kind in KINDS for name in ("accuracy", "alpha")])
    report |= dict.fromkeys([f"accuracy_{kind}_{end}" for kind in KINDS for end in ("low", "high")])
    counts = {
        "n_train": int(roles.training.sum()),
        "n_test": int(roles.test.sum()),
        "n_labels": len(roles.labels),
    }
    report |= counts | {"chance": None, "note": ""}
    if len(roles.labels) < 2:
        return report | {
            "note": f"a probe needs two labels of two images or more; there are {len(roles.labels)}"
        }
    if not rank:
        return report | {"note": "the head has no principal space"}
    first = roles.first_rows(views)
    image_id = np.repeat(np.arange(len(first) - 1), np.diff(first))
    codes = roles.codes[image_id]
    whole = np.arange(first[-1]) == first[image_id]
    inner, held_out, training, test = (
        np.flatnonzero(each[image_id] & seen)
        for each, seen in (
            (roles.inner, True),
            (roles.held_out, whole),
            (roles.training, True),
            (roles.test, True),
        )
    )

    logistic, alphas = settings.classifier == "logistic", sorted(set(settings.alphas), reverse=True)

    def fit(kind: str, index: np.ndarray, alphas: list[float]) -> Iterator[Affine]:
        return (
            fit_logistic(rows[kind], index, codes, alphas, threads)
            if logistic
            else fit_ridge(rows[kind], index, codes, alphas)
        )

    def choose(kind: str) -> float:
        """The penalty that the held-out images are for; less than one that they are against is not tried by a logistic regression."""
        best, chosen = -np.inf, alphas[0]
        for alpha, classifier in zip(alphas, fit(kind, inner, alphas), strict=True):
            value = _judge(
                rows[kind], held_out, codes, classifier, _log_likelihood if logistic else _right
            )
            if value > best:
                best, chosen = value, alpha
            elif logistic:
                break
        return chosen

    def measure(kind: str) -> tuple[float, int]:
        """The penalty that is used, and the test images whose label is found."""
        alpha = choose(kind) if len(held_out) else alphas[(len(alphas) - 1) // 2]
        (classifier,) = fit(kind, training, [alpha])
        return alpha, int(_judge(rows[kind], test, codes, classifier, _right))

    for kind, (alpha, right) in zip(KINDS, map_ahead(measure, KINDS, threads), strict=True):
        interval = scipy.stats.binomtest(right, len(test)).proportion_ci(
            confidence, method="wilson"
        )
        report |= {f"alpha_{kind}": alpha, f"accuracy_{kind}": right / len(test)}
        report |= {
            f"accuracy_{kind}_low": float(interval.low),
            f"accuracy_{kind}_high": float(interval.high),
        }
    if not len(held_out):
        report["note"] = (
            "no label has two training images to choose the penalty with: the middle one is used"
        )
    return report | {"chance": float(np.bincount(codes[test]).max() / len(test))}


def _right(scores: np.ndarray, codes: np.ndarray) -> float:
    """How many labels have the largest score of their row."""
    return float((scores.argmax(axis=1) == codes).sum())


def _log_likelihood(scores: np.ndarray, codes: np.ndarray) -> float:
    """Of the labels, by a logistic regression."""
    return float(scipy.special.log_softmax(scores, axis=1)[np.arange(len(codes)), codes].sum())


def _judge(
    rows: Matrix,
    index: np.ndarray,
    codes: np.ndarray,
    classifier: Affine,
    criterion: Callable[[np.ndarray, np.ndarray], float],
) -> float:
    """The criterion's sum over some rows."""
    return sum(
        criterion(classifier(rows[block].astype(np.float64)), codes[block])
        for block in in_blocks(index)
    )


def correlate(before: np.ndarray, after: np.ndarray, confidence: float) -> dict[str, Any]:
    """Pearson's correlation of accuracies over models, with Fisher's interval.

    Parameters
    ----------
    before, after : ndarray of shape (n,)
        Accuracies of the models; NaN for none.
    confidence : float
        Coverage of the interval, 0 to 1.

    Returns
    -------
    dict
        pearson, pearson_low, pearson_high, pearson_n (models with both accuracies) and pearson_note. Where a number is undefined
        it is None, and the note says why.
    """
    known = ~(np.isnan(before) | np.isnan(after))
    x, y = before[known], after[known]
    row: dict[str, Any] = {
        "pearson": None,
        "pearson_low": None,
        "pearson_high": None,
        "pearson_n": len(x),
        "pearson_note": "",
    }
    if len(x) < 3:
        return row | {"pearson_note": "a correlation needs three models with an accuracy"}
    if not (np.ptp(x) and np.ptp(y)):
        return row | {"pearson_note": "all models have the same accuracy"}
    result = scipy.stats.pearsonr(x, y)
    row["pearson"] = float(result.statistic)
    if len(x) < 4:
        return row | {"pearson_note": "an interval needs four models"}
    interval = result.confidence_interval(confidence)
    return row | {"pearson_low": float(interval.low), "pearson_high": float(interval.high)}


def gather(
    probes: dict[str, dict[str, dict[str, Any]]], models: pd.DataFrame, confidence: float
) -> pd.DataFrame:
    """tables/probes.csv: a row per space and model, with the correlation over the space's models in each of its rows.

    Parameters
    ----------
    probes : dict of str to dict
        Space -> model -> probes/<space>/<model>.json.
    models : DataFrame
        tables/models.csv.
    confidence : float
        Coverage of the correlation's interval, 0 to 1.

    Returns
    -------
    DataFrame
        space, model, n (test images), what `probe` and `correlate` give, and what `qualify` adds.
    """
    parts = []
    for space, reports in probes.items():
        part = pd.DataFrame(
            [
                {"space": space, "model": model, "n": report["n_test"], **report}
                for model, report in reports.items()
            ]
        )
        before, after = (part[f"accuracy_{kind}"].to_numpy(np.float64) for kind in KINDS)
        parts.append(part.assign(**correlate(before, after, confidence)))
    return qualify(pd.concat(parts, ignore_index=True), models)
