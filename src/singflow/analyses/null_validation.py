"""What null, random and principal perturbations of equal norm do to a head's output (section 2 of the supplement)."""

import numpy as np
import pandas as pd
import scipy

PERTURBATIONS = ["null", "random", "principal"]


def perturb(features: np.ndarray, image_id: np.ndarray, weight: np.ndarray, bias: np.ndarray, basis: np.ndarray, seed: int) -> np.ndarray:
    """Perturbations of features (n, d) in the order of PERTURBATIONS: (3, n, d) float64, of equal norm per image.

    null: -P_0 f, which sets the norm; random: an isotropic Gaussian drawn by (seed, image_id) alone; principal: against the row of
    W (C, d) that belongs to the predicted class, which lowers its logit fastest (zero if that row is). basis: V_0 (d, k).
    """
    wide = features.astype(np.float64)
    null = -(wide @ basis) @ basis.T
    random = np.array([np.random.default_rng([seed, number]).standard_normal(wide.shape[1]) for number in image_id]).reshape(wide.shape)
    principal = -weight.astype(np.float64)[np.argmax(wide @ weight.T + bias, axis=1)]
    norm = np.linalg.norm(null, axis=1, keepdims=True)
    return np.stack([null, *(norm * _directions(each) for each in (random, principal))])


def _directions(vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)


def effect(features: np.ndarray, perturbation: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> pd.DataFrame:
    """What adding a perturbation (n, d) to features (n, d) does to W f + b (equation 16), computed in float64.

    weight (C, d), bias (C,). The perturbed feature is rounded to the features' type, as it would be stored. Columns: norm of the
    perturbation, logit_change ||W delta||, top1_changed, softmax_change (total variation, 0 to 1).
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
    """One row per perturbation: means over images, and the share of changed predictions with its Wilson interval.

    effects: a table of scripts/validate_null_space.py; confidence: coverage of the interval.
    """
    groups = effects.groupby("perturbation")
    change = groups["logit_change"]
    table = pd.DataFrame({"n": groups.size(), "norm_mean": groups["norm"].mean()})
    table = table.assign(logit_change_mean=change.mean(), logit_change_median=change.median(), logit_change_max=change.max())
    table["softmax_change_mean"] = groups["softmax_change"].mean()
    changed = groups["top1_changed"].sum()
    table["top1_changed_share"] = changed / table["n"]
    intervals = [scipy.stats.binomtest(k, n).proportion_ci(confidence, "wilson") for k, n in zip(changed, table["n"], strict=True)]
    table["top1_changed_low"] = [each.low for each in intervals]
    table["top1_changed_high"] = [each.high for each in intervals]
    return table.loc[PERTURBATIONS].reset_index()
