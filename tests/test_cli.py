import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from singflow import cli
from singflow.commands import program
from singflow.config.sections import Section
from singflow.engines.code import step_files
from singflow.engines.flags import spell
from singflow.errors import InputError
from singflow.study import Params, check
from tests import PATIENCE, warm
from tests.config.studies import PARAMS, changed
from tests.project import ROOT

SECTIONS = [name for name, value in PARAMS.items() if isinstance(value, dict)]

SCRIPT = '''
"""A script for 100% of the tests."""

from pydantic import Field

from singflow import cli
from singflow.errors import InputError


class Flags(cli.Command):
    names: list[str]
    sizes: list[float]
    count: int = Field(ge=1, description="at 50% or more")
    rank: int | None
    share: float
    fail: str = "no"


def main(flags):
    cli.log.info("at work")
    if flags.fail == "input":
        raise InputError("images.csv: no such file: write it")
    if flags.fail == "defect":
        raise KeyError("absent")
    print(flags.model_dump_json(exclude={"log"}))


if __name__ == "__main__":
    cli.run_step(main, Flags)
'''
GOOD = {"names": "a b", "sizes": "1 2.5 1e-3", "count": "3", "rank": "None", "share": "0.5"}


def python(*command, **options):
    """A program by Python, with its output."""
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=PATIENCE, **options
    )


@pytest.fixture
def script(tmp_path):
    """Run the script with the good flags, some of them replaced; `more` is added to the command."""
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")

    def start(more="", **flags):
        words = [f"--{name} {value}" for name, value in (GOOD | flags).items() if value is not None]
        command = shlex.split(" ".join([*words, f"--log {start.log}", more]))
        return python(tmp_path / "script.py", *command, cwd=tmp_path)

    start.log = tmp_path / "logs/deep/script.log"
    return start


def test_lists_none_and_numbers_arrive_as_their_types(script):
    assert script(names="").returncode == 0
    finished = script(names="'two words' '' c;d", share="-1")
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout) == {
        "names": ["two words", "", "c;d"],
        "sizes": [1.0, 2.5, 0.001],
        "count": 3,
        "rank": None,
        "share": -1.0,
        "fail": "no",
    }
    assert script.log.read_text() == finished.stderr == "at work\n", "every run starts it anew"


@pytest.mark.parametrize(
    ("flag", "value"),
    [("count", "0"), ("count", "1.5"), ("share", "half"), ("rank", ""), ("share", "None")],
)
def test_a_bad_value_ends_with_status_2_and_names_flag_and_value(script, flag, value):
    finished = script(**{flag: f"'{value}'"})
    assert finished.returncode == 2
    assert f"script.py: error: --{flag} {None if value == 'None' else value!r}: " in finished.stderr
    assert finished.stderr.count("\n") == 1 and finished.stdout == ""


def test_all_bad_values_are_named_with_the_place_in_a_list(script):
    finished = script(count="0", sizes="1 x")
    assert finished.returncode == 2
    assert "--count '0': " in finished.stderr and "--sizes.1 'x': " in finished.stderr


@pytest.mark.parametrize("more", ["--unknown 1", "--cou 3", "stray"])
def test_an_unknown_abbreviated_or_stray_flag_ends_with_status_2(script, more):
    finished = script(names="a", count=None, share=None, more=f"--count 3 --share 1 {more}")
    assert finished.returncode == 2 and not script.log.exists()
    assert f"script.py: error: unrecognized arguments: {more.split()[0]}" in finished.stderr


def test_a_missing_flag_ends_with_status_2_and_help_shows_every_flag(script):
    finished = script(count=None)
    assert finished.returncode == 2 and "required: --count" in finished.stderr
    shown = script(more="--help")
    assert shown.returncode == 0 and "at 50% or more" in shown.stdout
    assert "A script for 100% of the tests." in shown.stdout


def test_bad_input_ends_with_one_message_in_the_log_too(script):
    finished = script(fail="input")
    said = "at work\nerror: images.csv: no such file: write it\n"
    assert finished.returncode == 1 and finished.stderr == script.log.read_text() == said


def test_a_defect_ends_with_status_1_and_its_traceback_in_the_log(script):
    finished = script(fail="defect")
    log = script.log.read_text(encoding="utf-8")
    assert finished.returncode == 1 and log.endswith("KeyError: 'absent'\n")
    assert "a defect of this program" in log and "Traceback" in log
    assert "Traceback" in finished.stderr


ENDLESS = """
import sys, time
from pathlib import Path
import numpy as np
from singflow import cli
from singflow.artifacts.files import atomic
from singflow.parallel import map_ahead

class Flags(cli.Command):
    kind: str

def spin(item):
    while True:
        sum(range(1000))

def deaf(_):
    while True:
        try:
            time.sleep(1)
        except BaseException:
            pass

KINDS = {
    "waits": lambda: time.sleep(9999),
    "waits for its threads": lambda: list(map_ahead(spin, range(9), 2)),
    "is in a library": lambda: np.linalg.svd(np.random.default_rng(0).normal(size=(9000, 9000))),
    "heeds nothing": lambda: deaf(0),
}

def main(flags):
    with atomic(Path("half.json")) as temporary, cli.scratch("photos-") as folder:
        temporary.write_text("half")
        Path(folder, "photo").touch()
        cli.log.info("at work")
        KINDS[flags.kind]()

cli.run_step(main, Flags)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
@pytest.mark.parametrize(
    "kind", ["waits", "waits for its threads", "is in a library", "heeds nothing"]
)
def test_a_step_that_is_told_to_end_does_so_within_seconds_with_one_line(
    tmp_path, tmp_path_factory, kind, number
):
    command = [sys.executable, "-c", ENDLESS, "--kind", kind, "--log", "step.log"]
    temporary = tmp_path_factory.mktemp("temporary")
    step = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"TMPDIR": str(temporary)},
    )
    assert step.stderr.readline() == "at work\n"
    time.sleep(0.5)
    step.send_signal(number)
    started = time.monotonic()
    _, said = step.communicate(timeout=PATIENCE)
    assert time.monotonic() - started < cli.GRACE + 20, "on a busy machine"
    assert step.returncode == 128 + number and said == f"stopped by {number.name}\n"
    assert (tmp_path / "step.log").read_text() == f"at work\n{said}"
    assert not (tmp_path / "half.json").exists() and not list(temporary.iterdir())
    # of others the next write removes the litter
    assert kind != "waits" or list(tmp_path.iterdir()) == [tmp_path / "step.log"]


def test_ctrl_c_while_libraries_are_loaded_ends_a_command_without_a_traceback(tmp_path):
    (tmp_path / "typer.py").write_text(
        "import time\nprint('began', flush=True)\ntime.sleep(9999)\n"
    )
    variables = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [Path(sys.executable).with_name("singflow"), "plan"]
    process = subprocess.Popen(
        command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "began\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == -signal.SIGINT and said == ""


def test_a_signal_to_a_child_does_not_end_its_parent(tmp_path):
    program = """
import os, signal, time
from singflow import cli
with cli.prepared():
    cli.GRACE = 0
    child = os.fork()
    if not child:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
        time.sleep(9999)
    time.sleep(1)
    os.kill(child, signal.SIGTERM)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    time.sleep(1)
    print("alive")
"""
    done = python("-c", program)
    assert (done.stdout, done.returncode) == ("7\nalive\n", 0), done.stderr


def arrived(section, values):
    """A section as a script gets it from the words that both engines make of it."""

    class Flags(Params.model_fields[section].annotation, cli.Command):
        """The flags of a section."""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["script.py", *shlex.split(spell(values)), "--log", "x.log"])
        return cli._parse(Flags).model_dump(exclude={"log"})


@pytest.mark.parametrize("section", SECTIONS)
def test_every_section_of_params_yaml_arrives_unchanged(section):
    assert issubclass(Params.model_fields[section].annotation, Section)
    assert arrived(section, PARAMS[section]) == PARAMS[section]


@pytest.mark.parametrize(
    ("place", "value"),
    [
        *(("summary.min_r2", number) for number in (-0.5, -1e-05, -1.5)),
        ("translator.lambdas", [1e-6, 1e9, 0.1 + 0.2]),
        ("translator.folds", 2),
        ("extraction.compile", True),
        ("translator.reference", None),
        *(("data.classes", text) for text in ("-x", "--log")),
        *(("data.label_column", text) for text in ("None", "-x")),
        *(("plot_concepts.label", text) for text in ("None", "", "-1", 'it\'s 50% "x"')),
    ],
    ids=str,
)
def test_a_value_that_the_study_accepts_arrives_unchanged(place, value):
    section, study = place.partition(".")[0], changed({place: value})
    try:
        check(study, "params.yaml")
    except InputError as refused:
        assert f"params.yaml: {place}: {value!r}" in str(refused)
    else:
        assert arrived(section, study[section]) == study[section]


@given(
    st.floats(max_value=1, allow_nan=False, allow_infinity=False),
    st.lists(st.floats(1e-6, 1e9), min_size=1),
)
def test_numbers_arrive_to_the_last_bit(min_r2, lambdas):
    summary = PARAMS["summary"] | {"min_r2": abs(min_r2) % 1.0}
    translator = PARAMS["translator"] | {"lambdas": lambdas}
    assert arrived("summary", summary) == summary
    assert arrived("translator", translator) == translator


def test_limit_threads_sets_the_threads_of_every_blas_whatever_the_environment_says():
    program = """
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
"""
    several = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "2")
    done = python("-c", program, env=os.environ | several)
    counts = json.loads(done.stdout)
    assert all(counts) and [set(count) for count in counts] == [{1}, {3}, {1}, {2}]


def test_progress_yields_every_item_and_reports_count_and_unit(capsys):
    shown = cli.progress(iter("abc"), total=3, unit="images", description="decode")
    assert list(shown) == ["a", "b", "c"]
    said = capsys.readouterr().err
    assert "decode: 100%" in said and "3/3" in said and "images/s" in said


def test_more_threads_than_cores_are_remarked_on(caplog):
    cores = os.cpu_count()
    cli.limit_threads(cores)
    assert not caplog.records
    cli.limit_threads(cores + 1)
    assert f"threads is {cores + 1}, but this machine has {cores} cores" in caplog.text
    cli.limit_threads(cores)


def into_a_closed_pipe(*command, cwd=ROOT):
    """What a program complains of when nobody reads its output, and its status."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            command, stdout=writer, stderr=subprocess.PIPE, text=True, cwd=cwd, timeout=PATIENCE
        )
    finally:
        os.close(writer)
    return done.stderr, done.returncode


VERBS = sorted(command.name for command in program.registered_commands)
STEPS = list(step_files(ROOT).values())


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_every_command_explains_itself(verb):
    shown = warm.singflow(ROOT, *filter(None, [verb]), "--help", COLUMNS="200")
    assert shown.returncode == 0 and "Usage:" in shown.stdout and shown.stderr == ""


@pytest.mark.parametrize("step", STEPS, ids=lambda path: path.stem)
def test_every_step_explains_itself(step):
    shown = warm.run(step, "--help")
    assert shown.returncode == 0 and shown.stderr == ""
    assert shown.stdout.startswith(f"usage: {step.name}")


def test_what_prints_leaves_quietly_when_nobody_reads(tmp_path):
    for words in ([STEPS[0]], ["-m", "singflow"], ["-m", "singflow", "run"]):
        assert into_a_closed_pipe(sys.executable, *words, "--help")[0] == ""
    tables = tmp_path / "results/demo/tables"
    tables.mkdir(parents=True)
    for name in ("summary", "orders"):
        (tables / f"{name}.txt").write_text("a row\n" * 10_000)
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    complaint, status = into_a_closed_pipe(
        sys.executable, "-m", "singflow", "show_summary", cwd=tmp_path
    )
    assert complaint == "" and status != 0
