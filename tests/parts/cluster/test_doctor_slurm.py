"""The doctor's checks of a cluster, on the Slurm that the profile expects and on an awkward one."""

import os
import re
import shutil
import signal
import subprocess

import pytest
import yaml

from singflow.doctor.slurm import ON_GPU, check_cluster, check_controller, write_partition_file
from tests.parts.cluster.conftest import ClusterProject
from tests.parts.cluster.slurm import EVERY_SLURM, wait_for

pytestmark = pytest.mark.nightly

AWKWARD = f"""{EVERY_SLURM}ClusterName=awkward
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort=17021
SelectType=select/linear
MessageTimeout=3
MinJobAge=60
EnforcePartLimits=ALL
NodeName=withgpu NodeHostname=localhost NodeAddr=127.0.0.1 Port=17022 CPUs=4 RealMemory=8000 Gres=gpu:fake:2
NodeName=without NodeHostname=localhost NodeAddr=127.0.0.1 Port=17023 CPUs=4 RealMemory=8000
PartitionName=gpu Nodes=withgpu MaxTime=60
PartitionName=cpu Nodes=without
PartitionName=old Nodes=without State=DOWN
"""  # noqa: E501
SECONDS = "slurm_init_seconds_before_status_checks"
GRES = "AutoDetect=off\nNodeName=withgpu Name=gpu Type=fake File=/dev/tty[0-1]\n"


@pytest.fixture(scope="module")
def second(slurm, tmp_path_factory):
    """Configuration and controller of a second Slurm.

    It has no accounting, only --gres, no default partition, and forgets jobs soon.
    """
    folder = tmp_path_factory.mktemp("second")
    conf = folder / "slurm.conf"
    conf.write_text(AWKWARD.format(folder=folder))
    (folder / "gres.conf").write_text(GRES)
    own, daemons = os.environ | {"SLURM_CONF": str(conf)}, []
    try:
        for command in ("slurmctld -D", "slurmd -D -N withgpu", "slurmd -D -N without"):
            program, *options = command.split()
            words = [shutil.which(program), *options]
            daemons.append(subprocess.Popen(words, env=own, stderr=subprocess.DEVNULL))
        yield conf, daemons[0]
    finally:
        for daemon in daemons:
            daemon.kill()
            daemon.wait()


@pytest.fixture
def awkward(slurm, second, monkeypatch):
    """The controller of the second Slurm, which Slurm's commands ask during a test."""
    conf, controller = second
    monkeypatch.setenv("SLURM_CONF", str(conf))
    jobs = [("srun", "-p", partition, "true") for partition in ("gpu", "cpu")]

    def both_run():
        return all(slurm.ask(*job, check=False).returncode == 0 for job in jobs)

    wait_for(both_run, "jobs run on its nodes")
    return controller


@pytest.fixture
def checked(tmp_path):
    """Check a cluster by a profile with these resources and settings.

    Returns findings by name, of jobs with a GPU that of towers or, if it differs, of networks.
    """

    def check(default=None, gpu=None, device="auto", **settings):
        rules = dict.fromkeys(dict(ON_GPU), gpu or {"gpu": 1})
        profile = {"default-resources": default or {}, "set-resources": rules}
        profile |= {"slurm-status-command": "squeue"}
        profile |= {name.replace("_", "-"): value for name, value in settings.items()}
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(profile))
        return {found.name: found for found in check_cluster(path, device, 4, 4)}

    return check


@pytest.fixture(scope="module")
def site(slurm):
    """The first Slurm with a QOS, an account for one partition and a reservation."""
    for command in (
        "sacctmgr -i add qos fast",
        "sacctmgr -i add account gold Cluster=trial",
        "sacctmgr -i add user root Account=gold Partition=paid",
        "sacctmgr -i modify user root where account=trial set qos+=fast",
        "scontrol create reservation=course starttime=now duration=9 users=root nodes=nodea "
        "flags=ignore_jobs",
    ):
        slurm.ask(*command.split())
    yield slurm
    slurm.ask("scontrol", "delete", "reservation=course")


def statuses(findings, *names):
    return [findings[name].status for name in names]


CHECKS = ("accounting", "status command", "jobs", "GPU jobs")
GRES_GPU = {"gpu": 0, "gres": "gpu:1"}
TRIAL = {"slurm_account": "trial"}


def test_a_cluster_as_the_profile_expects_it_passes_every_check(slurm, checked):
    assert check_controller().status == "ok"
    found = checked(TRIAL | {"slurm_partition": "gpu", "runtime": 10})
    assert {name: one.status for name, one in found.items()} == dict.fromkeys(CHECKS, "ok")
    accepted = "-A trial -p gpu -t 10 --ntasks=1 --cpus-per-task=4 is accepted"
    assert found["jobs"].found == f"{accepted} (jobs without a GPU), in partition gpu"
    assert "--gpus=1 is accepted (" in found["GPU jobs"].found
    found = checked(TRIAL, GRES_GPU)
    assert "--gres=gpu:1 is accepted" in found["GPU jobs"].found
    assert checked(TRIAL, device="cpu")["GPU jobs"].status == "absent"
    assert checked(TRIAL, {"gpu": 0})["GPU jobs"].fix.startswith("write gpu: 1 for them")
    assert slurm.jobs() == {}, "the scheduler was only asked"


@pytest.mark.parametrize(
    ("default", "gpu", "settings", "name", "said"),
    [
        ({}, {"gpu": 5}, {}, "GPU jobs", "--gpus=5 is refused .*configuration is not available"),
        ({}, {"gpu": 5}, {}, "GPU jobs", r"partitions: gpu\* \(up, at most infinite, 8 CPUs, gpu"),
        ({"slurm_partition": "fast"}, {}, {}, "jobs", "invalid partition specified: fast"),
        ({"slurm_account": "me"}, {}, {}, "jobs", "account me appears to be invalid. .*trial"),
        ({"mem_mb": 99999}, {}, {}, "jobs", "--mem 99999 .*configuration is not available"),
        ({"constraint": "new"}, {}, {}, "jobs", "-C new .*Invalid feature specification"),
        ({}, {"gpu": 1, "cpus_per_task": 9}, {}, "GPU jobs", "task=9 .* is refused"),
        ({}, {}, {"slurm_qos": "slow"}, "jobs", "--qos=slow .*is refused.*Invalid qos"),
        ({}, {}, {"slurm_reservation": "exam"}, "jobs", "reservation is invalid.*course ACTIVE"),
        ({"slurm_account": "gold"}, {}, {}, "jobs", "Invalid account or account/part.*gold.paid"),
        ({}, {"gpu": 0, "gres": "'gpu 1'"}, {}, "GPU jobs", "Invalid GRES format: gpu 1"),
    ],
)
def test_requests_are_refused_with_the_words_of_the_scheduler_and_what_there_is(
    site, checked, default, gpu, settings, name, said
):
    found = checked(default, gpu, **settings)[name]
    assert found.status == "fail" and re.search(said, found.found, re.S), found
    assert "config.yaml, or threads and extraction.decode_threads in params.yaml" in found.fix


def test_qos_and_reservation_are_taken_and_a_partition_that_is_down_is_remarked_on(site, checked):
    found = checked(TRIAL, slurm_qos="fast", slurm_reservation="course")
    assert found["jobs"].status == found["GPU jobs"].status == "ok"
    site.ask("scontrol", "update", "PartitionName=gpu", "State=DOWN")
    try:
        found = checked(TRIAL)["jobs"]
    finally:
        site.ask("scontrol", "update", "PartitionName=gpu", "State=UP")
    assert found.status == "warn" and found.found.endswith("which is down")


def test_accounting_that_hangs_does_not_hang_the_doctor(slurm, checked):
    daemon = slurm.processes["slurmdbd"]
    daemon.send_signal(signal.SIGSTOP)
    try:
        found = checked()
    finally:
        daemon.send_signal(signal.SIGCONT)
    assert statuses(found, "accounting", "status command") == ["warn"] * 2
    assert "sacct knows no job: sacct gave no answer" in found["accounting"].found
    assert "make resume" in found["status command"].fix
    wait_for(lambda: checked()["accounting"].status == "ok", "sacct answers again")


def test_a_cluster_that_wants_the_other_way_of_asking_says_so(awkward, checked):
    found = checked({"slurm_partition": "gpu"}, **{SECONDS: 20})
    assert statuses(found, *CHECKS) == ["warn", "warn", "ok", "fail"]
    assert "accounting storage is disabled" in found["accounting"].found
    found = found["GPU jobs"]
    assert "--gpus=1 is refused" in found.found
    assert "Requested GRES option unsupported by configured SelectType plugin" in found.found
    fix = 'Slurm takes --gres=gpu:1: write {gpu: 0, gres: "gpu:1"} for these rules'
    assert found.fix.startswith(fix)
    found = checked({"slurm_partition": "gpu"}, GRES_GPU)
    assert statuses(found, "jobs", "GPU jobs") == ["ok", "ok"]
    found = checked({"slurm_partition": "gpu", "runtime": 90}, GRES_GPU)["GPU jobs"]
    assert found.status == "fail" and "-t 90" in found.found
    assert "No partition specified" in checked()["jobs"].found


def test_a_first_partition_file_sends_jobs_to_where_they_run(awkward, checked, tmp_path):
    path = tmp_path / "partitions.yaml"
    write_partition_file(path)
    assert yaml.safe_load(path.read_text())["partitions"].keys() == {"gpu", "cpu"}
    found = checked({"slurm_account": "any"}, GRES_GPU, slurm_partition_config=str(path))
    assert found["partition file"].found.startswith("jobs without a GPU: cpu; extract_features, ")
    assert "in partition cpu" in found["jobs"].found
    assert "in partition gpu" in found["GPU jobs"].found


def test_a_controller_that_hangs_does_not_hang_the_doctor(awkward):
    assert check_controller().status == "ok"
    awkward.send_signal(signal.SIGSTOP)
    try:
        found = check_controller()
    finally:
        awkward.send_signal(signal.SIGCONT)
    assert found.status == "fail" and "snakemake --cores all" in found.fix
    assert "DOWN" in found.found or "no answer" in found.found
    wait_for(lambda: check_controller().status == "ok", "the controller answers again")


def test_the_script_says_of_a_cluster_what_works(slurm, tmp_path):
    project = ClusterProject(tmp_path)
    said = project.command("doctor")
    assert all(f"ok      {name:<16}" in said for name in CHECKS), said
    assert said.endswith(" 0 failed\n")
    profile = ("slurm/config.yaml", "  # slurm_partition: my_partition")
    project.edit(*profile, "  slurm_partition: fast")
    fault = r"^fail    jobs            .* invalid partition specified: fast"
    assert re.search(fault, project.refused("singflow", "doctor"), re.M)
