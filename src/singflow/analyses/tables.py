"""Columns and marks that tell, in tables for readers, what the numbers of a row rest on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from singflow.artifacts.tables import BASIS

WEAK, ZERO, LEAK = "weak translator", "known zero", "known leak"
EDGE, SEEN = "penalty at the edge", "in sample"
# A mark in the column marks of a table, and its sign beside the name of the model in running text.
MARKS = {WEAK: "*", ZERO: "~", LEAK: "+", EDGE: "^", SEEN: "#"}


def four_digits(value: float) -> float:
    """A number with four significant digits, as tables for readers and git have it."""
    return float(f"{value:.4g}") + 0.0  # no -0.0


def percent(share: float) -> str:
    """A share in percent with two digits, as in `5.9 %`."""
    return f"{float(f'{100 * share:.2g}'):g} %"


def with_interval(numbers: Iterable[float], digits: int, unit: str = "") -> str:
    """A number and the ends of its interval, if it has one, as in `0.054 [0.046, 0.061]`.

    Where the digits show none of them, the text says so: `below 0.0005`. It is a dash if the number
    is missing.
    """
    known = [number for number in numbers if pd.notna(number)]
    least = 0.5 * 10.0**-digits
    if not known:
        return "-"
    if max(map(abs, known)) < least:
        return f"below {least:g}{unit}"
    value, *ends = known
    said = f" [{', '.join(f'{end:z.{digits}f}' for end in ends)}]" if ends else ""
    return f"{value:z.{digits}f}{unit}{said}"


def is_control(models: pd.DataFrame) -> pd.Series:
    """Which rows of tables/models.csv are controls: known zero or known leak."""
    return models["known_zero"].astype(bool) | models["known_leak"].astype(bool)


def joined(names: Iterable[str]) -> str:
    """Names in a sentence, as in `a, b and c`."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def join_marks(holds: dict[str, bool]) -> str:
    """Text of the column marks: the marks that hold, in the order of MARKS, joined by commas."""
    return ", ".join(name for name in MARKS if holds.get(name))


def union_of_marks(*marks: str) -> str:
    """Union of several texts of the column marks."""
    return join_marks({name: True for mine in marks for name in mine.split(", ")})


def marked(model: str, marks: str) -> str:
    """Name of a model with the signs of its marks, as in `resnet50*`."""
    return model + "".join(MARKS[name] for name in marks.split(", ") if name)


def legend(marks: Iterable[str]) -> str:
    """Meaning of the signs of these marks, as in `*: weak translator`; empty without marks."""
    found = union_of_marks(*marks)
    return "; ".join(f"{MARKS[name]}: {name}" for name in found.split(", ") if name)


def as_in_paper(models: pd.DataFrame, class_index: pd.Series, paper: dict[str, Any]) -> pd.Series:
    """Which models have the paper's space, labels and weights, so that its numbers are comparable.

    class_index has the class of every image of the study; `paper` is the content of
    report/paper.yaml.
    """
    weights = {name: entry["weights"] for name, entry in paper["models"].items()}
    same = models["model"].map(weights) == models["weights_id"]
    everything = set(class_index) == set(range(paper["classes"]))
    return same & (models["weights"] == "hub") & (models["space"] == paper["space"]) & everything


def qualify(table: pd.DataFrame, models: pd.DataFrame) -> pd.DataFrame:
    """Add to rows of a model what their numbers rest on: rank_rule, null_dim and seed.

    If the table has a column space, add also the translator's held-out R2 (validation_r2), whether
    it is called weak (translator), and the marks.
    """
    keys, basis = ["model"], models[["space", "model", *BASIS]]
    if "space" in table:
        keys = ["space", "model"]
    else:
        basis = basis.drop(columns=["space", "validation_r2", "translator", "marks"])
        basis = basis.drop_duplicates("model")
    return table.merge(basis, on=keys, how="left", validate="many_to_one")


def qualify_pairs(table: pd.DataFrame, models: pd.DataFrame) -> pd.DataFrame:
    """Add to rows of two models what their numbers rest on; the weaker translator counts.

    Added are rank_rule, validation_r2 and translator of the lower R2, seed, and the marks of both
    models.
    """
    basis = models.set_index(["space", "model"])[BASIS]
    a, b = (
        basis.loc[pd.MultiIndex.from_frame(table[["space", name]])].reset_index(drop=True)
        for name in ("model_a", "model_b")
    )
    weaker = a.where(a["validation_r2"] <= b["validation_r2"], b)
    weaker["marks"] = [union_of_marks(*both) for both in zip(a["marks"], b["marks"], strict=True)]
    return pd.concat([table.reset_index(drop=True), weaker.drop(columns="null_dim")], axis=1)
