import shlex
import shutil
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from singflow.commands.options import PARAMS, Params
from singflow.errors import InputError
from singflow.system import ask, existing, in_bytes, writable

Result = tuple[Literal["ok", "warn", "fail", "absent"], str]  # absent: there is nothing to check
PATIENCE = 60.0  # seconds in which a remote has to answer
OPTIONS = {"slurm_account": "account", "slurm_partition": "partition", "gpu": "gpus", "qos": "qos"}
OPTIONS |= {"cpus_per_task": "cpus-per-task", "mem_mb": "mem", "runtime": "time", "gres": "gres"}
OPTIONS |= {"constraint": "constraint", "slurm-qos": "qos", "slurm-reservation": "reservation"}


def doctor(
    params: Params = PARAMS,
    profile: Annotated[Path, typer.Option(help="Profile of the cluster.")] = Path("slurm"),
) -> None:
    """Check what will work here, and say how to fix the rest; exit status 1 if a check fails."""
    failed = False
    for check in (check_remote, check_study, check_weights, check_disk, check_device, check_slurm):
        try:
            status, found = check(params, profile)
        except InputError as error:
            status, found = "fail", str(error)
        print(f"{status:<8}{check.__name__[6:]:<9}{' '.join(found.split())}", flush=True)
        failed |= status == "fail"
        if check is check_study and status == "fail":  # the other checks need it
            break
    raise typer.Exit(int(failed))


def check_remote(*_: Path) -> Result:
    if not find_spec("dvc") or not Path(".dvc").is_dir():
        return "absent", "no DVC, or no repository of DVC in this folder"
    program = "from singflow.commands.doctor import ask_remote; ask_remote()"
    answer = ask(sys.executable, "-c", program, seconds=PATIENCE)  # some clients wait for ever
    if answer.ok:
        return "ok", f"{answer.out} answers"
    fix = "correct it: `dvc remote modify` or `dvc remote add --default` (docs/sharing.md)"
    return "fail", f"{answer.out} {answer.message.rpartition('; ')[2]} -> {fix}"


def ask_remote() -> None:
    """Ask DVC's default remote; one that is a folder must be writable."""
    from dvc.config import Config
    from dvc.fs import get_cloud_fs

    config = Config(".dvc")
    name = config["core"].get("remote") or sys.exit("no default remote is set")
    kind, options, path = get_cloud_fs(config, name=name)
    print(f"{name} ({config['remote'][name]['url']})")
    if kind.protocol == "local":
        if not writable(place := existing(Path(path))):
            sys.exit(f"{place} is not a folder that can be written to")
    elif kind.protocol in ("http", "https"):
        kind(**options).fs.exists(f"{path}/files/md5/00/0", strict=True)
    elif not any(map(kind(**options).exists, (path, *map(str, Path(path).parents)))):
        sys.exit("is not there")


@cache
def settled(params: Path) -> tuple[dict[str, Any], Any, dict[str, dict[str, Any]]]:
    """A study as it is written and as it is checked, with its models and spaces."""
    from singflow.study import read_layers, settle

    content = read_layers(params)
    return content, *settle(content, str(params))


def check_study(params: Path, _: Path) -> Result:
    return "ok", f"{settled(params)[1].study} in {params} is valid"


def check_weights(params: Path, _: Path) -> Result:
    from singflow.pictures.generator import find_generator
    from singflow.pictures.weights import generates
    from singflow.towers.weights import FETCH, missing

    study, entries = settled(params)[1:]
    kinds = ["space"] if study.data.source == "features" else ["model", "space"]
    towers = [item for kind in kinds for item in entries[kind].items()]
    absent = [f"{name}: {lacks}" for name, entry in towers if (lacks := missing(entry))]
    if absent:
        return "fail", f"missing: {', '.join(absent)} -> {FETCH}"
    if "pictures" in study.analyses and generates(study.pictures, entries["space"].values()):
        try:
            find_generator(study.pictures)
        except InputError as error:
            if study.pictures.renderer == "unclip":
                return "fail", str(error)
            return "warn", f"words replace pictures: {error}"
    return "ok", "all are here"


def check_disk(params: Path, _: Path) -> Result:
    from singflow.data.manifest import data_root
    from singflow.planning.sizes import disk_bytes, expected_images

    content, study, entries = settled(params)
    data_root(study.data.source, study.data.root)
    images = expected_images(content, Path("results", study.study))
    written = disk_bytes(content, images, entries["model"], entries["space"])
    free = shutil.disk_usage(existing(Path("results", study.study))).free
    found = f"{in_bytes(free)} free; the results of {images} images take {in_bytes(written)}"
    if free > written:
        return "ok", found
    return "fail", f"{found} -> free disk, or link results to a larger one"


def check_device(params: Path, _: Path) -> Result:
    from singflow.towers.device import name_of, pick_device, unseen

    wanted = settled(params)[1].extraction.device
    try:
        device = pick_device(wanted)
    except InputError as error:
        return "warn" if shutil.which("sbatch") else "fail", str(error)
    if wanted == "cpu" or device.type != "cpu":
        return "ok", name_of(device)
    return "warn", f"{unseen()}: towers run on the CPU here -> docs/installation.md, GPUs"


def check_slurm(params: Path, profile: Path) -> Result:
    """Ask Slurm for the largest job of each step, as Snakemake plans it by the profile."""
    from singflow.config.reading import read_yaml
    from singflow.planning.plan import list_jobs

    if not shutil.which("sbatch"):
        return "absent", "none here: `snakemake --cores all` runs a study on this machine alone"
    if " is UP" not in (answer := ask("scontrol", "ping")).out:
        return "fail", f"slurmctld does not answer: {answer.message} -> ask who runs the cluster"
    settings = read_yaml(profile / "config.yaml")
    if chosen_by := settings.get("slurm-partition-config"):
        return "ok", f"slurmctld answers; jobs are not tried, as {chosen_by} chooses partitions"
    planned = list_jobs(params, "--forceall", "--profile", str(profile))
    largest = {job.step: job for job in sorted(planned, key=lambda job: job.asked_mb)}
    for step, job in largest.items():
        asked = {**settings, **job.resources}
        words = [f"--{OPTIONS[key]}={asked[key]}" for key in OPTIONS if asked.get(key, "0") != "0"]
        words += shlex.split(asked.get("slurm_extra", ""))
        if not (answer := ask("sbatch", "--test-only", "--wrap=true", *words)).ok:
            found = f"{' '.join(words)} is refused ({step}): {answer.message}"
            return "fail", f"{found} -> correct {profile}/config.yaml (docs/cluster.md)"
    gpus = sum(job.gpu for job in largest.values())
    return "ok", f"takes the largest job of each of {len(largest)} steps, {gpus} with a GPU"
