"""Peak memory of every step of dvc.yaml for 14 models and 10,000 images, the paper's largest size.

The commands run for one classifier of 4,096 features, the widest in the paper, and one space
widened to 768 dimensions, as of CLIP. Their results stand under 14 names for the steps that gather
all models. The memory of a model is the peak of a process that only loads it, libraries
included. Ends with exit status 1 when a step needs more than the mark besides its model.
"""

import sys
import tempfile
from collections.abc import Sequence
from contextlib import chdir
from pathlib import Path

import common
import numpy as np
import pandas as pd
from common import PER_LABEL, ROOT, Mark, path
from pydantic import Field

from singflow import cli
from singflow.artifacts.tensors import read_tensors, write_tensors
from singflow.config.registry import resolve_models
from singflow.data.manifest import data_root

MODELS = [f"model{number:02d}" for number in range(14)]
MOST_GB = 4.0  # that a step may need besides its model
TOWERS = dict.fromkeys(("extract_head", "extract_features"), "model_entry")
TOWERS |= dict.fromkeys(("embed_images", "embed_prompts", "embed_classes"), "space_entry")
WIDENED = {
    "embeddings": ["embeddings", "image_id", "view"],
    "texts": ["label_embeddings", "concept_embeddings", "target_embeddings"],
    "classes": ["class_embeddings", "other_embeddings"],
}


class Flags(common.Flags):
    images: int = Field(
        1000 * PER_LABEL,
        ge=2 * PER_LABEL,
        le=1000 * PER_LABEL,
        description="number of images, 10 a label",
    )
    classifier: str = Field(
        "torchvision/alexnet.IMAGENET1K_V1",
        description="a model as params.yaml names it, untrained (default: as wide as VGG, but "
        "fast)",
    )
    steps: list[str] = Field(
        [],
        description="steps that are measured (default: all); what they read must be made by steps "
        "before them",
    )


def prepare(images: int, classifier: str) -> None:
    """A project of MODELS, with image files that all differ."""
    entry = resolve_models(ROOT / "config/models.yaml", [classifier], "random")[classifier]
    common.project(MODELS, entry.model_dump())
    contents = [path.read_bytes() for path in sorted(data_root("packaged", ".").glob("imagenet_*"))]
    synsets = pd.read_csv("config/vocab/imagenet_1k.csv")["synset"]
    for number in range(images):
        file = Path("images", synsets[number // PER_LABEL], f"{number}.jpg")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(contents[number % len(contents)] + str(number).encode())


def widen() -> None:
    """Give the space twice its dimensions: every vector beside itself, at its old norm."""
    for artifact, tensors in WIDENED.items():
        read, metadata = read_tensors(path(artifact), tensors)
        write_tensors(
            path(artifact),
            {n: np.tile(t, 2) / np.float32(2**0.5) if t.ndim == 2 else t for n, t in read.items()},
            metadata,
        )


def measure(steps: Sequence[str]) -> pd.DataFrame:
    """Run every step, or those named; one row each."""
    rows = []
    for step, job in common.jobs(steps).items():
        if step == "fit_translator":
            widen()
        cli.log.info("-- %s", step)
        cost = common.measure(job.command)
        common.multiply(job.outs, MODELS)
        model = 0.0
        if step in TOWERS:
            loading = [str(ROOT / "benchmarks/tower.py"), step, str(path(TOWERS[step]))]
            model = common.measure([sys.executable, *loading]).peak
        gb = [size / 1e9 for size in (cost.peak, model, max(cost.peak - model, 0.0))]
        rows.append((step, *gb, cost.seconds))
    columns = ["step", "peak GB", "of which model GB", "besides GB", "seconds"]
    return pd.DataFrame(rows, columns=columns)


def main(flags: Flags) -> None:
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        prepare(flags.images, flags.classifier)
        table = measure(flags.steps)
    common.show(table)
    most = table.loc[table["besides GB"].idxmax()]
    mark = Mark(
        f"{most['step']}: GB besides its model, the most", most["besides GB"], "<=", MOST_GB
    )
    common.hold([mark], flags.ease)


if __name__ == "__main__":
    cli.run_step(main, Flags)
