"""Check params.yaml and write the registry entry of one model, with its defaults filled in."""

from pathlib import Path

from singflow import cli
from singflow.config import check, read_yaml
from singflow.registry import resolve_models
from singflow.store import write_json


class Flags(cli.Command):
    """Check params.yaml and write the registry entry of one model, with its defaults filled in."""

    params: Path
    registry: Path
    model: str
    output: Path


def main(flags: Flags) -> None:
    check(read_yaml(flags.params), str(flags.params))
    write_json(flags.output, resolve_models(flags.registry, [flags.model])[flags.model].model_dump())


if __name__ == "__main__":
    cli.run(main, Flags)
