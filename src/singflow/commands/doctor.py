from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from singflow.commands.options import PARAMS, Models, Params, Spaces


def doctor(
    params: Params = PARAMS,
    models: Models = Path("config/models.yaml"),
    spaces: Spaces = Path("config/spaces.yaml"),
    profile: Annotated[Path, typer.Option(help="Profile of the cluster.")] = Path(
        "slurm/config.yaml"
    ),
    write_partitions: Annotated[
        Path | None,
        typer.Option(
            help="Only write a first partition file of this cluster for the profile's "
            "slurm-partition-config."
        ),
    ] = None,
) -> None:
    """Check what will work on this machine, and say how to fix the rest.

    The exit status is 1 if a check fails.
    """
    from singflow.doctor.checks import examine
    from singflow.doctor.slurm import write_partition_file

    if write_partitions:
        write_partition_file(write_partitions)
        print(
            f"{write_partitions} is written: read it, then name it as slurm-partition-config in "
            f"{profile}"
        )
        return
    counts: Counter[str] = Counter()
    for finding in examine(params, models, spaces, profile):
        print(finding, flush=True)
        counts[finding.status] += 1
    passed, warned, failed = (counts[status] for status in ("ok", "warn", "fail"))
    print(f"{passed} checks passed, {warned} with a warning, {failed} failed")
    raise typer.Exit(1 if failed else 0)
