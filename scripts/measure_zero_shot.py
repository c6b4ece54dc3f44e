"""Name every image by the text nearest to its translated feature, before and after removal."""

import pandas as pd

from singflow import cli
from singflow.analyses.inputs import Inputs
from singflow.analyses.zero_shot import nearest_texts, summarize_zero_shot
from singflow.artifacts.shards import ROWS_AT_ONCE
from singflow.artifacts.tables import write_parquet


class Flags(cli.PairStep): ...


def main(flags: Flags) -> None:
    cli.limit_threads(flags.threads)
    inputs = Inputs.of(flags)
    texts, labels, own = inputs.label_texts, inputs.labels, inputs.label_of
    blocks = []
    for image_id, removal in inputs.removals(size=ROWS_AT_ONCE):
        columns = {
            "image_id": image_id,
            "label": labels[own[image_id]],
            "translated": labels[nearest_texts(removal.original, texts)],
            "equivalent": labels[nearest_texts(removal.equivalent, texts)],
        }
        blocks.append(pd.DataFrame(columns))
    found = pd.concat(blocks, ignore_index=True)
    themselves = [
        pd.Series(labels[nearest_texts(embeddings, texts)], image_id)
        for image_id, embeddings in inputs.embeddings(size=ROWS_AT_ONCE)
    ]
    found["embedding"] = pd.concat(themselves).loc[found["image_id"]].to_numpy()
    write_parquet(flags.path("zero_shot"), found)
    shares = summarize_zero_shot(found)
    said = ", ".join(f"{name} {value:.3f}" for name, value in shares.items() if value is not None)
    cli.log.info(
        "%d images, %d labels: %s", len(found), len(labels), said or "nothing to choose from"
    )


if __name__ == "__main__":
    cli.run_step(main, Flags)
