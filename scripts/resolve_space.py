"""Write the registry entry of one space, with its defaults filled in."""

from pathlib import Path
from typing import Literal

from singflow import cli
from singflow.artifacts.files import sha256_of, write_json
from singflow.config.registry import SPACES, resolve_spaces
from singflow.towers.weights import check_here


class Flags(cli.Step):
    space: str
    weights: Literal["registry", "random"]


def main(flags: Flags) -> None:
    entry = resolve_spaces(SPACES, [flags.space], flags.weights)[flags.space]
    entry = entry.with_weights(sha256={file: sha256_of(Path(file)) for file in entry.local_files()})
    check_here(entry)
    write_json(flags.path("space_entry"), entry.model_dump())


if __name__ == "__main__":
    cli.run_step(main, Flags)
