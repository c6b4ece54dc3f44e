import os
import signal
import subprocess
import sys
from pathlib import Path

from singflow.engines.at_work import running_snakemake
from singflow.study import PARAMS
from tests.project import ROOT


def test_a_living_snakemake_is_found_by_its_folder_and_its_study(tmp_path):
    os.mkfifo(tmp_path / "never")
    (tmp_path / "Snakefile").write_text("rule slow:\n    shell: 'echo started; cat never'\n")
    (tmp_path / "mine.yaml").write_text("study: mine\n")
    options = ["--cores", "1", "--quiet", "all", "--configfile", "mine.yaml"]
    command = [Path(sys.executable).parent / "snakemake", *options]
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, cwd=tmp_path, start_new_session=True, **given) as process:
        try:
            said = ""
            while not said.endswith("started\n"):
                line = process.stdout.readline()
                assert line, said
                said += line
            assert running_snakemake(tmp_path, Path("mine.yaml")) == process.pid
            assert running_snakemake(tmp_path, PARAMS) is None
            assert running_snakemake(tmp_path, Path("other.yaml")) is None
            assert running_snakemake(ROOT, Path("mine.yaml")) is None
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    assert running_snakemake(tmp_path, Path("mine.yaml")) is None
