"""Find the real image nearest to every translated feature, before and after null removal."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from singflow import cli
from singflow.analyses.inputs import Inputs
from singflow.artifacts.shards import join_blocks
from singflow.artifacts.tables import write_parquet
from singflow.pictures.neighbours import Index, exact_neighbours, first_copies

AT_ONCE = 25_000  # images per search; every search reads each cell of the index once


class Flags(cli.PairStep):
    exact_up_to: int


def main(flags: Flags) -> None:
    cli.limit_threads(flags.threads)
    inputs, output = Inputs.of(flags, "sha256"), flags.path("neighbours")
    content, gallery = first_copies(inputs.manifest["sha256"]), inputs.embeddings
    large = len(inputs.manifest) > flags.exact_up_to
    index = Index(gallery, content, output.parent) if large else None

    def translated() -> Iterator[tuple[np.ndarray, ...]]:
        for image_id, removal in inputs.removals():
            yield image_id, removal.original, removal.equivalent

    blocks = []
    for image_id, *both in join_blocks(translated(), AT_ONCE):
        points, own = np.concatenate(both), np.tile(image_id, 2)
        if index:
            found = index.neighbours(points, own, 1)
        else:
            found = exact_neighbours(points, own, gallery, content, 1)
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
    write_parquet(output, table)
    moved = (table["original_id"] != table["equivalent_id"]).mean()
    searched = f"{len(table)} images, searched {'by an index' if index else 'exactly'}"
    cli.log.info("%s; null removal changes the nearest of %.1f %%", searched, 100 * moved)


if __name__ == "__main__":
    cli.run_step(main, Flags)
