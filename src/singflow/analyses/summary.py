"""Tables of models and labels, and the verdicts."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from singflow.analyses import statistics, tables
from singflow.analyses.evidence import RESOLUTION
from singflow.analyses.leaks import POWER, SHARES
from singflow.config.registry import ModelEntry
from singflow.config.sections import MOST_DRAWS, Section


class Summary(Section):
    """The tables."""

    resample: Literal["images", "classes"] = Field(
        "images",
        description="what the bootstrap draws: images | classes (whole labels, 10 or more)",
    )
    resamples: int = Field(
        2000, ge=100, le=MOST_DRAWS, description="bootstrap resamples behind every interval"
    )
    confidence: float = Field(
        0.95,
        gt=0,
        lt=1,
        description="coverage of the intervals; its complement is the level of the tests",
    )
    min_r2: float = Field(
        0.2, ge=-1, le=1, description="held-out R2 below which a translator is called weak"
    )


class Controls(Section):
    """Controls: models whose answer is known."""

    known: Literal["auto", "none"] = Field(
        "auto",
        description="auto: `singflow study` adds a known leak, and in conse_minilm a known zero; "
        "elsewhere the known zero is the blind check | none",
    )


MEANING, TRACE, NOTHING, UNTOLD = "meaning", "trace", "nothing found", "cannot tell"
FOUND, MISSED = f"{tables.LEAK}: found", f"{tables.LEAK}: missed"
EMPTY, UNJUDGED = "no null space", "in sample: no verdict"
TRIALS = f"{10 * POWER:g} of 10 trials"
LEAST_R2 = 0.01  # R2 that explains nothing
MOST_LEAK = 0.1  # share of the variance; a study that would miss it cannot say "nothing found"
OWN_WORDS = "own words"  # the name of their row in tables
NO_NULL_SPACE = "no null space: the logits see every direction"
NEVER_NEGATIVE = {"is", "as_abs", "is_per_as"}


def summarize_model(
    scores: pd.DataFrame | None,
    projector: dict[str, Any],
    translator: dict[str, Any],
    evidence: dict[str, Any],
    entry: ModelEntry,
    settings: Summary,
    *,
    n_images: int,
    top1_margin: float,
    seed: int,
) -> dict[str, Any]:
    """One row of tables/models.csv, without space and model, and without p_holm and verdict.

    The last two need all models of a space: see `add_verdicts`. scores: None if the study does not
    ask for them. projector, translator and evidence are the model's reports. top1_margin is in
    percentage points. Angles are in degrees; undefined numbers are None.
    """
    weak = translator["validation_r2"] < settings.min_r2
    top1, n_known, expected = projector["top1"], projector["top1_images"], entry.expected_top1
    left_out = translator["left_out"]
    classes = len(entry.kept or range(entry.head_classes))
    row: dict[str, Any] = {
        "n_images": n_images,
        "n_classes": classes,
        "null_dim": projector["null_dim"],
        "rank": projector["rank"],
        "rank_rule": projector["rule"],
        **{name: projector[name] for name in ("weight_dtype", "rank_stored", "rank_float64")},
        "seed": seed,
        **({} if scores is None else {"intervals": settings.resample}),
        "weights": entry.weights.partition(":")[0],
        "weights_id": entry.id,
        "top1": top1,
        "reported_top1": entry.reported_top1,
        "top1_low": top1 is not None
        and entry.weights != "random"
        and (
            statistics.at_chance(round(top1 * n_known), n_known, classes)
            or (
                expected is not None
                and statistics.top1_shortfall(top1, n_known, expected, top1_margin) > 0
            )
        ),
        **{name: translator[name] for name in TRANSLATOR},
        "left_out": None if left_out is None else len(left_out),
        "left_out_images": ", ".join((left_out or [])[:NAMED]),
        "translator": "weak" if weak else "not weak",
        "marks": tables.join_marks(
            {
                tables.WEAK: weak,
                tables.ZERO: evidence["known_zero"],
                tables.LEAK: evidence["known_leak"],
                tables.EDGE: translator["lambda_at_edge"],
                tables.SEEN: translator["in_sample"],
            }
        ),
        "n_evidence": evidence["n"],
        "n_per_dim": evidence["n"] / (projector["rank"] + projector["null_dim"]),
        **{name: evidence[name] for name in EVIDENCE},
    }
    if scores is not None:
        row |= {"floor_is_mean": evidence["floor_is_deg"], "floor_is_sd": evidence["floor_is_sd"]}
        row |= summarize_scores(scores, settings, seed)
    row["note"] = NO_NULL_SPACE if projector["null_dim"] == 0 else ""
    return row


def summarize_scores(scores: pd.DataFrame, settings: Summary, seed: int) -> dict[str, Any]:
    """Means of the scores of a model, and ratios; the intervals keep the translator fixed."""
    row: dict[str, Any] = {
        "max_logit_change": float(scores["logit_change"].max()),
        "null_energy_mean": float(scores["null_energy"].mean()),
    }
    angles = pd.DataFrame({name: scores[f"{name}_deg"] for name in ("is", "as")})
    angles = angles.assign(as_abs=angles["as"].abs(), as_contrast=scores["as_contrast_deg"])
    angles = angles.dropna(axis="columns")  # of a single label there is no contrast
    classes = scores["label"] if settings.resample == "classes" else None
    means, units = statistics.resampled_means(angles.to_numpy(), classes, settings.resamples, seed)
    drawn = dict(zip(angles, means.T, strict=True))

    def add(name: str, end: str, value: float, samples: np.ndarray) -> None:
        low, high = statistics.bootstrap_interval(value, samples, units, settings.confidence)
        low = max(low, 0.0) if name in NEVER_NEGATIVE else low
        row.update({name + end: value, f"{name}_low": low, f"{name}_high": high})

    for name in ("is", "as", "as_abs", "as_contrast"):
        row |= dict.fromkeys([f"{name}_mean", f"{name}_low", f"{name}_high"])
        if name in drawn:
            add(name, "_mean", float(angles[name].mean()), drawn[name])
    for name in ("is_per_as", "is_per_mean_as"):
        row |= dict.fromkeys([name, f"{name}_low", f"{name}_high"])
    if row["as_abs_mean"] > 0:
        add("is_per_as", "", row["is_mean"] / row["as_abs_mean"], drawn["is"] / drawn["as_abs"])
    if row["as_mean"]:
        # AS/IS is bounded where the mean AS may be 0, and its inverse is not.
        share = abs(row["as_mean"]) / row["is_mean"]
        shares = np.sign(row["as_mean"]) * drawn["as"] / drawn["is"]
        low, high = statistics.bootstrap_interval(share, shares, units, settings.confidence)
        row["is_per_mean_as"] = 1 / share
        if low > 0:
            row["is_per_mean_as_low"], row["is_per_mean_as_high"] = 1 / high, 1 / low
    return row


TRANSLATOR = [
    "reference", "folds", "in_sample", "lambda", "lambda_at_edge", "alpha", "validation_cosine",
    "baseline_cosine", "validation_r2", "permuted_r2", "n_train", "n_validation", "near_copies",
    "n_compared",
]  # fmt: skip
OF_ROWS = ["validation_r2", "permuted_r2", "left_out", "near_copies", "n_compared"]
NAMED, ALIKE = 3, 0.01  # images that are named; share of near copies in other folds to warn of
EVIDENCE = [
    "known_zero", "known_leak", "r2_words", "unique_r2", "unique_r2_low", "unique_r2_high",
    "margin", "p", "turn_deg", "turn_low_deg", "turn_high_deg", "detectable", "detectable_first",
    "gain", "null_r2", "blind_unique_r2",
]  # fmt: skip


def add_verdicts(rows: list[dict[str, Any]], confidence: float) -> None:
    """Add p_holm, over models that are no controls, and verdict to the rows of one space."""
    tested = [row["p"] is not None and not (row["known_zero"] or row["known_leak"]) for row in rows]
    p = np.array([np.nan if row["p"] is None else row["p"] for row in rows], dtype=np.float64)
    corrected = np.where(tested, statistics.holm(np.where(tested, p, np.nan)), p)
    for row, p_holm in zip(rows, corrected, strict=True):
        row["p_holm"] = None if np.isnan(p_holm) else float(p_holm)
        row["verdict"] = verdict(row, 1 - confidence)


def verdict(row: Mapping[str, Any], level: float) -> str:
    """Verdict on a null space, which never depends on IS; level: of the test that D > margin."""
    if not row["null_dim"]:
        return EMPTY
    if row["known_zero"]:
        return tables.ZERO
    if row["in_sample"]:
        return UNJUDGED
    if row["unique_r2_low"] is None or not explains(row):
        return UNTOLD
    if row["p_holm"] <= level:
        return FOUND if row["known_leak"] else MEANING
    if row["known_leak"]:
        return MISSED
    if row["unique_r2_low"] > RESOLUTION:
        return TRACE
    return NOTHING if (row["detectable"] or 1.0) <= MOST_LEAK else UNTOLD


def explains(row: Mapping[Any, Any]) -> bool:
    """Whether R2 of a translator is above LEAST_R2, and above that of permuted rows."""
    chance = row["permuted_r2"]
    return bool(row["validation_r2"] > max(LEAST_R2, 0.0 if pd.isna(chance) else chance))


def detected(row: Mapping[Any, Any], kind: str) -> str:
    """The smallest planted leak that is called meaning; kind: detectable or detectable_first."""
    if pd.isna(row["turn_deg"]):  # no D, or one that own words have
        return "-"
    if pd.isna(row[kind]):
        return f"more than {tables.percent(SHARES[-1])}"
    return tables.percent(row[kind])


def summarize_labels(scores: pd.DataFrame) -> pd.DataFrame:
    """Per label of one model: n, and means and deviations (divisor n) of IS, AS, |AS| and floor."""
    groups = scores.assign(as_abs_deg=scores["as_deg"].abs()).groupby("label", sort=True)
    table = pd.DataFrame({"n": groups.size()})
    for column in ("is_deg", "as_deg", "as_abs_deg"):
        table[f"{column}_mean"] = groups[column].mean()
        table[f"{column}_std"] = groups[column].std(ddof=0)
    table["floor_is_deg_mean"] = groups["floor_is_deg"].mean()
    return table.reset_index()


def controls_last(models: pd.DataFrame) -> pd.DataFrame:
    """Rows of tables/models.csv, sorted so that the controls are last."""
    return models.loc[tables.is_control(models).sort_values(kind="stable").index]


def with_own_words(models: pd.DataFrame) -> pd.DataFrame:
    """Rows of tables/models.csv, and a row of own words for each space without a known zero.

    It is the blind check with the largest D: of an embedding that the logits of a model spell.
    """
    zeros = models.loc[models["known_zero"].astype(bool), "space"]
    found = models[~models["space"].isin(zeros)].dropna(subset=["blind_unique_r2"])
    most = found.sort_values("blind_unique_r2", kind="stable").drop_duplicates("space", keep="last")
    rows = most[["space", "null_dim", "n_per_dim", "margin"]].assign(
        model=OWN_WORDS,
        unique_r2=most["blind_unique_r2"],
        verdict=tables.ZERO,
        marks=tables.ZERO,
        known_zero=True,
        known_leak=False,
        top1_low=False,
    )
    return pd.concat([models, rows], ignore_index=True) if len(rows) else models


def for_git(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with the digits that git keeps, which another processor rarely changes."""
    return {k: tables.four_digits(v) if isinstance(v, float) else v for k, v in row.items()}
