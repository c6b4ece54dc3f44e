"""Steering toward a text inside the null space, by closed forms (equations 10 to 13)."""

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
    """Gradient of cos(e, t), e = weight x + constant, with respect to x.

    With T it is the gradient with respect to the feature; with T V_0 it is the gradient's coordinates in the null space.

    Parameters
    ----------
    embeddings : ndarray of shape (n, m)
        Embeddings e.
    text : ndarray of shape (m,)
        Text embedding t of any norm.
    weight : ndarray of shape (m, d)
        T, or T times a basis.

    Returns
    -------
    ndarray of shape (n, d)
        Gradients in float64.

    Raises
    ------
    InputError
        When an embedding or the text is zero.

    References
    ----------
    Equations 10 and 11 of the paper.
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
        """The IS that no step reaches, angle(e, T v).

        Returns
        -------
        ndarray of shape (n,)
            Degrees; 0 where there is no direction.
        """
        limit = np.zeros(len(self.vectors))
        exists = self.vectors.any(axis=1)
        limit[exists] = angle_deg(self.embeddings[exists], self.translated[exists])
        return limit

    def nearest(self, text: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How near a text the way leads, by the cosine's maximum in the plane of e and T v.

        Parameters
        ----------
        text : ndarray of shape (m,)
            Text embedding of any norm.

        Returns
        -------
        is_deg : ndarray of shape (n,)
            The IS at which the text is nearest, in degrees; the limit where the way comes nearer all along; 0 where there is none.
        angle_deg : ndarray of shape (n,)
            The angle to the text there.
        """
        ahead = unit(self.embeddings)
        exists = self.vectors.any(axis=1)
        across = np.zeros_like(ahead)
        aside = (
            self.translated[exists]
            - np.vecdot(self.translated[exists], ahead[exists])[:, None] * ahead[exists]
        )
        across[exists] = unit(aside)
        turn = np.degrees(np.arctan2(across @ unit(text), ahead @ unit(text)))
        turn = np.where(exists, np.minimum(turn, self.limit_deg()), 0.0)
        there = (
            np.cos(np.radians(turn))[:, None] * ahead + np.sin(np.radians(turn))[:, None] * across
        )
        return turn, angle_deg(there, text)

    def step(self, target_is_deg: float) -> np.ndarray:
        """The step whose IS is the target, by the sine rule in the plane of e and T v.

        Parameters
        ----------
        target_is_deg : float
            IS to reach, in degrees.

        Returns
        -------
        ndarray of shape (n,)
            Factors of the unit vectors v; NaN where the target is out of reach.
        """
        limit = self.limit_deg()
        reachable = target_is_deg < limit
        lengths = [
            np.linalg.norm(each[reachable], axis=1) for each in (self.embeddings, self.translated)
        ]
        theta, phi = np.radians(target_is_deg), np.radians(limit[reachable])
        step = np.full(len(limit), np.nan)
        step[reachable] = lengths[0] * np.sin(theta) / (lengths[1] * np.sin(phi - theta))
        return step


def null_directions(
    features: np.ndarray,
    translator: Affine,
    basis: np.ndarray,
    translated_basis: np.ndarray,
    text: np.ndarray,
) -> NullDirections:
    """Gradient toward a text, projected on the null space and normalized, for features.

    A projected gradient that is zero up to the rounding of T V_0 is no direction.

    Parameters
    ----------
    features : ndarray of shape (n, d)
        Features f.
    translator : Affine
        T (m, d) and c (m,) in float64.
    basis : ndarray of shape (d, k)
        Orthonormal basis V_0 of the null space.
    translated_basis : ndarray of shape (m, k)
        T V_0.
    text : ndarray of shape (m,)
        Text embedding of any norm.

    Returns
    -------
    NullDirections
        One row per feature.

    Raises
    ------
    InputError
        When a feature is translated to zero, or the text is zero.

    References
    ----------
    Equations 11 to 13 of the paper.
    """
    embeddings = translator(features.astype(np.float64))
    gradient = cosine_gradient(embeddings, text, translated_basis)
    length = np.linalg.norm(gradient, axis=1, keepdims=True)
    rounding = (
        max(translator.weight.shape) * np.finfo(np.float64).eps * np.linalg.norm(translator.weight)
    )
    exists = length * np.linalg.norm(embeddings, axis=1, keepdims=True) > rounding
    coordinates = np.divide(gradient, length, out=np.zeros_like(gradient), where=exists)
    return NullDirections(embeddings, coordinates @ basis.T, coordinates @ translated_basis.T)


def steer(features: np.ndarray, vectors: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Steered features f' = f + step * v.

    Parameters
    ----------
    features : ndarray of shape (n, d)
        Features f.
    vectors : ndarray of shape (n, d)
        Directions v.
    step : ndarray of shape (n,)
        How far along v.

    Returns
    -------
    ndarray of shape (n, d)
        f', computed in float64, returned in the features' type.

    References
    ----------
    Equation 13 of the paper.
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
    """Scores of features steered to an IS, measured on the features as they are stored.

    Parameters
    ----------
    features : ndarray of shape (n, d)
        Features f.
    head : ndarray of shape (C, d)
        The head's weight W.
    translator : Affine
        T (m, d) and c (m,) in float64.
    directions : NullDirections
        What `null_directions` gives for these features and the text.
    text : ndarray of shape (m,)
        Embedding of the text that they are steered to.
    label_texts : ndarray of shape (n, m)
        Text embedding of each image's label.
    target_is_deg : float
        IS to reach, in degrees.

    Returns
    -------
    DataFrame
        A row per feature: target_is_deg, step, is_deg, as_target_deg, as_label_deg, logit_change (norm), reachable. Where the IS is
        out of reach, every number but the target is NaN.

    References
    ----------
    Equations 7 and 8 of the paper.
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
    """Per prompt and target: images and means of those that reach the target; a note on those that cannot.

    Parameters
    ----------
    scores : DataFrame
        A table of scripts/steer_concepts.py.

    Returns
    -------
    DataFrame
        prompt, target_is_deg, n, n_reachable, mean and standard deviation (divisor n - 1) of AS toward target and label,
        is_max_error_deg, step_mean, logit_change_max, note. Angles are in degrees; numbers without images are NaN.
    """
    reached = scores[scores["reachable"]].assign(
        error=lambda f: (f["is_deg"] - f["target_is_deg"]).abs()
    )
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
    notes = [
        f"{m} of {n} images cannot reach {t:g} degrees"
        for m, n, t in zip(missed, table["n"], table["target_is_deg"], strict=True)
    ]
    return table.assign(note=np.where(missed > 0, notes, ""))
