"""The page of a study: its first tables, and the rendered HTML."""

import base64
import importlib.resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from singflow.analyses.findings import all_findings
from singflow.analyses.summary import controls_last, detected
from singflow.analyses.tables import marked, with_interval
from singflow.report.sentences import blind_said, number, pairs_said, paper_scores, power_said

MOST_POINTS = 20_000  # limit on the image scores of a page, over all models and spaces


def sample(n_images: int, series: int, max_images: int, seed: int) -> np.ndarray:
    """Sorted positions of the images on the page; a sample if scores exceed MOST_POINTS."""
    most = min(max_images, max(1, MOST_POINTS // series))
    if n_images <= most:
        return np.arange(n_images)
    return np.sort(np.random.default_rng([seed, n_images]).choice(n_images, most, replace=False))


def space_part(space: str, csv: dict[str, pd.DataFrame], shown: pd.DataFrame) -> dict[str, Any]:
    """What the page says of the models in a space; shown: rows of models in tables of numbers."""
    names = ("models", "hidden_texts", "hidden_groups", "model_pairs")
    models, texts, groups, pairs = (csv[name][csv[name]["space"] == space] for name in names)
    models, rows = map(controls_last, (models, shown[shown["space"] == space]))
    rows = rows.assign(name=list(map(marked, rows["model"], rows["marks"])))
    found = all_findings(models, texts, groups)
    return {
        "name": space,
        "rows": [evidence_row(row) for row in rows.to_dict("records")],
        "pairs": pairs_said(pairs),
        "found": [(model, words) for (_, model), words in found.items() if words],
        "power": [*power_said(models), *blind_said(models)],
        "paper": [f"{line}." for line in paper_scores(models)],
    }


def evidence_row(row: dict[Any, Any]) -> dict[str, str]:
    """Cells of the tables of numbers by column; - stands for a missing number."""
    even, first = (detected(row, name) for name in ("detectable", "detectable_first"))
    d, blind = (
        [100 * row[name] for name in names if pd.notna(row[name])]
        for names in (["unique_r2", "unique_r2_low", "unique_r2_high"], ["blind_unique_r2"])
    )
    r2, words = (number(row[name], 2) for name in ("validation_r2", "r2_words"))
    cells = {
        "model": row["name"],
        "d": with_interval(d, 1, " %"),
        "turn": "-" if pd.isna(row["turn_deg"]) else f"{row['turn_deg']:.0f}°",
        "detectable": even if even == "-" else f"{even} ({first})",
        "r2": r2 if r2 == "-" else f"{r2} ({words})",
        "blind": with_interval(blind, 2, " %"),
    }
    if "is_mean" in row:
        score, floor = (number(row[name], 1) for name in ("is_mean", "floor_is_mean"))
        cells["is"] = score if score == "-" else f"{score}° ({floor}°)"
    return cells


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
    compact = {"ensure_ascii": False, "allow_nan": False, "separators": (",", ":")}
    environment.policies["json.dumps_kwargs"] = compact
    return environment.get_template(template.name).render(content)
