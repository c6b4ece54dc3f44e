"""Made-up results in the places of the catalog, and the steps that read and write them."""

import runpy
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, get_args

import numpy as np
import pandas as pd

from singflow.artifacts.catalog import CATALOG, Analysis
from singflow.artifacts.files import read_json, write_json
from singflow.artifacts.shards import shard_path
from singflow.artifacts.tables import read_parquet, write_parquet
from singflow.artifacts.tensors import write_tensors
from singflow.translators.ridge import Affine
from tests import warm
from tests.data.manifests import whole
from tests.project import ROOT

# Columns of tables/models.csv that other tables repeat.
BASIS = {"rank_rule": "exact", "null_dim": 7, "validation_r2": 0.1, "translator": "weak"}
BASIS |= {"marks": "weak translator", "seed": 3}
# The reports of a model, as summarize reads them.
TRANSLATOR = {
    "alpha": 10.0, "lambda": 1.0, "lambda_at_edge": False, "folds": 5, "in_sample": False,
    "reference": None, "validation_cosine": 0.7, "baseline_cosine": 0.5, "validation_r2": 0.3,
    "n_train": 80, "n_validation": 20, "permuted_r2": 0.001, "left_out": None, "near_copies": 0,
    "n_compared": 20,
}  # fmt: skip
EVIDENCE = {
    "n": 640, "known_zero": False, "known_leak": False, "r2_words": 0.4, "unique_r2": 0.06,
    "unique_r2_low": 0.03, "unique_r2_high": 0.09, "margin": 0.005, "p": 0.01, "turn_deg": 9.0,
    "turn_low_deg": 6.0, "turn_high_deg": 12.0, "detectable": 0.059, "detectable_first": 0.012,
    "gain": 0.2, "null_r2": 0.12, "blind_unique_r2": 0.001,
    "floor_is_deg": 4.6, "floor_is_sd": 0.1,
}  # fmt: skip
MEASURED = {"n", "known_zero", "known_leak", "r2_words", "margin", "floor_is_deg", "floor_is_sd"}
UNMEASURED = dict.fromkeys(EVIDENCE.keys() - MEASURED)  # without an interval of D
PROJECTOR = {"null_dim": 280, "rank": 1000, "rule": "exact", "weight_dtype": "float32"}
PROJECTOR |= {"rank_stored": 1000, "rank_float64": 1000, "top1": None, "top1_images": 0}
ANALYSES = list(get_args(Analysis))


@cache
def script(step: str) -> dict[str, Any]:
    """What a step's program defines."""
    if step.startswith("plot_"):
        return vars(import_module(f"singflow.figures.{step}"))
    return runpy.run_path(str(ROOT / f"scripts/{step}.py"), run_name=step)


class Results:
    """A results folder with one model and one space, unless a call names others."""

    def __init__(self, folder: Path, model: str = "m", space: str = "s", shards: int = 1) -> None:
        self.folder, self.model, self.space, self.shards = folder, model, space, shards

    def of(self, model: str) -> "Results":
        return Results(self.folder, model, self.space, self.shards)

    def path(self, artifact: str, **names: str) -> Path:
        own = {"model": self.model, "space": self.space, "shard": "00000"}
        return CATALOG[artifact].at(self.folder, **(own | names))

    def manifest(self, **columns: Any) -> None:
        write_parquet(self.path("manifest"), whole(pd.DataFrame(columns)))

    def tensors(
        self, artifact: str, metadata: dict[str, str] | None = None, **tensors: Any
    ) -> None:
        write_tensors(self.path(artifact), tensors, metadata or {})

    def rows(self, artifact: str, array: np.ndarray, **facts: str) -> None:
        """Features or embeddings of whole images, and a second view that must not count."""
        for shard, images in enumerate(np.array_split(np.arange(len(array)), self.shards)):
            both = np.concatenate([array[images], np.full_like(array[images], 9)])
            view = np.repeat(np.arange(2, dtype=np.int32), len(images))
            self.shard(artifact, shard, both, np.tile(images, 2), view, **facts)

    def shard(
        self,
        artifact: str,
        shard: int,
        array: np.ndarray,
        image_id: np.ndarray,
        view: np.ndarray,
        **facts: str,
    ) -> None:
        tensors = {artifact: array, "image_id": image_id, "view": view}
        write_tensors(shard_path(self.path(artifact).parent, shard), tensors, facts)

    def translator(self, translator: Affine, folds: Sequence[Affine] = (), **facts: str) -> None:
        tensors = {"weight": translator.weight, "bias": translator.bias}
        for name in ("weight", "bias") if folds else ():
            tensors[f"fold_{name}"] = np.stack([getattr(fold, name) for fold in folds])
        made = {"kind": "linear", "folds": str(len(folds))} | facts
        write_tensors(self.path("translator"), tensors, made)

    def texts(self, names: dict[str, list[str]], **tensors: np.ndarray) -> None:
        """Names of labels, concepts and targets, and the embeddings of their texts."""
        write_json(self.path("names"), names)
        self.tensors("texts", **tensors)

    def models(self, null_dims: dict[str, int], **columns: Any) -> None:
        """tables/models.csv, with the dimensions of each model's null space."""
        own = [
            {"space": self.space, "model": model} | BASIS | {"null_dim": null_dim} | columns
            for model, null_dim in null_dims.items()
        ]
        self.path("tables/models.csv").parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(own).to_csv(self.path("tables/models.csv"), index=False)

    def flags(self, step: str, **flags: Any) -> dict[str, Any]:
        """Values of a step's flags: those given, and those that every step has."""
        known = {"results": self.folder, "shards": self.shards, "threads": 1}
        known |= {"model": self.model, "models": [self.model]}
        known |= {"space": self.space, "spaces": [self.space], "analyses": ANALYSES}
        fields = script(step)["Flags"].model_fields
        return {name: value for name, value in known.items() if name in fields} | flags

    def words(self, step: str, **flags: Any) -> list[str]:
        """The flags of a step on a command line."""
        given = self.flags(step, **flags).items()
        listed = {name: value if isinstance(value, list) else [value] for name, value in given}
        return [str(word) for name, values in listed.items() for word in (f"--{name}", *values)]

    def run(self, step: str, **flags: Any) -> None:
        script(step)["main"](script(step)["Flags"](**self.flags(step, **flags)))

    def start(self, step: str, cwd: Path, **flags: Any) -> CompletedProcess[str]:
        """Run a step as a program, in a folder."""
        return warm.run(ROOT / f"scripts/{step}.py", *self.words(step, **flags), cwd=cwd)

    def read(self, artifact: str, **names: str) -> Any:
        path = self.path(artifact, **names)
        readers = {".parquet": read_parquet, ".json": read_json, ".csv": pd.read_csv}
        return readers[path.suffix](path)
