"""Check params.yaml and write the registry entry of one space, with its defaults filled in."""

from pathlib import Path

from singflow import cli
from singflow.config import check, read_yaml
from singflow.registry import resolve_spaces
from singflow.store import write_json


class Flags(cli.Command):
    """Check params.yaml and write the registry entry of one space, with its defaults filled in."""

    params: Path
    registry: Path
    space: str
    output: Path


def main(flags: Flags) -> None:
    check(read_yaml(flags.params), str(flags.params))
    write_json(flags.output, resolve_spaces(flags.registry, [flags.space])[flags.space].model_dump())


if __name__ == "__main__":
    cli.run(main, Flags)
