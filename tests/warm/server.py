"""Starts programs in forks of one process that has their libraries loaded: what a start of Python costs is paid once a test run.

`python -Ps server.py <socket>` listens until its standard input ends. bin/ has the programs that ask it; each of them is the real
one, with the working folder, the environment, the files and the status that its caller gave it or wants. A program is killed when
its caller is.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

LOADED = (
    "numpy pandas pyarrow.parquet scipy.linalg scipy.stats scipy.spatial scipy.special yaml ruamel.yaml pydantic safetensors.numpy "
    "tqdm psutil threadpoolctl torch torch.nn.utils.fusion torchvision PIL.Image timm timm.data open_clip sentence_transformers "
    "transformers.models.bert.modeling_bert matplotlib.backends.backend_agg matplotlib.backends.backend_pdf matplotlib.pyplot jinja2 "
    "plotly.graph_objects itables faiss rocrate.rocrate dvc.cli dvc.repo dvc.commands.repro dvc.commands.status "
    "snakemake.cli snakemake.workflow snakemake.report snakemake_executor_plugin_slurm"
)


def serve(listener: socket.socket, parent: int) -> list[str] | None:
    """Start what is asked for until `parent` ends: in the fork, the program's words; None at the end."""
    callers: dict[int, tuple[int, socket.socket]] = {}  # by the descriptor of a program's process
    with selectors.DefaultSelector() as ready:
        ready.register(listener, selectors.EVENT_READ, "new")
        ready.register(parent, selectors.EVENT_READ, "end")
        while True:
            for key, _ in sorted(ready.select(), key=lambda event: event[0].data == "new"):  # last: it may reuse a descriptor
                if key.data == "end":
                    return None
                if key.data == "new":
                    caller, _ = listener.accept()
                    said, files, _, _ = socket.recv_fds(caller, 2**20, 3)
                    if not said:
                        caller.close()
                        continue
                    if not (number := os.fork()):
                        ready.close()
                        listener.close()
                        return become(json.loads(said), files)
                    for file in files:
                        os.close(file)
                    process = os.pidfd_open(number)
                    callers[process] = number, caller
                    ready.register(process, selectors.EVENT_READ, "ended")
                    ready.register(caller, selectors.EVENT_READ, process)
                    continue
                process = key.fd if key.data == "ended" else key.data
                if process not in callers:
                    continue
                number, caller = callers.pop(process)
                ready.unregister(process)
                ready.unregister(caller)
                if key.data != "ended":
                    with suppress(ProcessLookupError):
                        os.killpg(number, signal.SIGKILL)
                status = os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
                with suppress(OSError):
                    caller.send(str(status).encode())
                caller.close()
                os.close(process)


def become(asked: dict, files: list[int]) -> list[str]:
    """Take on what the caller has: its files, folder, environment and mask. Returns the program's words."""
    os.setsid()
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.umask(asked["umask"])
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    words = asked["words"]
    sys.argv[:], sys.orig_argv[:] = words, [sys.executable, *words]
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:0] = [str(Path(words[0]).absolute().parent), *filter(None, paths)]
    return words


def leave(program: str) -> NoReturn:
    """Run a program and end as Python would after it, but without taking all that is loaded apart."""
    status = 0
    try:
        runpy.run_path(program, run_name="__main__")
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if status and not isinstance(end.code, int):
            print(end.code, file=sys.stderr)
    except BaseException:  # noqa: BLE001 (whatever the program raised, as in a process of its own)
        sys.excepthook(*sys.exc_info())
        status = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(BrokenPipeError):
            stream.flush()
    os._exit(status)


if __name__ == "__main__":
    address = sys.argv[1]
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listening.bind(address)
    listening.listen(64)
    for name in LOADED.split():
        importlib.import_module(name)
    gc.freeze()  # else the collector of every fork writes to, and so copies, all of this memory
    if program := serve(listening, 0):
        leave(program[0])
