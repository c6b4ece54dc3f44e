"""Peak memory and time of scan_concepts with a vocabulary of 100,000 words, on made-up features.

The temporary folder needs 5 GB of disk. Ends with exit status 1 when the peak memory beyond the
concepts' text embeddings is above the limit.
"""

import tempfile
from contextlib import chdir

import numpy as np
from memory import made_up, measure, path, program
from numerics import normal
from pydantic import Field

from singflow import cli
from singflow.analyses.geometry import random_basis
from singflow.analyses.metrics import unit
from singflow.artifacts.files import write_json
from singflow.artifacts.tensors import write_tensors
from singflow.errors import InputError

WIDTH = 512
DIM = 768


class Flags(cli.Command):
    images: int = Field(10_000, ge=1, description="number of images")
    labels: int = Field(1_000, ge=1, description="number of labels, at most as many as images")
    concepts: int = Field(100_000, ge=1, description="number of concepts")
    threads: int = Field(2, ge=1, description="threads of the step")
    limit_gb: float = Field(
        1.0, gt=0, description="memory allowed beyond the text embeddings, in units of 10^9 bytes"
    )


def prepare(flags: Flags) -> None:
    """Write the inputs of scan_concepts into the working folder."""
    labels, ids = made_up(flags.images, flags.labels), np.arange(flags.images)
    concepts = [f"concept {number:06d}" for number in range(flags.concepts)]
    write_json(path("names"), {"labels": labels, "concepts": concepts})
    tensors = {
        "features": {
            "features": normal(flags.images, WIDTH),
            "image_id": ids,
            "view": np.zeros_like(ids, np.int32),
        },
        "projector": {"null_basis": random_basis(WIDTH, WIDTH // 4, 0, 0)},
        "translator": {"weight": normal(DIM, WIDTH), "bias": normal(DIM)},
        "texts": {"concept_embeddings": unit(normal(flags.concepts, DIM)).astype(np.float32)},
    }
    for name, made in tensors.items():
        write_tensors(path(name), made, {"kind": "linear"})


def judge(beyond: float, limit_gb: float) -> None:
    """Raises InputError when the memory (GB) beyond the text embeddings is above the limit."""
    if beyond > limit_gb:
        raise InputError(
            f"scan_concepts needs {beyond:.2f} GB beyond the text embeddings, "
            f"above the limit of {limit_gb:g} GB"
        )


def main(flags: Flags) -> None:
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        prepare(flags)
        peak, seconds = measure(program("scan_concepts", threads=flags.threads))
        size = path("concepts").stat().st_size / 1e9
    texts = flags.concepts * DIM * 4 / 1e9
    beyond = peak / 1e9 - texts
    print(
        f"peak {beyond:.2f} GB beyond the text embeddings ({texts:.2f} GB), {seconds:.0f} s, "
        f"{size:.2f} GB written"
    )
    judge(beyond, flags.limit_gb)


if __name__ == "__main__":
    cli.run_step(main, Flags)
