"""Write the study in force into its results, because other files may be laid over params.yaml."""

from pathlib import Path

from singflow import cli
from singflow.artifacts.files import write_bytes
from singflow.config.reading import read_yaml
from singflow.study import check, render_params


class Flags(cli.Step):
    params: Path


def main(flags: Flags) -> None:
    content = read_yaml(flags.params)
    check(content, str(flags.params))
    write_bytes(flags.path("params"), render_params(content).encode())


if __name__ == "__main__":
    cli.run_step(main, Flags)
