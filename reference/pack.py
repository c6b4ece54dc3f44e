"""Pack the results of a study as a reference: its manifest, features as float16, and embeddings."""

from pathlib import Path

import numpy as np
from pydantic import Field

from singflow import cli
from singflow.artifacts.catalog import CATALOG
from singflow.artifacts.files import staged, write_bytes
from singflow.artifacts.shards import read_manifest
from singflow.artifacts.tensors import read_tensors, write_tensors
from singflow.errors import InputError
from singflow.translators.reference import SHARDS


class Flags(cli.Command):
    results: Path = Field(description="results folder of a study")
    output: Path = Field(description="folder to write, to be named as translator.reference")


def pack(results: Path, output: Path) -> int:
    """Copy what a reference needs, and return the number of bytes written."""
    manifest = CATALOG["manifest"].at(results)
    read_manifest(manifest)
    shards = [path for kind in SHARDS for path, _ in CATALOG[kind].among(results)]
    if len({path.relative_to(results).parts[0] for path in shards}) < 2:
        raise InputError(f"{results}: holds no features and embeddings: run its study first")
    if output.exists() and any(output.iterdir()):
        raise InputError(f"{output}: holds files: remove it, or name another folder")
    texts = [path for kind in ("names", "texts") for path, _ in CATALOG[kind].among(results)]
    with staged(output.resolve()) as made:
        for path in [manifest, *texts, *shards]:
            copy = made / path.relative_to(results)
            if not path.is_relative_to(results / "features"):
                write_bytes(copy, path.read_bytes())
                continue
            tensors, facts = read_tensors(path, ["features", "image_id", "view"])
            with np.errstate(over="ignore"):
                half = tensors["features"].astype(np.float16)
            if not np.isfinite(half).all():
                raise InputError(
                    f"{path}: holds features beyond the range of float16: name {results} itself as "
                    "the reference"
                )
            write_tensors(copy, tensors | {"features": half}, dict(facts))
        size = sum(path.stat().st_size for path in made.rglob("*") if path.is_file())
        made.rename(output.resolve())
    return size


def main(flags: Flags) -> None:
    size = pack(flags.results, flags.output)
    print(f"{flags.output}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    cli.run_step(main, Flags)
