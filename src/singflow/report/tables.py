"""Tables on the page of a study, and the explanations of their columns."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from singflow.config.reading import read_yaml

MOST_ROWS = 5_000  # limit on the rows of a table
# Further digits of D are rounding errors.
DECIMALS = dict.fromkeys(
    ["unique_r2", "unique_r2_low", "unique_r2_high", "blind_unique_r2", "difference"], 4
)

COLUMNS = Path(__file__).with_name("columns.yaml")


@cache
def shared_columns() -> dict[str, tuple[str, str]]:
    """Header and explanation of the columns of several tables."""
    found = {name: text.partition("; ") for name, text in read_yaml(COLUMNS).items()}
    return {name: (header, words) for name, (header, _, words) in found.items()}


@dataclass(frozen=True)
class Table:
    """A table of the page.

    own: title and explanation of columns that no other table has. total: number of rows in the
    file.
    """

    name: str
    caption: str
    columns: list[str]
    own: dict[str, tuple[str, str]]
    rows: list[list[Any]]
    total: int

    @property
    def headers(self) -> list[tuple[str, str]]:
        """Title and explanation of every column."""
        known = shared_columns() | self.own
        return [known.get(column, (column.replace("_", " "), "")) for column in self.columns]


def table(
    name: str,
    caption: str,
    frame: pd.DataFrame,
    columns: Iterable[str],
    own: dict[str, tuple[str, str]] | None = None,
    most: int = MOST_ROWS,
) -> Table:
    """A table of the page, without empty columns, and with at most `most` rows.

    The first rows of every model and space are kept, by the column `place` if there is one.
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
    return Table(name, caption, shown, own or {}, rows if shown else [], len(frame))


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
