"""Linear classifiers on principal features before and after translation (section 4 of the supplement, figure 12)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import pandas as pd
import scipy
from pydantic import Field

from singflow.analyses.geometry import remove_null
from singflow.analyses.metrics import translate
from singflow.analyses.tables import qualify
from singflow.config.sections import (
    Section,
)
from singflow.errors import InputError
from singflow.translators.ridge import Affine, RidgeStatistics


class Probe(Section):
    """Linear classifiers on principal features before and after translation (figure 12)."""

    alphas: list[Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(
        [0.0001, 0.001, 0.01, 0.1, 1.0, 10.0], min_length=1, description="ridge penalties tried, times the features' total variance"
    )


KINDS = ["principal", "translated"]

# Starts a pass over all rows, in chunks: image_id (n,), view (n,), features (n, d).
Batches = Callable[[], Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]]


@dataclass(frozen=True)
class Roles:
    """What each image does; arrays (n,) by image_id.

    labels: those with an image in both splits; codes: the label's position among them, -1 for another;
    inner, held_out, test: bool, disjoint, False for images of other labels.
    """

    labels: list[str]
    codes: np.ndarray
    inner: np.ndarray
    held_out: np.ndarray
    test: np.ndarray


def assign_roles(manifest: pd.DataFrame) -> Roles:
    """Validation images test; of each label's training images by image_id, every fifth from the second on is held out.

    Penalties are fitted on the inner images and judged on those held out; a label's only training image is an inner one.

    Parameters
    ----------
    manifest : DataFrame
        One row an image in order of image_id, with label and split.

    Returns
    -------
    Roles
        What each image does.
    """
    training = (manifest["split"] == "train").to_numpy()
    labels = sorted(set(manifest["label"][training]) & set(manifest["label"][~training]))
    codes = pd.Index(labels).get_indexer(manifest["label"])
    used = codes >= 0
    position = manifest.groupby(["label", "split"]).cumcount().to_numpy()
    held_out = used & training & (position % 5 == 1)
    return Roles(labels, codes, used & training & ~held_out, held_out, used & ~training)


def fit_classifiers(statistics: RidgeStatistics, alphas: list[float]) -> list[Affine]:
    """Ridge regressions onto one-hot labels: of an image with features f, the largest entry of T f + c is the label.

    Parameters
    ----------
    statistics : RidgeStatistics
        Sums over features and one-hot labels of the training rows.
    alphas : list of float
        Times the mean squared distance of the features from their mean, each is a penalty of equation 4, so that it has no unit.

    Returns
    -------
    list of Affine
        T and c for every alpha, in their order.

    Raises
    ------
    InputError
        When the features do not vary.
    """
    scale = statistics.mean_squared_distance
    if not scale > 0:
        raise InputError("the features that the probe is trained on are all alike: look at the images and at the classifier")
    return list(statistics.path(alpha * scale for alpha in alphas))


def probe(batches: Batches, roles: Roles, basis: np.ndarray, translator: Affine, alphas: list[float], confidence: float) -> dict[str, Any]:
    """Accuracy on the test images of a classifier on P_r f (principal) and of one on T P_r f + c (translated).

    Trained on all views of the training images, tested on view 0.

    Parameters
    ----------
    batches : callable
        Starts a pass over all rows, in chunks: image_id (n,), view (n,), features (n, d).
    roles : Roles
        What each image does.
    basis : ndarray of shape (d, k)
        Orthonormal basis of the null space.
    translator : Affine
        T (m, d) and c (m,).
    alphas : list of float
        Penalties tried, as `fit_classifiers` takes them. That with most held-out images right is used, the largest of equals;
        where no image is held out, the middle one.
    confidence : float
        Coverage of the intervals, 0 to 1.

    Returns
    -------
    dict
        n_train, n_test, n_labels (images and labels); for each of KINDS accuracy_<kind> (share, 0 to 1), its Wilson interval
        accuracy_<kind>_low and _high, and alpha_<kind>; chance: share of the test images that the commonest label has; note.
        Accuracies, alphas and chance are None, and note says why, when there is nothing to tell apart.
    """
    report: dict[str, Any] = dict.fromkeys([f"{name}_{kind}" for kind in KINDS for name in ("accuracy", "alpha")])
    report |= dict.fromkeys([f"accuracy_{kind}_{end}" for kind in KINDS for end in ("low", "high")])
    counts = {"n_train": int((roles.inner | roles.held_out).sum()), "n_test": int(roles.test.sum()), "n_labels": len(roles.labels)}
    report |= counts | {"chance": None, "note": ""}
    if len(roles.labels) < 2:
        return report | {"note": f"a probe needs two labels with images in both splits; there are {len(roles.labels)}"}
    if basis.shape[1] == len(basis):
        return report | {"note": "the head has no principal space"}
    sums = _accumulate(batches, roles, basis, translator)
    if roles.held_out.any():
        trials = {kind: fit_classifiers(inner, alphas) for kind, (inner, _) in sums.items()}
        right = _count_right(batches, roles, roles.held_out, basis, translator, trials)
        chosen = {kind: max(zip(right[kind], alphas, strict=True))[1] for kind in KINDS}
    else:
        chosen = dict.fromkeys(KINDS, sorted(alphas)[len(alphas) // 2])
        report["note"] = "no label has two training images to choose the penalty with: the middle one is used"
    for inner, held_out in sums.values():
        inner.add(held_out)
    final = {kind: fit_classifiers(inner, [chosen[kind]]) for kind, (inner, _) in sums.items()}
    right = _count_right(batches, roles, roles.test, basis, translator, final)
    for kind in KINDS:
        interval = scipy.stats.binomtest(right[kind][0], counts["n_test"]).proportion_ci(confidence, method="wilson")
        report[f"accuracy_{kind}"] = right[kind][0] / counts["n_test"]
        report[f"accuracy_{kind}_low"], report[f"accuracy_{kind}_high"] = float(interval.low), float(interval.high)
        report[f"alpha_{kind}"] = chosen[kind]
    return report | {"chance": float(np.bincount(roles.codes[roles.test]).max() / counts["n_test"])}


def _kinds(features: np.ndarray, basis: np.ndarray, translator: Affine) -> dict[str, np.ndarray]:
    principal = remove_null(features.astype(np.float64), basis)
    return dict(zip(KINDS, (principal, translate(principal, translator)), strict=True))


def _accumulate(
    batches: Batches, roles: Roles, basis: np.ndarray, translator: Affine
) -> dict[str, tuple[RidgeStatistics, RidgeStatistics]]:
    """Per kind of features: the statistics of the inner rows, and of those held out."""
    targets = len(roles.labels)
    sums: dict[str, tuple[RidgeStatistics, RidgeStatistics]] = {}
    for image_id, _, features in batches():
        for part, role in enumerate((roles.inner, roles.held_out)):
            mine = role[image_id]
            one_hot = np.eye(targets)[roles.codes[image_id[mine]]]
            for kind, rows in _kinds(features[mine], basis, translator).items() if mine.any() else ():
                size, origin = (rows.shape[1], targets), (rows[0].astype(np.float64), np.zeros(targets))
                both = sums.setdefault(kind, (RidgeStatistics(*size, origin), RidgeStatistics(*size, origin)))
                both[part].update(rows, one_hot)
    return sums


def _count_right(
    batches: Batches, roles: Roles, role: np.ndarray, basis: np.ndarray, translator: Affine, classifiers: dict[str, list[Affine]]
) -> dict[str, list[int]]:
    """Per kind and classifier: images with this role whose label it finds, in view 0."""
    right = {kind: [0] * len(each) for kind, each in classifiers.items()}
    for image_id, view, features in batches():
        mine = role[image_id] & (view == 0)
        for kind, rows in _kinds(features[mine], basis, translator).items():
            for number, classifier in enumerate(classifiers[kind]):
                right[kind][number] += int((classifier(rows).argmax(axis=1) == roles.codes[image_id[mine]]).sum())
    return right


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
    row: dict[str, Any] = {"pearson": None, "pearson_low": None, "pearson_high": None, "pearson_n": len(x), "pearson_note": ""}
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


def gather(probes: dict[str, dict[str, dict[str, Any]]], models: pd.DataFrame, confidence: float) -> pd.DataFrame:
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
        part = pd.DataFrame([{"space": space, "model": model, "n": report["n_test"], **report} for model, report in reports.items()])
        before, after = (part[f"accuracy_{kind}"].to_numpy(np.float64) for kind in KINDS)
        parts.append(part.assign(**correlate(before, after, confidence)))
    return qualify(pd.concat(parts, ignore_index=True), models)
