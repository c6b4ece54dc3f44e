"""Linear classifiers on principal features before and after translation (supplement, section 4).

Figure 12 shows the results.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import scipy
from pydantic import Field

from singflow.analyses.statistics import wilson
from singflow.artifacts.scratch import Scratch
from singflow.artifacts.shards import in_blocks
from singflow.config.sections import PENALTY, Section
from singflow.errors import InputError
from singflow.parallel import map_ahead
from singflow.translators.crossfit import ALL_ALIKE, penalties
from singflow.translators.ridge import Affine, RidgeStatistics

Matrix = np.ndarray | Scratch


class Probe(Section):
    """Linear classifiers on principal features before and after translation (figure 12)."""

    classifier: Literal["logistic", "ridge"] = Field(
        "logistic",
        description="logistic (regression on standardized features) "
        "| ridge (on one-hot labels; paper: not said)",
    )
    alphas: list[Annotated[float, Field(**PENALTY)]] = Field(
        [0.0001, 0.001, 0.01, 0.1, 1.0, 10.0],
        min_length=1,
        description="penalties tried, as multiples of the total variance of the inputs",
    )


PROBED = ["principal", "translated"]
# A logistic regression has at most this many numbers, rows times (features + labels): half a GiB.
IN_MEMORY = 2**27
# L-BFGS stops when the largest entry of the mean loss's gradient is below TOLERANCE, or after
# ITERATIONS steps.
TOLERANCE, ITERATIONS = 1e-5, 1000
# A feature whose deviation is at most CONSTANT times the largest deviation varies only by rounding.
CONSTANT = np.finfo(np.float32).eps
MODELS_FOR_CORRELATION = 5  # the fewest over which a correlation says something


@dataclass(frozen=True)
class Roles:
    """Role of every image, by image_id: inner, held_out and test are bool (n,) and disjoint."""

    labels: list[str]  # that are probed
    codes: np.ndarray  # (n,), position of the image's label among them; -1: it is not probed
    inner: np.ndarray
    held_out: np.ndarray
    test: np.ndarray

    @property
    def training(self) -> np.ndarray:
        """Images that train, (n,) bool."""
        return self.inner | self.held_out

    def first_rows(self, views: int) -> np.ndarray:
        """Row at which each image begins, (n + 1,): image i has rows first[i] to first[i + 1] - 1.

        A training image has one row per view, a test image has view 0, other images have no row.
        """
        return np.concatenate([[0], np.cumsum(self.training * views + self.test)])


def assign_roles(manifest: pd.DataFrame) -> Roles:
    """Split images so that every label with at least two different images is trained and tested.

    Images of the split validation are tested. If all images of a label are in one split, every
    fifth of its distinct contents is tested, from the second in the order of sha256 on, so that
    copies of an image stay together. Labels with one distinct image are left out. Every fifth
    training image of a label (from the second by image_id on) is held out: penalties are fitted on
    the inner images and compared on the held-out images. `manifest` has its rows in the order of
    image_id.
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


def fit_ridge(
    rows: Matrix, index: np.ndarray, codes: np.ndarray, alphas: list[float]
) -> Iterator[Affine]:
    """Ridge regressions onto one-hot labels; the predicted label is the largest entry of T f + c.

    There is one for each alpha, in their order; alpha times the mean squared distance of the
    features from their mean is the penalty of equation 4. rows: (N, d), read in blocks. index:
    (n,), rows to train on. codes: (N,), label of each row, from 0; every label occurs in `index`.
    Raises InputError if the features do not vary, or if one is NaN or infinite.
    """
    one_hot = np.eye(codes[index].max() + 1)
    statistics = RidgeStatistics(rows.shape[1], len(one_hot))
    for block in in_blocks(index):
        statistics.update(rows[block], one_hot[codes[block]])
    yield from statistics.path(penalties(statistics, alphas))


def fit_logistic(
    rows: Matrix, index: np.ndarray, codes: np.ndarray, alphas: list[float]
) -> Iterator[Affine]:
    """Multinomial logistic regressions on features standardized by the training rows.

    There is one for each alpha, in their order, for features that are not standardized; the
    predicted label is the largest entry of T f + c. The objective is the sum of the rows' losses +
    alpha d ||T||^2 / 2, where d is the total variance of standardized features (scikit-learn's
    C = 1 / (alpha d)). Every fit starts at the solution of the fit before it, so the largest alpha
    should come first. A feature that varies only by rounding (an axis that lies in the null space)
    is not scaled. For rows, index, codes and what is refused see fit_ridge().
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler(copy=False)  # the blocks are copies already
    for block in in_blocks(index):
        if not np.isfinite(values := rows[block]).all():
            raise InputError(
                "a feature is NaN or infinite: look at the weights and the precision that gave it"
            )
        scaler.partial_fit(values)
    deviation = np.sqrt(scaler.var_)
    if not deviation.max() > 0:
        raise InputError(ALL_ALIKE)
    scaler.scale_[deviation <= CONSTANT * deviation.max()] = 1.0
    features = scaler.transform(rows[index])
    model = LogisticRegression(tol=TOLERANCE, max_iter=ITERATIONS, warm_start=True)
    for alpha in alphas:
        model.set_params(C=1 / (alpha * features.shape[1])).fit(features, codes[index])
        weight, bias = model.coef_ / scaler.scale_, model.intercept_.astype(np.float64)
        bias = bias - weight @ scaler.mean_
        if len(bias) == 1:  # two labels: scikit-learn fits the second row minus the first row
            weight, bias = np.vstack([0 * weight, weight]), np.append(0, bias)
        yield Affine(weight, bias)


def drawn_rows(index: np.ndarray, codes: np.ndarray, most: int) -> np.ndarray:
    """At most `most` rows of the index, drawn, and in any case a row of each of their labels."""
    if len(index) <= most:
        return index
    drawn = np.random.default_rng(0).permutation(index)
    first = np.unique(codes[drawn], return_index=True)[1]
    rest = np.delete(drawn, first)[: max(0, most - len(first))]
    return np.sort(np.concatenate([drawn[first], rest]))


def probe(
    rows: dict[str, Matrix],
    roles: Roles,
    views: int,
    rank: int,
    settings: Probe,
    confidence: float,
    threads: int = 1,
) -> dict[str, Any]:
    """Test accuracy of classifiers on P_r f (principal) and on T P_r f + c (translated).

    Classifiers are trained on all views of the training images and tested on view 0. rows: for each
    of PROBED features (N, width) in the row order of Roles.first_rows(); T and c of an image come
    from a fit that has not seen it. views: of a training image. rank: of the principal space.

    The penalty with the best value on the held-out images is used, the largest of equals; without
    held-out images, the middle one. The value is the likelihood of the labels (logistic; penalties
    are tried in descending order until it stops rising) or the number of correct labels (ridge). If
    more than IN_MEMORY numbers would be in memory, a logistic regression is trained on a draw of
    the rows, the same for both of PROBED; note says so.

    The report has classifier; n_train and n_test (images), n_labels; for each of PROBED
    accuracy_<kind> with its Wilson interval, and alpha_<kind>; chance: share of the commonest label
    among the test images; note. If there is nothing to classify, the numbers are None and note
    gives the reason.
    """
    report: dict[str, Any] = {"classifier": settings.classifier}
    numbers = ("accuracy_{}", "accuracy_{}_low", "accuracy_{}_high", "alpha_{}")
    report |= dict.fromkeys(number.format(kind) for kind in PROBED for number in numbers)
    report |= {"n_train": int(roles.training.sum()), "n_test": int(roles.test.sum())}
    report |= {"n_labels": len(roles.labels), "chance": None, "note": ""}
    if len(roles.labels) < 2:
        few = f"a probe needs two labels of two images or more; there are {len(roles.labels)}"
        return report | {"note": few}
    if not rank:
        return report | {"note": "the head has no principal space"}
    first = roles.first_rows(views)
    image_id = np.repeat(np.arange(len(first) - 1), np.diff(first))
    codes = roles.codes[image_id]
    whole = np.arange(first[-1]) == first[image_id]
    inner, training, test = (
        np.flatnonzero(role[image_id]) for role in (roles.inner, roles.training, roles.test)
    )
    held_out = np.flatnonzero(roles.held_out[image_id] & whole)
    notes = []
    logistic, alphas = settings.classifier == "logistic", sorted(set(settings.alphas), reverse=True)
    fit = fit_logistic if logistic else fit_ridge
    if logistic:
        n, width = len(training), max(of.shape[1] for of in rows.values()) + len(roles.labels)
        inner, training = (drawn_rows(of, codes, IN_MEMORY // width) for of in (inner, training))
        if len(training) < n:
            notes.append(f"trained on {len(training)} of {n} rows, which fit in memory")

    def choose(kind: str) -> float:
        """The best penalty on the held-out images."""
        best, chosen = -np.inf, alphas[0]
        criterion = _log_likelihood if logistic else _right
        for alpha, classifier in zip(alphas, fit(rows[kind], inner, codes, alphas), strict=True):
            value = _judge(rows[kind], held_out, codes, classifier, criterion)
            if value > best:
                best, chosen = value, alpha
            elif logistic:
                break
        return chosen

    def fit_and_test(kind: str) -> tuple[float, int]:
        """The penalty that is used, and the number of correctly classified test images."""
        alpha = choose(kind) if len(held_out) else alphas[(len(alphas) - 1) // 2]
        (classifier,) = fit(rows[kind], training, codes, [alpha])
        return alpha, int(_judge(rows[kind], test, codes, classifier, _right))

    for kind, (alpha, right) in zip(PROBED, map_ahead(fit_and_test, PROBED, threads), strict=True):
        low, high = wilson(right, len(test), confidence)
        report |= {f"alpha_{kind}": alpha, f"accuracy_{kind}": right / len(test)}
        report |= {f"accuracy_{kind}_low": low, f"accuracy_{kind}_high": high}
    if not len(held_out):
        notes.append(
            "no label has two training images to choose the penalty with: the middle one is used"
        )
    chance = float(np.bincount(codes[test]).max() / len(test))
    return report | {"chance": chance, "note": "; ".join(notes)}


def _right(scores: np.ndarray, codes: np.ndarray) -> float:
    """Number of rows whose label has the largest score."""
    return float((scores.argmax(axis=1) == codes).sum())


def _log_likelihood(scores: np.ndarray, codes: np.ndarray) -> float:
    """Log-likelihood of the labels under a logistic regression."""
    return float(scipy.special.log_softmax(scores, axis=1)[np.arange(len(codes)), codes].sum())


def _judge(
    rows: Matrix,
    index: np.ndarray,
    codes: np.ndarray,
    classifier: Affine,
    criterion: Callable[[np.ndarray, np.ndarray], float],
) -> float:
    """Sum of the criterion over the rows in `index`."""
    return sum(
        criterion(classifier(rows[block].astype(np.float64)), codes[block])
        for block in in_blocks(index)
    )


def correlate(before: np.ndarray, after: np.ndarray, confidence: float) -> dict[str, Any]:
    """Pearson correlation over models of two accuracies (n,), with Fisher's interval.

    Models without one of the accuracies (NaN) are left out. The numbers are None if fewer than
    MODELS_FOR_CORRELATION are left, or if one of the accuracies is the same for all.
    """
    known = ~(np.isnan(before) | np.isnan(after))
    x, y = before[known], after[known]
    row: dict[str, Any] = dict.fromkeys(["pearson", "pearson_low", "pearson_high"])
    if len(x) >= MODELS_FOR_CORRELATION and np.ptp(x) and np.ptp(y):
        found = scipy.stats.pearsonr(x, y)
        row["pearson"] = float(found.statistic)
        row["pearson_low"], row["pearson_high"] = map(float, found.confidence_interval(confidence))
    return row | {"pearson_n": len(x)}
