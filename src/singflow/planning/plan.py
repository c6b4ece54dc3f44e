"""The cost of a run before it starts: time, memory and disk space, measured or expected."""

from __future__ import annotations

import math
import operator
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, get_args

from singflow.artifacts.catalog import CATALOG, artifact_of
from singflow.artifacts.tables import count_rows
from singflow.artifacts.tensors import read_tensors
from singflow.config.registry import ModelEntry, SpaceEntry
from singflow.errors import InputError
from singflow.planning import costs, power
from singflow.planning.calibration import Calibration, read_benchmark
from singflow.planning.costs import Size
from singflow.planning.rates import Rates
from singflow.study import PARAMS
from singflow.towers.parameters import Precision

if TYPE_CHECKING:
    import pandas as pd

SOURCES = ("measured", "calibrated", "estimated", "assumed", "unmeasured")
# steps whose rates benchmarks/gpu.py measures
TOWERS = [step for step, runs in costs.ON_GPU.items() if runs == "tower"]


@dataclass(frozen=True)
class Job:
    """A job of Snakemake."""

    step: str
    local: bool  # runs beside Snakemake, never on a cluster
    gpu: bool
    threads: int
    cpus: int  # that it asks a cluster for
    asked_mb: float  # memory that it requests
    wildcards: Mapping[str, str]
    benchmark: Path  # that it will write


@dataclass(frozen=True)
class JobEstimate:
    """What a job takes."""

    seconds: float  # of an unmeasured job: their order of magnitude
    peak_mb: float
    disk: int  # bytes that it writes
    source: str  # of time and memory: one of SOURCES


def parse_jobs(listing: str) -> list[Job]:
    """The jobs that `snakemake --dry-run` lists."""
    jobs = []
    parts = re.split(r"^rule (\w+):$", listing, flags=re.MULTILINE)
    for step, block in zip(parts[1::2], parts[2::2], strict=True):
        fields = dict(re.findall(r"^    (\w+): (.*)$", block, flags=re.MULTILINE))
        if "benchmark" not in fields:  # rule all
            continue
        resources = dict(re.findall(r"(\w+)=([\d.]+)(?:,|$)", fields["resources"]))
        first = artifact_of(fields["output"].split(", ")[0].split("/", 2)[2])
        job = Job(
            step,
            local=first is not None and CATALOG[first].group == "local",
            gpu=float(resources.get("gpu", 0)) > 0,
            threads=(threads := int(fields.get("threads", 1))),
            cpus=int(resources.get("cpus_per_task", threads)),
            asked_mb=float(resources.get("mem_mb", 0)),
            wildcards=dict(re.findall(r"(\w+)=(.*?)(?:, |$)", fields.get("wildcards", ""))),
            benchmark=Path(fields["benchmark"]),
        )
        jobs.append(job)
    if not jobs and "Nothing to be done" not in listing:
        raise InputError(f"snakemake lists no jobs; it says\n{listing.strip()[-2000:]}")
    return jobs


def made_of(folder: Path) -> tuple[int, int, int] | None:
    """Images, shards and rows of the first shard in results/<study>; None if it lacks any."""
    images = count_rows(CATALOG["manifest"].at(folder))
    shards = [path for path, _ in CATALOG["features"].among(folder)]
    if not images or not shards:
        return None
    rows = len(read_tensors(shards[0], ["image_id"])[0]["image_id"])
    return images, sum(shard.parent == shards[0].parent for shard in shards), rows


class Planner:
    """Estimates the costs of the jobs of a valid study.

    results: the folder of all studies. gpu: whether steps that can use a GPU have one.
    calibrations: corrections of costs, by step. rates: of towers, on such a device.
    """

    def __init__(
        self,
        study: dict[str, Any],
        models: Mapping[str, ModelEntry],
        spaces: Mapping[str, SpaceEntry],
        results: Path,
        gpu: bool,
        calibrations: Mapping[str, Calibration] | None = None,
        rates: Rates | None = None,
    ) -> None:
        self.gpu = gpu
        self._calibrations, self._rates = calibrations or {}, rates
        self._study, self._models, self._spaces = study, models, spaces
        self._own = results / study["study"]
        self.images = costs.expected_images(study, self._own)
        whole = self._size({}, gpu)
        likewise = (whole.images, whole.shards, whole.images // whole.shards * whole.views)
        others = sorted(folder for folder in results.glob("*") if folder != self._own)
        self._comparable = [own for own in (self._own, *others) if made_of(own) == likewise]

    def _size(self, wildcards: Mapping[str, str], gpu: bool) -> Size:
        model = self._models.get(wildcards.get("model", ""))
        space = self._spaces.get(wildcards.get("space", ""))
        return costs.size_of(self._study, self.images, model, space, gpu)

    def shows(self) -> dict[str, list[str]]:
        """Which leaks the study could find, in words, with the models for which this holds."""
        found: dict[str, list[str]] = {}
        for model in self._models:
            size = self._size({"model": model}, self.gpu)
            told = power.smallest_leak(size.images + size.reference[0], size.feature_dim)
            found.setdefault(told, []).append(model)
        return found

    def mean_seconds(self, step: str) -> float:
        """Expected seconds of a step's job, averaged over models and spaces."""
        return fmean(
            costs.seconds(step, self._size({"model": model, "space": space}, self.gpu))
            for model in self._models
            for space in self._spaces
        )

    def estimate(self, job: Job) -> JobEstimate:
        """Measured costs if the job has run on as many images and views, otherwise expected costs.

        Measurements from another study count for jobs of one model or space, not for jobs that
        gather all. Expected time and memory are multiplied by the step's calibration; the source is
        `calibrated` if the time is. Without a calibration, the time on a GPU is that of the rates,
        and without rates it is `unmeasured`.
        """
        size = self._size(job.wildcards, self.gpu and job.gpu)
        disk = costs.disk_bytes(job.step, size)
        for folder in self._comparable:
            file = folder / job.benchmark.relative_to(self._own)
            if file.is_file() and (job.wildcards or folder == self._own):
                return JobEstimate(*read_benchmark(file), disk, "measured")
        source = "assumed" if size.assumed else "estimated"
        known = self._calibrations.get(job.step, Calibration(0, None, None))
        if known.seconds and source == "estimated":
            source = "calibrated"
        seconds = costs.seconds(job.step, size) * (known.seconds or 1)
        if size.gpu and not known.seconds:
            rated = self.rated_seconds(job, self._study["extraction"]["precision"])
            source = "unmeasured" if math.isnan(rated) else source
            seconds = seconds if math.isnan(rated) else rated
        peak_mb = costs.peak_mb(job.step, size) * (known.megabytes or 1)
        return JobEstimate(seconds, peak_mb, disk, source)

    def rated_seconds(self, job: Job, precision: Precision) -> float:
        """Seconds of a job by the rates; NaN if they do not tell."""
        if self._rates is None or job.step not in TOWERS:
            return math.nan
        size = self._size(job.wildcards, self.gpu and job.gpu)
        names = job.wildcards
        entry = self._models[names["model"]] if "model" in names else self._spaces[names["space"]]
        return costs.tower_seconds(job.step, size, self._rates.of(entry, size.gmacs, precision))


def _group(step: str) -> str:
    return "plot_*" if step.startswith("plot_") else step


def cost_table(
    waiting: Iterable[Job], every: Iterable[Job], planner: Planner, steps: Iterable[str]
) -> pd.DataFrame:
    """One row per step (all figures share a row): waiting jobs, all jobs, place and costs.

    waiting: jobs that a run would start. every: jobs of the whole study. steps: all steps, in the
    order of the rows. Hours are sums, except the longest job; `peak` and `asked` are the largest
    memory of a job, as expected or measured, and as requested. `guess`: whether hours of one of the
    jobs are unmeasured, so that those of the step are an order of magnitude.
    """
    import pandas as pd

    known = Counter(_group(job.step) for job in every)
    of_step: dict[str, list[Job]] = {_group(step): [] for step in steps if known[_group(step)]}
    for job in waiting:
        of_step[_group(job.step)].append(job)
    rows = []
    for step, jobs in of_step.items():
        estimates = [planner.estimate(job) for job in jobs]
        sources = Counter(estimate.source for estimate in estimates)
        counts = [f"{sources[source]} {source}" for source in SOURCES if sources[source]]
        gpu = planner.gpu and any(job.gpu for job in jobs)
        place = "here" if all(job.local for job in jobs) else "GPU" if gpu else "CPU"
        hours = [estimate.seconds / 3600 for estimate in estimates]
        cores = [job.cpus if gpu else job.threads for job in jobs]
        rows.append(
            {
                "step": step,
                "jobs": len(jobs),
                "of": known[step],
                "on": place if jobs else "",
                "GPU hours": sum(hours) if gpu else 0.0,
                "core hours": sum(map(operator.mul, hours, cores)),
                "longest h": max(hours, default=0.0),
                "peak GB": max((estimate.peak_mb for estimate in estimates), default=0.0) / 1e3,
                "asked GB": max((job.asked_mb for job in jobs), default=0.0) / 1e3,
                "disk GB": sum(estimate.disk for estimate in estimates) / 1e9,
                "time and memory": ", ".join(counts) or "done",
                "guess": sources["unmeasured"] > 0,
            }
        )
    return pd.DataFrame(rows)


def order_of_magnitude(hours: float) -> str:
    """The nearest power of ten, marked as no measurement."""
    return f"~{10.0 ** round(math.log10(hours)):g}"


def precision_table(waiting: Iterable[Job], planner: Planner) -> pd.DataFrame:
    """Hours of the waiting jobs of a step at each precision, by the rates; NaN: not measured."""
    import pandas as pd

    of_step = {step: [job for job in waiting if job.step == step] for step in TOWERS}
    return pd.DataFrame(
        {"step": step}
        | {
            precision: sum(planner.rated_seconds(job, precision) for job in jobs) / 3600
            for precision in get_args(Precision)
        }
        for step, jobs in of_step.items()
        if jobs
    )


def list_jobs(params: Path, *options: str) -> list[Job]:
    """The jobs that a run with these options would start, from a dry run of Snakemake."""
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--cores", "1000", "--nocolor"]
    command += [] if params == PARAMS else ["--configfile", str(params)]
    out, both = subprocess.PIPE, subprocess.STDOUT
    done = subprocess.run([*command, *options], stdout=out, stderr=both, text=True)
    return parse_jobs(done.stdout)
