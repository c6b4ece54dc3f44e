"""Score every image before and after its null component is removed, and after random subspaces are."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from singflow import cli
from singflow.config import NullRemoval
from singflow.data import head_classes
from singflow.geometry import logit_change, null_energy, random_basis, remove_null
from singflow.metrics import angle_deg, fold, remove
from singflow.store import iterate_shards, read_json, read_parquet, read_tensors, write_parquet
from singflow.translator import Translator


class Flags(NullRemoval, cli.Command):
    """Score every image before and after its null component is removed, and after random subspaces are."""

    manifest: Path
    head: Path
    features: Path
    shards: int
    projector: Path
    translator: Path
    prompts: Path
    names: Path
    seed: int
    threads: int
    output: Path


def main(flags: Flags) -> None:
    cli.limit_threads(flags.threads)
    manifest = read_parquet(flags.manifest)
    head, made = read_tensors(flags.head, ["weight", "bias"])
    manifest = manifest.assign(class_index=head_classes(manifest, json.loads(made["class_names"])))
    basis = read_tensors(flags.projector, ["null_basis"])[0]["null_basis"]
    translator = Translator(**read_tensors(flags.translator, ["weight", "bias"])[0])
    texts = read_tensors(flags.prompts, ["label_embeddings"])[0]["label_embeddings"]
    text_of = {label: row for row, label in enumerate(read_json(flags.names)["labels"])}
    folded = fold(translator.weight, basis)
    controls = [fold(translator.weight, random_basis(*basis.shape, flags.seed, draw)) for draw in range(flags.control_draws)]
    blocks = []
    for shard in iterate_shards(flags.features, "features", flags.shards, manifest):
        whole = shard["view"] == 0
        rows, features = manifest.iloc[shard["image_id"][whole]], shard["features"][whole]
        targets = texts[rows["label"].map(text_of)]
        removal = remove(features, translator, folded)
        removals = (remove(features, translator, each) for each in controls)
        control = [(each.image_score(), each.attribute_score(targets)) for each in removals]
        control_is, control_as = np.mean(control, axis=0)
        angle_original = angle_deg(removal.original, targets)
        angle_equivalent = angle_deg(removal.equivalent, targets)
        blocks.append(
            pd.DataFrame(
                {
                    "image_id": rows["image_id"].to_numpy(),
                    "label": rows["label"].to_numpy(),
                    "class_index": rows["class_index"].to_numpy(),
                    "predicted_index": np.argmax(features @ head["weight"].T + head["bias"], axis=1).astype(np.int32),
                    "is_deg": removal.image_score(),
                    "as_deg": angle_original - angle_equivalent,
                    "angle_original_deg": angle_original,
                    "angle_equivalent_deg": angle_equivalent,
                    "null_energy": null_energy(features, basis),
                    "logit_change": logit_change(head["weight"], features, remove_null(features, basis)),
                    "control_is_deg": control_is,
                    "control_as_deg": control_as,
                }
            )
        )
    scores = pd.concat(blocks, ignore_index=True)
    write_parquet(flags.output, scores)
    cli.log.info(
        "%d images: IS %.2f, AS %+.2f, |AS| %.2f degrees; random subspaces of %d dimensions: IS %.2f",
        len(scores),
        scores["is_deg"].mean(),
        scores["as_deg"].mean(),
        scores["as_deg"].abs().mean(),
        basis.shape[1],
        scores["control_is_deg"].mean(),
    )


if __name__ == "__main__":
    cli.run(main, Flags)
