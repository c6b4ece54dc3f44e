"""Tables that people read: every row says what it rests on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from singflow.artifacts.tables import BASIS

if TYPE_CHECKING:
    import pandas as pd

WEAK, ZERO, LEAK, EDGE, SEEN = (
    "weak translator",
    "known zero",
    "known leak",
    "penalty at the edge",
    "in sample",
)
MARKS = {
    WEAK: "*",
    ZERO: "~",
    LEAK: "+",
    EDGE: "^",
    SEEN: "#",
}  # what a model carries in words, and beside its name in running text


def is_control(models: pd.DataFrame) -> pd.Series:
    """Which models are a control, known zero or known leak: they stand in no order and no pair.

    Parameters
    ----------
    models : DataFrame
        tables/models.csv.

    Returns
    -------
    Series of bool
        For every row of the models.
    """
    return models["known_zero"].astype(bool) | models["known_leak"].astype(bool)


def mark(holds: dict[str, bool]) -> str:
    """The marks of a model, as the column marks of the tables has them.

    Parameters
    ----------
    holds : dict of bool
        Whether it has a mark, by mark.

    Returns
    -------
    str
        In the order of MARKS with commas between; empty for none.
    """
    return ", ".join(each for each in MARKS if holds.get(each))


def together(*marks: str) -> str:
    """The marks of several models, each once.

    Parameters
    ----------
    *marks : str
        Marks of each, as in the column marks of the tables; empty for none.

    Returns
    -------
    str
        In the same form.
    """
    return mark({each: True for mine in marks for each in mine.split(", ")})


def marked(model: str, marks: str) -> str:
    """A model's name with its marks, for text.

    Parameters
    ----------
    model : str
        Name of the model.
    marks : str
        As in the column marks of the tables.

    Returns
    -------
    str
        As in `resnet50*`.
    """
    return model + "".join(MARKS[each] for each in marks.split(", ") if each)


def legend(marks: Iterable[str]) -> str:
    """What the signs beside names in a text mean.

    Parameters
    ----------
    marks : iterable of str
        Marks of the models in the text.

    Returns
    -------
    str
        As in `*: weak translator`; empty where no model has a mark.
    """
    found = together(*marks)
    return "; ".join(f"{MARKS[each]}: {each}" for each in found.split(", ") if each)


def as_in_paper(models: pd.DataFrame, class_index: pd.Series, paper: dict[str, Any]) -> pd.Series:
    """Where the paper's numbers may stand beside ours: space, labels and weights are the paper's.

    Parameters
    ----------
    models : DataFrame
        tables/models.csv.
    class_index : Series
        Of every image of the study.
    paper : dict
        What report/paper.yaml holds.

    Returns
    -------
    Series of bool
        For every row of the models.
    """
    same = (
        models["model"].map({name: each["weights"] for name, each in paper["models"].items()})
        == models["weights_id"]
    )
    everything = set(class_index) == set(range(paper["classes"]))
    return same & (models["weights"] == "hub") & (models["space"] == paper["space"]) & everything


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
        The rows with rank_rule, null_dim and seed, and with a space also the translator's held-out R2 (validation_r2), whether
        it is called weak (translator), and the model's marks.
    """
    if "space" in table:
        return table.merge(
            models[["space", "model", *BASIS]],
            on=["space", "model"],
            how="left",
            validate="many_to_one",
        )
    basis = (
        models[["model", *BASIS]]
        .drop(columns=["validation_r2", "translator", "marks"])
        .drop_duplicates("model")
    )
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
        The rows with rank_rule, validation_r2 (the lower one), translator (weak when one of them is), seed, and the marks of both.
    """
    import pandas as pd

    basis = models.set_index(["space", "model"])[BASIS]
    a, b = (
        basis.loc[pd.MultiIndex.from_frame(table[["space", name]])].reset_index(drop=True)
        for name in ("model_a", "model_b")
    )
    weaker = a.where(a["validation_r2"] <= b["validation_r2"], b)
    weaker["marks"] = [together(*both) for both in zip(a["marks"], b["marks"], strict=True)]
    return pd.concat([table.reset_index(drop=True), weaker.drop(columns="null_dim")], axis=1)
