"""The doctor's checks of a cluster, on the Slurm that the profile expects and on an awkward one."""

import os
import re
import shutil
import signal
import subprocess

import pytest
import yaml

from singflow.doctor.slurm import check_cluster, check_controller, write_partition_file
from singflow.planning.costs import ON_GPU
from tests.cluster.conftest import ClusterProject
from tests.cluster.slurm import wait_for

AWKWARD = """ClusterName=awkward
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort=17021
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdSpoolDir={folder}/spool-%n
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/linear
MessageTimeout=3
MinJobAge=60
EnforcePartLimits=ALL
GresTypes=gpu
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

    Returns findings by name; the rules that use a GPU share one finding.
    """

    def check(default=None, gpu=None, device="auto", **settings):
        rules = dict.fromkeys(ON_GPU, gpu or {"gpu": 1})
        profile = {"default-resources": default or {}, "set-resources": rules}
        profile |= {"slurm-status-command": "squeue"}
        profile |= {name.replace("_", "-"): value for name, value in settings.items()}
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(profile))
        return {found.name: found for found in check_cluster(path, device, 4, 4)}

    return check


def statuses(findings, *names):
    return [findings[name].status for name in names]


CHECKS = ("accounting", "status command", "partition", "cores", "account", "GPU request")
GRES_GPU = {"gpu": 0, "gres": "gpu:1"}
TRIAL = {"slurm_account": "trial"}


def test_a_cluster_as_the_profile_expects_it_passes_every_check(slurm, checked):
    assert check_controller().status == "ok"
    found = checked(TRIAL | {"slurm_partition": "gpu", "runtime": 10})
    assert {name: one.status for name, one in found.items()} == dict.fromkeys(CHECKS, "ok")
    assert found["GPU request"].found.startswith("--gpus=1 is accepted (extract_features, ")
    found = checked(TRIAL, GRES_GPU)
    assert found["GPU request"].found.startswith("--gres=gpu:1 is accepted")
    assert found["partition"].found == "gpu, the default (at most infinite)"
    assert checked(device="cpu")["GPU request"].status == "absent"
    assert slurm.jobs() == {}, "the scheduler was only asked"


def test_requests_are_refused_with_the_words_of_the_scheduler_and_what_there_is(slurm, checked):
    found = checked(TRIAL, {"gpu": 5})["GPU request"]
    assert found.status == "fail" and "--gpus=5 is refused" in found.found
    assert "Requested node configuration is not available" in found.found
    found = checked({"slurm_account": "someone", "slurm_partition": "fast"})
    assert statuses(found, "account", "partition", "GPU request") == ["fail"] * 3
    assert re.search(r": .*\btrial\b", found["account"].fix)
    assert "invalid partition specified: fast" in found["GPU request"].found
    assert found["GPU request"].fix.startswith("partitions with GPUs: gpu (gpu:fake:2)")


def test_qos_reservation_and_an_account_for_one_partition_are_looked_up(slurm, checked):
    for command in (
        "sacctmgr -i add qos fast",
        "sacctmgr -i add account gold Cluster=trial",
        "sacctmgr -i add user root Account=gold Partition=paid",
        "sacctmgr -i modify user root where account=trial set qos+=fast",
        "scontrol create reservation=course starttime=now duration=9 users=root nodes=nodea "
        "flags=ignore_jobs",
    ):
        slurm.ask(*command.split())
    try:
        found = checked(TRIAL, slurm_qos="fast", slurm_reservation="course")
        assert statuses(found, "account", "QOS", "reservation") == ["ok"] * 3
        found = checked({"slurm_account": "gold"})["account"]
        assert found.found.startswith("gold in the default partition is refused: ")
        assert "Invalid account" in found.found and "gold (in paid)" in found.fix
        found = checked(TRIAL, slurm_qos="slow", slurm_reservation="exam")
        assert found["QOS"].found.startswith("slow is refused: ")
        assert "Invalid qos specification" in found["QOS"].found
        assert found["reservation"].fix.endswith("one of these: course")
        assert found["GPU request"].status == "fail"
    finally:
        slurm.ask("scontrol", "delete", "reservation=course")


def test_accounting_that_hangs_does_not_hang_the_doctor(slurm, checked):
    daemon = slurm.processes["slurmdbd"]
    daemon.send_signal(signal.SIGSTOP)
    try:
        found = checked()
    finally:
        daemon.send_signal(signal.SIGCONT)
    assert statuses(found, "accounting", "status command") == ["warn"] * 2
    assert "sacct does not answer: " in found["accounting"].found
    assert "make resume" in found["status command"].fix
    wait_for(lambda: checked()["accounting"].status == "ok", "sacct answers again")


def test_a_cluster_that_wants_the_other_way_of_asking_says_so(awkward, checked):
    found = checked({"slurm_partition": "gpu"}, **{SECONDS: 20})
    assert statuses(found, *CHECKS[:4]) == ["warn", "warn", "ok", "ok"]
    found = found["GPU request"]
    assert found.status == "fail" and "--gpus=1 is refused" in found.found
    assert "Requested GRES option unsupported by configured SelectType plugin" in found.found
    fix = 'Slurm takes --gres=gpu:1: write {gpu: 0, gres: "gpu:1"} for these rules'
    assert found.fix.startswith(fix)
    assert checked({"slurm_partition": "gpu"}, GRES_GPU)["GPU request"].status == "ok"
    found = checked({"slurm_partition": "gpu", "runtime": 90}, GRES_GPU)["GPU request"]
    assert found.status == "fail" and "--time=90" in found.found


def test_a_first_partition_file_sends_jobs_to_where_they_run(awkward, checked, tmp_path):
    path = tmp_path / "partitions.yaml"
    write_partition_file(path)
    found = checked({"slurm_account": "any"}, GRES_GPU, slurm_partition_config=str(path))
    assert found["partition file"].found.startswith("jobs without a GPU: cpu; extract_features, ")
    assert found["partition"].found == "cpu (at most infinite); gpu (at most 1:00:00)"
    assert found["GPU request"].status == "ok"


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
    done = project.run("singflow", "doctor")
    for name in CHECKS:
        assert f"ok      {name:<16}" in done.stdout, done.stdout
    assert done.stdout.endswith(" 0 failed\n")
    profile = ("slurm/config.yaml", "  # slurm_partition: my_partition")
    project.edit(*profile, "  slurm_partition: fast")
    done = project.run("singflow", "doctor", check=False)
    assert done.returncode == 1
    assert "fail    partition       the cluster has no fast\n" in done.stdout
