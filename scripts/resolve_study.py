"""Write the study in force into its results, because other files may be laid over params.yaml.

Labels and images that the study chooses are checked against the manifest.
"""

from pathlib import Path

from singflow import cli
from singflow.artifacts.files import write_bytes
from singflow.artifacts.shards import read_manifest
from singflow.config.reading import read_yaml
from singflow.study import check, check_chosen, render_params


class Flags(cli.Step):
    params: Path


def main(flags: Flags) -> None:
    content = read_yaml(flags.params)
    study = check(content, str(flags.params))
    check_chosen(study, read_manifest(flags.path("manifest")))
    write_bytes(flags.path("params"), render_params(content).encode())


if __name__ == "__main__":
    cli.run_step(main, Flags)
