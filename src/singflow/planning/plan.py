"""What a study still has to do: its jobs, what they ask for, and the hours that were measured."""

import csv
import re
import subprocess
import sys
from collections import Counter
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
    wildcards: Mapping[str, str]
    resources: Mapping[str, str]  # that are known before the run

    @property
    def gpu(self) -> bool:
        """Whether it asks for a GPU."""
        return self.resources.get("gpu", "0") != "0" or "gpu" in self.resources.get("gres", "")

    @property
    def asked_mb(self) -> float:
        """Memory that it asks for."""
        return float(self.resources.get("mem_mb", 0))


@dataclass(frozen=True)
class Row:
    """What a study has to do for one step."""

    step: str
    jobs: Sequence[Job]  # that a run would start
    every: int  # jobs of the whole study
    mean: float | None  # measured seconds of a job


def parse_jobs(listing: str) -> list[Job]:
    """The jobs that `snakemake --dry-run` lists."""
    jobs = []
    parts = re.split(r"^ *rule (\w+):$", listing, flags=re.MULTILINE)
    for step, block in zip(parts[1::2], parts[2::2], strict=True):
        fields = dict(re.findall(r"^ +(\w+): (.*)$", block, flags=re.MULTILINE))
        if "benchmark" not in fields:  # a target, such as all
            continue
        items = re.findall(r"(\w+)=(.*?)(?:, (?=\w+=)|$)", fields["resources"])
        resources = {name: value for name, value in items if value != "<TBD>"}
        wildcards = dict(re.findall(r"(\w+)=(.*?)(?:, |$)", fields.get("wildcards", "")))
        threads = {"cpus_per_task": fields.get("threads", "1")}
        jobs.append(Job(step, wildcards, threads | resources))
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
    """Result folders with as many images, shards and views as a study."""
    wanted = (images, study["extraction"]["shards"], study["extraction"]["views"])
    found = []
    for params in RESULTS.glob("*/params.yaml"):
        extraction = read_yaml(params).get("extraction", {})  # an older version may lack keys
        count = count_rows(CATALOG["manifest"].at(params.parent))
        if (count, extraction.get("shards"), extraction.get("views")) == wanted:
            found.append(params.parent)
    return found


def seconds_in(benchmark: Path) -> float | None:
    """Mean seconds in a benchmark file of Snakemake; None if it is damaged."""
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
    """One row a step of `every`, the jobs of the whole study; times are from `folders`."""
    counts = Counter(job.step for job in every)
    return [
        Row(step, [job for job in waiting if job.step == step], count, step_seconds(folders, step))
        for step, count in counts.items()
    ]
