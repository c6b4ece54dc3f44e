"""A real Slurm of two nodes on this machine.

It has munge, accounting, fake GPUs that are really counted, and memory limits that are enforced.
"""

import grp
import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil

from tests import PATIENCE

CONFIG = Path("/etc/slurm")  # the step strips SLURM_CONF, so it can be nowhere else
MARK = "# written by the tests of this project: they may overwrite it"
PROGRAMS = ("munged", "slurmctld", "slurmd", "slurmdbd", "mariadbd", "mariadb-install-db")
NODES = {"nodea": 17001, "nodeb": 17002}
MEGABYTES = 32000
GPUS = 2
DATABASE_PORT = "--port=17012"

EVERY_SLURM = """SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdSpoolDir={folder}/spool-%n
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
GresTypes=gpu
"""
SLURM_CONF = f"""{MARK}
{EVERY_SLURM}ClusterName=trial
SlurmctldHost=localhost
AuthInfo=cred_expire=5
SlurmctldLogFile={{folder}}/slurmctld.log
SlurmdLogFile={{folder}}/slurmd-%n.log
TaskProlog={{folder}}/prolog
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
ReturnToService=2
SlurmdTimeout=600
KillWait=5
MessageTimeout=5
SchedulerParameters=bf_interval=1,sched_interval=5,batch_sched_delay=0
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort=17011
AccountingStorageTRES=gres/gpu
AccountingStorageEnforce=associations,qos
AccountingStoreFlags=job_comment
{{nodes}}
PartitionName=gpu Nodes={",".join(NODES)} Default=YES MaxTime=INFINITE
"""
NODE = (
    "NodeName={name} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs=8 "
    "RealMemory={memory} Gres=gpu:fake:{gpus}"
)
GRES_CONF = (
    f"{MARK}\nAutoDetect=off\nNodeName={','.join(NODES)} Name=gpu Type=fake "
    f"File=/dev/tty[0-{GPUS - 1}]\n"
)
# PyTorch sees no fake GPU, so jobs are not told of it.
PROLOG = """#!/bin/sh
printf 'unset %s\\n' SLURM_JOB_GPUS SLURM_STEP_GPUS CUDA_VISIBLE_DEVICES
"""
SLURMDBD_CONF = f"""{MARK}
DbdHost=localhost
DbdPort=17011
SlurmUser=root
AuthType=auth/munge
PidFile={{folder}}/slurmdbd.pid
LogFile={{folder}}/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=17012
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_accounting
"""


def missing() -> str | None:
    """Why no Slurm can be started here; None when it can."""
    if os.geteuid() != 0:
        return "a trial Slurm needs root"
    absent = [name for name in PROGRAMS if not shutil.which(name)]
    if absent:
        return f"{', '.join(absent)} not on PATH"
    present = CONFIG / "slurm.conf"
    if present.exists() and not present.read_text().startswith(MARK):
        return f"{present} belongs to a Slurm of this machine"
    return None


def wait_for(condition: Callable[[], object], what: str, said: Callable[[], str] = str) -> None:
    """Poll until the condition holds; otherwise an AssertionError with the output so far."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"not within {PATIENCE} s: {what}: {said()[-4000:]}"
        time.sleep(0.2)


class Slurm:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """All daemons, from an empty state, with the account `trial`."""
        _end_what_a_killed_run_left()
        self._configure()
        self._start_munge()
        self._start_database()
        wait_for(self._accounting_answers, "slurmdbd answers", self.logs)
        self.ask("sacctmgr", "-i", "add", "cluster", "trial", check=False)
        self.ask("sacctmgr", "-i", "add", "account", "trial", "Cluster=trial")
        self.ask("sacctmgr", "-i", "add", "user", "root", "Account=trial")
        self._start("slurmctld", "slurmctld -D")
        ping = partial(self.ask, "scontrol", "ping", check=False)
        wait_for(lambda: "UP" in ping().stdout, "slurmctld answers")
        for name in NODES:
            self._start(name, f"slurmd -D -N {name}")
        self.ask("srun", "--nodes", str(len(NODES)), "true")

    def stop(self) -> None:
        """Kill every daemon and what their jobs left behind; take the configuration away."""
        self.ask("scancel", "--me", check=False)
        for process in reversed(self.processes.values()):
            process.kill()
            process.wait()
        for name in ("slurm.conf", "gres.conf", "slurmdbd.conf"):
            (CONFIG / name).unlink(missing_ok=True)

    def ask(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        assert not check or done.returncode == 0, (
            f"{' '.join(command)}: {done.stdout}{done.stderr}{self.logs()}"
        )
        return done

    def jobs(self, *states: str) -> dict[str, str]:
        """Jobs by number, with their comment (rule and wildcards). States as in squeue."""
        wanted = ["-t", ",".join(states)] if states else []
        listed = self.ask("squeue", "--me", "-h", *wanted, "-o", "%i|%k").stdout
        return dict(line.split("|", 1) for line in listed.splitlines())

    def accounted(self, columns: str, *options: str) -> list[list[str]]:
        """What sacct knows of the jobs of the last hour, by columns."""
        command = ["sacct", "-X", "-n", "-P", "-S", "now-1hours", f"--format={columns}"]
        return [line.split("|") for line in self.ask(*command, *options).stdout.splitlines()]

    def logs(self) -> str:
        paths = sorted(self.folder.glob("*.[lo][ou][gt]"))
        ends = [(path.name, path.read_text(errors="replace")[-1500:]) for path in paths]
        return "".join(f"\n== {name}\n{end}" for name, end in ends)

    def _accounting_answers(self) -> bool:
        """Start slurmdbd if it is not running.

        The first query to a new MariaDB 11.8 can fail, and slurmdbd then gives up.
        """
        if "slurmdbd" not in self.processes or self.processes["slurmdbd"].poll() is not None:
            self._start("slurmdbd", "slurmdbd -D")
        return self.ask("sacctmgr", "-n", "show", "cluster", check=False).returncode == 0

    def _start(self, name: str, command: str) -> None:
        program, *options = command.split()
        log = (self.folder / f"{name}.out").open("ab")
        words = [shutil.which(program) or program, *options]
        self.processes[name] = subprocess.Popen(
            words, stdout=log, stderr=log, start_new_session=True
        )

    def _configure(self) -> None:
        (self.folder / "state").mkdir()
        own = {"memory": MEGABYTES, "gpus": GPUS}
        nodes = [NODE.format(name=name, port=port, **own) for name, port in NODES.items()]
        conf = SLURM_CONF.format(folder=self.folder, nodes="\n".join(nodes))
        (CONFIG / "slurm.conf").write_text(conf)
        prolog = self.folder / "prolog"
        prolog.write_text(PROLOG)
        prolog.chmod(0o755)
        (CONFIG / "gres.conf").write_text(GRES_CONF)
        database = CONFIG / "slurmdbd.conf"
        database.write_text(SLURMDBD_CONF.format(folder=self.folder))
        database.chmod(0o600)

    def _start_munge(self) -> None:
        owner = (pwd.getpwnam("munge").pw_uid, grp.getgrnam("munge").gr_gid)
        key = Path("/etc/munge/munge.key")
        if not key.exists():
            key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        os.chown(key, *owner)
        for folder in ("/run/munge", "/var/log/munge", "/var/lib/munge"):
            Path(folder).mkdir(exist_ok=True)
            os.chown(folder, *owner)
        Path("/run/munge").chmod(0o755)
        munge = partial(self.ask, "munge", "-n", check=False)
        if munge().returncode:
            user = "setpriv --reuid=munge --regid=munge --clear-groups"
            self._start("munged", f"{user} /usr/sbin/munged -F --force")
            wait_for(lambda: munge().returncode == 0, "munged answers")

    def _start_database(self) -> None:
        folder, socket = self.folder, self.folder / "mariadb.sock"
        data = f"--user=root --datadir={folder}/mariadb"
        plain = "--skip-test-db --auth-root-authentication-method=normal"
        self.ask(*f"mariadb-install-db {data} {plain}".split())
        own = f"--socket={socket} --pid-file={folder}/mariadb.pid --bind-address=127.0.0.1"
        self._start("mariadbd", f"mariadbd --no-defaults {data} {own} {DATABASE_PORT}")
        grant = (
            "CREATE USER slurm@localhost IDENTIFIED BY 'slurm'; "
            "GRANT ALL ON slurm_accounting.* TO slurm@localhost;"
        )
        grant += grant.replace("localhost", "'127.0.0.1'")
        client = ["mariadb", "--no-defaults", "-u", "root", f"--socket={socket}", "-e"]
        look = partial(self.ask, *client, "SELECT 1", check=False)
        wait_for(lambda: look().returncode == 0, "the database answers", self.logs)
        self.ask(*client, grant)


def _end_what_a_killed_run_left() -> None:
    """Kill the daemons of a test run that was killed, because they hold the ports.

    This machine has no other Slurm, and no other test run has one.
    """
    daemons = ("slurmctld", "slurmd", "slurmdbd", "slurmscriptd")
    left = [
        process
        for process in psutil.process_iter(["name", "cmdline"])
        if process.info["name"] in daemons or DATABASE_PORT in (process.info["cmdline"] or [])
    ]
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=PATIENCE)
