"""Measure how much better a read-out predicts the embeddings when some null directions of the head
are made visible.
"""

from itertools import chain

import numpy as np
import pandas as pd

from singflow import cli
from singflow.analyses.evidence import FoldVariance, Words, remainders
from singflow.analyses.floor import SplitHead, whole_images
from singflow.analyses.head_extension import enough, head_extension
from singflow.analyses.inputs import Inputs
from singflow.analyses.readout import read_out
from singflow.artifacts.files import read_json
from singflow.artifacts.tables import write_parquet
from singflow.artifacts.tensors import read_tensors


class Flags(cli.PairStep):
    reference: str | None
    confidence: float
    seed: int


def main(flags: Flags) -> None:
    cli.limit_threads(flags.threads)
    inputs = Inputs.of(flags)
    own, training = inputs.pairs, inputs.training(flags.reference)
    basis = inputs.null_basis
    head = SplitHead.split(inputs.head, basis)
    spoken, _ = read_tensors(
        inputs.path("own_words"), ["class_embeddings", "word_weights", "offset"]
    )
    lambdas = read_json(inputs.path("evidence")).of_kind("lambdas", dict | None)
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
            FoldVariance(blocks),
            penalties,
            min(basis.shape[1], len(words.offset)),
            flags.confidence,
        )
    write_parquet(flags.path("head_extensions"), curve)
    last, fewest = curve.iloc[-1], enough(curve)
    cli.log.info(
        "D %.4f with %d null directions%s",
        last["unique_r2"],
        last["directions"],
        "" if fewest is None else f", of which {fewest} give 90 % of it",
    )


if __name__ == "__main__":
    cli.run_step(main, Flags)
