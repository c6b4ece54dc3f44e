"""Write the registry entry of one model, completed by what it refers to."""

from pathlib import Path
from typing import Literal

from singflow import cli
from singflow.artifacts.files import write_json
from singflow.config.registry import CUT, MODELS, resolve_models
from singflow.config.sections import outside
from singflow.data.imported import own_class_names
from singflow.data.vocabulary import with_classes_and_hashes
from singflow.towers.weights import check_here


class Flags(cli.Step):
    model: str
    weights: Literal["registry", "random"]
    classes: Path
    source: str
    root: str


def main(flags: Flags) -> None:
    entry = resolve_models(MODELS, [flags.model], flags.weights)[flags.model]
    whole = flags.model.removesuffix(CUT)
    if flags.source == "features" and (names := own_class_names(outside(flags.root), whole)):
        entry = entry.model_copy(update={"class_names": names})
    entry = with_classes_and_hashes(entry, MODELS, flags.model, flags.classes)
    if flags.source != "features":
        check_here(entry)
    write_json(flags.path("model_entry"), entry.model_dump())


if __name__ == "__main__":
    cli.run_step(main, Flags)
