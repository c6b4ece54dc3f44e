"""Peak memory and time of scan_concepts with a vocabulary of 100,000 words.

The features are made up: 10,000 images of 1,000 labels, 512 features, 768 dimensions. They lie in a
temporary folder, which needs 5 GB of disk. Prints the peak memory beyond the concepts' text
embeddings. Ends with exit status 1 when it is above the limit.
"""

import os
import sys
import tempfile

import numpy as np
import pandas as pd
from memory import MODELS, RESULTS, ROOT, SPACE, measure, path
from pydantic import Field

from singflow import cli
from singflow.analyses.geometry import random_basis
from singflow.analyses.metrics import unit
from singflow.artifacts.files import write_json
from singflow.artifacts.tables import write_parquet
from singflow.artifacts.tensors import write_tensors
from singflow.errors import InputError

WIDTH = 512
DIM = 768


class Flags(cli.Command):
    """Peak memory and time of scan_concepts with a large vocabulary."""

    images: int = Field(10_000, ge=1, description="number of images")
    labels: int = Field(1_000, ge=1, description="number of labels, at most as many as images")
    concepts: int = Field(100_000, ge=1, description="number of concepts")
    threads: int = Field(2, ge=1, description="threads of the step")
    limit_gb: float = Field(
        1.0, gt=0, description="memory allowed beyond the text embeddings, in units of 10^9 bytes"
    )


def prepare(flags: Flags) -> None:
    """Write the inputs of scan_concepts into the working folder."""
    generator = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return generator.standard_normal(shape, dtype=np.float32)

    labels = [f"label {number:04d}" for number in range(flags.labels)]
    manifest = pd.DataFrame(
        {"image_id": np.arange(flags.images), "label": np.resize(labels, flags.images)}
    )
    texts, numbers = (
        dict.fromkeys(("path", "prompt", "split", "sha256"), "-"),
        dict.fromkeys(("class_index", "fold", "width", "height"), 1),
    )
    write_parquet(path("manifest"), manifest.assign(**texts, **numbers))
    places = {"image_id": np.arange(flags.images), "view": np.zeros(flags.images, dtype=np.int32)}
    write_tensors(path("features"), {"features": normal(flags.images, WIDTH), **places}, {})
    write_tensors(path("projector"), {"null_basis": random_basis(WIDTH, WIDTH // 4, 0, 0)}, {})
    write_tensors(
        path("translator"), {"weight": normal(DIM, WIDTH), "bias": normal(DIM)}, {"kind": "linear"}
    )
    write_tensors(
        path("texts"),
        {"concept_embeddings": unit(normal(flags.concepts, DIM)).astype(np.float32)},
        {},
    )
    concepts = [f"concept {number:06d}" for number in range(flags.concepts)]
    write_json(path("names"), {"labels": labels, "concepts": concepts})


def judge(beyond: float, limit_gb: float) -> None:
    """Raises InputError when the memory (GB) beyond the text embeddings is above the limit."""
    if beyond > limit_gb:
        raise InputError(
            f"scan_concepts needs {beyond:.2f} GB beyond the text embeddings, "
            f"above the limit of {limit_gb:g} GB"
        )


def main(flags: Flags) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        prepare(flags)
        command = [sys.executable, str(ROOT / "scripts/scan_concepts.py")]
        command += ["--results", str(RESULTS), "--model", MODELS[0], "--space", SPACE]
        command += ["--shards", "1", "--threads", str(flags.threads)]
        peak, seconds = measure(command)
        size = path("concepts").stat().st_size / 1e9
        os.chdir(ROOT)
    texts = flags.concepts * DIM * 4 / 1e9
    beyond = peak * 2**30 / 1e9 - texts
    print(
        f"peak {beyond:.2f} GB beyond the text embeddings ({texts:.2f} GB), {seconds:.0f} s, "
        f"{size:.2f} GB written"
    )
    judge(beyond, flags.limit_gb)


if __name__ == "__main__":
    cli.run_step(main, Flags)
