"""What a study still has to do: its jobs, and what they ask for."""

import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from singflow.errors import InputError
from singflow.study import PARAMS


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
