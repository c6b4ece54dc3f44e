"""Run a classifier over one shard of the images and keep the input of its head."""

import numpy as np
import torch

from singflow import cli
from singflow.extraction import ShardFlags, run_shard
from singflow.features import load_classifier, weights_sha256
from singflow.registry import ModelEntry, read_entry
from singflow.store import provenance, write_tensors


class Flags(ShardFlags):
    """Run a classifier over one shard of the images and keep the input of its head."""

    model: str


def main(flags: Flags) -> None:
    classifier = load_classifier(read_entry(flags.entry, ModelEntry))
    sha256 = weights_sha256(classifier.model)
    rows, tensors = run_shard(flags, classifier, classifier.model, flags.model, "features")
    actual = rows["class_index"].to_numpy()
    predicted = classifier.logits(torch.from_numpy(tensors["features"][tensors["view"] == 0])).argmax(dim=1).numpy()
    known = actual >= 0
    top1 = float(np.mean(predicted[known] == actual[known])) if known.any() else None
    metadata = provenance(
        ["torch", "torchvision", "timm", "pillow"],
        study=flags.study,
        model=flags.model,
        weights_sha256=sha256,
        head_max_error=classifier.head_max_error,
        top1=top1,
        top1_images=int(known.sum()),
    )
    write_tensors(flags.output, tensors, metadata)
    accuracy = "unknown" if top1 is None else f"{top1:.3f}"
    cli.log.info("%s: top-1 %s; head reproduces the logits within %.1e", flags.model, accuracy, classifier.head_max_error)


if __name__ == "__main__":
    cli.run(main, Flags)
