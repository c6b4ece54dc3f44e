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

FOR_DVC = is_placeholder(config["study"])  # the rules are read to write dvc.yaml
PARAMS = "params.yaml"
CODE = Code(Path(workflow.basedir))

if not FOR_DVC:
    typed(config, workflow.config_settings.config)
    expand_home(config)
    try:
        CODE.accepted  # is read here, where a mistake in it can be told
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
    f'--manifest {RESULTS}/data/manifest.parquet --source {config["data"]["source"]} --root "{{params.root}}"'
    f' --max_pixels {config["data"]["max_pixels"]} --seed {config["seed"]} --threads {THREADS}'
)


def alternatives(names):
    return "|".join(map(re.escape, names))


# Values of params.yaml that hold any text reach a command by a function, whose text Snakemake leaves as it is.


def flags(*keys, **named):
    """A section of params.yaml as flags, or values by their keys: under the last part of a key, or the name given."""
    named = {key.rpartition(".")[2]: key for key in keys} | named
    if FOR_DVC:
        return lambda wildcards: flags_placeholder(config, named)
    found = {name: at(config, key) for name, key in named.items()}
    section = next(iter(found.values()))
    return lambda wildcards: spell(section if isinstance(section, dict) else found)


def value(key):
    """A value of params.yaml, or no file where it is null."""
    found = at(config, key)
    return lambda wildcards: [] if found is None else found


SELECTION = flags("models", "spaces")
COMPARISON = flags("spaces", "comparison.models", "comparison.kinds")


def whole_study(wildcards):
    """The study, as a parameter: a change of what it says, and not of how its file says it, is a change of it."""
    return [] if FOR_DVC else STUDY.model_dump_json()


def entry_of(kind):
    """The registry entry that a job depends on, as a parameter: a change of it, and of no other, re-runs the job."""
    if FOR_DVC:
        return []
    return lambda wildcards: ENTRIES[kind][wildcards[kind]].model_dump_json()


def local_files(kind):
    """Files of the user's own that a model or space is made of. DVC watches the registry whole."""
    if FOR_DVC:
        return f"config/{kind}s.yaml"
    return lambda wildcards: ENTRIES[kind][wildcards[kind]].local_files()


REFERENCE = (
    [] if FOR_DVC else fingerprint(config["translator"]["reference"]) or []
)  # a parameter: a change of the images that translators are fitted on re-runs what is fitted


def archives(wildcards):
    """What tells the archives of images from others, as a parameter: a change of them re-runs what lists them."""
    return [] if FOR_DVC else archives_here() or []


archives_here = cache(lambda: archives_of(config))


def shards(folder):
    return expand(
        f"{RESULTS}/{folder}/shard-{{shard}}.safetensors",
        shard=config["extraction"]["shard_ids"],
        allow_missing=True,
    )


def for_all(pattern):
    """The files of every model and space; or of every model, when the pattern names no space."""
    paths = expand(
        f"{RESULTS}/{pattern}", space=config["spaces"], model=config["models"]
    )
    return list(dict.fromkeys(paths))


def generator_files(wildcards):
    """Files of a generator of the user's own."""
    return [] if FOR_DVC else own_generator_files(STUDY.pictures)


def translators_of(wildcards):
    """The translators that a model has."""
    compared = wildcards.model in config["comparison"]["models"]
    kinds = [KIND, *config["comparison"]["kinds"]] if compared else [KIND]
    return expand(
        f"{RESULTS}/translators/{{space}}/{{model}}/{{kind}}.safetensors",
        kind=kinds,
        **wildcards,
    )


def captioned(path):
    """A file that people read, with its caption in report/captions and, in Snakemake's report, a place by its folder."""
    caption = f"../report/captions/{Path(path).stem}.rst"
    return report(path, caption=caption, category=Path(path).parent.name)


def table(name):
    return captioned(f"{RESULTS}/tables/{name}.csv")


def png(*names):
    return [captioned(f"{RESULTS}/figures/{name}.png") for name in names]


def pdf(*names):
    return [f"{RESULTS}/figures/{name}.pdf" for name in names]


def made(folder, ending):
    """What the rules so far write into a folder of the results."""
    outputs = [str(each) for step in workflow.rules for each in step.output]
    return [
        each
        for each in outputs
        if each.startswith(f"{RESULTS}/{folder}/") and each.endswith(ending)
    ]


def size_of(wildcards):
    """What the cost of a job depends on. Where a GPU is asked for, one is reckoned with."""
    entries = [ENTRIES[kind].get(wildcards.get(kind)) for kind in ("model", "space")]
    return costs.size_of(config, IMAGES_EXPECTED, *entries, gpu=bool(GPUS))


def generator_gpus(wildcards):
    """GPUs of a job that shows pictures: none where they are photos."""
    return GPUS if generates(STUDY.pictures, [ENTRIES["space"][wildcards.space]]) else 0


def memory(wildcards, attempt, rulename):
    """Megabytes: half as much again as expected, 1000 for Snakemake in the job, and what CUDA takes; twice as much with every further attempt."""
    cuda = CUDA_MB if "gpu" in workflow.get_rule(rulename).resources else 0
    return 2 ** (attempt - 1) * (
        1000 + cuda + ceil(1.5 * costs.peak_mb(rulename, size_of(wildcards)))
    )


def minutes(wildcards, attempt, rulename):
    """Three times as long as expected, and 5 minutes for a slow start; twice as long with every further attempt."""
    return 2 ** (attempt - 1) * (
        5 + ceil(3 * costs.seconds(rulename, size_of(wildcards)) / 60)
    )


COST = {"mem_mb": memory, "runtime": minutes}


def equip(step):
    """Give a step what all have: a log and a benchmark under its name, and the digest of the code that it reaches."""
    names = ["space", "model", "kind", "shard"]
    jobs = [f"{{{name}}}" for name in names if name in step.wildcard_names]
    place = Path(step.name, *jobs)
    step.log_modifier = step.benchmark_modifier = step.output_modifier
    step.set_log(f"{RESULTS}/logs/{place}.log")
    step.benchmark = f"{RESULTS}/benchmarks/{place}.tsv"
    step.set_params(code=lambda wildcards: CODE.digest(step.name))
