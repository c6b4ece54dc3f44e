"""The page that holds a study: its charts and the bytes that hold both."""

import base64
import html
import importlib.resources
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from singflow.analyses.tables import marked

MOST_POINTS = 20_000  # image scores that a page holds, over all models and spaces


def script_json(content: Any) -> str:
    """JSON that may stand inside a script element: no character of it can end the element or open another.

    Parameters
    ----------
    content : Any
        What JSON can hold; NaN and infinite numbers are refused.

    Returns
    -------
    str
        On one line.
    """
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return (
        text.replace("<", "\\u003c")
        .replace(">", "\\u003e")
        .replace("&", "\\u0026")
        .replace("\u2028", "\\u2028")
        .replace("\u2029", "\\u2029")
    )


def sample(n_images: int, series: int, max_images: int, seed: int) -> np.ndarray:
    """Images shown one by one: all, or a sample by the seed, so that a page holds no more than MOST_POINTS scores.

    Parameters
    ----------
    n_images : int
        Images of the study.
    series : int
        Models times spaces.
    max_images : int
        Images shown at most.
    seed : int
        Of the sample.

    Returns
    -------
    ndarray of int, of shape (n,)
        Positions in the manifest, sorted.
    """
    most = min(max_images, max(1, MOST_POINTS // series))
    if n_images <= most:
        return np.arange(n_images)
    return np.sort(np.random.default_rng([seed, n_images]).choice(n_images, most, replace=False))


def ranking_chart(models: pd.DataFrame, space: str, colours: dict[str, str]) -> str:
    """IS beside its floor and random subspaces', and |AS|, with intervals, as a plotly figure.

    Parameters
    ----------
    models : DataFrame
        tables/models.csv.
    space : str
        The space that is drawn.
    colours : dict of str
        Colours by model.

    Returns
    -------
    str
        JSON that may stand inside a script element.
    """
    from plotly.subplots import make_subplots

    rows = models[models["space"] == space].sort_values("as_abs_mean", kind="stable")
    names = [html.escape(marked(*each)) for each in zip(rows["model"], rows["marks"], strict=True)]
    figure = make_subplots(
        1, 2, shared_yaxes=True, horizontal_spacing=0.06, subplot_titles=["IS: meaning that turns (°)", "|AS|: about the class (°)"]
    )
    for column, score in enumerate(("is", "as_abs"), 1):
        mean = rows[f"{score}_mean"]
        error = {"array": rows[f"{score}_high"] - mean, "arrayminus": mean - rows[f"{score}_low"], "color": "#333"}
        figure.add_bar(
            x=mean, y=names, orientation="h", showlegend=False, marker_color=[colours[model] for model in rows["model"]],
            error_x=error, hovertemplate="%{y}: %{x:.2f}°<extra></extra>", row=1, col=column,
        )  # fmt: skip
    figure.add_scatter(
        x=rows["floor_is_mean"], y=names, mode="markers", name="floor: null components without content", row=1, col=1,
        marker={"symbol": "line-ns", "size": 18, "line": {"width": 3, "color": "#111"}}, hovertemplate="floor: %{x:.2f}°<extra></extra>",
    )  # fmt: skip
    figure.add_scatter(
        x=rows["control_is_mean"], y=names, mode="markers", name="random subspaces of the same size", row=1, col=1,
        marker={"symbol": "diamond", "size": 11, "color": "#333"}, hovertemplate="random: %{x:.2f}°<extra></extra>",
    )  # fmt: skip
    return _json(figure, height=150 + 34 * len(rows))


def scatter_chart(scores: dict[str, pd.DataFrame], models: pd.DataFrame, colours: dict[str, str], symbols: dict[str, str]) -> str:
    """Figure 3a as a plotly figure: a trace a model, a point an image, in the order of the rows.

    Parameters
    ----------
    scores : dict of DataFrame
        Scores tables of one space, by model.
    models : DataFrame
        tables/models.csv of that space.
    colours, symbols : dict of str
        Colours and plotly's names of markers, by model.

    Returns
    -------
    str
        JSON that may stand inside a script element.
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    many = sum(map(len, scores.values())) > 3000
    marks = models.set_index("model")["marks"]
    for model, frame in scores.items():
        name = html.escape(marked(model, marks[model]))
        trace = (go.Scattergl if many else go.Scatter)(
            x=frame["as_deg"].to_numpy(np.float32), y=frame["is_deg"].to_numpy(np.float32), mode="markers", name=name,
            meta=model, marker={"color": colours[model], "symbol": symbols[model], "size": 5 if many else 7, "opacity": 0.6},
            hovertemplate="AS %{x:.2f}°, IS %{y:.2f}°<extra>" + html.escape(model) + "</extra>",
        )  # fmt: skip
        figure.add_trace(trace)
    figure.update_xaxes(title="AS toward the image's own label (°)", zeroline=True, zerolinecolor="#999")
    figure.update_yaxes(title="IS (°)", rangemode="tozero")
    return _json(figure, height=480)


def _json(figure: Any, height: int) -> str:
    figure.update_layout(
        template=None, height=height, margin={"l": 60, "r": 20, "t": 40, "b": 50}, font={"size": 13, "family": "system-ui, sans-serif"},
        legend={"orientation": "h", "y": -0.22, "yanchor": "top"}, hovermode="closest", paper_bgcolor="white", plot_bgcolor="white",
    )  # fmt: skip
    figure.update_xaxes(gridcolor="#e5e5e5", automargin=True)
    figure.update_yaxes(gridcolor="#e5e5e5", automargin=True)
    return script_json(json.loads(figure.to_json()))


def libraries() -> dict[str, str]:
    """The scripts and styles that the page carries.

    Returns
    -------
    dict of str
        plotly: plotly.js; datatables: DataTables as itables ships it (base64); datatables_css: its styles.
    """
    from plotly.offline import get_plotlyjs

    folder = importlib.resources.files("itables") / "html"
    return {
        "plotly": get_plotlyjs(),
        "datatables": base64.b64encode((folder / "dt_bundle.js").read_bytes()).decode(),
        "datatables_css": (folder / "dt_bundle.css").read_text(encoding="utf-8"),
    }


def render(template: Path, content: dict[str, Any]) -> str:
    """The page: a template filled in, in which everything is escaped that is not marked as safe.

    Parameters
    ----------
    template : Path
        A Jinja2 template, which may extend one beside it.
    content : dict
        Values by the names that the template has for them; a name that lacks a value is an error.

    Returns
    -------
    str
        HTML.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(template.parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["script_json"] = script_json
    return environment.get_template(template.name).render(content)
