"""`singflow run`: a progress line, the message of a failed step, a quick end, and the summary."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time

import psutil
import pytest

from tests.project import THREADS

RUN = ("singflow", "run", "--cores", "2")
STEP = "src/singflow/figures/plot_concepts.py"
WAIT = "import os\n    os.system('touch began; until test -e go; do sleep 0.1; done')"
PROGRESS = re.compile(r"^(\d+) of (\d+) steps", flags=re.MULTILINE)


@pytest.fixture
def project(snakemake_project, tmp_path):
    """A finished study of whose steps some are to be done again."""
    copy = snakemake_project.copy(tmp_path / "run")
    copy.edit("params.yaml", "extremes: 8", "extremes: 7")
    return copy


def first(project, line):
    """Let the step do something before all else."""
    project.edit(STEP, "    models = read_models", f"    {line}\n    models = read_models")


def test_a_run_into_a_pipe_says_little_and_ends_with_the_summary(project):
    said = project.run(*RUN).stdout
    begin, end = said.split("Study demo: 20 images")
    lines = begin.splitlines()
    assert 2 <= len(lines) <= 12 and all(map(PROGRESS.match, lines)), begin
    (done, total), (first, _) = PROGRESS.findall(lines[-1])[0], PROGRESS.findall(lines[0])[0]
    assert first == "0" and done == total and "left" not in lines[-1]
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", said)
    assert end.rstrip().splitlines()[-1] == "results/demo/report.html"
    again = project.run(*RUN).stdout
    assert not PROGRESS.search(again) and again.rstrip().endswith("results/demo/report.html")
    assert "Nothing to be done" in project.snakemake("--dry-run") and not list(
        (project.folder / ".snakemake/locks").iterdir()
    )


@pytest.mark.nightly
def test_a_run_on_a_terminal_has_one_line_that_lives(project):
    master, terminal = pty.openpty()
    variables = project.environment(COLUMNS="100", TERM="xterm")
    with subprocess.Popen(
        RUN, cwd=project.folder, env=variables, stdout=subprocess.DEVNULL, stderr=terminal
    ) as process:
        os.close(terminal)
        shown = b""
        while True:
            try:
                shown += os.read(master, 2**16)
            except OSError:  # the terminal's last user has gone
                break
        assert process.wait() == 0
    os.close(master)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert re.search(r"\d of \d+ steps", text) and text.strip("\r\n ").count("\n") <= 1, text


INPUT = "words.txt: line 3: a word twice: remove one"
FAULTS = {
    "input": (f"from singflow.errors import InputError\n    raise InputError('{INPUT}')",
        f"error: {INPUT}"),
    "defect": ("raise KeyError('absent')",
        "a defect of this program, not of your input: KeyError: 'absent'"),
    "killed": ("import os\n    os.kill(os.getpid(), 9)",
        "it was killed by SIGKILL: is there memory enough?"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FAULTS)
def test_the_message_of_a_step_that_failed_comes_last(project, kind):
    fault, message = FAULTS[kind]
    first(project, fault)
    text = project.refused(*RUN)
    said = text.splitlines()
    last, *more = said[said.index("error: plot_concepts failed:") + 1 :]
    assert message in last, text
    assert more == ([] if kind == "killed" else ["its log: results/demo/logs/plot_concepts.log"])
    assert "RuleException" not in text


def test_a_damaged_artifact_is_named_with_the_fix_which_brings_it_back(project, snakemake_project):
    path = project.folder / "results/demo/concepts/conse_minilm/tiny.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    fix = (
        r"concepts/conse_minilm/tiny\.safetensors: not readable as safetensors.*: remove it and run"
    )
    assert re.search(fix, project.refused(*RUN))
    path.unlink()
    project.edit("params.yaml", "extremes: 7", "extremes: 8")
    project.run(*RUN)
    assert path.read_bytes() == whole and project.differs(snakemake_project) == set()


def test_what_snakemake_refuses_is_said_in_its_words(project):
    for option in ("results/demo/figures/fig99.png", "--no-such-option"):
        assert option in project.refused(*RUN, "--", option)
    project.edit("params.yaml", "extremes: 7", "extremes: many")
    said = "error: params.yaml: plot_concepts.extremes: 'many'"
    assert project.refused(*RUN).startswith(said)


@pytest.mark.nightly
def test_weights_that_are_not_here_stop_a_run_that_needs_them_before_its_first_step(
    project, tmp_path
):
    model, hub = "timm/test_resnet.r160_in1k", {"HF_HUB_CACHE": str(tmp_path / "hub")}
    project.edit("params.yaml", "lite0, tiny", f"lite0, {model}")
    before = project.artifacts()
    said = project.refused(*RUN, **hub)
    wanted = (
        f"error: weights that this run needs are not here:\n{model}: {model}: model.safetensors\n"
    )
    assert wanted in said and "steps" not in said
    assert "run `make prefetch` on" in said and project.artifacts() == before
    needs_none = ("--", "results/demo/data/manifest.parquet")
    assert "not here" not in project.run(*RUN, *needs_none, **hub).stdout


@pytest.mark.nightly
def test_further_options_reach_snakemake(project):  # test_layered runs a study of layers
    listed = project.run(*RUN, "--", "--dry-run").stdout
    assert "\nrule plot_concepts:\n" in listed and "Study demo" not in listed
    not_active = {"PATH": "/usr/bin:/bin", "warm_start": False}
    command = (sys.executable, "-m", "singflow", "run", "--", "--dry-run")
    assert "rule plot_concepts:" in project.run(*command, **not_active).stdout
    only = project.run(*RUN, "--", "results/demo/figures/fig5.png").stdout
    assert "1 of 1 steps" in only
    assert "Study demo" not in only, "the tables may not be those of this study"


def waiting(project, said):
    """A run whose step waits, and all its processes. `said`: a file for what it says."""
    first(project, WAIT)
    variables = project.environment(warm_start=False, CUDA_VISIBLE_DEVICES="0,1")
    with said.open("w") as out:
        streams = {"stdout": out, "stderr": out, "start_new_session": True}
        process = subprocess.Popen(RUN, cwd=project.folder, env=variables, **streams)
    while not (project.folder / "began").exists():
        assert process.poll() is None, said.read_text()
        time.sleep(0.1)
    return process, psutil.Process(process.pid).children(recursive=True)


def assert_the_next_run_goes_on(project):
    (project.folder / "go").touch()
    assert project.run(*RUN).stdout.rstrip().endswith("results/demo/report.html")
    assert "Nothing to be done" in project.snakemake("--dry-run")


@pytest.mark.parametrize(
    "terminated", [False, pytest.param(True, marks=pytest.mark.nightly)], ids=["SIGINT", "SIGTERM"]
)
def test_an_interrupted_run_ends_within_seconds_and_the_next_goes_on(project, terminated, tmp_path):
    process, family = waiting(project, tmp_path / "said")
    assert "--resources gpu=2 --cores" in " ".join(family[0].cmdline())
    process.send_signal(signal.SIGTERM if terminated else signal.SIGINT)
    assert process.wait(20) == (143 if terminated else 130)
    text = (tmp_path / "said").read_text()
    assert psutil.wait_procs(family, timeout=5)[1] == []
    assert "Traceback" not in text and "KeyboardInterrupt" not in text and "failed" not in text
    stopped = r"^stopped with \d+ of \d+ steps done: run the same again, and it goes on there$"
    assert terminated or re.search(stopped, text, re.MULTILINE)
    assert_the_next_run_goes_on(project)


def test_a_second_run_is_told_who_is_at_work_and_a_killed_run_takes_its_steps_with_it(
    project, tmp_path
):
    process, _ = waiting(project, tmp_path / "said")
    said = f"study demo in this folder already (process {process.pid} on "
    assert said in project.refused(*RUN)
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) > 2
    process.kill()
    process.wait()
    assert psutil.wait_procs(family, timeout=60)[1] == []
    assert_the_next_run_goes_on(project)


PROBE = """
import atexit, json, sys

def tell():
    if any("scripts/" in word or "figures" in word for word in sys.argv[:1]):
        from threadpoolctl import threadpool_info
        counts = [each["num_threads"] for each in threadpool_info()]
        counts += [sys.modules["torch"].get_num_threads()] if "torch" in sys.modules else []
        with open("threads", "a") as file:
            file.write(json.dumps([sys.argv[0], counts]) + "\\n")

atexit.register(tell)
"""


@pytest.mark.nightly
def test_with_one_core_every_step_has_one_thread_whatever_the_environment_says(project, tmp_path):
    (tmp_path / "probe").mkdir()
    (tmp_path / "probe/sitecustomize.py").write_text(PROBE)
    steps = {  # of NumPy, and of PyTorch
        "fit_projector": "projectors/tiny.safetensors",
        "extract_head": "heads/tiny.safetensors",
    }
    several = dict.fromkeys(THREADS, "2")
    several["PYTHONPATH"] = f"{project.folder / 'src'}:{tmp_path / 'probe'}"
    outputs = [f"results/demo/{output}" for output in steps.values()]
    command = ("run", "--cores", "1", "--", "--force", *outputs)
    project.command(*command, warm_start=False, **several)
    told = [json.loads(line) for line in (project.folder / "threads").read_text().splitlines()]
    assert {re.search(r"(\w+)(\.py)?$", program)[1] for program, _ in told} >= set(steps)
    assert all(set(counts) == {1} for _, counts in told), told
