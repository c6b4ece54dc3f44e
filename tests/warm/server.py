"""Runs programs as forks of one process that has loaded their libraries: Python starts only once.

`python -Ps server.py <socket> <module> ...` loads the modules; those that are not installed are
skipped. Then it serves clients (client.py) until its standard input is closed and the last program
has ended.

A program gets the working folder, the environment, the umask and the standard streams of its
client. The client ends as the program ends; if the client is killed, so is the program.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import selectors
import signal
import socket
import sys
import threading
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn


def _serve(listener: socket.socket, parent: int) -> list[str] | None:
    """Run programs until `parent` is closed and all programs have ended.

    Returns the words of a program in the fork that has to run it, and None in the server.
    """
    callers: dict[int, tuple[int, socket.socket]] = {}  # by the program's pidfd
    open_for_more = True
    with selectors.DefaultSelector() as ready:
        ready.register(listener, selectors.EVENT_READ, "new")
        ready.register(parent, selectors.EVENT_READ, "end")
        while open_for_more or callers:
            # New clients come last: they may reuse a descriptor.
            for key, _ in sorted(ready.select(), key=lambda event: event[0].data == "new"):
                if key.data == "end":
                    open_for_more = False
                    ready.unregister(parent)
                    ready.unregister(listener)
                    listener.close()
                elif key.data != "new":
                    process = key.fd if key.data == "ended" else key.data
                    if process in callers:
                        number, caller = callers.pop(process)
                        ready.unregister(process)
                        ready.unregister(caller)
                        _finish(number, caller, lost=key.data != "ended")
                        os.close(process)
                elif open_for_more:
                    caller, _ = listener.accept()
                    said, files, _, _ = socket.recv_fds(caller, 2**20, 3)
                    if not said:
                        caller.close()
                    elif number := os.fork():
                        process = os.pidfd_open(number)
                        callers[process] = number, caller
                        ready.register(process, selectors.EVENT_READ, "ended")
                        ready.register(caller, selectors.EVENT_READ, process)
                        with suppress(OSError):  # the client ended while it waited
                            caller.send(str(number).encode())
                    else:
                        listener.close()
                        caller.close()
                        for pidfd, (_, socket_of_other) in callers.items():
                            os.close(pidfd)
                            socket_of_other.close()
                        return _become(json.loads(said), files)
                    for file in files:
                        os.close(file)
    return None


def _finish(number: int, caller: socket.socket, *, lost: bool) -> None:
    """Tell a client how its program ended. If the client is lost, the program is killed first."""
    if lost:
        for kill in (os.killpg, os.kill):  # the program may not have its own group yet
            with suppress(ProcessLookupError):
                kill(number, signal.SIGKILL)
    _, status = os.waitpid(number, 0)
    with suppress(OSError):
        caller.send(str(os.waitstatus_to_exitcode(status)).encode())
    caller.close()


def _become(asked: dict[str, Any], files: list[int]) -> list[str]:
    """Take over a client's files, folder, environment and umask; returns the program's words."""
    os.setsid()
    for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]
        finalizer.atexit = False  # the server finalizes its own objects
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.umask(asked["umask"])
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    words = asked["words"]
    is_module = words[0] == "-m"
    sys.argv[:], sys.orig_argv[:] = words[is_module:], [sys.executable, *words]
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    folder = Path.cwd() if is_module else Path(words[0]).absolute().parent
    sys.path[:0] = [str(folder), *filter(None, paths)]
    return words


def _leave(words: list[str]) -> NoReturn:
    """Run a file, or a module after `-m`, and end as Python does, but without unloading modules.

    Functions that libraries registered with atexit still run: they flush logs and join child
    processes.
    """
    status = 0
    try:
        if words[0] == "-m":
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if status and not isinstance(end.code, int):
            print(end.code, file=sys.stderr)
    except BaseException:  # noqa: BLE001 (anything that the program raises)
        sys.excepthook(*sys.exc_info())
        status = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(BrokenPipeError):
            stream.flush()
    os._exit(status)


if __name__ == "__main__":
    address, *modules = sys.argv[1:]
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listening.bind(address)
    listening.listen(64)
    gc.disable()  # what is loaded now stays
    for name in modules:
        if select.select([0], [], [], 0)[0]:
            sys.exit()
        with suppress(ImportError):
            importlib.import_module(name)
    # Otherwise the garbage collector of every fork would write to this memory, and so copy it.
    gc.freeze()
    gc.enable()
    if words := _serve(listening, 0):
        _leave(words)
