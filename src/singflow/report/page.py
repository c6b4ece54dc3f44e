"""The page of a study: its charts, its first table, and the rendered HTML."""

import base64
import importlib.resources
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from singflow.analyses.findings import KINDS, all_findings, by_size, looked_at
from singflow.analyses.ranking import render_orders
from singflow.analyses.summary import controls_last, detected, paper_scores, verdict_words
from singflow.analyses.tables import is_control, marked, with_interval
from singflow.report.words import blind_said, learning_said, pairs_said, power_said

MOST_POINTS = 20_000  # limit on the image scores of a page, over all models and spaces
MOST_GROUPS = 8  # of a model, in the chart of D within groups
D_RANGE = ["unique_r2", "unique_r2_low", "unique_r2_high"]
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
    names = ("models", "hidden_texts", "hidden_groups", "model_pairs", "orders", "rank_curves")
    models, texts, groups, pairs, orders, curves = (
        csv[name][csv[name]["space"] == space] for name in names
    )
    models = controls_last(models)
    found = all_findings(models, texts, groups)
    ordered = render_orders(orders, csv["order_agreement"]).splitlines()
    return {
        "name": space,
        "verdicts": [
            (marked(row["model"], row["marks"]), verdict_words(row))
            for row in models.to_dict("records")
        ],
        "picture": evidence_picture(models),
        "rows": evidence_rows(models),
        "pairs": pairs_said(pairs),
        "found": [(model, words) for (_, model), words in found.items() if words],
        "groups": group_charts(models, groups),
        "trust": trust_charts(models, curves),
        "power": [*power_said(models), *learning_said(models), *blind_said(models)],
        "paper": [f"{line.strip()}." for line in (paper_scores(models), *ordered)],
    }


def strips(
    rows: Iterable[dict[str, Any]],
    said: dict[str, str],
    *,
    unit: str = " %",
    margin: float | None = None,
) -> dict[str, Any]:
    """A chart of rows on one scale; places are percentages of its width from the left.

    A row has a name, a value for every kind of mark in `said` (dot, seen or tick), and perhaps a
    note, the ends of a bar, and whether it is a control. Missing values have no mark. `said`: what
    a mark of each kind means.
    """
    rows = [{"note": "", "control": False, "bar": (math.nan, math.nan)} | row for row in rows]
    known = [value for row in rows for value in (*(row[kind] for kind in said), *row["bar"])]
    known = [0.0, *([] if margin is None else [margin]), *(v for v in known if pd.notna(v))]
    bottom, top = min(known), max(known)
    span = 1.06 * (top - bottom) or 1.0

    def place(value: float) -> float:
        return round(3 + 94 * (value - bottom) / span, 2)

    def drawn(row: dict[str, Any]) -> dict[str, Any]:
        low, high = row["bar"]
        ends = f" [{low:z.2f}, {high:z.2f}]" if pd.notna(low) else ""
        marks = {kind: row[kind] for kind in said if pd.notna(row[kind])}
        return {
            **{name: row[name] for name in ("name", "note", "control")},
            "bar": (place(low), round(place(high) - place(low), 2)) if ends else None,
            "marks": sorted(
                ((kind, place(value)) for kind, value in marks.items()), reverse=True
            ),  # the dot above all others
            "text": "; ".join(
                f"{said[kind]} {value:z.2f}{unit}{ends if kind == 'dot' else ''}"
                for kind, value in marks.items()
            ),
        }

    return {
        "rows": [drawn(row) for row in rows],
        "said": said,
        "zero": place(0.0),
        "margin": None if margin is None else (place(margin), f"{margin:g}{unit}"),
        "ticks": [(place(tick), f"{tick:g}{unit}") for tick in round_numbers(bottom, span)],
    }


def round_numbers(bottom: float, span: float) -> list[float]:
    """About five round numbers from `bottom` on."""
    size = 10 ** math.floor(math.log10(span / 5))
    step = next(size * each for each in (1, 2, 5, 10) if span / (size * each) <= 5)
    first, last = math.ceil(bottom / step), math.floor((bottom + span) / step)
    return [float(f"{number * step:.10g}") for number in range(first, last + 1)]


def evidence_picture(models: pd.DataFrame) -> dict[str, Any]:
    """Chart of D with its interval, the margin and the smallest even leak that is detectable."""
    shares = 100 * models[[*D_RANGE, "detectable", "margin"]].astype(float)
    rows = [
        each | {"note": verdict, "dot": d, "bar": (low, high), "seen": seen}
        for each, verdict, (d, low, high, seen, _) in zip(
            _named(models), models["verdict"], shares.to_numpy(), strict=True
        )
    ]
    said = {"dot": "D, with its interval", "seen": "smallest even leak that is called meaning"}
    return strips(rows, said, margin=float(shares["margin"].iloc[0]))


def group_charts(models: pd.DataFrame, groups: pd.DataFrame) -> list[tuple[str, dict[str, Any]]]:
    """For every model that is looked at, D within the groups of images where it is largest."""
    charts = []
    for model in looked_at(models).to_dict("records"):
        largest = by_size(groups[groups["model"] == model["model"]]).head(MOST_GROUPS)
        rows = [
            {
                "name": row["group"],
                "note": f"{KINDS[row['by']]}, {row['n']} images",
                "dot": 100 * row["unique_r2"],
                "bar": (100 * row["unique_r2_low"], 100 * row["unique_r2_high"]),
            }
            for row in largest.to_dict("records")
        ]
        if rows:
            chart = strips(rows, {"dot": "D, with its interval"}, margin=100 * model["margin"])
            charts.append((marked(model["model"], model["marks"]), chart))
    return charts


def trust_charts(models: pd.DataFrame, curves: pd.DataFrame) -> list[tuple[str, dict[str, Any]]]:
    """Small charts of what the numbers of a space rest on: controls, floor, power and rank."""
    blind, d, even, first = (
        100 * models[name].astype(float)
        for name in ("blind_unique_r2", "unique_r2", "detectable", "detectable_first")
    )
    margin = 100 * float(models["margin"].iloc[0])
    rules = curves.pivot_table(index="model", columns="point", values="is_mean_deg", sort=False)
    by_rule = rules.reindex(models["model"], columns=["exact", "centered", "energy"])

    def chart(said: dict[str, str], *values: Iterable[float], **more: Any) -> dict[str, Any]:
        marks = (dict(zip(said, each, strict=True)) for each in zip(*values, strict=True))
        return strips(
            [name | of for name, of in zip(_named(models), marks, strict=True)], said, **more
        )

    return [
        (
            "Do the controls come out as they must?",
            chart(
                {"dot": "blind check: must not pass the margin", "seen": "D of a control"},
                blind,
                d.where(is_control(models)),
                margin=margin,
            ),
        ),
        (
            "Which leak would have been found?",
            chart(
                {"seen": "smallest leak, spread evenly", "tick": "along the first direction"},
                even,
                first,
                margin=margin,
            ),
        ),
        (
            "How much of IS is floor?",
            chart(
                {"dot": "IS", "seen": "floor", "tick": "random subspaces of the same size"},
                models["is_mean"],
                models["floor_is_mean"],
                models["control_is_mean"],
                unit="°",
            ),
        ),
        (
            "Does IS depend on the rule for the rank?",
            chart(
                {"dot": "rule exact", "seen": "centered", "tick": "energy"},
                *(by_rule[rule] for rule in by_rule),
                unit="°",
            ),
        ),
    ]


def _named(models: pd.DataFrame) -> list[dict[str, Any]]:
    names = map(marked, models["model"], models["marks"])
    return [
        {"name": name, "control": control}
        for name, control in zip(names, is_control(models), strict=True)
    ]


def evidence_rows(models: pd.DataFrame) -> list[dict[str, str]]:
    """Cells of the first table by column; - stands for a missing number."""
    return [
        {
            name: "-" if pd.isna(row[name]) else format(row[name], form)
            for name, form in FIRST.items()
        }
        | {
            "model": marked(row["model"], row["marks"]),
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
