"""The contents of a study's page: tables, images and figures; the time of a run; the machine."""

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from singflow.analyses.summary import controls_last
from singflow.analyses.tables import LEAK, ZERO
from singflow.errors import InputError
from singflow.report.tables import Table, table
from singflow.report.thumbnails import COLUMNS, figure_image, tile_side

SECTIONS = ("models", "labels", "concepts", "pictures", "checks")
WIDTH = 1600  # pixels of an embedded figure
SHOWN = {  # table -> its columns, in the order shown
    "models": "space model marks verdict n_images n_evidence n_per_dim null_dim paper_null_dim "
    "top1 reported_top1 validation_r2 r2_words is_mean is_low is_high floor_is_mean unique_r2 "
    "unique_r2_low unique_r2_high margin p_holm turn_deg detectable blind_unique_r2 "
    "conditional_is_mean as_mean as_contrast_mean as_abs_mean is_per_as control_is_mean "
    "is_per_control matched_is_mean is_per_matched zero_shot zero_shot_equivalent zero_shot_space "
    "null_energy_mean null_energy_auc note",
    "controls": "space model marks dimension n is_deg_null is_deg_random is_deg_excess_random "
    "is_deg_excess_random_low is_deg_excess_random_high",
    "orders": "space place model marks value low high n",
    "model_pairs": "space model_a model_b marks difference low high p_holm differ",
    "head_extensions": "space model marks n_evidence unique_r2 unique_r2_low unique_r2_high "
    "directions_90",
    "labels": "space model marks label n is_deg_mean floor_is_deg_mean as_deg_mean as_abs_deg_mean",
    "label_correlations": "space model_a model_b marks n_labels spearman ceiling p_holm",
    "concepts": "space model marks label kind place concept n angle_mean_deg contrast_deg "
    "contrast_deg_low contrast_deg_high as_mean_deg",
    "spurious": "space model marks label concept n angle_mean_deg lift_deg contrast_deg "
    "contrast_deg_low contrast_deg_high as_mean_deg",
    "angle_ladder": "space model marks path label text target_is_deg is_deg as_text_deg "
    "as_label_deg logit_change",
    "null_validation": "model perturbation n logit_change_mean top1_changed_share note",
    "steering": "space model marks prompt target_is_deg n n_reachable as_target_mean_deg "
    "as_target_std_deg paper_as logit_change_max note",
    "rank_curves": "space model marks point kept removed_dim n logit_change_mean top1_changed "
    "is_mean_deg as_mean_deg as_abs_mean_deg",
    "translators": "space model marks kind loss validation_cosine validation_mse validation_r2 "
    "paper_cosine paper_mse",
    "probes": "space model marks classifier n accuracy_principal accuracy_translated chance note",
    "rejected": "path reason files",
}
NEEDED = {  # table -> column; rows without a value in it are left out
    "probes": "accuracy_principal",
    "head_extensions": "unique_r2",
    "label_correlations": "spearman",
}
DRAWN_OF = {"fig12": "probes"}  # figure -> its table, if the two have different names

Frames = dict[str, dict[str, pd.DataFrame]]


def page_tables(
    csv: dict[str, pd.DataFrame],
    rejected: pd.DataFrame,
    paper: dict[str, Any],
    as_paper: pd.Series,
    steered: list[str],
    titles: dict[str, str],
    several: bool,
) -> dict[str, Table]:
    """The tables of the page that have rows.

    The paper's numbers stand beside ours for rows that are comparable (`as_paper`, per row of
    csv["models"]). `several`: the study has several spaces, so that tables have a column for them.
    """
    same = csv["models"][as_paper]
    heads = controls_last(csv["models"])
    heads = heads.assign(paper_null_dim=_papers(heads, same, paper, "null_dim").astype(float))
    toward = csv["steering"].assign(
        paper_as=_papers(csv["steering"], same, paper, "table1").astype(float)
    )
    other = (toward["prompt"] != paper["table1"]["prompt"]) | (
        toward["target_is_deg"] < toward["paper_as"]
    )
    toward.loc[other | (steered != paper["table1"]["labels"]), "paper_as"] = np.nan
    fitted = csv["translators"].copy()
    theirs = _papers(fitted, same, paper, "weights").notna() & (
        fitted["n"] == paper["table2"]["images"]
    )
    for place, name in enumerate(("paper_cosine", "paper_mse")):
        fitted[name] = (
            fitted["kind"]
            .map({kind: pair[place] for kind, pair in paper["table2"]["kinds"].items()})
            .where(theirs)
        )
    labels = csv["labels"].assign(control=csv["labels"]["marks"].str.contains(f"{ZERO}|{LEAK}"))
    ordered = csv["orders"].dropna(subset=["place"])
    files = rejected.groupby("reason")["path"].transform("size")
    frames = csv | {
        "models": heads,
        "steering": toward,
        "translators": fitted,
        "labels": labels.sort_values(
            ["control", "as_abs_deg_mean"], ascending=[True, False], kind="stable"
        ),
        "model_pairs": csv["model_pairs"].round({"low": 5, "high": 5}),
        "controls": own_controls(csv["controls"]),
        "orders": ordered[ordered["space"].duplicated(keep=False)].sort_values(
            ["space", "place"], kind="stable"
        ),
        "rejected": rejected.assign(files=files).sort_values(["files", "reason"], kind="stable"),
    }
    frames |= {
        name: frames[name].dropna(subset=[column])
        for name, column in NEEDED.items()
        if column in frames[name]
    }
    columns = {name: list(map(str, frame)) for name, frame in frames.items()} | {
        name: listed.split() for name, listed in SHOWN.items()
    }
    shown = {
        name: table(
            name,
            titles.get(name, name),
            frames[name],
            [column for column in named if several or column != "space"],
        )
        for name, named in columns.items()
    }
    return {name: content for name, content in shown.items() if content.rows}


def _papers(rows: pd.DataFrame, same: pd.DataFrame, paper: dict[str, Any], fact: str) -> pd.Series:
    """A fact of the paper for every row whose space and model are in `same`; missing elsewhere."""
    known = {
        (space, model): paper["models"][model].get(fact)
        for space, model in zip(same["space"], same["model"], strict=True)
    }
    return pd.Series(
        [known.get(pair) for pair in zip(rows["space"], rows["model"], strict=True)],
        index=rows.index,
    )


class Caption(NamedTuple):
    """The caption of a figure or table: its section of the page, place there, title and text."""

    section: str
    place: int
    title: str
    text: str


def read_caption(path: Path) -> Caption:
    """Read a caption; `.. page: <section> <place>` and `.. title: <title>` are optional comments.

    Without these comments, the section is empty, and the title is the name of the file.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{path}: {error.strerror}: every figure and table has a caption there"
        ) from None
    said = dict(re.findall(r"^\.\. (page|title): (.*)$", text, flags=re.MULTILINE))
    section, _, place = said.get("page", "").partition(" ")
    if section and (section not in SECTIONS or not place.isdecimal()):
        raise InputError(
            f"{path}: page is {said['page']!r}: write one of {', '.join(SECTIONS)}, and a number "
            "for the place in it"
        )
    words = re.sub(r"^\.\. .*\n", "", text, flags=re.MULTILINE).strip()
    return Caption(section, int(place or 0), said.get("title", path.stem.replace("_", " ")), words)


def sections(
    captions: dict[str, Caption], figures: Iterable[str], tables: Iterable[str]
) -> dict[str, list[tuple[str, str]]]:
    """For every section that is not empty, pairs of `figure` or `table` and a name, in order."""
    parts = [
        (captions[name], kind, name)
        for kind, names in (("figure", figures), ("table", tables))
        for name in names
    ]
    parts.sort(key=lambda part: part[0].place)
    found = {
        section: [(kind, name) for caption, kind, name in parts if caption.section == section]
        for section in SECTIONS
    }
    return {section: content for section, content in found.items() if content}


def own_controls(controls: pd.DataFrame) -> pd.DataFrame:
    """Rows of tables/controls.csv that remove as many dimensions as the null space has."""
    return controls[controls["own"].astype(bool)] if "own" in controls else controls


def step_table(folder: Path) -> Table:
    """Time and memory of every rule, from Snakemake's benchmark files."""
    rows = []
    for path in sorted(folder.rglob("*.tsv")):
        measured = pd.read_csv(path, sep="\t", na_values="-").iloc[0]
        step = path.relative_to(folder).parts[0].removesuffix(".tsv")
        rows.append(
            {"step": step, "seconds": float(measured["s"]), "peak_mb": float(measured["max_rss"])}
        )
    frame = pd.DataFrame(rows, columns=["step", "seconds", "peak_mb"]).groupby(
        "step", as_index=False
    )
    gathered = frame.agg(
        jobs=("seconds", "size"),
        seconds=("seconds", "sum"),
        longest=("seconds", "max"),
        peak_mb=("peak_mb", "max"),
    )
    return table(
        "steps",
        "Time and memory of every step",
        gathered,
        ["step", "jobs", "seconds", "longest", "peak_mb"],
    )


def pearson(probes: pd.DataFrame, paper: dict[str, Any], same: pd.DataFrame) -> str:
    """A sentence on the correlation of probe accuracies before and after translation.

    It covers the first space, and is empty if there is no correlation. The paper's number is added
    if the models are those of the paper's chart.
    """
    ours = probes["pearson"].iloc[0]
    if pd.isna(ours):
        return ""
    charted = {model for model, facts in paper["models"].items() if "ratio" in facts}
    here = probes[probes["space"] == probes["space"].iloc[0]]
    theirs = (
        set(here["model"])
        == set(same.loc[same["space"] == here["space"].iloc[0], "model"])
        == charted
    )
    found = (
        f"Pearson's correlation of the two accuracies is {ours:.3f} over "
        f"{int(probes['pearson_n'].iloc[0])} models here"
    )
    return found + (f"; the paper has {paper['pearson']}." if theirs else ".")


def image_headers(several: bool) -> list[str]:
    """Headers of the table of images; `several` adds a column for the space."""
    spaces = ["space"] if several else []
    return [
        "photo",
        "label",
        "model",
        *spaces,
        "IS (°)",
        "AS (°)",
        "angle to label before (°)",
        "after (°)",
        "predicted",
        "file",
    ]


def page_data(
    manifest: pd.DataFrame,
    shown: np.ndarray,
    scores: Frames,
    neighbours: Frames,
    class_names: dict[str, list[str]],
) -> dict[str, Any]:
    """Data of the images on the page, for JSON; `shown` has their positions in the manifest.

    A neighbour is its position among the images shown, -1 for none, or -2 - i for image i of
    `outside`, the paths of neighbours that are not shown.
    """
    position = {int(image): place for place, image in enumerate(shown)}
    outside: dict[int, int] = {}

    def place(image: int) -> int:
        if image < 0 or image in position:
            return position.get(image, -1)
        return -2 - outside.setdefault(image, len(outside))

    def column(values: pd.Series) -> list[Any]:
        return [None if pd.isna(value) else round(float(value), 2) for value in values]

    classes: dict[str, int] = {}
    content: dict[str, dict[str, Any]] = {}
    for space, models in scores.items():
        for model, frame in models.items():
            near = neighbours[space][model]
            names = class_names[model]
            content.setdefault(space, {})[model] = {
                "is": column(frame["is_deg"]),
                "as": column(frame["as_deg"]),
                "before": column(frame["angle_original_deg"]),
                "after": column(frame["angle_equivalent_deg"]),
                "predicted": [
                    classes.setdefault(names[index], len(classes))
                    for index in frame["predicted_index"]
                ],
                "original": [place(int(image)) for image in near["original_id"]],
                "original_deg": column(near["original_deg"]),
                "equivalent": [place(int(image)) for image in near["equivalent_id"]],
                "equivalent_deg": column(near["equivalent_deg"]),
            }
    images = manifest.iloc[shown]
    return {
        "side": tile_side(len(shown)),
        "columns": COLUMNS,
        "several": len(scores) > 1,
        "spaces": list(scores),
        "images": {"path": list(images["path"]), "label": list(images["label"])},
        "classes": list(classes),
        "outside": [manifest["path"].iloc[image] for image in outside],
        "scores": content,
    }


def embedded(png: Path, caption: Caption) -> dict[str, Any]:
    """A figure as base64 WebP, with its caption and its size in pixels."""
    content, width, height = figure_image(Image.open(png, formats=["PNG"]), WIDTH)
    return {"content": content, "caption": caption.text, "width": width, "height": height}


def machine() -> str:
    """System, processor, cores, memory and GPUs of this machine, in words."""
    import psutil

    info = Path("/proc/cpuinfo")
    named = (
        [
            line.partition(":")[2].strip()
            for line in info.read_text().splitlines()
            if line.startswith("model name")
        ]
        if info.exists()
        else []
    )
    memory = psutil.virtual_memory().total / 2**30
    words = [
        platform.system(),
        named[0] if named else platform.machine(),
        f"{os.cpu_count()} cores",
        f"{memory:.0f} GiB of memory",
    ]
    if shutil.which("nvidia-smi"):
        listed = subprocess.run(
            ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            check=False,
        )
        words += listed.stdout.split("\n")[:-1]
    return ", ".join(words)
