"""Steer every image's feature toward texts inside the null space, by steps that reach the wanted
image scores.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from singflow import cli
from singflow.analyses.steering import Steering, null_directions, steering_scores
from singflow.artifacts.files import read_names
from singflow.artifacts.shards import iterate_whole, label_rows, read_index
from singflow.artifacts.tables import write_parquet
from singflow.artifacts.tensors import read_null_basis, read_tensors
from singflow.errors import InputError, check_labels
from singflow.translators.linear import read_crossfitted

ROWS = 1024  # features steered at once
TYPES = {
    "image_id": "int64",
    "label": "str",
    "prompt": "str",
    "target_is_deg": "float64",
    "step": "float64",
    "is_deg": "float64",
    "as_target_deg": "float64",
    "as_label_deg": "float64",
    "logit_change": "float64",
    "reachable": "bool",
}


class Flags(Steering, cli.Command):
    """Steer every image's feature toward texts inside the null space, by steps that reach the
    wanted image scores.
    """

    manifest: Path
    head: Path
    features: Path
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
    check_labels(flags.labels, manifest["label"].unique(), "steering.labels")
    names = read_names(flags.names)
    if names["targets"] != flags.prompts:
        raise InputError(
            f"{flags.names}: its targets are {names['targets']}, not steering.prompts "
            f"{flags.prompts}: run embed_prompts again"
        )
    wanted = ["label_embeddings", *(["target_embeddings"] if flags.prompts else [])]
    texts = read_tensors(flags.texts, wanted)[0]
    labels = np.array(names["labels"], dtype=object)
    text_of = label_rows(manifest, labels, flags.names)
    head = read_tensors(flags.head, ["weight"])[0]["weight"]
    basis = read_null_basis(flags.projector)
    translators = read_crossfitted(flags.translator, manifest).each(
        lambda translator: translator.astype(np.float64)
    )
    translated = [translator.weight @ basis for translator in translators.maps]
    steered = manifest["label"].isin(flags.labels or manifest["label"]).to_numpy()
    blocks = []

    def of_one(place: int, image_id: np.ndarray, features: np.ndarray) -> Iterator[pd.DataFrame]:
        translator, label_texts = (
            translators.maps[place],
            texts["label_embeddings"][text_of[image_id]],
        )
        for prompt, text in zip(flags.prompts, texts.get("target_embeddings", []), strict=True):
            directions = null_directions(features, translator, basis, translated[place], text)
            for target in flags.target_is_deg:
                scores = steering_scores(
                    features, head, translator, directions, text, label_texts, target
                )
                yield scores.assign(
                    image_id=image_id, label=labels[text_of[image_id]], prompt=prompt
                )

    for image_id, features in iterate_whole(
        flags.features, "features", flags.shards, manifest, size=ROWS, images=steered
    ):
        for place, rows in translators.parts(image_id):
            blocks += of_one(place, image_id[rows], features[rows])
    table = pd.concat(blocks) if blocks else pd.DataFrame(columns=list(TYPES))
    table = table.sort_values(
        ["image_id", "prompt", "target_is_deg"], kind="stable", ignore_index=True
    )
    write_parquet(flags.output, table[list(TYPES)].astype(TYPES))
    for (prompt, target), group in table.groupby(["prompt", "target_is_deg"]):
        cli.log.info(
            "%r to %g degrees: %.1f %% of %d images reach it; AS %+.2f degrees, longest step %.3g, "
            "logits move by at most %.1e",
            prompt,
            target,
            100 * group["reachable"].mean(),
            len(group),
            group["as_target_deg"].mean(),
            group["step"].max(),
            group["logit_change"].max(),
        )


if __name__ == "__main__":
    cli.run(main, Flags)
