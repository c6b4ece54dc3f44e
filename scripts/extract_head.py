"""Write the weight and bias of a classifier's head."""

from pathlib import Path

from singflow import cli
from singflow.artifacts.catalog import CATALOG
from singflow.artifacts.made import Made
from singflow.artifacts.tensors import provenance, read_tensors, stored_precision, write_tensors
from singflow.config.registry import read_model
from singflow.config.sections import outside


class Flags(cli.Step):
    model: str
    source: str
    root: str
    whole: list[Path]  # the whole head, if the study has it


def main(flags: Flags) -> None:
    entry = read_model(flags.path("model_entry"))
    if flags.whole:
        tensors, made = read_tensors(*flags.whole, ["weight", "bias"])
        kept = {name: tensor[entry.kept] for name, tensor in tensors.items()}
        facts = provenance(
            [],
            **flags.named,
            class_names=entry.class_names,
            keep_classes=entry.keep_classes,
            weight_dtype=stored_precision(kept["weight"]),
        )
        write_tensors(flags.path("head"), kept, made | facts)
        return
    if flags.source == "features":
        path = CATALOG["head"].at(outside(flags.root), model=flags.model)
        tensors, made = read_tensors(path, ["weight", "bias"])
        write_tensors(flags.path("head"), tensors, made | provenance([], **flags.named))
        return
    from singflow.towers.classifiers import load_classifier, weights_sha256

    classifier = load_classifier(entry)
    metadata = provenance(
        ["torch", entry.source],
        **flags.named,
        **Made(entry.identity, weights_sha256(classifier.model)).header(),
        class_names=entry.class_names,
        keep_classes=entry.keep_classes,
        weight_dtype=stored_precision(classifier.weight.numpy()),
    )
    write_tensors(
        flags.path("head"),
        {"weight": classifier.weight.numpy(), "bias": classifier.bias.numpy()},
        metadata,
    )
    cli.log.info("%s: head of %d classes on %d features", flags.model, *classifier.weight.shape)


if __name__ == "__main__":
    cli.run_step(main, Flags)
