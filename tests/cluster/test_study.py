"""Whole studies on a real Slurm, and the ways in which a site may differ."""

import re
import subprocess
import sys
from collections import Counter

import pytest
import yaml

from singflow.engines.code import step_files
from singflow.planning.calibration import read_reports
from tests.cluster.conftest import SNAKEMAKE, ClusterProject, targets
from tests.cluster.slurm import wait_for
from tests.project import ROOT

SIBLINGS = {  # steps that need no other one of them: their artifact
    "validate_null_space": "null_validation",
    "measure_unusual": "unusual",
    "measure_rank_curve": "rank_curves/conse_minilm",
}
SECONDS = 35  # of each of them: Slurm looks for jobs beyond their limit every half minute
HELD = """
import sys
from dvc.repo import Repo
with Repo().lock:
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def grouped(slurm, snakemake_project, tmp_path_factory):
    """Three steps in one job, begun: each may take a minute, and all together take longer."""
    folder = tmp_path_factory.mktemp("grouped") / "project"
    snakemake_project.copy(folder)
    project = ClusterProject.at(folder)
    project.move_to_site()
    for step in SIBLINGS:
        importing = "from singflow import cli\n"
        waiting = f"import time\n{importing}time.sleep({SECONDS})\n"
        project.edit(f"scripts/{step}.py", importing, waiting)
    limits = [f"{step}:runtime=1" for step in SIBLINGS]
    wanted = [f"results/demo/{name}/tiny.parquet" for name in SIBLINGS.values()]
    one_job = ["--group-components", f"model={len(SIBLINGS)}"]
    options = ["--retries", "0", *one_job, "--set-resources", *limits, "--"]
    project.running = project.start(*SNAKEMAKE, *options, *wanted)
    yield project
    project.running.kill()


@pytest.fixture(scope="module")
def finished(slurm, grouped, tmp_path_factory):
    """The tests' study, run on Slurm while another process holds DVC's lock.

    The first job of each rule is a new process.
    """
    project = ClusterProject(tmp_path_factory.mktemp("cluster"))
    project.to_come = project.anew("snakemake", *step_files(project.folder))
    with subprocess.Popen(
        [sys.executable, "-c", HELD], cwd=project.folder, stdin=-1, stdout=-1, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        assert (
            "Unable to acquire lock" in project.run("dvc", "commit", "--force", check=False).stdout
        )
        running = project.start(*SNAKEMAKE)
        assert running.ended() == 0, running.said[-6000:]
        assert holder.poll() is None
        holder.communicate("")
    return project


def test_every_artifact_has_the_bytes_of_a_run_on_one_machine(finished, snakemake_project):
    ours, theirs = finished.artifacts(), snakemake_project.artifacts()
    assert set(ours) == set(theirs)
    assert [name for name in ours if ours[name] != theirs[name]] == []
    steps = {path.stem for path in (finished.folder / "results/demo/benchmarks").iterdir()}
    assert steps.isdisjoint(path.stem for path in finished.to_come.iterdir()), (
        "each step came as a new process"
    )
    assert "Nothing to be done" in finished.snakemake("--dry-run")


def test_steps_with_a_gpu_ask_for_one_and_small_steps_are_one_job(finished, slurm):
    wanted = "--format=JobID,Comment,AllocTRES%100"
    listed = slurm.ask(
        "sacct", "-X", "-n", "-P", "--name", run_name(finished), wanted, "-S", "now-1hours"
    ).stdout
    jobs = [line.split("|")[1:] for line in listed.splitlines()]
    asked = Counter(
        re.sub("_wildcards.*", "", comment)
        for comment, allocated in jobs
        if "gres/gpu=1" in allocated
    )
    assert asked == {
        "rule_extract_features": 2 * 2,
        "rule_embed_images": 2,
        "rule_train_translator": 3,
    }
    towers = {
        comment.split("_wildcards")[0] for comment, allocated in jobs if "cpu=8," in allocated
    }
    assert towers == {"rule_extract_features", "rule_embed_images"}, "extraction.decode_threads"
    rest = Counter(
        comment.split("_")[1] for comment, allocated in jobs if "gres/gpu" not in allocated
    )
    assert rest == {"data": 1, "model": 2, "pictures": 1}, (
        "manifest and texts; all that is measured on a model's features; pictures"
    )


def test_a_job_of_several_steps_has_the_sum_of_their_times_and_the_memory_of_the_largest(
    grouped, slurm
):
    assert grouped.running.ended() == 0, grouped.running.said[-4000:]
    wanted = "--format=State,TimelimitRaw,ElapsedRaw,ReqMem,ReqCPUS"
    (job,) = slurm.ask(
        "sacct", "-X", "-n", "-P", "--name", run_name(grouped), wanted, "-S", "now-1hours"
    ).stdout.splitlines()
    state, limit, elapsed, memory, cpus = job.split("|")
    assert (state, limit, cpus) == ("COMPLETED", str(len(SIBLINGS)), "1")
    assert int(elapsed) > 60 + 30, "Slurm would have ended a job of one minute"
    asked = set(map(int, re.findall(r"mem_mb=(\d+)", grouped.running.said)))
    assert memory == f"{max(asked)}M"


def run_name(project):
    (line,) = [
        line
        for line in (project.folder / ".snakemake/run-0").read_text().splitlines()
        if line.startswith("SLURM run ID: ")
    ]
    return line.removeprefix("SLURM run ID: ")


def test_two_studies_run_from_one_checkout_at_the_same_time(project, reference):
    names = ("anew", "twin")
    for name in names:
        (project.folder / f"config/studies/{name}.yaml").write_text(f"study: {name}\n")
    shards = {name: targets(1)[0].replace("demo", name) for name in names}
    # Hold one of the two, because Snakemakes that end at the same instant disturb each other's
    # folder of locks.
    project.hold(0)
    running = [
        project.start(*SNAKEMAKE, shards[name], "--configfile", f"config/studies/{name}.yaml")
        for name in names
    ]
    project.wait_for_held(1)
    wait_for(
        lambda: any(run.process.poll() is not None for run in running),
        "one study ends beside the other",
    )
    project.order(0)
    for run in running:
        assert run.ended() == 0, run.said[-4000:]
    expected = reference["shard-00000.safetensors"]
    for name in names:
        assert (project.folder / shards[name]).read_bytes() == expected.replace(
            b'"study":"demo"', f'"study":"{name}"'.encode()
        )


def test_a_site_that_wants_gres_takes_a_sign_away(project, reference, slurm):
    profile = project.folder / "slurm/config.yaml"
    commented = r"^# (set-resources:|  (?:extract|embed|train|render|map)_\w+:)"
    profile.write_text(re.sub(commented, r"\1", profile.read_text(), flags=re.M))
    assert "rule map_images:" in project.run(*SNAKEMAKE, "--dry-run").stdout
    project.hold(0)
    running = project.start(*SNAKEMAKE, *targets(1))
    project.wait_for_held(1)
    assert slurm.ask("squeue", "-h", "-o", "%b").stdout.strip() == "gres/gpu:1"
    project.order(0)
    assert running.ended() == 0, running.said[-4000:]
    assert project.shards() == {"shard-00000.safetensors": reference["shard-00000.safetensors"]}


def test_partitions_by_file_arrays_under_a_limit_and_a_home_that_cannot_be_made_give_the_same_bytes(
    project, reference, slurm
):
    project.command("doctor", "--write-partitions", "slurm/partitions.yaml")
    profile = project.folder / "slurm/config.yaml"
    site = {
        "slurm-partition-config": "slurm/partitions.yaml",
        "slurm-array-jobs": "extract_features",
        "slurm-array-limit": 3,
        "slurm-efficiency-report": True,
    }
    profile.write_text(profile.read_text() + yaml.safe_dump(site))
    home = ("HOME=/proc/absent", f"XDG_CACHE_HOME={project.folder}/.cache")
    running = project.start("env", *home, *SNAKEMAKE, *targets(5), "results/demo/params.yaml")
    assert running.ended() == 0, running.said[-4000:]
    assert project.shards() == reference
    assert running.said.count("Submitted array job") == 2
    assert "Auto-selected partition 'gpu'" in running.said
    used = read_reports((project.folder / ".snakemake/efficiency").iterdir())["extract_features"]
    assert 0 < used.jobs <= 5 and used.asked_mb > used.peak_mb, (
        "those that Slurm had counted when Snakemake ended"
    )
    plan = project.command("plan", "--from", "results/demo")
    assert f"Slurm counted for extract_features ({used.jobs} jobs): at most " in plan


# The scheduler behind the README's command, as far as the command uses it. Both read 6:00 as six
# minutes.
QSUB = """#!/usr/bin/env bash
mem=$(sed -E 's/.*mem=([0-9]+)mb.*/\\1/' <<< "$2") walltime=${2##*walltime=}
exec sbatch --parsable --mem "$mem" --time "$walltime" "$3"
"""


def test_another_executor_runs_the_same_rules_as_the_readme_says(project, reference):
    documented = r"^snakemake --executor cluster-generic .*$"
    (command,) = re.findall(documented, (ROOT / "README.md").read_text(), flags=re.M)
    qsub = project.folder / "bin/qsub"
    qsub.parent.mkdir()
    qsub.write_text(QSUB)
    qsub.chmod(0o755)
    running = project.start("bash", "-c", f'PATH="$PWD/bin:$PATH" {command} {targets(1)[0]}')
    assert running.ended() == 0, running.said[-4000:]
    assert project.shards() == {"shard-00000.safetensors": reference["shard-00000.safetensors"]}
