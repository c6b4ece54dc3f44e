"""Say what of a run will work here and how to mend what will not; exit status 1 when a check fails."""

import sys
from pathlib import Path

from singflow import cli
from singflow.doctor import examine, verdict


class Flags(cli.Command):
    """Say what of a run will work here and how to mend what will not; exit status 1 when a check fails."""

    params: Path = Path("params.yaml")
    models: Path = Path("models.yaml")
    spaces: Path = Path("spaces.yaml")
    profile: Path = Path("slurm/config.yaml")


def main(flags: Flags) -> None:
    findings = []
    for finding in examine(flags.params, flags.models, flags.spaces, flags.profile):
        print(finding, flush=True)
        findings.append(finding)
    passed, counted = verdict(findings)
    print(counted)
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    cli.run(main, Flags)
