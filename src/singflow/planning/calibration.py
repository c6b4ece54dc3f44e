"""Measured costs of jobs, and their ratios to the estimates, which correct the estimates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from singflow.config.reading import read_yaml
from singflow.config.registry import ModelEntry, SpaceEntry, resolve_models, resolve_spaces
from singflow.errors import InputError
from singflow.planning import costs
from singflow.study import with_defaults

if TYPE_CHECKING:
    import pandas as pd

JOB_MB = 370.0  # of the two processes of Snakemake in a Slurm job: measured
# of the time and memory of jobs: measured, estimated, and the part of the estimate that does not
# depend on the size of a job
TIMES, MEMORY = ["seconds", "expected", "start"], ["megabytes", "expected_mb", "base_mb"]


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
    """What Slurm measured for a step's jobs, which includes Snakemake inside the jobs."""

    jobs: int
    asked_mb: float  # most of a job
    peak_mb: float
    busy: float  # share of their CPU time that the jobs used


def read_benchmark(path: Path) -> tuple[float, float]:
    """Mean seconds and highest memory (10^6 bytes; 0: not measured) in a benchmark file."""
    kinds = {"s": float, "max_rss": float}
    table = read_columns(path, kinds, "a benchmark file of Snakemake", sep="\t", na_values="-")
    if table.empty:
        raise InputError(f"{path}: not a benchmark file of Snakemake: remove it")
    seconds, peak = table["s"].mean(), table["max_rss"].fillna(0.0).max() * 2**20 / 1e6
    return float(seconds), float(peak)


def read_columns(path: Path, kinds: Mapping[str, Any], what: str, **options: Any) -> pd.DataFrame:
    """These columns of a table; InputError if the file is not what it should be."""
    import pandas as pd

    try:
        return pd.read_csv(path, usecols=[*kinds], dtype=kinds, **options)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not {what} ({error!r}): remove it") from None


def read_reports(paths: Iterable[Path]) -> dict[str, Used]:
    """What steps used, from the Slurm executor's efficiency reports; jobs of one step count."""
    import pandas as pd

    numbers = ["TotalCPU_sec", "Elapsed_sec", "NCPUS", "RequestedMem_MB", "MaxRSS_MB"]
    kinds = {"RuleName": str} | dict.fromkeys(numbers, float)
    reports = [pd.DataFrame(columns=[*kinds]).astype(kinds)]
    what = "an efficiency report of the Slurm executor with rule names"
    jobs = pd.concat([*reports, *(read_columns(path, kinds, what) for path in paths)])
    steps = jobs["RuleName"].str.extract(r"^rule_(\w+?)(?:_wildcards_.*)?$", expand=False)
    return {
        str(step): Used(
            len(mine),
            mine["RequestedMem_MB"].max() * 2**20 / 1e6,
            mine["MaxRSS_MB"].max() * 2**20 / 1e6,
            mine["TotalCPU_sec"].sum() / max((mine["Elapsed_sec"] * mine["NCPUS"]).sum(), 1.0),
        )
        for step, mine in jobs.groupby(steps, sort=False)
    }


def calibrate(
    folder: Path, registries: tuple[Path, Path], gpu: bool, used: Mapping[str, Used]
) -> dict[str, Calibration]:
    """Compare the benchmark files in results/<study> with the estimates, by step.

    registries: of models and of spaces. gpu: whether steps that can use a GPU had one, if
    extraction.device allows it. used: the measurements of Slurm, for memory that benchmark files
    lack. Jobs with towers of unknown size are left out, and so are steps for the GPU if the study
    kept to the CPU.
    """
    import pandas as pd

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
    rows = []
    for path in files:
        step, _, place = str(path.relative_to(folder / "benchmarks").with_suffix("")).partition("/")
        subject = _subject(step, place, models, spaces)
        size = costs.size_of(study, images, *subject, had_gpu and step in costs.ON_GPU)
        if size.assumed or (step in costs.ON_GPU and gpu and not had_gpu):
            continue
        (seconds, peak_mb), start = read_benchmark(path), costs.start(step)
        times = seconds, costs.seconds(step, size), start.seconds
        rows.append((step, *times, peak_mb, costs.peak_mb(step, size), start.megabytes))
    jobs = pd.DataFrame(rows, columns=["step", *TIMES, *MEMORY])
    return {
        str(step): _compared(mine, used.get(str(step)))
        for step, mine in jobs.groupby("step", sort=False)
    }


def _compared(jobs: pd.DataFrame, used: Used | None) -> Calibration:
    """The ratios of jobs of a step; megabytes are 0 where they were not measured."""
    seconds, expected, start = jobs[TIMES].sum()
    known = jobs[jobs["megabytes"] > 0]
    megabytes, reckoned, base = (known if len(known) else jobs)[MEMORY].max()
    if not len(known) and used:
        megabytes = used.peak_mb - JOB_MB
    return Calibration(
        len(jobs),
        seconds / expected if expected >= 2 * start else None,
        megabytes / reckoned if megabytes > 0 and reckoned >= 2 * base else None,
    )


def _subject(
    step: str, place: str, models: Mapping[str, ModelEntry], spaces: Mapping[str, SpaceEntry]
) -> tuple[ModelEntry | None, SpaceEntry | None]:
    """The model and the space that the path of a job's benchmark file names."""
    space = _leading(place, spaces) if "space" in costs.wildcards(step) else ""
    model = _leading(place.removeprefix(f"{space}/"), models)
    return models.get(model), spaces.get(space)


def _leading(place: str, names: Iterable[str]) -> str:
    """The longest of the names with which a path begins; "" if there is none."""
    leading = [name for name in names if f"{place}/".startswith(f"{name}/")]
    return max(leading, key=len, default="")
