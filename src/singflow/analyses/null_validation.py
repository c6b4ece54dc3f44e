"""What null, random and principal perturbations of equal norm do to a head's output (section 2 of the supplement)."""

import numpy as np
import pandas as pd
import scipy

PERTURBATIONS = ["null", "random", "principal"]


def perturb(
    features: np.ndarray,
    image_id: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray,
    basis: np.ndarray,
    seed: int,
) -> np.ndarray:
    """Null, random and principal perturbations of features, of equal norm per image.

    Parameters
    ----------
    features : ndarray of shape (n, d)
        Features f.
    image_id : ndarray of shape (n,)
        With the seed, all that a random perturbation depends on.
    weight : ndarray of shape (C, d)
        The head's weight W.
    bias : ndarray of shape (C,)
        The head's bias.
    basis : ndarray of shape (d, k)
        Orthonormal basis V_0 of the null space.
    seed : int
        Seed of the random perturbations.

    Returns
    -------
    ndarray of shape (3, n, d)
        Perturbations in float64, in the order of PERTURBATIONS. null: -P_0 f, which sets the norm; random: an isotropic Gaussian
        scaled to it; principal: against the row of W that belongs to the predicted class, which lowers its logit fastest (zero if
        that row is).
    """
    wide = features.astype(np.float64)
    null = -(wide @ basis) @ basis.T
    random = np.array(
        [
            np.random.default_rng([seed, number]).standard_normal(wide.shape[1])
            for number in image_id
        ]
    ).reshape(wide.shape)
    principal = -weight.astype(np.float64)[np.argmax(wide @ weight.T + bias, axis=1)]
    norm = np.linalg.norm(null, axis=1, keepdims=True)
    return np.stack([null, *(norm * _directions(each) for each in (random, principal))])


def _directions(vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)


def effect(
    features: np.ndarray, perturbation: np.ndarray, weight: np.ndarray, bias: np.ndarray
) -> pd.DataFrame:
    """What adding a perturbation to features does to W f + b, computed in float64.

    The perturbed feature is rounded to the features' type, as it would be stored.

    Parameters
    ----------
    features : ndarray of shape (n, d)
        Features f.
    perturbation : ndarray of shape (n, d)
        What is added to them.
    weight : ndarray of shape (C, d)
        The head's weight W.
    bias : ndarray of shape (C,)
        The head's bias b.

    Returns
    -------
    DataFrame
        A row per feature: norm of the perturbation, logit_change ||W delta|| (delta: the rounded change), top1_changed,
        softmax_change (total variation, 0 to 1).

    References
    ----------
    Equation 16.
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

    Parameters
    ----------
    effects : DataFrame
        A table of scripts/validate_null_space.py.
    confidence : float
        Coverage of the interval, 0 to 1.

    Returns
    -------
    DataFrame
        In the order of PERTURBATIONS: perturbation, n, norm_mean, logit_change_mean, logit_change_median, logit_change_max,
        softmax_change_mean, top1_changed_share, top1_changed_low, top1_changed_high.
    """
    groups = effects.groupby("perturbation")
    change = groups["logit_change"]
    table = pd.DataFrame({"n": groups.size(), "norm_mean": groups["norm"].mean()})
    table = table.assign(
        logit_change_mean=change.mean(),
        logit_change_median=change.median(),
        logit_change_max=change.max(),
    )
    table["softmax_change_mean"] = groups["softmax_change"].mean()
    changed = groups["top1_changed"].sum()
    table["top1_changed_share"] = changed / table["n"]
    intervals = [
        scipy.stats.binomtest(k, n).proportion_ci(confidence, "wilson")
        for k, n in zip(changed, table["n"], strict=True)
    ]
    table["top1_changed_low"] = [each.low for each in intervals]
    table["top1_changed_high"] = [each.high for each in intervals]
    return table.loc[PERTURBATIONS].reset_index()
