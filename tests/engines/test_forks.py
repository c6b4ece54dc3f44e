"""Programs as forks of a process with loaded libraries behave like processes of their own."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from singflow.engines.forks import CLIENT, FEWEST, SERVER
from tests import PATIENCE
from tests.warm import FOLDER

TELL = """
import json, os, sys
print(json.dumps([os.getpid(), sys.argv, os.getcwd(), os.environ["WORD"], os.umask(0), "colorsys" in sys.modules, sys.stdin.read()]))
print("complaint", file=sys.stderr)
sys.exit(7)
"""  # noqa: E501
WAIT = """
import pathlib, signal, sys, time
def told(number, frame):
    pathlib.Path("told").write_text(signal.Signals(number).name)
    sys.exit(128 + number)
signal.signal(signal.SIGTERM, told)
pathlib.Path("began").touch()
while not pathlib.Path("go").exists():
    time.sleep(0.05)
"""


def until(happened):
    """Wait for what must come."""
    started = time.monotonic()
    while not happened():
        assert time.monotonic() - started < PATIENCE
        time.sleep(0.05)


MADE = (
    "import colorsys, weakref\nweakref.finalize(colorsys.rgb_to_hls, print, "
    "'an object of the server', flush=True)\n"
)
LEAVES = """
import atexit, colorsys, logging.handlers, multiprocessing, os, tempfile, threading, time, weakref

def linger(word):
    time.sleep(0.5)
    os.write(1, word)

logging.root.addHandler(logging.handlers.MemoryHandler(9, target=logging.StreamHandler()))
logging.warning("kept back until the end")
temporary = tempfile.TemporaryDirectory(dir=".", prefix="temporary")
weakref.finalize(colorsys.hls_to_rgb, os.write, 1, b"object ")
atexit.register(os.write, 1, b"function ")
multiprocessing.get_context("fork").Process(target=linger, args=[b"child "]).start()
threading.Thread(target=linger, args=[b"thread "]).start()
"""


@pytest.fixture
def start(tmp_path):
    """Start a server for a process group (0: any); the handle ends it after its last program."""
    servers = []

    def begin(group=0, *modules):
        address = tmp_path / "socket"
        server = subprocess.Popen(
            [sys.executable, "-Ps", SERVER, address, str(group), "colorsys", *modules],
            stdin=subprocess.PIPE,
            stdout=(tmp_path / "used").open("wb"),
            cwd=tmp_path,
        )
        servers.append(server)
        until(lambda: address.exists())
        return server

    yield begin
    for server in servers:
        server.kill()
        server.communicate()


@pytest.fixture
def client(tmp_path):
    """Asks for a program of the text given."""

    def ask(text, *words, program=CLIENT, **options):
        (tmp_path / "program.py").write_text(text)
        command = [sys.executable, "-IS", program, tmp_path / "socket", "program.py", *words]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(
            command, cwd=tmp_path, text=True, env=os.environ | {"WORD": "a b"}, **pipes, **options
        )

    return ask


def test_a_program_has_what_its_caller_has_with_or_without_a_server(start, client, tmp_path):
    mask = os.umask(0o027)
    try:
        alone = client(TELL, "x y", "--z")
        said = [alone.communicate("given", timeout=PATIENCE)]
        start()
        forked = client(TELL, "x y", "--z")
        said.append(forked.communicate("given", timeout=PATIENCE))
    finally:
        os.umask(mask)
    expected = [["program.py", "x y", "--z"], str(tmp_path), "a b", 0o027]
    for process, (out, err), loaded in zip((alone, forked), said, (False, True), strict=True):
        told = json.loads(out)
        assert process.returncode == 7 and err == "complaint\n"
        assert told[1:] == [*expected, loaded, "given"], (
            "what the server has loaded is there, and nothing else differs"
        )
        assert (told[0] == process.pid) is not loaded
    (used,) = map(json.loads, (tmp_path / "used").read_text().splitlines())
    assert (
        used["words"] == ["program.py", "x y", "--z"]
        and used["cpu_s"] > 0
        and 1 < used["rss_mb"] < 1000
    )


def test_what_a_program_took_is_told_at_once_and_not_piece_by_piece_among_lines_of_others(tmp_path):
    reader, writer = os.pipe2(os.O_DIRECT)  # which keeps apart what is written at once
    with os.fdopen(reader, "rb", buffering=0) as told:
        command = [sys.executable, "-Ps", SERVER, tmp_path / "socket", "0"]
        server = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=writer,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
        os.close(writer)
        until((tmp_path / "socket").exists)
        (tmp_path / "program.py").touch()
        ask = [sys.executable, "-IS", CLIENT, tmp_path / "socket", "program.py"]
        subprocess.run(ask, cwd=tmp_path, stdin=subprocess.DEVNULL, check=True, timeout=PATIENCE)
        assert told.read(2**16).endswith(b"}\n")
        server.communicate(timeout=PATIENCE)


def test_at_its_end_a_program_does_what_it_registered_and_not_what_the_server_did(
    start, client, tmp_path
):
    (tmp_path / "made.py").write_text(MADE)
    server = start(0, "logging.handlers", "multiprocessing.util", "made.py")
    process = client(LEAVES)
    out, err = process.communicate("", timeout=PATIENCE)
    assert process.returncode == 0 and err == "kept back until the end\n"
    assert sorted(out.split()) == ["child", "function", "object", "thread"]
    assert not list(tmp_path.glob("temporary*"))
    server.stdin.close()
    assert server.wait(PATIENCE) == 0
    assert "an object of the server" in (tmp_path / "used").read_text(), "it sees to that itself"


def test_another_process_group_starts_its_programs_itself(start, client):
    start(group=os.getpgrp())
    own, other = client(TELL), client(TELL, process_group=0)
    assert json.loads(own.communicate("", timeout=PATIENCE)[0])[0] != own.pid
    assert json.loads(other.communicate("", timeout=PATIENCE)[0])[0] == other.pid


@pytest.fixture
def loading(start, tmp_path):
    """A server that loads libraries until there is a file `loaded`."""
    slow = tmp_path / "slow.py"
    slow.write_text(
        "import os, time\nopen('began loading', 'w').close()\n"
        "while not os.path.exists('loaded'):\n    time.sleep(0.05)\n"
    )
    server = start(0, str(slow), "fractions")
    until((tmp_path / "began loading").exists)
    return server


def test_programs_wait_while_libraries_are_loaded_and_one_that_is_ended_meanwhile_harms_none(
    loading, client, tmp_path
):
    waiting, ended = client(TELL), client(TELL)
    with pytest.raises(subprocess.TimeoutExpired):
        ended.wait(0.5)
    ended.terminate()
    assert ended.wait(PATIENCE) == -signal.SIGTERM
    (tmp_path / "loaded").touch()
    assert json.loads(waiting.communicate("", timeout=PATIENCE)[0])[0] != waiting.pid
    later = client(TELL)
    assert json.loads(later.communicate("", timeout=PATIENCE)[0])[0] != later.pid


def test_a_server_that_is_ended_while_it_loads_ends_and_programs_run_alone(
    loading, client, tmp_path
):
    waiting = client(TELL)
    loading.stdin.close()
    (tmp_path / "loaded").touch()
    assert loading.wait(PATIENCE) == 0
    assert json.loads(waiting.communicate("", timeout=PATIENCE)[0])[0] == waiting.pid


@pytest.mark.parametrize("seconds", [0, 0.5])
def test_a_signal_reaches_the_program_however_late_the_client_can_pass_it_on(
    start, client, tmp_path, seconds
):
    start()
    ready = "        for signum in PASSED_ON:\n"
    slow = tmp_path / "client.py"
    slow.write_text(
        CLIENT.read_text().replace(ready, f"        import time; time.sleep({seconds})\n{ready}", 1)
    )
    assert ready in slow.read_text()
    process = client(WAIT, program=slow)
    until((tmp_path / "began").exists)
    process.terminate()
    assert process.wait(PATIENCE) == 143 and (tmp_path / "told").read_text() == "SIGTERM"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV])
def test_a_program_that_is_killed_is_told_of_as_killed(start, client, how):
    start()
    process = client(f"import os\nos.kill(os.getpid(), {how})")
    assert process.wait(PATIENCE) == -how


def test_a_program_ends_with_its_client_and_the_server_after_the_last_one(start, client, tmp_path):
    server = start()
    process = client("import os\nprint(os.getpid(), flush=True)\n" + WAIT)
    until((tmp_path / "began").exists)
    number = int(process.stdout.readline())
    process.kill()
    until(lambda: not Path("/proc", str(number)).exists())
    (tmp_path / "began").unlink()
    last = client(WAIT)
    until((tmp_path / "began").exists)
    server.stdin.close()
    with pytest.raises(subprocess.TimeoutExpired):
        server.wait(0.5)
    late = client(TELL)
    assert json.loads(late.communicate("", timeout=PATIENCE)[0])[0] == late.pid, (
        "nothing new is begun"
    )
    (tmp_path / "go").touch()
    assert last.wait(PATIENCE) == 0 and server.wait(PATIENCE) == 0


def test_the_benchmark_of_a_step_is_that_of_its_fork(snakemake_project):
    paths = sorted((snakemake_project.folder / "results/demo/benchmarks").rglob("*.tsv"))
    rows = [next(csv.DictReader(path.read_text().splitlines(), delimiter="\t")) for path in paths]
    forks = [row for row in rows if row["max_uss"] == "NA"]
    assert len(forks) > FEWEST and all(
        float(row["max_rss"]) > 100 and float(row["cpu_time"]) > 0 for row in forks
    )


PLOTS = [
    "plot_concepts", "plot_controls", "plot_scores", "plot_labels", "plot_null_validation",
    "plot_pictures", "plot_probes", "plot_rank_curves", "plot_translators", "plot_angle_ladder",
    "plot_concept_scans", "plot_head_extensions",
]  # fmt: skip


WAITS = """
    import os, time
    mark, until = ("began", "go") if os.path.exists("waits") else ("waits", "loaded")  # the first of all steps, and the one after it
    open(mark, "w").close()
    while not os.path.exists(until):
        time.sleep(0.1)
"""  # noqa: E501


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_of_forks_that_is_told_to_end_ends_them_with_a_word(
    snakemake_project, tmp_path, number
):
    project = snakemake_project.copy(tmp_path / "run")
    for step in PLOTS:
        script = project.folder / f"src/singflow/figures/{step}.py"
        text, count = re.subn(
            r"^def main.*\n", lambda main: main[0] + WAITS, script.read_text(), flags=re.MULTILINE
        )
        assert count == 1
        script.write_text(text)
    (tmp_path / "tmp").mkdir()
    variables = project.environment(warm_start=False, TMPDIR=str(tmp_path / "tmp"))
    command = ["singflow", "run", "--cores", "1", "--", "--forcerun", *PLOTS]
    with (tmp_path / "said").open("w+") as said:
        process = subprocess.Popen(
            command,
            cwd=project.folder,
            env=variables,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
        until(lambda: process.poll() is not None or any((tmp_path / "tmp").glob("*/socket")))
        (project.folder / "loaded").touch()
        until(lambda: process.poll() is not None or (project.folder / "began").exists())
        family = psutil.Process(process.pid).children(recursive=True)
        forks = [
            member for member in family if any(SERVER.name in word for word in member.cmdline())
        ]
        process.send_signal(number)
        assert process.wait(PATIENCE) == 128 + number
        said.seek(0)
        text = said.read()
    assert len(forks) == 2, "the process that forks, and a step"
    assert psutil.wait_procs(family, timeout=PATIENCE)[1] == [] and "Traceback" not in text
    logs = [(project.folder / f"results/demo/logs/{step}.log").read_text() for step in PLOTS]
    assert sum("stopped by SIGTERM" in log for log in logs) == 1
    assert not [path for path in (project.folder / "results").rglob(".*") if path.is_file()]


def test_programs_of_the_tests_can_be_started():
    assert all(os.access(path, os.X_OK) for path in (FOLDER / "bin").iterdir()), (
        "else a slower one of the same name is"
    )
