import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from filelock import FileLock

from tests import PATIENCE
from tests.parts.cluster.slurm import CONFIG, Slurm, missing, wait_for
from tests.project import Project, without

BIN, FAULTS = (Path(__file__).parent / name for name in ("bin", "faults"))
SNAKEMAKE = ("snakemake", "--profile", "slurm")


class ClusterProject(Project):
    """A project with the profile of a site, this trial Slurm.

    Tests can hold its shards just before they are moved into place. Its jobs start forks of the
    tests' server, which Slurm does not watch, except where a test wants a new process (bin/python).
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.move_to_site()

    def move_to_site(self) -> None:
        profile, often = "slurm/config.yaml", "status-checks: 2\nseconds-between-status-checks: 2"
        self.edit(profile, "  # slurm_account: my_account", "  slurm_account: trial")
        self.edit(profile, "status-checks: 40", often)

    def copy(self, folder: Path) -> "ClusterProject":
        shutil.copytree(self.folder, folder, symlinks=True)
        return self.at(folder)

    @property
    def gate(self) -> Path:
        folder = self.folder / ".snakemake/gate"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def anew(self, *kinds: str) -> Path:
        """Make the next process of each kind a new one, with all that its job starts.

        Returns the folder of the kinds that have not come yet. A kind is a rule, or snakemake where
        it is started here; a kind that is named twice stands for the next two processes.
        """
        for number, kind in enumerate(kinds):
            (self.gate / f"anew/{kind}.{number}").mkdir(parents=True)
        return self.gate / "anew"

    def hold(self, *shards: int) -> None:
        """Hold the next attempt at these shards when it has written them (faults/gate.py)."""
        for shard in shards:
            (self.gate / f"{shard}.hold").touch()

    def held(self) -> dict[int, int]:
        """Shards that were held, with the process that did it."""
        found = {int(path.stem): path.read_text() for path in self.gate.glob("*.reached")}
        return {shard: int(process) for shard, process in sorted(found.items()) if process}

    def wait_for_held(self, count: int) -> list[int]:
        wait_for(lambda: len(self.held()) >= count, f"{count} shards are held in {self.folder}")
        return list(self.held())

    def held_anew(self) -> list[int]:
        """The held shards whose steps are new processes."""
        return [
            shard
            for shard, process in self.held().items()
            if "--shard" in psutil.Process(process).cmdline()
        ]

    def order(self, shard: int, what: str = "go") -> None:
        """Let a held shard go on, be cut in half, or take memory without end."""
        path = self.gate / f"{shard}.order"
        path.with_suffix(".new").write_text(what)
        path.with_suffix(".new").rename(path)

    def environment(self, warm_start: bool | None = None, **variables: str) -> dict[str, str]:
        own = super().environment(warm_start, **variables) | {"GATE": str(self.gate)}
        own["PYTHONPATH"] += f":{FAULTS}"
        if "SINGFLOW_WARM_SOCKET" in own:
            own["PATH"] = f"{BIN}:{own['PATH']}"
        return own

    def start(self, *command: str, **variables: str) -> "Running":
        return Running(command, self.folder, self.environment(**variables))

    def shards(self) -> dict[str, bytes]:
        """All files of the features."""
        files = (self.folder / "results/demo/features/tiny").glob("*")
        return {path.name: path.read_bytes() for path in files}


class Running:
    """A command in the background; what it says is kept."""

    def __init__(self, command: Sequence[str], folder: Path, environment: dict[str, str]) -> None:
        self.log = folder / ".snakemake" / f"run-{len(list((folder / '.snakemake').glob('run-*')))}"
        with self.log.open("wb") as output:
            streams = {"stdout": output, "stderr": output, "start_new_session": True}
            self.process = subprocess.Popen(command, cwd=folder, env=environment, **streams)

    @property
    def said(self) -> str:
        return self.log.read_text()

    def kill(self) -> None:
        """SIGKILL, which leaves the command no time for anything."""
        self.process.kill()
        self.process.wait()

    def ended(self) -> int:
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise AssertionError(f"still running after {PATIENCE} s: {self.said[-4000:]}") from None


@pytest.fixture(scope="session", autouse=True)
def parts():
    """Look for the parts of Slurm before a study is computed to be compared with one on Slurm."""
    if reason := missing():
        without(reason)


@pytest.fixture(scope="package")
def slurm(tmp_path_factory):
    """A real Slurm of two nodes with two GPUs each; waits until no other test run uses one."""
    trial = Slurm(tmp_path_factory.mktemp("slurm"))
    CONFIG.mkdir(exist_ok=True)
    with FileLock(CONFIG / "trial.lock"):
        try:
            trial.start()
            yield trial
        finally:
            trial.stop()


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """A small study that ran here up to its five shards, and the space for comparison."""
    project = ClusterProject(tmp_path_factory.mktemp("prepared"))
    shards = {"views": 2, "shards": 5, "decode_threads": 2}  # so that all run at the same time
    six = {"table": "config/vocab/packaged_six.csv"}
    project.study(models=["tiny"], data=six, extraction=shards, comparison={"models": []})
    importing = "from singflow import cli"
    project.edit("scripts/extract_features.py", importing, f"import gate\n{importing}")
    space = [target.replace("features/tiny", "embeddings/conse_minilm") for target in targets(5)]
    others = ("registry/models/tiny.json", "prompts/conse_minilm.safetensors")
    project.snakemake(*(f"results/demo/{name}" for name in others), *space)
    return project


@pytest.fixture(scope="session")
def reference(prepared, tmp_path_factory):
    """The bytes of the shards as this machine computes them without Slurm."""
    project = prepared.copy(tmp_path_factory.mktemp("reference") / "project")
    project.snakemake(*targets(5))
    return project.shards()


@pytest.fixture
def project(slurm, prepared, tmp_path):
    """The prepared study, for one test; nothing of it runs on when the test ends."""
    twin = prepared.copy(tmp_path / "project")
    yield twin
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.cwd().startswith(str(twin.folder)):
                process.kill()
    slurm.ask("scancel", "--me")
    wait_for(lambda: not slurm.jobs(), "the queue is empty")


def targets(count: int) -> list[str]:
    """The first shards of the prepared study."""
    return [f"results/demo/features/tiny/shard-0000{number}.safetensors" for number in range(count)]
