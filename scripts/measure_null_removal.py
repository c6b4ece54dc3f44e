"""Score every image before and after its null component is removed."""

from pathlib import Path

import numpy as np
import pandas as pd

from singflow import cli
from singflow.analyses.geometry import logit_change, null_energy, remove_null
from singflow.analyses.inputs import Inputs
from singflow.analyses.metrics import Removal, contrast_deg
from singflow.artifacts.tables import iterate_row_groups, read_parquet, write_parquet
from singflow.data.manifest import head_classes
from singflow.errors import InputError

ROWS = 4096  # features scored at once


class Flags(cli.PairStep):
    pass


def read_controls(path: Path, null_dim: int, image_id: pd.Series) -> pd.DataFrame:
    """Mean scores of every image after removing random subspaces as large as the null space.

    They are 0 if there is no null space.
    """
    chosen = [
        group[(group["subspace"] == "random") & (group["dimension"] == null_dim)]
        for group in iterate_row_groups(path, [])
    ]
    own = (pd.concat(chosen) if chosen else read_parquet(path)).set_index("image_id")[
        ["is_deg", "as_deg", "matched_is_deg", "matched_as_deg"]
    ]
    if null_dim and not own.index.sort_values().equals(pd.Index(image_id)):
        raise InputError(
            f"{path}: holds no random subspaces of {null_dim} dimensions for every image: "
            "remove it and run the workflow again"
        )
    return own.reindex(image_id, fill_value=0.0).rename(
        columns={"is_deg": "control_is_deg", "as_deg": "control_as_deg"}
    )


def read_evidence(path: Path, image_id: pd.Series) -> pd.DataFrame:
    """Conditional scores and the floor of IS of every image."""
    evidence = read_parquet(path, "evidence_images").set_index("image_id")
    if not evidence.index.equals(pd.Index(image_id)):
        raise InputError(
            f"{path}: holds other images than the manifest: remove it and run the workflow again"
        )
    return evidence


def main(flags: Flags) -> None:
    cli.limit_threads(flags.threads)
    inputs = Inputs.of(flags)
    manifest, head, basis = inputs.manifest, inputs.head, inputs.null_basis
    class_names = inputs.head_facts.parsed("class_names", list | None)
    class_index = np.asarray(head_classes(manifest, class_names))
    translators, removed = inputs.translators, inputs.null_translators
    texts, labels, text_of = inputs.label_texts, inputs.labels, inputs.label_of
    beside = read_controls(flags.path("controls"), basis.shape[1], manifest["image_id"]).join(
        read_evidence(flags.path("evidence_images"), manifest["image_id"])
    )
    blocks = []
    for image_id, features in inputs.features(size=ROWS):
        removal = Removal(translators(features, image_id), removed(features, image_id))
        angle_original, angle_equivalent = removal.angles(texts[text_of[image_id]])
        own = beside.loc[image_id]
        columns = {
            "image_id": image_id,
            "label": labels[text_of[image_id]],
            "class_index": class_index[image_id],
            "predicted_index": np.argmax(features @ head["weight"].T + head["bias"], axis=1).astype(
                np.int32
            ),
            "fold": translators.fold[image_id],
            "is_deg": removal.image_score(),
            "as_deg": angle_original - angle_equivalent,
            "as_contrast_deg": contrast_deg(removal, texts, text_of[image_id]),
            "angle_original_deg": angle_original,
            "angle_equivalent_deg": angle_equivalent,
            **own[["conditional_is_deg", "conditional_as_deg"]],
            "null_energy": null_energy(features, basis),
            "logit_change": logit_change(head["weight"], features, remove_null(features, basis)),
            **own[["control_is_deg", "control_as_deg", "matched_is_deg", "matched_as_deg"]],
            "floor_is_deg": own["floor_is_deg"],
        }
        blocks.append(pd.DataFrame({name: np.asarray(values) for name, values in columns.items()}))
    scores = pd.concat(blocks, ignore_index=True)
    write_parquet(flags.path("scores"), scores)
    cli.log.info(
        "%d images: IS %.2f, floor %.2f; AS %+.2f, |AS| %.2f degrees; "
        "random subspaces of %d dimensions: IS %.2f",
        len(scores),
        scores["is_deg"].mean(),
        scores["floor_is_deg"].mean(),
        scores["as_deg"].mean(),
        scores["as_deg"].abs().mean(),
        basis.shape[1],
        scores["control_is_deg"].mean(),
    )


if __name__ == "__main__":
    cli.run_step(main, Flags)
