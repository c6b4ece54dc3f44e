"""Reads Snakemake's benchmark files: the time and memory of jobs."""

import csv
from pathlib import Path
from typing import NamedTuple

from singflow.errors import InputError


class Benchmark(NamedTuple):
    """The time and memory of a job.

    peak_mb: in 10^6 bytes, 0 if the job was too short to be measured.
    """

    seconds: float
    peak_mb: float


def read_benchmark(path: Path) -> Benchmark:
    """The mean time and the highest memory in a benchmark file."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        seconds = [float(row["s"]) for row in rows]
        peaks = [
            float(row["max_rss"]) * 2**20 / 1e6 for row in rows if row["max_rss"] not in ("-", "NA")
        ]
        return Benchmark(sum(seconds) / len(seconds), max(peaks, default=0.0))
    except (OSError, KeyError, ValueError, ZeroDivisionError) as error:
        raise InputError(
            f"{path}: not a benchmark file of Snakemake ({error!r}): remove it"
        ) from None
