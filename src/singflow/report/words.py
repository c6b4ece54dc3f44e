"""Sentences on the tables of a study."""

from collections.abc import Iterable
from typing import Any

import pandas as pd
import scipy

from singflow.analyses.findings import looked_at
from singflow.analyses.summary import rank_differences
from singflow.analyses.tables import EDGE, MARKS, SEEN, WEAK, percent, with_interval

MOST = 3  # limit on the pairs of models that a sentence names


def _joined(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def power_said(models: pd.DataFrame) -> list[str]:
    """What D shows of a leak, and what the logits say of the null component; none without D."""
    tested = models.dropna(subset=["gain", "null_r2"])
    if tested.empty:
        return []
    gain, null_r2 = (_range(tested, column) for column in ("gain", "null_r2"))
    return [
        f"D is a lower bound: it shows {gain} of a leak of 10 % that is spread evenly, because the "
        "null component is read from few images. So a D below the smallest detectable leak can be "
        f"found. The logits predict {null_r2} of the null component."
    ]


def _range(models: pd.DataFrame, column: str) -> str:
    rows = models.sort_values(column, kind="stable").iloc[[0, -1][: len(models)]]
    return " to ".join(
        f"{percent(max(row[column], 0.0))} ({row['model']})" for row in rows.to_dict("records")
    )


def learning_said(models: pd.DataFrame) -> list[str]:
    """How D grows with the images, of the models in which something was found."""
    return [
        f"{row['model']}: D is {percent(row['unique_r2_quarter'])} with a quarter of the images, "
        f"{percent(row['unique_r2_half'])} with half of them, {percent(row['unique_r2'])} with all."
        for row in looked_at(models).dropna(subset=["unique_r2_quarter"]).to_dict("records")
    ]


def pairs_said(pairs: pd.DataFrame) -> list[str]:
    """A sentence on the models of a space that differ by D; none without pairs."""
    if pairs.empty:
        return []
    rows = pairs.reindex(
        pairs["difference"].abs().sort_values(ascending=False, kind="stable").index
    )
    apart = rows[rows["differ"].astype(bool)]
    if apart.empty:
        names = list(dict.fromkeys([*pairs["model_a"], *pairs["model_b"]]))
        who = _joined(names) if len(names) <= MOST else f"the {len(names)} models"
        return [
            f"By D, {who} cannot be told apart. The largest difference is "
            f"{_difference(rows.iloc[0].to_dict())}."
        ]
    named = "; ".join(
        f"{' above '.join([row['model_a'], row['model_b']][:: 1 if row['difference'] > 0 else -1])}"
        f" by {_difference(row)}"
        for row in apart.head(MOST).to_dict("records")
    )
    return [
        f"By D, {len(apart)} of {len(pairs)} pairs of models differ: {named}"
        f"{'; and others' if len(apart) > MOST else ''}."
    ]


def _difference(row: dict[Any, Any]) -> str:
    sign = 100 if row["difference"] >= 0 else -100
    low, high = sorted((sign * row["low"], sign * row["high"]))
    size = with_interval([sign * row["difference"], low, high], 2, " %")
    return f"{size}, p = {row['p_holm']:.2g}"


def blind_said(models: pd.DataFrame) -> list[str]:
    """A paragraph on the blind check of a space; none without a blind check."""
    found = models.dropna(subset=["blind_unique_r2"])
    if found.empty:
        return []
    most = found.sort_values("blind_unique_r2", kind="stable").iloc[-1]
    size = with_interval([100 * most["blind_unique_r2"]], 2, " %")
    return [
        "Blind check: the test is repeated with embeddings that follow from the logits alone, so D "
        f"should be 0. The largest D is {size} ({most['model']}); "
        f"the margin is {percent(most['margin'])}."
    ]


def steering_said(steering: pd.DataFrame, models: pd.DataFrame, confidence: float) -> str:
    """A note that steering does not tell the models of a study apart; empty if that is not so."""
    names, n = steering["model"].nunique(), steering["n_reachable"]
    if names < 2:
        return ""
    half = (
        scipy.special.stdtrit((n - 1).clip(lower=1), (1 + confidence) / 2)
        * steering["as_target_std_deg"]
        / n**0.5
    )
    ends = steering.assign(
        low=steering["as_target_mean_deg"] - half, high=steering["as_target_mean_deg"] + half
    )
    together = ends.groupby(["space", "prompt", "target_is_deg"]).agg({"low": "max", "high": "min"})
    if half.isna().any() or (n < steering["n"]).any() or (together["low"] > together["high"]).any():
        return ""
    text = (
        f"All {names} models reach every target, and the {100 * confidence:g} % intervals of their "
        "mean AS overlap. By this table, the models cannot be told apart."
    )
    zeros = models.loc[
        models["known_zero"].astype(bool) & models["model"].isin(steering["model"]), "model"
    ].unique()
    if len(zeros):
        text += (
            f" {_joined(zeros)}, a known zero, is steered as far as the others. So steering is no "
            "evidence of hidden meaning."
        )
    return text


def sample_said(shown: int, images: int) -> str:
    """A sentence on a page that shows a sample of the images; empty if it shows all."""
    if shown == images:
        return ""
    return (
        f"{shown:,} of the {images:,} images are shown here one by one, drawn by the study's seed; "
        "the scores of all are in the results folder, scores/."
    )


def warnings(models: pd.DataFrame, min_r2: float) -> list[str]:
    """Warnings for the reader of a study's numbers."""
    found = []
    if (models["weights"] == "random").any():
        found.append(
            "These models are untrained (random weights). The numbers show that the workflow runs, "
            "and nothing else."
        )
    if differences := rank_differences(models):
        found.append(differences)

    def named(rows: pd.DataFrame) -> str:
        return "; ".join(
            f"{_joined(mine['model'])} in {space}"
            for space, mine in rows.groupby("space", sort=False)
        )

    marks = models["marks"].str.split(", ")
    weak, edge, seen = (
        models[marks.map(lambda mine, mark=mark: mark in mine)] for mark in (WEAK, EDGE, SEEN)
    )
    if len(weak):
        found.append(
            f"{MARKS[WEAK]} Weak translators: {named(weak)}. They explain less than {min_r2:g} of "
            "the held-out images (R²). These scores show how the method works, not what the models "
            "ignore. Give the study more images before you believe a ranking."
        )
    if len(edge):
        found.append(
            f"{MARKS[EDGE]} The best penalty of {named(edge)} is at the edge of "
            "translator.lambdas. A better one may lie beyond."
        )
    if len(seen):
        found.append(
            f"{MARKS[SEEN]} In sample, as in the paper: the translator of {named(seen)} has seen "
            "the images that it translates."
        )
    if len(blind := models[models["blind_unique_r2"] > models["margin"]]):
        found.append(
            f"The blind check exceeds the margin: {named(blind)}. There, imperfect words alone "
            "look like hidden meaning. A verdict of “meaning” or “trace” proves nothing for these "
            "models."
        )
    low = models[models["top1_low"].astype(bool)].drop_duplicates("model")
    if len(low):
        found.append(
            "Top-1 is far below the reported value, or like a guess: "
            f"{_joined(low['model'])}. Most often the order of the classes, the evaluation "
            "transform or the weights are wrong."
        )
    return found
