"""What every rule has in common: a step is named by the artifacts that it reads and writes, and the rest follows."""

import re
import sys
from functools import cache
from importlib.util import find_spec
from math import ceil
from pathlib import Path

from snakemake.exceptions import WorkflowError

INSTALLED = find_spec("singflow") is not None
if not INSTALLED:  # a bare clone can be linted and listed
    sys.path.insert(0, str(Path(workflow.basedir) / "src"))

from singflow.artifacts.catalog import CATALOG

PARAMS = "params.yaml"
ACCEPTED = "config/accepted.yaml"
FOR_DVC = str(config["study"]).startswith("$(")  # the rules are read to write dvc.yaml

if INSTALLED:
    from singflow.config.study import expand_home, layered, settle, typed
    from singflow.engines.code import Code, archives_of
    from singflow.engines.flags import flags_of
    from singflow.engines.stages import flags_placeholder
    from singflow.errors import InputError
    from singflow.pictures.weights import generates, own_generator_files
    from singflow.planning import costs
    from singflow.translators.reference import fingerprint

    CODE = Code(Path(workflow.basedir))

if INSTALLED and not FOR_DVC:
    typed(config, workflow.config_settings.config)
    expand_home(config)
    try:
        CODE.accepted  # a mistake in the file is told here
        STUDY, ENTRIES = settle(config, PARAMS)
        PARAMS = layered(config, PARAMS, main=workflow.is_main_process)
    except InputError as error:
        raise WorkflowError(f"the study is not valid:\n{error}") from None

RESULTS = f"results/{config['study']}"
THREADS = config["threads"]
GPUS = 0 if config["extraction"]["device"] == "cpu" else 1
CUDA_MB = 3000 * GPUS
ITEMS = {
    "space": config["spaces"],
    "model": config["models"],
    "kind": config["comparison"]["kinds"],
    "shard": config["extraction"]["shard_ids"],
}
STEPS = []


class Step:
    """A step: what it reads and writes, and what follows from that."""

    def __init__(
        self, name, reads, writes, keys, files, also, threads, gpu, models, tracked
    ):
        self.name = name
        self.program = f"scripts/{name}.py"
        self.local = CATALOG[writes[0]].group == "local"
        self.threads = threads
        self.wildcards = [
            item for item in ITEMS if item in CATALOG[writes[0]].wildcards
        ]
        self.input = (
            {_key(read): self._paths(read, models) for read in reads} | files | also
        )
        self.output = {_key(written): _captioned(written) for written in writes}
        self.resources = {"mem_mb": memory, "runtime": minutes}
        self.resources |= {} if gpu is None else {"gpu": gpu}
        self.params = {"flags": self._flags, "code": self._code} | tracked
        self._keys, self._files = keys, files
        self._sharded = "shard" not in self.wildcards and any(
            "shard" in CATALOG[read].wildcards for read in reads
        )

    def file(self, folder, ending):
        """A file of each job, named by the step and the wildcards."""
        jobs = [f"{{{item}}}" for item in self.wildcards]
        return f"{RESULTS}/{folder}/{Path(self.name, *jobs)}{ending}"

    def _paths(self, read, models):
        """The files of an artifact, for all models, spaces and so on that are not those of the job."""
        values = ITEMS | ({"model": config[models]["models"]} if models else {})
        others = [
            item for item in CATALOG[read].wildcards if item not in self.wildcards
        ]
        path = f"{RESULTS}/{CATALOG[read].path}"
        every = {item: values[item] for item in others}
        return expand(path, **every, allow_missing=True) if every else path

    def _flags(self, wildcards):
        """The flags of a job, as a parameter: a change of one of them re-runs it."""
        check_installed()
        shards = f"--shards {config['extraction']['shards']}" if self._sharded else ""
        values = (
            flags_placeholder(self._keys) if FOR_DVC else flags_of(config, self._keys)
        )
        words = [
            f"--results {RESULTS}",
            *(f"--{item} {wildcards[item]}" for item in self.wildcards),
            shards,
            values,
            *(
                f'--{flag} "{_found(file, wildcards)}"'
                for flag, file in self._files.items()
            ),
            f"--threads {THREADS}" if self.threads else "",
        ]
        return " ".join(filter(None, words))

    def _code(self, wildcards):
        """The digest of the code that the step reaches, as a parameter: a change of it re-runs the step."""
        check_installed()
        return CODE.digest(self.name)


def check_installed():
    if not INSTALLED:
        raise WorkflowError(
            f"singflow is not installed beside this snakemake: run `make workflow` in {HERE} and use "
            ".venv/bin/snakemake"
        )


def _found(file, wildcards):
    return file(wildcards) if callable(file) else file


def step(
    name, *, reads="", writes, flags="", files=None, also=None,
    threads=None, gpu=None, models=None, **tracked,
):  # fmt: skip
    """Declare a step.

    reads, writes: artifacts of the catalog. flags: keys of params.yaml that reach its command. files: other
    files that reach it, by flag. also: files that it depends on. threads: of its job, where it has a flag
    `--threads`. models: key of the models that it
    gathers. tracked: parameters whose change re-runs it, beyond its flags and its code.
    """
    STEPS.append(
        Step(
            name, reads.split(), writes.split(), flags.split(), files or {}, also or {},
            threads, gpu, models, tracked,
        )
    )  # fmt: skip


def alternatives(names):
    return "|".join(map(re.escape, names))


def _key(artifact):
    return re.sub(r"\W", "_", artifact)


def _captioned(artifact):
    """The path of an output; a table or figure has a caption, and a place in Snakemake's report by its folder."""
    path = Path(RESULTS, CATALOG[artifact].path)
    if path.parent.name not in ("tables", "figures") or path.suffix not in (
        ".csv",
        ".png",
    ):
        return str(path)
    return report(
        str(path),
        caption=f"../report/captions/{path.stem}.rst",
        category=path.parent.name,
    )


def figures(*names):
    """Artifacts of figures, by their names."""
    return " ".join(f"figures/{name}.{end}" for name in names for end in ("png", "pdf"))


def artifacts(folder, ending):
    """Artifacts in a folder of the results."""
    return [
        name
        for name in CATALOG
        if name.startswith(f"{folder}/") and name.endswith(ending)
    ]


def value(key):
    """A value of params.yaml that names a file; no file where it is null."""
    section, name = key.split(".")
    found = config[section][name]
    return lambda wildcards: [] if found is None else found


def whole_study(wildcards):
    """The study, as a parameter: what it says counts, and not how its file says it."""
    return [] if FOR_DVC else STUDY.model_dump_json()


def entry_of(kind):
    """The registry entry that a job depends on, as a parameter: a change of this entry alone re-runs the job."""
    if FOR_DVC:
        return []
    return lambda wildcards: ENTRIES[kind][wildcards[kind]].model_dump_json()


def local_files(kind):
    """The user's own files of a model or space; DVC watches the whole registry file instead."""
    if FOR_DVC:
        return f"config/{kind}s.yaml"
    return lambda wildcards: ENTRIES[kind][wildcards[kind]].local_files()


def reference(wildcards):
    """The state of the reference, as a parameter: a change of its images re-runs what is fitted on them."""
    return [] if FOR_DVC else fingerprint(config["translator"]["reference"]) or []


def archives(wildcards):
    """The state of archives of images, as a parameter: a change of them re-runs what lists them."""
    return [] if FOR_DVC else archives_here() or []


archives_here = cache(lambda: archives_of(config))


def generator_files(wildcards):
    """The files of the user's own generator, if there is one."""
    return [] if FOR_DVC else own_generator_files(STUDY.pictures)


def networks_of(wildcards):
    """The nonlinear translators of a model."""
    compared = wildcards.model in config["comparison"]["models"]
    path = f"{RESULTS}/{CATALOG['network'].path}"
    return (
        expand(path, kind=config["comparison"]["kinds"], **wildcards)
        if compared
        else []
    )


@cache
def expected_images():
    return costs.expected_images(config, Path(RESULTS))


def size_of(wildcards):
    """What the cost of a job depends on. Where a GPU is asked for, the cost is that of a GPU."""
    entries = [ENTRIES[kind].get(wildcards.get(kind)) for kind in ("model", "space")]
    return costs.size_of(config, expected_images(), *entries, gpu=bool(GPUS))


def generator_gpus(wildcards):
    """GPUs of a job that draws pictures: none if it shows photos."""
    return GPUS if generates(STUDY.pictures, [ENTRIES["space"][wildcards.space]]) else 0


def memory(wildcards, attempt, rulename):
    """Megabytes: 1.5 times the expected ones, 1000 for Snakemake in the job, and those of CUDA; doubled by every further attempt."""
    cuda = CUDA_MB if "gpu" in workflow.get_rule(rulename).resources else 0
    return 2 ** (attempt - 1) * (
        1000 + cuda + ceil(1.5 * costs.peak_mb(rulename, size_of(wildcards)))
    )


def minutes(wildcards, attempt, rulename):
    """Three times the expected ones, and 5 for a slow start; doubled by every further attempt."""
    return 2 ** (attempt - 1) * (
        5 + ceil(3 * costs.seconds(rulename, size_of(wildcards)) / 60)
    )
