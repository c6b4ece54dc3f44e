"""`singflow run`: a progress line, the message of a failed step, a quick end, and the summary."""

import os
import re
import signal
import subprocess
import time

import psutil
import pytest

from singflow.commands.run import asks_otherwise, parsed
from tests.project import ROOT

RUN = ("singflow", "run", "--cores", "2")
STEP = "src/singflow/figures/plot_concepts.py"
WAIT = "import os\n    os.system('touch began; until test -e go; do sleep 0.1; done')"
PROGRESS = re.compile(r"(\d+) of (\d+) steps.*")
PROSPECTS = "params.yaml: "  # what the images can show


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
    counts = [
        PROGRESS.fullmatch(line) for line in begin.splitlines() if not line.startswith(PROSPECTS)
    ]
    assert 2 <= len(counts) <= 12 and all(counts), begin
    assert counts[0][1] == "0" and counts[-1][1] == counts[-1][2] and "left" not in counts[-1][0]
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", said) and "noise" not in said
    assert (project.folder / "results/demo/logs/plot_concepts.log").read_text().count("noise") == 2
    assert end.rstrip().splitlines()[-1] == "results/demo/report.html"
    again = project.run(*RUN).stdout
    assert "\nStudy demo" in again and again.rstrip().endswith("results/demo/report.html")
    assert "Nothing to be done" in project.snakemake("--dry-run")


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


def test_a_run_ends_after_ctrl_c_within_seconds_and_the_next_goes_on(project, tmp_path):
    first(project, WAIT)
    variables = project.environment(warm_start=False)
    with (tmp_path / "said").open("w") as out:
        streams = {"stdout": out, "stderr": out, "start_new_session": True}
        process = subprocess.Popen(RUN, cwd=project.folder, env=variables, **streams)
    while not (project.folder / "began").exists():
        assert process.poll() is None, (tmp_path / "said").read_text()
        time.sleep(0.1)
    family = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    assert process.wait(20) == 130
    assert psutil.wait_procs(family, timeout=5)[1] == []
    *lines, last = (tmp_path / "said").read_text().splitlines()
    lines = [line for line in lines if not line.startswith(PROSPECTS)]
    assert all(map(PROGRESS.fullmatch, lines)), lines
    assert re.fullmatch(r"stopped, \d+ of \d+ steps done: run the same again to go on", last)
    (project.folder / "go").touch()
    assert project.run(*RUN).stdout.rstrip().endswith("results/demo/report.html")
    assert "Nothing to be done" in project.snakemake("--dry-run")
