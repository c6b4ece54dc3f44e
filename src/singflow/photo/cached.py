"""Fits to training images, cached on disk."""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from singflow import cli
from singflow.artifacts.files import Facts, sources_sha256
from singflow.artifacts.tensors import Tensors, provenance, read_tensors, write_tensors
from singflow.errors import InputError
from singflow.translators.reference import Paired, fingerprint


def cached(
    cache: Path,
    folder: Path,
    images: Paired,
    made_of: dict[str, Any],
    names: Sequence[str],
    make: Callable[[], tuple[Tensors, dict[str, Any]]],
) -> tuple[Tensors, Facts]:
    """The named tensors and the facts that `make` gives, in a file that is named by all inputs.

    folder: the results of the images. made_of: all that is fitted, beside the images.
    """
    inputs = {
        "images": [fingerprint(str(folder)), str(images.features), str(images.embeddings)],
        "made_of": made_of,
        "code": sources_sha256(".", "analyses", "translators", "towers", "photo"),
        "software": provenance(["scipy"])["software"],
    }
    digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
    path = cache / f"{digest}.safetensors"
    if path.is_file():
        try:
            return read_tensors(path, names)
        except InputError as error:
            cli.log.warning("%s; it is made again", error)
    started = time.perf_counter()
    # The matrices are small: on shared cores, several BLAS threads are slower than one.
    with threadpool_limits(1):
        tensors, facts = make()
    made = provenance(["scipy"], **facts)
    seconds = time.perf_counter() - started
    said = "fitted to %d images in %.1f s, and %s"
    try:
        write_tensors(path, tensors, made)
    except InputError as error:  # for instance in the checkout of another user
        cli.log.warning(said, len(images.manifest), seconds, f"not kept for other photos: {error}")
        return tensors, Facts(path, made)
    cli.log.info(said, len(images.manifest), seconds, f"kept in {cache}")
    return read_tensors(path, names)
