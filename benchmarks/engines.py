"""Snakemake's own time on large studies: with everything to do, and with nothing left to do.

No step runs: random bytes stand for every artifact, in a copy of the repository in a temporary
folder. Seconds are medians.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import chdir
from functools import partial
from pathlib import Path

import common
import pandas as pd
from common import ROOT, Mark, size
from pydantic import Field

from singflow import cli
from singflow.artifacts.tables import write_parquet
from singflow.config.reading import read_yaml
from singflow.study import render_params, with_derived_keys

LONGEST = 10.0  # seconds that a command on the first study may take
DRY, RUN = ["--dry-run"], ["--cores", "1"]


class Flags(cli.Command):
    studies: list[str] = Field(["paper", "sweep"], min_length=1)  # in config/studies/
    repeats: int = size(3, 1, "times that every command is run")


def snakemake(*words: str) -> str:
    """What Snakemake prints of its own accord."""
    command = [str(Path(sys.executable).with_name("snakemake")), "--quiet", "all", *words]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def prepare(study: str) -> None:
    """Make the working folder a copy of the repository with this study, not yet run."""
    made = shutil.ignore_patterns(".*", "results", "checkpoints")
    shutil.copytree(ROOT, ".", symlinks=True, ignore=made, dirs_exist_ok=True)
    content = with_derived_keys(read_yaml(ROOT / f"config/studies/{study}.yaml"))
    Path("params.yaml").write_text(render_params(content))


def finish() -> int:
    """Make up every artifact of the study; their number."""
    outs = [Path(row.split("\t")[0]) for row in snakemake("--summary").splitlines()[1:]]
    for out in outs:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.name == "manifest.parquet":  # which Snakemake opens, to know the number of images
            write_parquet(out, pd.DataFrame({"image_id": range(10_000)}))
        else:
            out.write_bytes(os.urandom(1000))
    snakemake("--touch", "--forceall", *RUN)
    return len(outs)


def main(flags: Flags) -> None:
    rows = []
    for study in flags.studies:
        with tempfile.TemporaryDirectory() as folder, chdir(folder):
            prepare(study)
            new = common.race({"dry run, all to do": partial(snakemake, *DRY)}, flags.repeats)
            artifacts = finish()
            over = {"dry run, nothing to do": partial(snakemake, *DRY)}
            over["run, nothing to do"] = partial(snakemake, *RUN)
            took = new.join(common.race(over, flags.repeats)).median().to_dict()
            rows.append({"study": study, "artifacts": artifacts} | took)
    common.show(pd.DataFrame(rows))
    common.tell(
        Mark(f"{flags.studies[0]}: seconds of a {name}", took, "<=", LONGEST)
        for name, took in rows[0].items()
        if "run" in name
    )


if __name__ == "__main__":
    cli.run_step(main, Flags)
