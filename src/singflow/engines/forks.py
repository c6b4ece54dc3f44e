"""Steps as forks of one process that has their libraries loaded, in place of a start of Python each, which takes longer than most steps."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
SERVER, CLIENT = FOLDER / "fork_server.py", FOLDER / "fork_client.py"
FEWEST = 12  # steps of a run that are worth the loading
PATIENCE = 10.0  # seconds that the server has to end
LIBRARIES = [
    "numpy", "pandas", "pyarrow.parquet", "scipy.linalg", "scipy.stats", "scipy.spatial", "scipy.special", "yaml", "ruamel.yaml",
    "pydantic", "safetensors.numpy", "tqdm", "psutil", "threadpoolctl", "torch", "torch.nn.utils.fusion", "torchvision",
    "PIL.Image", "timm", "timm.data", "open_clip", "sentence_transformers", "transformers.models.bert.modeling_bert",
    "matplotlib.backends.backend_agg", "matplotlib.backends.backend_pdf", "matplotlib.pyplot", "jinja2", "plotly.graph_objects",
    "itables", "faiss",
]  # fmt: skip
ALONE = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"
)  # a process with threads must not fork
SHIM = """#!/bin/sh
case "$1" in
  scripts/*.py) exec {python} -IS {client} {socket} "$@" ;;
  *) exec {python} "$@" ;;
esac
"""


def possible() -> bool:
    """Whether steps can be forks here: on Linux, and not beside a GPU, whose driver a fork could not use."""
    return sys.platform == "linux" and not Path("/dev/nvidiactl").exists()


class Forks:
    """A `python` that starts the steps of one Snakemake as forks, once start() was called.

    folder: private, empty and there as long as this is used.
    """

    def __init__(self, folder: Path) -> None:
        self.bin, self.socket, self.log = folder / "bin", folder / "socket", folder / "log"
        self.server: subprocess.Popen[bytes] | None = None
        self.alive, self.held = os.pipe()
        self.bin.mkdir()
        words = {"python": sys.executable, "client": CLIENT, "socket": self.socket}
        program = self.bin / "python"
        program.write_text(
            SHIM.format(**{name: shlex.quote(str(word)) for name, word in words.items()}),
            encoding="utf-8",
        )
        program.chmod(0o700)

    def start(self, group: int, events: Path) -> None:
        """Load what steps need, in a process of its own, for which they wait; those that began before start as ever."""
        steps = sorted(Path("scripts").resolve().glob("*.py"))
        with events.open("ab") as told, self.log.open("wb") as log:
            self.server = subprocess.Popen(
                [sys.executable, "-Ps", SERVER, self.socket, str(group), *LIBRARIES, *steps],
                stdin=self.alive, stdout=told, stderr=log, env=os.environ | ALONE | {"HF_HUB_OFFLINE": "1"}, start_new_session=True,
            )  # fmt: skip

    def end(self) -> None:
        """End the process once its last step has ended."""
        os.close(self.alive)
        os.close(self.held)
        if self.server:
            try:
                self.server.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.server.kill()
                self.server.wait()
