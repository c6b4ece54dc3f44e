"""Write the registry entry of one space, with its defaults filled in."""

from pathlib import Path
from typing import Literal

from singflow import cli
from singflow.artifacts.files import sha256_of, write_json
from singflow.config.registry import resolve_spaces, with_hashes
from singflow.towers.weights import locate


class Flags(cli.Command):
    """Write the registry entry of one space, with its defaults filled in."""

    registry: Path
    space: str
    weights: Literal["registry", "random"]
    output: Path


def main(flags: Flags) -> None:
    entry = resolve_spaces(flags.registry, [flags.space], flags.weights)[flags.space]
    entry = with_hashes(entry, {file: sha256_of(Path(file)) for file in entry.local_files()})
    locate(entry)
    write_json(flags.output, entry.model_dump())


if __name__ == "__main__":
    cli.run(main, Flags)
