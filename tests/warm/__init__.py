"""Programs that tests start in forks of one process, which has their libraries loaded, instead of in new ones (server.py)."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from filelock import FileLock

FOLDER = Path(__file__).parent


def announce() -> None:
    """Called once a test run, by the process that all its others descend from: where the server will be, and until when."""
    folder = Path(tempfile.mkdtemp(prefix="singflow-warm-"))
    os.mkfifo(folder / "alive")
    os.open(folder / "alive", os.O_RDWR)  # until this process ends
    os.environ["SINGFLOW_WARM_SOCKET"] = str(folder / "socket")


def environment() -> dict[str, str]:
    """Variables with which `python scripts/...`, `snakemake` and `dvc` are started by the server, which is started if need be."""
    address = Path(os.environ["SINGFLOW_WARM_SOCKET"])
    with FileLock(address.with_name("lock")):
        if not address.exists():
            with address.with_name("alive").open("rb") as alive, address.with_name("log").open("wb") as log:
                variables = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
                command = [sys.executable, "-I", FOLDER / "server.py", address]
                server = subprocess.Popen(command, stdin=alive, stdout=log, stderr=log, env=variables, start_new_session=True)
            while not address.exists():
                assert server.poll() is None, address.with_name("log").read_text()
    return {
        "PATH": f"{FOLDER / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "SINGFLOW_WARM": str(FOLDER),
        "SINGFLOW_WARM_PYTHON": sys.executable,
        "SINGFLOW_WARM_SOCKET": str(address),
    }
