"""Effect of null, random and principal perturbations on a head's output (supplement, section 2).

The three perturbations of an image have the same norm.
"""

import numpy as np
import pandas as pd
import scipy

from singflow.analyses.statistics import wilson

PERTURBATIONS = ["null", "random", "principal"]


def perturb(
    features: np.ndarray,
    image_id: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray,
    basis: np.ndarray,
    seed: int,
) -> np.ndarray:
    """Null, random and principal perturbations of features (n, d), with one norm for each image.

    They are (3, n, d) float64, in the order of PERTURBATIONS. null: -P_0 f, which sets the norm;
    basis is (d, k), V_0. random: an isotropic Gaussian vector, rescaled, which depends only on the
    seed and the image_id. principal: minus the row of W of the predicted class, rescaled (the
    direction in which this logit falls fastest); zero if the row is zero.
    """
    wide = features.astype(np.float64)
    null = -(wide @ basis) @ basis.T
    random = np.empty(wide.shape)
    for row, number in zip(random, image_id, strict=True):
        np.random.default_rng([seed, number]).standard_normal(out=row)
    principal = -weight.astype(np.float64)[np.argmax(wide @ weight.T + bias, axis=1)]
    norm = np.linalg.norm(null, axis=1, keepdims=True)
    return np.stack([null, *(norm * _directions(vectors) for vectors in (random, principal))])


def _directions(vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)


def effect(
    features: np.ndarray, perturbation: np.ndarray, weight: np.ndarray, bias: np.ndarray
) -> pd.DataFrame:
    """Change of the output W f + b when a perturbation is added to features, computed in float64.

    The perturbed feature is first rounded to the features' dtype, in which it would be stored.
    There is one row per feature: norm of the perturbation, logit_change ||W delta|| (equation 16;
    delta is the change after rounding), top1_changed, softmax_change (total variation, 0 to 1).
    """
    wide = features.astype(np.float64)
    perturbed = (wide + perturbation).astype(features.dtype)
    change = (perturbed.astype(np.float64) - wide) @ weight.T
    before = wide @ weight.T + bias
    after = before + change
    difference = scipy.special.softmax(after, axis=1) - scipy.special.softmax(before, axis=1)
    return pd.DataFrame(
        {
            "norm": np.linalg.norm(perturbation, axis=1),
            "logit_change": np.linalg.norm(change, axis=1),
            "top1_changed": before.argmax(axis=1) != after.argmax(axis=1),
            "softmax_change": 0.5 * np.abs(difference).sum(axis=1),
        }
    )


def summarize_validation(effects: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Statistics over the images, with Wilson's interval of the share of changed predictions."""
    table = effects.groupby("perturbation").agg(
        n=("norm", "size"),
        norm_mean=("norm", "mean"),
        logit_change_mean=("logit_change", "mean"),
        logit_change_median=("logit_change", "median"),
        logit_change_max=("logit_change", "max"),
        softmax_change_mean=("softmax_change", "mean"),
        changed=("top1_changed", "sum"),
    )
    changed = table.pop("changed")
    table["top1_changed_share"] = changed / table["n"]
    intervals = [wilson(k, n, confidence) for k, n in zip(changed, table["n"], strict=True)]
    table[["top1_changed_low", "top1_changed_high"]] = intervals
    return table.loc[PERTURBATIONS].reset_index()
