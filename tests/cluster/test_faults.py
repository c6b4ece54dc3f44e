"""Deliberate faults on a real Slurm: the study completes with the bytes of an undisturbed run."""

import os
import signal
import subprocess
import sys

from tests.cluster.conftest import SNAKEMAKE, targets
from tests.cluster.slurm import wait_for


def number_of(slurm, shard, *states):
    """The job of a shard."""
    (number,) = [
        number
        for number, comment in slurm.jobs(*states).items()
        if comment.endswith(f"_tiny_0000{shard}")
    ]
    return number


def history(slurm, shard, since):
    """State and memory of every attempt at a shard, oldest first, since the test's first job."""
    listed = slurm.ask(
        "sacct", "-X", "-n", "-P", "-D", "--format=JobID,State,ReqMem,Comment", "-S", "now-1hours"
    ).stdout
    rows = [line.split("|") for line in listed.splitlines()]
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


def test_a_time_limit_a_node_that_fails_and_a_controller_that_restarts(slurm, project, reference):
    project.hold(*range(4))
    project.anew("extract_features")
    running = project.start(*SNAKEMAKE, *targets(4))
    project.wait_for_held(4)
    first = min(map(int, slurm.jobs()))
    nodes = {
        shard: slurm.ask("squeue", "-h", "-j", number_of(slurm, shard), "-o", "%N").stdout.strip()
        for shard in range(4)
    }
    (slow,) = project.held_anew()
    lost = [shard for shard in nodes if nodes[shard] != nodes[slow]]
    (undisturbed,) = {*nodes} - {slow, *lost}

    slurm.kill("slurmctld")  # first: it forgets what came just before
    slurm.start_controller()
    slurm.fail(nodes[lost[0]])
    slurm.start_node(nodes[lost[0]])
    project.order(undisturbed)
    slurm.ask("scontrol", "update", f"JobId={number_of(slurm, slow)}", "EndTime=now+1")

    assert running.ended() == 0, running.said[-4000:]
    assert project.shards() == {
        name: content for name, content in reference.items() if name < "shard-00004"
    }
    assert [state for state, _ in history(slurm, slow, first)] == ["TIMEOUT", "COMPLETED"]
    assert [state for state, _ in history(slurm, undisturbed, first)] == ["COMPLETED"]
    for shard in lost:
        lost_by, again = (state for state, _ in history(slurm, shard, first))
        assert (
            lost_by in ("NODE_FAIL", "FAILED") and again == "COMPLETED"
        )  # FAILED: the end of its step was heard before the node's


def test_snakemake_killed_is_refused_until_resumed_and_no_job_runs_twice(slurm, project, reference):
    project.hold(0)
    project.anew("extract_features")
    running = project.start(*SNAKEMAKE, *targets(1))
    project.wait_for_held(1)
    old = number_of(slurm, 0)
    running.kill()

    again = project.start(*SNAKEMAKE, *targets(1))
    assert again.ended() == 1 and "LockException" in again.said
    assert slurm.jobs("RUNNING") == {old: slurm.jobs()[old]}, (
        "the job of the killed Snakemake goes on"
    )

    project.anew("snakemake", "snakemake")  # one unlocks
    resumed = project.start(f"{sys.prefix}/bin/singflow", "resume")
    project.wait_for_shards(resumed)
    assert f"cancelling job {old} (rule_extract_features_wildcards_tiny_00000)" in resumed.said
    refused = project.start("singflow", "resume")
    assert (
        refused.ended() == 1
        and f"Snakemake (process {resumed.process.pid}) is at work on this study" in refused.said
    )
    wait_for(
        lambda: not any("extract" in comment for comment in slurm.jobs().values()),
        "the last shard's job has ended",
    )
    resumed.kill()
    assert project.shards() == reference
    assert [state for state, _ in history(slurm, 0, int(old))] == ["CANCELLED", "COMPLETED"]


def test_what_an_old_copy_still_does_spoils_nothing(slurm, project, reference):
    project.hold(0, 1)
    project.anew("extract_features")
    running = project.start(*SNAKEMAKE, *targets(2))
    project.wait_for_held(2)
    (anew,) = project.held_anew()
    stopped, goes_on = number_of(slurm, anew), number_of(slurm, 1 - anew)
    running.kill()
    project.run("snakemake", "--unlock")
    naive = project.start(*SNAKEMAKE, *targets(2))
    assert naive.ended() == 0, naive.said[-4000:]
    finished = {name: content for name, content in reference.items() if name < "shard-00002"}
    assert {
        name: content for name, content in project.shards().items() if name in finished
    } == finished

    slurm.ask("scancel", stopped)
    project.order(1 - anew)
    wait_for(lambda: not slurm.jobs(), f"jobs {stopped} and {goes_on} have ended")
    assert project.shards() == finished
    assert "Nothing to be done" in project.snakemake("--dry-run", *targets(2))


def test_a_full_disk_is_named_and_one_rerun_of_the_same_command_completes(
    slurm, project, reference
):
    disk = project.folder / "results/demo/features/tiny"
    disk.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], check=True)
    try:
        (disk / "other").write_bytes(b"0" * 2**16)
        failed = project.start(*SNAKEMAKE, *targets(1), "--retries", "0")
        assert failed.ended() == 1
        log = (project.folder / "results/demo/logs/extract_features/tiny/00000.log").read_text()
        assert (
            f"{targets(1)[0]}: cannot be written, the disk or your quota is full: free some space"
            in log
        )
        assert "a defect of this program" not in log
        assert [path.name for path in disk.iterdir()] == ["other"]
        (disk / "other").unlink()
        again = project.start(*SNAKEMAKE, *targets(1), "--retries", "0")
        assert again.ended() == 0, again.said[-4000:]
        assert project.shards() == {"shard-00000.safetensors": reference["shard-00000.safetensors"]}
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


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
    wait_for(
        lambda: f"waiting for job {shard} (rule_extract_features" in log.read_text(),
        "the next controller waits",
        log.read_text,
    )
    project.order(0)
    wait_for(
        lambda: "rule_model" in " ".join(slurm.jobs().values()),
        "the next controller goes on",
        log.read_text,
    )
    assert project.shards() == reference
    assert [state for state, _ in history(slurm, 0, int(shard))] == ["COMPLETED"]
