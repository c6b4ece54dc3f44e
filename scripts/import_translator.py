"""Turn a released translator (a folder with metadata.yaml and its checkpoint) into an artifact that a study can name."""

from pathlib import Path

from singflow import cli
from singflow.errors import InputError
from singflow.registry import OpenCLIPEntry, resolve_models, resolve_spaces
from singflow.released import read_release
from singflow.store import SCHEMA_VERSION, sha256_of, write_tensors
from singflow.translator import imported_path


class Flags(cli.Command):
    """Turn a released translator (a folder with metadata.yaml and its checkpoint) into an artifact that a study can name."""

    release: Path
    model: str
    space: str = "clip_vit_l14"
    models: Path = Path("models.yaml")
    spaces: Path = Path("spaces.yaml")


def main(flags: Flags) -> None:
    model = resolve_models(flags.models, [flags.model])[flags.model]
    space = resolve_spaces(flags.spaces, [flags.space])[flags.space]
    release = read_release(flags.release)
    out_dim, in_dim = release.translator.weight.shape
    if not isinstance(space, OpenCLIPEntry) or space.id != release.space_id or space.dim != out_dim:
        raise InputError(
            f"{flags.release}: it translates into open_clip's {release.space_id} ({out_dim} dimensions), "
            f"which {flags.space} of {flags.spaces} is not"
        )
    if model.feature_dim is None:
        raise InputError(f"{flags.models}: {flags.model} needs its feature_dim, to be compared with the translator's {in_dim}")
    if model.feature_dim != in_dim:
        raise InputError(f"{flags.release}: it translates {in_dim} features, but {flags.model} has {model.feature_dim}: name another model")
    path = imported_path(flags.space, flags.model)
    metadata = {  # no software versions: the study names this file by its hash, which must be the same everywhere
        "schema_version": SCHEMA_VERSION,
        "model": flags.model,
        "space": flags.space,
        "kind": "linear",
        "released_for": release.model,
    }
    write_tensors(path, {"weight": release.translator.weight, "bias": release.translator.bias}, metadata)
    cli.log.info(
        "%s: released for %r; in params.yaml, under translator:\n  imported: [%s/%s:%s]",
        path, release.model, flags.space, flags.model, sha256_of(path)[:16],
    )  # fmt: skip


if __name__ == "__main__":
    cli.run(main, Flags)
