"""Snakemake's own time on large studies, and `dvc repro` beside `singflow run` on a small one.

Each has a new clone of what is committed. On the large studies no step runs: random bytes stand for
every artifact. Both commands make the small study from nothing. DVC is first, so that what is read
from the disk for the first time counts against it.
"""

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from functools import partial
from pathlib import Path

import common
import pandas as pd
from common import ROOT, Mark, size
from pydantic import Field

from singflow import cli
from singflow.artifacts.tables import write_parquet
from singflow.config.reading import read_yaml
from singflow.errors import InputError
from singflow.study import render_params, with_derived_keys

SNAKEMAKE = ["snakemake", "--quiet", "all"]
DRY, RUN = [*SNAKEMAKE, "--dry-run"], [*SNAKEMAKE, "--cores", "1"]
COLD = ["dvc repro", "singflow run"]


class Flags(cli.Command):
    studies: list[str] = Field(["paper", "sweep"], min_length=1)  # in config/studies/
    repeats: int = size(3, 1, "times that Snakemake runs on a large study: seconds are medians")
    cold: str = Field("demo", description="small study, also in config/studies/")
    rounds: int = size(1, 1, "times that both commands make the small study: seconds are medians")


def output(command: list[str]) -> str:
    """What a command prints. Raises InputError with its messages when it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise InputError(f"{shlex.join(command)}: {(done.stdout + done.stderr)[-3000:]}")
    return done.stdout


@contextmanager
def prepared(study: str) -> Iterator[None]:
    """Make the working folder a clone of the repository with this study, not yet run."""
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        output(["git", "clone", "--quiet", str(ROOT), "."])
        content = with_derived_keys(read_yaml(ROOT / f"config/studies/{study}.yaml"))
        Path("params.yaml").write_text(render_params(content))
        yield


def finish() -> int:
    """Make up every artifact of the study; their number."""
    rows = output([*SNAKEMAKE, "--summary"]).splitlines()[1:]
    for out in (Path(row.split("\t")[0]) for row in rows):
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.name == "manifest.parquet":  # which Snakemake opens, to know the number of images
            write_parquet(out, pd.DataFrame({"image_id": range(10_000)}))
        else:
            out.write_bytes(os.urandom(1000))
    output([*RUN, "--touch", "--forceall"])
    return len(rows)


def large(study: str, repeats: int) -> dict[str, float]:
    """The number of artifacts of a study, and the seconds of commands that run no step."""
    with prepared(study):
        new = common.race({"dry run, all to do": partial(output, DRY)}, repeats)
        artifacts = finish()
        over = {"dry run, nothing to do": partial(output, DRY)}
        over["run, nothing to do"] = partial(output, RUN)
        took = new.join(common.race(over, repeats)).median()
    return {"artifacts": artifacts, **took}


def cold(study: str, command: str) -> float:
    """Seconds in which a command makes a study from nothing."""
    with prepared(study):
        return common.seconds(partial(output, command.split()))


def main(flags: Flags) -> None:
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    studies = {study: large(study, flags.repeats) for study in flags.studies}
    common.show(pd.DataFrame(studies).T.rename_axis("study").reset_index())
    rounds = [{name: cold(flags.cold, name) for name in COLD} for _ in range(flags.rounds)]
    took = pd.DataFrame(rounds).median()
    common.show(took.rename_axis("command").reset_index(name="s"))
    first = flags.studies[0]
    own = [
        Mark(f"{first}: seconds of a {name}", seconds, "<=", 10.0)
        for name, seconds in studies[first].items()
        if "run" in name
    ]
    ratio = took["dvc repro"] / took["singflow run"]
    common.tell([*own, Mark("dvc repro: times as long as singflow run", ratio, "<=", 1.3)])


if __name__ == "__main__":
    cli.run_step(main, Flags)
