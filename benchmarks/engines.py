"""How long Snakemake and DVC take to find that nothing is left to do in complete studies.

No step runs: random bytes stand for every artifact, in a copy of the repository in a temporary
folder. Seconds are medians. Ends with exit status 1 when a command on the first study takes longer
than its mark.
"""

import shutil
import subprocess
import sys
import tempfile
from contextlib import chdir
from pathlib import Path

import common
import numpy as np
import pandas as pd
from common import ROOT, Mark, size
from pydantic import Field
from singflow.engines.dvc import FILE, write_digests

from singflow import cli
from singflow.artifacts.tables import write_parquet
from singflow.config.reading import read_yaml
from singflow.study import render_params, with_derived_keys

SNAKEMAKE, DVC = (str(Path(sys.executable).with_name(name)) for name in ("snakemake", "dvc"))
COMMANDS = {
    "snakemake -n": [SNAKEMAKE, "--dry-run", "--quiet"],
    "dvc commit -f": [DVC, "commit", "--force"],
    "dvc status": [DVC, "status"],  # --quiet fails, as check_study always runs
    "dvc status again": [DVC, "status"],
}


LONGEST = 10.0  # seconds that a command on the first study may take


class Flags(common.Flags):
    studies: list[str] = Field(
        ["paper", "sweep"], min_length=1, description="names of files in config/studies/"
    )
    repeats: int = size(3, 1, "times that every command is run")


def prepare(study: Path) -> int:
    """Make the working folder a repository with a complete study; the number of artifacts."""
    from dvc.repo import Repo  # type: ignore[import-untyped]

    listed = subprocess.run(
        ["git", "ls-files", "-coz", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, name, follow_symlinks=False)
    Path("params.yaml").write_text(render_params(with_derived_keys(read_yaml(ROOT / study))))
    subprocess.run(["git", "init", "--quiet"], check=True)
    generator = np.random.default_rng(0)
    with Repo() as repo:
        outs = [Path(out.fs_path) for out in repo.index.outs]
    for out in outs:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.name == "manifest.parquet":  # which Snakemake opens, to know the number of images
            write_parquet(out, pd.DataFrame({"image_id": range(10_000)}))
        elif out.name in ("metrics.json", "translators.json"):  # which DVC opens
            out.write_text("{}\n")
        elif out.name == FILE.name:  # likewise
            write_digests(out)
        else:
            out.write_bytes(generator.bytes(1000))
    common.measure([SNAKEMAKE, "--touch", "--forceall", "--quiet", "--cores", "1"])
    return len(outs)


def measure(repeats: int) -> dict[str, float]:
    """Median seconds of COMMANDS; every commit begins with an empty cache and without dvc.lock."""
    rounds = []
    for _ in range(repeats):
        Path("dvc.lock").unlink(missing_ok=True)
        shutil.rmtree(".dvc/cache", ignore_errors=True)
        costs = {name: common.measure(command) for name, command in COMMANDS.items()}
        rounds.append({name: cost.seconds for name, cost in costs.items()})
    return pd.DataFrame(rounds).median().to_dict()


def main(flags: Flags) -> None:
    rows = []
    for study in flags.studies:
        with tempfile.TemporaryDirectory() as folder, chdir(folder):
            artifacts = prepare(Path("config/studies", f"{study}.yaml"))
            rows.append({"study": study, "artifacts": artifacts} | measure(flags.repeats))
    common.show(pd.DataFrame(rows))
    first = f"{flags.studies[0]}: seconds of"
    marks = [Mark(f"{first} {name}", rows[0][name], "<=", LONGEST) for name in COMMANDS]
    common.hold(marks, flags.ease)


if __name__ == "__main__":
    cli.run_step(main, Flags)
