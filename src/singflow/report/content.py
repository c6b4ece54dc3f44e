"""The contents of a study's page: tables and figures; the time of a run; the machine."""

import base64
import io
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from singflow.analyses.findings import TABLES, by_size
from singflow.analyses.summary import controls_last
from singflow.analyses.tables import LEAK, ZERO
from singflow.artifacts.catalog import NEEDS
from singflow.data.images import any_size
from singflow.errors import in_one_line
from singflow.report.tables import MOST_ROWS, table
from singflow.system import ask, processor

WIDTH, HIGHEST = 1600, 16383  # limits on the pixels of a figure that is embedded as WebP
MOST_SVG = 500_000  # bytes; a larger SVG is embedded as WebP
SCALE, FULL, TALLEST = 1.35, 2.0, 800  # of a figure: scale of its print, full scale, pixels

SCORES = {  # column of the scores -> column of the table of photos
    "is_deg": "is_deg",
    "as_deg": "as_deg",
    "angle_original_deg": "before",
    "angle_equivalent_deg": "after",
}

Frames = dict[str, dict[str, pd.DataFrame]]


def page_tables(
    csv: dict[str, pd.DataFrame],
    rejected: pd.DataFrame,
    paper: dict[str, Any],
    as_paper: pd.Series,
    steered: list[str],
    shown: dict[str, Any],
    several: bool,
) -> dict[str, dict[str, Any]]:
    """The tables of the page that have rows.

    csv: the tables of the verdict, and of the analyses that the study asks for. The paper's numbers
    stand beside ours where rows are comparable (`as_paper`, by row of csv["models"]).
    shown: report/page.yaml. several: the study has several spaces, and tables a column for them.
    """
    same = csv["models"][as_paper]
    first, second = paper["table1"], paper["table2"]
    heads = controls_last(csv["models"])
    heads["paper_null_dim"] = _papers(heads, same, paper, "null_dim").astype(float)
    files = rejected.groupby("reason")["path"].transform("size")
    frames = csv | {
        "models": heads,
        **{name: by_size(csv[name]) for name in TABLES},
        "rejected": rejected.assign(files=files).sort_values(["files", "reason"], kind="stable"),
    }
    if "steering" in csv:
        toward = csv["steering"]
        toward = toward.assign(paper_as=_papers(toward, same, paper, "table1").astype(float))
        other = toward["prompt"] != first["prompt"]
        other |= toward["target_is_deg"] < toward["paper_as"]
        toward.loc[other | (steered != first["labels"]), "paper_as"] = np.nan
        frames["steering"] = toward
    if "translators" in csv:
        fitted = csv["translators"].copy()
        theirs = _papers(fitted, same, paper, "weights").notna() & (fitted["n"] == second["images"])
        for place, name in enumerate(("paper_cosine", "paper_mse")):
            known = {kind: pair[place] for kind, pair in second["kinds"].items()}
            fitted[name] = fitted["kind"].map(known).where(theirs)
        frames["translators"] = fitted
    if "labels" in csv:
        labels = csv["labels"].assign(control=csv["labels"]["marks"].str.contains(f"{ZERO}|{LEAK}"))
        by = {"control": True, "as_abs_deg_mean": False}
        frames["labels"] = labels.sort_values([*by], ascending=[*by.values()], kind="stable")
    if "orders" in csv:
        heads["paper_ratio"] = _papers(heads, same, paper, "ratio").astype(float)
        ordered = csv["orders"].dropna(subset=["place"])
        ordered = ordered[ordered["space"].duplicated(keep=False)]
        ordered = ordered.assign(paper_ratio=_papers(ordered, same, paper, "ratio").astype(float))
        frames["orders"] = ordered.sort_values(["space", "place"], kind="stable")
    made = {}
    for name, frame in frames.items():
        spec = shown["tables"][name]
        if spec.get("needs") in frame:
            frame = frame.dropna(subset=[spec["needs"]])
        columns = [column for column in spec["columns"].split() if several or column != "space"]
        words, most = shown["columns"] | spec.get("own", {}), spec.get("most", MOST_ROWS)
        made[name] = table(name, spec["title"], frame, columns, words, most)
    return {name: content for name, content in made.items() if content["rows"]}


def _papers(rows: pd.DataFrame, same: pd.DataFrame, paper: dict[str, Any], fact: str) -> pd.Series:
    """A fact of the paper for every row whose space and model are in `same`; missing elsewhere."""
    ours, theirs = (
        list(frame[["space", "model"]].itertuples(index=False, name=None)) for frame in (rows, same)
    )
    known = {(space, model): paper["models"][model].get(fact) for space, model in theirs}
    return pd.Series(map(known.get, ours), index=rows.index)


def photo_scores(
    images: pd.DataFrame, scores: Frames, class_names: dict[str, list[str]]
) -> pd.DataFrame:
    """Rows of the table of photos, one for each model and space; those with the largest IS first.

    images: rows of the manifest; those of all scores are of the same photos.
    """
    parts = [
        frame[[*SCORES]]
        .rename(columns=SCORES)
        .assign(
            label=images["label"],
            model=model,
            space=space,
            predicted=[class_names[model][index] for index in frame["predicted_index"]],
            path=images["path"],
        )
        for space, models in scores.items()
        for model, frame in models.items()
    ]
    return pd.concat(parts).sort_values("is_deg", ascending=False, kind="stable")


def step_table(folder: Path, words: dict[str, str]) -> dict[str, Any]:
    """Time and memory of every rule, from Snakemake's benchmark files."""
    rows = []
    for path in sorted(folder.rglob("*.tsv")):
        with in_one_line(f"{path}: not readable as a benchmark of Snakemake", "remove it"):
            measured = pd.read_csv(path, sep="\t", na_values="-").iloc[0]
            figures = float(measured["s"]), float(measured["max_rss"])
        rows.append((path.relative_to(folder).parts[0].removesuffix(".tsv"), *figures))
    by_step = pd.DataFrame(rows, columns=["step", "seconds", "peak_mb"]).groupby("step")
    gathered = by_step.agg(
        jobs=("seconds", "size"),
        seconds=("seconds", "sum"),
        longest=("seconds", "max"),
        peak_mb=("peak_mb", "max"),
    ).reset_index()
    return table("steps", "Time and memory of every step", gathered, gathered.columns, words)


def embedded(png: Path, title: str, text: str) -> dict[str, Any]:
    """A figure as the data of its SVG, or of a WebP if the SVG is large, and its size in pixels.

    `needs` says what a figure needs that could not be drawn; it has no other content then.
    """
    with any_size(), Image.open(png, formats=["PNG"]) as figure:
        if needs := figure.info.get(NEEDS):
            return {"title": title, "needs": needs.rstrip(".")}
        svg, dots = png.with_suffix(".svg"), figure.info["dpi"]
        if photo := svg.stat().st_size > MOST_SVG:
            content = f"image/webp;base64,{webp(figure)}"
        else:
            content = f"image/svg+xml;base64,{base64.b64encode(svg.read_bytes()).decode()}"
        wide, tall = (96 * side / per for side, per in zip(figure.size, dots, strict=True))
    scale = min(SCALE, TALLEST / tall)
    sizes = {"width": scale * wide, "height": scale * tall, "full": FULL * wide}
    shown = {"content": content, "photo": photo} | {name: round(to) for name, to in sizes.items()}
    return shown | {"title": title, "text": text, "needs": ""}


def webp(figure: Image.Image) -> str:
    """A figure as base64 WebP, at most WIDTH pixels wide."""
    flat, buffer = figure.convert("RGB"), io.BytesIO()
    flat.thumbnail((WIDTH, HIGHEST), Image.Resampling.LANCZOS, reducing_gap=None)
    flat.save(buffer, "WEBP", quality=80, method=2)
    return base64.b64encode(buffer.getvalue()).decode()


def machine() -> str:
    """System, processor, cores, memory and GPUs of this machine, in words."""
    import psutil

    memory = f"{psutil.virtual_memory().total / 2**30:.0f} GiB of memory"
    words = [platform.system(), processor(), f"{os.cpu_count()} cores", memory]
    gpus = ask("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    return ", ".join(words + (gpus.out.splitlines() if gpus.ok else []))
