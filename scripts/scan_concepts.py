"""Measure for every label and concept the angle of the label's images to the concept, and how null
removal changes it.
"""

from pathlib import Path

import numpy as np

from singflow import cli
from singflow.analyses.concepts import CHUNK, block_size, block_table, scan_block, summed_scores
from singflow.analyses.metrics import Removal, share, unit
from singflow.artifacts.files import read_names
from singflow.artifacts.scratch import Scratch
from singflow.artifacts.shards import iterate_whole, label_rows, read_index
from singflow.artifacts.tables import write_row_groups
from singflow.artifacts.tensors import read_null_basis, read_tensors
from singflow.parallel import map_ahead
from singflow.translators.linear import read_crossfitted


class Flags(cli.Command):
    """For every label and concept: the angle of its images to the concept, and what null removal
    does to it.
    """

    manifest: Path
    features: Path
    shards: int
    projector: Path
    translator: Path
    texts: Path
    names: Path
    threads: int
    output: Path


def main(flags: Flags) -> None:
    """Write one row group per block of concepts: the block's concepts for the first label, then for
    the second, and so on.

    Images are translated only once, and the results are kept in scratch files.
    """
    cli.limit_threads(flags.threads)
    manifest = read_index(flags.manifest)
    basis = read_null_basis(flags.projector)
    translators = read_crossfitted(flags.translator, manifest)
    texts = read_tensors(flags.texts, ["concept_embeddings"])[0]["concept_embeddings"]
    names = read_names(flags.names)
    labels, concepts = names["labels"], names["concepts"]
    codes = label_rows(manifest, labels, flags.names)
    n = np.bincount(codes)
    row_of = np.argsort(np.argsort(codes, kind="stable"))
    removed = translators.each(lambda translator: share(translator, basis).astype(np.float32))
    size = block_size(len(labels))
    rows = [Scratch(flags.output.parent, len(manifest), texts.shape[1]) for _ in range(2)]
    for image_id, features in iterate_whole(
        flags.features, "features", flags.shards, manifest, size=CHUNK
    ):
        removal = Removal(translators(features, image_id), removed(features, image_id))
        for units, embeddings in zip(rows, (removal.original, removal.equivalent), strict=True):
            units[row_of[image_id]] = unit(embeddings)
    blocks = [slice(start, start + size) for start in range(0, len(concepts), size)]
    cli.limit_threads(1)  # per matrix product: the blocks share the threads
    common = None
    if len(blocks) > 1:
        common = sum(
            map_ahead(lambda block: summed_scores(*rows, texts[block]), blocks, flags.threads)
        ) / len(concepts)
    moments = map_ahead(
        lambda block: scan_block(*rows, n, texts[block], common), blocks, flags.threads
    )
    shown = cli.progress(
        zip(blocks, moments, strict=True), len(blocks), "blocks of concepts", flags.output.stem
    )
    write_row_groups(
        flags.output, (block_table(labels, concepts[block], n, moment) for block, moment in shown)
    )
    cli.log.info(
        "%d labels x %d concepts over %d images", len(labels), len(concepts), len(manifest)
    )


if __name__ == "__main__":
    cli.run(main, Flags)
