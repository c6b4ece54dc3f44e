"""Checks of a Slurm cluster and of the workflow's profile for it."""

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
# Settings of the profile that apply to every job, whatever its resources.
FOR_ALL = {"slurm-qos": "qos", "slurm-reservation": "reservation"}
SINFO = ("sinfo", "--noheader", "-o", "%P|%l|%m|%c|%G|%a|%f")
NUMBERS = {"runtime": "time", "mem_mb": "mem", "cpus_per_task": "cpus-per-task"}
LOCALLY = "without Slurm `snakemake --cores all` runs everything on this machine"


def check_controller() -> Finding:
    """Whether Slurm is installed and its controller answers."""
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
    """All checks of a cluster that answers.

    profile: slurm/config.yaml. device: extraction.device.
    """
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
        found = (
            "squeue, without accounting: a run waits for ever when the controller is away while "
            "it asks"
        )
        return Finding(name, "warn", found, "start and restart runs with `make resume`")
    if wanted == "squeue":
        chosen = (
            f"sacct in place of squeue, because MinJobAge is {age} s, less than 3 x {key} "
            f"({wait} s)"
        )
        fix = f"write {key}: {max(age // 3, 1)} in the profile"
    else:
        chosen, fix = wanted, "write slurm-status-command: squeue in the profile"
    if not accounting:
        return Finding(name, "fail", f"{chosen}; without accounting it knows no job", fix)
    return Finding(
        name, "warn", f"{chosen}; it waits for ever for a job that was cancelled by hand", fix
    )


@dataclass(frozen=True)
class Job:
    """A kind of job that the profile makes.

    rules: the GPU rules whose jobs are of this kind; empty: all other rules.
    """

    rules: tuple[str, ...]
    resources: dict[str, Any]

    @property
    def request(self) -> list[str]:
        """The options of sbatch that ask for a GPU, as the executor writes them."""
        gpus = self.resources.get("gpu", 0)
        model = self.resources.get("gpu_model")
        if self.resources.get("gres"):
            return [f"--gres={_plain(self.resources['gres'])}"]
        return [f"--gpus={_plain(model)}:{gpus}" if model else f"--gpus={gpus}"] if gpus else []

    def options(self) -> list[str]:
        """All other options of sbatch that the profile fixes, as in `--partition=gpu`."""
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
    """The kinds of jobs that a profile makes: without a GPU, then with one, by resources."""
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
    """A partition of the cluster.

    limit: the longest run time. cpus, megabytes: of the largest node. gres: generic resources, as
    in gpu:a100:4.
    """

    up: bool
    default: bool
    limit: str
    cpus: int
    megabytes: int
    gres: frozenset[str]
    features: frozenset[str]

    @property
    def gpus(self) -> list[str]:
        """The generic resources that are GPUs."""
        return sorted(resource for resource in self.gres if resource.startswith("gpu"))


def read_partitions(listed: str) -> dict[str, Partition]:
    """Partitions by name, from the output of SINFO (one line per group of equal nodes)."""
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
    """Partitions to which jobs are sent; "" is the default partition."""
    return {
        part
        for job in jobs
        for part in _plain(job.resources.get("slurm_partition") or "").split(",")
    }


def _default(partitions: dict[str, Partition]) -> str:
    return next((name for name, partition in partitions.items() if partition.default), "")


def check_partition(jobs: Iterable[Job], partitions: dict[str, Partition]) -> Finding:
    """Whether the partitions of the jobs exist and are up; unnamed, whether there is a default."""
    wanted, default = _partitions_of(jobs), _default(partitions)
    named = sorted({name or default for name in wanted})
    up = (
        ", ".join(
            f"{name} (at most {partition.limit})"
            for name, partition in partitions.items()
            if partition.up
        )
        or "none"
    )
    fix = f"write a partition that is up as slurm_partition in the profile: {up}"
    if "" in named:
        return Finding(
            "partition", "fail", "the profile names none, and the cluster has no default", fix
        )
    wrong = [
        f"{name} is down" if name in partitions else f"the cluster has no {name}"
        for name in named
        if not _up(name, partitions)
    ]
    if wrong:
        return Finding("partition", "fail", "; ".join(wrong), fix)
    limits = [
        f"{name}{', the default' if '' in wanted and name == default else ''} (at most "
        f"{partitions[name].limit})"
        for name in named
    ]
    return Finding("partition", "ok", "; ".join(limits))


PARTITION_FILE = (
    "# What the partitions of this cluster take: `singflow doctor --write-partitions` wrote it "
    "from sinfo, by the largest node of each.\n"
    "# The executor sends every job without a slurm_partition to the one that it fits best: "
    "slurm-partition-config in slurm/config.yaml\n"
    "# names this file. Take out partitions that you may not use or do not want, and lower limits "
    "that sinfo does not know, as those of\n"
    "# an account or a QOS.\n"
)


def partition_file(partitions: dict[str, Partition]) -> str:
    """A first partition file for the executor (YAML), without partitions that are down."""
    return PARTITION_FILE + yaml.safe_dump(
        {
            "partitions": {
                name: _limits(partition) for name, partition in partitions.items() if partition.up
            }
        },
        sort_keys=False,
    )


def _limits(partition: Partition) -> dict[str, Any]:
    """Limits of a partition under the executor's names.

    The run time is in minutes, because the executor would read 30:00 as thirty hours.
    """
    gpus = [
        (model, int(count))
        for resource in partition.gpus
        for model, count in re.findall(r"^gpu:(?:([^:,()]+):)?(\d+)", resource)
    ]
    found: dict[str, Any] = {"max_mem_mb": partition.megabytes, "max_threads": partition.cpus}
    if time := re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", partition.limit):
        days, hours, minutes, _ = (int(digits or 0) for digits in time.groups())
        found = {"max_runtime": 24 * 60 * days + 60 * hours + minutes} | found
    if gpus:
        found["max_gpu"] = max(count for _, count in gpus)
        if all(model for model, _ in gpus):
            found["available_gpu_models"] = sorted({model for model, _ in gpus})
    if partition.features:
        found["available_constraints"] = sorted(partition.features)
    return found


def write_partition_file(path: Path) -> None:
    """Write a first partition file for this cluster; InputError if the file exists."""
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
    """The jobs with the partitions that the executor would choose by a partition file.

    Only the profile is considered: memory and run time of a job depend on the study.
    """
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
                choice.name: choice.score_job_fit(SimpleNamespace(resources=asked, threads=1))
                for choice in choices
            }
            fitting = {partition: score for partition, score in scores.items() if score is not None}
            kind = ", ".join(job.rules) or "jobs without a GPU"
            if not fitting:
                fix = (
                    "correct its max_gpu, available_gpu_models, available_constraints or "
                    "max_runtime, or write slurm_partition"
                )
                return jobs, Finding(
                    name,
                    "fail",
                    f"no partition of {path} takes {kind}: they go to the default one",
                    fix,
                )
            best = max(fitting, key=lambda partition: fitting[partition])
            words.append(f"{kind}: {best}")
            job = replace(job, resources=job.resources | {"slurm_partition": best})
        sent.append(job)
    found = "; ".join(words) or "every job has a slurm_partition of its own"
    return sent, Finding(name, "ok", f"{found}, where memory and run time allow")


def check_cores(
    profile: dict[str, Any], jobs: Iterable[Job], partitions: dict[str, Partition]
) -> Finding:
    """Whether some node has the CPUs that a job with several steps may ask for (`cores`)."""
    default = _default(partitions)
    found = {
        partition: partitions[partition].cpus
        for partition in {name or default for name in _partitions_of(jobs)} & set(partitions)
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
    """What Slurm allows a user: an account with these QOS in a partition ("": in any)."""

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
    """The accounts of a kind of job, as the executor reads them; it uses the first."""
    return (
        re.split(r"[,\s]+", _plain(job.resources["slurm_account"]))
        if job.resources.get("slurm_account")
        else []
    )


def check_account(
    jobs: Iterable[Job], associations: list[Association] | None, default: str
) -> Finding:
    """Whether the accounts of the jobs are the user's, and hold in the partitions of the jobs.

    associations: of the user, in lower case; None if accounting is off. default: the default
    partition.
    """
    jobs = list(jobs)
    wanted = sorted({account for job in jobs for account in _accounts_of(job)})
    named = ", ".join(wanted) or "the profile names none"
    if associations is None:
        return Finding("account", "ok", f"{named}; accounting is off, so none is asked for")
    if not associations:
        fix = "ask who runs the cluster for an account, if jobs are refused"
        return Finding("account", "warn", f"{named}; Slurm lists none for {getpass.getuser()}", fix)
    known = sorted(
        {
            f"{association.account} (in {association.partition})"
            if association.partition
            else association.account
            for association in associations
        }
    )
    fix = (
        "write slurm_account in the profile, for all jobs or beside a slurm_partition: "
        f"{', '.join(known)}"
    )
    wrong = [
        account
        for account in wanted
        if account.lower() not in {association.account for association in associations}
    ]
    if wrong:
        return Finding(
            "account", "fail", f"{', '.join(wrong)}: not an account of {getpass.getuser()}", fix
        )
    if not wanted:
        return Finding(
            "account", "warn", "the profile names none: it is guessed for every job", fix
        )
    allowed = {(association.account, association.partition) for association in associations}
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
            fix,
        )
    return Finding("account", "ok", named)


def check_qos(jobs: Iterable[Job], associations: list[Association] | None) -> Finding:
    """Whether the account of every job has the QOS that the job asks for.

    associations: as in check_account().
    """
    fix = "take it out of the profile (slurm-qos, or qos of a rule)"
    pairs = {
        (_plain(job.resources["qos"]), *_accounts_of(job)[:1])
        for job in jobs
        if job.resources.get("qos")
    }
    named = ", ".join(sorted({qos for qos, *_ in pairs}))
    if associations is None:
        return Finding("QOS", "fail", f"{named}, but accounting is off: Slurm has none", fix)
    for qos, *account in sorted(pairs):
        has = sorted(
            {
                name
                for known in associations
                if not account or known.account == account[0].lower()
                for name in known.qos
            }
            - {""}
        )
        if qos.lower() not in has:
            whose = f"of account {account[0]}" if account else f"of {getpass.getuser()}"
            return Finding(
                "QOS",
                "fail",
                f"{qos}: not a QOS {whose}",
                f"{fix}, or write one of these: {', '.join(has) or 'none'}",
            )
    return Finding("QOS", "ok", named)


def check_reservation(name: str, listed: str) -> Finding:
    """Whether the reservation of the jobs exists.

    listed: output of `scontrol --oneliner show reservation`.
    """
    known = {
        fields["ReservationName"]: fields
        for fields in (dict(re.findall(r"(\w+)=(\S*)", line)) for line in listed.splitlines())
        if "ReservationName" in fields
    }
    if name not in known:
        fix = (
            "take slurm-reservation out of the profile, or write one of these: "
            f"{', '.join(known) or 'none'}"
        )
        return Finding("reservation", "fail", f"the cluster has no {name}", fix)
    here = known[name]
    if here["State"] == "ACTIVE":
        return Finding("reservation", "ok", f"{name}, until {here['EndTime']}")
    return Finding(
        "reservation", "warn", f"{name} begins {here['StartTime']}", "jobs wait until then"
    )


def check_gpu_request(job: Job, partitions: dict[str, Partition]) -> Finding:
    """Whether Slurm accepts the job's GPU request; if not, whether it accepts the other form."""
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
    alternative, line = (
        (f"--gres=gpu:{count}", f'{{gpu: 0, gres: "gpu:{count}"}}')
        if by_count
        else ("--gpus=1", "{gpu: 1}")
    )
    if _accepted(job, [alternative]).ok:
        return Finding(
            name,
            "fail",
            found,
            f"Slurm takes {alternative}: write {line} for these rules under set-resources in the "
            "profile",
        )
    where = [
        f"{name} ({', '.join(partition.gpus)})"
        for name, partition in partitions.items()
        if partition.gpus
    ]
    with_gpus = (
        f"partitions with GPUs: {'; '.join(where)}: write one as slurm_partition for these rules, "
        "within its limits"
    )
    none = "no partition lists GPUs: write extraction.device: cpu in params.yaml"
    return Finding(name, "fail", found, with_gpus if where else none)


def _accepted(job: Job, request: list[str]) -> Answer:
    return ask("sbatch", "--test-only", *job.options(), *request, "--wrap=true", seconds=30)
