"""Measure how much better a read-out predicts the embeddings when some null directions of the head
are made visible.
"""

from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd

from singflow import cli
from singflow.analyses.evidence import Spread, Words, remainders
from singflow.analyses.floor import Head, whole_images
from singflow.analyses.geometry import complement
from singflow.analyses.head_extension import enough, head_extension
from singflow.analyses.readout import read_out
from singflow.artifacts.files import read_json
from singflow.artifacts.tables import write_parquet
from singflow.artifacts.tensors import read_null_basis, read_tensors
from singflow.translators.reference import study_and_training


class Flags(cli.Command):
    """Measure how much a read-out tells of the embeddings when some null directions of the head are
    made visible.
    """

    reference: str | None
    confidence: float
    manifest: Path
    head: Path
    features: Path
    embeddings: Path
    shards: int
    projector: Path
    evidence: Path
    words: Path
    seed: int
    threads: int
    output: Path


def main(flags: Flags) -> None:
    cli.limit_threads(flags.threads)
    own, training = study_and_training(
        flags.manifest, flags.features, flags.embeddings, flags.shards, flags.reference
    )
    basis = read_null_basis(flags.projector)
    tensors, _ = read_tensors(flags.head, ["weight", "bias"])
    head = Head(tensors["weight"], tensors["bias"], complement(basis), basis)
    spoken, _ = read_tensors(flags.words, ["class_embeddings", "word_weights", "offset"])
    lambdas = read_json(flags.evidence).of_kind("lambdas", dict | None)
    curve = pd.DataFrame(
        {
            "directions": [0],
            "unique_r2": [0.0],
            "unique_r2_low": [np.nan],
            "unique_r2_high": [np.nan],
        }
    )
    if lambdas:

        def blocks():
            return chain.from_iterable(
                whole_images(images, head)
                for images in ([training] if training is own else [training, own])
            )

        words = Words.read(spoken)
        readouts = read_out(blocks, remainders(words), flags.seed)
        penalties = lambdas["without_null"], lambdas["with_null"]
        curve = head_extension(
            readouts,
            Spread(blocks),
            penalties,
            min(basis.shape[1], len(words.offset)),
            flags.confidence,
        )
    write_parquet(flags.output, curve)
    last, fewest = curve.iloc[-1], enough(curve)
    cli.log.info(
        "D %.4f with %d null directions%s",
        last["unique_r2"],
        last["directions"],
        "" if fewest is None else f", of which {fewest} give 90 % of it",
    )


if __name__ == "__main__":
    cli.run(main, Flags)
