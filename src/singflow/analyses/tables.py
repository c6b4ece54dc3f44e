"""Tables that people read: every row says what it rests on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from singflow.artifacts.tables import BASIS

if TYPE_CHECKING:
    import pandas as pd


def qualify(table: pd.DataFrame, models: pd.DataFrame) -> pd.DataFrame:
    """Add to rows of a model (and space, where the table has spaces) what their numbers rest on.

    Parameters
    ----------
    table : DataFrame
        Rows with a column model and, where they differ by space, a column space.
    models : DataFrame
        tables/models.csv.

    Returns
    -------
    DataFrame
        The rows with rank_rule, null_dim and seed, and with a space also the translator's held-out R2 (validation_r2) and whether
        it is called weak (translator).
    """
    if "space" in table:
        return table.merge(models[["space", "model", *BASIS]], on=["space", "model"], how="left", validate="many_to_one")
    basis = models[["model", *BASIS]].drop(columns=["validation_r2", "translator"]).drop_duplicates("model")
    return table.merge(basis, on="model", how="left", validate="many_to_one")


def qualify_pairs(table: pd.DataFrame, models: pd.DataFrame) -> pd.DataFrame:
    """Add to rows of two models of a space what they rest on: the weaker translator speaks for both.

    Parameters
    ----------
    table : DataFrame
        Rows with columns space, model_a and model_b.
    models : DataFrame
        tables/models.csv.

    Returns
    -------
    DataFrame
        The rows with rank_rule, validation_r2 (the lower one), translator (weak when one of them is) and seed.
    """
    import pandas as pd

    basis = models.set_index(["space", "model"])[BASIS]
    a, b = (basis.loc[pd.MultiIndex.from_frame(table[["space", name]])].reset_index(drop=True) for name in ("model_a", "model_b"))
    weaker = a.where(a["validation_r2"] <= b["validation_r2"], b)
    return pd.concat([table.reset_index(drop=True), weaker.drop(columns="null_dim")], axis=1)
