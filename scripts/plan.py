"""Print what the study in force will cost: its jobs, GPU-hours, core-hours, memory and disk, and which numbers are measured."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Literal

from pydantic import Field

from singflow import cli
from singflow.config import check, read_yaml
from singflow.plan import Job, Planner, local_rules, parse_jobs, tabulate
from singflow.registry import resolve_models, resolve_spaces

GPU_DEVICE = Path("/dev/nvidia0")


class Flags(cli.Command):
    """Print what the study in force will cost, before it runs."""

    params: Path = Path("params.yaml")
    models: Path = Path("models.yaml")
    spaces: Path = Path("spaces.yaml")
    results: Path = Field(Path("results"), description="folder of the results of all studies, where measured times are looked for")
    device: Literal["auto", "cpu", "cuda"] | None = Field(
        None, description="what steps that can use a GPU are reckoned with (default: extraction.device; auto: a GPU when there is one here)"
    )


def list_jobs(params: Path, *options: str) -> list[Job]:
    """Jobs of a dry run of Snakemake, which starts nothing."""
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--cores", "1000", "--nocolor"]
    command += [] if params == Path("params.yaml") else ["--replace-workflow-config", "--configfile", str(params)]
    done = subprocess.run([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return parse_jobs(done.stdout, local_rules(Path("Snakefile"), *Path("rules").glob("*.smk")))


def _short(number: float) -> str:
    return f"{number:.2f}" if number < 10 else f"{number:,.0f}"


def main(flags: Flags) -> None:
    content = read_yaml(flags.params)
    study = check(content, str(flags.params))
    device = flags.device or study.extraction.device
    gpu = device == "cuda" or (device == "auto" and GPU_DEVICE.exists())
    models = resolve_models(flags.models, study.models, study.weights)
    planner = Planner(content, models, resolve_spaces(flags.spaces, study.spaces, study.weights), flags.results, gpu)
    waiting, every = list_jobs(flags.params), list_jobs(flags.params, "--forceall")
    table = tabulate(waiting, every, planner)
    print(f"Study {study.study}: {planner.images} images, {len(models)} models, {len(study.spaces)} spaces\n")
    print(table.to_string(index=False, float_format=_short))
    total = table[["GPU hours", "core hours", "disk GB"]].sum()
    free = shutil.disk_usage(next(each for each in [flags.results, Path()] if each.exists())).free / 1e9
    print(f"\n{len(waiting)} of {len(every)} jobs to run, {len(every) - len(waiting)} done")
    print(f"{total['GPU hours']:.1f} GPU-hours, {total['core hours']:.1f} core-hours in all (those beside a GPU too)")
    print(f"{total['disk GB']:.1f} GB to write, {free:.0f} GB free")
    if not gpu and study.extraction.device != "cpu" and flags.device is None:
        print("There is no GPU here, so none is reckoned with: --device cuda shows a run with one")


if __name__ == "__main__":
    cli.run(main, Flags)
