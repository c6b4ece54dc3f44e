"""The page that holds a study: what it says in words, its tables and its charts."""

import base64
import html
import importlib.resources
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from singflow.summary import NO_NULL_SPACE

MOST_POINTS = 60_000  # image scores that a page holds, over all models and spaces
RUN = re.compile(r'<section id="run".*?</section>', re.DOTALL)


COLUMNS = {  # column of a table -> (header, explanation)
    "model": ("model", "classifier"),
    "space": ("space", "vision-language space that features are translated into"),
    "label": ("label", "class or group that the images are filed under"),
    "n": ("images", "images behind the numbers"),
    "n_images": ("images", "images behind the numbers"),
    "null_dim": ("null dimensions", "directions of the feature that no logit sees"),
    "top1": ("top-1", "share of labelled images that the classifier names rightly"),
    "reported_top1": ("reported top-1 (%)", "published accuracy on ImageNet's validation set"),
    "translator": ("translator", "weak: explains too little of the held-out images to be trusted"),
    "validation_r2": ("translator R²", "share of the held-out variation that the translator explains"),
    "is_mean": ("IS (°)", "image score: how far meaning turns when the null component is removed"),
    "is_low": ("IS low", "lower end of the interval"),
    "is_high": ("IS high", "upper end of the interval"),
    "as_mean": ("AS (°)", "attribute score: how much nearer that brings an image to its own label"),
    "as_abs_mean": ("|AS| (°)", "size of the attribute score, whatever its sign"),
    "is_per_as": ("IS/|AS|", "the paper's ratio"),
    "control_is_mean": ("random IS (°)", "IS when random subspaces of the same size are removed"),
    "is_per_control": ("IS/random", "below 1: less meaning than the size of the null space alone would hold"),
    "note": ("note", "what else to know"),
    "is_deg_mean": ("IS (°)", "mean image score"),
    "as_deg_mean": ("AS (°)", "mean attribute score toward the label"),
    "as_abs_deg_mean": ("|AS| (°)", "mean size of the attribute score"),
    "leak_q": ("q", "false discovery rate of: more leakage here than on all other images"),
    "leaks": ("leaks", "more than on all other images, beyond chance"),
    "concept": ("concept", "phrase of the vocabulary"),
    "kind": ("kind", "strongest or weakest concept of the label; or the translator's architecture"),
    "place": ("place", "1 is first"),
    "angle_mean_deg": ("angle (°)", "mean angle between images and concept; smaller is nearer"),
    "as_mean_deg": ("AS (°)", "mean attribute score toward the concept"),
    "as_abs_mean_deg": ("|AS| (°)", "mean size of the attribute score toward the concept"),
    "lift_deg": ("nearer by (°)", "how much nearer the label's images are to the concept than the average label's"),
    "criterion": ("criterion", "by which models are compared"),
    "model_a": ("model A", "first of the two"),
    "model_b": ("model B", "second of the two"),
    "difference": ("A − B", "difference by the criterion"),
    "low": ("low", "lower end of the interval"),
    "high": ("high", "upper end of the interval"),
    "p_holm": ("p (Holm)", "p-value corrected for the number of comparisons"),
    "differ": ("differ", "the difference is beyond chance"),
    "value": ("value", "the model's value by the criterion"),
    "spearman": ("Spearman", "rank correlation of the labels' leakage"),
    "prompt": ("prompt", "text that features are steered toward"),
    "target_is_deg": ("IS wanted (°)", "image score that the step is calibrated to"),
    "n_reachable": ("reached", "images that can be steered so far"),
    "as_target_mean_deg": ("AS to prompt (°)", "how much nearer the prompt; mean"),
    "as_target_std_deg": ("± (°)", "standard deviation over images"),
    "logit_change_max": ("largest logit change", "norm; should be about zero"),
    "paper_as": ("paper AS (°)", "the paper's Table 1, from Sports Car"),
    "loss": ("loss", "training loss"),
    "validation_cosine": ("cosine", "held-out cosine similarity"),
    "validation_mse": ("MSE", "held-out mean squared error"),
    "paper_cosine": ("paper cosine", "the paper's Table 2"),
    "paper_mse": ("paper MSE", "the paper's Table 2"),
    "perturbation": ("perturbation", "of equal norm: in the null space, random, or against the predicted class"),
    "logit_change_mean": ("logit change", "mean norm of the logits' change"),
    "top1_changed_share": ("flips", "share of predictions that change"),
    "accuracy_principal": ("before", "probe's accuracy on the features that the logits see"),
    "accuracy_translated": ("after", "the same after translation"),
    "chance": ("chance", "accuracy of always guessing the commonest label"),
    "text": ("toward", "text that the image is steered toward"),
    "is_deg": ("IS (°)", "image score"),
    "as_text_deg": ("AS to text (°)", "how much nearer the text"),
    "as_label_deg": ("AS to label (°)", "how much nearer its own label"),
    "logit_change": ("logit change", "norm of the logits' change"),
    "dimension": ("dimensions", "directions removed"),
    "is_deg_null": ("null IS (°)", "IS when that many null directions are removed"),
    "is_deg_random": ("random IS (°)", "IS when random subspaces of that size are removed"),
    "is_deg_excess_random": ("excess (°)", "null less random"),
    "is_deg_excess_random_low": ("low", "lower end of the interval"),
    "is_deg_excess_random_high": ("high", "upper end of the interval"),
    "path": ("file", "path below the data root"),
    "reason": ("reason", "why it was left out"),
    "step": ("step", "rule of the workflow"),
    "jobs": ("jobs", "runs of the rule"),
    "seconds": ("seconds", "all jobs together"),
    "longest": ("longest (s)", "the longest job"),
    "peak_mb": ("peak memory (MB)", "largest resident set of a job"),
}


@dataclass(frozen=True)
class Table:
    """A table of the page: rows of plain values under headers (title, explanation)."""

    name: str
    caption: str
    headers: list[tuple[str, str]]
    rows: list[list[Any]]
    numeric: list[bool]


def table(name: str, caption: str, frame: pd.DataFrame, columns: Iterable[str]) -> Table:
    """A table of those columns that the frame has; floats with four significant digits, missing values empty."""
    shown = [column for column in columns if column in frame]
    rows = [[_plain(value) for value in row] for row in frame[shown].itertuples(index=False, name=None)]
    numeric = [pd.api.types.is_numeric_dtype(frame[column]) and not pd.api.types.is_bool_dtype(frame[column]) for column in shown]
    return Table(name, caption, [COLUMNS[column] for column in shown], rows, numeric)


def _plain(value: Any) -> Any:
    if pd.isna(value):
        return ""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, float | np.floating):
        return float(f"{value:.4g}")
    return value.item() if isinstance(value, np.generic) else value


def script_json(content: Any) -> str:
    """JSON that may stand inside a script element: no character of it can end the element or open another."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return (
        text.replace("<", "\\u003c")
        .replace(">", "\\u003e")
        .replace("&", "\\u0026")
        .replace("\u2028", "\\u2028")
        .replace("\u2029", "\\u2029")
    )


def strip_run(page: str) -> str:
    """The page without what differs from run to run: hardware, times and memory."""
    return RUN.sub("", page)


def sample(n_images: int, series: int, max_images: int, seed: int) -> np.ndarray:
    """Images shown one by one (n,): all, or a sorted sample by the seed, so that a page holds no more than MOST_POINTS scores.

    series: models times spaces.
    """
    most = min(max_images, max(1, MOST_POINTS // series))
    if n_images <= most:
        return np.arange(n_images)
    return np.sort(np.random.default_rng([seed, n_images]).choice(n_images, most, replace=False))


def _range(row: dict[Any, Any], name: str) -> str:
    return f"{row[f'{name}_mean']:.2f}° [{row[f'{name}_low']:.2f}, {row[f'{name}_high']:.2f}]"


def _joined(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def verdict(models: pd.DataFrame, pairs: pd.DataFrame, orders: pd.DataFrame, space: str, paper: dict[str, Any]) -> list[str]:
    """What the tables say of the models in one space, in sentences.

    models, pairs, orders: tables/models.csv, model_pairs.csv and orders.csv; paper: report/paper.yaml.
    """
    rows = models[(models["space"] == space) & (models["null_dim"] > 0)].sort_values("as_abs_mean", ascending=False).to_dict("records")
    blind = list(models.loc[(models["space"] == space) & (models["null_dim"] == 0), "model"])
    said = [f"{_joined(blind)}: {NO_NULL_SPACE}."] if blind else []
    if not rows:
        return said
    most, least = rows[0], rows[-1]
    by_is = sorted(rows, key=lambda row: -row["is_mean"])
    if len(rows) == 1:
        said.append(
            f"In {most['model']}, removing what no logit sees turns an image's meaning by {_range(most, 'is')} (IS) and moves it by "
            f"{_range(most, 'as_abs')} toward or away from its own label (|AS|)."
        )
    else:
        said.append(
            f"{most['model']} leaks most about the class: removing what its logits cannot see moves an image by {_range(most, 'as_abs')} "
            f"toward or away from its own label (|AS|). {least['model']} leaks least: {_range(least, 'as_abs')}. "
            + _difference(pairs[pairs["space"] == space], "as_abs", most["model"], least["model"])
        )
        said.append(
            f"Meaning of any kind turns most in {by_is[0]['model']}, by {_range(by_is[0], 'is')} (IS), "
            f"and least in {by_is[-1]['model']}, by {_range(by_is[-1], 'is')}."
        )
    below = [row["model"] for row in rows if row["is_per_control_high"] < 1]
    above = [row["model"] for row in rows if row["is_per_control_low"] > 1]
    control = [row["control_is_mean"] for row in rows]
    text = f"Is that much? Removing random subspaces of the same size turns meaning by {min(control):.1f}°"
    text += f" to {max(control):.1f}°" if len(rows) > 1 else ""
    parts = [f"{_joined(below)} hide less than their size alone would suggest"] if below else []
    parts += [f"{_joined(above)} hide more"] if above else []
    said.append(f"{text}: {'; '.join(parts) if parts else 'no null space here differs from chance'}.")
    if len(rows) > 1:
        said.append(_order(orders[orders["space"] == space]))
    limits = paper["substantial"]
    strong = [row["model"] for row in rows if row["is_mean"] > limits["is_deg"] or row["as_abs_mean"] > limits["as_abs_deg"]]
    mark = f"what the authors' demo calls substantial (IS above {limits['is_deg']:g}° or |AS| above {limits['as_abs_deg']:g}°)"
    said.append(f"On average {_joined(strong)} lie above {mark}." if strong else f"On average no model reaches {mark}.")
    return said


def _difference(pairs: pd.DataFrame, criterion: str, first: str, second: str) -> str:
    mine = pairs[(pairs["criterion"] == criterion) & pairs["model_a"].isin([first, second]) & pairs["model_b"].isin([first, second])]
    if mine.empty:
        return ""
    p = mine["p_holm"].iloc[0]
    return f"The two differ beyond chance (p = {p:.2g})." if mine["differ"].iloc[0] else f"The two cannot be told apart (p = {p:.2g})."


def _order(orders: pd.DataFrame) -> str:
    places = {
        name: list(orders[orders["criterion"] == name].sort_values("place")["model"]) for name in ("is_per_as", "is_per_as_over_control")
    }
    paper, control = places["is_per_as"], places["is_per_as_over_control"]
    text = f"By the paper's ratio IS/|AS|, best first: {', '.join(paper)}."
    if paper == control:
        return f"{text} Relative to random subspaces the order is the same."
    return f"{text} Relative to random subspaces it is another, {', '.join(control)}: do not publish the first without the second."


def warnings(models: pd.DataFrame, spaces: dict[str, str], min_r2: float) -> list[str]:
    """What must be known before a number is believed. spaces: name -> source of the registry entry."""
    said = []
    if (models["weights"] == "random").any():
        said.append("These models are untrained (random weights): the numbers show that the workflow runs, and nothing else.")
    weak = models[models["translator"] == "weak"]
    if len(weak):
        named = _joined(f"{row.model} in {row.space}" for row in weak.itertuples())
        said.append(
            f"Weak translators: {named} explain less than {min_r2:g} of the held-out images (R²). These scores show how the method "
            "works, not what the models ignore. Give the study more images before you believe a ranking."
        )
    stand_ins = [name for name, source in spaces.items() if source == "conse"]
    if stand_ins:
        said.append(
            f"{_joined(stand_ins)} is a stand-in for CLIP that needs no download: trust differences between models, not the last degree."
        )
    low = models[models["top1_low"]].drop_duplicates("model")
    if len(low):
        said.append(
            f"Top-1 far below what is reported: {_joined(low['model'])}. "
            "Most often the evaluation transform or the order of the classes is wrong."
        )
    return said


def what_leaks(models: pd.DataFrame, labels: pd.DataFrame, concepts: pd.DataFrame, space: str) -> list[dict[str, Any]]:
    """One row a model, most leakage first: its scores, the labels (of three images or more, if any) and concepts that move most."""
    found = []
    for row in models[models["space"] == space].sort_values("as_abs_mean", ascending=False, kind="stable").to_dict("records"):
        mine = labels[(labels["space"] == space) & (labels["model"] == row["model"])]
        several = mine[mine["n"] >= 3] if (mine["n"] >= 3).any() else mine
        top = several.sort_values(["as_abs_deg_mean", "label"], ascending=[False, True]).head(3)
        near = concepts[(concepts["space"] == space) & (concepts["model"] == row["model"]) & (concepts["kind"] == "strongest")]
        common = near.groupby("concept")["n"].sum().sort_index().sort_values(ascending=False, kind="stable").index[:3]
        blind = row["null_dim"] == 0
        found.append(
            {
                "model": row["model"],
                "weak": row["translator"] == "weak",
                "is": f"{row['is_mean']:.2f}°",
                "is_interval": f"{row['is_low']:.2f} to {row['is_high']:.2f}",
                "ratio": "" if pd.isna(row["is_per_control"]) else f"{row['is_per_control']:.2f}",
                "as_abs": f"{row['as_abs_mean']:.2f}°",
                "as_abs_interval": f"{row['as_abs_low']:.2f} to {row['as_abs_high']:.2f}",
                "labels": [] if blind else [f"{each.label} ({each.as_abs_deg_mean:.1f}°)" for each in top.itertuples()],
                "concepts": [] if blind else list(common),
                "beyond_chance": bool(mine["leaks"].astype(bool).any()),
                "note": NO_NULL_SPACE if blind else "",
            }
        )
    return found


def ranking_chart(models: pd.DataFrame, space: str, colours: dict[str, str]) -> str:
    """IS beside random subspaces' and |AS|, with intervals, as a plotly figure in JSON."""
    from plotly.subplots import make_subplots

    rows = models[models["space"] == space].sort_values("as_abs_mean", kind="stable")
    names = [html.escape(name) for name in rows["model"]]
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
        x=rows["control_is_mean"], y=names, mode="markers", name="random subspaces of the same size", row=1, col=1,
        marker={"symbol": "diamond", "size": 11, "color": "#333"}, hovertemplate="random: %{x:.2f}°<extra></extra>",
    )  # fmt: skip
    return _json(figure, height=150 + 34 * len(rows))


def scatter_chart(scores: dict[str, pd.DataFrame], colours: dict[str, str], symbols: dict[str, str]) -> str:
    """Figure 3a as a plotly figure in JSON: a trace a model, a point an image, in the order of the rows. scores: model -> table."""
    import plotly.graph_objects as go

    figure = go.Figure()
    many = sum(map(len, scores.values())) > 3000
    for model, frame in scores.items():
        trace = (go.Scattergl if many else go.Scatter)(
            x=frame["as_deg"].to_numpy(np.float32), y=frame["is_deg"].to_numpy(np.float32), mode="markers", name=html.escape(model),
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
    """The scripts and styles that the page carries: plotly.js, and DataTables as itables ships it (base64)."""
    from plotly.offline import get_plotlyjs

    folder = importlib.resources.files("itables") / "html"
    return {
        "plotly": get_plotlyjs(),
        "datatables": base64.b64encode((folder / "dt_bundle.js").read_bytes()).decode(),
        "datatables_css": (folder / "dt_bundle.css").read_text(encoding="utf-8"),
    }


def render(template: str, content: dict[str, Any]) -> str:
    """The page: a Jinja2 template in which everything is escaped that is not marked as safe."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["script_json"] = script_json
    return environment.from_string(template).render(content)
