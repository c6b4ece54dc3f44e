"""Linear translators of the paper's authors, and of users of this workflow, for a study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field, ValidationError

from singflow.artifacts.made import MODEL, SPACE
from singflow.config.reading import explain, read_yaml
from singflow.config.sections import WIDEST, Name, Section
from singflow.errors import InputError, in_one_line
from singflow.translators.linear import FIGURES, FILE, read_linear
from singflow.translators.ridge import Affine

BACKENDS = {"kakao_karlo_v1_alpha_image_variations": "ViT-L-14-quickgelu/openai"}
# From configs/models.yaml of the authors' code. Where it names no weights: the default weights of
# the library that loads the model there.
MODELS = {
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


CARRIED = (*MODEL, *SPACE, "model_id", "space_id", *FIGURES, "fitted_on")
Released = tuple[Affine, dict[str, str]]  # and the facts of its file


class ReleaseMetadata(Section):
    """metadata.yaml of a released translator."""

    model_name: str
    translator_name: str
    architecture: str
    embedding_backend: str
    in_dim: Annotated[int, Field(ge=1, le=WIDEST)]
    out_dim: Annotated[int, Field(ge=1, le=WIDEST)]
    hidden_dim: Annotated[int, Field(ge=0, le=WIDEST)]
    checkpoint_file: Name

    @property
    def model_id(self) -> str:
        """Its model as <source>/<id>; a name with a tag and without a source is an id of timm's."""
        name = self.model_name
        return MODELS.get(name, f"timm/{name}" if "." in name and "/" not in name else name)


def read_offered(path: Path, model_id: str) -> Released:
    """Read a translator for the model <source>/<id>, and what its file says about it.

    path: a folder of one translator of the authors' release, or the folder of all of them; a
    linear.safetensors of a study or of Translator.save_pretrained, or its folder.
    """
    if not path.exists():
        raise InputError(
            f"--release {path}: no such file or folder: name what was released, or its folder"
        )
    if path.is_file() or (path / FILE).is_file():
        return read_exported(path if path.is_file() else path / FILE)
    if (path / "metadata.yaml").is_file():
        return read_release(path)
    found = {}
    for origin in sorted(path.glob("**/metadata.yaml")):
        try:
            found[origin.parent] = _metadata(origin)
        except InputError:  # of something else
            continue
    mine = [folder for folder, metadata in found.items() if metadata.model_id == model_id]
    if not mine:
        known = ", ".join(sorted({metadata.model_name for metadata in found.values()}))
        raise InputError(
            f"{path}: holds no translator of {model_id}; it has those of {known or 'none'}"
        )
    linear = [folder for folder in mine if found[folder].architecture == "linear"]
    return read_release((linear or mine)[0])


def read_exported(path: Path) -> Released:
    """Read a linear.safetensors that says what it was fitted for."""
    tensors, made = read_linear(path)
    if missing := [key for key in ("model_id", "space_id") if key not in made]:
        raise InputError(
            f"{path}: does not say what it was fitted for: name one of a study, or give the facts "
            f"{' and '.join(missing)} to Translator and save it again"
        )
    return Affine(**tensors), {key: made[key] for key in CARRIED if key in made}


def read_release(folder: Path) -> Released:
    """Read metadata.yaml in the folder of a released translator, and the checkpoint beside it.

    A model that is not the authors' may be written in metadata.yaml as <source>/<id>.
    """
    origin = folder / "metadata.yaml"
    metadata = _metadata(origin)
    wrong = ""
    if metadata.architecture != "linear":
        kind = metadata.architecture
        wrong = f"architecture {kind!r} cannot be imported: only linear is an affine map"
    elif metadata.embedding_backend not in BACKENDS:
        known = ", ".join(BACKENDS)
        wrong = f"unknown embedding_backend {metadata.embedding_backend!r}; known: {known}"
    elif "/" not in metadata.model_id:
        wrong = (
            f"unknown model_name {metadata.model_name!r}: write <source>/<id>, as in "
            f"timm/resnet18.a1_in1k, or one of the authors' names: {', '.join(MODELS)}"
        )
    if wrong:
        raise InputError(f"{origin}: {wrong}")
    translator = _affine(folder / metadata.checkpoint_file, (metadata.out_dim, metadata.in_dim))
    space = BACKENDS[metadata.embedding_backend]
    return translator, {"model_id": metadata.model_id, "space_id": space}


def _metadata(origin: Path) -> ReleaseMetadata:
    try:
        return ReleaseMetadata.model_validate(read_yaml(origin), strict=True)
    except ValidationError as error:
        raise InputError(explain(error, ReleaseMetadata, str(origin))) from None


def _affine(path: Path, shape: tuple[int, int]) -> Affine:
    """The weight of this shape and the bias in a checkpoint that holds no others, in float32."""
    import torch
    from safetensors.torch import load_file

    with in_one_line(f"{path}: not readable as tensors", "download it again"):
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    wanted, tensors = {"weight": shape, "bias": shape[:1]}, state if isinstance(state, dict) else {}
    found = {key: tuple(getattr(value, "shape", ())) for key, value in tensors.items()}
    if found != wanted:
        raise InputError(f"{path}: holds tensors {found}, but its metadata.yaml says {wanted}")
    with in_one_line(f"{path}: holds no dense numbers", "download it again"):
        made = Affine(*(tensors[key].float().numpy() for key in wanted))
    if not (np.isfinite(made.weight).all() and np.isfinite(made.bias).all()):
        raise InputError(f"{path}: holds NaN or infinite values: the file is damaged")
    return made
