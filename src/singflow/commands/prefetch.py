from collections.abc import Callable
from functools import partial
from pathlib import Path

from singflow.commands.options import PARAMS, Models, Params, Spaces
from singflow.errors import InputError


def prefetch(
    params: Params = PARAMS,
    models: Models = Path("config/models.yaml"),
    spaces: Spaces = Path("config/spaces.yaml"),
) -> None:
    """Download the weights that a study needs into the caches, verify them and list them."""
    from singflow.artifacts.files import sha256_of
    from singflow.config.registry import resolve_models, resolve_spaces
    from singflow.pictures.weights import generates, generator_files
    from singflow.study import read_params
    from singflow.towers.weights import WeightFile, required

    study = read_params(params)
    towers = resolve_spaces(spaces, study.spaces, study.weights)
    entries = [*resolve_models(models, study.models, study.weights).items(), *towers.items()]
    wanted: list[tuple[str, Callable[[], list[WeightFile]]]]
    wanted = [(name, partial(required, entry)) for name, entry in entries]
    if generates(study.pictures, towers.values()):
        wanted.append((study.pictures.generator, partial(generator_files, study.pictures)))
    rows, failures = [], []
    for name, files in wanted:
        try:
            for file in files():
                path = file.fetch()
                if path is None:
                    continue
                found, expected = sha256_of(path), file.expected(path)
                if expected and not found.startswith(expected):
                    raise InputError(
                        f"{path.resolve()}: its SHA-256 is {found}, not {expected}: "
                        "remove the damaged file and fetch again"
                    )
                size = f"{path.stat().st_size / 2**20:.1f} MiB"
                verdict = "verified" if expected else "hash noted"
                rows.append((name, file.label(path), file.version(path), found[:16], size, verdict))
        except InputError as error:
            failures.append(f"{name}: {error}")
        except Exception as error:  # noqa: BLE001 (hub clients and sockets raise many kinds)
            failures.append(f"{name}: cannot be fetched ({type(error).__name__}: {error})")
    rows = list(dict.fromkeys(rows))  # a file may be the only one of several that will do
    if rows:
        import pandas as pd

        columns = ["name", "file", "revision", "sha256", "size", ""]
        print(pd.DataFrame(rows, columns=columns).to_string(index=False))
    if failures:
        told = f"{len(failures)} of {len(wanted)} could not be had:"
        raise InputError("\n".join([told, *failures]))
    generator = " and the generator" if len(wanted) > len(entries) else ""
    print(
        f"Study {study.study}: {len(rows)} files for {len(entries)} models and spaces{generator}; "
        "every later step runs without a network."
    )
