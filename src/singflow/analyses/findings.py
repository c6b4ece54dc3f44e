"""The decision on each model in one sentence, and what its hidden meaning is about."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from singflow.analyses.power import images_needed
from singflow.analyses.summary import (
    EMPTY,
    FOUND,
    MEANING,
    MISSED,
    MOST_LEAK,
    NOTHING,
    TRACE,
    UNJUDGED,
    UNTOLD,
    detected,
    explains,
)
from singflow.analyses.tables import ZERO, joined, marked, percent

Said = list[tuple[str, str]]

OPEN = (MEANING, FOUND)  # the verdicts with which texts and groups are looked at
OF_D = ["unique_r2", "unique_r2_low", "unique_r2_high", "p", "hidden"]
TABLES = {  # of the tables of texts and of groups, beside space and model
    "hidden_texts": ["text", "kind", "n_evidence", *OF_D],
    "hidden_groups": ["group", "by", "n", *OF_D],
}
HIDDEN, ABSENT = 3, 2  # most texts that a sentence names
ENOUGH = 200  # images from which the order of the rows is doubted
HIDES = "A leak in few classes, or along directions of little variance, can hide from this test."
GROUPED_BY = {"label": "label", "predicted": "predicted class", "column": "group of images"}


def looked_at(models: pd.DataFrame) -> pd.DataFrame:
    """The rows of tables/models.csv of models whose texts and groups are looked at."""
    return models[models["verdict"].isin(OPEN)]


def by_size(table: pd.DataFrame) -> pd.DataFrame:
    """Rows with an interval, the largest D first."""
    tested = table.dropna(subset=["p"])
    return tested.sort_values("unique_r2", ascending=False, kind="stable")


def decisions(models: pd.DataFrame, texts: pd.DataFrame) -> tuple[Said, Said]:
    """Name and decision of each model, and of each control."""
    said: tuple[Said, Said] = [], []
    for row in models.to_dict("records"):
        space, model = row["space"], row["model"]
        mine = texts[(texts["space"] == space) & (texts["model"] == model)]
        name = marked(model, row["marks"]) + f" in {space}" * (models["space"].nunique() > 1)
        said[bool(row["known_zero"] or row["known_leak"])].append((name, decision(row, mine)))
    return said


def decision(row: Mapping[Any, Any], texts: pd.DataFrame | None = None) -> str:
    """Features or logits: a sentence on a model, without its name; texts: those tested with it."""
    verdict, d, margin = row["verdict"], row["unique_r2"], row["margin"]
    if verdict == UNTOLD:
        return _untold(row)
    if verdict in (MEANING, TRACE) and (row["blind_unique_r2"] or 0) > margin:
        return (
            "no clear reason to keep the features: the blind check exceeds the margin, so "
            "imperfect words may explain what is found"
        )
    if verdict in OPEN:
        known = "known leak, found as it should be" if verdict == FOUND else "keep the features"
        return f"{known}: its head drops {_dropped(row)} of the meaning{_first(texts)}"
    if verdict == NOTHING:
        return (
            f"no reason to keep the features: {_n(row):,} images show nothing in its null space "
            f"(a leak of {detected(row, 'detectable')}, spread evenly, would show)"
        )
    size, zero = percent(d or 0.0), "nothing found, as it should be"
    if pd.isna(d) or d > margin:
        zero = "not tested" if pd.isna(d) else f"but D is {size}"
    said = {
        EMPTY: "logits and features hold the same: the head has no null space",
        UNJUDGED: "no answer: the translator has seen the images that it translates",
        ZERO: f"known zero, {zero}: the embeddings are made from its logits",
        TRACE: f"no clear reason to keep the features: its null space adds a trace, {size} of the "
        f"meaning, not surely more than the margin of {percent(margin)}",
        MISSED: "known leak, missed: its head lacks few classes, or the test misses what is there",
    }
    return said[verdict]


def _n(row: Mapping[Any, Any]) -> int:
    return int(row["n_evidence"] if "n_evidence" in row else row["n"])


def _dropped(row: Mapping[Any, Any]) -> str:
    """The share that the test allows; D is a lower bound where a planted leak exceeds its D."""
    if not row["gain"] < 1:
        return f"about {percent(row['unique_r2'])}"
    return f"at least {100 * max(row['unique_r2_low'], row['margin']):.1f} %"


def _first(texts: pd.DataFrame | None) -> str:
    """The most hidden texts; empty if none is hidden."""
    if texts is None or not (hidden := _hidden(texts)).any():
        return ""
    named = joined(hidden.index[hidden][:HIDDEN])
    return f", {named} first ({hidden.sum():,} of {len(hidden):,} texts are hidden)"


def _untold(row: Mapping[Any, Any]) -> str:
    """Why a study cannot tell, and what to do."""
    n, blind = _n(row), not explains(row)
    if blind and n >= ENOUGH:
        kind = ", and are the images of the reference's kind" * pd.isna(row["near_copies"])
        return (
            f"cannot tell: the translator explains nothing (R2 {row['validation_r2']:.3f}). Are "
            f"features and embeddings in the same order{kind}?"
        )
    found = None if blind or pd.isna(row["unique_r2_low"]) else row["detectable"]
    rank = row["rank"] if "rank" in row else row["principal_dim"]
    needed = images_needed(n, int(rank + row["null_dim"]), MOST_LEAK, found)
    return f"too few images to tell: {n:,} where about {needed:,} would show {percent(MOST_LEAK)}"


def findings(texts: pd.DataFrame, groups: pd.DataFrame) -> str:
    """What the decision does not say of the texts and groups of one model, in sentences."""
    return " ".join([*_of_texts(texts), *_of_groups(groups)])


def all_findings(
    models: pd.DataFrame, texts: pd.DataFrame, groups: pd.DataFrame
) -> dict[tuple[str, str], str]:
    """The findings of each model that is looked at, by space and model."""
    found = {}
    for row in looked_at(models).to_dict("records"):
        space, model = row["space"], row["model"]
        of_texts, of_groups = (
            of[(of["space"] == space) & (of["model"] == model)] for of in (texts, groups)
        )
        found[space, model] = findings(of_texts, of_groups)
    return found


def _hidden(texts: pd.DataFrame) -> pd.Series:
    """Whether each text is hidden, by text, the largest D first."""
    rows = by_size(texts).drop_duplicates("text")
    return rows.set_index("text")["hidden"].astype(bool)


def _of_texts(texts: pd.DataFrame) -> list[str]:
    hidden = _hidden(texts)
    if hidden.empty:
        return []
    absent = hidden.index[~hidden]
    if len(absent) in (0, len(hidden)):
        return ["No text is hidden." if len(absent) else "Every text is hidden."]
    return [f"Not shown to be hidden: {joined(absent[: -ABSENT - 1 : -1])}."]


def _of_groups(groups: pd.DataFrame) -> list[str]:
    said, tested = [], by_size(groups).astype({"hidden": bool})
    for by, kind in GROUPED_BY.items():
        rows = tested[tested["by"] == by]
        if rows.empty:
            continue
        if not rows["hidden"].any():
            said.append(f"D is above the margin in no {kind} (of {len(rows)}) beyond chance.")
            continue
        most = rows[rows["hidden"]].iloc[0]
        absent = rows.loc[~rows["hidden"], "group"]
        no = "" if absent.empty else f", and within the margin for {absent.iloc[-1]}"
        said.append(
            f"By {kind}, D is largest for images of {most['group']} "
            f"({percent(most['unique_r2'])}){no}."
        )
    return said
