"""What jobs of Snakemake depend on besides files and flags, and what they ask for."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from singflow.config.registry import whole_of as whole_of
from singflow.engines.code import digest_of, step_files
from singflow.engines.flags import flags_of as flags_of
from singflow.pictures.weights import generates, own_generator_files
from singflow.planning.sizes import sizes_of
from singflow.study import Params, images_state, render_params
from singflow.translators.reference import fingerprint

Entries = Mapping[str, Mapping[str, Any]]  # of the registries, by kind (model, space) and name


def code_of(step: str, checkout: Path) -> str:
    """The digest of the code of a step."""
    return digest_of(step_files(checkout)[step])


def state_of(
    kind: Literal["study", "model", "space", "reference", "images"],
    content: Mapping[str, Any],
    entries: Entries,
    results: str,
    wildcards: Mapping[str, str],
) -> str:
    """A text that changes with the study, the entry of the job's model or space, or with images."""
    if kind == "study":
        return render_params(content)
    if kind == "reference":
        return fingerprint(content["translator"]["reference"]) or ""
    if kind == "images":
        return images_state(content, Path(results)) or ""
    return str(entries[kind][wildcards[kind]].model_dump_json())


def files_of(
    kind: Literal["model", "space", "generator"],
    study: Params,
    entries: Entries,
    wildcards: Mapping[str, str],
) -> list[str]:
    """The user's own files of the job's model or space, or of the generator of pictures."""
    if kind == "generator":
        return own_generator_files(study.pictures)
    return list(entries[kind][wildcards[kind]].local_files())


def gpus_of(
    runs: Literal["tower", "network", "generator"],
    study: Params,
    entries: Entries,
    wildcards: Mapping[str, str],
) -> int:
    """GPUs of a job: 1 unless the study keeps to the CPU, or the job runs no network of images."""
    if study.extraction.device == "cpu":
        return 0
    if runs == "network":
        return 1
    of_whole = runs == "tower" and whole_of(entries["model"], wildcards.get("model", ""))
    if study.data.source == "features" or of_whole:
        return 0
    return int(runs == "tower" or generates(study.pictures, [entries["space"][wildcards["space"]]]))


def megabytes(
    content: Mapping[str, Any],
    entries: Entries,
    results: str,
    wildcards: Mapping[str, str],
    rows: float,
    widths: float,
    images: float,
    all_rows: float,
) -> int:
    """Memory of a job in 10^6 bytes, without that of its program and libraries.

    rows: times the float32 features and embeddings of the largest shard. widths: times a float64
    matrix of feature_dim x feature_dim. images: bytes for an image. all_rows: as rows, of all
    shards.
    """
    models, spaces = (
        {name: one for name, one in entries[kind].items() if wildcards.get(kind, name) == name}
        for kind in ("model", "space")
    )
    size = sizes_of(content, Path(results), models, spaces)
    row = 4 * (size.feature_dim + size.space_dim)
    every = size.images * content["extraction"]["views"]
    total = row * (rows * size.rows + all_rows * every) + images * size.images
    total += 8 * widths * size.feature_dim**2
    return math.ceil(total / 1e6)
