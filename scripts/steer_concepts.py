"""Steer every image's feature toward texts inside the null space, to the wanted image scores."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from singflow import cli
from singflow.analyses.inputs import Inputs
from singflow.analyses.steering import Steering, null_directions, steering_scores
from singflow.artifacts.tables import write_parquet
from singflow.errors import check_labels

STEERED_AT_ONCE = 1024  # features
NUMBERS = ["target_is_deg", "step", "is_deg", "as_target_deg", "as_label_deg", "logit_change"]
TYPES = {"image_id": "int64", "label": "str", "prompt": "str"}
TYPES |= dict.fromkeys(NUMBERS, "float64") | {"reachable": "bool"}


class Flags(Steering, cli.PairStep): ...


def main(flags: Flags) -> None:
    cli.limit_threads(flags.threads)
    inputs = Inputs.of(flags)
    manifest = inputs.manifest
    check_labels(flags.labels, manifest["label"].unique(), "steering.labels")
    labels, text_of, basis = inputs.labels, inputs.label_of, inputs.null_basis
    targets = inputs.targets(flags.prompts)
    head = inputs.head["weight"]
    translators = inputs.translators.map(lambda translator: translator.astype(np.float64))
    translated = [translator.weight @ basis for translator in translators.members]
    steered = manifest["label"].isin(flags.labels or manifest["label"]).to_numpy()
    blocks = []

    def of_one(place: int, image_id: np.ndarray, features: np.ndarray) -> Iterator[pd.DataFrame]:
        translator, label_texts = translators.members[place], inputs.label_texts[text_of[image_id]]
        for prompt, text in targets.items():
            directions = null_directions(features, translator, basis, translated[place], text)
            for target in flags.target_is_deg:
                scores = steering_scores(
                    features, head, translator, directions, text, label_texts, target
                )
                named = {"image_id": image_id, "label": labels[text_of[image_id]], "prompt": prompt}
                yield scores.assign(**named)

    for image_id, features in inputs.features(size=STEERED_AT_ONCE, images=steered):
        for place, rows in translators.parts(image_id):
            blocks += of_one(place, image_id[rows], features[rows])
    table = pd.concat(blocks) if blocks else pd.DataFrame(columns=list(TYPES))
    table = table.sort_values(
        ["image_id", "prompt", "target_is_deg"], kind="stable", ignore_index=True
    )
    write_parquet(flags.path("steering"), table[list(TYPES)].astype(TYPES))
    for (prompt, target), group in table.groupby(["prompt", "target_is_deg"]):
        share, nearer = 100 * group["reachable"].mean(), group["as_target_deg"].mean()
        step, change = group["step"].max(), group["logit_change"].max()
        cli.log.info(
            f"{prompt!r} to {target:g} degrees: {share:.1f} % of {len(group)} images reach it; AS "
            f"{nearer:+.2f} degrees, longest step {step:.3g}, logits move by at most {change:.1e}"
        )


if __name__ == "__main__":
    cli.run_step(main, Flags)
