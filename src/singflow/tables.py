"""Tables that people read: every row says what it rests on."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from singflow.errors import InputError
from singflow.store import MEND, write_bytes

TEXTS = ["space", "model", "model_a", "model_b", "label", "concept", "path", "prompt", "text", "note", "reason", "translator"]
BASIS = ["rank_rule", "null_dim", "validation_r2", "translator", "seed"]


def read_table(path: Path, columns: Sequence[str] = ()) -> pd.DataFrame:
    """A table of the study: labels and other texts are what they are, whether they look like numbers or like nothing.

    Raises InputError that names the file when it cannot be read or lacks one of the columns.
    """
    try:
        table = pd.read_csv(path, keep_default_na=False, na_values=[""], dtype=dict.fromkeys(TEXTS, str))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as CSV ({error}): {MEND}") from None
    if missing := [column for column in columns if column not in table]:
        raise InputError(f"{path}: has no column {', '.join(missing)}: {MEND}")
    return table


def read_models(path: Path, columns: Sequence[str] = BASIS) -> pd.DataFrame:
    """tables/models.csv; raises InputError as read_table does. columns: those that it must have besides space and model."""
    return read_table(path, ["space", "model", *columns])


def qualify(table: pd.DataFrame, models: pd.DataFrame) -> pd.DataFrame:
    """Add to rows of a model (and space, where the table has spaces) what their numbers rest on.

    models: tables/models.csv. Added are rank_rule, null_dim and seed, and with a space the translator's held-out R2 and
    whether it is called weak.
    """
    if "space" in table:
        return table.merge(models[["space", "model", *BASIS]], on=["space", "model"], how="left", validate="many_to_one")
    basis = models[["model", *BASIS]].drop(columns=["validation_r2", "translator"]).drop_duplicates("model")
    return table.merge(basis, on="model", how="left", validate="many_to_one")


def qualify_pairs(table: pd.DataFrame, models: pd.DataFrame) -> pd.DataFrame:
    """Add to rows of two models of a space (model_a, model_b) what they rest on: the weaker translator speaks for both.

    models: tables/models.csv. Added are rank_rule, validation_r2 (the lower one), translator (weak when one of them is) and seed.
    """
    basis = models.set_index(["space", "model"])[BASIS]
    a, b = (basis.loc[pd.MultiIndex.from_frame(table[["space", name]])].reset_index(drop=True) for name in ("model_a", "model_b"))
    weaker = a.where(a["validation_r2"] <= b["validation_r2"], b)
    return pd.concat([table.reset_index(drop=True), weaker.drop(columns="null_dim")], axis=1)


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV, whole."""
    write_bytes(path, table.to_csv(index=False, lineterminator="\n").encode())
