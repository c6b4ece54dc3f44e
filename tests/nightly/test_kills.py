"""Kills at random moments, besides those of workflow/test_chaos.py and test_publish.py."""

import re
import shutil
import signal
import subprocess
import time

import numpy as np
import psutil

from tests.nightly.test_publish import litter
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


def test_publish_killed_at_random_moments_loses_nothing_and_completes_when_run_again(
    published, tmp_path
):
    project = published.copy(tmp_path / "publisher")
    store = tmp_path / "store"
    project.dvc("remote", "modify", "--local", "local", "url", str(store))
    before, command = project.artifacts(), ("singflow", "publish")

    def forget():
        for folder in (project.folder / ".dvc/cache", store):
            shutil.rmtree(folder, ignore_errors=True)
        (project.folder / "dvc.lock").unlink(missing_ok=True)

    forget()
    moments, whole = np.random.default_rng(0), killed(project, *command)
    for number in range(MOMENTS):
        if number % 4 == 0:
            forget()
        seconds = moments.uniform(0.3, 1) * whole
        whole = min(whole, killed(project, *command, seconds=seconds) or whole)
        assert project.differs(before) == set()
    project.command("publish")
    project.commit()
    reader = project.clone(tmp_path / "reader")
    reader.dvc("remote", "modify", "--local", "local", "url", str(store))
    reader.command("fetch")
    assert reader.differs(before) == set() and litter(project) == []


def test_fetch_killed_at_random_moments_loses_nothing_and_completes_when_run_again(
    published, tmp_path
):
    reader = published.clone(tmp_path / "reader")
    moments, command = np.random.default_rng(1), ("singflow", "fetch")
    whole, whole_study = killed(reader, *command), published.artifacts()
    for number in range(MOMENTS):
        if number % 4 == 0:
            shutil.rmtree(reader.folder / ".dvc/cache", ignore_errors=True)
            shutil.rmtree(reader.folder / "results")
            reader.run("git", "checkout", "-q", "--", ".")
        seconds = moments.uniform(0.1, 1) * whole
        whole = min(whole, killed(reader, *command, seconds=seconds) or whole)
        held = reader.artifacts()
        assert [name for name in held if whole_study[name] != held[name]] == []
    reader.command("fetch")
    assert reader.differs(whole_study) == set() and litter(reader) == []
    assert reader.changed() == set()
    assert "Nothing to be done" in reader.snakemake("--dry-run")
