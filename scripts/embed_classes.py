"""Embed the texts of a head's classes, for a model's own words, and another wording of them.

embed_prompts may have embedded them already.
"""

from pathlib import Path
from typing import Any

from singflow import cli
from singflow.artifacts.tensors import provenance, read_tensors, write_tensors
from singflow.config.registry import read_space
from singflow.data.manifest import read_classes
from singflow.towers.steps import LIBRARIES, TextFlags


class Flags(TextFlags):
    model: str
    classes: Path


def main(flags: Flags) -> None:
    head, of_head = read_tensors(flags.path("head"), ["weight"])
    listed = read_classes(flags.classes)
    names = of_head.parsed("class_names", list | None) or listed.names
    unnamed = of_head.get("unnamed", "false") == "true"  # imported without names
    entry = read_space(flags.path("space_entry"))
    # no texts if the names are those of another class list, or if the text tower is untrained
    names = names if len(names) == len(head["weight"]) and not (entry.untrained or unnamed) else []
    tensors, facts = read_tensors(flags.path("texts"), ["class_embeddings", "other_embeddings"])
    made: dict[str, Any] = {key: facts[key] for key in ("weights_sha256", "device")}
    row_of = {name: row for row, name in enumerate(listed.names)}
    if not names:
        tensors, made = {name: of[:0] for name, of in tensors.items()}, {"weights_sha256": ""}
    elif len(tensors["class_embeddings"]) and row_of.keys() >= set(names):
        rows = [row_of[name] for name in names]
        tensors = {name: of[rows] if len(of) else of for name, of in tensors.items()}
    else:
        from singflow.towers.spaces import class_spellings

        embed, made = flags.text_tower(entry)
        spellings = class_spellings(embed, names, listed, entry, flags.label_templates)
        tensors = dict(zip(tensors, spellings, strict=True))
    metadata = provenance(
        ["torch", *LIBRARIES[entry.source]], **flags.named, **made, class_names=names
    )
    write_tensors(flags.path("classes"), tensors, metadata)
    cli.log.info("%s: texts of %d classes of %s", flags.space, len(names), flags.model)


if __name__ == "__main__":
    cli.run_step(main, Flags)
