"""Check params.yaml and write the registry entry of one space, with its defaults filled in."""

from pathlib import Path
from typing import Literal

from singflow import cli
from singflow.config import check, read_yaml
from singflow.registry import resolve_spaces, with_hashes
from singflow.store import sha256_of, write_json
from singflow.weights import locate, refuse_space


class Flags(cli.Command):
    """Check params.yaml and write the registry entry of one space, with its defaults filled in."""

    params: Path
    registry: Path
    space: str
    weights: Literal["registry", "random"]
    output: Path


def main(flags: Flags) -> None:
    study = check(read_yaml(flags.params), str(flags.params))
    entry = resolve_spaces(flags.registry, [flags.space], flags.weights)[flags.space]
    if study.pictures.renderer == "unclip":
        refuse_space(flags.space, entry)
    entry = with_hashes(entry, {file: sha256_of(Path(file)) for file in entry.local_files()})
    locate(entry)
    write_json(flags.output, entry.model_dump())


if __name__ == "__main__":
    cli.run(main, Flags)
