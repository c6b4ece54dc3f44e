"""Run a classifier over one shard of the images and keep the input of its head."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from singflow import cli
from singflow.artifacts.catalog import CATALOG
from singflow.artifacts.made import Made
from singflow.artifacts.tensors import Tensors, provenance, read_tensors, write_tensors
from singflow.config.registry import ModelEntry, read_model
from singflow.config.sections import outside
from singflow.towers.steps import ShardFlags, run_imported, run_shard

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    Shard = tuple[pd.DataFrame, Tensors, np.ndarray, dict[str, Any]]


class Flags(ShardFlags):
    model: str
    whole: list[Path]  # features and head of the model whose head this one has a part of


def of_whole(flags: Flags, entry: ModelEntry) -> Shard:
    """Features of another model of the study, whose head has all classes."""
    path, of_head = flags.whole
    tensors, facts = read_tensors(path)
    head, _ = read_tensors(of_head, ["weight", "bias"])
    whole_images = tensors["features"][tensors["view"] == 0]
    logits = whole_images @ head["weight"][entry.kept].T + head["bias"][entry.kept]
    error = {"head_max_error": facts.parsed("head_max_error", float | None)}
    return flags.rows(), tensors, logits, facts | error


def extracted(flags: Flags, entry: ModelEntry) -> Shard:
    """Features of images, the logits of whole images, and facts for the metadata."""
    import torch

    from singflow.towers.classifiers import load_classifier, weights_sha256

    classifier = load_classifier(entry)
    made = Made(entry.identity, weights_sha256(classifier.model), flags.precision, "full")
    rows, tensors, facts = run_shard(flags, flags.model, classifier, "features")
    whole_images = torch.from_numpy(tensors["features"][tensors["view"] == 0])
    logits = classifier.logits(whole_images).numpy()
    facts |= made.header() | {"head_max_error": classifier.head_max_error}
    return rows, tensors, logits, facts


def imported_features(flags: Flags, entry: ModelEntry) -> Shard:
    """The same, for features that were imported."""
    rows, tensors, facts = run_imported(flags, "features", model=flags.model)
    root = outside(flags.root)
    head, _ = read_tensors(CATALOG["head"].at(root, model=flags.model), ["weight", "bias"])
    facts = {"tower": entry.identity} | facts
    logits = tensors["features"][:: flags.views] @ head["weight"].T + head["bias"]
    return rows, tensors, logits, facts


def main(flags: Flags) -> None:
    import numpy as np

    from singflow.analyses.statistics import at_chance, top1_shortfall
    from singflow.data.manifest import head_classes

    entry = read_model(flags.path("model_entry"))
    of_source = flags.source == "features"
    make = of_whole if flags.whole else imported_features if of_source else extracted
    rows, tensors, logits, facts = make(flags, entry)
    actual, predicted = head_classes(rows, entry.class_names), logits.argmax(axis=1)
    known = actual >= 0
    count = int(known.sum())
    right = int(np.sum(predicted[known] == actual[known]))
    top1 = right / count if count else None
    ran = make is extracted
    libraries = ["torch", "torchvision", "timm", "pillow", entry.source] if ran else []
    metadata = provenance(libraries, **facts | flags.named | {"top1": top1, "top1_images": count})
    write_tensors(flags.path("features", shard=flags.shard_id), tensors, metadata)
    reported, classes = entry.expected_top1, logits.shape[1]
    if top1 is not None and entry.weights != "random":
        compared = ""
        if reported is not None and top1_shortfall(top1, count, reported, flags.top1_margin) > 0:
            compared = f"but {entry.reported_by or 'its source'} reports {reported:.1f} %"
        elif flags.shard == 0 and at_chance(right, count, classes):
            compared = f"no better than a guess among its {classes} classes"
        if compared:
            cli.log.warning(
                f"WARNING: {flags.model}: top-1 on {count} labelled images is {100 * top1:.1f} %, "
                f"{compared}: are the weights, the evaluation transform and the order of the "
                "classes right? Every score of this model rests on them."
            )
    accuracy, error = "unknown" if top1 is None else f"{top1:.3f}", facts["head_max_error"]
    exact = "no logits to compare with" if error is None else f"logits within {error:.1e}"
    cli.log.info("%s: top-1 %s; head: %s", flags.model, accuracy, exact)


if __name__ == "__main__":
    cli.run_step(main, Flags)
