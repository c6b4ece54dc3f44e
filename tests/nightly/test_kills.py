"""Kills at random moments, besides those of workflow/test_chaos.py and test_publish.py."""

import re
import shutil
import signal
import subprocess
import time

import numpy as np
import psutil

from singflow.config.reading import read_yaml
from singflow.errors import InputError
from tests.project import Project
from tests.workflow.test_chaos import DEMO, temporary_files

MOMENTS = 30


def killed(project, *command, seconds=None, orphans=False):
    """Start a command and kill it after `seconds` (None: never). Returns its time if it had ended.

    `orphans`: the steps of the command are not killed.
    """
    started = time.monotonic()
    streams = {"stdout": subprocess.DEVNULL, "start_new_session": True}
    variables = project.environment(warm_start=False)
    process = subprocess.Popen(command, cwd=project.folder, env=variables, **streams)
    try:
        assert process.wait(seconds) == 0
    except subprocess.TimeoutExpired:
        own = psutil.Process(process.pid)
        for member in [own, *own.children(recursive=True)]:
            step = re.search(r"scripts/|singflow\.figures\.", " ".join(member.cmdline()))
            if not (orphans and step) and member.is_running():
                member.send_signal(signal.SIGKILL)
        process.wait()
        return None
    return time.monotonic() - started


def test_the_demo_killed_at_random_moments_ends_in_the_artifacts_of_an_undisturbed_one(
    snakemake_project, tmp_path
):
    project = Project(tmp_path / "chaos")
    moments, kills = np.random.default_rng(0), 0
    while kills < MOMENTS:
        seconds = moments.uniform(0.5, 9.0)
        if killed(project, *DEMO, seconds=seconds, orphans=kills % 3 == 0) is None:
            kills += 1
            project.snakemake("--unlock")
        else:
            assert project.differs(snakemake_project) == set()
            (project.folder / "results").rename(tmp_path / f"through after {kills} kills")
    project.run(*DEMO)
    assert project.differs(snakemake_project) == set()
    assert temporary_files(project) == []
    assert "Nothing to be done" in project.snakemake("--dry-run")


def readable(lock):
    try:
        return bool(read_yaml(lock))
    except InputError:
        return False


def test_publish_and_fetch_killed_at_random_moments_lose_nothing_and_complete_when_run_again(
    published, tmp_path
):
    project, store = published.copy(tmp_path / "publisher"), tmp_path / "store"
    project.dvc("remote", "modify", "--local", "local", "url", str(store))
    reader = project.clone(tmp_path / "reader")
    reader.dvc("remote", "modify", "--local", "local", "url", str(store))
    before, moments = published.artifacts(), np.random.default_rng(0)

    def forget(checkout, *more):
        for folder in (checkout.folder / ".dvc/cache", *more):
            shutil.rmtree(folder, ignore_errors=True)
        checkout.run("git", "checkout", "-q", "--", ".")

    for checkout, command, more in (
        (project, "publish", [store]),
        (reader, "fetch", [reader.folder / "results"]),
    ):
        forget(checkout, *more)
        whole = killed(checkout, "singflow", command)
        for number in range(MOMENTS):
            if number % 4 == 0:
                forget(checkout, *more)
            seconds = moments.uniform(0.1, 1) * whole
            whole = min(whole, killed(checkout, "singflow", command, seconds=seconds) or whole)
            checkout.snakemake("--unlock")  # as a Snakemake that finds the lock advises
            if not readable(checkout.folder / "dvc.lock"):
                checkout.run("git", "checkout", "-q", "dvc.lock")  # as publish and fetch advise
            held = checkout.artifacts()
            assert [n for n in held.keys() & before.keys() if before[n] != held[n]] == []
            assert command == "fetch" or held == before
        checkout.command(command)
        assert before.items() <= checkout.artifacts().items()  # half files stay, hidden
    assert reader.changed() == set()
    assert "Nothing to be done" in reader.snakemake("--dry-run")
