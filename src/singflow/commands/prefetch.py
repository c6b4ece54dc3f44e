import logging
import time
from pathlib import Path

from singflow.commands.options import PARAMS, Params
from singflow.errors import InputError, brief


def prefetch(params: Params = PARAMS) -> None:
    """Download what a study needs: each model and space is built once by its library.

    The libraries keep what they download in their caches, and continue after an interruption.
    """
    from singflow.config.registry import (
        MODELS,
        SPACES,
        ModelEntry,
        resolve_models,
        resolve_spaces,
        whole_of,
    )
    from singflow.data.vocabulary import with_classes_and_hashes
    from singflow.pictures.weights import generates, generator_folder
    from singflow.study import read_params
    from singflow.towers.spaces import fetch
    from singflow.towers.weights import in_hub

    study = read_params(params)
    spaces = resolve_spaces(SPACES, study.spaces, study.weights)
    names = [] if study.data.source == "features" else study.models
    models = resolve_models(MODELS, names, study.weights)
    built = [(name, entry) for name, entry in models.items() if not whole_of(models, name)]
    towers = [*built, *spaces.items()]
    failures = []
    logging.disable(logging.INFO)  # open_clip tells every step of a build
    for name, entry in towers:
        started = time.perf_counter()
        try:
            if isinstance(entry, ModelEntry):
                entry = with_classes_and_hashes(entry, MODELS, name, Path(study.data.classes))
            sha256 = fetch(entry)
            held = in_hub(entry)
            found = held and held.find()
            of = f"{held.repository}@{found.parent.name[:12]}" if held and found else entry.source
            took = time.perf_counter() - started
            print(f"{name}: {of}, weights {sha256[:16]}, {took:.1f} s", flush=True)
        except Exception as error:  # noqa: BLE001 (every library and client raises its own kinds)
            failures.append(f"{name}: {error if isinstance(error, InputError) else brief(error)}")
    generator = study.pictures.generator
    drawn = "pictures" in study.analyses and generates(study.pictures, spaces.values())
    if drawn:
        try:
            print(f"{generator}: {generator_folder(study.pictures, download=True)}", flush=True)
        except Exception as error:  # noqa: BLE001
            failures.append(f"{generator}: {brief(error)}")
    if failures:
        told = f"{len(failures)} of {len(towers) + drawn} could not be had:"
        raise InputError("\n".join([told, *failures]))
    print(
        f"Study {study.study}: {len(towers)} models and spaces{' and the generator' * drawn} are "
        "here; every later step runs without a network."
    )
