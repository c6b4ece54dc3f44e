"""Run a classifier over one shard of the images and keep the input of its head."""

from singflow import cli
from singflow.artifacts.tensors import provenance, write_tensors
from singflow.config.registry import read_model
from singflow.towers.steps import ShardFlags, run_shard


class Flags(ShardFlags):
    model: str


def main(flags: Flags) -> None:
    import numpy as np
    import torch

    from singflow.analyses.statistics import top1_shortfall
    from singflow.data.manifest import head_classes
    from singflow.towers.classifiers import load_classifier, weights_sha256

    entry = read_model(flags.path("model_entry"))
    classifier = load_classifier(entry)
    sha256 = weights_sha256(classifier.model)
    rows, tensors, facts = run_shard(flags, flags.model, classifier, "features")
    actual = head_classes(rows, entry.class_names)
    whole_images = torch.from_numpy(tensors["features"][tensors["view"] == 0])
    predicted = classifier.logits(whole_images).argmax(dim=1).numpy()
    known = actual >= 0
    count = int(known.sum())
    top1 = float(np.mean(predicted[known] == actual[known])) if count else None
    metadata = provenance(
        ["torch", "torchvision", "timm", "pillow", entry.source],
        **flags.named,
        weights_sha256=sha256,
        tower=entry.identity,
        head_max_error=classifier.head_max_error,
        top1=top1,
        top1_images=count,
        **facts,
    )
    write_tensors(flags.path("features", shard=flags.shard_id), tensors, metadata)
    reported, source = entry.expected_top1, entry.reported_by or "its source"
    if (
        top1 is not None
        and reported is not None
        and top1_shortfall(top1, count, reported, flags.top1_margin) > 0
    ):
        cli.log.warning(
            f"WARNING: {flags.model}: top-1 on {count} labelled images is {100 * top1:.1f} %, but "
            f"{source} reports {reported:.1f} %: are the weights, the evaluation transform and the "
            "order of the classes right? Every score of this model rests on them."
        )
    accuracy, error = "unknown" if top1 is None else f"{top1:.3f}", classifier.head_max_error
    cli.log.info(
        "%s: top-1 %s; head reproduces the logits within %.1e", flags.model, accuracy, error
    )


if __name__ == "__main__":
    cli.run_step(main, Flags)
