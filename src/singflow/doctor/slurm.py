"""Checks of a Slurm cluster, and of the profile by which the workflow uses it."""

import getpass
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from singflow.config.reading import read_yaml
from singflow.doctor.findings import Finding
from singflow.errors import InputError
from singflow.system import Answer, ask

GPU_RULES = ("extract_features", "embed_images", "train_translator", "render_pictures")
OPTIONS = {"slurm_partition": "partition", "slurm_account": "account", "constraint": "constraint", "qos": "qos"}
NUMBERS = {"runtime": "time", "mem_mb": "mem", "cpus_per_task": "cpus-per-task"}
LOCALLY = "without Slurm `snakemake --cores all` runs everything on this machine"


def check_controller() -> Finding:
    """Whether there is a Slurm whose controller answers.

    Returns
    -------
    Finding
        `ok`, `fail` or `absent`.
    """
    if not all(map(shutil.which, ("scontrol", "sinfo", "sbatch", "squeue"))):
        return Finding("Slurm", "absent", f"none here: {LOCALLY}")
    answer = ask("scontrol", "ping")
    up = [line.strip() for line in answer.out.splitlines() if line.rstrip().endswith("is UP")]
    if not up:
        return Finding("Slurm", "fail", f"does not answer: {answer.words}", f"ask who runs the cluster; {LOCALLY}")
    return Finding("Slurm", "ok", f"{ask('sinfo', '--version').out.strip()}: {', '.join(up)}")


def check_cluster(profile: Path, device: str) -> Iterator[Finding]:
    """The checks of a cluster that answers: accounting, status command, partitions, cores, account, GPU request.

    Parameters
    ----------
    profile : Path
        slurm/config.yaml.
    device : str
        extraction.device: `auto`, `cpu`, `cuda` or `mps`.

    Yields
    ------
    Finding
        What a check found.
    """
    settings = slurm_settings(ask("scontrol", "show", "config").out)
    accounting = check_accounting(settings)
    yield accounting
    try:
        content = read_yaml(profile)
        jobs = jobs_of(content, profile)
        yield check_status_command(content, settings, accounting.status == "ok")
    except InputError as error:
        yield Finding("cluster profile", "fail", str(error), f"correct {profile}, or take it from the repository again")
        return
    partitions = read_partitions(ask("sinfo", "--noheader", "-o", "%P|%l|%m|%c|%G|%a").out)
    yield check_partition(jobs, partitions)
    yield check_cores(content, jobs, partitions)
    yield check_account(jobs, _accounts() if accounting.status == "ok" else None)
    if device == "cpu":
        yield Finding("GPU request", "absent", "extraction.device is cpu: no job asks for a GPU")
    else:
        yield from [check_gpu_request(job, partitions) for job in jobs if job.rules]


def slurm_settings(shown: str) -> dict[str, str]:
    """slurm.conf as `scontrol show config` shows it.

    Parameters
    ----------
    shown : str
        Its output.

    Returns
    -------
    dict of str
        Value by name.
    """
    return {name: value.strip() for name, value in re.findall(r"^(\w+) *= (.*)$", shown, re.M)}


def check_accounting(settings: dict[str, str]) -> Finding:
    """Whether Slurm keeps account of jobs and sacct answers.

    Parameters
    ----------
    settings : dict of str
        slurm.conf.

    Returns
    -------
    Finding
        `ok` or `warn`.
    """
    mend = "ask who runs the cluster for slurmdbd"
    if "slurmdbd" not in settings.get("AccountingStorageType", ""):
        return Finding("accounting", "warn", "off: sacct knows no job", mend)
    answer = ask("sacct", "--noheader", "--allocations", "--starttime", "now")
    if not answer.ok:
        return Finding("accounting", "warn", f"on, but sacct does not answer: {answer.words}", mend)
    return Finding("accounting", "ok", "on: sacct answers")


def check_status_command(profile: dict[str, Any], settings: dict[str, str], accounting: bool) -> Finding:
    """Whether the executor can tell the state of a job.

    Parameters
    ----------
    profile : dict
        Content of slurm/config.yaml.
    settings : dict of str
        slurm.conf.
    accounting : bool
        Whether sacct answers.

    Returns
    -------
    Finding
        `ok`, `warn` or `fail`.

    Raises
    ------
    InputError
        When what the profile gives for slurm-init-seconds-before-status-checks is no whole number of seconds.
    """
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
    return Finding(name, "warn", f"{chosen}; it waits for ever for a job that was cancelled by hand", mend)


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
        """Options of sbatch for everything else that the profile fixes.

        Returns
        -------
        list of str
            As in `--partition=gpu`.
        """
        fixed = [f"--{option}={_plain(self.resources[key])}" for key, option in OPTIONS.items() if self.resources.get(key) is not None]
        return fixed + [f"--{option}={self.resources[key]}" for key, option in NUMBERS.items() if isinstance(self.resources.get(key), int)]


def _plain(value: object) -> str:
    """A value without the quotes that keep Snakemake from evaluating it."""
    return str(value).strip("'\"")


def jobs_of(profile: dict[str, Any], origin: Path) -> list[Job]:
    """The kinds of jobs that a profile makes: of rules without a GPU, and of those with one.

    Parameters
    ----------
    profile : dict
        Content of slurm/config.yaml.
    origin : Path
        The file, for the message.

    Returns
    -------
    list of Job
        First that of all other rules, then those of rules with a GPU, one for each set of resources.

    Raises
    ------
    InputError
        For another layout.
    """
    for key in ("default-resources", "set-resources"):
        if not isinstance(profile.get(key) or {}, dict):
            raise InputError(f"{origin}: {key} must be a mapping, one `name: value` a line")
    common, own = profile.get("default-resources") or {}, profile.get("set-resources") or {}
    kinds: dict[str, Job] = {}
    for rule in GPU_RULES:
        if not isinstance(own.get(rule, {}), dict):
            raise InputError(f"{origin}: set-resources: {rule} must be a mapping, as in {{gpu: 1}}")
        resources = common | {"gpu": 1} | own.get(rule, {})
        known = kinds.get(str(resources), Job((), resources))
        kinds[str(resources)] = Job((*known.rules, rule), resources)
    return [Job((), common), *kinds.values()]


@dataclass(frozen=True)
class Partition:
    """A partition of the cluster. limit: longest runtime; cpus: of its largest node; gres: its generic resources, as gpu:a100:4."""

    up: bool
    default: bool
    limit: str
    cpus: int
    gres: frozenset[str]

    @property
    def gpus(self) -> list[str]:
        """Its GPUs by node."""
        return sorted(each for each in self.gres if each.startswith("gpu"))


def read_partitions(listed: str) -> dict[str, Partition]:
    """Partitions of the cluster.

    Parameters
    ----------
    listed : str
        What sinfo lists as %P|%l|%m|%c|%G|%a, one line for nodes that are alike.

    Returns
    -------
    dict of Partition
        By name.
    """
    found: dict[str, Partition] = {}
    for line in listed.splitlines():
        name, limit, _, cpus, gres, state = line.split("|")
        plain = name.rstrip("*")
        before = found.get(plain, Partition(False, False, "", 0, frozenset()))
        most = max(before.cpus, int(cpus.rstrip("+")))
        found[plain] = Partition(state == "up", name.endswith("*"), limit, most, before.gres | set(gres.split(",")))
    return found


def _partitions_of(jobs: Iterable[Job]) -> set[str]:
    """Partitions that jobs are sent to; "" is the default one."""
    return {part for job in jobs for part in _plain(job.resources.get("slurm_partition") or "").split(",")}


def _default(partitions: dict[str, Partition]) -> str:
    return next((name for name, each in partitions.items() if each.default), "")


def check_partition(jobs: Iterable[Job], partitions: dict[str, Partition]) -> Finding:
    """Whether the partitions that jobs are sent to exist and are up; where none is named, whether there is a default.

    Parameters
    ----------
    jobs : iterable of Job
        Those that the profile makes.
    partitions : dict of Partition
        By name.

    Returns
    -------
    Finding
        `ok` or `fail`.
    """
    wanted, default = _partitions_of(jobs), _default(partitions)
    named = sorted({name or default for name in wanted})
    up = ", ".join(f"{name} (at most {each.limit})" for name, each in partitions.items() if each.up) or "none"
    mend = f"write a partition that is up as slurm_partition in the profile: {up}"
    if "" in named:
        return Finding("partition", "fail", "the profile names none, and the cluster has no default", mend)
    wrong = [f"{name} is down" if name in partitions else f"the cluster has no {name}" for name in named if not _up(name, partitions)]
    if wrong:
        return Finding("partition", "fail", "; ".join(wrong), mend)
    limits = [f"{name}{', the default' if '' in wanted and name == default else ''} (at most {partitions[name].limit})" for name in named]
    return Finding("partition", "ok", "; ".join(limits))


def check_cores(profile: dict[str, Any], jobs: Iterable[Job], partitions: dict[str, Partition]) -> Finding:
    """Whether a node has the CPUs that a job with several steps in it may ask for: `cores` of the profile.

    Parameters
    ----------
    profile : dict
        Content of slurm/config.yaml.
    jobs : iterable of Job
        Those that it makes.
    partitions : dict of Partition
        By name.

    Returns
    -------
    Finding
        `ok`, `warn` or `fail`.
    """
    default = _default(partitions)
    found = {each: partitions[each].cpus for each in {name or default for name in _partitions_of(jobs)} & set(partitions)}
    cores = profile.get("cores")
    if not isinstance(cores, int):
        return Finding("cores", "warn", "the profile sets none: steps in one job ask for the sum of their threads", "write cores: 8")
    small = {name: cpus for name, cpus in found.items() if cpus < cores}
    if small:
        named = ", ".join(f"the nodes of {name} have {cpus} CPUs at most" for name, cpus in small.items())
        return Finding("cores", "fail", f"{cores} in the profile, but {named}", f"write cores: {min(small.values())} in the profile")
    return Finding("cores", "ok", f"at most {cores} for a job with several steps")


def _up(name: str, partitions: dict[str, Partition]) -> bool:
    return name in partitions and partitions[name].up


def _accounts() -> list[str]:
    listed = ask("sacctmgr", "--noheader", "--parsable2", "show", "assoc", f"user={getpass.getuser()}", "format=account")
    return sorted(set(listed.out.lower().split()))


def check_account(jobs: Iterable[Job], accounts: list[str] | None) -> Finding:
    """Whether jobs are sent under accounts of the user's.

    Parameters
    ----------
    jobs : iterable of Job
        Those that the profile makes.
    accounts : list of str or None
        Those that Slurm knows, in lower case; None: accounting is off.

    Returns
    -------
    Finding
        `ok`, `warn` or `fail`.
    """
    wanted = sorted({_plain(job.resources["slurm_account"]) for job in jobs if job.resources.get("slurm_account")})
    named = ", ".join(wanted) or "the profile names none"
    if accounts is None:
        return Finding("account", "ok", f"{named}; accounting is off, so none is asked for")
    known = ", ".join(accounts)
    if not accounts:
        mend = "ask who runs the cluster for an account, if jobs are refused"
        return Finding("account", "warn", f"{named}; Slurm lists none for {getpass.getuser()}", mend)
    mend = f"write slurm_account in the profile: {known}"
    wrong = [each for each in wanted if each.lower() not in accounts]
    if wrong:
        return Finding("account", "fail", f"{', '.join(wrong)}: not an account of {getpass.getuser()}", mend)
    if not wanted:
        return Finding("account", "warn", "the profile names none: it is guessed for every job", mend)
    return Finding("account", "ok", named)


def check_gpu_request(job: Job, partitions: dict[str, Partition]) -> Finding:
    """Whether Slurm takes a job with the GPU that the profile asks for; otherwise whether it takes the other way of asking.

    Parameters
    ----------
    job : Job
        A kind of job with a GPU.
    partitions : dict of Partition
        By name; those with GPUs are named where both ways are refused.

    Returns
    -------
    Finding
        `ok`, `warn` or `fail`.
    """
    name = "GPU request"
    rules = ", ".join(job.rules)
    if not job.request:
        return Finding(name, "warn", f"the profile asks for none: {rules} run on CPUs", "write gpu: 1 for them under set-resources")
    answer = _accepted(job, job.request)
    if answer.ok:
        return Finding(name, "ok", f"{' '.join(job.request)} is accepted ({rules})")
    found = f"{' '.join([*job.options(), *job.request])} is refused ({rules}): {answer.words}"
    by_count = job.request[0].startswith("--gpus")
    count = job.request[0].partition("=")[2]
    other, line = (f"--gres=gpu:{count}", f'{{gpu: 0, gres: "gpu:{count}"}}') if by_count else ("--gpus=1", "{gpu: 1}")
    if _accepted(job, [other]).ok:
        return Finding(name, "fail", found, f"Slurm takes {other}: write {line} for these rules under set-resources in the profile")
    where = [f"{name} ({', '.join(each.gpus)})" for name, each in partitions.items() if each.gpus]
    with_gpus = f"partitions with GPUs: {'; '.join(where)}: write one as slurm_partition for these rules, within its limits"
    none = "no partition lists GPUs: write extraction.device: cpu in params.yaml"
    return Finding(name, "fail", found, with_gpus if where else none)


def _accepted(job: Job, request: list[str]) -> Answer:
    return ask("sbatch", "--test-only", *job.options(), *request, "--wrap=true", seconds=30)
