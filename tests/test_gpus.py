"""GPUs of a machine: how many, and which one a step takes; with a stand-in for nvidia-smi."""

import os
import subprocess
import sys

import pytest

from singflow import system
from singflow.commands.run import parsed
from tests.project import ROOT

NVIDIA_SMI = """#!/bin/sh
echo "$*" | grep -q -- '--query-gpu=uuid,memory.free --format=csv,noheader,nounits' || exit 1
printf 'GPU-aa, 1000\\nGPU-bb, 3000\\nGPU-cc, 2000\\n'
"""
STEP = """
import os, sys
from pathlib import Path
from singflow import cli, system
system.DEVICES = Path(sys.argv.pop())
class Flags(cli.Command):
    device: str
def main(flags):
    print(os.environ.get("CUDA_VISIBLE_DEVICES"), system.given_gpus() or "none", flush=True)
    sys.stdin.read()
cli.run_step(main, Flags)
"""


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with three GPUs."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/nvidia-smi").write_text(NVIDIA_SMI)
    (tmp_path / "bin/nvidia-smi").chmod(0o755)
    for name in ("nvidia0", "nvidia1", "nvidia10", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    monkeypatch.setattr(system, "DEVICES", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def start(machine):
    """Start a step until the test ends. Returns it, the GPU that it sees, and what it was given."""
    running = []

    def begin(device="auto", **variables):
        command, pipe = [sys.executable, "-c", STEP, "--device", device, machine], subprocess.PIPE
        known = os.environ | variables
        process = subprocess.Popen(command, env=known, stdin=pipe, stdout=pipe, text=True)
        running.append(process)
        return process, *process.stdout.readline().split()

    yield begin
    for process in running:
        process.communicate()


def test_jobs_take_free_cards_and_a_card_is_free_again_when_its_job_is_killed(start):
    first, *shown = start()
    assert shown == ["GPU-bb", "none"], "most memory is free; nobody gave it to the job"
    assert [start()[1], start("cuda")[1]] == ["GPU-cc", "GPU-aa"]
    assert start()[1] == "GPU-bb", "all are taken"
    first.kill()
    first.wait()
    assert start(CUDA_VISIBLE_DEVICES="GPU-cc,GPU-bb")[1] == "GPU-bb"


@pytest.mark.parametrize(
    ("variables", "shown"),
    [
        ({"CUDA_VISIBLE_DEVICES": "1"}, ["1", "1"]),
        ({"CUDA_VISIBLE_DEVICES": "GPU-aa,GPU-cc"}, ["GPU-cc", "GPU-cc"]),
        ({"CUDA_VISIBLE_DEVICES": "1,0"}, ["1", "1"]),
        ({"PATH": "/nowhere"}, ["None", "none"]),
        ({"device": "cpu"}, ["None", "none"]),
        ({"TMPDIR": "/proc"}, ["GPU-bb", "none"]),
    ],
)
def test_what_was_given_is_kept_to_and_what_is_not_known_is_left_alone(start, variables, shown):
    assert [*start(**variables)[1:]] == shown


@pytest.mark.parametrize(
    ("visible", "count"), [(None, 3), ("", 0), ("-1", 0), ("0", 1), ("1,GPU-aa", 2)]
)
def test_a_run_has_as_many_jobs_on_gpus_as_there_are(machine, monkeypatch, visible, count):
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert system.gpu_count() == count
    assert (parsed(["results/a.csv"])[1].resources or {}) == ({"gpu": count} if count else {})
    for own, gpus in (
        ("--resources gpu=7", 7),
        (f"--profile={ROOT}/slurm", None),
        ("-e slurm", None),
    ):
        assert parsed(own.split())[1].resources.get("gpu") == gpus
