"""Runs steps as forks of one process that has loaded their libraries.

A start of Python takes longer than most steps.
"""

import os
import shlex
import subprocess
import sys
from pathlib import Path

from singflow.engines.code import step_files

FOLDER = Path(__file__).parent
SERVER, CLIENT = FOLDER / "fork_server.py", FOLDER / "fork_client.py"
FEWEST = 12  # steps: for shorter runs, loading the libraries is not worth it
PATIENCE = 10.0  # seconds that the server has to end
LIBRARIES = [
    "numpy",
    "pandas",
    "pyarrow.parquet",
    "scipy.linalg",
    "scipy.stats",
    "scipy.spatial",
    "scipy.special",
    "yaml",
    "ruamel.yaml",
    "pydantic",
    "safetensors.numpy",
    "tqdm",
    "psutil",
    "threadpoolctl",
    "torch",
    "torch.nn.utils.fusion",
    "torchvision",
    "PIL.Image",
    "timm",
    "timm.data",
    "open_clip",
    "sentence_transformers",
    "transformers.models.bert.modeling_bert",
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_pdf",
    "matplotlib.pyplot",
    "jinja2",
    "plotly.graph_objects",
    "itables",
    "faiss",
]
# A process with threads must not fork.
ALONE = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
SHIM = """#!/bin/sh
case "$1 $2" in
  scripts/*.py\\ * | "-m singflow.figures."*) exec {python} -IS {client} {socket} "$@" ;;
  *) exec {python} "$@" ;;
esac
"""


def possible() -> bool:
    """Whether steps can be forks: on Linux without an NVIDIA GPU, whose driver forbids it."""
    return sys.platform == "linux" and not Path("/dev/nvidiactl").exists()


class Forks:
    """A `python` that runs the steps of one Snakemake as forks, once start() was called.

    folder: private, empty, and not removed while this object is used.
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
        """Start the server, which loads the libraries; steps that start from now on wait for it.

        Only steps in Snakemake's process group `group` are forks. events: file that gets a line of
        JSON for every step that ended.
        """
        steps = [path.resolve() for path in step_files().values()]
        with events.open("ab") as told, self.log.open("wb") as log:
            self.server = subprocess.Popen(
                [sys.executable, "-Ps", SERVER, self.socket, str(group), *LIBRARIES, *steps],
                stdin=self.alive,
                stdout=told,
                stderr=log,
                env=os.environ | ALONE | {"HF_HUB_OFFLINE": "1"},
                start_new_session=True,
            )

    def end(self) -> None:
        """End the server after its last step; kill it after PATIENCE seconds."""
        os.close(self.alive)
        os.close(self.held)
        if self.server:
            try:
                self.server.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.server.kill()
                self.server.wait()
