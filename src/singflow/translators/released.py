"""Translators of the authors' release."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from singflow.config.reading import explain, read_yaml
from singflow.config.sections import Section
from singflow.errors import InputError
from singflow.translators.ridge import Affine

BACKENDS = {"kakao_karlo_v1_alpha_image_variations": "ViT-L-14-quickgelu/openai"}


class ReleaseMetadata(Section):
    """metadata.yaml of a released translator."""

    model_name: str
    translator_name: str
    architecture: str
    embedding_backend: str
    in_dim: int
    out_dim: int
    hidden_dim: int
    checkpoint_file: str


@dataclass(frozen=True)
class Release:
    """A released linear translator, the name of the model it was fitted for, and the open_clip id of its space."""

    model: str
    space_id: str
    translator: Affine


def read_release(folder: Path) -> Release:
    """Read metadata.yaml and the checkpoint beside it.

    Parameters
    ----------
    folder : Path
        Folder of one released translator.

    Returns
    -------
    Release
        The translator (float32), its model, and the open_clip id of its space.

    Raises
    ------
    InputError
        For metadata.yaml that is missing or has other keys, another architecture than linear, an unknown space, tensors whose
        shapes are not the metadata's, non-finite values, and a checkpoint that holds anything but tensors or lies elsewhere.
    """
    import torch
    from pydantic import ValidationError

    origin = folder / "metadata.yaml"
    try:
        metadata = ReleaseMetadata.model_validate(read_yaml(origin), strict=True)
    except ValidationError as error:
        raise InputError(explain(error, ReleaseMetadata, str(origin))) from None
    if metadata.architecture != "linear":
        raise InputError(f"{origin}: architecture {metadata.architecture!r} cannot be imported: only linear is an affine map")
    if metadata.embedding_backend not in BACKENDS:
        raise InputError(f"{origin}: unknown embedding_backend {metadata.embedding_backend!r}; known: {', '.join(BACKENDS)}")
    if Path(metadata.checkpoint_file).name != metadata.checkpoint_file:
        raise InputError(f"{origin}: checkpoint_file {metadata.checkpoint_file!r} must be a file name in the same folder")
    path = folder / metadata.checkpoint_file
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 (missing and damaged archives and refused pickles surface as many kinds)
        raise InputError(f"{path}: not readable as tensors ({type(error).__name__}: {error})") from None
    shapes = {"weight": (metadata.out_dim, metadata.in_dim), "bias": (metadata.out_dim,)}
    found = {key: tuple(value.shape) for key, value in state.items() if isinstance(value, torch.Tensor)} if isinstance(state, dict) else {}
    if found != shapes or len(state) != len(shapes):
        raise InputError(f"{path}: holds tensors {found}, but {origin} says {shapes}")
    arrays = {key: state[key].numpy().astype(np.float32) for key in shapes}
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise InputError(f"{path}: holds NaN or infinite values: the file is damaged")
    return Release(metadata.model_name, BACKENDS[metadata.embedding_backend], Affine(**arrays))
