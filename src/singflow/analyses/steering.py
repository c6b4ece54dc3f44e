"""Steering toward a text inside the null space, by closed forms (equations 10 to 13)."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from singflow.geometry import logit_change
from singflow.metrics import angle_deg, unit
from singflow.ridge import Affine


def cosine_gradient(embeddings: np.ndarray, text: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Gradient of cos(e, t), e = weight x + constant, with respect to x (equations 10 and 11): (n, d) float64.

    embeddings (n, m) are e; text (m,) of any length is t; weight is (m, d). With T it is the gradient with respect to the
    feature; with T V_0 it is the gradient's coordinates in the null space. Raises InputError for a zero embedding or text.
    """
    direction, target = unit(embeddings), unit(text)
    across = target - (direction @ target)[:, None] * direction
    return (across / np.linalg.norm(embeddings.astype(np.float64), axis=1, keepdims=True)) @ weight


@dataclass(frozen=True)
class NullDirections:
    """The way toward a text inside the null space, one row per feature, float64.

    embeddings: (n, m), e = T f + c; vectors: (n, d), the unit vector v = P_0 g / ||P_0 g||, zero where the null space offers no
    direction; translated: (n, m), T v.
    """

    embeddings: np.ndarray
    vectors: np.ndarray
    translated: np.ndarray

    def limit_deg(self) -> np.ndarray:
        """The IS that no step reaches, angle(e, T v): (n,) degrees; 0 where there is no direction."""
        limit = np.zeros(len(self.vectors))
        exists = self.vectors.any(axis=1)
        limit[exists] = angle_deg(self.embeddings[exists], self.translated[exists])
        return limit

    def step(self, target_is_deg: float) -> np.ndarray:
        """The step whose IS is target_is_deg, by the sine rule in the plane of e and T v: (n,), NaN where out of reach."""
        limit = self.limit_deg()
        reachable = target_is_deg < limit
        lengths = [np.linalg.norm(each[reachable], axis=1) for each in (self.embeddings, self.translated)]
        theta, phi = np.radians(target_is_deg), np.radians(limit[reachable])
        step = np.full(len(limit), np.nan)
        step[reachable] = lengths[0] * np.sin(theta) / (lengths[1] * np.sin(phi - theta))
        return step


def null_directions(
    features: np.ndarray, translator: Affine, basis: np.ndarray, translated_basis: np.ndarray, text: np.ndarray
) -> NullDirections:
    """Gradient toward text (m,), projected on the null space and normalized (equations 11 to 13), for features (n, d).

    translator: T (m, d) and c (m,) in float64; basis: V_0 (d, k); translated_basis: T V_0 (m, k). A projected gradient that is zero
    up to the rounding of T V_0 is no direction. Raises InputError for a feature that is translated to zero.
    """
    embeddings = translator(features.astype(np.float64))
    gradient = cosine_gradient(embeddings, text, translated_basis)
    length = np.linalg.norm(gradient, axis=1, keepdims=True)
    rounding = max(translator.weight.shape) * np.finfo(np.float64).eps * np.linalg.norm(translator.weight)
    exists = length * np.linalg.norm(embeddings, axis=1, keepdims=True) > rounding
    coordinates = np.divide(gradient, length, out=np.zeros_like(gradient), where=exists)
    return NullDirections(embeddings, coordinates @ basis.T, coordinates @ translated_basis.T)


def steer(features: np.ndarray, vectors: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Steered features f' = f + step * v (equation 13): (n, d), computed in float64, returned in the features' type."""
    return (features.astype(np.float64) + step[:, None] * vectors).astype(features.dtype)


def steering_scores(
    features: np.ndarray,
    head: np.ndarray,
    translator: Affine,
    directions: NullDirections,
    text: np.ndarray,
    label_texts: np.ndarray,
    target_is_deg: float,
) -> pd.DataFrame:
    """Scores of features (n, d) steered to an IS of target_is_deg, measured on the features as they are stored.

    head: W (C, d); text: (m,), the target; label_texts: (n, m). Columns: target_is_deg, step, is_deg, as_target_deg and as_label_deg
    (equations 7 and 8), logit_change (norm), reachable. Where the IS is out of reach, every number is NaN.
    """
    step = directions.step(target_is_deg)
    reachable = ~np.isnan(step)
    moved = steer(features[reachable], directions.vectors[reachable], step[reachable])
    before, after = directions.embeddings[reachable], translator(moved.astype(np.float64))
    labels = label_texts[reachable]
    measured = {
        "is_deg": angle_deg(before, after),
        "as_target_deg": angle_deg(before, text) - angle_deg(after, text),
        "as_label_deg": angle_deg(before, labels) - angle_deg(after, labels),
        "logit_change": logit_change(head, features[reachable], moved),
    }
    scores = pd.DataFrame({"target_is_deg": np.full(len(step), target_is_deg), "step": step})
    for name, values in measured.items():
        scores.loc[reachable, name] = values
    return scores.assign(reachable=reachable)


def summarize_steering(scores: pd.DataFrame) -> pd.DataFrame:
    """Per prompt and target: images and means of those that reach the target, in degrees; a note on those that cannot.

    scores: a table of scripts/steer_concepts.py. Standard deviations have the divisor n - 1; numbers without images are NaN.
    """
    reached = scores[scores["reachable"]].assign(error=lambda f: (f["is_deg"] - f["target_is_deg"]).abs())
    keys = ["prompt", "target_is_deg"]
    groups = reached.groupby(keys)
    table = pd.DataFrame({"n": scores.groupby(keys).size()})
    table["n_reachable"] = scores.groupby(keys)["reachable"].sum()
    for side in ("target", "label"):
        table[f"as_{side}_mean_deg"] = groups[f"as_{side}_deg"].mean()
        table[f"as_{side}_std_deg"] = groups[f"as_{side}_deg"].std()
    table["is_max_error_deg"] = groups["error"].max()
    table["step_mean"] = groups["step"].mean()
    table["logit_change_max"] = groups["logit_change"].max()
    table = table.reset_index()
    missed = table["n"] - table["n_reachable"]
    notes = [f"{m} of {n} images cannot reach {t:g} degrees" for m, n, t in zip(missed, table["n"], table["target_is_deg"], strict=True)]
    return table.assign(note=np.where(missed > 0, notes, ""))
