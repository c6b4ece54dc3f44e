import re
import shlex
from pathlib import Path

from snakemake.exceptions import WorkflowError

from singflow.config import LOCAL, check
from singflow.dependencies import code_files
from singflow.errors import InputError
from singflow.registry import resolve_models, resolve_spaces
from singflow.weights import refuse_space

try:
    check(config, "params.yaml")
    ENTRIES = {
        "model": resolve_models("models.yaml", config["models"], config["weights"]),
        "space": resolve_spaces("spaces.yaml", config["spaces"], config["weights"]),
    }
    if config["pictures"]["renderer"] == "unclip":
        for name, entry in ENTRIES["space"].items():
            refuse_space(name, entry)
except InputError as error:
    raise WorkflowError(f"the study is not valid:\n{error}") from None

RESULTS = f"results/{config['study']}"
THREADS = config["threads"]
KIND = config["translator"]["kind"]


def alternatives(names):
    return "|".join(map(re.escape, names))


def flags(section):
    """A section of params.yaml as flags, spelled as DVC spells `${section}`."""
    words = []
    for name, value in section.items():
        values = value if isinstance(value, list) else [value]
        words += [f"--{name}", *map(_word, values)] if values else []
    return " ".join(words)


def _word(value):
    return shlex.quote(value) if isinstance(value, str) else str(value)


def entry_of(kind):
    """The registry entry that a job depends on, as a parameter: a change of it, and of no other, re-runs the job."""
    return lambda wildcards: ENTRIES[kind][wildcards[kind]].model_dump_json()


def local_files(kind):
    """Files of the user's own that a model or space is made of."""
    return lambda wildcards: ENTRIES[kind][wildcards[kind]].local_files()


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
    folder = Path(config["pictures"]["generator"])
    return (
        sorted(map(str, filter(Path.is_file, folder.rglob("*"))))
        if folder.parts[0] == LOCAL
        else []
    )


def translators_of(wildcards):
    """The translators that a model has."""
    compared = wildcards.model in config["comparison"]["models"]
    kinds = [KIND, *config["comparison"]["kinds"]] if compared else [KIND]
    return expand(
        f"{RESULTS}/translators/{{space}}/{{model}}/{{kind}}.safetensors",
        kind=kinds,
        **wildcards,
    )


def grown(megabytes):
    """Memory that doubles with every attempt."""
    return lambda wildcards, attempt: megabytes * 2 ** (attempt - 1)
