"""Checks of a Slurm cluster, and of the profile by which the workflow uses it."""

import getpass
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
from singflow.system import Answer, ask

GPU_RULES = ("extract_features", "embed_images", "train_translator", "render_pictures")
OPTIONS = {
    "slurm_partition": "partition",
    "slurm_account": "account",
    "constraint": "constraint",
    "qos": "qos",
    "reservation": "reservation",
}
FOR_ALL = {
    "slurm-qos": "qos",
    "slurm-reservation": "reservation",
}  # settings of the profile that every job gets, whatever its resources
SINFO = ("sinfo", "--noheader", "-o", "%P|%l|%m|%c|%G|%a|%f")
NUMBERS = {"runtime": "time", "mem_mb": "mem", "cpus_per_task": "cpus-per-task"}
LOCALLY = "without Slurm `snakemake --cores all` runs everything on this machine"


def check_controller() -> Finding:
    """Whether there is a Slurm whose controller answers."""
    if not all(map(shutil.which, ("scontrol", "sinfo", "sbatch", "squeue"))):
        return Finding("Slurm", "absent", f"none here: {LOCALLY}")
    answer = ask("scontrol", "ping")
    up = [line.strip() for line in answer.out.splitlines() if line.rstrip().endswith("is UP")]
    if not up:
        return Finding(
            "Slurm",
            "fail",
            f"does not answer: {answer.words}",
            f"ask who runs the cluster; {LOCALLY}",
        )
    return Finding("Slurm", "ok", f"{ask('sinfo', '--version').out.strip()}: {', '.join(up)}")


def check_cluster(profile: Path, device: str) -> Iterator[Finding]:
    """The checks of a cluster that answers: accounting, status command, partitions, cores, account, QOS, reservation, GPU request."""
    settings = slurm_settings(ask("scontrol", "show", "config").out)
    accounting = check_accounting(settings)
    yield accounting
    try:
        content = read_yaml(profile)
        jobs = jobs_of(content, profile)
        yield check_status_command(content, settings, accounting.status == "ok")
    except InputError as error:
        yield Finding(
            "cluster profile",
            "fail",
            str(error),
            f"correct {profile}, or take it from the repository again",
        )
        return
    partitions = read_partitions(ask(*SINFO).out)
    if chosen_by := content.get("slurm-partition-config") or os.environ.get(
        "SNAKEMAKE_SLURM_PARTITIONS"
    ):
        jobs, finding = choose_partitions(jobs, Path(chosen_by))
        yield finding
    yield check_partition(jobs, partitions)
    yield check_cores(content, jobs, partitions)
    associations = _associations() if accounting.status == "ok" else None
    yield check_account(jobs, associations, _default(partitions))
    if any(job.resources.get("qos") for job in jobs):
        yield check_qos(jobs, associations)
    if wanted := content.get("slurm-reservation"):
        yield check_reservation(
            _plain(wanted), ask("scontrol", "--oneliner", "show", "reservation").out
        )
    if device == "cpu":
        yield Finding("GPU request", "absent", "extraction.device is cpu: no job asks for a GPU")
    else:
        yield from [check_gpu_request(job, partitions) for job in jobs if job.rules]


def slurm_settings(shown: str) -> dict[str, str]:
    """slurm.conf as `scontrol show config` shows it."""
    return {name: value.strip() for name, value in re.findall(r"^(\w+) *= (.*)$", shown, re.M)}


def check_accounting(settings: dict[str, str]) -> Finding:
    """Whether Slurm keeps account of jobs and sacct answers."""
    mend = "ask who runs the cluster for slurmdbd"
    if "slurmdbd" not in settings.get("AccountingStorageType", ""):
        return Finding("accounting", "warn", "off: sacct knows no job", mend)
    answer = ask("sacct", "--noheader", "--allocations", "--starttime", "now")
    if not answer.ok:
        return Finding("accounting", "warn", f"on, but sacct does not answer: {answer.words}", mend)
    return Finding("accounting", "ok", "on: sacct answers")


def check_status_command(
    profile: dict[str, Any], settings: dict[str, str], accounting: bool
) -> Finding:
    """Whether the executor can tell the state of a job."""
    key = "slurm-init-seconds-before-status-checks"
    wanted, wait = str(profile.get("slurm-status-command", "sacct")), profile.get(key, 40)
    if not isinstance(wait, int):
        raise InputError(f"{key}: {wait!r} is not a whole number of seconds")
    age = int((re.match(r"\d+", settings.get("MinJobAge", "")) or ["0"])[0])
    name = "status command"
    if wanted == "squeue" and age >= 3 * wait:
        if accounting:
            return Finding(name, "ok", "squeue, and sacct while the controller is away")
        found = "squeue, without accounting: a run waits for ever when the controller is away while it asks"
        return Finding(name, "warn", found, "start and restart runs with `make resume`")
    if wanted == "squeue":
        chosen = f"sacct in place of squeue, because MinJobAge is {age} s, less than 3 x {key} ({wait} s)"
        mend = f"write {key}: {max(age // 3, 1)} in the profile"
    else:
        chosen, mend = wanted, "write slurm-status-command: squeue in the profile"
    if not accounting:
        return Finding(name, "fail", f"{chosen}; without accounting it knows no job", mend)
    return Finding(
        name, "warn", f"{chosen}; it waits for ever for a job that was cancelled by hand", mend
    )


@dataclass(frozen=True)
class Job:
    """A kind of job that the profile makes. rules: those with a GPU that become it, none for all other rules."""

    rules: tuple[str, ...]
    resources: dict[str, Any]

    @property
    def request(self) -> list[str]:
        """Options of sbatch that ask for a GPU, as the executor writes them."""
        gpus = self.resources.get("gpu", 0)
        model = self.resources.get("gpu_model")
        if self.resources.get("gres"):
            return [f"--gres={_plain(self.resources['gres'])}"]
        return [f"--gpus={_plain(model)}:{gpus}" if model else f"--gpus={gpus}"] if gpus else []

    def options(self) -> list[str]:
        """Options of sbatch for everything else that the profile fixes."""
        fixed = [
            f"--{option}={_plain(self.resources[key])}"
            for key, option in OPTIONS.items()
            if self.resources.get(key) is not None
        ]
        return fixed + [
            f"--{option}={self.resources[key]}"
            for key, option in NUMBERS.items()
            if isinstance(self.resources.get(key), int)
        ]


def _plain(value: object) -> str:
    """A value without the quotes that keep Snakemake from evaluating it."""
    return str(value).strip("'\"")


def jobs_of(profile: dict[str, Any], origin: Path) -> list[Job]:
    """The kinds of jobs that a profile makes: of rules without a GPU, and of those with one."""
    for key in ("default-resources", "set-resources"):
        if not isinstance(profile.get(key) or {}, dict):
            raise InputError(f"{origin}: {key} must be a mapping, one `name: value` a line")
    common, own = profile.get("default-resources") or {}, profile.get("set-resources") or {}
    for_all = {option: profile[key] for key, option in FOR_ALL.items() if profile.get(key)}
    kinds: dict[str, Job] = {}
    for rule in GPU_RULES:
        if not isinstance(own.get(rule, {}), dict):
            raise InputError(f"{origin}: set-resources: {rule} must be a mapping, as in {{gpu: 1}}")
        resources = common | {"gpu": 1} | own.get(rule, {}) | for_all
        known = kinds.get(str(resources), Job((), resources))
        kinds[str(resources)] = Job((*known.rules, rule), resources)
    return [Job((), common | for_all), *kinds.values()]


@dataclass(frozen=True)
class Partition:
    """A partition of the cluster. limit: longest runtime; cpus, megabytes: of its largest node; gres: generic resources, as gpu:a100:4."""

    up: bool
    default: bool
    limit: str
    cpus: int
    megabytes: int
    gres: frozenset[str]
    features: frozenset[str]

    @property
    def gpus(self) -> list[str]:
        """Its GPUs by node."""
        return sorted(each for each in self.gres if each.startswith("gpu"))


def read_partitions(listed: str) -> dict[str, Partition]:
    """Partitions of the cluster."""
    found: dict[str, Partition] = {}
    for line in listed.splitlines():
        name, limit, megabytes, cpus, gres, state, features = line.split("|")
        plain = name.rstrip("*")
        before = found.get(plain, Partition(False, False, "", 0, 0, frozenset(), frozenset()))
        found[plain] = Partition(
            up=state == "up",
            default=name.endswith("*"),
            limit=limit,
            cpus=max(before.cpus, int(cpus.rstrip("+"))),
            megabytes=max(before.megabytes, int(megabytes.rstrip("+"))),
            gres=before.gres | set(re.split(r",(?![^(]*\))", gres)),
            features=before.features | set(features.split(",")) - {"(null)"},
        )
    return found


def _partitions_of(jobs: Iterable[Job]) -> set[str]:
    """Partitions that jobs are sent to; "" is the default one."""
    return {
        part
        for job in jobs
        for part in _plain(job.resources.get("slurm_partition") or "").split(",")
    }


def _default(partitions: dict[str, Partition]) -> str:
    return next((name for name, each in partitions.items() if each.default), "")


def check_partition(jobs: Iterable[Job], partitions: dict[str, Partition]) -> Finding:
    """Whether the partitions that jobs are sent to exist and are up; where none is named, whether there is a default."""
    wanted, default = _partitions_of(jobs), _default(partitions)
    named = sorted({name or default for name in wanted})
    up = (
        ", ".join(f"{name} (at most {each.limit})" for name, each in partitions.items() if each.up)
        or "none"
    )
    mend = f"write a partition that is up as slurm_partition in the profile: {up}"
    if "" in named:
        return Finding(
            "partition", "fail", "the profile names none, and the cluster has no default", mend
        )
    wrong = [
        f"{name} is down" if name in partitions else f"the cluster has no {name}"
        for name in named
        if not _up(name, partitions)
    ]
    if wrong:
        return Finding("partition", "fail", "; ".join(wrong), mend)
    limits = [
        f"{name}{', the default' if '' in wanted and name == default else ''} (at most {partitions[name].limit})"
        for name in named
    ]
    return Finding("partition", "ok", "; ".join(limits))


PARTITION_FILE = """\
# What the partitions of this cluster take: `singflow doctor --write-partitions` wrote it from sinfo, by the largest node of each.
# The executor sends every job without a slurm_partition to the one that it fits best: slurm-partition-config in slurm/config.yaml
# names this file. Take out partitions that you may not use or do not want, and lower limits that sinfo does not know, as those of
# an account or a QOS.
"""


def partition_file(partitions: dict[str, Partition]) -> str:
    """A first partition file for the executor."""
    return PARTITION_FILE + yaml.safe_dump(
        {"partitions": {name: _limits(each) for name, each in partitions.items() if each.up}},
        sort_keys=False,
    )


def _limits(partition: Partition) -> dict[str, Any]:
    """Limits of a partition as the executor names them; it would read 30:00 as thirty hours."""
    gpus = [
        (model, int(count))
        for each in partition.gpus
        for model, count in re.findall(r"^gpu:(?:([^:,()]+):)?(\d+)", each)
    ]
    found: dict[str, Any] = {"max_mem_mb": partition.megabytes, "max_threads": partition.cpus}
    if time := re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", partition.limit):
        days, hours, minutes, _ = (int(each or 0) for each in time.groups())
        found = {"max_runtime": 24 * 60 * days + 60 * hours + minutes} | found
    if gpus:
        found["max_gpu"] = max(count for _, count in gpus)
        if all(model for model, _ in gpus):
            found["available_gpu_models"] = sorted({model for model, _ in gpus})
    if partition.features:
        found["available_constraints"] = sorted(partition.features)
    return found


def write_partition_file(path: Path) -> None:
    """Write a first partition file of this cluster."""
    if path.exists():
        raise InputError(f"{path}: is there already: name another, or remove it")
    answer = ask(*SINFO)
    if not answer.ok:
        raise InputError(
            f"{' '.join(SINFO)}: {answer.words}: run this on a machine of a Slurm cluster"
        )
    with atomic(path) as temporary:
        temporary.write_text(partition_file(read_partitions(answer.out)), encoding="utf-8")


def choose_partitions(jobs: list[Job], path: Path) -> tuple[list[Job], Finding]:
    """Where the executor sends jobs by a partition file, as far as the profile tells; a job's memory and run time follow from the study."""
    from snakemake_executor_plugin_slurm.partitions import read_partition_file  # type: ignore[import-untyped]
    from snakemake_interface_common.exceptions import WorkflowError

    name = "partition file"
    try:
        choices = read_partition_file(path)
    except (WorkflowError, TypeError, ValueError, AttributeError, KeyError) as error:
        return jobs, Finding(
            name,
            "fail",
            f"{path}: {error}",
            "correct it, or write it anew: `singflow doctor --write-partitions FILE`",
        )
    sent, words = [], []
    for job in jobs:
        if not job.resources.get("slurm_partition"):
            asked = {
                key: _plain(value) if isinstance(value, str) else value
                for key, value in job.resources.items()
            }
            scores = {
                each.name: each.score_job_fit(SimpleNamespace(resources=asked, threads=1))
                for each in choices
            }
            fitting = {each: score for each, score in scores.items() if score is not None}
            kind = ", ".join(job.rules) or "jobs without a GPU"
            if not fitting:
                mend = "correct its max_gpu, available_gpu_models, available_constraints or max_runtime, or write slurm_partition"
                return jobs, Finding(
                    name,
                    "fail",
                    f"no partition of {path} takes {kind}: they go to the default one",
                    mend,
                )
            best = max(fitting, key=lambda each: fitting[each])
            words.append(f"{kind}: {best}")
            job = replace(job, resources=job.resources | {"slurm_partition": best})
        sent.append(job)
    found = "; ".join(words) or "every job has a slurm_partition of its own"
    return sent, Finding(name, "ok", f"{found}, where memory and run time allow")


def check_cores(
    profile: dict[str, Any], jobs: Iterable[Job], partitions: dict[str, Partition]
) -> Finding:
    """Whether a node has the CPUs that a job with several steps in it may ask for: `cores` of the profile."""
    default = _default(partitions)
    found = {
        each: partitions[each].cpus
        for each in {name or default for name in _partitions_of(jobs)} & set(partitions)
    }
    cores = profile.get("cores")
    if not isinstance(cores, int):
        return Finding(
            "cores",
            "warn",
            "the profile sets none: steps in one job ask for the sum of their threads",
            "write cores: 8",
        )
    small = {name: cpus for name, cpus in found.items() if cpus < cores}
    if small:
        named = ", ".join(
            f"the nodes of {name} have {cpus} CPUs at most" for name, cpus in small.items()
        )
        return Finding(
            "cores",
            "fail",
            f"{cores} in the profile, but {named}",
            f"write cores: {min(small.values())} in the profile",
        )
    return Finding("cores", "ok", f"at most {cores} for a job with several steps")


def _up(name: str, partitions: dict[str, Partition]) -> bool:
    return name in partitions and partitions[name].up


@dataclass(frozen=True)
class Association:
    """What Slurm lets a user do: under an account, with these QOS, in a partition ("": in any)."""

    account: str
    partition: str
    qos: frozenset[str]


def _associations() -> list[Association]:
    user = ("assoc", f"user={getpass.getuser()}", "format=account,partition,qos")
    listed = [
        line.split("|")
        for line in ask("sacctmgr", "--noheader", "--parsable2", "show", *user)
        .out.lower()
        .splitlines()
    ]
    return [
        Association(account, partition, frozenset(qos.split(",")))
        for account, partition, qos in listed
    ]


def _accounts_of(job: Job) -> list[str]:
    """Accounts of a kind of job as the executor takes them, of which it uses the first."""
    return (
        re.split(r"[,\s]+", _plain(job.resources["slurm_account"]))
        if job.resources.get("slurm_account")
        else []
    )


def check_account(
    jobs: Iterable[Job], associations: list[Association] | None, default: str
) -> Finding:
    """Whether jobs are sent under accounts of the user's, and to partitions in which these accounts hold."""
    jobs = list(jobs)
    wanted = sorted({account for job in jobs for account in _accounts_of(job)})
    named = ", ".join(wanted) or "the profile names none"
    if associations is None:
        return Finding("account", "ok", f"{named}; accounting is off, so none is asked for")
    if not associations:
        mend = "ask who runs the cluster for an account, if jobs are refused"
        return Finding(
            "account", "warn", f"{named}; Slurm lists none for {getpass.getuser()}", mend
        )
    known = sorted(
        {
            f"{each.account} (in {each.partition})" if each.partition else each.account
            for each in associations
        }
    )
    mend = f"write slurm_account in the profile, for all jobs or beside a slurm_partition: {', '.join(known)}"
    wrong = [each for each in wanted if each.lower() not in {each.account for each in associations}]
    if wrong:
        return Finding(
            "account", "fail", f"{', '.join(wrong)}: not an account of {getpass.getuser()}", mend
        )
    if not wanted:
        return Finding(
            "account", "warn", "the profile names none: it is guessed for every job", mend
        )
    allowed = {(each.account, each.partition) for each in associations}
    pairs = {
        (_accounts_of(job)[0], name or default)
        for job in jobs
        if _accounts_of(job)
        for name in _partitions_of([job])
    }
    astray = [
        f"{account} in {name}"
        for account, name in sorted(pairs)
        if not allowed & {(account.lower(), ""), (account.lower(), name.lower())}
    ]
    if astray:
        return Finding(
            "account",
            "fail",
            f"{', '.join(astray)}: the account does not hold in this partition",
            mend,
        )
    return Finding("account", "ok", named)


def check_qos(jobs: Iterable[Job], associations: list[Association] | None) -> Finding:
    """Whether jobs ask for a QOS that their account has."""
    mend = "take it out of the profile (slurm-qos, or qos of a rule)"
    pairs = {
        (_plain(job.resources["qos"]), *_accounts_of(job)[:1])
        for job in jobs
        if job.resources.get("qos")
    }
    named = ", ".join(sorted({qos for qos, *_ in pairs}))
    if associations is None:
        return Finding("QOS", "fail", f"{named}, but accounting is off: Slurm has none", mend)
    for qos, *account in sorted(pairs):
        has = sorted(
            {
                each
                for known in associations
                if not account or known.account == account[0].lower()
                for each in known.qos
            }
            - {""}
        )
        if qos.lower() not in has:
            whose = f"of account {account[0]}" if account else f"of {getpass.getuser()}"
            return Finding(
                "QOS",
                "fail",
                f"{qos}: not a QOS {whose}",
                f"{mend}, or write one of these: {', '.join(has) or 'none'}",
            )
    return Finding("QOS", "ok", named)


def check_reservation(name: str, listed: str) -> Finding:
    """Whether there is the reservation that jobs are sent to."""
    known = {
        fields["ReservationName"]: fields
        for fields in (dict(re.findall(r"(\w+)=(\S*)", line)) for line in listed.splitlines())
        if "ReservationName" in fields
    }
    if name not in known:
        mend = f"take slurm-reservation out of the profile, or write one of these: {', '.join(known) or 'none'}"
        return Finding("reservation", "fail", f"the cluster has no {name}", mend)
    here = known[name]
    if here["State"] == "ACTIVE":
        return Finding("reservation", "ok", f"{name}, until {here['EndTime']}")
    return Finding(
        "reservation", "warn", f"{name} begins {here['StartTime']}", "jobs wait until then"
    )


def check_gpu_request(job: Job, partitions: dict[str, Partition]) -> Finding:
    """Whether Slurm takes a job with the GPU that the profile asks for; otherwise whether it takes the other way of asking."""
    name = "GPU request"
    rules = ", ".join(job.rules)
    if not job.request:
        return Finding(
            name,
            "warn",
            f"the profile asks for none: {rules} run on CPUs",
            "write gpu: 1 for them under set-resources",
        )
    answer = _accepted(job, job.request)
    if answer.ok:
        return Finding(name, "ok", f"{' '.join(job.request)} is accepted ({rules})")
    found = f"{' '.join([*job.options(), *job.request])} is refused ({rules}): {answer.words}"
    by_count = job.request[0].startswith("--gpus")
    count = job.request[0].partition("=")[2]
    other, line = (
        (f"--gres=gpu:{count}", f'{{gpu: 0, gres: "gpu:{count}"}}')
        if by_count
        else ("--gpus=1", "{gpu: 1}")
    )
    if _accepted(job, [other]).ok:
        return Finding(
            name,
            "fail",
            found,
            f"Slurm takes {other}: write {line} for these rules under set-resources in the profile",
        )
    where = [f"{name} ({', '.join(each.gpus)})" for name, each in partitions.items() if each.gpus]
    with_gpus = f"partitions with GPUs: {'; '.join(where)}: write one as slurm_partition for these rules, within its limits"
    none = "no partition lists GPUs: write extraction.device: cpu in params.yaml"
    return Finding(name, "fail", found, with_gpus if where else none)


def _accepted(job: Job, request: list[str]) -> Answer:
    return ask("sbatch", "--test-only", *job.options(), *request, "--wrap=true", seconds=30)
