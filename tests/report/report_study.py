"""Random artifacts of a study that the page shows, and the page that write_report makes of them."""

import contextlib
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from singflow.artifacts.catalog import FIGURES
from singflow.artifacts.files import write_bytes, write_json
from singflow.artifacts.tables import read_table, write_parquet, write_table
from singflow.artifacts.tensors import provenance, write_tensors
from singflow.config.registry import ModelEntry
from singflow.figures.style import panels, save
from tests.project import ROOT
from tests.results import ANALYSES, EVIDENCE, PROJECTOR, TRANSLATOR, UNMEASURED, Results

NULL_DIM = 12
FOUND = [  # D of each model, beyond the margin and not, without each fold, with its interval and p
    {
        "unique_r2": d, "unique_r2_low": d - 0.01, "unique_r2_high": d + 0.01,
        "unique_r2_without": [d + 0.003, d, d, d - 0.003], "turn_deg": 200 * d, "p": p,
    }
    for d, p in ((0.05, 0.001), (0.0, 0.5))
]  # fmt: skip
HOSTILE = "<script>alert(1)</script>"
LABELS = [HOSTILE, "<b>bold</b> & 'quoted'", "01", "None", "teapot"]


@cache
def drawing() -> dict[str, bytes]:
    """A figure, which stands for all, by format."""
    figure, ((axes,),) = panels(1, 1, (8, 2))
    axes.set_title("a figure")
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"figure.{kind}") for kind in ("png", "svg")]
        save(figure, *paths)
        return {path.suffix: path.read_bytes() for path in paths}


def write_study(
    folder: Path,
    models: Sequence[str] = ("m1", "m2"),
    spaces: Sequence[str] = ("s",),
    *,
    n: int = 24,
    labels: Sequence[str] = LABELS,
    null_dims: Sequence[int] = (NULL_DIM, NULL_DIM),
    weights: str = "hub",
    r2: float = 0.4,
    extras: bool = True,
) -> None:
    """Write the artifacts. `extras`: whether tables of extras have rows."""
    generator, results = np.random.default_rng(0), Results(folder / "results")
    place = results.path
    numbers, paths = np.arange(n), [f"photos/{number:05d}.png" for number in range(n)]
    manifest = pd.DataFrame(
        {
            "image_id": numbers, "path": paths, "class_index": -1, "prompt": "", "width": 60,
            "label": [labels[number % len(labels)] for number in numbers], "height": 60,
            "split": ["train" if number % 4 else "validation" for number in numbers],
            "sha256": [f"{number:064x}" for number in numbers],
            "fold": numbers.astype(np.int32) % 4,
        }
    )  # fmt: skip
    write_parquet(place("manifest"), manifest)
    write_bytes(place("rejected"), f"path,reason\n{HOSTILE}.jpg,not an image\n".encode())
    entry = ModelEntry(source="timm", id="tiny.random", weights=weights)
    two = np.eye(2, dtype=np.float32)
    for model in models:
        write_json(place("model_entry", model=model), entry.model_dump())
        made = facts(class_names=[HOSTILE, "b"])
        write_tensors(place("head", model=model), {"weight": two}, made)
    for space in spaces:
        conse = {"source": "conse", "dim": 8, "text": "package:x", "temperature": 2.0, "top": 10}
        conse["classifier"] = entry.model_dump()
        write_json(place("space_entry", space=space), conse)
        write_tensors(place("texts", space=space), {"label_embeddings": two}, facts())
        for number, (model, null_dim) in enumerate(zip(models, null_dims, strict=True)):
            made = facts(space_sha256="0" * 64)
            write_tensors(place("translator", space=space, model=model), {"weight": two}, made)
            scale = (1 + number) * (null_dim > 0)
            uniform, normal = generator.uniform, generator.normal
            drawn = pd.DataFrame(
                {
                    "image_id": numbers, "label": manifest["label"], "class_index": -1,
                    "predicted_index": numbers % 2, "fold": numbers % 5,
                    "null_energy": 0.1, "logit_change": 1e-7,
                    "is_deg": scale * uniform(4, 9, n), "as_deg": scale * normal(0, 1, n),
                    "angle_original_deg": uniform(40, 60, n),
                    "angle_equivalent_deg": uniform(40, 60, n),
                    "as_contrast_deg": scale * normal(0, 1, n) if len(labels) > 1 else np.nan,
                    "floor_is_deg": scale * uniform(3, 5, n),
                }
            )  # fmt: skip
            write_parquet(place("scores", space=space, model=model), drawn)
            written = {
                "projector_report": PROJECTOR | {"null_dim": null_dim},
                "translator_report": TRANSLATOR | {"validation_r2": r2},
                "evidence": EVIDENCE | {"n": n} | (FOUND[number] if null_dim else UNMEASURED),
            }
            for name, report in written.items():
                write_json(place(name, space=space, model=model), report)
            found = {"unique_r2_low": 0.1, "unique_r2_high": 0.3, "p": 0.001, "hidden": True}
            found |= {"unique_r2": [0.2, 0.25]}
            texts, groups = [HOSTILE, "fur"], [labels[0], "few"]
            tables = {
                "evidence_texts": pd.DataFrame({"text": texts, "kind": "label"} | found),
                "evidence_groups": pd.DataFrame(
                    {"group": groups, "by": "label", "n": 12} | found | {"p": [0.001, np.nan]}
                ),
            }
            for name, table in tables.items():
                write_parquet(place(name, space=space, model=model), table)
            named = dict.fromkeys(("translated", "equivalent", "embedding"), drawn["label"])
            named = drawn[["image_id", "label"]].assign(**named)
            write_parquet(place("zero_shot", space=space, model=model), named)
    write_tables(folder, models, spaces)
    summary = read_table(place("tables/models.csv"))
    some = summary[["space", "model"]] if extras else summary.iloc[:0][["space", "model"]]
    path, text, label = "photos/00000.png", "an image of a jellyfish", labels[0]
    probed = 0.5 if extras else np.nan
    tables = {
        "concepts": some.assign(label=label, kind="strongest", concept=HOSTILE, as_mean_deg=1.0),
        "spurious": some.assign(label=label, concept="fur", lift_deg=9.0, contrast_deg=0.1),
        "angle_ladder": some.assign(path=path, label=label, text=text, is_deg=4.0, as_text_deg=2.0),
        "steering": some.assign(
            prompt=text, target_is_deg=5.0, n=n, n_reachable=n, as_target_mean_deg=3.0,
            as_target_std_deg=0.1,
        ),
        "translators": some.assign(kind="linear", validation_cosine=0.7, validation_r2=r2, n=6),
        "probes": summary[["space", "model"]].assign(
            n=9, accuracy_principal=probed, chance=0.2, note="", pearson=np.nan,
            pearson_n=len(models),
        ),
        "null_validation": pd.DataFrame({"model": models, "perturbation": "null", "n": n}),
    }  # fmt: skip
    for name, frame in tables.items():
        write_table(place(f"tables/{name}.csv"), frame)
    for name in FIGURES:
        for suffix, content in drawing().items():
            write_bytes(place(f"figures/{name}{suffix}"), content)


def write_tables(
    folder: Path,
    models: Sequence[str] = ("m1", "m2"),
    spaces: Sequence[str] = ("s",),
    *,
    analyses: Sequence[str] = ANALYSES,
) -> None:
    """Run summarize and compare_models on the artifacts of write_study."""
    shown = {"models": [*models], "spaces": [*spaces], "analyses": [*analyses]}
    with contextlib.chdir(ROOT):
        results = Results(folder / "results")
        results.run("summarize", **shown, resamples=100, top1_margin=10.0, seed=0)
        results.run("compare_models", **shown, confidence=0.95)


def facts(**more: object) -> dict[str, str]:
    return provenance(["pandas"], weights_sha256="0" * 64, **more)


def write_page(
    folder: Path,
    models: Sequence[str] = ("m1", "m2"),
    spaces: Sequence[str] = ("s",),
    *,
    max_images: int = 100,
    confidence: float = 0.95,
    analyses: Sequence[str] = ANALYSES,
) -> str:
    """Run write_report on the artifacts of write_study and return the page."""
    params = (ROOT / "params.yaml").read_text(encoding="utf-8")
    params = params.replace("  root: . ", f"  root: {folder} ")
    (folder / "results/params.yaml").write_text(f"{params}# {HOSTILE}\n", encoding="utf-8")
    flags = {
        "models": [*models], "spaces": [*spaces], "analyses": [*analyses],
        "max_images": max_images, "min_r2": 0.2, "classes": "config/vocab/imagenet_1k.csv",
        "confidence": confidence, "seed": 0,
    }  # fmt: skip
    with contextlib.chdir(ROOT):
        Results(folder / "results").run("write_report", **flags)
    return (folder / "results/report.html").read_text(encoding="utf-8")
