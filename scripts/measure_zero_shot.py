"""Name every image by the label whose text is nearest to its translated feature, before and after
null removal.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from singflow import cli
from singflow.analyses.metrics import Removal, share
from singflow.analyses.zero_shot import nearest_texts, summarize_zero_shot
from singflow.artifacts.files import read_names
from singflow.artifacts.shards import iterate_whole, label_rows, read_index
from singflow.artifacts.tables import write_parquet
from singflow.artifacts.tensors import read_null_basis, read_tensors
from singflow.translators.linear import read_crossfitted

ROWS = 4096  # features compared with all texts at once


class Flags(cli.Command):
    """Name every image by the label whose text is nearest to its translated feature, before and
    after its null component is removed.
    """

    manifest: Path
    features: Path
    embeddings: Path
    shards: int
    projector: Path
    translator: Path
    texts: Path
    names: Path
    threads: int
    output: Path


def main(flags: Flags) -> None:
    cli.limit_threads(flags.threads)
    manifest = read_index(flags.manifest)
    basis, translators = (
        read_null_basis(flags.projector),
        read_crossfitted(flags.translator, manifest),
    )
    removed = translators.each(lambda translator: share(translator, basis).astype(np.float32))
    texts = read_tensors(flags.texts, ["label_embeddings"])[0]["label_embeddings"]
    labels = np.array(read_names(flags.names)["labels"], dtype=object)
    own = label_rows(manifest, labels, flags.names)
    blocks = []
    for image_id, features in iterate_whole(
        flags.features, "features", flags.shards, manifest, size=ROWS
    ):
        removal = Removal(translators(features, image_id), removed(features, image_id))
        places = {"label": own[image_id], "translated": nearest_texts(removal.original, texts)}
        places["equivalent"] = nearest_texts(removal.equivalent, texts)
        blocks.append(
            pd.DataFrame(
                {"image_id": image_id} | {name: labels[rows] for name, rows in places.items()}
            )
        )
    found = pd.concat(blocks, ignore_index=True)
    gallery = iterate_whole(flags.embeddings, "embeddings", flags.shards, manifest, size=ROWS)
    themselves = [
        pd.Series(labels[nearest_texts(embeddings, texts)], image_id)
        for image_id, embeddings in gallery
    ]
    found["embedding"] = pd.concat(themselves).loc[found["image_id"]].to_numpy()
    write_parquet(flags.output, found)
    shares = summarize_zero_shot(found)
    said = ", ".join(f"{name} {value:.3f}" for name, value in shares.items() if value is not None)
    cli.log.info(
        "%d images, %d labels: %s", len(found), len(labels), said or "nothing to choose from"
    )


if __name__ == "__main__":
    cli.run(main, Flags)
