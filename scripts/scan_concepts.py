"""Measure the angle of every label's images to every concept, and how null removal changes it."""

import numpy as np

from singflow import cli
from singflow.analyses.concepts import CHUNK, MOMENTS, block_size, scan_block, summed_scores
from singflow.analyses.inputs import Inputs
from singflow.analyses.metrics import unit
from singflow.artifacts.scratch import Scratch
from singflow.artifacts.tensors import provenance, write_tensors
from singflow.parallel import map_ahead


class Flags(cli.PairStep): ...


def main(flags: Flags) -> None:
    """Measure block after block of concepts, over all images.

    Images are translated only once, and the results are kept in scratch files. Memory holds the
    results, six float32 matrices of labels x concepts, and two copies of them while they are
    written: for 1,000 labels and 100,000 concepts 2.4 GB, and 7.2 GB at the end.
    """
    cli.limit_threads(flags.threads)
    inputs, output = Inputs.of(flags), flags.path("concepts")
    labels, concepts = inputs.names["labels"], inputs.names["concepts"]
    texts, images = inputs.texts("concept_embeddings"), len(inputs.manifest)
    n = np.bincount(inputs.label_of)
    row_of = np.argsort(np.argsort(inputs.label_of, kind="stable"))
    size = block_size(len(labels))
    rows = [Scratch(output.parent, images, texts.shape[1]) for _ in range(2)]
    for image_id, removal in inputs.removals(size=CHUNK):
        for units, embeddings in zip(rows, (removal.original, removal.equivalent), strict=True):
            units[row_of[image_id]] = unit(embeddings)
    blocks = [slice(start, start + size) for start in range(0, len(concepts), size)]
    cli.limit_threads(1)  # per matrix product: the blocks share the threads
    common = None
    if len(blocks) > 1:
        sums = map_ahead(lambda b: summed_scores(*rows, texts[b]), blocks, flags.threads)
        common = sum(sums) / len(concepts)
    moments = map_ahead(lambda b: scan_block(*rows, n, texts[b], common), blocks, flags.threads)
    shown = cli.progress(
        zip(blocks, moments, strict=True), len(blocks), "blocks of concepts", output.stem
    )
    found = {name: np.empty((len(labels), len(concepts)), np.float32) for name in MOMENTS}
    for block, moment in shown:
        for name, values in moment.items():
            found[name][:, block] = values
    write_tensors(output, found | {"n": n}, provenance([], **flags.named))
    cli.log.info("%d labels x %d concepts over %d images", len(labels), len(concepts), images)


if __name__ == "__main__":
    cli.run_step(main, Flags)
