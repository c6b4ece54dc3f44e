"""Tables on the page of a study."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from singflow.analyses.tables import four_digits

MOST_ROWS = 5_000  # limit on the rows of a table


def table(
    name: str,
    title: str,
    frame: pd.DataFrame,
    columns: Iterable[str],
    words: Mapping[str, str],
    most: int = MOST_ROWS,
) -> dict[str, Any]:
    """A table for the page's JSON, without empty columns, and with at most `most` rows.

    words: `<header>; <explanation>` of columns. The first rows of every model and space are kept,
    by the column `place` if there is one; `about` says so.
    """
    kept = frame if len(frame) <= most else _first_rows(frame.reset_index(drop=True), most)
    shown = [
        column
        for column in columns
        if column in frame and (frame[column].notna() & (frame[column] != "")).any()
    ]
    rows = [
        [_plain(value) for value in row] for row in kept[shown].itertuples(index=False, name=None)
    ]
    said = [words.get(column, column.replace("_", " ")).partition("; ") for column in shown]
    return {
        "title": title,
        "about": _cut(name, shown, len(kept), len(frame)) if len(kept) < len(frame) else "",
        "columns": shown,
        "headers": [(header, explanation) for header, _, explanation in said],
        "rows": rows if shown else [],
    }


def _cut(name: str, columns: list[str], kept: int, total: int) -> str:
    said = f"{kept:,} of {total:,} rows"
    said += ", as many of every model" if "model" in columns else ""
    if name == "hidden_texts":
        said += ", those with the largest D"
    elif "place" in columns:
        said += ", those of the first places"
    folder = "data" if name == "rejected" else "tables"
    return f"{said}; all are in the results folder, {folder}/{name}.csv."


def _first_rows(frame: pd.DataFrame, most: int) -> pd.DataFrame:
    first = frame.sort_values("place", kind="stable") if "place" in frame else frame
    series = [column for column in ("space", "model") if column in frame]
    if series:
        groups = first.groupby(series, sort=False)
        first = groups.head(max(1, most // groups.ngroups))
    return first.head(most).sort_index()


def _plain(value: Any) -> Any:
    if pd.isna(value):
        return ""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, float | np.floating):
        return four_digits(float(value))
    return value.item() if isinstance(value, np.generic) else value
