"""The page of a study: its charts, its first table, and the rendered HTML."""

import base64
import html
import importlib.resources
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from singflow.analyses.summary import controls_last, detected, per_dimension
from singflow.analyses.tables import marked, with_interval
from singflow.report.tables import table
from singflow.report.words import below_the_table, verdicts

SYMBOLS = ["circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x", "star"]
MOST_POINTS = 20_000  # limit on the image scores of a page, over all models and spaces


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


def looks_of(models: list[str]) -> dict[str, dict[str, str]]:
    """Colour and symbol of each model in the charts of the page."""
    from singflow.figures.style import colour

    return {
        model: {
            "color": colour(number).replace("#000000", "#808080"),  # black: not on a dark page
            "symbol": SYMBOLS[number % len(SYMBOLS)],
        }
        for number, model in enumerate(models)
    }


def space_part(
    space: str,
    csv: dict[str, pd.DataFrame],
    scores: dict[str, pd.DataFrame],
    looks: dict[str, dict[str, str]],
) -> dict[str, Any]:
    """What the page says of the models in a space; scores: of the images on the page, by model."""
    names = ("models", "hidden_texts", "hidden_groups", "model_pairs", "orders")
    models, texts, groups, pairs, orders = (
        csv[name][csv[name]["space"] == space] for name in names
    )
    return {
        "name": space,
        "verdicts": verdicts(models, texts, groups),
        "picture": evidence_picture(models),
        "rows": evidence_rows(models),
        "table": table(f"verdicts-{space}", "", models, [*VERDICTS, *BESIDE]),
        "below": below_the_table(models, pairs, orders, csv["order_agreement"]),
        "scatter": scatter_chart(scores, models, looks),
    }


def evidence_picture(models: pd.DataFrame) -> dict[str, Any]:
    """Chart of D with its interval, the margin and the smallest even leak that is detectable.

    Positions are percentages of the width from the left; None if unknown.
    """
    from matplotlib.ticker import MaxNLocator

    ends = models[[*PLACES.values(), "margin"]].astype(float)
    bottom, top = min(0.0, np.nanmin(ends)), np.nanmax(ends)
    span = 1.06 * (top - bottom)

    def place(value: float) -> float | None:
        return None if pd.isna(value) else round(3 + 94 * (value - bottom) / span, 2)

    rows = [
        {
            "name": marked(row["model"], row["marks"]),
            "verdict": row["verdict"],
            "control": bool(row["known_zero"] or row["known_leak"]),
            **{name: place(row[column]) for name, column in PLACES.items()},
            "text": "; ".join(
                f"{what} {100 * row[PLACES[name]]:z.2f} %"
                for name, what in SPOKEN.items()
                if pd.notna(row[PLACES[name]])
            ),
        }
        for row in controls_last(models).to_dict("records")
    ]
    ticks = MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(bottom, top)
    shown = [tick for tick in ticks if bottom <= tick <= bottom + span]
    margin = ends["margin"].iloc[0]
    return {
        "zero": place(0.0),
        "margin": place(margin),
        "margin_text": f"{100 * margin:g} %",
        "ticks": [(place(tick), f"{100 * tick:g} %") for tick in shown],
        "rows": rows,
    }


PLACES = {"d": "unique_r2", "low": "unique_r2_low", "high": "unique_r2_high", "seen": "detectable"}
SPOKEN = {"d": "D", "low": "from", "high": "to", "seen": "smallest even leak called meaning"}
VERDICTS = {  # column of the first table -> format of its cells
    "model": "",
    "verdict": "",
    "null_dim": "d",
    "n_per_dim": "",
    "validation_r2": "z.2f",
    "r2_words": "z.2f",
    "is_mean": ".1f",
    "floor_is_mean": ".1f",
    "unique_r2": "",
    "turn_deg": ".0f",
    "detectable": "",
    "detectable_first": "",
}
INTERVAL = ["unique_r2", "unique_r2_low", "unique_r2_high"]
# Further columns, which only the CSV of the first table has.
BESIDE = [
    "unique_r2_low",
    "unique_r2_high",
    "gain",
    "null_r2",
    "marks",
    "margin",
    "p_holm",
    "as_mean",
    "as_abs_mean",
    "is_per_as",
]


def evidence_rows(models: pd.DataFrame) -> list[dict[str, str]]:
    """Cells of the first table by column, controls last; - stands for a missing number."""
    return [
        {
            name: "-" if pd.isna(row[name]) else format(row[name], form)
            for name, form in VERDICTS.items()
        }
        | {
            "model": marked(row["model"], row["marks"]),
            "n_per_dim": per_dimension(row["n_per_dim"]),
            "unique_r2": with_interval((100 * row[name] for name in INTERVAL), 1, " %"),
            "detectable": detected(row, "detectable"),
            "detectable_first": detected(row, "detectable_first"),
        }
        for row in controls_last(models).astype(dict.fromkeys(INTERVAL, float)).to_dict("records")
    ]


def scatter_chart(
    scores: dict[str, pd.DataFrame], models: pd.DataFrame, looks: dict[str, dict[str, str]]
) -> str:
    """Figure 3a of one space as JSON for plotly: one trace per model, one point per image."""
    import plotly.graph_objects as go

    figure = go.Figure()
    many = sum(map(len, scores.values())) > 3000
    marks = models.set_index("model")["marks"]
    for model, frame in scores.items():
        name = html.escape(marked(model, marks[model]))
        trace = (go.Scattergl if many else go.Scatter)(
            x=frame["as_deg"].to_numpy(np.float32),
            y=frame["is_deg"].to_numpy(np.float32),
            mode="markers",
            name=name,
            meta=model,
            marker=looks[model] | {"size": 5 if many else 7, "opacity": 0.6},
            hovertemplate="AS %{x:.2f}°, IS %{y:.2f}°<extra>" + html.escape(model) + "</extra>",
        )
        figure.add_trace(trace)
    grid = {"gridcolor": "rgba(128, 128, 128, .25)", "automargin": True}
    figure.update_xaxes(
        title="AS toward the image's own label (°)", zeroline=True, zerolinecolor="#999", **grid
    )
    figure.update_yaxes(title="IS (°)", rangemode="tozero", **grid)
    figure.update_layout(  # the page sets the text colour, which depends on a light or dark scheme
        template=None,
        height=480,
        margin={"l": 60, "r": 20, "t": 40, "b": 50},
        font={"size": 13, "family": "system-ui, sans-serif"},
        legend={"orientation": "h", "y": -0.22, "yanchor": "top"},
        hovermode="closest",
        paper_bgcolor="rgba(0, 0, 0, 0)",
        plot_bgcolor="rgba(0, 0, 0, 0)",
    )
    return script_json(json.loads(figure.to_json()))


def libraries() -> dict[str, str]:
    """The scripts and styles inside the page; the script of DataTables is in base64."""
    from plotly.offline import get_plotlyjs

    folder = importlib.resources.files("itables") / "html"
    return {
        "plotly": get_plotlyjs(),
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
