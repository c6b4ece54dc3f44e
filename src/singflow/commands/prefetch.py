"""Download the weights that a study needs into the caches, verify them and list them; the only script that uses the network."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from singflow import cli
from singflow.config import check, read_yaml
from singflow.errors import InputError
from singflow.registry import resolve_models, resolve_spaces
from singflow.store import sha256_of
from singflow.weights import WeightFile, generates, generator_files, required


class Flags(cli.Command):
    """Download the weights that a study needs into the caches, verify them and list them."""

    params: Path = Path("params.yaml")
    models: Path = Path("models.yaml")
    spaces: Path = Path("spaces.yaml")


def main(flags: Flags) -> None:
    study = check(read_yaml(flags.params), str(flags.params))
    spaces = resolve_spaces(flags.spaces, study.spaces, study.weights)
    entries = [*resolve_models(flags.models, study.models, study.weights).items(), *spaces.items()]
    wanted: list[tuple[str, Callable[[], list[WeightFile]]]] = [(name, partial(required, entry)) for name, entry in entries]
    if generates(study.pictures, spaces.values()):
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
                    raise InputError(f"{path.resolve()}: its SHA-256 is {found}, not {expected}: remove the damaged file and fetch again")
                size = f"{path.stat().st_size / 2**20:.1f} MiB"
                rows.append((name, file.label(path), file.version(path), found[:16], size, "verified" if expected else "hash noted"))
        except InputError as error:
            failures.append(f"{name}: {error}")
        except Exception as error:  # noqa: BLE001 (hub clients and sockets raise many kinds)
            failures.append(f"{name}: cannot be fetched ({type(error).__name__}: {error})")
    if rows:
        import pandas as pd

        columns = ["name", "file", "revision", "sha256", "size", ""]
        print(pd.DataFrame(rows, columns=columns).to_string(index=False))
    if failures:
        raise InputError("\n".join([f"{len(failures)} of {len(wanted)} could not be had:", *failures]))
    needed = f"{len(entries)} models and spaces" + (" and the generator" if len(wanted) > len(entries) else "")
    print(f"Study {study.study}: {len(rows)} files for {needed}; every later step runs without a network.")


if __name__ == "__main__":
    cli.run(main, Flags, offline=False)
