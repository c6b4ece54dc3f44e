"""What all programs share: flags, messages, threads, and how they end."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from pydantic import Field

from singflow import cli
from singflow.artifacts.files import write_bytes
from singflow.commands.show_summary import print_summary
from singflow.engines.code import step_files
from singflow.engines.flags import spell
from singflow.errors import InputError
from singflow.figures.style import save
from singflow.study import Params
from tests import PATIENCE, warm
from tests.config.studies import PARAMS
from tests.project import ROOT
from tests.results import script

SECTIONS = [name for name, value in PARAMS.items() if isinstance(value, dict)]
STEPS = list(step_files(ROOT))
STEP = ROOT / "tests/step.py"
GOOD = {"names": "a b", "sizes": "1 2.5 1e-3", "count": "3", "rank": "None", "share": "0.5"}


class Flags(cli.Command):
    names: list[str]
    sizes: list[float]
    count: int = Field(ge=1, description="at 50% or more")
    rank: int | None
    share: float


def parsed(schema, words):
    """The flags of a program that is called with these words."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["script.py", *shlex.split(words)])
        return cli._parse(schema)


def words(**flags):
    return " ".join(f"--{name} {value}" for name, value in (GOOD | flags).items() if value != "-")


def test_lists_none_and_numbers_arrive_as_their_types():
    assert parsed(Flags, words(names="")).names == parsed(Flags, words(names="-")).names == []
    flags = parsed(Flags, words(names="'two words' '' c;d", share="-1"))
    expected = {"names": ["two words", "", "c;d"], "sizes": [1.0, 2.5, 0.001]}
    expected |= {"count": 3, "rank": None, "share": -1.0}
    assert flags.model_dump(exclude={"log"}) == expected


@pytest.mark.parametrize(
    ("given", "complaints"),
    [
        (words(count="0"), ["--count '0': "]),
        (words(count="1.5", sizes="1 x"), ["--count '1.5': ", "--sizes.1 'x': "]),
        (words(rank="''"), ["--rank '': "]),
        (words(share="None"), ["--share None: "]),
        (words(count="-"), ["required: --count"]),
        (f"{words()} --unknown 1", ["unrecognized arguments: --unknown"]),
        (f"{words()} --cou 3", ["unrecognized arguments: --cou"]),
        (f"{words()} stray", ["unrecognized arguments: stray"]),
    ],
)
def test_a_flag_that_is_wrong_missing_abbreviated_or_unknown_is_named(capsys, given, complaints):
    with pytest.raises(SystemExit) as ended:
        parsed(Flags, given)
    out, said = capsys.readouterr()
    assert ended.value.code == 2 and out == "" and "script.py: error: " in said
    assert all(complaint in said for complaint in complaints)


@pytest.mark.parametrize("step", [None, *STEPS])
def test_every_step_explains_itself(capsys, step):
    with pytest.raises(SystemExit) as ended:
        parsed(script(step)["Flags"] if step else Flags, "--help")
    out, said = capsys.readouterr()
    assert ended.value.code == 0 and said == "" and out.startswith("usage: script.py")
    assert step or "at 50% or more" in out


def test_what_a_step_says_is_in_its_log_too_which_every_run_begins_anew(tmp_path):
    log = tmp_path / "logs/deep/script.log"
    for end, status, last in (
        ("refuses its input", 1, "error: images.csv: no such file: write it\n"),
        ("has a defect", 1, "KeyError: 'absent'\n"),
        ("well", 0, "at work\n"),
    ):
        done = warm.run(STEP, "--end", end, "--log", log, cwd=tmp_path, HF_HUB_OFFLINE="")
        assert done.stdout == "1\n", "a step uses no network"
        assert done.returncode == status and done.stderr == log.read_text()
        assert done.stderr.startswith("at work\n") and done.stderr.endswith(last)
        assert ("Traceback" in done.stderr) == ("a defect of this program" in done.stderr)
        assert (end == "has a defect") == ("Traceback" in done.stderr)
        assert done.stderr.count("at work") == 1
    shown = warm.run(STEP, "--help", cwd=tmp_path)
    assert shown.returncode == 0 and "A step for 100% of the tests" in shown.stdout


@pytest.mark.parametrize(
    ("end", "number", "status"),
    [
        ("waits", signal.SIGINT, 128 + signal.SIGINT),
        ("waits", signal.SIGTERM, 128 + signal.SIGTERM),
        ("waits for its threads", signal.SIGTERM, -signal.SIGALRM),
        ("heeds nothing", signal.SIGTERM, -signal.SIGALRM),
    ],
)
def test_a_step_that_is_told_to_end_does_so_within_seconds(tmp_path, end, number, status):
    command = [sys.executable, STEP, "--end", end, "--log", "step.log"]
    step = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    assert step.stderr.readline() == "at work\n"
    time.sleep(0.5)
    step.send_signal(number)
    started = time.monotonic()
    _, said = step.communicate(timeout=PATIENCE)
    assert time.monotonic() - started < cli.GRACE + 20, "on a busy machine"
    assert step.returncode == status
    assert said == (f"stopped by {number.name}\n" if status > 0 else "")
    assert (tmp_path / "step.log").read_text() == f"at work\n{said}"
    assert not (tmp_path / "made").exists()
    # what others leave is removed by the next write
    assert end != "waits" or list(tmp_path.iterdir()) == [tmp_path / "step.log"]


def test_ctrl_c_while_libraries_are_loaded_ends_a_command_without_a_traceback(tmp_path):
    waits = "import time\nprint('began', flush=True)\ntime.sleep(9999)\n"
    (tmp_path / "typer.py").write_text(waits)
    command = [Path(sys.executable).with_name("singflow"), "plan"]
    known, pipe = os.environ | {"PYTHONPATH": str(tmp_path)}, subprocess.PIPE
    process = subprocess.Popen(command, env=known, stdout=pipe, stderr=pipe, text=True)
    assert process.stdout.readline() == "began\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == -signal.SIGINT and said == ""


def python(lines, **variables):
    """A Python program, with its output."""
    command, known = [sys.executable, "-c", lines], os.environ | variables
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=known)


def arrived(section, values):
    """A section as a script gets it from the words that Snakemake makes of it."""

    class OfSection(Params.model_fields[section].annotation, cli.Step): ...

    return parsed(OfSection, f"{spell(values)} --results r").model_dump(exclude={"log", "results"})


@pytest.mark.parametrize("section", SECTIONS)
def test_every_section_of_params_yaml_arrives_unchanged_and_no_value_is_a_default(section, capsys):
    assert arrived(section, PARAMS[section]) == PARAMS[section]
    values = PARAMS[section].items()
    single = {key: value for key, value in values if not isinstance(value, bool | list)}
    for key in single:
        with pytest.raises(SystemExit):
            arrived(section, {name: value for name, value in single.items() if name != key})
        assert f"--{key}" in capsys.readouterr().err


def test_limit_threads_sets_the_threads_of_every_blas_whatever_the_environment_says():
    done = python(
        """
import json
from singflow.cli import limit_threads
limit_threads(1)
import numpy, scipy.linalg
from threadpoolctl import threadpool_info
scipy.linalg.svdvals(numpy.eye(3))
counts = [[pool["num_threads"] for pool in threadpool_info()]]
for threads in (3, 1, 2):
    limit_threads(threads)
    counts.append([pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"])
print(json.dumps(counts))
""",
        OMP_NUM_THREADS="2",
        OPENBLAS_NUM_THREADS="2",
    )
    counts = json.loads(done.stdout)
    assert all(counts) and [set(count) for count in counts] == [{1}, {3}, {1}, {2}]


def test_the_summary_lists_the_figures_that_were_asked_for_and_drawn(tmp_path, capsys):
    for kind, needs in (("fig1", ""), ("fig3", ""), ("hidden_texts", ""), ("fig6", "a prompt")):
        save(Figure(figsize=(1, 1)), tmp_path / f"figures/{kind}.png", needs=needs)
    for name in ("tables/summary.txt", "report.html"):
        write_bytes(tmp_path / name, f"{name} says\n".encode())
    for analyses, drawn in (([], []), (["pictures"], ["fig1"])):
        print_summary(tmp_path, analyses)
        said = [line for line in capsys.readouterr().out.splitlines() if line]
        names = [f"figures/{name}.png" for name in (*drawn, "hidden_texts")]
        paths = [str(tmp_path / name) for name in (*names, "report.html")]
        assert said == ["tables/summary.txt says", *paths]
    (tmp_path / "figures/fig1.png").write_bytes(b"cut")
    with pytest.raises(InputError, match=r"fig1\.png: not readable as PNG .*: remove it, and run"):
        print_summary(tmp_path, ["pictures"])
    with pytest.raises(InputError, match="the study has not been run: singflow run"):
        print_summary(tmp_path / "absent", [])


def test_a_command_ends_quietly_when_nobody_reads_what_it_prints(tmp_path):
    tables = tmp_path / "results/demo/tables"
    tables.mkdir(parents=True)
    (tables / "summary.txt").write_text("a row\n" * 20_000)
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer) as nobody:
        command = [sys.executable, "-m", "singflow", "show_summary"]
        options = {"stderr": subprocess.PIPE, "text": True, "timeout": PATIENCE}
        done = subprocess.run(command, stdout=nobody, cwd=tmp_path, **options)
    assert done.stderr == "" and done.returncode != 0
