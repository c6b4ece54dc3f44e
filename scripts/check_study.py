"""Check the study and write the resolved registry entry of each of its models and spaces."""

from pathlib import Path

from pydantic import Field

from singflow import cli
from singflow.config import ModelName, Name, check, read_yaml
from singflow.registry import resolve_models, resolve_spaces
from singflow.store import write_json


class Flags(cli.Command):
    """Check the study and resolve its models and spaces."""

    study: Name
    models: list[ModelName] = Field(min_length=1)
    spaces: list[Name] = Field(min_length=1)
    params: Path
    models_file: Path
    spaces_file: Path
    output: Path


def main(flags: Flags) -> None:
    check(read_yaml(flags.params), str(flags.params))
    models = resolve_models(flags.models_file, flags.models)
    spaces = resolve_spaces(flags.spaces_file, flags.spaces)
    written = {flags.output / "study.json": {"study": flags.study, "models": flags.models, "spaces": flags.spaces}}
    written |= {flags.output / "models" / f"{name}.json": entry.model_dump() for name, entry in models.items()}
    written |= {flags.output / "spaces" / f"{name}.json": entry.model_dump() for name, entry in spaces.items()}
    for path, content in written.items():
        write_json(path, content)
    for stale in set(flags.output.rglob("*.json")) - set(written):
        stale.unlink()
    cli.log.info("study %s: %d models, %d spaces", flags.study, len(models), len(spaces))


if __name__ == "__main__":
    cli.run(main, Flags)
