from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from singflow.commands.options import PARAMS, Models, Params, Spaces
from singflow.errors import InputError

if TYPE_CHECKING:
    from singflow.towers.weights import WeightFile


def prefetch(
    params: Params = PARAMS,
    models: Models = Path("config/models.yaml"),
    spaces: Spaces = Path("config/spaces.yaml"),
) -> None:
    """Download the weights that a study needs into the caches, verify them and list them.

    The sizes are said first. After an interruption, the same command continues where it stopped.
    """
    from singflow.artifacts.files import sha256_of
    from singflow.config.registry import resolve_models, resolve_spaces
    from singflow.pictures.weights import generates, generator_files
    from singflow.study import read_params
    from singflow.towers.weights import required

    study = read_params(params)
    towers = resolve_spaces(spaces, study.spaces, study.weights)
    entries = [*resolve_models(models, study.models, study.weights).items(), *towers.items()]
    wanted: list[tuple[str, Callable[[], list[WeightFile]]]]
    wanted = [(name, partial(required, entry)) for name, entry in entries]
    if "pictures" in study.analyses and generates(study.pictures, towers.values()):
        wanted.append((study.pictures.generator, partial(generator_files, study.pictures)))
    failures: list[str] = []
    known: list[tuple[str, list[WeightFile]]] = []
    sizes: dict[WeightFile, tuple[str, int | None]] = {}
    for name, files in wanted:
        with _listed(failures, name):
            needed = files()
            sizes |= {file: (name, file.remaining()) for file in needed if file not in sizes}
            known.append((name, needed))
    _announce(sizes)
    rows = []
    for name, needed in known:
        with _listed(failures, name):
            for file in needed:
                path = file.fetch()
                if path is None:
                    continue
                found, expected = sha256_of(path), file.expected(path)
                if expected and not found.startswith(expected):
                    raise InputError(
                        f"{path.resolve()}: its SHA-256 is {found}, not {expected}: "
                        "remove the damaged file and fetch again"
                    )
                size, verdict = path.stat().st_size, "verified" if expected else "hash noted"
                label, version = file.label(path), file.version(path)
                rows.append((name, label, version, found[:16], _in_mib(size), verdict))
    rows = list(dict.fromkeys(rows))  # a file may be the only one of several that will do
    if rows:
        _print(rows, ["name", "file", "revision", "sha256", "size", ""])
    if failures:
        told = f"{len(failures)} of {len(wanted)} could not be had:"
        raise InputError("\n".join([told, *failures]))
    generator = " and the generator" if len(wanted) > len(entries) else ""
    print(
        f"Study {study.study}: {len(rows)} files for {len(entries)} models and spaces{generator}; "
        "every later step runs without a network."
    )


@contextmanager
def _listed(failures: list[str], name: str) -> Iterator[None]:
    """Add a failure to a list instead of raising it."""
    try:
        yield
    except InputError as error:
        failures.append(f"{name}: {error}")
    except Exception as error:  # noqa: BLE001 (hub clients and sockets raise many kinds)
        failures.append(f"{name}: cannot be fetched ({type(error).__name__}: {error})")


def _announce(sizes: dict["WeightFile", tuple[str, int | None]]) -> None:
    """Print the files that are to be downloaded: of whom, and bytes that are still to come."""
    rows = [
        (name, str(file), "size unknown" if size is None else _in_mib(size))
        for file, (name, size) in sizes.items()
        if size != 0
    ]
    if not rows:
        return
    _print(rows, ["to download for", "file", "to come"])
    total = sum(size or 0 for _, size in sizes.values())
    unknown = sum(size is None for _, size in sizes.values())
    more = f", and {unknown} of unknown size" if unknown else ""
    print(f"{len(rows)} files to download: {_in_mib(total)}{more}\n", flush=True)


def _print(rows: Sequence[tuple[str, ...]], columns: list[str]) -> None:
    import pandas as pd

    print(pd.DataFrame(rows, columns=columns).to_string(index=False))


def _in_mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
