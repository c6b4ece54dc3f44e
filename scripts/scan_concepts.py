"""For every label and concept: the angle of its images to the concept, and what null removal does to it."""

import math
import os
import tempfile
from pathlib import Path
from typing import IO

import numpy as np

from singflow import cli
from singflow.analyses.concepts import CHUNK, block_size, block_table, scan_block
from singflow.analyses.metrics import fold, remove, unit
from singflow.artifacts.files import read_names
from singflow.artifacts.shards import iterate_whole, label_rows, read_manifest
from singflow.artifacts.tables import write_row_groups
from singflow.artifacts.tensors import read_null_basis, read_tensors
from singflow.parallel import map_ahead
from singflow.translators.linear import Translator


class Rows:
    """The kind-th of several matrices (n, m) float32 in a file, whose rows are read when they are asked for."""

    def __init__(self, file: IO[bytes], kind: int, n: int, m: int) -> None:
        self._file, self._first, self._n, self._m = file, kind * n, n, m

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, part: slice) -> np.ndarray:
        start, stop, _ = part.indices(self._n)
        read = os.pread(self._file.fileno(), 4 * self._m * (stop - start), 4 * self._m * (self._first + start))
        return np.frombuffer(read, np.float32).reshape(-1, self._m)


class Flags(cli.Command):
    """For every label and concept: the angle of its images to the concept, and what null removal does to it."""

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
    """One row group for each block of concepts: all its concepts of the first label, then of the second, and so on.

    Images are translated once, into a file without a name beside the output that the system removes however the step ends.
    """
    cli.limit_threads(flags.threads)
    manifest = read_manifest(flags.manifest)
    basis = read_null_basis(flags.projector)
    translator = Translator.load(flags.translator)
    texts = read_tensors(flags.texts, ["concept_embeddings"])[0]["concept_embeddings"]
    names = read_names(flags.names)
    labels, concepts = names["labels"], names["concepts"]
    codes = label_rows(manifest, labels, flags.names)
    n = np.bincount(codes)
    row_of = np.argsort(np.argsort(codes, kind="stable"))
    folded = fold(translator.weight, basis)
    size = block_size(len(labels))
    flags.output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=flags.output.parent) as file:
        shape = (2, len(manifest), texts.shape[1])
        file.truncate(4 * math.prod(shape))
        if hasattr(os, "posix_fallocate"):  # a full disk is then an error here, not a crash later
            os.posix_fallocate(file.fileno(), 0, 4 * math.prod(shape))
        for image_id, features in iterate_whole(flags.features, "features", flags.shards, manifest, size=CHUNK):
            removal = remove(features, translator, folded)
            units = np.memmap(file, np.float32, "r+", shape=shape)  # anew: what stays mapped counts as the process's memory
            units[:, row_of[image_id]] = unit(removal.original), unit(removal.equivalent)
        rows = [Rows(file, kind, *shape[1:]) for kind in range(2)]
        blocks = [slice(start, start + size) for start in range(0, len(concepts), size)]
        cli.limit_threads(1)  # of every product: the blocks share the threads
        moments = map_ahead(lambda block: scan_block(*rows, n, texts[block]), blocks, flags.threads)
        shown = cli.progress(zip(blocks, moments, strict=True), len(blocks), "blocks of concepts", flags.output.stem)
        write_row_groups(flags.output, (block_table(labels, concepts[block], n, each) for block, each in shown))
    cli.log.info("%d labels x %d concepts over %d images", len(labels), len(concepts), len(manifest))


if __name__ == "__main__":
    cli.run(main, Flags)
