"""The doctor's checks of a cluster, on the Slurm that the profile expects and on an awkward one."""

import os
import re
import shutil
import signal
import subprocess

import pytest
import yaml

from singflow.doctor.slurm import check_cluster, check_controller, write_partition_file
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
    daemons = []
    try:
        for program, *options in (
            ["slurmctld"],
            ["slurmd", "-N", "withgpu"],
            ["slurmd", "-N", "without"],
        ):
            command = [shutil.which(program), "-D", *options]
            daemons.append(
                subprocess.Popen(
                    command, env=os.environ | {"SLURM_CONF": str(conf)}, stderr=subprocess.DEVNULL
                )
            )
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
    wait_for(
        lambda: all(slurm.ask(*job, check=False).returncode == 0 for job in jobs),
        "jobs run on its nodes",
    )
    return controller


@pytest.fixture
def checked(tmp_path):
    """Check a cluster by a profile with these resources and settings.

    Returns findings by name; the rules that use a GPU share one finding.
    """

    def check(default=None, gpu=None, device="auto", **settings):
        rules = dict.fromkeys(
            ("extract_features", "embed_images", "train_translator", "render_pictures"),
            gpu or {"gpu": 1},
        )
        profile = {
            "slurm-status-command": "squeue",
            "cores": 4,
            "default-resources": default or {},
            "set-resources": rules,
        }
        path = tmp_path / "config.yaml"
        path.write_text(
            yaml.safe_dump(
                profile | {name.replace("_", "-"): value for name, value in settings.items()}
            )
        )
        return {found.name: found for found in check_cluster(path, device)}

    return check


def statuses(findings):
    return {name: found.status for name, found in findings.items()}


CHECKS = ("accounting", "status command", "partition", "cores", "account", "GPU request")


def test_a_cluster_as_the_profile_expects_it_passes_every_check(slurm, checked):
    assert check_controller().status == "ok"
    found = checked({"slurm_account": "trial", "slurm_partition": "gpu", "runtime": 10})
    assert statuses(found) == dict.fromkeys(CHECKS, "ok")
    assert found["GPU request"].found.startswith("--gpus=1 is accepted (extract_features, ")
    assert checked({"slurm_account": "trial"}, {"gpu": 0, "gres": "gpu:1"})[
        "GPU request"
    ].found.startswith("--gres=gpu:1 is accepted")
    assert (
        checked({"slurm_account": "trial"})["partition"].found
        == "gpu, the default (at most infinite)"
    )
    assert checked(device="cpu")["GPU request"].status == "absent"
    assert slurm.jobs() == {}, "the scheduler was only asked"


def test_an_account_or_partition_that_is_not_there_fails_with_those_that_are(slurm, checked):
    found = checked({"slurm_account": "someone", "slurm_partition": "fast"})
    assert found["account"].status == "fail" and re.search(r": .*\btrial\b", found["account"].fix)
    assert (
        found["partition"].found == "the cluster has no fast"
        and "gpu (at most infinite)" in found["partition"].fix
    )
    assert (
        found["GPU request"].status == "fail"
        and "invalid partition specified: fast" in found["GPU request"].found
    )
    assert found["GPU request"].fix.startswith("partitions with GPUs: gpu (gpu:fake:2)")
    assert checked()["account"].status == "warn"


def test_more_gpus_than_there_are_fail_with_the_words_of_the_scheduler(slurm, checked):
    found = checked({"slurm_account": "trial"}, {"gpu": 5})["GPU request"]
    assert (
        found.status == "fail"
        and "--gpus=5 is refused" in found.found
        and "Requested node configuration is not available" in found.found
    )
    assert checked(None, {"gpu": 0})["GPU request"].status == "warn"


def test_qos_reservation_and_an_account_for_one_partition_are_looked_up(slurm, checked):
    slurm.ask("sacctmgr", "-i", "add", "qos", "fast")
    slurm.ask("sacctmgr", "-i", "add", "account", "gold", "Cluster=trial")
    slurm.ask("sacctmgr", "-i", "add", "user", "root", "Account=gold", "Partition=paid")
    slurm.ask(
        "sacctmgr", "-i", "modify", "user", "root", "where", "account=trial", "set", "qos+=fast"
    )
    slurm.ask(
        "scontrol",
        "create",
        "reservation=course",
        "starttime=now",
        "duration=9",
        "users=root",
        "nodes=nodea",
        "flags=ignore_jobs",
    )
    try:
        found = checked({"slurm_account": "trial"}, slurm_qos="fast", slurm_reservation="course")
        assert [found[name].status for name in ("account", "QOS", "reservation")] == [
            "ok",
            "ok",
            "ok",
        ]
        found = checked({"slurm_account": "gold"})["account"]
        assert found.found.startswith("gold in the default partition is refused: ")
        assert "Invalid account" in found.found and "gold (in paid)" in found.fix
        found = checked({"slurm_account": "trial"}, slurm_qos="slow", slurm_reservation="exam")
        assert found["QOS"].found.startswith("slow is refused: ")
        assert "Invalid qos specification" in found["QOS"].found
        assert found["reservation"].fix.endswith("one of these: course")
        assert found["GPU request"].status == "fail"
    finally:
        slurm.ask("scontrol", "delete", "reservation=course")


def test_a_profile_that_waits_for_ever_is_remarked_on(slurm, checked):
    found = checked(slurm_status_command="sacct")["status command"]
    assert found.status == "warn" and "squeue" in found.fix
    found = checked(slurm_init_seconds_before_status_checks=200)["status command"]
    assert (
        found.status == "warn"
        and "MinJobAge is 300 s" in found.found
        and "checks: 100 in the profile" in found.fix
    )


def test_a_profile_that_cannot_be_read_is_a_failed_check(slurm, tmp_path, checked):
    assert (
        statuses(
            {finding.name: finding for finding in check_cluster(tmp_path / "absent.yaml", "auto")}
        )["cluster profile"]
        == "fail"
    )
    assert checked(default=["slurm_account=trial"])["cluster profile"].status == "fail"
    assert (
        checked(slurm_init_seconds_before_status_checks="soon")["cluster profile"].status == "fail"
    )


def test_accounting_that_hangs_does_not_hang_the_doctor(slurm, checked):
    daemon = slurm.processes["slurmdbd"]
    daemon.send_signal(signal.SIGSTOP)
    try:
        found = checked()
    finally:
        daemon.send_signal(signal.SIGCONT)
    assert (
        found["accounting"].status == "warn"
        and "sacct does not answer: " in found["accounting"].found
    )
    assert found["status command"].status == "warn" and "make resume" in found["status command"].fix
    wait_for(lambda: checked()["accounting"].status == "ok", "sacct answers again")


def test_a_cluster_that_wants_the_other_way_of_asking_says_so(awkward, checked):
    found = checked({"slurm_partition": "gpu"})["GPU request"]
    assert found.status == "fail" and "--gpus=1 is refused" in found.found
    assert "Requested GRES option unsupported by configured SelectType plugin" in found.found
    assert found.fix.startswith(
        'Slurm takes --gres=gpu:1: write {gpu: 0, gres: "gpu:1"} for these rules'
    )
    assert (
        checked({"slurm_partition": "gpu"}, {"gpu": 0, "gres": "gpu:1"})["GPU request"].status
        == "ok"
    )
    found = checked({"slurm_partition": "gpu", "runtime": 90}, {"gpu": 0, "gres": "gpu:1"})[
        "GPU request"
    ]
    assert found.status == "fail" and "--time=90" in found.found


def test_a_cluster_without_accounting_that_forgets_soon_is_remarked_on(awkward, checked):
    found = checked(
        {"slurm_partition": "gpu", "slurm_account": "any"},
        slurm_init_seconds_before_status_checks=20,
    )
    assert [found[name].status for name in CHECKS[:4]] == ["warn", "warn", "ok", "ok"]
    assert "make resume" in found["status command"].fix
    found = checked({"slurm_partition": "gpu"})["status command"]
    assert (
        found.status == "fail"
        and "MinJobAge is 60 s" in found.found
        and "checks: 20 in the profile" in found.fix
    )


def test_a_first_partition_file_sends_jobs_to_where_they_run(awkward, checked, tmp_path):
    path = tmp_path / "partitions.yaml"
    write_partition_file(path)
    found = checked(
        {"slurm_account": "any"}, {"gpu": 0, "gres": "gpu:1"}, slurm_partition_config=str(path)
    )
    assert found["partition file"].found.startswith("jobs without a GPU: cpu; extract_features, ")
    assert (
        found["partition"].found == "cpu (at most infinite); gpu (at most 1:00:00)"
        and found["GPU request"].status == "ok"
    )


def test_partitions_that_are_down_without_gpus_or_not_named_fail(awkward, checked):
    gres = {"gpu": 0, "gres": "gpu:1"}
    assert checked({"slurm_partition": "old"}, gres)["partition"].found == "old is down"
    found = checked({"slurm_partition": "cpu"}, gres)
    assert found["partition"].status == "ok" and found["GPU request"].status == "fail"
    assert found["GPU request"].fix.startswith(
        "partitions with GPUs: gpu (gpu:fake:2): write one as slurm_partition for these rules"
    )
    assert (
        checked({"slurm_partition": "cpu"}, gres | {"slurm_partition": "gpu"})["GPU request"].status
        == "ok"
    )
    found = checked(None, gres)["partition"]
    assert (
        found.status == "fail"
        and "no default" in found.found
        and "gpu (at most 1:00:00), cpu (at most infinite)" in found.fix
    )


def test_a_controller_that_hangs_does_not_hang_the_doctor(awkward):
    assert check_controller().status == "ok"
    awkward.send_signal(signal.SIGSTOP)
    try:
        found = check_controller()
    finally:
        awkward.send_signal(signal.SIGCONT)
    assert (
        found.status == "fail"
        and ("DOWN" in found.found or "no answer" in found.found)
        and "snakemake --cores all" in found.fix
    )
    wait_for(lambda: check_controller().status == "ok", "the controller answers again")


def test_the_script_says_of_a_cluster_what_works(slurm, tmp_path):
    project = ClusterProject(tmp_path)
    done = project.run("singflow", "doctor")
    for name in CHECKS:
        assert f"ok      {name:<16}" in done.stdout, done.stdout
    assert done.stdout.endswith(" 0 failed\n")
    project.edit(
        "slurm/config.yaml", "  # slurm_partition: my_partition", "  slurm_partition: fast"
    )
    done = project.run("singflow", "doctor", check=False)
    assert (
        done.returncode == 1 and "fail    partition       the cluster has no fast\n" in done.stdout
    )
