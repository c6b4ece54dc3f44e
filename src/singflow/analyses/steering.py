"""Steering toward a text inside the null space, in closed form (equations 10 to 13)."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pandas as pd
from pydantic import AfterValidator, Field

from singflow.analyses.geometry import logit_change
from singflow.analyses.metrics import angle_deg, unit
from singflow.config.sections import Listed, Section, unique
from singflow.translators.ridge import Affine


class Steering(Section):
    """Where features are steered to (equations 10 to 13)."""

    prompts: Annotated[list[Listed], AfterValidator(unique)] = Field(
        ["an image of a jellyfish"],
        description="texts whose embeddings are the targets (paper: this one)",
    )
    target_is_deg: Annotated[
        list[Annotated[float, Field(gt=0, lt=180)]], AfterValidator(unique)
    ] = Field(
        [5.0, 10.0], min_length=1, description="degrees; the steps are calibrated to these IS"
    )
    labels: list[Listed] = Field(
        [], description="labels whose images are steered; none: all (paper: sports car)"
    )


def cosine_gradient(embeddings: np.ndarray, text: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Gradient of cos(e, t) with respect to x, where e = weight x + constant.

    It is (t - cos(e, t) u)^T weight / |e|, with t and u = e / |e| of norm 1: only what is across e
    turns it (equations 10 and 11). With weight T it is the gradient with respect to the feature;
    with T V_0 it is the gradient in coordinates of the null space. Raises InputError if an
    embedding (n, m) or the text (m,) is zero; neither need have norm 1.
    """
    direction, target = unit(embeddings), unit(text)
    across = target - (direction @ target)[:, None] * direction
    return (across / np.linalg.norm(embeddings.astype(np.float64), axis=1, keepdims=True)) @ weight


@dataclass(frozen=True)
class NullDirections:
    """Directions toward a text inside the null space, one row per feature, float64."""

    embeddings: np.ndarray  # (n, m), e = T f + c
    vectors: np.ndarray  # (n, d), v = P_0 g / ||P_0 g||; zero without a direction toward the text
    translated: np.ndarray  # (n, m), T v

    def limit_deg(self) -> np.ndarray:
        """Limit of IS that no step reaches, angle(e, T v) in degrees; 0 without a direction."""
        limit = np.zeros(len(self.vectors))
        exists = self.vectors.any(axis=1)
        limit[exists] = angle_deg(self.embeddings[exists], self.translated[exists])
        return limit

    def closest_approach(self, text: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """IS of the point along v that is closest to a text t (m,), and its angle to t.

        Both are (n,), in degrees. With the unit vectors u of e, and w across u in the plane of e
        and T v, a step that turns e by x gives cos x u + sin x w. Its cosine to t is largest at x =
        atan2(w . t, u . t), where the projection of t on the plane points. x is the limit if the
        angle to the text falls all the way, and 0 if there is no direction.
        """
        ahead = unit(self.embeddings)
        exists = self.vectors.any(axis=1)
        across = np.zeros_like(ahead)
        moved, along = self.translated[exists], ahead[exists]
        across[exists] = unit(moved - np.vecdot(moved, along)[:, None] * along)
        turn = np.degrees(np.arctan2(across @ unit(text), ahead @ unit(text)))
        turn = np.where(exists, np.minimum(turn, self.limit_deg()), 0.0)
        radians = np.radians(turn)[:, None]
        return turn, angle_deg(np.cos(radians) * ahead + np.sin(radians) * across, text)

    def step(self, target_is_deg: float) -> np.ndarray:
        """Factor s of v (n,) that gives the target IS x; NaN if the target is out of reach.

        e, s T v and their sum form a triangle, with the angle x at e and phi - x at the sum, phi
        being the limit. The sine rule gives s = |e| sin x / (|T v| sin(phi - x)).
        """
        limit = self.limit_deg()
        reachable = target_is_deg < limit
        length = np.linalg.norm(self.embeddings[reachable], axis=1)
        moved = np.linalg.norm(self.translated[reachable], axis=1)
        theta, phi = np.radians(target_is_deg), np.radians(limit[reachable])
        step = np.full(len(limit), np.nan)
        step[reachable] = length * np.sin(theta) / (moved * np.sin(phi - theta))
        return step


def null_directions(
    features: np.ndarray,
    translator: Affine,
    basis: np.ndarray,
    translated_basis: np.ndarray,
    text: np.ndarray,
) -> NullDirections:
    """Gradients toward a text, projected on the null space and normalized (equations 11 to 13).

    The projection is P_0 g = V_0 V_0^T g, and V_0^T g is the gradient in coordinates x of the null
    space, in which e = T V_0 x + constant. So the directions are computed in these k coordinates.
    A projected gradient counts as zero if it is at most the rounding error of T V_0. translator: in
    float64. basis, translated_basis: V_0 (d, k), and T V_0 (m, k).
    """
    embeddings = translator(features.astype(np.float64))
    gradient = cosine_gradient(embeddings, text, translated_basis)
    length = np.linalg.norm(gradient, axis=1, keepdims=True)
    eps, weight = np.finfo(np.float64).eps, translator.weight
    rounding = max(weight.shape) * eps * np.linalg.norm(weight)
    exists = length * np.linalg.norm(embeddings, axis=1, keepdims=True) > rounding
    coordinates = np.divide(gradient, length, out=np.zeros_like(gradient), where=exists)
    return NullDirections(embeddings, coordinates @ basis.T, coordinates @ translated_basis.T)


def steer(features: np.ndarray, vectors: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Steered features f' = f + step * v (equation 13), for steps (n,).

    They are computed in float64 and rounded to the dtype of the features.
    """
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
    """Scores of features (n, d) that are steered to a target IS, measured on the rounded features.

    head: W. translator: in float64. directions: of these features toward this text (m,).
    label_texts: (n, m), the text of each image's label. AS and IS are those of equations 7 and 8;
    logit_change is a norm. If the target is out of reach, reachable is False and every number but
    the target is NaN.
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
    """Per prompt and target: numbers of images, and means over the images that reach the target.

    Standard deviations have divisor n - 1.
    """
    keys = ["prompt", "target_is_deg"]
    reached = scores[scores["reachable"]]
    error = (reached["is_deg"] - reached["target_is_deg"]).abs()
    groups = reached.assign(error=error).groupby(keys)
    table = pd.DataFrame({"n": scores.groupby(keys).size()})
    table["n_reachable"] = scores.groupby(keys)["reachable"].sum()
    for side in ("target", "label"):
        table[f"as_{side}_mean_deg"] = groups[f"as_{side}_deg"].mean()
        table[f"as_{side}_std_deg"] = groups[f"as_{side}_deg"].std()
    table = table.assign(
        is_max_error_deg=groups["error"].max(),
        step_mean=groups["step"].mean(),
        logit_change_max=groups["logit_change"].max(),
    ).reset_index()
    missed = table["n"] - table["n_reachable"]
    notes = [
        f"{m} of {n} images cannot reach {t:g} degrees"
        for m, n, t in zip(missed, table["n"], table["target_is_deg"], strict=True)
    ]
    return table.assign(note=np.where(missed > 0, notes, ""))
