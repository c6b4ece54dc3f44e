import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from singflow.errors import InputError
from singflow.planning import slurm as cluster
from singflow.study import PARAMS
from tests.project import ROOT

LOG = """Using profile slurm for setting default command line arguments.
SLURM run ID: {name}
rule extract_features:
    output: results/{study}/features/tiny/shard-00000.safetensors
"""


def test_runs_of_other_studies_are_told_apart_by_what_they_wrote(tmp_path):
    for name, study in {"aaa": "demo", "bbb": "sweep", "ccc": "demo_2", "ddd": "demo"}.items():
        (tmp_path / f"{name}.snakemake.log").write_text(LOG.format(name=name, study=study))
    (tmp_path / "4.snakemake.log").write_text("Building DAG of jobs...\n")
    assert cluster.runs(tmp_path, "demo") == ({"aaa", "ddd"}, {"bbb", "ccc"})
    assert cluster.runs(tmp_path, "sweep") == ({"bbb"}, {"aaa", "ccc", "ddd"})
    assert cluster.runs(tmp_path / "absent", "demo") == (set(), set())


def test_a_command_that_is_missing_fails_or_hangs_is_named(monkeypatch):
    assert cluster.ask_slurm("echo", "7|demo").splitlines() == ["7|demo"]

    def refused(message, *command):
        with pytest.raises(InputError, match=message):
            cluster.ask_slurm(*command)

    refused("no-squeue: no such command: is this machine part of a Slurm cluster", "no-squeue")
    refused(r"ls /absent: .*No such file", "ls", "/absent")
    monkeypatch.setattr(cluster, "PATIENCE", 0.2)
    refused(r"sleep gave no answer within 0\.2 s", "sleep", "5")


def test_a_living_snakemake_is_found_by_its_folder_and_its_study(tmp_path):
    os.mkfifo(tmp_path / "never")
    (tmp_path / "Snakefile").write_text("rule slow:\n    shell: 'echo started; cat never'\n")
    (tmp_path / "mine.yaml").write_text("study: mine\n")
    command = [Path(sys.executable).parent / "snakemake", "--cores", "1", "--quiet", "all"]
    command += ["--configfile", "mine.yaml"]
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, cwd=tmp_path, start_new_session=True, **given) as process:
        try:
            said = ""
            while not said.endswith("started\n"):
                line = process.stdout.readline()
                assert line, said
                said += line
            assert cluster.running_snakemake(tmp_path, Path("mine.yaml")) == process.pid
            assert cluster.running_snakemake(tmp_path, PARAMS) is None
            assert cluster.running_snakemake(tmp_path, Path("other.yaml")) is None
            assert cluster.running_snakemake(ROOT, Path("mine.yaml")) is None
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    assert cluster.running_snakemake(tmp_path, Path("mine.yaml")) is None
