"""Score every image before and after its null component is removed."""

import numpy as np
import pandas as pd

from singflow import cli
from singflow.analyses.geometry import logit_change, null_energy, remove_null
from singflow.analyses.inputs import Inputs
from singflow.analyses.metrics import contrast_deg
from singflow.artifacts.shards import ROWS_AT_ONCE
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
    floor, head, basis = floors["floor_is_deg"].to_numpy(), inputs.head, inputs.null_basis
    blocks = []
    for image_id, features in inputs.features(size=ROWS_AT_ONCE):
        label = inputs.label_of[image_id]
        removal = inputs.null_removal(features, image_id)
        original, equivalent = removal.angles(inputs.label_texts[label])
        logits = features @ head["weight"].T + head["bias"]
        columns = {
            "image_id": image_id,
            "label": inputs.labels[label],
            "class_index": class_index[image_id],
            "predicted_index": np.argmax(logits, axis=1).astype(np.int32),
            "fold": inputs.translators.fold[image_id],
            "is_deg": removal.image_score(),
            "as_deg": original - equivalent,
            "as_contrast_deg": contrast_deg(removal, inputs.label_texts, label),
            "angle_original_deg": original,
            "angle_equivalent_deg": equivalent,
            "null_energy": null_energy(features, basis),
            "logit_change": logit_change(head["weight"], features, remove_null(features, basis)),
            "floor_is_deg": floor[image_id],
        }
        blocks.append(pd.DataFrame(columns))
    scores = pd.concat(blocks, ignore_index=True)
    write_parquet(flags.path("scores"), scores)
    cli.log.info(
        "%d images: IS %.2f, floor %.2f; AS %+.2f, |AS| %.2f degrees",
        len(scores),
        *scores[["is_deg", "floor_is_deg", "as_deg"]].mean(),
        scores["as_deg"].abs().mean(),
    )


if __name__ == "__main__":
    cli.run_step(main, Flags)
