"""Peak memory and time of scan_concepts with a vocabulary of 100,000 words, on made-up features.

The temporary folder needs 5 GB of disk. Ends with exit status 1 when the peak memory beyond the
concepts' text embeddings and three copies of the results is above the mark.
"""

import tempfile
from contextlib import chdir

import common
import numpy as np
from common import Mark, normal, size

from singflow import cli
from singflow.analyses.geometry import random_basis
from singflow.analyses.metrics import unit
from singflow.artifacts.files import write_json

WIDTH, DIM = 512, 768


class Flags(common.Flags):
    images: int = size(10_000, 1, "number of images")
    labels: int = size(1_000, 1, "number of labels, at most as many as images")
    concepts: int = size(100_000, 1, "number of concepts")
    threads: int = size(2, 1, "threads of the step")


def prepare(flags: Flags) -> None:
    """Write the inputs of scan_concepts into the working folder."""
    labels, ids = common.write_manifest(flags.images, flags.labels), np.arange(flags.images)
    concepts = [f"concept {number:06d}" for number in range(flags.concepts)]
    write_json(common.path("names"), {"labels": labels, "concepts": concepts})
    features = normal(flags.images, WIDTH)
    places = {"image_id": ids, "view": np.zeros_like(ids, np.int32)}
    arrays = {
        "features": {"features": features} | places,
        "projector": {"null_basis": random_basis(WIDTH, WIDTH // 4, 0, 0)},
        "translator": {"weight": normal(DIM, WIDTH), "bias": normal(DIM)},
        "texts": {"concept_embeddings": unit(normal(flags.concepts, DIM)).astype(np.float32)},
    }
    common.write_arrays(arrays, {"kind": "linear"})


def main(flags: Flags) -> None:
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        prepare(flags)
        cost = common.measure(common.program("scan_concepts", threads=flags.threads))
        written = common.path("concepts").stat().st_size / 1e9
    texts = flags.concepts * DIM * 4 / 1e9
    print(f"{texts:.2f} GB of text embeddings, {cost.seconds:.0f} s, {written:.2f} GB written")
    beyond = cost.peak / 1e9 - texts - 3 * written
    mark = Mark("peak memory beyond texts and results (GB)", beyond, "<=", 1.0)
    common.hold([mark], flags.ease)


if __name__ == "__main__":
    cli.run_step(main, Flags)
