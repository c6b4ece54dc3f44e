"""Translators of the authors' release."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from singflow.config.reading import explain, read_yaml
from singflow.config.sections import WIDEST, Section
from singflow.errors import InputError
from singflow.translators.ridge import Affine

BACKENDS = {"kakao_karlo_v1_alpha_image_variations": "ViT-L-14-quickgelu/openai"}
MODELS = {  # configs/models.yaml of the authors' code, where it gives no weights those that their library takes then
    "resnet": "torchvision/resnet50.IMAGENET1K_V1",
    "dinovit1": "timm/vit_large_patch16_224.augreg_in21k_ft_in1k",
    "bitresnet": "timm/resnetv2_50x1_bit.goog_in21k_ft_in1k",
    "resnext": "timm/resnext101_32x8d.fb_wsl_ig1b_ft_in1k",
    "efficientnet": "timm/tf_efficientnet_b0.ns_jft_in1k",
    "dinov2": "transformers/facebook/dinov2-large-imagenet1k-1-layer",
    "swin_large": "timm/swin_large_patch4_window7_224.ms_in22k_ft_in1k",
    "deit": "timm/deit3_large_patch16_224.fb_in1k",
    "densenet": "torchvision/densenet121.IMAGENET1K_V1",
    "eva02_large": "timm/eva02_large_patch14_448.mim_in22k_ft_in22k_in1k",
    "convnext": "timm/convnext_base.fb_in22k_ft_in1k",
    "vgg16": "torchvision/vgg16.IMAGENET1K_V1",
    "vgg19": "torchvision/vgg19.IMAGENET1K_V1",
}


class ReleaseMetadata(Section):
    """metadata.yaml of a released translator."""

    model_name: str
    translator_name: str
    architecture: str
    embedding_backend: str
    in_dim: Annotated[int, Field(ge=1, le=WIDEST)]
    out_dim: Annotated[int, Field(ge=1, le=WIDEST)]
    hidden_dim: Annotated[int, Field(ge=0, le=WIDEST)]
    checkpoint_file: str


@dataclass(frozen=True)
class Release:
    """A released linear translator; the model it was fitted for, by its name there and as <source>/<id>; the open_clip id of its space."""

    model: str
    model_id: str
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
        The translator (float32), its model, and the open_clip id of its space. A model that is not the authors' may be named as
        <source>/<id> in metadata.yaml.

    Raises
    ------
    InputError
        For metadata.yaml that is missing or has other keys, another architecture than linear, an unknown model or space, tensors whose
        shapes are not the metadata's, non-finite values, and a checkpoint that holds anything but tensors or lies elsewhere.
    """
    import torch
    from pydantic import ValidationError

    from singflow.towers.checkpoints import read_checkpoint

    origin = folder / "metadata.yaml"
    try:
        metadata = ReleaseMetadata.model_validate(read_yaml(origin), strict=True)
    except ValidationError as error:
        raise InputError(explain(error, ReleaseMetadata, str(origin))) from None
    if metadata.architecture != "linear":
        raise InputError(f"{origin}: architecture {metadata.architecture!r} cannot be imported: only linear is an affine map")
    if metadata.embedding_backend not in BACKENDS:
        raise InputError(f"{origin}: unknown embedding_backend {metadata.embedding_backend!r}; known: {', '.join(BACKENDS)}")
    if metadata.model_name not in MODELS and "/" not in metadata.model_name:
        raise InputError(
            f"{origin}: unknown model_name {metadata.model_name!r}: write <source>/<id>, as in timm/resnet18.a1_in1k, "
            f"or one of the authors' names: {', '.join(MODELS)}"
        )
    if Path(metadata.checkpoint_file).name != metadata.checkpoint_file:
        raise InputError(f"{origin}: checkpoint_file {metadata.checkpoint_file!r} must be a file name in the same folder")
    path = folder / metadata.checkpoint_file
    state = read_checkpoint(path)
    shapes = {"weight": (metadata.out_dim, metadata.in_dim), "bias": (metadata.out_dim,)}
    found = {key: tuple(value.shape) for key, value in state.items() if isinstance(value, torch.Tensor)} if isinstance(state, dict) else {}
    if found != shapes or len(state) != len(shapes):
        raise InputError(f"{path}: holds tensors {found}, but {origin} says {shapes}")
    arrays = {key: state[key].numpy().astype(np.float32) for key in shapes}
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise InputError(f"{path}: holds NaN or infinite values: the file is damaged")
    name = metadata.model_name
    return Release(name, MODELS.get(name, name), BACKENDS[metadata.embedding_backend], Affine(**arrays))
