"""Programs as forks of the tests' server behave like processes of their own."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import PATIENCE
from tests.warm import CLIENT, SERVER

TELL = """
import json, os, sys
known = [sys.argv, os.getcwd(), os.environ["WORD"], os.umask(0), sys.stdin.read()]
print(json.dumps([os.getpid(), "colorsys" in sys.modules, known]))
print("complaint", file=sys.stderr)
sys.exit(7)
"""
WAIT = """
import os, pathlib, time
pathlib.Path("began").write_text(str(os.getpid()))
while True:
    time.sleep(0.05)
"""


def until(happened):
    """Wait for what must come."""
    started = time.monotonic()
    while not happened():
        assert time.monotonic() - started < PATIENCE
        time.sleep(0.05)


@pytest.fixture
def server(tmp_path):
    address = tmp_path / "socket"
    process = subprocess.Popen(
        [sys.executable, "-Ps", SERVER, address, "colorsys"], stdin=subprocess.PIPE, cwd=tmp_path
    )
    until(address.exists)
    yield process
    process.kill()
    process.communicate()


def client(folder, text, *words):
    """Ask for a program of this text."""
    (folder / "program.py").write_text(text)
    command = [sys.executable, "-IS", CLIENT, folder / "socket", "program.py", *words]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(
        command, cwd=folder, text=True, umask=0o027, env=os.environ | {"WORD": "a b"}, **pipes
    )


def test_a_program_has_what_its_caller_has_with_or_without_a_server(tmp_path, request):
    expected = [["program.py", "x y", "--z"], str(tmp_path), "a b", 0o027, "given"]
    for forked in (False, True):
        if forked:
            request.getfixturevalue("server")
        process = client(tmp_path, TELL, "x y", "--z")
        out, err = process.communicate("given", timeout=PATIENCE)
        number, loaded, known = json.loads(out)
        assert process.returncode == 7 and err == "complaint\n" and known == expected
        assert loaded is forked and (number != process.pid) is forked


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_client_ends_as_its_program_does(server, tmp_path, how):
    process = client(tmp_path, f"import os, time\nos.kill(os.getpid(), {how})\ntime.sleep(99)")
    assert process.wait(PATIENCE) == -how


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_program_ends_with_its_client(server, tmp_path, how):
    process, began = client(tmp_path, WAIT), tmp_path / "began"
    until(lambda: began.exists() and began.read_text())
    process.send_signal(how)
    until(lambda: not Path("/proc", began.read_text()).exists())
    assert process.wait(PATIENCE) == -how
