"""Whole studies on a real Slurm, and the ways in which a site may differ."""

import re
import subprocess
import sys
from collections import Counter

import pytest
import yaml

from tests.parts.cluster.conftest import SNAKEMAKE, ClusterProject, targets
from tests.project import ROOT

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
