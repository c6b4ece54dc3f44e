"""Tables on the page of a study."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

MOST_ROWS = 5_000  # limit on the rows of a table
# Further digits of D are rounding errors.
DECIMALS = dict.fromkeys(
    ["unique_r2", "unique_r2_low", "unique_r2_high", "blind_unique_r2", "difference"], 4
)


@dataclass(frozen=True)
class Table:
    """A table of the page: header and explanation of every column, rows, and rows of the file."""

    name: str
    title: str
    columns: list[str]
    headers: list[tuple[str, str]]
    rows: list[list[Any]]
    total: int


def table(
    name: str,
    title: str,
    frame: pd.DataFrame,
    columns: Iterable[str],
    words: Mapping[str, str],
    most: int = MOST_ROWS,
) -> Table:
    """A table of the page, without empty columns, and with at most `most` rows.

    words: `<header>; <explanation>` of columns. The first rows of every model and space are kept,
    by the column `place` if there is one.
    """
    kept = frame if len(frame) <= most else _first_rows(frame.reset_index(drop=True), most)
    kept = kept.round(DECIMALS)
    shown = [
        column
        for column in columns
        if column in frame and (frame[column].notna() & (frame[column] != "")).any()
    ]
    rows = [
        [_plain(value) for value in row] for row in kept[shown].itertuples(index=False, name=None)
    ]
    said = [words.get(column, column.replace("_", " ")).partition("; ") for column in shown]
    headers = [(header, explanation) for header, _, explanation in said]
    return Table(name, title, shown, headers, rows if shown else [], len(frame))


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
        return float(f"{value:.4g}")
    return value.item() if isinstance(value, np.generic) else value
