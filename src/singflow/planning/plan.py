"""What a study still has to do: its jobs, what they ask for, and the hours that were measured."""

import csv
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from singflow.artifacts.catalog import CATALOG
from singflow.artifacts.tables import count_rows
from singflow.config.reading import read_yaml
from singflow.errors import InputError
from singflow.study import PARAMS

RESULTS = Path("results")


@dataclass(frozen=True)
class Job:
    """A job of Snakemake."""

    step: str
    gpu: bool  # whether it asks for one
    asked_mb: float  # memory that it asks for
    wildcards: Mapping[str, str]
    benchmark: Path  # that it will write


@dataclass(frozen=True)
class Row:
    """What a study has to do for one step."""

    step: str
    jobs: int  # that a run would start
    every: int  # jobs of the whole study
    gpu: bool  # whether one of the jobs that start asks for a GPU
    asked_mb: float  # most memory that one of them asks for
    seconds: float  # of those that were measured
    unmeasured: int  # jobs whose seconds are not known


def parse_jobs(listing: str) -> list[Job]:
    """The jobs that `snakemake --dry-run` lists."""
    jobs = []
    parts = re.split(r"^rule (\w+):$", listing, flags=re.MULTILINE)
    for step, block in zip(parts[1::2], parts[2::2], strict=True):
        fields = dict(re.findall(r"^    (\w+): (.*)$", block, flags=re.MULTILINE))
        if "benchmark" not in fields:  # a target, such as all
            continue
        resources = dict(re.findall(r"(\w+)=([\d.]+)(?:,|$)", fields["resources"]))
        job = Job(
            step,
            gpu=float(resources.get("gpu", 0)) > 0,
            asked_mb=float(resources.get("mem_mb", 0)),
            wildcards=dict(re.findall(r"(\w+)=(.*?)(?:, |$)", fields.get("wildcards", ""))),
            benchmark=Path(fields["benchmark"]),
        )
        jobs.append(job)
    if not jobs and "Nothing to be done" not in listing:
        raise InputError(f"snakemake lists no jobs; it says\n{listing.strip()[-2000:]}")
    return jobs


def list_jobs(params: Path, *options: str) -> list[Job]:
    """The jobs that a run with these options would start, from a dry run of Snakemake."""
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--cores", "1000", "--nocolor"]
    command += [] if params == PARAMS else ["--configfile", str(params)]
    out, both = subprocess.PIPE, subprocess.STDOUT
    done = subprocess.run([*command, *options], stdout=out, stderr=both, text=True)
    return parse_jobs(done.stdout)


def alike(study: Mapping[str, Any], images: int) -> list[Path]:
    """Result folders with as many images, shards and views as a study; its own comes first."""
    wanted = (images, study["extraction"]["shards"], study["extraction"]["views"])
    found = []
    for params in RESULTS.glob("*/params.yaml"):
        extraction = read_yaml(params).get("extraction", {})  # an older version may lack keys
        count = count_rows(CATALOG["manifest"].at(params.parent))
        if (count, extraction.get("shards"), extraction.get("views")) == wanted:
            found.append(params.parent)
    return sorted(found, key=lambda folder: (folder.name != study["study"], folder))


def seconds_in(benchmark: Path) -> float | None:
    """Mean seconds in a benchmark file of Snakemake; None if it is missing or damaged."""
    try:
        with benchmark.open(encoding="utf-8", newline="") as file:
            return fmean(float(row["s"]) for row in csv.DictReader(file, delimiter="\t"))
    except (OSError, ValueError, TypeError, KeyError, csv.Error):
        return None


def step_seconds(folders: Iterable[Path], step: str) -> float | None:
    """Mean seconds of a step's jobs in folders of results; None if none was measured."""
    files = [
        file
        for folder in folders
        for pattern in (f"{step}.tsv", f"{step}/**/*.tsv")
        for file in folder.glob(f"benchmarks/{pattern}")
    ]
    known = [seconds for seconds in map(seconds_in, files) if seconds is not None]
    return fmean(known) if known else None


def rows_by_step(
    waiting: Sequence[Job], every: Sequence[Job], folders: Sequence[Path]
) -> list[Row]:
    """One row a step, in the order of the jobs.

    waiting: jobs that a run would start. every: those of the whole study. A job takes as long as in
    the first of the folders that has measured it, or else as the step's jobs there on average.
    """
    rows = []
    for step in dict.fromkeys(job.step for job in every):
        jobs = [job for job in waiting if job.step == step]
        mean = step_seconds(folders, step)
        seconds = [_measured(job, folders) or mean for job in jobs]
        known = [one for one in seconds if one is not None]
        row = Row(
            step,
            len(jobs),
            every=sum(job.step == step for job in every),
            gpu=any(job.gpu for job in jobs),
            asked_mb=max((job.asked_mb for job in jobs), default=0.0),
            seconds=sum(known),
            unmeasured=len(jobs) - len(known),
        )
        rows.append(row)
    return rows


def _measured(job: Job, folders: Sequence[Path]) -> float | None:
    """Seconds of a job in the first of the folders that has measured it."""
    place = Path(*job.benchmark.parts[len(RESULTS.parts) + 1 :])
    known = (seconds_in(folder / place) for folder in folders)
    return next((seconds for seconds in known if seconds is not None), None)
