"""Compares the measured costs of a study's jobs with the estimates.

The ratios correct the estimates for the machines that ran the jobs.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from singflow.config.reading import read_yaml
from singflow.config.registry import ModelEntry, SpaceEntry, resolve_models, resolve_spaces
from singflow.errors import InputError
from singflow.planning import costs
from singflow.planning.benchmarks import read_benchmark
from singflow.study import with_defaults

JOB_MB = 370.0  # of the two processes of Snakemake in a Slurm job: measured
ON_GPU = ("extract_features", "embed_images", "train_translator", "render_pictures")


@dataclass(frozen=True)
class Calibration:
    """Ratios of the measured to the estimated costs of a step's jobs.

    None for seconds if most of the estimate is start-up time; None for megabytes if most of it is
    memory of libraries, or nothing was measured.
    """

    jobs: int
    seconds: float | None
    megabytes: float | None


@dataclass(frozen=True)
class Used:
    """What Slurm measured for a step's jobs, which includes Snakemake inside the jobs.

    asked_mb, peak_mb: the largest value of a job. busy: the share of their CPU time that the jobs
    used.
    """

    jobs: int
    asked_mb: float
    peak_mb: float
    busy: float


def read_reports(paths: Iterable[Path]) -> dict[str, Used]:
    """The resources that steps used, from efficiency reports (CSV) of the Slurm executor.

    Only jobs of a single step are included.
    """
    rows: dict[str, list[tuple[float, float, float, float]]] = {}
    for path in paths:
        try:
            with path.open(encoding="utf-8", newline="") as file:
                for row in csv.DictReader(file):
                    if named := re.fullmatch(r"rule_(\w+?)(?:_wildcards_.*)?", row["RuleName"]):
                        busy, cores = (
                            float(row["TotalCPU_sec"]),
                            float(row["Elapsed_sec"]) * float(row["NCPUS"]),
                        )
                        asked, peak = (
                            float(row[key]) * 2**20 / 1e6
                            for key in ("RequestedMem_MB", "MaxRSS_MB")
                        )
                        rows.setdefault(named[1], []).append((asked, peak, busy, cores))
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{path}: not an efficiency report of the Slurm executor with rule names "
                f"({error!r}): remove it"
            ) from None
    found = {}
    for step, jobs in rows.items():
        asked_mb, peaks, seconds, core_seconds = (
            list(column) for column in zip(*jobs, strict=True)
        )
        found[step] = Used(
            len(jobs), max(asked_mb), max(peaks), sum(seconds) / max(sum(core_seconds), 1.0)
        )
    return found


def calibrate(
    folder: Path, registries: tuple[Path, Path], gpu: bool, used: Mapping[str, Used]
) -> dict[str, Calibration]:
    """Compare the benchmark files in results/<study> with the estimates, by step.

    registries: of models and of spaces. gpu: whether steps that can use a GPU had one, if
    extraction.device allows it. used: the measurements of Slurm, for memory that benchmark files
    lack. Jobs with towers of unknown size are left out, and so are steps for the GPU if the study
    kept to the CPU.
    """
    study = with_defaults(read_yaml(folder / "params.yaml"))  # an older version may lack keys
    files = sorted((folder / "benchmarks").rglob("*.tsv"))
    if not files:
        raise InputError(
            f"{folder}: holds no benchmarks/: run the study with Snakemake first, or name another "
            "one"
        )
    models = resolve_models(registries[0], study["models"], study["weights"])
    spaces = resolve_spaces(registries[1], study["spaces"], study["weights"])
    images = costs.expected_images(study, folder)
    had_gpu = gpu and study["extraction"]["device"] != "cpu"
    taken: dict[str, list[_Job]] = {}
    for path in files:
        step, _, place = str(path.relative_to(folder / "benchmarks").with_suffix("")).partition("/")
        if not (step in ON_GPU and gpu and not had_gpu):
            size = costs.size_of(study, images, *_subject(step, place, models, spaces), had_gpu)
            if not size.assumed:
                taken.setdefault(step, []).append(_job(step, size, path))
    return {step: _compared(jobs, used.get(step)) for step, jobs in taken.items()}


@dataclass(frozen=True)
class _Job:
    """Measured and estimated costs of a job.

    megabytes: 0 if not measured. start, base_mb: the parts of the estimates that do not depend on
    the job's size.
    """

    seconds: float
    expected: float
    start: float
    megabytes: float
    expected_mb: float
    base_mb: float


def _job(step: str, size: costs.Size, path: Path) -> _Job:
    took = read_benchmark(path)
    start, expected = costs.start(step), costs.seconds(step, size)
    return _Job(
        took.seconds,
        expected,
        start.seconds,
        took.peak_mb,
        costs.peak_mb(step, size),
        start.megabytes,
    )


def _compared(jobs: list[_Job], used: Used | None) -> Calibration:
    expected, start = sum(job.expected for job in jobs), sum(job.start for job in jobs)
    seconds = sum(job.seconds for job in jobs) / expected if expected >= 2 * start else None
    known = [job for job in jobs if job.megabytes]
    if known:
        most, reckoned, base = (
            max(getattr(job, name) for job in known)
            for name in ("megabytes", "expected_mb", "base_mb")
        )
    else:
        most, reckoned, base = (
            used.peak_mb - JOB_MB if used else 0.0,
            *(max(getattr(job, name) for job in jobs) for name in ("expected_mb", "base_mb")),
        )
    return Calibration(
        len(jobs), seconds, most / reckoned if most > 0 and reckoned >= 2 * base else None
    )


def _subject(
    step: str, place: str, models: Mapping[str, ModelEntry], spaces: Mapping[str, SpaceEntry]
) -> tuple[ModelEntry | None, SpaceEntry | None]:
    """The model and the space of a job, from the path of its benchmark file.

    The path is [space/][model/][kind or shard].
    """
    space = _leading(place, spaces) if "space" in costs.wildcards(step) else None
    model = _leading(place[len(space) + 1 :] if space else place, models)
    return models.get(model or ""), spaces.get(space or "")


def _leading(place: str, names: Iterable[str]) -> str | None:
    return max(
        (name for name in names if f"{place}/".startswith(f"{name}/")), key=len, default=None
    )
