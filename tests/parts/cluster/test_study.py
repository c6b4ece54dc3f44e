"""Whole studies on a real Slurm, and the ways in which a site may differ."""

import re
import subprocess
import sys
from collections import Counter

import pytest
import yaml

from tests.parts.cluster.conftest import SNAKEMAKE, ClusterProject, targets
from tests.parts.cluster.slurm import wait_for
from tests.project import ROOT

SIBLINGS = {  # steps that need no other one of them: their artifact
    "validate_null_space": "null_validation",
    "measure_zero_shot": "zero_shot/conse_minilm",
    "measure_scores": "scores/conse_minilm",
}
HELD = """
import sys
from dvc.repo import Repo
with Repo().lock:
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def finished(slurm, tmp_path_factory):
    """The tests' study, run on Slurm while another process holds DVC's lock.

    It is a new process, and so are the first jobs for data, GPUs and pictures. `.ci/run` starts all
    steps so.
    """
    project = ClusterProject(tmp_path_factory.mktemp("cluster"))
    towers = ("extract_features", "embed_images", "train_translator")
    project.to_come = project.anew("snakemake", "build_manifest", *towers, "render_pictures")
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
    assert list(finished.to_come.iterdir()) == [], "each came as a new process"
    assert "Nothing to be done" in finished.snakemake("--dry-run")


def accounted(slurm, project, columns):
    """What sacct says of the jobs of a project's first run."""
    said = (project.folder / ".snakemake/run-0").read_text()
    (name,) = re.findall(r"^SLURM run ID: (\S+)$", said, re.M)
    return slurm.accounted(columns, "--name", name)


def test_steps_with_a_gpu_ask_for_one_and_small_steps_are_one_job(finished, slurm):
    jobs = [
        (comment.partition("_wildcards")[0], resources.split(","))
        for comment, resources in accounted(slurm, finished, "Comment,AllocTRES%100")
    ]
    with_gpu = Counter(name for name, resources in jobs if "gres/gpu=1" in resources)
    towers = {"rule_extract_features": 2 * 2, "rule_embed_images": 2}
    assert with_gpu == towers | {"rule_train_translator": 3}
    # extraction.decode_threads
    assert {name for name, resources in jobs if "cpu=8" in resources} == towers.keys()
    # manifest and texts; all that is measured on a model's features; pictures
    groups = Counter(name.split("_")[1] for name, _ in jobs if name not in with_gpu)
    assert groups == {"data": 1, "model": 2, "pictures": 1}


@pytest.mark.nightly
def test_dvc_makes_a_study_on_slurm_by_the_profile_and_another_parameter_its_tiers_alone(
    slurm, tmp_path
):
    project = ClusterProject(tmp_path / "project")
    small = {"models": ["tiny"], "analyses": [], "comparison": {"models": []}}
    project.study(**small)
    project.commit()
    here = project.copy(tmp_path / "here")
    here.snakemake()
    for options in ((), ("another",)):
        running = project.start("dvc", "repro", SNAKEMAKE_PROFILE="slurm")
        assert running.ended() == 0, running.said[-6000:]
        assert project.changed() == set() and project.differs(here.artifacts()) == set()
        ran = {"data", "towers", "translators", "analyses", "report"}
        assert {*project.ran_by_dvc(running.said)} == (ran - {"data", "towers"} if options else ran)
        for checkout in (project, here):
            checkout.study(**small, translator={"lambdas": [0.1, 10.0]})
        here.snakemake()
    jobs = [
        state for place, state in slurm.accounted("WorkDir,State") if place == str(project.folder)
    ]
    assert {*jobs} == {"COMPLETED"} and len(jobs) >= 4


@pytest.mark.nightly
def test_a_job_of_several_steps_has_the_sum_of_their_times_and_the_memory_of_the_largest(
    slurm, snakemake_project, tmp_path
):
    project = ClusterProject.at(snakemake_project.copy(tmp_path / "project").folder)
    project.move_to_site()
    wanted = [f"results/demo/{name}/tiny.parquet" for name in SIBLINGS.values()]
    for name in wanted:
        (project.folder / name).unlink()
    limits = [f"{step}:runtime=1" for step in SIBLINGS]
    one_job = ["--group-components", f"model={len(SIBLINGS)}"]
    options = ["--retries", "0", *one_job, "--set-resources", *limits, "--"]
    running = project.start(*SNAKEMAKE, *options, *wanted)
    assert running.ended() == 0, running.said[-4000:]
    ((state, limit, memory, cpus),) = accounted(slurm, project, "State,TimelimitRaw,ReqMem,ReqCPUS")
    assert (state, limit, cpus) == ("COMPLETED", str(len(SIBLINGS)), "1")
    asked = map(int, re.findall(r"mem_mb=(\d+)", running.said))
    assert memory == f"{max(asked)}M"


@pytest.mark.nightly
def test_texts_are_embedded_where_a_study_on_gpus_has_none_to_give(project):
    project.edit("params.yaml", "device: auto", "device: cuda")
    running = project.start(*SNAKEMAKE, "results/demo/prompts/conse_minilm.safetensors")
    assert running.ended() == 0, running.said[-4000:]
    assert "embed_prompts" in running.said


@pytest.mark.nightly
def test_a_job_whose_gpu_is_not_seen_by_pytorch_stops_in_a_sentence(project, slurm):
    slurm.told_of_gpus.touch()
    try:
        running = project.start(*SNAKEMAKE, "--retries", "0", targets(1)[0])
        assert running.ended() == 1
    finally:
        slurm.told_of_gpus.unlink()
    log = project.folder / "results/demo/logs/extract_features/tiny/00000.log"
    said = r"error: this job was given GPU \d, but PyTorch sees no GPU \(version .*; .*driver"
    assert re.match(said, log.read_text()), log.read_text()


@pytest.mark.nightly
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


@pytest.mark.nightly
def test_a_site_with_gres_partitions_by_file_limited_arrays_and_no_home_gives_the_same_bytes(
    project, reference, slurm
):
    project.run("generate-slurm-partition-config", "-o", "slurm/partitions.yaml")
    profile = project.folder / "slurm/config.yaml"
    site = {
        "slurm-partition-config": "slurm/partitions.yaml",
        "slurm-array-jobs": "extract_features",
        "slurm-array-limit": 3,
    }
    commented = r"^# (set-resources:|  (?:extract|embed|train|render)_\w+:)"
    with_gres = re.sub(commented, r"\1", profile.read_text(), flags=re.M)
    profile.write_text(with_gres + yaml.safe_dump(site))
    assert "rule render_pictures:" in project.run(*SNAKEMAKE, "--dry-run").stdout
    home = ("HOME=/proc/absent", f"XDG_CACHE_HOME={project.folder}/.cache")
    project.hold(0)
    running = project.start("env", *home, *SNAKEMAKE, *targets(5), "results/demo/params.yaml")
    project.wait_for_held(1)
    assert set(slurm.ask("squeue", "-h", "-o", "%b").stdout.split()) == {"gres/gpu:1"}
    project.order(0)
    assert running.ended() == 0, running.said[-4000:]
    assert project.shards() == reference
    assert running.said.count("Submitted array job") == 2
    assert "Auto-selected partition 'gpu'" in running.said


# The scheduler behind the page's command, as far as the command uses it. Both read 6:00 as six
# minutes.
QSUB = """#!/usr/bin/env bash
mem=$(sed -E 's/.*mem=([0-9]+)mb.*/\\1/' <<< "$2") walltime=${2##*walltime=}
exec sbatch --parsable --mem "$mem" --time "$walltime" "$3"
"""


@pytest.mark.nightly
def test_another_executor_runs_the_same_rules_as_the_page_says(project, reference):
    documented = r"^snakemake --executor cluster-generic .*$"
    (command,) = re.findall(documented, (ROOT / "docs/cluster.md").read_text(), flags=re.M)
    qsub = project.folder / "bin/qsub"
    qsub.parent.mkdir()
    qsub.write_text(QSUB)
    qsub.chmod(0o755)
    running = project.start("bash", "-c", f'PATH="$PWD/bin:$PATH" {command} {targets(1)[0]}')
    assert running.ended() == 0, running.said[-4000:]
    assert project.shards() == {"shard-00000.safetensors": reference["shard-00000.safetensors"]}
