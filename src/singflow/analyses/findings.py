"""Which texts and groups of images the hidden meaning of a model is about, in words."""

import pandas as pd

from singflow.analyses.summary import FOUND, MEANING
from singflow.analyses.tables import percent

OPEN = (MEANING, FOUND)  # the verdicts with which texts and groups are looked at
OF_D = ["unique_r2", "unique_r2_low", "unique_r2_high", "p", "hidden"]
TABLES = {  # of the tables of texts and of groups, beside space and model
    "hidden_texts": ["text", "kind", "n_evidence", *OF_D],
    "hidden_groups": ["group", "by", "n", *OF_D],
}
HIDDEN, ABSENT = 3, 2  # most texts that a sentence names
MOST = 12  # texts of a list
GROUPED_BY = {"label": "label", "predicted": "predicted class", "column": "group of images"}


def looked_at(models: pd.DataFrame) -> pd.DataFrame:
    """The rows of tables/models.csv of models whose texts and groups are looked at."""
    return models[models["verdict"].isin(OPEN)]


def by_size(table: pd.DataFrame) -> pd.DataFrame:
    """Rows with an interval, the largest D first."""
    tested = table.dropna(subset=["p"])
    return tested.sort_values("unique_r2", ascending=False, kind="stable")


def findings(texts: pd.DataFrame, groups: pd.DataFrame) -> str:
    """Sentences on the texts and groups of one model; empty if they were not looked at."""
    return " ".join([*_of_texts(texts), *_of_groups(groups)])


def hidden_texts(texts: pd.DataFrame) -> list[tuple[str, float, float, float]]:
    """The hidden texts of one model with D and its interval, the largest D first."""
    rows = by_size(texts).drop_duplicates("text").astype({"hidden": bool})
    rows = rows.loc[rows["hidden"], ["text", *OF_D[:3]]].head(MOST)
    return list(rows.itertuples(index=False, name=None))


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


def _of_texts(texts: pd.DataFrame) -> list[str]:
    rows = by_size(texts).drop_duplicates("text").astype({"hidden": bool})
    if rows.empty:
        return []
    hidden, count = rows.loc[rows["hidden"], "text"], f"{len(rows):,} texts"
    if hidden.empty:
        return [f"None of {count} is hidden beyond chance."]
    more = len(hidden) - HIDDEN
    of = f" and {more:,} more of {count}" if more > 0 else f" (of {count})"
    absent = rows.loc[~rows["hidden"], "text"][: -ABSENT - 1 : -1]
    no = "" if absent.empty else f"; not found: {', '.join(absent)}"
    return [f"Hidden: {', '.join(hidden[:HIDDEN])}{of}{no}."]


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
        no = "" if absent.empty else f", and not found above the margin for {absent.iloc[-1]}"
        said.append(
            f"By {kind}, D is largest for images of {most['group']} "
            f"({percent(most['unique_r2'])}){no}."
        )
    return said
