"""`make demo`, killed at random moments and started again until it is through: nothing is lost, and nobody has to unlock anything."""

import platform
import subprocess
import sys
import time
from contextlib import suppress

import numpy as np
import psutil

from tests.project import Project

KILLS = 30
DEMO = ["make", "-o", ".venv/demo", "demo"]


def killed(project, seconds, *, orphans):
    """Start the demo and kill it with SIGKILL after `seconds`, with (orphans: without) its steps; False: it was through before."""
    demo = subprocess.Popen(
        DEMO, cwd=project.folder, env=project.environment(), start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    with suppress(subprocess.TimeoutExpired):
        assert demo.wait(seconds) == 0
        return False
    main = psutil.Process(demo.pid)
    for process in [main, *main.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            if not (orphans and any("scripts/" in word for word in process.cmdline())):
                process.kill()
    demo.wait()
    return True


def temporary_files(project):
    return [path for path in (project.folder / "results").rglob(".*") if path.is_file()]


def test_the_demo_killed_at_any_moment_ends_in_the_artifacts_of_an_undisturbed_one(snakemake_project, tmp_path):
    project = Project(tmp_path / "chaos")
    (project.folder / ".venv").symlink_to(sys.prefix)
    moments = np.random.default_rng(0)
    kills = 0
    while kills < KILLS:
        if killed(project, moments.uniform(0.5, 9.0), orphans=kills % 3 == 0):
            kills += 1
        else:
            assert project.artifacts() == snakemake_project.artifacts()
            (project.folder / "results").rename(tmp_path / f"through after {kills} kills")
    project.run(*DEMO)
    assert project.artifacts() == snakemake_project.artifacts()
    assert temporary_files(project) == []
    assert "Nothing to be done" in project.snakemake("--dry-run")


def test_a_lock_that_a_killed_demo_of_this_machine_did_not_leave_is_respected(snakemake_project, tmp_path):
    project = snakemake_project.copy(tmp_path / "locked")
    project.edit("params.yaml", "extremes: 8", "extremes: 7")
    locks, owner = (project.folder / ".snakemake" / name for name in ("locks", "demo"))
    locks.mkdir(exist_ok=True)
    (locks / "0.output.lock").write_text("results/demo/figures/fig5.png\n")
    for name in (None, f"not-{platform.node()}"):
        if name:
            owner.write_text(name)
        refused = project.run(*DEMO, check=False)
        assert refused.returncode != 0 and "Directory cannot be locked" in refused.stdout
    owner.write_text(platform.node())
    assert "going on where it stopped" in project.run(*DEMO).stdout and not owner.exists()


def test_a_second_demo_is_refused_while_the_first_is_at_work(snakemake_project, tmp_path):
    project = snakemake_project.copy(tmp_path / "twice")
    (project.folder / ".venv").symlink_to(sys.prefix)
    project.edit("params.yaml", "extremes: 8", "extremes: 7")
    with subprocess.Popen(DEMO, cwd=project.folder, env=project.environment(), stdout=subprocess.DEVNULL) as first:
        while not list((project.folder / ".snakemake/locks").glob("*.lock")):
            assert first.poll() is None
            time.sleep(0.05)
        refused = project.run(*DEMO, check=False)
        assert refused.returncode != 0 and "Snakemake is at work in this folder already" in refused.stdout
        assert (project.folder / ".snakemake/demo").is_file()
        assert first.wait() == 0
