"""Find the real image nearest to every translated feature, before and after null removal."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from singflow import cli
from singflow.analyses.metrics import Removal, share
from singflow.artifacts.shards import iterate_whole, read_index, together
from singflow.artifacts.tables import write_parquet
from singflow.artifacts.tensors import read_null_basis
from singflow.pictures.neighbours import Index, contents, nearest
from singflow.translators.linear import read_crossfitted

AT_ONCE = 25_000  # images per search; every search reads each cell of the index once


class Flags(cli.Command):
    """Find the real image nearest to every image's translated feature, before and after its null
    component is removed.
    """

    manifest: Path
    features: Path
    embeddings: Path
    shards: int
    projector: Path
    translator: Path
    exact_up_to: int
    threads: int
    output: Path


def main(flags: Flags) -> None:
    cli.limit_threads(flags.threads)
    manifest = read_index(flags.manifest, "sha256")
    content = contents(manifest["sha256"])
    translators, basis = (
        read_crossfitted(flags.translator, manifest),
        read_null_basis(flags.projector),
    )
    removed = translators.each(lambda translator: share(translator, basis).astype(np.float32))

    gallery = partial(iterate_whole, flags.embeddings, "embeddings", flags.shards, manifest)
    index = (
        Index(gallery, content, flags.output.parent) if len(manifest) > flags.exact_up_to else None
    )

    def translated() -> Iterator[tuple[np.ndarray, ...]]:
        for image_id, features in iterate_whole(flags.features, "features", flags.shards, manifest):
            removal = Removal(translators(features, image_id), removed(features, image_id))
            yield image_id, removal.original, removal.equivalent

    blocks = []
    for image_id, *both in together(translated(), AT_ONCE):
        points, own = np.concatenate(both), np.tile(image_id, 2)
        found = (
            index.nearest(points, own, 1) if index else nearest(points, own, gallery, content, 1)
        )
        ids, angles = found.image_id.reshape(2, -1), found.angle_deg.reshape(2, -1)
        columns = {
            "image_id": image_id,
            "original_id": ids[0],
            "original_deg": angles[0],
            "equivalent_id": ids[1],
            "equivalent_deg": angles[1],
        }
        blocks.append(pd.DataFrame(columns))
    table = pd.concat(blocks).sort_values("image_id", ignore_index=True)
    write_parquet(flags.output, table)
    moved = (table["original_id"] != table["equivalent_id"]).mean()
    cli.log.info(
        "%d images, searched %s; null removal changes the nearest of %.1f %%",
        len(table),
        "by an index" if index else "exactly",
        100 * moved,
    )


if __name__ == "__main__":
    cli.run(main, Flags)
