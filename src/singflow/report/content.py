"""What the page of a study is made of: its tables, its images and figures; and what its run took, on what machine."""

import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from singflow.report_tables import Table, table
from singflow.thumbnails import COLUMNS, figure_image, tile_side

WIDTH = 1600  # pixels of an embedded figure
CRITERIA = {
    "is_per_as": "IS/|AS| (the paper's)",
    "is_per_as_over_control": "IS/|AS| over that of random subspaces",
    "is_per_as_equal_dim": "IS/|AS| with equally many null directions",
    "is": "IS",
    "is_excess": "IS less that of random subspaces",
    "is_per_control": "IS over that of random subspaces",
    "as_abs": "|AS|, least first",
    "as_abs_excess": "|AS| less that of random subspaces, least first",
    "as_abs_per_control": "|AS| over that of random subspaces, least first",
}

Frames = dict[str, dict[str, pd.DataFrame]]


def page_tables(csv: dict[str, pd.DataFrame], rejected: pd.DataFrame, paper: dict[str, Any], several: bool) -> dict[str, Table]:
    """The tables of the page, with the paper's numbers (report/paper.yaml) beside ours; several: the study has several spaces."""
    steered = csv["table1"].assign(paper_as=np.nan)
    for model, (mean, _) in paper["table1"]["models"].items():
        steered.loc[(steered["model"] == model) & (steered["prompt"] == paper["table1"]["prompt"]), "paper_as"] = mean
    fitted = csv["table2"].copy()
    fitted["paper_cosine"], fitted["paper_mse"] = ([paper["table2"][kind][place] for kind in fitted["kind"]] for place in (0, 1))
    ladder = csv["angle_ladder"].copy()
    ladder["paper_as"] = [paper["ladder"].get(target, np.nan) for target in ladder["target_is_deg"]]
    labels = csv["labels"].sort_values(["leak_q", "as_abs_deg_mean"], ascending=[True, False], kind="stable")
    named = {name: csv[name].assign(criterion=csv[name]["criterion"].map(CRITERIA)) for name in ("orders", "model_pairs")}
    ordered = named["orders"].sort_values(["space", "criterion", "place"], kind="stable")
    own = own_controls(csv["controls"])
    heads = csv["models"].assign(
        paper_null_dim=[paper["null_dims"].get(size, np.nan) for size in csv["models"]["rank"] + csv["models"]["null_dim"]]
    )
    files = rejected.groupby("reason")["path"].transform("size")
    left_out = rejected.assign(files=files).sort_values(["files", "reason"], kind="stable")
    specs = [
        ("models", "Every model's scores", heads,
         "space model n_images null_dim paper_null_dim top1 reported_top1 is_mean is_low is_high as_mean as_abs_mean is_per_as "
         "control_is_mean is_per_control validation_r2 translator note"),
        ("controls", "Against random subspaces of the same size", own,
         "space model dimension n is_deg_null is_deg_random is_deg_excess_random is_deg_excess_random_low is_deg_excess_random_high "
         "translator"),
        ("orders", "The models' order by nine criteria", ordered, "space criterion place model value low high n translator"),
        ("model_pairs", "Which models differ", named["model_pairs"], "space criterion model_a model_b difference low high p_holm differ n"),
        ("labels", "Every label", labels,
         "space model label n is_deg_mean as_deg_mean as_abs_deg_mean leak_q leaks translator"),
        ("label_correlations", "Do models leak on the same labels?", csv["label_correlations"], "space model_a model_b spearman p_holm"),
        ("concepts", "Concepts that move most and least", csv["concepts"],
         "space model label kind place concept n angle_mean_deg as_mean_deg as_abs_mean_deg translator"),
        ("spurious", "Near, and hardly moved: candidates for spurious cues", csv["spurious"],
         "space model label concept n angle_mean_deg lift_deg as_abs_mean_deg translator"),
        ("angle_ladder", "The steps of figure 10", ladder,
         "space model path label text target_is_deg is_deg as_text_deg as_label_deg logit_change paper_as"),
        ("validation", "Null, random and principal perturbations", csv["validation"],
         "model perturbation n logit_change_mean top1_changed_share note"),
        ("table1", "Steering toward a text", steered,
         "space model prompt target_is_deg n n_reachable as_target_mean_deg as_target_std_deg paper_as logit_change_max translator"),
        ("table2", "Translators", fitted,
         "space model kind loss validation_cosine validation_mse validation_r2 paper_cosine paper_mse translator"),
        ("probes", "Is what the logits see still there after translation?", csv["probes"],
         "space model n accuracy_principal accuracy_translated chance note"),
        ("rejected", "Files left out, rare reasons first", left_out, "path reason files"),
    ]  # fmt: skip
    return {
        name: table(name, caption, frame, [each for each in columns.split() if several or each != "space"])
        for name, caption, frame, columns in specs
    }


def own_controls(controls: pd.DataFrame) -> pd.DataFrame:
    """The rows of tables/controls.csv at each null space's own dimension; none when no model has a null space."""
    return controls[controls["own"].astype(bool)] if "own" in controls else controls


def step_table(folder: Path) -> Table:
    """Time and memory of every rule, of Snakemake's benchmark files."""
    rows = []
    for path in sorted(folder.rglob("*.tsv")):
        measured = pd.read_csv(path, sep="\t", na_values="-").iloc[0]
        step = path.relative_to(folder).parts[0].removesuffix(".tsv")
        rows.append({"step": step, "seconds": float(measured["s"]), "peak_mb": float(measured["max_rss"])})
    frame = pd.DataFrame(rows, columns=["step", "seconds", "peak_mb"]).groupby("step", as_index=False)
    gathered = frame.agg(jobs=("seconds", "size"), seconds=("seconds", "sum"), longest=("seconds", "max"), peak_mb=("peak_mb", "max"))
    return table("steps", "Time and memory of every step", gathered, ["step", "jobs", "seconds", "longest", "peak_mb"])


def pearson(probes: pd.DataFrame, paper: dict[str, Any]) -> str:
    """The correlation of figure 12, beside the paper's."""
    ours = probes["pearson"].iloc[0]
    found = "cannot be computed here" if pd.isna(ours) else f"is {ours:.3f} over {int(probes['pearson_n'].iloc[0])} models here"
    return f"Pearson's correlation of the two accuracies over models {found}; the paper has {paper['pearson']} over 13."


def image_headers(several: bool) -> list[str]:
    """Headers of the table of images."""
    spaces = ["space"] if several else []
    return ["photo", "label", "model", *spaces, "IS (°)", "AS (°)", "angle to label before (°)", "after (°)", "predicted", "file"]


def page_data(
    manifest: pd.DataFrame, shown: np.ndarray, scores: Frames, neighbours: Frames, class_names: dict[str, list[str]]
) -> dict[str, Any]:
    """What the page knows of the images shown (n,), positions in the manifest.

    scores, neighbours: space -> model -> table, of the images shown; class_names: of each model's head. Neighbours are positions among
    the images shown; -1: none; -2 and below: place in `outside`, the paths of images that are not shown.
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
                "predicted": [classes.setdefault(names[index], len(classes)) for index in frame["predicted_index"]],
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


def embedded(png: Path, caption: Path) -> dict[str, Any]:
    """A figure as the page holds it."""
    content, width, height = figure_image(Image.open(png, formats=["PNG"]), WIDTH)
    return {"content": content, "caption": caption.read_text(encoding="utf-8").strip(), "width": width, "height": height}


def machine() -> str:
    """The machine in words: system, processor, cores, memory and GPUs."""
    import psutil

    info = Path("/proc/cpuinfo")
    named = (
        [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    )
    memory = psutil.virtual_memory().total / 2**30
    words = [platform.system(), named[0] if named else platform.machine(), f"{os.cpu_count()} cores", f"{memory:.0f} GiB of memory"]
    if shutil.which("nvidia-smi"):
        listed = subprocess.run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True, check=False)
        words += listed.stdout.split("\n")[:-1]
    return ", ".join(words)
