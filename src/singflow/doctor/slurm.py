"""Checks of a Slurm cluster and of the workflow's profile for it."""

import getpass
import logging
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

from singflow.artifacts.files import atomic
from singflow.config.reading import read_yaml
from singflow.doctor.findings import Finding
from singflow.errors import InputError
from singflow.planning.costs import ON_GPU
from singflow.system import Answer, ask

OPTIONS = {
    "slurm_partition": "partition",
    "slurm_account": "account",
    "constraint": "constraint",
    "qos": "qos",
    "reservation": "reservation",
    "runtime": "time",
    "mem_mb": "mem",
    "cpus_per_task": "cpus-per-task",
}
# Settings of the profile that apply to every job, whatever its resources.
FOR_ALL = {"slurm-qos": "qos", "slurm-reservation": "reservation"}
SINFO = ("sinfo", "--noheader", "-o", "%P|%l|%c|%G|%a")
NUMBERS = ("runtime", "mem_mb", "cpus_per_task")
LOCALLY = "without Slurm `snakemake --cores all` runs everything on this machine"


def check_controller() -> Finding:
    """Whether Slurm is installed and its controller answers."""
    if not all(map(shutil.which, ("scontrol", "sinfo", "sbatch", "squeue"))):
        return Finding("Slurm", "absent", f"none here: {LOCALLY}")
    answer = ask("scontrol", "ping")
    up = [line.strip() for line in answer.out.splitlines() if line.rstrip().endswith("is UP")]
    if not up:
        fix = f"ask who runs the cluster; {LOCALLY}"
        return Finding("Slurm", "fail", f"does not answer: {answer.words}", fix)
    return Finding("Slurm", "ok", f"{ask('sinfo', '--version').out.strip()}: {', '.join(up)}")


def check_cluster(
    profile: Path, device: str, decode_threads: int, threads: int
) -> Iterator[Finding]:
    """All checks of a cluster that answers, for its profile and three keys of params.yaml."""
    settings = slurm_settings(ask("scontrol", "show", "config").out)
    accounting = check_accounting(settings)
    yield accounting
    accounts = accounting.status == "ok"
    try:
        content = read_yaml(profile)
        jobs = jobs_of(content, profile)
        yield check_status_command(content, settings, accounts)
    except InputError as error:
        fix = f"correct {profile}, or take it from the repository again"
        yield Finding("cluster profile", "fail", str(error), fix)
        return
    partitions = read_partitions(ask(*SINFO).out)
    from_environment = os.environ.get("SNAKEMAKE_SLURM_PARTITIONS")
    if chosen_by := content.get("slurm-partition-config") or from_environment:
        jobs, finding = choose_partitions(jobs, Path(chosen_by))
        yield finding
    partition = check_partition(jobs, partitions)
    yield partition
    yield check_cores(jobs, partitions, threads, 0 if device == "cpu" else decode_threads)
    in_use = jobs if partition.status == "ok" else []
    yield check_account(jobs, _accounts() if accounts else None, in_use)
    if any(job.resources.get("qos") for job in in_use):
        yield check_qos(in_use, accounts)
    if wanted := content.get("slurm-reservation"):
        listed = ask("scontrol", "--oneliner", "show", "reservation").out
        yield check_reservation(_plain(wanted), listed)
    if device == "cpu":
        yield Finding("GPU request", "absent", "extraction.device is cpu: no job asks for a GPU")
    else:
        yield from [check_gpu_request(job, partitions) for job in jobs if job.rules]


def slurm_settings(shown: str) -> dict[str, str]:
    """The settings in slurm.conf, from the output of `scontrol show config`."""
    return {name: value.strip() for name, value in re.findall(r"^(\w+) *= (.*)$", shown, re.M)}


def check_accounting(settings: dict[str, str]) -> Finding:
    """Whether Slurm keeps accounts of jobs and sacct answers."""
    fix = "ask who runs the cluster for slurmdbd"
    if "slurmdbd" not in settings.get("AccountingStorageType", ""):
        return Finding("accounting", "warn", "off: sacct knows no job", fix)
    answer = ask("sacct", "--noheader", "--allocations", "--starttime", "now")
    if not answer.ok:
        return Finding("accounting", "warn", f"on, but sacct does not answer: {answer.words}", fix)
    return Finding("accounting", "ok", "on: sacct answers")


def check_status_command(
    profile: dict[str, Any], settings: dict[str, str], accounting: bool
) -> Finding:
    """Whether the executor can ask for the state of a job. accounting: whether sacct answers."""
    key = "slurm-init-seconds-before-status-checks"
    wanted, wait = str(profile.get("slurm-status-command", "sacct")), profile.get(key, 40)
    if not isinstance(wait, int):
        raise InputError(f"{key}: {wait!r} is not a whole number of seconds")
    age = int((re.match(r"\d+", settings.get("MinJobAge", "")) or ["0"])[0])
    name = "status command"
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


@dataclass(frozen=True)
class JobKind:
    """A kind of job that the profile makes."""

    rules: tuple[str, ...]  # that use a GPU and whose jobs are of this kind; empty: all others
    resources: dict[str, Any]

    @property
    def request(self) -> str:
        """The option of sbatch that asks for a GPU, as the executor writes it; or ""."""
        if gres := self.plain("gres"):
            return f"--gres={gres}"
        gpus, model = self.resources.get("gpu"), self.plain("gpu_model")
        return f"--gpus={model}:{gpus}" if gpus and model else f"--gpus={gpus}" if gpus else ""

    @property
    def accounts(self) -> list[str]:
        """The accounts, as the executor reads them; it uses the first."""
        return re.split(r"[,\s]+", self.plain("slurm_account"))

    def plain(self, key: str) -> str:
        """The text of a resource; "" if the profile does not set it."""
        return _plain(self.resources.get(key) or "")

    def options(self, *keys: str) -> list[str]:
        """Options of sbatch for these resources (by default all), as in `--partition=gpu`."""
        values = {key: self.plain(key) for key in OPTIONS} | {"slurm_account": self.accounts[0]}
        for key in NUMBERS:  # a text may depend on the job
            values[key] = self.plain(key) if isinstance(self.resources.get(key), int) else ""
        return [
            f"--{option}={values[key]}"
            for key, option in OPTIONS.items()
            if key in (keys or OPTIONS) and values[key]
        ]


def _plain(value: object) -> str:
    """A value without the quotes that keep Snakemake from evaluating it."""
    return str(value).strip("'\"")


def jobs_of(profile: dict[str, Any], origin: Path) -> list[JobKind]:
    """The kinds of jobs that a profile makes: without a GPU, then with one, by resources."""
    for key in ("default-resources", "set-resources"):
        if not isinstance(profile.get(key) or {}, dict):
            raise InputError(f"{origin}: {key} must be a mapping, one `name: value` a line")
    common, own = profile.get("default-resources") or {}, profile.get("set-resources") or {}
    for_all = {option: profile[key] for key, option in FOR_ALL.items() if profile.get(key)}
    kinds: dict[str, JobKind] = {}
    for rule in ON_GPU:
        if not isinstance(own.get(rule, {}), dict):
            raise InputError(f"{origin}: set-resources: {rule} must be a mapping, as in {{gpu: 1}}")
        resources = common | {"gpu": 1} | own.get(rule, {}) | for_all
        known = kinds.get(str(resources), JobKind((), resources))
        kinds[str(resources)] = JobKind((*known.rules, rule), resources)
    return [JobKind((), common | for_all), *kinds.values()]


@dataclass(frozen=True)
class Partition:
    """A partition of the cluster."""

    up: bool
    default: bool
    limit: str  # longest run time
    cpus: int  # of the largest node
    gpus: tuple[str, ...]  # generic resources, as in gpu:a100:4


def read_partitions(listed: str) -> dict[str, Partition]:
    """Partitions by name, from the output of SINFO (one line per group of equal nodes)."""
    found: dict[str, Partition] = {}
    for line in listed.splitlines():
        name, limit, cpus, gres, state = line.split("|")
        plain, count = name.rstrip("*"), int(cpus.rstrip("+"))
        gpus = {part for part in re.split(r",(?![^(]*\))", gres) if part.startswith("gpu")}
        if known := found.get(plain):
            count, gpus = max(count, known.cpus), gpus | set(known.gpus)
        default = name.endswith("*")
        found[plain] = Partition(state == "up", default, limit, count, tuple(sorted(gpus)))
    return found


def _used(jobs: Iterable[JobKind], partitions: dict[str, Partition]) -> set[str]:
    """Partitions to which jobs are sent; "" if a job names none and the cluster has no default."""
    default = next((name for name, partition in partitions.items() if partition.default), "")
    return {part or default for job in jobs for part in job.plain("slurm_partition").split(",")}


def check_partition(jobs: Iterable[JobKind], partitions: dict[str, Partition]) -> Finding:
    """Whether the partitions of the jobs exist and are up; unnamed, whether there is a default."""
    used = sorted(_used(jobs, partitions))
    up = {
        name: f"{name}{', the default' if one.default else ''} (at most {one.limit})"
        for name, one in partitions.items()
        if one.up
    }
    known = ", ".join(up.values()) or "none"
    fix = f"write a partition that is up as slurm_partition in the profile: {known}"
    if "" in used:
        found = "the profile names none, and the cluster has no default"
        return Finding("partition", "fail", found, fix)
    wrong = [
        f"{name} is down" if name in partitions else f"the cluster has no {name}"
        for name in used
        if name not in up
    ]
    if wrong:
        return Finding("partition", "fail", "; ".join(wrong), fix)
    return Finding("partition", "ok", "; ".join(up[name] for name in used))


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
    answer = ask(*SINFO)
    if not answer.ok:
        asked = " ".join(SINFO)
        raise InputError(f"{asked}: {answer.words}: run this on a machine of a Slurm cluster")
    from snakemake_executor_plugin_slurm.partitions import generate_partitions_from_slurm_query  # type: ignore[import-untyped]

    known = {name: one for name, one in read_partitions(answer.out).items() if one.up}
    limits = generate_partitions_from_slurm_query(None)["partitions"]
    up = {name: limit for name, limit in limits.items() if name in known}
    for name, limit in up.items():  # the generator sees GPUs only where Slurm accounts for them
        if counts := re.findall(r"gpu:(?:[^:,()]+:)?(\d+)", ",".join(known[name].gpus)):
            limit.setdefault("max_gpu", max(map(int, counts)))
    with atomic(path) as temporary:
        written = yaml.safe_dump({"partitions": up}, sort_keys=False)
        temporary.write_text(PARTITION_FILE + written, encoding="utf-8")


def choose_partitions(jobs: list[JobKind], path: Path) -> tuple[list[JobKind], Finding]:
    """The jobs with the partitions that the executor chooses by a partition file.

    Only the profile is considered: memory and run time of a job depend on the study.
    """
    from snakemake_executor_plugin_slurm.partitions import get_best_partition, read_partition_file
    from snakemake_interface_common.exceptions import WorkflowError

    name, sent, words = "partition file", [], []
    try:
        choices = read_partition_file(path)
    except (WorkflowError, TypeError, ValueError, AttributeError, KeyError) as error:
        fix = "correct it, or write it anew: `singflow doctor --write-partitions FILE`"
        return jobs, Finding(name, "fail", f"{path}: {error}", fix)
    silent = logging.Logger("executor", logging.CRITICAL)
    for job in jobs:
        if job.resources.get("slurm_partition"):
            sent.append(job)
            continue
        kind = ", ".join(job.rules) or "jobs without a GPU"
        texts = {k: _plain(value) for k, value in job.resources.items() if isinstance(value, str)}
        request = SimpleNamespace(name=kind, resources=job.resources | texts, threads=1)
        best = get_best_partition(choices, request, silent)
        if not best:
            limits = "max_gpu, available_gpu_models, available_constraints or max_runtime"
            fix = f"correct its {limits}, or write slurm_partition"
            found = f"no partition of {path} takes {kind}: they go to the default one"
            return jobs, Finding(name, "fail", found, fix)
        words.append(f"{kind}: {best}")
        sent.append(replace(job, resources=job.resources | {"slurm_partition": best}))
    found = "; ".join(words) or "every job has a slurm_partition of its own"
    return sent, Finding(name, "ok", f"{found}, where memory and run time allow")


def check_cores(
    jobs: list[JobKind], partitions: dict[str, Partition], threads: int, decoders: int
) -> Finding:
    """Whether some node has the CPUs that a job may ask for.

    A job asks for the study's `threads`, a job with a GPU for `decoders`.
    """
    for wanted, key, asking in (
        (threads, "threads", jobs),
        (decoders, "extraction.decode_threads", [job for job in jobs if job.rules]),
    ):
        used = _used(asking, partitions) & partitions.keys()
        small = {name: partitions[name].cpus for name in used if partitions[name].cpus < wanted}
        if small:
            most = ", ".join(
                f"the nodes of {name} have {cpus} CPUs at most" for name, cpus in small.items()
            )
            fix = f"write {key}: {min(small.values())} in params.yaml"
            return Finding("cores", "fail", f"{key} is {wanted}, but {most}", fix)
    with_gpu = f", {decoders} for a job with a GPU" if decoders else ""
    return Finding("cores", "ok", f"{threads} for a job{with_gpu}")


def _accounts() -> dict[str, str]:
    """The user's accounts in lower case, with the words for where each holds."""
    user = ("assoc", f"user={getpass.getuser()}", "format=account,partition")
    listed = ask("sacctmgr", "--noheader", "--parsable2", "show", *user).out.lower().splitlines()
    return {
        account: f"{account} (in {partition})" if partition else account
        for account, partition in (line.split("|") for line in listed)
    }


def check_account(
    jobs: list[JobKind], known: dict[str, str] | None, asked_for: Iterable[JobKind]
) -> Finding:
    """Whether the accounts of the jobs are the user's, and Slurm takes them.

    known: the user's accounts; None if accounting is off. asked_for: the jobs that Slurm is asked
    about: those with a partition that is up.
    """
    wanted = sorted({account for job in jobs for account in job.accounts if account})
    named = ", ".join(wanted) or "the profile names none"
    if known is None:
        return Finding("account", "ok", f"{named}; accounting is off, so none is asked for")
    if not known:
        fix = "ask who runs the cluster for an account, if jobs are refused"
        return Finding("account", "warn", f"{named}; Slurm lists none for {getpass.getuser()}", fix)
    yours = ", ".join(sorted(known.values()))
    fix = f"write slurm_account in the profile, for all jobs or beside a slurm_partition: {yours}"
    wrong = ", ".join(account for account in wanted if account.lower() not in known)
    if wrong:
        return Finding("account", "fail", f"{wrong}: not an account of {getpass.getuser()}", fix)
    if not wanted:
        found = "the profile names none: it is guessed for every job"
        return Finding("account", "warn", found, fix)
    for job, words in _refused(asked_for, "slurm_account", "slurm_partition"):
        where = job.plain("slurm_partition") or "the default partition"
        return Finding("account", "fail", f"{job.accounts[0]} in {where} is refused: {words}", fix)
    return Finding("account", "ok", named)


def check_qos(jobs: Iterable[JobKind], accounting: bool) -> Finding:
    """Whether Slurm takes the QOS of every job."""
    fix = "take it out of the profile (slurm-qos, or qos of a rule)"
    wanted = [job for job in jobs if job.resources.get("qos")]
    named = ", ".join(sorted({job.plain("qos") for job in wanted}))
    if not accounting:
        return Finding("QOS", "fail", f"{named}, but accounting is off: Slurm has none", fix)
    for job, words in _refused(wanted, "slurm_account", "slurm_partition", "qos"):
        return Finding("QOS", "fail", f"{job.plain('qos')} is refused: {words}", fix)
    return Finding("QOS", "ok", named)


def check_reservation(name: str, listed: str) -> Finding:
    """Whether a reservation is among those that `scontrol --oneliner show reservation` lists."""
    lines = [dict(re.findall(r"(\w+)=(\S*)", line)) for line in listed.splitlines()]
    known = {line["ReservationName"]: line for line in lines if "ReservationName" in line}
    if name not in known:
        others = ", ".join(known) or "none"
        fix = f"take slurm-reservation out of the profile, or write one of these: {others}"
        return Finding("reservation", "fail", f"the cluster has no {name}", fix)
    here = known[name]
    if here["State"] == "ACTIVE":
        return Finding("reservation", "ok", f"{name}, until {here['EndTime']}")
    begins = f"{name} begins {here['StartTime']}"
    return Finding("reservation", "warn", begins, "jobs wait until then")


def check_gpu_request(job: JobKind, partitions: dict[str, Partition]) -> Finding:
    """Whether Slurm accepts the job's GPU request; if not, whether it accepts the other form."""
    name, rules = "GPU request", ", ".join(job.rules)
    if not job.request:
        found = f"the profile asks for none: {rules} run on CPUs"
        return Finding(name, "warn", found, "write gpu: 1 for them under set-resources")
    request, options = job.request, job.options()
    answer = _accepted([*options, request])
    if answer.ok:
        return Finding(name, "ok", f"{request} is accepted ({rules})")
    found = f"{' '.join([*options, request])} is refused ({rules}): {answer.words}"
    alternative, line = "--gpus=1", "{gpu: 1}"
    if request.startswith("--gpus"):
        count = request.partition("=")[2]
        alternative, line = f"--gres=gpu:{count}", f'{{gpu: 0, gres: "gpu:{count}"}}'
    where = [f"{part} ({', '.join(one.gpus)})" for part, one in partitions.items() if one.gpus]
    if _accepted([*options, alternative]).ok:
        fix = (
            f"Slurm takes {alternative}: write {line} for these rules under set-resources in the "
            "profile"
        )
    elif where:
        fix = (
            f"partitions with GPUs: {'; '.join(where)}: write one as slurm_partition for these "
            "rules, within its limits"
        )
    else:
        fix = "no partition lists GPUs: write extraction.device: cpu in params.yaml"
    return Finding(name, "fail", found, fix)


def _refused(jobs: Iterable[JobKind], *keys: str) -> Iterator[tuple[JobKind, str]]:
    """The jobs that Slurm does not take with the options of these resources, and its words."""
    for job in jobs:
        answer = _accepted(job.options(*keys))
        if not answer.ok:
            yield job, answer.words


def _accepted(options: Iterable[str]) -> Answer:
    """What Slurm says of a job with these options, which is not submitted."""
    return ask("sbatch", "--test-only", *options, "--wrap=true", seconds=30)
