"""A step is named by the artifacts that it reads and writes, and its rule follows from them."""

import logging
import os
import re
import shlex
import sys
from functools import cache, partial
from importlib.util import find_spec
from math import ceil
from pathlib import Path
from runpy import run_path

from snakemake.exceptions import WorkflowError

MODULE = workflow.modifier.namespace
SOURCE = workflow.current_basedir.get_basedir().get_path_or_uri(secret_free=True)
# Elsewhere, files of the workflow are those of the checkout that holds the package.
AT_HOME = not MODULE and Path(SOURCE).resolve() == Path.cwd()
INSTALLED = find_spec("singflow") is not None
MISSING = (
    "singflow is not installed beside this snakemake: run `make workflow` in a checkout of "
    f"{SOURCE} and use its .venv/bin/snakemake"
)
# The folder of a module's results, which its user names, may need quotes in a shell.
COMMAND = "python {params.program} {params.flags} --log " + (
    "{log:q}" if MODULE else "{log}"
)
PARAMS = "params.yaml"
ACCEPTED = "config/accepted.yaml"
# Whether the rules are read to write dvc.yaml: values of the study are placeholders of DVC then.
FOR_DVC = config.get("for_dvc") == ()  # which no file and no option can say

if INSTALLED:
    import singflow
    from singflow.artifacts.catalog import CATALOG, FORMATS
    from singflow.engines.code import Code, accepted_file, archives_of
    from singflow.engines.flags import flags_of
    from singflow.errors import InputError
    from singflow.pictures.weights import generates, own_generator_files
    from singflow.planning import costs
    from singflow.study import completed, expand_home, layered, parse_texts, settle
    from singflow.translators.reference import fingerprint

    ROOT = Path.cwd() if AT_HOME else Path(singflow.__file__).parents[2]
    ACCEPTED = str(accepted_file(ROOT))
    CODE = Code(ROOT, Path(ACCEPTED))
    # The environment of `--sdm conda` installs the package from there.
    os.environ.update(SINGFLOW_CHECKOUT=str(ROOT))
elif AT_HOME:  # a bare clone can be linted and listed, but not run
    bare = run_path("src/singflow/artifacts/catalog.py")
    CATALOG, FORMATS = map(bare.get, ("CATALOG", "FORMATS"))
else:
    raise WorkflowError(MISSING)

if not AT_HOME:
    theirs, ours = Path(workflow.source_path("common.smk")), ROOT / "rules/common.smk"
    # Snakemake strips what it fetches from a host of repositories.
    if not ours.is_file() or ours.read_text().strip() != theirs.read_text().strip():
        raise WorkflowError(
            f"the installed singflow, of {ROOT}, and the rules, of {SOURCE}, are not of one "
            "version: run `make workflow` in a checkout of the version of the rules"
        )
if INSTALLED and not FOR_DVC:
    if not MODULE:
        parse_texts(config, workflow.config_settings.config)
    expand_home(config)
    if not workflow.is_main_process:  # which has said already what is worth knowing
        logging.getLogger("singflow").setLevel(logging.ERROR)
    try:
        CODE.accepted  # a mistake in this file is reported here
        if not AT_HOME:
            config = completed(config)
        STUDY, ENTRIES = settle(config, f"config of {MODULE}" if MODULE else PARAMS)
        PARAMS = layered(config, PARAMS, main=workflow.is_main_process)
    except InputError as error:
        raise WorkflowError(f"the study is not valid:\n{error}") from None

RESULTS = f"<results>/{config['study']}"
THREADS = config["threads"]
GPUS = 0 if config["extraction"]["device"] == "cpu" else 1
# No tower runs on imported features.
TOWER_GPUS = 0 if config["data"]["source"] == "features" else GPUS
CUDA_MB = 3000
ITEMS = {
    "space": config["spaces"],
    "model": config["models"],
    "kind": config["comparison"]["kinds"],
    "shard": config["extraction"]["shard_ids"],
}
STEPS = []


class Step:
    """A step: what it reads and writes, and what follows from that.

    reads, writes: artifacts of the catalog; the first that it writes says what jobs there are
    (wildcards), and their group and GPU. figures: names of figures that it writes, in all
    formats. flags: keys of params.yaml that reach its command. files: other files that reach it, by
    flag. also: files that it depends on. stops: files that reach it, by flag, and can stop it, but
    change nothing that it writes: no engine watches them. threads: of its job, if it has a flag
    `--threads`.
    models: section of params.yaml whose models it gathers. tracked: parameters whose change
    re-runs it, beyond its flags and its code.
    """

    def __init__(
        self, name, *, reads="", writes="", figures="", flags="", files=None, also=None,
        stops=None, threads=None, models=None, **tracked,
    ):  # fmt: skip
        reads, writes = reads.split(), writes.split()
        for figure in figures.split():
            writes += [f"figures/{figure}.{kind}" for kind in FORMATS]
        first = CATALOG[writes[0]]
        self.name, self.reads, self.writes = name, {*reads}, {*writes}
        self.program = (
            f"-m singflow.figures.{name}"
            if name.startswith("plot_")
            else shlex.quote(shipped(f"scripts/{name}.py"))
        )
        self.local = first.group == "local"
        self.threads = threads
        self.wildcards = [item for item in ITEMS if item in first.wildcards]
        self._values = ITEMS | ({"model": config[models]["models"]} if models else {})
        self._keys, self._files = flags.split(), files or {}
        of_one = self.wildcards and "shard" not in self.wildcards
        self._gathers_shards = of_one and any(
            "shard" in CATALOG[read].wildcards for read in reads
        )
        self.input = {_key(read): self._paths(read) for read in reads}
        self.input |= self._files | (also or {})
        if not INSTALLED:
            self.input = {"package": refuse}
        self.output = {_key(written): _captioned(written) for written in writes}
        self.resources = {
            "mem_mb": partial(memory, self),
            "runtime": partial(minutes, self),
        }
        self.resources |= GPU_RESOURCES[first.gpu]
        # slurm/config.yaml: the steps of a group take turns
        self.resources |= {} if first.group in ("local", "") else {"turn": 1}
        self.params = {"flags": self._flags, "code": self._code}
        if stops:
            words = "".join(f' --{flag} "{file}"' for flag, file in stops.items())
            self.params["values"] = self._flags
            # Snakemake does not watch a parameter that depends on the output, so that it watches
            # `values` in place of `flags`.
            self.params["flags"] = lambda wildcards, output: (
                self._flags(wildcards) + words
            )
        self.params |= dict.fromkeys(tracked, []) if FOR_DVC else tracked

    def file(self, folder, ending):
        """A file of each job, named by the step and the wildcards."""
        jobs = [f"{{{item}}}" for item in self.wildcards]
        return f"{RESULTS}/{folder}/{Path(self.name, *jobs)}{ending}"

    def _paths(self, read):
        """The files of an artifact, for every model, space and so on that the job does not name."""
        path = f"{RESULTS}/{CATALOG[read].path}"
        others = [
            item for item in CATALOG[read].wildcards if item not in self.wildcards
        ]
        every = {item: self._values[item] for item in others}
        return expand(path, **every, allow_missing=True) if every else path

    def _flags(self, wildcards):
        """The flags of a job, as a parameter: a change of one of them re-runs it."""
        folder = shlex.quote(results()) if MODULE else results()
        words = [f"--results {folder}"]
        words += [f"--{item} {wildcards[item]}" for item in self.wildcards]
        if self._gathers_shards:
            words.append(f"--shards {config['extraction']['shards']}")
        if self._keys:
            words.append(flags_of(config, self._keys, for_dvc=FOR_DVC))
        for flag, file in self._files.items():
            words.append(f'--{flag} "{file(wildcards) if callable(file) else file}"')
        if self.threads:
            words.append(f"--threads {THREADS}")
        return " ".join(words)

    def _code(self, wildcards):
        """The digest of the code that the step reaches, as a parameter."""
        return CODE.digest(self.name)


def step(name, **parts):
    """Declare a step."""
    STEPS.append(Step(name, **parts))


@cache
def steps_after(step):
    """The number of steps in the longest chain that waits for a step."""
    waiting = (other for other in STEPS if step.writes & other.reads)
    return max((1 + steps_after(other) for other in waiting), default=0)


def refuse(wildcards):
    """The input of every step where the package is missing."""
    sys.exit(MISSING)


def results():
    """The study's folder, below the prefix or path variable of a module."""
    return str(Path(rules.resolve_study.output.params).parent)


def shipped(path):
    """A file of the workflow."""
    return path if AT_HOME else str(ROOT / path)


def alternatives(names):
    return "|".join(map(re.escape, names))


def _key(artifact):
    return re.sub(r"\W", "_", artifact)


def _captioned(artifact):
    """The path of an output; in Snakemake's report, tables and figures have captions."""
    path = Path(RESULTS, CATALOG[artifact].path)
    folder, ending = path.parent.name, path.suffix
    if folder not in ("tables", "figures") or ending not in (".csv", ".png"):
        return str(path)
    caption = f"report/captions/{path.stem}.rst"
    return report(str(path), caption=caption, category=folder)


def artifacts(folder, ending=""):
    """Artifacts in a folder of the results."""
    names = [name for name in CATALOG if name.startswith(f"{folder}/")]
    return [name for name in names if name.endswith(ending)]


def value(key):
    """A value of params.yaml that names a file; no file where it is null."""
    section, name = key.split(".")
    found = config[section][name]
    return lambda wildcards: [] if found is None else local(found)


# Values of these functions are parameters: a job runs again if its value changes.


def whole_study(wildcards):
    """The study: its content counts, and not the layout of its file."""
    return STUDY.model_dump_json()


def entry_of(kind):
    """The registry entry of the job's model or space."""
    return lambda wildcards: ENTRIES[kind][wildcards[kind]].model_dump_json()


def reference(wildcards):
    """The state of the images of the reference."""
    return fingerprint(config["translator"]["reference"]) or []


@cache
def archives_here():
    return archives_of(config, Path(results())) or []


def archives(wildcards):
    """The state of the archives of images."""
    return archives_here()


def local_files(kind):
    """The user's own files of a model or space; DVC watches both registries as a whole instead."""
    if FOR_DVC:
        return [f"config/{kind}s.yaml", f"src/singflow/packaged/{kind}s.yaml"]
    return lambda wildcards: [
        local(file) for file in ENTRIES[kind][wildcards[kind]].local_files()
    ]


def generator_files(wildcards):
    """The files of the user's own generator, if there is one."""
    return [] if FOR_DVC else list(map(local, own_generator_files(STUDY.pictures)))


def networks_of(wildcards):
    """The nonlinear translators of a model."""
    if wildcards.model not in config["comparison"]["models"]:
        return []
    path = f"{RESULTS}/{CATALOG['network'].path}"
    return expand(path, kind=config["comparison"]["kinds"], **wildcards)


@cache
def expected_images():
    return costs.expected_images(config, Path(results()))


def has_gpu(step):
    return bool(GPUS and "gpu" in step.resources)


def size_of(wildcards, gpu):
    """What the cost of a job depends on."""
    entries = [ENTRIES[kind].get(wildcards.get(kind)) for kind in ("model", "space")]
    return costs.size_of(config, expected_images(), *entries, gpu=gpu)


def generator_gpus(wildcards):
    """GPUs of a job that draws pictures: none if it shows words."""
    return (
        TOWER_GPUS
        if generates(STUDY.pictures, [ENTRIES["space"][wildcards.space]])
        else 0
    )


# Resources of a job by what it runs on a GPU, as the catalog says.
GPU_RESOURCES = {
    "": {},
    "tower": {"gpu": TOWER_GPUS},
    "network": {"gpu": GPUS},
    "generator": {"gpu": generator_gpus},
}
if TOWER_GPUS and not FOR_DVC:  # cores that decode images
    decoders = config["extraction"]["decode_threads"]
    GPU_RESOURCES["tower"]["cpus_per_task"] = decoders


def memory(step, wildcards, attempt):
    """Megabytes: 1.5 times the expected ones, 1000 for Snakemake in the job, and those of CUDA.

    Every further attempt has twice as many.
    """
    gpu = has_gpu(step)
    expected = costs.peak_mb(step.name, size_of(wildcards, gpu))
    return 2 ** (attempt - 1) * (1000 + CUDA_MB * gpu + ceil(1.5 * expected))


def minutes(step, wildcards, attempt):
    """Three times the expected minutes, and 5 for a slow start.

    Every further attempt has twice as many.
    """
    expected = costs.seconds(step.name, size_of(wildcards, has_gpu(step))) / 60
    return 2 ** (attempt - 1) * (5 + ceil(3 * expected))
