"""Tables: CSV files that people read, and Parquet files for rows."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from singflow.artifacts.catalog import KIND_NAMES, TABLE_COLUMNS
from singflow.artifacts.files import FIX, atomic, write_bytes
from singflow.errors import InputError, in_one_line

if TYPE_CHECKING:
    import pandas as pd

BASIS = ["rank_rule", "null_dim", "validation_r2", "translator", "seed", "marks"]
TEXTS = [
    *("space", "model", "model_a", "model_b", "label", "concept", "path", "prompt", "text"),
    *("group", "note", "reason", "translator", "marks"),
]


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_bytes(path, text.getvalue().encode())


def read_table(path: Path, columns: Sequence[str] = ()) -> pd.DataFrame:
    """Read a CSV table of the study. Only empty cells are missing values; `null` is a text."""
    import pandas as pd

    with in_one_line(f"{path}: not readable as CSV", FIX):
        table = pd.read_csv(
            path, keep_default_na=False, na_values=[""], dtype=dict.fromkeys(TEXTS, str)
        )
    if missing := [column for column in columns if column not in table]:
        raise InputError(f"{path}: has no column {', '.join(missing)}: {FIX}")
    return table.fillna({"marks": ""})


def read_models(path: Path, columns: Sequence[str] = BASIS) -> pd.DataFrame:
    """Read tables/models.csv, which must have the columns space, model and `columns`."""
    return read_table(path, ["space", "model", *columns])


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV, without its index."""
    write_bytes(path, table.to_csv(index=False, lineterminator="\n").encode())


def write_parquet(path: Path, frame: pd.DataFrame, **facts: str) -> None:
    """Write a table as Parquet, without its index. pandas reads the facts as `attrs`."""
    frame.attrs |= facts
    with atomic(path) as temporary:
        frame.to_parquet(temporary, index=False)


def read_parquet(
    path: Path, kind: str | None = None, columns: Sequence[str] | None = None
) -> pd.DataFrame:
    """Read a table. The columns of a `kind`, a key of TABLE_COLUMNS, are checked if it is given."""
    import pandas as pd
    from pyarrow import parquet  # type: ignore[import-untyped]

    wanted = None
    with in_one_line(f"{path}: not readable as Parquet", FIX):
        if columns is not None:
            wanted = [name for name in parquet.read_schema(path).names if name in columns]
        frame = pd.read_parquet(path, columns=wanted)
    if kind:
        check_columns(path, frame, kind, columns)
    return frame


def check_columns(
    path: Path, frame: pd.DataFrame, kind: str, columns: Sequence[str] | None = None
) -> None:
    """Raise InputError unless the table has the columns of its kind, or those among `columns`."""
    for column, letter in TABLE_COLUMNS[kind].items():
        if columns is not None and column not in columns:
            continue
        if column not in frame or (len(frame) and frame[column].dtype.kind != letter):
            raise InputError(f"{path}: has no column {column!r} of {KIND_NAMES[letter]}: {FIX}")


def count_rows(path: Path) -> int:
    """Rows of a Parquet file; 0 if it is missing or damaged (reported where it is used)."""
    from pyarrow import ArrowException, parquet

    try:
        return int(parquet.read_metadata(path).num_rows)
    except (OSError, ArrowException):
        return 0
