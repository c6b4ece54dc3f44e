"""Weights of the generator that draws pictures."""

from collections.abc import Iterable
from pathlib import Path

from singflow.config.registry import SpaceEntry, objection
from singflow.config.sections import LOCAL
from singflow.errors import InputError, brief
from singflow.pictures.parameters import Pictures
from singflow.towers.weights import FETCH


def generates(pictures: Pictures, spaces: Iterable[SpaceEntry]) -> bool:
    """Whether the generator may draw for a space; its weights or a GPU may still be missing."""
    return pictures.renderer == "unclip" or (
        pictures.renderer == "auto" and any(objection(space) is None for space in spaces)
    )


def generator_folder(pictures: Pictures, *, download: bool = False) -> Path:
    """The folder of the generator: checkpoints/<folder>, or its snapshot in the hub's cache.

    download: files that the cache lacks, from the hub. Its image encoder is left out: embeddings
    take its place.
    """
    if pictures.generator.startswith(f"{LOCAL}/"):
        return Path(pictures.generator)
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        found = snapshot_download(
            pictures.generator,
            revision=pictures.revision,
            ignore_patterns="image_encoder/*",
            local_files_only=not download,
        )
    except LocalEntryNotFoundError as error:
        if download:
            raise
        raise InputError(
            f"the generator {pictures.generator} is not in the hub cache "
            f"{constants.HF_HUB_CACHE} (HF_HUB_CACHE sets it; {brief(error)}): {FETCH}"
        ) from None
    return Path(found)


def own_generator_files(pictures: Pictures) -> list[str]:
    """Sorted files of the user's own generator; none if the generator is in the hub."""
    folder = Path(pictures.generator)
    found = folder.rglob("*") if folder.parts[0] == LOCAL else []
    return sorted(map(str, filter(Path.is_file, found)))


def refuse_space(space: str, entry: SpaceEntry) -> None:
    """Raise InputError if the generator does not draw from a space."""
    if reason := objection(entry):
        raise InputError(
            f"space {space} cannot be rendered: {reason}: write pictures.renderer: words, or auto"
        )
