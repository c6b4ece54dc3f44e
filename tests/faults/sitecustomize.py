"""Kills a program at a moment that a test names, so that nothing hangs on how fast the machine is.

FAULT is JSON: `program`, a part of the command line; `event` and `path`, what Python is about to do there (an audit event and a
pattern of its first argument that is a path); `nth` time that it does; `cut`, a pattern of the newest file that is left half as
long, or nothing; `orphans`, whether only this process' ancestors die, up to the session's first, and it goes on. `once`, a file:
with it the order is gone.
EVENTS, a file, receives a line for every change of a file: program, event, path.
"""

import glob
import json
import os
import re
import signal
import sys
from contextlib import suppress

CHANGES = {"os.rename", "os.remove", "os.link", "os.symlink", "os.mkdir", "os.rmdir", "os.truncate", "shutil.rmtree"}
command = " ".join(sys.orig_argv)


def ancestors():
    """This process' ancestors within its session, the nearest first."""
    found, process = [], os.getppid()
    while process > 1 and os.getsid(process) == os.getsid(0):
        found.append(process)
        with open(f"/proc/{process}/stat") as file:  # noqa: PTH123 (few imports)
            process = int(file.read().rpartition(")")[2].split()[1])
    return found


def on(event, arguments):
    """An audit hook."""
    if event == "open":
        path, _, flags = arguments
        if not isinstance(path, str) or not flags & (os.O_WRONLY | os.O_RDWR):
            return
    elif event not in CHANGES:
        return
    path = next((os.fsdecode(each) for each in arguments if isinstance(each, str | bytes | os.PathLike)), "")
    if "EVENTS" in os.environ:
        handle = os.open(os.environ["EVENTS"], os.O_CREAT | os.O_APPEND | os.O_WRONLY) if path != os.environ["EVENTS"] else None
        if handle is not None:
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
            newest = max(glob.glob(fault["cut"], recursive=True, include_hidden=True), key=os.path.getmtime)  # noqa: PTH207 (few imports)
            os.truncate(newest, os.path.getsize(newest) // 2)  # noqa: PTH202 (few imports)
        for process in reversed(ancestors()):
            os.kill(process, signal.SIGKILL)
        if not fault["orphans"]:
            os.killpg(0, signal.SIGKILL)


fault = json.loads(os.environ.get("FAULT", "null"))
if (fault and fault["program"] in command) or "EVENTS" in os.environ:
    fault = fault if fault and fault["program"] in command else None
    sys.addaudithook(on)
