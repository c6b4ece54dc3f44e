"""Linear classifiers on principal features before and after translation (section 4 of the supplement, figure 12)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy

from singflow.errors import InputError
from singflow.geometry import remove_null
from singflow.metrics import translate
from singflow.ridge import Affine, RidgeStatistics
from singflow.tables import qualify

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
    """Validation images test. Of each label's training images by image_id, every fifth from the second on is held out.

    Penalties are fitted on the inner images and judged on those held out; a label's only training image is an inner one.
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

    The penalty of equation 4 is alpha times the mean squared distance of the features from their mean, so that alpha has no
    unit. Raises InputError when the features do not vary.
    """
    scale = statistics.mean_squared_norm
    if not scale > 0:
        raise InputError("the features that the probe is trained on are all alike: look at the images and at the classifier")
    return list(statistics.path(alpha * scale for alpha in alphas))


def probe(batches: Batches, roles: Roles, basis: np.ndarray, translator: Affine, alphas: list[float], confidence: float) -> dict[str, Any]:
    """Accuracy on the test images of a classifier on P_r f (principal) and of one on T P_r f + c (translated).

    Trained on all views of the training images, tested on view 0. alpha: the one with most held-out images right, the largest of
    equals. Intervals are Wilson's. chance: share of the test images that the commonest label has. Numbers are None, and note
    says why, when there is nothing to tell apart.
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
    final = {kind: fit_classifiers(inner + held_out, [chosen[kind]]) for kind, (inner, held_out) in sums.items()}
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
    widths = zip(KINDS, (len(basis), len(translator.bias)), strict=True)
    sums = {kind: (RidgeStatistics(width, targets), RidgeStatistics(width, targets)) for kind, width in widths}
    for image_id, _, features in batches():
        for part, role in enumerate((roles.inner, roles.held_out)):
            mine = role[image_id]
            one_hot = np.eye(targets)[roles.codes[image_id[mine]]]
            for kind, rows in _kinds(features[mine], basis, translator).items():
                sums[kind][part].update(rows, one_hot)
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
    """Pearson's correlation of accuracies (n,) over models, NaN for none, with Fisher's interval; None and a note where undefined."""
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

    probes: space -> model -> probes/<space>/<model>.json; models: tables/models.csv; n: test images.
    """
    parts = []
    for space, reports in probes.items():
        part = pd.DataFrame([{"space": space, "model": model, "n": report["n_test"], **report} for model, report in reports.items()])
        before, after = (part[f"accuracy_{kind}"].to_numpy(np.float64) for kind in KINDS)
        parts.append(part.assign(**correlate(before, after, confidence)))
    return qualify(pd.concat(parts, ignore_index=True), models)
