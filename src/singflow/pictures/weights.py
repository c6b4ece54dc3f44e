"""Weights of the generator that draws pictures."""

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from singflow.config.registry import SpaceEntry, objection
from singflow.config.sections import LOCAL
from singflow.errors import InputError
from singflow.pictures.parameters import Pictures
from singflow.towers.weights import DIFFUSERS_WEIGHTS, TIMM_WEIGHTS, HubFile, WeightFile


def generates(pictures: Pictures, spaces: Iterable[SpaceEntry]) -> bool:
    """Whether the generator may draw for a space; its weights or a GPU may still be missing."""
    return pictures.renderer == "unclip" or (
        pictures.renderer == "auto" and any(objection(space) is None for space in spaces)
    )


def generator_files(pictures: Pictures) -> list[WeightFile]:
    """The files of the generator in the hub; none for checkpoints/<folder>.

    Its image encoder is left out: embeddings take its place.
    """
    if pictures.generator.startswith(f"{LOCAL}/"):
        return []
    decoders = "decoder", "super_res_first", "super_res_last", "text_proj"
    schedulers = "decoder_scheduler", "super_res_scheduler"
    words = "vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"
    files: dict[str, tuple[tuple[str, ...], ...]] = {
        ".": (("model_index.json",),),
        **dict.fromkeys(decoders, (("config.json",), DIFFUSERS_WEIGHTS)),
        **dict.fromkeys(schedulers, (("scheduler_config.json",),)),
        "text_encoder": (("config.json",), TIMM_WEIGHTS),
        "tokenizer": tuple((name,) for name in words),
    }
    return [
        HubFile(
            pictures.generator,
            tuple(str(PurePosixPath(part, name)) for name in names),
            pictures.revision,
        )
        for part, alternatives in files.items()
        for names in alternatives
    ]


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
