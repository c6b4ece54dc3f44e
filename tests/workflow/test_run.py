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

from singflow.commands.run import asks_otherwise, parsed
from tests.project import ROOT, THREADS

RUN = ("singflow", "run", "--cores", "2")
STEP = "src/singflow/figures/plot_concepts.py"
WAIT = "import os\n    os.system('touch began; until test -e go; do sleep 0.1; done')"
PROGRESS = re.compile(r"(\d+) of (\d+) steps.*")


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
    first(project, "print('noise'); import os; os.system('echo noise >&2')")
    said = project.run(*RUN).stdout
    begin, end = said.split("Study demo: features or logits?")
    counts = [PROGRESS.fullmatch(line) for line in begin.splitlines()]
    assert 2 <= len(counts) <= 12 and all(counts), begin
    assert counts[0][1] == "0" and counts[-1][1] == counts[-1][2] and "left" not in counts[-1][0]
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", said) and "noise" not in said
    assert (project.folder / "results/demo/logs/plot_concepts.log").read_text().count("noise") == 2
    assert end.rstrip().splitlines()[-1] == "results/demo/report.html"
    again = project.run(*RUN).stdout
    assert again.startswith("Study demo") and again.rstrip().endswith("results/demo/report.html")
    assert "Nothing to be done" in project.snakemake("--dry-run")


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
    "defect": ("raise KeyError('absent')", "KeyError: 'absent'"),
    "killed": ("import os\n    os.kill(os.getpid(), 9)", None),
}  # fmt: skip


@pytest.mark.parametrize("kind", FAULTS)
def test_the_message_of_a_step_that_failed_comes_last(project, kind):
    fault, message = FAULTS[kind]
    first(project, fault)
    text = project.refused(*RUN)
    said = text.splitlines()
    words = said[said.index("error: plot_concepts failed:") + 1 :]
    log = "its log: results/demo/logs/plot_concepts.log"
    killed = "a step was killed: is there memory enough? --cores 1 takes less"
    assert words[-2:] == ([message, log] if message else [log, killed]) and len(words) <= 6, text
    assert "RuleException" not in text and "Study demo" not in text


def test_a_damaged_artifact_is_named_with_the_fix_which_brings_it_back(project, snakemake_project):
    path = project.folder / "results/demo/concepts/conse_minilm/tiny.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    fix = (
        r"concepts/conse_minilm/tiny\.safetensors: not readable as safetensors.*: remove it and run"
    )
    assert re.search(fix, project.refused("snakemake", "--cores", "2"))
    assert re.search(r"made elsewhere .*changed.*conse_minilm/tiny\.safe", project.refused(*RUN))
    path.unlink()
    project.edit("params.yaml", "extremes: 7", "extremes: 8")
    project.run(*RUN)
    assert path.read_bytes() == whole and project.differs(snakemake_project) == set()


def test_what_snakemake_refuses_is_said_in_its_words(project):
    for option in ("results/demo/figures/fig99.png", "--no-such-option"):
        (said,) = {line for line in project.refused(*RUN, option).splitlines() if option in line}
        assert said.startswith(("No rule to produce", "error: unrecognized arguments")), said
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
        f"error: weights that this run needs are not here:\n{model}: {model}: model.safetensors "
    )
    assert wanted in said and "steps" not in said
    assert "run `singflow prefetch` where" in said and project.artifacts() == before
    manifest = "results/demo/data/manifest.parquet"
    assert "not here" not in project.run(*RUN, manifest, **hub).stdout


def test_a_run_has_the_gpus_that_are_here_unless_it_says_how_many(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    found = [parsed(words)[1].resources["gpu"] for words in ([], ["--resources", "gpu=1"])]
    assert [each.value for each in found] == [2, 1]


@pytest.mark.parametrize(
    ("words", "otherwise"),
    [
        (["--profile", str(ROOT / "slurm")], False),
        (["data", "--touch"], False),
        (["--unlock"], True),
        (["--report", "report.zip"], True),
    ],
)
def test_a_profile_of_a_cluster_runs_a_study_and_other_options_do_something_else(words, otherwise):
    assert asks_otherwise(*parsed(words)) is otherwise


@pytest.mark.nightly
def test_options_are_those_of_snakemake(project):  # test_layered runs a study of layers
    listed = project.run("singflow", "run", "--dry-run").stdout
    assert "\nrule plot_concepts:\n" in listed and "Study demo" not in listed
    not_active = {"PATH": "/usr/bin:/bin", "warm_start": False}
    command = (sys.executable, "-m", "singflow", "run", "-n")
    assert "rule plot_concepts:" in project.run(*command, **not_active).stdout
    for option, said in (
        ("--version", r"[\d.]+\n"),
        ("--list", r"(\w+ \(.*\)\n)+"),
        ("--unlock", r"Unlocked working directory\.\n"),
    ):
        assert re.fullmatch(said, project.run("singflow", "run", option).stdout), option
    only = project.run(*RUN, "results/demo/figures/fig5.png").stdout
    assert "1 of 1 steps" in only
    assert "Study demo" not in only, "the tables may not be those of this study"


def assert_the_next_run_goes_on(project):
    (project.folder / "go").touch()
    assert project.run(*RUN).stdout.rstrip().endswith("results/demo/report.html")
    assert "Nothing to be done" in project.snakemake("--dry-run")


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.nightly)], ids=str
)
def test_a_run_ends_after_ctrl_c_within_seconds_and_gracefully_after_sigterm(
    project, number, tmp_path
):
    first(project, WAIT)
    variables = project.environment(warm_start=False)
    with (tmp_path / "said").open("w") as out:
        streams = {"stdout": out, "stderr": out, "start_new_session": True}
        process = subprocess.Popen(RUN, cwd=project.folder, env=variables, **streams)
    while not (project.folder / "began").exists():
        assert process.poll() is None, (tmp_path / "said").read_text()
        time.sleep(0.1)
    family = psutil.Process(process.pid).children(recursive=True)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does
        assert process.wait(20) == 130
    else:
        process.send_signal(number)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2)  # Snakemake waits for the step
        (project.folder / "go").touch()
        assert process.wait(60) == 1
    assert psutil.wait_procs(family, timeout=5)[1] == []
    *lines, last = (tmp_path / "said").read_text().splitlines()
    assert all(map(PROGRESS.fullmatch, lines)), lines
    assert re.fullmatch(r"stopped, \d+ of \d+ steps done: run the same again to go on", last)
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
    command = ("run", "--cores", "1", "--force", *outputs)
    project.command(*command, warm_start=False, **several)
    told = [json.loads(line) for line in (project.folder / "threads").read_text().splitlines()]
    assert {re.search(r"(\w+)(\.py)?$", program)[1] for program, _ in told} >= set(steps)
    assert all(set(counts) == {1} for _, counts in told), told
