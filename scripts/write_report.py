"""Write the page that holds a study: one file, which opens without a network."""

import json
import os
import platform
import shutil
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from singflow import cli
from singflow.config import Report, read_yaml
from singflow.data import data_root
from singflow.figures import colour
from singflow.images import read_unchanged
from singflow.parallel import map_ahead
from singflow.registry import read_model, read_space
from singflow.report import (
    Table,
    libraries,
    ranking_chart,
    render,
    sample,
    scatter_chart,
    table,
    verdict,
    warnings,
    what_leaks,
)
from singflow.store import read_parquet, read_tensors, write_bytes
from singflow.thumbnails import COLUMNS, figure_image, sheets, tile, tile_side
from singflow.vocabulary import read_class_list

SYMBOLS = ["circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x", "star"]
FIGURES = ["fig1", "fig4", "fig5", "fig6", "fig7", "fig8", "fig9", "fig10", "fig11", "fig12", "fig13", "fig15", "controls", "rank_curves"]
WIDTH = 1600  # pixels of an embedded figure


class Flags(Report, cli.Command):
    """Write the page that holds a study: one file, which opens without a network."""

    study: str
    models: list[str]
    spaces: list[str]
    results: Path
    template: Path
    captions: Path
    paper: Path
    params: Path
    classes: Path
    source: str
    root: str
    max_pixels: int
    confidence: float
    min_r2: float
    seed: int
    threads: int
    output: Path


def main(flags: Flags) -> None:
    results = flags.results
    csv = {path.stem: pd.read_csv(path, keep_default_na=False, na_values=[""]) for path in sorted((results / "tables").glob("*.csv"))}
    manifest, rejected = read_parquet(results / "data/manifest.parquet"), pd.read_csv(results / "data/rejected.csv", dtype=str)
    paper = read_yaml(flags.paper)
    shown = sample(len(manifest), len(flags.models) * len(flags.spaces), flags.max_images, flags.seed)
    colours = {model: colour(number) for number, model in enumerate(flags.models)}
    symbols = {model: SYMBOLS[number % len(SYMBOLS)] for number, model in enumerate(flags.models)}
    scores = {s: {m: read_parquet(results / f"scores/{s}/{m}.parquet").iloc[shown] for m in flags.models} for s in flags.spaces}
    entries = {space: read_space(results / f"registry/spaces/{space}.json") for space in flags.spaces}
    tables = page_tables(csv, rejected, paper) | {"steps": step_table(results / "benchmarks")}
    spaces = [
        {
            "name": space,
            "verdict": verdict(csv["models"], csv["model_pairs"], csv["orders"], space, paper),
            "leaks": what_leaks(csv["models"], csv["labels"], csv["concepts"], space),
            "ranking": ranking_chart(csv["models"], space, colours),
            "scatter": scatter_chart(scores[space], colours, symbols),
        }
        for space in flags.spaces
    ]
    made = [read_tensors(results / f"features/{model}/head.safetensors", [])[1] for model in flags.models]
    seen = [read_tensors(results / f"embeddings/{space}/shard-00000.safetensors", [])[1] for space in flags.spaces]
    models = [read_model(results / f"registry/models/{model}.json") for model in flags.models]
    sources = [f"{entry.source}: {entry.id}, {entry.weights}" for entry in models] + [entry.source for entry in entries.values()]
    names = [*flags.models, *flags.spaces]
    software = sorted({pair for each in [*made, *seen] for pair in json.loads(each["software"]).items()})
    page = render(
        flags.template.read_text(encoding="utf-8"),
        {
            "study": flags.study,
            "models": flags.models,
            "spaces": spaces,
            "percent": f"{100 * flags.confidence:g} %",
            "warnings": warnings(csv["models"], {name: entry.source for name, entry in entries.items()}, flags.min_r2),
            "contents": [
                ("summary", "Summary"), ("models", "Models"), ("labels", "Labels"), ("concepts", "Concepts"), ("images", "Images"),
                ("pictures", "Pictures"), ("checks", "Trust"), ("provenance", "Provenance"), ("run", "This run"),
            ],
            "counts": {
                "images": len(manifest), "labels": manifest["label"].nunique(), "held_out": int((manifest["split"] == "validation").sum()),
                "rejected": len(rejected), "found": len(manifest) + len(rejected), "shown": len(shown),
            },
            "tables": tables,
            "figures": {name: embedded(results / f"figures/{name}.png", flags.captions / f"{name}.rst") for name in FIGURES},
            "image_headers": image_headers(len(flags.spaces) > 1),
            "pearson": pearson(csv["probes"], paper),
            "software": software,
            "weights": [(name, source, each["weights_sha256"]) for name, source, each in zip(names, sources, [*made, *seen], strict=True)],
            "params": flags.params.read_text(encoding="utf-8"),
            "machine": machine(),
            "data": page_data(flags, manifest, shown, scores, {m: json.loads(e["class_names"]) for m, e in zip(flags.models, made, strict=True)}),
            "sheets": thumbnails(flags, manifest.iloc[shown]),
            "libraries": libraries(),
        },
    )  # fmt: skip
    write_bytes(flags.output, page.encode())
    cli.log.info("%s: %.1f MB, %d of %d images one by one", flags.output, len(page.encode()) / 1e6, len(shown), len(manifest))


def page_tables(csv: dict[str, pd.DataFrame], rejected: pd.DataFrame, paper: dict[str, Any]) -> dict[str, Table]:
    """The tables of the page, with the paper's numbers beside ours."""
    steered = csv["table1"].assign(paper_as=None)
    for model, (mean, _) in paper["table1"]["models"].items():
        steered.loc[(steered["model"] == model) & (steered["prompt"] == paper["table1"]["prompt"]), "paper_as"] = mean
    fitted = csv["table2"].copy()
    fitted["paper_cosine"], fitted["paper_mse"] = ([paper["table2"][kind][place] for kind in fitted["kind"]] for place in (0, 1))
    ladder = csv["angle_ladder"].copy()
    ladder["paper_as"] = [paper["ladder"].get(target) for target in ladder["target_is_deg"]]
    own = csv["controls"][csv["controls"]["own"].astype(bool)]
    specs = [
        ("models", "Every model's scores", csv["models"],
         "space model n_images null_dim top1 reported_top1 is_mean is_low is_high as_mean as_abs_mean is_per_as control_is_mean is_per_control "
         "validation_r2 translator note"),
        ("controls", "Against random subspaces of the same size", own,
         "space model dimension n is_deg_null is_deg_random is_deg_excess_random is_deg_excess_random_low is_deg_excess_random_high translator"),
        ("orders", "The models' order by nine criteria", csv["orders"], "space criterion place model value low high n translator"),
        ("model_pairs", "Which models differ", csv["model_pairs"], "space criterion model_a model_b difference low high p_holm differ n"),
        ("labels", "Every label", csv["labels"],
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
        ("table2", "Translators", fitted, "space model kind loss validation_cosine validation_mse validation_r2 paper_cosine paper_mse translator"),
        ("probes", "Is what the logits see still there after translation?", csv["probes"],
         "space model n accuracy_principal accuracy_translated chance note"),
        ("rejected", "Files left out", rejected, "path reason"),
    ]  # fmt: skip
    return {name: table(name, caption, frame, columns.split()) for name, caption, frame, columns in specs}


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


def pearson(probes: pd.DataFrame, paper: dict[str, Any]) -> str:
    """The correlation of figure 12, beside the paper's."""
    ours = probes["pearson"].iloc[0]
    found = "cannot be computed here" if pd.isna(ours) else f"is {ours:.3f} over {int(probes['pearson_n'].iloc[0])} models here"
    return f"Pearson's correlation of the two accuracies over models {found}; the paper has {paper['pearson']} over 13."


def embedded(png: Path, caption: Path) -> dict[str, Any]:
    """A figure as the page holds it."""
    image = Image.open(png)
    width = min(WIDTH, image.width)
    return {
        "content": figure_image(image, WIDTH),
        "caption": caption.read_text(encoding="utf-8").strip(),
        "width": width,
        "height": round(image.height * width / image.width),
    }


def image_headers(several: bool) -> list[str]:
    """Headers of the table of images."""
    spaces = ["space"] if several else []
    return ["", "label", "model", *spaces, "IS (°)", "AS (°)", "angle to label before (°)", "after (°)", "predicted", "file"]


def page_data(
    flags: Flags, manifest: pd.DataFrame, shown: Any, scores: dict[str, dict[str, pd.DataFrame]], class_names: dict[str, list[str] | None]
) -> dict[str, Any]:
    """What the page knows of single images. Neighbours are positions among the images shown; -1: none; -2 and below: place in `outside`."""
    position = {int(image): place for place, image in enumerate(shown)}
    outside: dict[int, int] = {}
    default = read_class_list(flags.classes)

    def place(image: int) -> int:
        if image < 0 or image in position:
            return position.get(image, -1)
        return -2 - outside.setdefault(image, len(outside))

    def column(values: pd.Series) -> list[Any]:
        return [None if pd.isna(value) else round(float(value), 2) for value in values]

    content: dict[str, dict[str, Any]] = {}
    for space, models in scores.items():
        for model, frame in models.items():
            near = read_parquet(flags.results / f"neighbours/{space}/{model}.parquet").iloc[shown]
            names = class_names[model] or default
            content.setdefault(space, {})[model] = {
                "is": column(frame["is_deg"]),
                "as": column(frame["as_deg"]),
                "before": column(frame["angle_original_deg"]),
                "after": column(frame["angle_equivalent_deg"]),
                "predicted": [names[index] for index in frame["predicted_index"]],
                "original": [place(int(image)) for image in near["original_id"]],
                "original_deg": column(near["original_deg"]),
                "equivalent": [place(int(image)) for image in near["equivalent_id"]],
                "equivalent_deg": column(near["equivalent_deg"]),
            }
    images = manifest.iloc[shown]
    return {
        "side": tile_side(len(shown)),
        "columns": COLUMNS,
        "several": len(flags.spaces) > 1,
        "spaces": flags.spaces,
        "images": {"path": list(images["path"]), "label": list(images["label"])},
        "outside": [manifest["path"].iloc[image] for image in outside],
        "scores": content,
    }


def thumbnails(flags: Flags, images: pd.DataFrame) -> list[str]:
    """Sheets of the images' thumbnails, in their order."""
    root, side = data_root(flags.source, flags.root), tile_side(len(images))

    def small(row: Any) -> Image.Image:
        return tile(read_unchanged(root, row.path, row.sha256, flags.max_pixels), side)

    progress = partial(cli.progress, total=len(images), unit="images", description="thumbnails")
    return sheets(progress(map_ahead(small, images.itertuples(index=False), flags.threads)), side)


if __name__ == "__main__":
    cli.run(main, Flags)
