"""Check the study and all files that it names, and write the digest of every step's code, for DVC.

The Snakefile does the same before its first job.
"""

from pathlib import Path

from singflow import cli
from singflow.config.reading import check_same_in_both, read_yaml
from singflow.engines.at_work import running_snakemake
from singflow.engines.dvc import write_digests
from singflow.errors import InputError
from singflow.study import PARAMS, expand_home, settle


class Flags(cli.Command):
    params: Path
    output: Path


def main(flags: Flags) -> None:
    if process := running_snakemake(Path.cwd(), PARAMS):
        raise InputError(
            f"Snakemake is at work on this study in this folder already (process {process}): wait "
            "for its end, then run `dvc repro` again"
        )
    content = read_yaml(flags.params)
    check_same_in_both(content, flags.params)
    if keys := expand_home(content):
        raise InputError(
            f"{flags.params}: {', '.join(keys)}: DVC knows no ~: `singflow study {flags.params}` "
            "writes it out"
        )
    settle(content, str(flags.params))
    write_digests(flags.output, flags.params)


if __name__ == "__main__":
    cli.run_step(main, Flags)
