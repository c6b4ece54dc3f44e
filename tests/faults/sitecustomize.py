"""Kills a program at a moment that a test names, so that no test depends on the machine's speed.

FAULT is JSON with these keys:

- `program`: a part of the command line;
- `event` and `path`: what Python is about to do (an audit event, and a pattern of its first
  argument that is a path);
- `nth`: the time of that event that counts;
- `cut`: a pattern of the newest file, which is cut in half, or nothing;
- `orphans`: whether only the ancestors of this process die, up to the first of the session, and
  this process goes on;
- `once`: a file; the order is void once this file is gone.

A new process of Python imports this module at its start; a fork of the tests' server (../warm) runs
it, followed by the program's words. EVENTS is a file that receives a line for every change of a
file: program, event, path.
"""

import glob
import json
import os
import re
import runpy
import signal
import sys
from contextlib import suppress

CHANGES = {
    f"os.{name}" for name in ("rename", "remove", "link", "symlink", "mkdir", "rmdir", "truncate")
} | {"shutil.rmtree"}
command = " ".join(sys.orig_argv)


def ancestors():
    """Ancestors of this process within its session, nearest first.

    Above a fork: the process that asked for the fork, and the ancestors of that process.
    """
    found, process = [], os.getpid()
    clients = list(map(int, os.environ.get("SINGFLOW_WARM_CLIENTS", "").split()))
    while True:
        with open(f"/proc/{process}/stat") as file:  # noqa: PTH123 (few imports)
            above = int(file.read().rpartition(")")[2].split()[1])
        if above > 1 and os.getsid(above) == os.getsid(process):
            process = above
        elif clients:
            process = clients.pop(0)
        else:
            return found
        found.append(process)


def on(event, arguments):
    """An audit hook."""
    if event == "open":
        path, _, flags = arguments
        if not isinstance(path, str) or not flags & (os.O_WRONLY | os.O_RDWR):
            return
    elif event not in CHANGES:
        return
    named = [item for item in arguments if isinstance(item, str | bytes | os.PathLike)]
    path = os.fsdecode(named[0]) if named else ""
    if "EVENTS" in os.environ and path != os.environ["EVENTS"]:
        handle = os.open(os.environ["EVENTS"], os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        os.write(handle, f"{command[:200]}\t{event}\t{path}\n".encode())
        os.close(handle)
    if not fault or event != fault["event"] or not re.search(fault["path"], path):
        return
    fault["nth"] -= 1
    if fault["nth"] or not os.path.exists(fault["once"]):  # noqa: PTH110 (few imports)
        return
    with suppress(FileNotFoundError):
        os.unlink(fault["once"])  # noqa: PTH108 (few imports)
        if fault["cut"]:
            found = glob.glob(fault["cut"], recursive=True, include_hidden=True)  # noqa: PTH207
            newest = max(found, key=os.path.getmtime)
            os.truncate(newest, os.path.getsize(newest) // 2)  # noqa: PTH202 (few imports)
        family = [*reversed(ancestors()), os.getpid()]
        groups = dict.fromkeys(map(os.getpgid, family))
        kill, numbers = (os.kill, family[:-1]) if fault["orphans"] else (os.killpg, groups)
        for number in numbers:
            with suppress(ProcessLookupError):  # the server was faster
                kill(number, signal.SIGKILL)


fault = json.loads(os.environ.get("FAULT", "null"))
if (fault and fault["program"] in command) or "EVENTS" in os.environ:
    fault = fault if fault and fault["program"] in command else None
    sys.addaudithook(on)
if __name__ == "__main__":
    del sys.argv[0], sys.orig_argv[1]
    if sys.argv[0] == "-m":
        del sys.argv[0]
        sys.path[0] = os.getcwd()  # noqa: PTH109 (few imports)
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))  # noqa: PTH100, PTH120 (few imports)
        runpy.run_path(sys.argv[0], run_name="__main__")
