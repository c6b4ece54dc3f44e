"""Programs that tests start as forks of one process that has loaded their libraries."""

import atexit
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from filelock import FileLock

from tests import PATIENCE

FOLDER = Path(__file__).parent
SERVER, CLIENT = FOLDER / "server.py", FOLDER / "client.py"
LIBRARIES = [
    "numpy", "pandas", "pyarrow.parquet", "scipy.linalg", "scipy.stats", "scipy.spatial",
    "scipy.special", "yaml", "ruamel.yaml", "pydantic", "safetensors.numpy", "tqdm", "psutil",
    "threadpoolctl", "torch", "torch.nn.utils.fusion", "torchvision", "PIL.Image", "timm",
    "timm.data", "open_clip", "sentence_transformers", "transformers.models.bert.modeling_bert",
    "matplotlib.backends.backend_agg", "matplotlib.backends.backend_pdf", "matplotlib.pyplot",
    "jinja2", "itables",
    # the engines and what they load
    "dvc.cli", "dvc.repo", "dvc.commands.repro", "dvc.commands.status",
    "snakemake.cli", "snakemake.workflow", "snakemake.report", "snakemake_executor_plugin_slurm",
    "dvc.cli.parser", "networkx", "scmrepo.git", "smart_open", "typer", "sshfs", "s3fs", "dvc_http",
]  # fmt: skip


def announce() -> None:
    """Set where servers and empty caches are. The root process of a run calls this."""
    folder = Path(tempfile.mkdtemp(prefix="singflow-warm-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.mkfifo(folder / "alive")
    os.open(folder / "alive", os.O_RDWR)  # until this process ends
    os.environ |= {"SINGFLOW_WARM": str(folder), "HF_HUB_CACHE": str(folder / "hub")}
    # What torch.compile kept on other kernels of this processor crashes here.
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "inductor")


def environment(**loading: str) -> dict[str, str]:
    """Variables that make a server start the programs of steps, `snakemake` and `dvc`.

    The server is started if need be. `loading`: variables that libraries read while they are
    loaded; every choice of them has its own server.
    """
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    folder = Path(os.environ["SINGFLOW_WARM"])
    address = folder / hashlib.sha256(repr(sorted(loading.items())).encode()).hexdigest()[:8]
    with FileLock(address.with_suffix(".lock")):
        if not address.exists():
            with (
                (folder / "alive").open("rb") as alive,
                address.with_suffix(".log").open("wb") as log,
            ):
                known = os.environ.items()
                variables = {name: value for name, value in known if not name.startswith("PYTHON")}
                variables |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"} | loading
                command = [sys.executable, "-Ps", SERVER, address, *LIBRARIES]
                apart = {"stdin": alive, "stdout": log, "stderr": log, "start_new_session": True}
                server = subprocess.Popen(command, env=variables, **apart)
            while not address.exists():
                assert server.poll() is None, address.with_suffix(".log").read_text()
                time.sleep(0.1)
    return {
        "PATH": f"{FOLDER / 'bin'}:{path}",
        "SINGFLOW_WARM_ASK": str(CLIENT),
        "SINGFLOW_WARM_PYTHON": sys.executable,
        "SINGFLOW_WARM_SOCKET": str(address),
    }


def run(
    file: Path, *words: object, cwd: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a script, or the module of a figure, by the server; stdout and stderr stay apart.

    `variables`: of its environment.
    """
    if file.parent.name == "figures":
        words = f"singflow.figures.{file.stem}", *words
        return _run("-m", words, file.parents[2], cwd, variables)
    return _run(file, words, file.parents[1] / "src", cwd, variables)


def singflow(
    root: Path, *words: object, cwd: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """The console command with the code of a checkout, by the server, as run() runs a script."""
    return _run(Path(sys.executable).with_name("singflow"), words, root / "src", cwd, variables)


def _run(
    program: Path | str,
    words: Iterable[object],
    source: Path,
    cwd: Path | None,
    variables: dict[str, str],
) -> subprocess.CompletedProcess[str]:
    known = os.environ | environment() | {"PYTHONPATH": str(source)} | variables
    ask = [sys.executable, "-IS", CLIENT, known["SINGFLOW_WARM_SOCKET"]]
    options = {"capture_output": True, "text": True, "timeout": PATIENCE}
    return subprocess.run([*ask, program, *map(str, words)], cwd=cwd, env=known, **options)
