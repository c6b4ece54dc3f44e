"""Deliberate faults on a real Slurm: the study completes with the bytes of an undisturbed run."""

import os
import re
import signal

import pytest

from tests.parts.cluster.conftest import SNAKEMAKE, targets
from tests.parts.cluster.slurm import wait_for
from tests.project import ROOT, blocks

pytestmark = pytest.mark.nightly


def number_of(slurm, shard, *states):
    jobs = slurm.jobs(*states).items()
    (number,) = [number for number, comment in jobs if comment.endswith(f"_tiny_0000{shard}")]
    return number


def history(slurm, shard, since):
    """State and memory of every attempt at a shard, oldest first, since the test's first job."""
    rows = slurm.accounted("JobIDRaw,State,ReqMem,Comment", "--duplicates")
    mine = [row for row in rows if int(row[0]) >= since and row[3].endswith(f"_tiny_0000{shard}")]
    return [(state.split()[0], memory) for _, state, memory, _ in mine]


def test_jobs_that_are_cancelled_killed_or_too_large_are_run_again(slurm, project, reference):
    project.hold(*range(5))
    project.anew("extract_features", "extract_features")
    running = project.start(*SNAKEMAKE, *targets(5))
    project.wait_for_held(4)
    cancelled, large = project.held_anew()
    killed, undisturbed = project.held().keys() - {cancelled, large}
    assert len(slurm.jobs("RUNNING")) == 4 and len(slurm.jobs("PENDING")) == 1, (
        "with four GPUs the fifth job waits"
    )
    first = min(map(int, slurm.jobs()))

    slurm.ask("scancel", number_of(slurm, cancelled))
    project.order(killed, "half")
    wait_for((project.gate / f"{killed}.done").exists, "the shard is cut in half")
    os.kill(project.held()[killed], signal.SIGKILL)
    (litter,) = (project.folder / "results/demo/features/tiny").glob(f".shard-0000{killed}*")
    os.utime(litter, (0, 0))
    project.order(large, "hog")
    project.order(undisturbed)
    project.order(10 - cancelled - killed - large - undisturbed)

    assert running.ended() == 0, running.said[-4000:]
    assert project.shards() == reference
    assert [state for state, _ in history(slurm, cancelled, first)] == ["CANCELLED", "COMPLETED"]
    assert [state for state, _ in history(slurm, killed, first)] == ["FAILED", "COMPLETED"]
    assert [state for state, _ in history(slurm, undisturbed, first)] == ["COMPLETED"]
    (state, before), (last, after) = history(slurm, large, first)
    assert (state, last) == ("FAILED", "COMPLETED") and int(after[:-1]) == 2 * int(before[:-1])


def test_after_snakemake_was_killed_the_commands_of_the_page_go_on_and_old_jobs_spoil_nothing(
    slurm, project, reference
):
    page = (ROOT / "docs/cluster.md").read_text().partition("### After Snakemake was killed")[2]
    look, cancel, unlock, same = "".join(blocks(page)[:2]).splitlines()
    project.hold(0, 1)
    project.anew("extract_features")
    running = project.start(*SNAKEMAKE, *targets(2))
    project.wait_for_held(2)
    (anew,) = project.held_anew()
    stopped, goes_on = number_of(slurm, anew), number_of(slurm, 1 - anew)
    running.kill()
    again = project.start(*SNAKEMAKE, *targets(2))
    assert again.ended() == 1 and "LockException" in again.said
    assert slurm.jobs("RUNNING").keys() == {stopped, goes_on}, "the old jobs go on"

    project.run("snakemake", "--unlock")
    naive = project.start(*SNAKEMAKE, *targets(2))
    assert naive.ended() == 0, naive.said[-4000:]
    finished = {name: content for name, content in reference.items() if name < "shard-00002"}
    assert finished.items() <= project.shards().items()
    project.order(1 - anew)
    wait_for(lambda: goes_on not in slurm.jobs(), f"job {goes_on} has ended")
    assert finished.items() <= project.shards().items()
    assert "Nothing to be done" in project.snakemake("--dry-run", *targets(2))

    (run,) = re.findall(r"SLURM run ID: (\S+)", running.said)
    looked = project.shell(look)
    assert [line.split()[:2] for line in looked.splitlines()[1:]] == [[stopped, run]]
    project.shell(cancel.replace("<run ID>", run))
    wait_for(lambda: stopped not in slurm.jobs(), f"job {stopped} is cancelled")
    project.shell(unlock)
    resumed = project.start(*same.split(), *targets(5))
    assert resumed.ended() == 0, resumed.said[-4000:]
    assert project.shards() == reference
    states = [state for state, _ in history(slurm, anew, int(stopped))]
    assert states == ["CANCELLED", "COMPLETED"]


def test_controllers_hand_over_and_wait_for_the_jobs_of_the_last_one(slurm, project, reference):
    project.hold(0)
    project.equip()
    started = project.start("bash", "slurm/controller.sh")
    assert started.ended() == 0 and "controller: job " in started.said, started.said
    project.wait_for_held(1)
    shard, controllers = number_of(slurm, 0), slurm.ask("squeue", "-h", "-o", "%i|%j").stdout
    (first,) = [line.split("|")[0] for line in controllers.splitlines() if "controller-" in line]
    second = project.start("bash", "slurm/controller.sh")
    assert second.ended() == 1 and "this study has a controller already" in second.said

    slurm.ask("scancel", "--signal=USR1", "--batch", first)  # as Slurm does before the time limit
    log = project.folder / ".snakemake/controller.log"
    waiting = f"waiting for job {shard} rule_extract_features"
    wait_for(lambda: waiting in log.read_text(), "the next controller waits", log.read_text)
    project.order(0)

    def goes_on():
        return "rule_model" in " ".join(slurm.jobs().values())

    wait_for(goes_on, "the next controller goes on", log.read_text)
    assert project.shards() == reference
    assert [state for state, _ in history(slurm, 0, int(shard))] == ["COMPLETED"]
