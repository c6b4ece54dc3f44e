"""Embed the texts of a head's classes, for a model's own words, and another wording of them."""

from pathlib import Path

import numpy as np

from singflow import cli
from singflow.artifacts.tensors import provenance, read_tensors, write_tensors
from singflow.config.registry import read_space
from singflow.data.manifest import read_classes
from singflow.towers.steps import TextFlags


class Flags(TextFlags):
    model: str
    classes: Path


def main(flags: Flags) -> None:
    from singflow.towers.spaces import LIBRARIES, class_spellings

    head, made = read_tensors(flags.path("head"), ["weight"])
    listed = read_classes(flags.classes)
    names = made.parsed("class_names", list | None) or listed.names
    unnamed = made.get("unnamed", "false") == "true"  # imported without names
    entry = read_space(flags.path("space_entry"))
    untrained = getattr(entry, "weights", "") == "random"
    # no texts if the names are those of another class list, or if the text tower is untrained
    names = names if len(names) == len(head["weight"]) and not (untrained or unnamed) else []
    spellings, made = [np.zeros((0, entry.dim), np.float32)] * 2, {"weights_sha256": ""}
    if names:
        embed = flags.text_cache(entry)
        spellings = class_spellings(embed, names, listed, entry, flags.label_templates)
        made = {"weights_sha256": embed.weights_sha256, "device": embed.facts["device"]}
    tensors = dict(zip(("class_embeddings", "other_embeddings"), spellings, strict=True))
    libraries = ["torch", *LIBRARIES[entry.source]]
    metadata = provenance(libraries, **flags.named, **made, class_names=names)
    write_tensors(flags.path("classes"), tensors, metadata)
    cli.log.info("%s: texts of %d classes of %s", flags.space, len(names), flags.model)


if __name__ == "__main__":
    cli.run_step(main, Flags)
