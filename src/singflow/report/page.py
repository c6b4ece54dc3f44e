"""The page of a study: its charts, its first table, and the rendered HTML."""

import base64
import importlib.resources
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from singflow.analyses.findings import GROUPED_BY, all_findings, by_size, looked_at
from singflow.analyses.summary import controls_last, detected, verdict_words
from singflow.analyses.tables import is_control, marked, with_interval
from singflow.report.sentences import blind_said, pairs_said, paper_scores, power_said

MOST_POINTS = 20_000  # limit on the image scores of a page, over all models and spaces
MOST_GROUPS = 8  # of a model, in the chart of D within groups
D, *ENDS = D_RANGE = ["unique_r2", "unique_r2_low", "unique_r2_high"]
PICTURE = {
    "dot": (D, "D, with its interval"),
    "seen": ("detectable", "smallest even leak that is called meaning"),
}
TRUST = [  # title of a chart, whether it shows shares, and its marks
    (
        "Do the controls come out as they must?",
        True,
        {
            "dot": ("blind_unique_r2", "blind check: must not pass the margin"),
            "seen": ("of_control", "D of a control"),
        },
    ),
    (
        "Which leak would have been found?",
        True,
        {
            "seen": ("detectable", "smallest leak, spread evenly"),
            "tick": ("detectable_first", "along the first direction"),
        },
    ),
    (
        "How much of IS is floor?",
        False,
        {"dot": ("is_mean", "IS"), "seen": ("floor_is_mean", "floor")},
    ),
]
FIRST = {"is_mean": ".1f", "floor_is_mean": ".1f", "turn_deg": ".0f"} | dict.fromkeys(
    ["validation_r2", "r2_words"], "z.2f"
)  # column of the first table -> format of its cells


def script_json(content: Any) -> str:
    """JSON that is safe inside a script element: it cannot end the element or open another."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.translate({ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"})


def sample(n_images: int, series: int, max_images: int, seed: int) -> np.ndarray:
    """Sorted positions of the images on the page; a sample if scores exceed MOST_POINTS."""
    most = min(max_images, max(1, MOST_POINTS // series))
    if n_images <= most:
        return np.arange(n_images)
    return np.sort(np.random.default_rng([seed, n_images]).choice(n_images, most, replace=False))


def space_part(space: str, csv: dict[str, pd.DataFrame]) -> dict[str, Any]:
    """What the page says of the models in a space."""
    names = ("models", "hidden_texts", "hidden_groups", "model_pairs")
    models, texts, groups, pairs = (csv[name][csv[name]["space"] == space] for name in names)
    models = controls_last(models)
    signed = list(map(marked, models["model"], models["marks"]))
    models = models.assign(name=signed, note=models["verdict"], control=is_control(models))
    found = all_findings(models, texts, groups)
    return {
        "name": space,
        "verdicts": [(row["name"], verdict_words(row)) for row in models.to_dict("records")],
        "picture": strips(models, PICTURE),
        "rows": evidence_rows(models),
        "pairs": pairs_said(pairs),
        "found": [(model, words) for (_, model), words in found.items() if words],
        "groups": group_charts(models, groups),
        "trust": trust_charts(models),
        "power": [*power_said(models), *blind_said(models)],
        "paper": [f"{line}." for line in paper_scores(models)],
    }


def strips(
    rows: pd.DataFrame, marks: Mapping[str, tuple[str, str]], *, shares: bool = True
) -> dict[str, Any]:
    """A chart of rows on one scale; places are percentages of its width from the left.

    rows: with columns name, note and control. marks: of every kind of mark (dot, seen or tick) its
    column and meaning; where the value is missing, there is no mark. A dot for D has its interval.
    shares: whether values are shares, drawn in percent beside the margin, or else degrees.
    """
    factor, unit = (100, " %") if shares else (1, "°")
    bars = marks.get("dot", ("",))[0] == D
    columns = [*(column for column, _ in marks.values()), *(ENDS if bars else [])]
    values = factor * rows[columns].astype(float)
    margin = factor * float(rows["margin"].iloc[0]) if shares else 0.0
    known = values.to_numpy()[values.notna()]
    bottom, top = float(known.min(initial=0.0)), float(known.max(initial=margin))
    span = 1.06 * (top - bottom) or 1.0

    def place(value: float) -> float:
        return round(3 + 94 * (value - bottom) / span, 2)

    def drawn(value: dict[Any, float]) -> dict[str, Any]:
        seen = [(kind, *of) for kind, of in marks.items() if pd.notna(value[of[0]])]
        low, high = (value[end] for end in ENDS) if bars else (np.nan, np.nan)
        ends = f" [{low:z.2f}, {high:z.2f}]" if pd.notna(low) else ""
        return {
            "bar": (place(low), round(place(high) - place(low), 2)) if ends else None,
            "marks": [(kind, place(value[column])) for kind, column, _ in reversed(seen)],
            "text": "; ".join(
                f"{words} {value[column]:z.2f}{unit}{ends if column == D else ''}"
                for _, column, words in seen
            ),
        }

    named = rows[["name", "note", "control"]].to_dict("records")
    return {
        "rows": [
            name | drawn(value)
            for name, value in zip(named, values.to_dict("records"), strict=True)
        ],
        "said": {kind: words for kind, (_, words) in marks.items()},
        "zero": place(0.0),
        "margin": (place(margin), f"{margin:g}{unit}") if shares else None,
        "ticks": [(place(tick), f"{tick:g}{unit}") for tick in round_numbers(bottom, span)],
    }


def round_numbers(bottom: float, span: float) -> list[float]:
    """About five round numbers from `bottom` on."""
    size = 10 ** math.floor(math.log10(span / 5))
    step = next(size * each for each in (1, 2, 5, 10) if span / (size * each) <= 5)
    first, last = math.ceil(bottom / step), math.floor((bottom + span) / step)
    return [float(f"{number * step:.10g}") for number in range(first, last + 1)]


def group_charts(models: pd.DataFrame, groups: pd.DataFrame) -> list[tuple[str, dict[str, Any]]]:
    """For every model that is looked at, D within the groups of images where it is largest."""
    charts = []
    for model in looked_at(models).to_dict("records"):
        rows = by_size(groups[groups["model"] == model["model"]]).head(MOST_GROUPS)
        notes = rows["by"].map(GROUPED_BY) + ", " + rows["n"].astype(str) + " images"
        rows = rows.assign(name=rows["group"], note=notes, control=False, margin=model["margin"])
        if len(rows):
            charts.append((model["name"], strips(rows, {"dot": (D, "D, with its interval")})))
    return charts


def trust_charts(models: pd.DataFrame) -> list[tuple[str, dict[str, Any]]]:
    """Small charts of what the numbers of a space rest on: controls, power, and the floor of IS."""
    rows = models.assign(note="", of_control=models[D].where(models["control"]))
    return [
        (title, strips(rows, marks, shares=shares))
        for title, shares, marks in TRUST
        if all(column in rows for column, _ in marks.values())
    ]


def evidence_rows(models: pd.DataFrame) -> list[dict[str, str]]:
    """Cells of the first table by column; - stands for a missing number."""
    return [
        {
            name: "-" if pd.isna(row[name]) else format(row[name], form)
            for name, form in FIRST.items()
            if name in row
        }
        | {
            "model": row["name"],
            "unique_r2": with_interval((100 * row[name] for name in D_RANGE), 1, " %"),
            "detectable": detected(row, "detectable"),
            "detectable_first": detected(row, "detectable_first"),
        }
        for row in models.astype(dict.fromkeys(D_RANGE, float)).to_dict("records")
    ]


def libraries() -> dict[str, str]:
    """The script of DataTables in base64, and its style."""
    folder = importlib.resources.files("itables") / "html"
    return {
        "datatables": base64.b64encode((folder / "dt_bundle.js").read_bytes()).decode(),
        "datatables_css": (folder / "dt_bundle.css").read_text(encoding="utf-8"),
    }


def render(template: Path, content: dict[str, Any]) -> str:
    """Fill in a template, with HTML escaping; a name without a value is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(template.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["script_json"] = script_json
    return environment.get_template(template.name).render(content)
