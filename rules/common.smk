import re
from functools import cache
from math import ceil
from pathlib import Path

from snakemake.exceptions import WorkflowError

from singflow.config.study import expand_home, layered, settle, typed
from singflow.engines.code import ACCEPTED, Code, archives_of
from singflow.engines.flags import at, spell
from singflow.engines.stages import flags_placeholder, is_placeholder
from singflow.errors import InputError
from singflow.pictures.weights import generates, own_generator_files
from singflow.planning import costs
from singflow.translators.reference import fingerprint

FOR_DVC = is_placeholder(config["study"])  # whether dvc.yaml is written from the rules
PARAMS = "params.yaml"
CODE = Code(Path(workflow.basedir))

if not FOR_DVC:
    typed(config, workflow.config_settings.config)
    expand_home(config)
    try:
        CODE.accepted  # read here, so that a mistake in it is reported with the study's
        STUDY, ENTRIES = settle(config, PARAMS)
        PARAMS = layered(config, PARAMS, main=workflow.is_main_process)
    except InputError as error:
        raise WorkflowError(f"the study is not valid:\n{error}") from None

RESULTS = f"results/{config['study']}"
THREADS = config["threads"]
DECODERS = (
    THREADS
    if FOR_DVC
    else max(THREADS, config["extraction"]["decode_threads"] or THREADS)
)
SHARDS = config["extraction"]["shards"]
KIND = config["translator"]["kind"]
GPUS = 0 if config["extraction"]["device"] == "cpu" else 1
CUDA_MB = 3000 * GPUS
IMAGES_EXPECTED = 0 if FOR_DVC else costs.expected_images(config, Path(RESULTS))
IMAGES = (
    f'--manifest {RESULTS}/data/manifest.parquet --source {config["data"]["source"]}'
    ' --root "{params.root}"'
    f' --max_pixels {config["data"]["max_pixels"]} --seed {config["seed"]} --threads {THREADS}'
)


def alternatives(names):
    return "|".join(map(re.escape, names))


# Values of params.yaml may hold any text, braces included. They reach a command through a function,
# because Snakemake does not change what a function returns.


def flags(*keys, **named):
    """A section of params.yaml as flags, or single values by their keys.

    The flag of a value has the last part of its key as name, or the name that is given.
    """
    named = {key.rpartition(".")[2]: key for key in keys} | named
    if FOR_DVC:
        return lambda wildcards: flags_placeholder(config, named)
    found = {name: at(config, key) for name, key in named.items()}
    section = next(iter(found.values()))
    return lambda wildcards: spell(section if isinstance(section, dict) else found)


def value(key):
    """A value of params.yaml, or no file if it is null."""
    found = at(config, key)
    return lambda wildcards: [] if found is None else found


SELECTION = flags("models", "spaces")
COMPARISON = flags("spaces", "comparison.models", "comparison.kinds")


def whole_study(wildcards):
    """The study, as a parameter: its content counts, and not the layout of its file."""
    return [] if FOR_DVC else STUDY.model_dump_json()


def entry_of(kind):
    """The job's registry entry, as a parameter: the job runs again if this entry changes."""
    if FOR_DVC:
        return []
    return lambda wildcards: ENTRIES[kind][wildcards[kind]].model_dump_json()


def local_files(kind):
    """The user's own files of a model or space; DVC watches the whole registry file instead."""
    if FOR_DVC:
        return f"config/{kind}s.yaml"
    return lambda wildcards: ENTRIES[kind][wildcards[kind]].local_files()


# a parameter: fits run again if the images of the reference change
REFERENCE = [] if FOR_DVC else fingerprint(config["translator"]["reference"]) or []


def archives(wildcards):
    """The state of the image archives, as a parameter: images are listed again if it changes."""
    return [] if FOR_DVC else archives_here() or []


archives_here = cache(lambda: archives_of(config))


def shards(folder):
    return expand(
        f"{RESULTS}/{folder}/shard-{{shard}}.safetensors",
        shard=config["extraction"]["shard_ids"],
        allow_missing=True,
    )


def for_all(pattern):
    """The files of every model and space, or of every model if the pattern names no space."""
    paths = expand(
        f"{RESULTS}/{pattern}", space=config["spaces"], model=config["models"]
    )
    return list(dict.fromkeys(paths))


def generator_files(wildcards):
    """The files of the user's own generator, if there is one."""
    return [] if FOR_DVC else own_generator_files(STUDY.pictures)


def translators_of(wildcards):
    """The translators of the job's model in the job's space."""
    compared = wildcards.model in config["comparison"]["models"]
    kinds = [KIND, *config["comparison"]["kinds"]] if compared else [KIND]
    return expand(
        f"{RESULTS}/translators/{{space}}/{{model}}/{{kind}}.safetensors",
        kind=kinds,
        **wildcards,
    )


def captioned(path):
    """A file for people, with its caption; in Snakemake's report, its folder is its category."""
    caption = f"../report/captions/{Path(path).stem}.rst"
    return report(path, caption=caption, category=Path(path).parent.name)


def table(name):
    return captioned(f"{RESULTS}/tables/{name}.csv")


def png(*names):
    return [captioned(f"{RESULTS}/figures/{name}.png") for name in names]


def pdf(*names):
    return [f"{RESULTS}/figures/{name}.pdf" for name in names]


def made(folder, ending):
    """Files of a results folder that the rules read so far write."""
    outputs = [str(path) for step in workflow.rules for path in step.output]
    return [
        path
        for path in outputs
        if path.startswith(f"{RESULTS}/{folder}/") and path.endswith(ending)
    ]


def size_of(wildcards):
    """The size of a job, from which its cost is estimated; with a GPU if the study asks for one."""
    entries = [ENTRIES[kind].get(wildcards.get(kind)) for kind in ("model", "space")]
    return costs.size_of(config, IMAGES_EXPECTED, *entries, gpu=bool(GPUS))


def generator_gpus(wildcards):
    """GPUs of a job that draws pictures: none if it shows photos."""
    return GPUS if generates(STUDY.pictures, [ENTRIES["space"][wildcards.space]]) else 0


def memory(wildcards, attempt, rulename):
    """Megabytes of a job, twice as many on every retry.

    They are 1.5 times the estimate, 1000 for Snakemake in the job, and the memory that CUDA takes.
    """
    cuda = CUDA_MB if "gpu" in workflow.get_rule(rulename).resources else 0
    return 2 ** (attempt - 1) * (
        1000 + cuda + ceil(1.5 * costs.peak_mb(rulename, size_of(wildcards)))
    )


def minutes(wildcards, attempt, rulename):
    """Three times the estimate, and 5 minutes for a slow start; twice as long on every retry."""
    return 2 ** (attempt - 1) * (
        5 + ceil(3 * costs.seconds(rulename, size_of(wildcards)) / 60)
    )


COST = {"mem_mb": memory, "runtime": minutes}


def equip(step):
    """Give a rule its log, its benchmark, and the digest of its code as a parameter."""
    names = ["space", "model", "kind", "shard"]
    jobs = [f"{{{name}}}" for name in names if name in step.wildcard_names]
    place = Path(step.name, *jobs)
    step.log_modifier = step.benchmark_modifier = step.output_modifier
    step.set_log(f"{RESULTS}/logs/{place}.log")
    step.benchmark = f"{RESULTS}/benchmarks/{place}.tsv"
    step.set_params(code=lambda wildcards: CODE.digest(step.name))
