"""Helpers of the rules: paths, flags, what a step depends on, and what its jobs ask for."""

import os
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from runpy import run_path

from snakemake.exceptions import WorkflowError

MODULE = workflow.modifier.namespace  # its name, where another workflow uses this one as a module
SOURCE = workflow.current_basedir.get_basedir().get_path_or_uri(secret_free=True)
AT_HOME = not MODULE and Path(SOURCE).resolve() == Path.cwd()
CATALOG = run_path(workflow.source_path("../src/singflow/artifacts/catalog.py"))["CATALOG"]
CHECKOUT, PARAMS, STUDY, ENTRIES = Path(), "params.yaml", None, {}

if find_spec("singflow"):  # a bare clone can be linted and listed, but not run
    import singflow
    from singflow.errors import InputError
    from singflow.planning import jobs
    from singflow.study import in_force

    CHECKOUT = Path.cwd() if AT_HOME else Path(singflow.__file__).parents[2]
    os.environ.update(SINGFLOW_CHECKOUT=str(CHECKOUT))  # which `--sdm conda` installs
    given, main = workflow.config_settings.config, workflow.is_main_process
    try:
        config, STUDY, ENTRIES, PARAMS = in_force(config, given, MODULE, here=AT_HOME, main=main)
    except InputError as error:
        raise WorkflowError(f"the study is not valid:\n{error}") from None

RESULTS = f"<results>/{config['study']}"


def at(artifact):
    """The path of an artifact of src/singflow/artifacts/catalog.py."""
    return f"{RESULTS}/{CATALOG[artifact].path}"


def shards(artifact):
    """The shards of an artifact, of the job's model or space."""
    return expand(at(artifact), shard=config["extraction"]["shard_ids"], allow_missing=True)


def whole(*artifacts):
    """Artifacts of the model whose head the job's model has a part of; none if the study has none."""

    def of_job(wildcards):
        names = {**wildcards, "model": package().whole_of(ENTRIES["model"], wildcards.model)}
        return [at(name).format(**names) for name in artifacts if names["model"]]

    return of_job


def every(*artifacts, models=config["models"]):
    """The files of artifacts, for all spaces, networks, shards and (unless given) models."""
    compared, paths = config["comparison"], []
    for path in map(at, artifacts):
        of_models = compared["models"] if "{kind}" in path else models
        items = {"kind": compared["kinds"], "shard": config["extraction"]["shard_ids"]}
        paths += expand(path, model=of_models, space=config["spaces"], **items)
    return paths


def asked(*artifacts):
    """Those of the artifacts that the verdict needs or that `analyses` in params.yaml asks for."""
    return [name for name in artifacts if CATALOG[name].analysis in ("", *config["analyses"])]


def tier(name):
    """The artifacts of a tier that the study asks for."""
    return asked(*(artifact for artifact in CATALOG if CATALOG[artifact].tier == name))


def captioned(artifact):
    """The path of a table or figure; Snakemake's report shows its caption."""
    caption = f"../report/captions/{Path(artifact).stem}.rst"
    return report(at(artifact), caption=caption, category=Path(artifact).parent.name)


def figure(name):
    """The files of a figure."""
    return [captioned(f"figures/{name}.png"), at(f"figures/{name}.pdf"), at(f"figures/{name}.svg")]


def logs(job):
    """The log of a job, which its step and wildcards name."""
    return f"{RESULTS}/logs/{job}.log"


def benchmarks(job):
    """The file for the time and memory of a job."""
    return f"{RESULTS}/benchmarks/{job}.tsv"


def shipped(path):
    """A file of the workflow: relative in its checkout, elsewhere in that of the package."""
    return path if AT_HOME else str(CHECKOUT / path)


def own(key):
    """The user's file that a key of params.yaml names, as an input."""
    section, name = key.split(".")
    return local(config[section][name])


def results():
    """The study's folder, below the prefix of a module."""
    folder = str(Path(rules.resolve_study.output.params).parent)
    if not re.fullmatch(r"[\w./-]+", folder):
        sys.exit(f"{folder}: give the module a prefix of letters, digits and . _ - /")
    return folder


def package():
    """What the package tells the rules of a job; stops where its checkout is not installed."""
    if STUDY is None or not (CHECKOUT / "scripts").is_dir():
        sys.exit(
            "no checkout of singflow is installed beside this snakemake: run `make workflow` in a "
            f"checkout of {SOURCE} and use its .venv/bin/snakemake"
        )
    return jobs


def step(name, keys=""):
    """Parameters of a step: its program, its flags (results, wildcards, and values of params.yaml by
    their keys), and the digest of its program and modules, by src/singflow/engines/code.py."""
    drawn = name.startswith("plot_")

    def flags(wildcards):
        items = [name for name in ("space", "model", "kind", "shard") if name in wildcards.keys()]
        words = [f"--results {results()}", *(f"--{name} {wildcards[name]}" for name in items)]
        return " ".join([*words, package().flags_of(config, keys.split())]).strip()

    return {
        "program": f"-m singflow.figures.{name}" if drawn else shipped(f"scripts/{name}.py"),
        "flags": flags,
        "code": lambda wildcards: package().code_of(name, CHECKOUT),
    }


def state(kind):
    """The `study`, the entry of the job's `model` or `space`, the `reference`, or the `images`."""
    return lambda wildcards: package().state_of(kind, config, ENTRIES, results(), wildcards)


def own_files(kind):
    """The user's files of the job's `model` or `space`, or of the `generator`, as inputs."""
    return lambda wildcards: local(package().files_of(kind, STUDY, ENTRIES, wildcards))


def gpus(runs):
    """GPUs of a job that runs a `tower`, a `network` or a `generator` of pictures."""
    return lambda wildcards: package().gpus_of(runs, STUDY, ENTRIES, wildcards)


def decoders(wildcards):
    """Cores of a job that runs a tower: those that decode images for a GPU."""
    return config["extraction"]["decode_threads"] if gpus("tower")(wildcards) else config["threads"]


def memory(base, rows=0, widths=0, images=0, all_rows=0):
    """Megabytes of a job, twice as many at every retry: base, `rows` times the largest shard,
    `widths` times a float64 matrix of feature_dim x feature_dim, `images` bytes an image, and
    `all_rows` times all shards."""
    parts = rows, widths, images, all_rows
    return lambda wildcards, attempt: 2 ** (attempt - 1) * (
        base + package().megabytes(config, ENTRIES, results(), wildcards, *parts)
    )


def minutes(first):
    """Minutes of a job, twice as many at every retry."""
    return lambda wildcards, attempt: 2 ** (attempt - 1) * first


SHORT, MEDIUM, LONG = minutes(20), minutes(120), minutes(720)
STEERED = len(config["steering"]["prompts"]) * len(config["steering"]["target_is_deg"])
