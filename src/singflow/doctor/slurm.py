"""Checks of a Slurm cluster: `sbatch --test-only` is asked about every kind of job."""

import getpass
import logging
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

from singflow.artifacts.files import atomic
from singflow.config.reading import read_yaml
from singflow.doctor.findings import Finding
from singflow.errors import InputError
from singflow.extras import check_installed
from singflow.system import ask

# Resources whose value is a text; a text for any other one is computed for every job.
TEXTS = (
    *("slurm_account", "slurm_partition", "slurm_extra"),
    *("constraint", "qos", "gres", "gpu_model"),
)
ON_GPU = (  # steps that ask for a GPU, and whether they decode images beside it
    ("extract_features", True),
    ("embed_images", True),
    ("train_translator", False),
    ("render_pictures", False),
)
TEST = ("sbatch", "--test-only", "--wrap=true")
ACCOUNTS = ("sacctmgr", "--noheader", "--parsable2", "show", "assoc")
LOCALLY = "without Slurm `snakemake --cores all` runs everything on this machine"


def check_controller() -> Finding:
    """Whether Slurm is installed and its controller answers."""
    if not all(map(shutil.which, ("scontrol", "sinfo", "sbatch", "squeue"))):
        return Finding("Slurm", "absent", f"none here: {LOCALLY}")
    answer = ask("scontrol", "ping")
    up = [line.strip() for line in answer.out.splitlines() if line.rstrip().endswith("is UP")]
    if not up:
        fix = f"ask who runs the cluster; {LOCALLY}"
        return Finding("Slurm", "fail", f"does not answer: {answer.message}", fix)
    return Finding("Slurm", "ok", f"{ask('sinfo', '--version').out.strip()}: {', '.join(up)}")


def check_cluster(
    profile: Path, device: str, decode_threads: int, threads: int
) -> Iterator[Finding]:
    """All checks of a cluster that answers, for its profile and three keys of params.yaml."""
    accounting = check_accounting()
    yield accounting
    try:
        check_installed("snakemake_executor_plugin_slurm")
        content = read_yaml(profile)
        jobs = jobs_of(content, profile, device, decode_threads, threads)
        age = re.search(r"^MinJobAge *= (\d+)", ask("scontrol", "show", "config").out, re.M)
        yield check_status_command(content, int(age[1] if age else 0), accounting.status == "ok")
    except InputError as error:
        fix = f"correct {profile}, or take it from the repository again"
        yield Finding("cluster profile", "fail", str(error), fix)
        return
    from_environment = os.environ.get("SNAKEMAKE_SLURM_PARTITIONS")
    if chosen_by := content.get("slurm-partition-config") or from_environment:
        jobs, finding = choose_partitions(jobs, Path(chosen_by))
        yield finding
    for job in jobs:
        yield check_job(job, profile, accounting.status == "ok")
    if device == "cpu":
        yield Finding("GPU jobs", "absent", "extraction.device is cpu: no job asks for a GPU")


def check_accounting() -> Finding:
    """Whether Slurm keeps accounts of jobs and sacct answers."""
    answer = ask("sacct", "--noheader", "--allocations", "--starttime", "now")
    if answer.ok:
        return Finding("accounting", "ok", "on: sacct answers")
    found = f"sacct knows no job: {answer.message}"
    return Finding("accounting", "warn", found, "ask who runs the cluster for slurmdbd")


def check_status_command(profile: dict[str, Any], age: int, accounting: bool) -> Finding:
    """Whether the executor can ask for the state of a job.

    age: seconds for which the controller knows a job that has ended; accounting: whether sacct
    answers.
    """
    name, key = "status command", "slurm-init-seconds-before-status-checks"
    wanted, wait = str(profile.get("slurm-status-command", "sacct")), profile.get(key, 40)
    if not isinstance(wait, int):
        raise InputError(f"{key}: {wait!r} is not a whole number of seconds")
    if wanted == "squeue" and age >= 3 * wait:
        if accounting:
            return Finding(name, "ok", "squeue, and sacct while the controller is away")
        away = "a run waits for ever when the controller is away while it asks"
        fix = "start and restart runs with `make resume`"
        return Finding(name, "warn", f"squeue, without accounting: {away}", fix)
    if wanted == "squeue":
        less = f"MinJobAge is {age} s, less than 3 x {key} ({wait} s)"
        chosen = f"sacct in place of squeue, because {less}"
        fix = f"write {key}: {max(age // 3, 1)} in the profile"
    else:
        chosen, fix = wanted, "write slurm-status-command: squeue in the profile"
    if not accounting:
        return Finding(name, "fail", f"{chosen}; without accounting it knows no job", fix)
    found = f"{chosen}; it waits for ever for a job that was cancelled by hand"
    return Finding(name, "warn", found, fix)


class Resources(dict[str, Any]):
    """The resources of a job, which the executor reads as keys and as attributes."""

    __getattr__ = dict.__getitem__


@dataclass(frozen=True)
class JobKind:
    """Jobs that the executor submits alike; it reads the attributes that its own jobs have."""

    rules: tuple[str, ...]  # that run on a GPU; empty: all others
    threads: int
    resources: Resources
    settings: SimpleNamespace  # of the profile, for all jobs

    @property
    def check(self) -> str:
        """The name of the check."""
        return "GPU jobs" if self.rules else "jobs"

    @property
    def name(self) -> str:
        """The rules in words."""
        return ", ".join(self.rules) or "jobs without a GPU"

    def with_resources(self, **changed: object) -> "JobKind":
        """The same jobs with some other resources."""
        return replace(self, resources=Resources(self.resources | changed))

    def account(self) -> str:
        """The first account, which the executor takes; "" if the profile names none."""
        return re.split(r"[,\s]+", str(self.resources.get("slurm_account") or ""))[0]

    def options(self) -> list[str]:
        """The options of sbatch that ask for what the jobs need, as the executor writes them."""
        from snakemake_executor_plugin_slurm.submit_string import get_submit_command
        from snakemake_executor_plugin_slurm.utils import set_gres_string

        names = dict.fromkeys(("run_uuid", "slurm_logfile", "comment_str", "workdir"), "")
        partition = self.resources.get("slurm_partition")
        where = {
            "account": f"-A {shlex.quote(self.account())}" if self.account() else "",
            "partition": f"-p {shlex.quote(str(partition))}" if partition else "",
        }
        command = get_submit_command(self, names | where, self.settings) + set_gres_string(self)
        _, _, needs = command.partition("--comment ''")
        return shlex.split(needs)


def _plain(value: object) -> object:
    """A value; a text without the quotes that keep Snakemake from evaluating it."""
    return value.strip("'\"") if isinstance(value, str) else value


def jobs_of(
    profile: dict[str, Any], origin: Path, device: str, decode_threads: int, threads: int
) -> list[JobKind]:
    """The kinds of jobs that a profile makes: without a GPU, then with one, by resources."""
    for key in ("default-resources", "set-resources"):
        if not isinstance(profile.get(key) or {}, dict):
            raise InputError(f"{origin}: {key} must be a mapping, one `name: value` a line")
    common, own = profile.get("default-resources") or {}, profile.get("set-resources") or {}
    settings = SimpleNamespace(
        qos=_plain(profile.get("slurm-qos")),
        reservation=_plain(profile.get("slurm-reservation")),
        requeue=False,
        no_requeue=False,
    )

    def kind(resources: dict[str, Any]) -> JobKind:
        known = {
            name: _plain(str(value)) if name in TEXTS else value
            for name, value in resources.items()
            if (name in TEXTS and value is not None) or isinstance(value, int)
        }
        return JobKind((), threads, Resources(known), settings)

    kinds: dict[str, JobKind] = {}
    for rule, decodes in () if device == "cpu" else ON_GPU:
        if not isinstance(own.get(rule, {}), dict):
            raise InputError(f"{origin}: set-resources: {rule} must be a mapping, as in {{gpu: 1}}")
        decoders = {"cpus_per_task": decode_threads} if decodes else {}
        resources = common | {"gpu": 1} | decoders | own.get(rule, {})
        known = kinds.setdefault(str(resources), kind(resources))
        kinds[str(resources)] = replace(known, rules=(*known.rules, rule))
    return [kind(common), *kinds.values()]


def check_job(job: JobKind, profile: Path, accounting: bool) -> Finding:
    """Whether Slurm takes such a job; if it does not take its GPU, whether it does another way."""
    from snakemake_executor_plugin_slurm.accounts import validate_account
    from snakemake_interface_common.exceptions import WorkflowError

    name, gpu = job.check, job.resources.get("gpu")
    if job.rules and not gpu and "gpu" not in job.resources.get("gres", ""):
        found = f"the profile asks for no GPU: {job.name} run on CPUs"
        return Finding(name, "warn", found, "write gpu: 1 for them under set-resources")
    fix = f"correct {profile}, or threads and extraction.decode_threads in params.yaml"
    try:
        if accounting and job.account():
            validate_account(job.account(), _silent())
        options = job.options()
    except (WorkflowError, OSError, ValueError) as error:
        return Finding(name, "fail", f"{error} ({job.name})", fix)
    answer = ask(*TEST, *options, seconds=30)
    if answer.ok:
        return _accepted(job, options, answer.message)
    found = f"{' '.join(options)} is refused ({job.name}): {answer.message}"
    if job.rules:
        other = {"gpu": 0, "gres": f"gpu:{gpu}"} if gpu else {"gpu": 1, "gres": ""}
        wanted = job.with_resources(**other, gpu_model="").options()
        if ask(*TEST, *wanted, seconds=30).ok:
            line = f'{{gpu: 0, gres: "gpu:{gpu}"}}' if gpu else "{gpu: 1}"
            fix = f"Slurm takes {wanted[-1]}: write {line} for these rules under set-resources"
            return Finding(name, "fail", found, f"{fix} in the profile")
    return Finding(name, "fail", "\n".join([found, *offers()]), fix)


def offers() -> Iterator[str]:
    """What the cluster has, in Slurm's own words."""
    mine = (f"user={getpass.getuser()}", "format=account,partition,qos")
    for what, command in {
        "partitions": ("sinfo", "--noheader", "-o", "%P (%a, at most %l, %c CPUs, %G)"),
        "your accounts (account|partition|QOS)": (*ACCOUNTS, *mine),
        "reservations": ("sinfo", "--noheader", "--reservation"),
    }.items():
        if listed := [" ".join(line.split()) for line in ask(*command).out.splitlines()]:
            yield f"{what}: {'; '.join(listed)}"


def _accepted(job: JobKind, options: list[str], message: str) -> Finding:
    """A job that Slurm takes; it also takes one for a partition that is down, where it waits."""
    found = f"{' '.join(options)} is accepted ({job.name})"
    if partition := re.search(r"in partition (\S+)", message):
        found = f"{found}, in partition {partition[1]}"
        if "down" in ask("sinfo", "--noheader", "-p", partition[1], "-o", "%a").out.split():
            fix = "write another slurm_partition in the profile, or wait until it is up"
            return Finding(job.check, "warn", f"{found}, which is down", fix)
    return Finding(job.check, "ok", found)


def _silent() -> logging.Logger:
    return logging.Logger("executor", logging.CRITICAL)


PARTITION_FILE = (
    "# What the partitions of this cluster take: `singflow doctor --write-partitions` asked the "
    "generator of Snakemake's executor.\n"
    "# The executor sends every job without a slurm_partition to the one that it fits best: "
    "slurm-partition-config in slurm/config.yaml\n"
    "# names this file. Take out partitions that you may not use or do not want, and lower limits "
    "that Slurm does not tell, as those of\n"
    "# an account or a QOS. max_gpu may count the GPUs of all nodes of a partition.\n"
)


def write_partition_file(path: Path) -> None:
    """Write a first partition file for this cluster; InputError if the file exists."""
    if path.exists():
        raise InputError(f"{path}: is there already: name another, or remove it")
    answer = ask("sinfo", "--noheader", "-o", "%R %a %G")
    if not answer.ok:
        raise InputError(f"sinfo: {answer.message}: run this on a machine of a Slurm cluster")
    from snakemake_executor_plugin_slurm.partitions import generate_partitions_from_slurm_query

    limits, up = generate_partitions_from_slurm_query(None)["partitions"], {}
    for line in answer.out.splitlines():  # one for each group of equal nodes
        name, state, generic = line.split(maxsplit=2)
        if state != "up" or name not in limits:  # limits: of those that are not hidden
            continue
        up[name] = limits[name]
        # the generator sees GPUs only where Slurm accounts for them
        counts = map(int, re.findall(r"gpu:(?:[^:,()]+:)?(\d+)", generic))
        if most := max(counts, default=0):
            up[name]["max_gpu"] = max(most, up[name].get("max_gpu", 0))
    with atomic(path) as temporary:
        written = yaml.safe_dump({"partitions": up}, sort_keys=False)
        temporary.write_text(PARTITION_FILE + written, encoding="utf-8")


def choose_partitions(jobs: list[JobKind], path: Path) -> tuple[list[JobKind], Finding]:
    """The jobs with the partitions that the executor chooses by a partition file.

    Only the profile is considered: memory and run time of a job depend on the study.
    """
    from snakemake_executor_plugin_slurm.partitions import get_best_partition, read_partition_file
    from snakemake_interface_common.exceptions import WorkflowError

    name, sent, chosen = "partition file", [], []
    try:
        choices = read_partition_file(path)
    except (WorkflowError, TypeError, ValueError, AttributeError, KeyError) as error:
        fix = "correct it, or write it anew: `singflow doctor --write-partitions FILE`"
        return jobs, Finding(name, "fail", f"{path}: {error}", fix)
    for job in jobs:
        if job.resources.get("slurm_partition"):
            sent.append(job)
            continue
        best = get_best_partition(choices, job, _silent())
        if not best:
            limits = "max_gpu, available_gpu_models, available_constraints or max_runtime"
            fix = f"correct its {limits}, or write slurm_partition"
            found = f"no partition of {path} takes {job.name}: they go to the default one"
            return jobs, Finding(name, "fail", found, fix)
        chosen.append(f"{job.name}: {best}")
        sent.append(job.with_resources(slurm_partition=best))
    found = "; ".join(chosen) or "every job has a slurm_partition of its own"
    return sent, Finding(name, "ok", f"{found}, where memory and run time allow")
