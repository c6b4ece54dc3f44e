"""Score every image before and after its null component is removed."""

import numpy as np
import pandas as pd

from singflow import cli
from singflow.analyses.inputs import Inputs
from singflow.analyses.null_removal import remove_null_components
from singflow.artifacts.tables import read_parquet, write_parquet
from singflow.data.manifest import head_classes
from singflow.errors import InputError


class Flags(cli.PairStep): ...


def main(flags: Flags) -> None:
    cli.limit_threads(flags.threads)
    inputs = Inputs.of(flags)
    class_names = inputs.head_facts.parsed("class_names", list | None)
    class_index = np.asarray(head_classes(inputs.manifest, class_names))
    floors = read_parquet(flags.path("evidence_images"), "evidence_images").set_index("image_id")
    if not floors.index.equals(pd.Index(inputs.manifest["image_id"])):
        raise InputError(
            f"{flags.path('evidence_images')}: holds other images than the manifest: "
            "remove it and run the workflow again"
        )
    scores = remove_null_components(inputs, class_index, floors["floor_is_deg"].to_numpy())
    write_parquet(flags.path("scores"), scores)
    cli.log.info(
        "%d images: IS %.2f, floor %.2f; AS %+.2f, |AS| %.2f degrees",
        len(scores),
        *scores[["is_deg", "floor_is_deg", "as_deg"]].mean(),
        scores["as_deg"].abs().mean(),
    )


if __name__ == "__main__":
    cli.run_step(main, Flags)
