"""The contents of a study's page: tables and figures; the time of a run; the machine."""

import base64
import io
import os
import platform
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from singflow.analyses.findings import TABLES, by_size
from singflow.analyses.summary import controls_last
from singflow.analyses.tables import LEAK, ZERO
from singflow.artifacts.catalog import NEEDS
from singflow.data.images import any_size
from singflow.errors import InputError, in_one_line
from singflow.report.tables import MOST_ROWS, Table, table
from singflow.system import ask, processor

SECTIONS = ("models", "labels", "checks", "paper")  # of the page, a question each
FORMS = {  # of lines of a caption: pattern, and what to write
    "page": (
        rf"({'|'.join(SECTIONS)}) \d+",
        f"one of {', '.join(SECTIONS)}, and a number for the place in it",
    ),
    "link": (
        r"(labels|checks) \d+ \S.*",
        "one of labels, checks, a number for the place in it, and words",
    ),
    "most": (r"\d+", "a number of rows"),
}
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


class Caption(NamedTuple):
    """The caption of a figure or table: title and text; of a figure, its section and place there.

    columns: of the table that the page shows, in order; empty: all. needs: a column without whose
    value a row is left out. most: limit on its rows. headers: of columns that no other table has,
    with explanations. link: section of the page that names the table, place there, and words.
    sentence: on the first row of the table, with the values of columns in braces. paper: what the
    paper has, quoted beside the sentence for the models of its chart alone.
    """

    section: str
    place: int
    title: str
    text: str
    columns: str
    needs: str
    most: int
    headers: dict[str, tuple[str, str]]
    link: str = ""
    sentence: str = ""
    paper: str = ""


def _own(
    title: str, text: str, columns: str, headers: dict[str, tuple[str, str]], link: str = ""
) -> Caption:
    return Caption("", 0, title, text, columns, "", MOST_ROWS, headers, link)


REJECTED = _own("Files left out", "Rare reasons come first.", "path reason files", {})
IMAGES = _own(
    "Every photo",
    "The photos with the largest IS come first.",
    "label model space is_deg as_deg before after predicted path",
    {
        "before": ("angle before (°)", "angle to the text of its label before null removal"),
        "after": ("angle after (°)", "the same angle after null removal"),
        "predicted": ("predicted", "class that the model predicts"),
    },
    "labels 6 every photo",
)


def read_caption(path: Path) -> Caption:
    """Read a caption, whose lines `.. page: <section> <place>`, `.. title: ...` are optional."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{path}: {error.strerror}: every figure and table has a caption there"
        ) from None
    said = dict(re.findall(r"^\.\. (\w+): (.*)$", text, flags=re.MULTILINE))
    columns = re.findall(r"^\.\. column (\w+): (.*?); (.*)$", text, flags=re.MULTILINE)
    for key, (form, words) in FORMS.items():
        if key in said and not re.fullmatch(form, said[key]):
            raise InputError(f"{path}: {key} is {said[key]!r}: write {words}")
    section, _, place = said.get("page", "").partition(" ")
    return Caption(
        section=section,
        place=int(place or 0),
        title=said.get("title", path.stem.replace("_", " ")),
        text=re.sub(r"^\.\. .*\n", "", text, flags=re.MULTILINE).strip(),
        columns=said.get("columns", ""),
        needs=said.get("needs", ""),
        most=int(said.get("most", MOST_ROWS)),
        headers={column: (title, words) for column, title, words in columns},
        **{key: said.get(key, "") for key in ("link", "sentence", "paper")},
    )


def links(captions: dict[str, Caption]) -> dict[str, list[tuple[str, str]]]:
    """Tables that a section of the page names, with the words of the link, by section."""
    linked: dict[str, list[tuple[int, str, str]]] = {section: [] for section in SECTIONS}
    for name, caption in captions.items():
        if caption.link:
            section, place, words = caption.link.split(maxsplit=2)
            linked[section].append((int(place), name, words))
    return {
        section: [(name, words) for _, name, words in sorted(found)]
        for section, found in linked.items()
    }


def page_tables(
    csv: dict[str, pd.DataFrame],
    rejected: pd.DataFrame,
    paper: dict[str, Any],
    as_paper: pd.Series,
    steered: list[str],
    captions: dict[str, Caption],
    several: bool,
) -> dict[str, Table]:
    """The tables of the page that have rows.

    csv: the tables of the verdict, and those of the analyses that the study asks for. The paper's
    numbers stand beside ours where rows are comparable (`as_paper`, by row of csv["models"]).
    `several`: the study has several spaces, so that tables have a column for them.
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
    shown = {}
    for name, frame in frames.items():
        caption = captions[name]
        if caption.needs in frame:
            frame = frame.dropna(subset=[caption.needs])
        columns = caption.columns.split() or list(map(str, frame))
        columns = [column for column in columns if several or column != "space"]
        shown[name] = table(name, caption.title, frame, columns, caption.headers, caption.most)
    return {name: content for name, content in shown.items() if content.rows}


def _papers(rows: pd.DataFrame, same: pd.DataFrame, paper: dict[str, Any], fact: str) -> pd.Series:
    """A fact of the paper for every row whose space and model are in `same`; missing elsewhere."""
    ours, theirs = (
        list(frame[["space", "model"]].itertuples(index=False, name=None)) for frame in (rows, same)
    )
    known = {(space, model): paper["models"][model].get(fact) for space, model in theirs}
    return pd.Series(map(known.get, ours), index=rows.index)


def data_of(shown: Table, caption: Caption, said: str) -> dict[str, Any]:
    """A table for the page's JSON. `said`: a sentence on its content."""
    about = [caption.text, said]
    if len(shown.rows) < shown.total:
        many = f"{len(shown.rows):,} of {shown.total:,} rows"
        many += ", as many of every model" if "model" in shown.columns else ""
        if shown.name == "hidden_texts":
            many += ", those with the largest D"
        elif "place" in shown.columns:
            many += ", those of the first places"
        folder = "data" if shown.name == "rejected" else "tables"
        about.append(f"{many}; all are in the results folder, {folder}/{shown.name}.csv.")
    return {
        "title": shown.caption,
        "about": " ".join(filter(None, about)),
        "columns": shown.columns,
        "headers": shown.headers,
        "rows": shown.rows,
    }


def images_table(
    images: pd.DataFrame, scores: Frames, class_names: dict[str, list[str]], several: bool
) -> Table:
    """The table of photos: a row for each model and space, those with the largest IS first.

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
    rows = pd.concat(parts).sort_values("is_deg", ascending=False, kind="stable")
    for name in SCORES.values():
        rows[name] = [round(float(value), 1) for value in rows[name]]
    columns = [name for name in IMAGES.columns.split() if several or name != "space"]
    return table("images", IMAGES.title, rows, columns, IMAGES.headers, len(rows))


def step_table(folder: Path) -> Table:
    """Time and memory of every rule, from Snakemake's benchmark files."""
    rows = []
    for path in sorted(folder.rglob("*.tsv")):
        with in_one_line(f"{path}: not readable as a benchmark of Snakemake", "remove it"):
            measured = pd.read_csv(path, sep="\t", na_values="-").iloc[0]
            figures = float(measured["s"]), float(measured["max_rss"])
        rows.append((path.relative_to(folder).parts[0].removesuffix(".tsv"), *figures))
    by_step = pd.DataFrame(rows, columns=["step", "seconds", "peak_mb"]).groupby("step")
    seconds = by_step["seconds"].agg(["size", "sum", "max"])
    seconds.columns = pd.Index(["jobs", "seconds", "longest"])
    gathered = seconds.assign(peak_mb=by_step["peak_mb"].max()).reset_index()
    return table("steps", "Time and memory of every step", gathered, gathered.columns)


def sentence(
    table: pd.DataFrame, caption: Caption, paper: dict[str, Any], same: pd.DataFrame
) -> str:
    """The caption's sentence on the first row of a table; empty if a value of it is missing.

    The paper is quoted if the row's space has the models of the paper's chart and no others, and
    all of them are comparable (`same`).
    """
    named = re.findall(r"\{(\w+)", caption.sentence)
    if not named or table.empty or table[named].iloc[0].isna().any():
        return ""
    ours, theirs = (
        set(rows.loc[rows["space"] == table["space"].iloc[0], "model"]) for rows in (table, same)
    )
    charted = {model for model, facts in paper["models"].items() if "ratio" in facts}
    said = caption.sentence.format_map(table.iloc[0].to_dict())
    return f"{said}; {caption.paper}." if ours == theirs == charted else f"{said}."


def embedded(png: Path, caption: Caption) -> dict[str, Any]:
    """A figure as the data of its SVG, or of a WebP if the SVG is large, and its size in pixels.

    `needs` says what a figure needs that could not be drawn; it has no other content then.
    """
    with any_size(), Image.open(png, formats=["PNG"]) as figure:
        if needs := figure.info.get(NEEDS):
            return {"title": caption.title, "needs": needs.rstrip(".")}
        svg, dots = png.with_suffix(".svg"), figure.info["dpi"]
        if photo := svg.stat().st_size > MOST_SVG:
            content = f"image/webp;base64,{webp(figure)}"
        else:
            content = f"image/svg+xml;base64,{base64.b64encode(svg.read_bytes()).decode()}"
        wide, tall = (96 * side / per for side, per in zip(figure.size, dots, strict=True))
    scale = min(SCALE, TALLEST / tall)
    sizes = {"width": scale * wide, "height": scale * tall, "full": FULL * wide}
    shown = {"content": content, "photo": photo} | {name: round(to) for name, to in sizes.items()}
    return shown | {"title": caption.title, "text": caption.text, "needs": ""}


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
