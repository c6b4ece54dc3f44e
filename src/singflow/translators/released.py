"""Linear translators of the paper's authors, of Text-to-concept, and of users of this workflow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from singflow.artifacts.tensors import read_tensors
from singflow.config.reading import explain, read_yaml
from singflow.config.registry import ModelEntry, OpenCLIPEntry, SpaceEntry
from singflow.config.sections import WIDEST, Name, Section
from singflow.errors import InputError
from singflow.translators.cards import FILE
from singflow.translators.linear import FIGURES, Translator
from singflow.translators.ridge import Affine

if TYPE_CHECKING:
    from torch import nn

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
    def model(self) -> str:
        """The name of its model; a name with a tag and without a source is an id of timm's."""
        name = self.model_name
        return f"timm/{name}" if "." in name and "/" not in name else name

    @property
    def model_id(self) -> str:
        """Its model as <source>/<id>."""
        return MODELS.get(self.model, self.model)


ALIGNERS = {  # pretrained_aligners/ of Text-to-concept
    "pytorch_resnet18": "torchvision/resnet18.IMAGENET1K_V1",
    "dino_vits8": "timm/vit_small_patch8_224.dino",
}
ALIGNER_SPACE = "ViT-B-16-quickgelu/openai"


@dataclass(frozen=True)
class Release:
    """A released linear translator, and what it was fitted for; hashes of weights if known."""

    model: str  # its name in the release
    model_id: str | None  # <source>/<id>; None if the file does not name it
    space_id: str  # as space_id() gives it
    translator: Affine
    weights_sha256: str | None = None
    space_sha256: str | None = None
    figures: dict[str, str] = field(default_factory=dict)


def space_id(entry: SpaceEntry) -> str:
    """The id of an open_clip space; the whole definition of a ConSE space as JSON."""
    return entry.id if isinstance(entry, OpenCLIPEntry) else entry.identity


def read_offered(path: Path, model_id: str) -> Release:
    """Read a translator for the model <source>/<id> in any form in which translators are released.

    path: a folder of one translator of the authors' release, or the folder of all of them; an
    aligner of Text-to-concept (.pth); a linear.safetensors of a study or of
    Translator.save_pretrained, or its folder.
    """
    if not path.exists():
        raise InputError(
            f"--release {path}: no such file or folder: name what was released, or its folder"
        )
    if path.is_file():
        return read_exported(path) if path.suffix == ".safetensors" else read_aligner(path)
    if (path / FILE).is_file():
        return read_exported(path / FILE)
    if (path / "metadata.yaml").is_file() or not path.is_dir():
        return read_release(path)
    found = {origin.parent: _metadata(origin) for origin in sorted(path.glob("**/metadata.yaml"))}
    mine = [folder for folder, metadata in found.items() if metadata.model_id == model_id]
    if not mine:
        known = ", ".join(sorted({metadata.model for metadata in found.values()}))
        raise InputError(
            f"{path}: holds no translator of {model_id}; it has those of {known or 'none'}"
        )
    linear = [folder for folder in mine if found[folder].architecture == "linear"]
    return read_release((linear or mine)[0])


def read_aligner(path: Path) -> Release:
    """Read an aligner of Text-to-concept, an affine map into OpenAI's CLIP ViT-B/16, in float32.

    The file names neither the model nor the space; known file names give the model. The scaling of
    features and embeddings in its training is part of the saved W (m, d) and b (m,).
    """
    translator = _affine(path, "W", "b", "an aligner of Text-to-concept holds")
    return Release(path.stem, ALIGNERS.get(path.stem), ALIGNER_SPACE, translator)


def read_exported(path: Path) -> Release:
    """Read a linear.safetensors that says what it was fitted for, in float32."""
    translator = Translator.load(path)
    made = read_tensors(path, [])[1]
    facts = [made.get(key) for key in ("model_id", "space_id", "weights_sha256", "space_sha256")]
    if None in facts:
        raise InputError(
            f"{path}: does not say what it was fitted for: name one of a study, or give the facts "
            "model_id, space_id, weights_sha256 and space_sha256 to Translator and save it again"
        )
    model, space, weights, tower = map(str, facts)
    figures = {key: made[key] for key in (*FIGURES, "fitted_on") if key in made}
    return Release(model, model, space, translator, weights, tower, figures)


def _affine(
    path: Path, weight: str, bias: str, holds: str, shape: tuple[int, int] | None = None
) -> Affine:
    """The two tensors, of this shape if it is known, of a checkpoint that holds no others."""
    from singflow.towers.checkpoints import read_checkpoint

    state = read_checkpoint(path)
    tensors = state if isinstance(state, dict) else {}
    found = {key: tuple(value.shape) for key, value in tensors.items() if _is_dense(value)}
    rows, columns = shape or (*found.get(weight, ()), 0, 0)[:2]
    wanted = {weight: (rows, columns), bias: (rows,)}
    if found != wanted or len(tensors) != len(wanted) or not rows or not columns:
        asked = wanted if shape else f"{weight} (m, d) and {bias} (m,) alone"
        raise InputError(f"{path}: holds tensors {found}, but {holds} {asked}")
    arrays = [tensors[key].float().numpy(force=True) for key in wanted]
    if not all(np.isfinite(array).all() for array in arrays):
        raise InputError(f"{path}: holds NaN or infinite values: the file is damaged")
    return Affine(*arrays)


def _is_dense(value: Any) -> bool:
    """Whether a value is a tensor of floats, all of which are in the file."""
    import torch

    return (
        isinstance(value, torch.Tensor)
        and (value.layout, value.device.type) == (torch.strided, "cpu")
        and not value.is_nested
        and value.is_floating_point()
        and value.numel() * value.element_size() <= value.untyped_storage().nbytes()
    )


def _metadata(origin: Path) -> ReleaseMetadata:
    from pydantic import ValidationError

    try:
        return ReleaseMetadata.model_validate(read_yaml(origin), strict=True)
    except ValidationError as error:
        raise InputError(explain(error, ReleaseMetadata, str(origin))) from None


def read_release(folder: Path) -> Release:
    """Read metadata.yaml in the folder of a released translator, and the checkpoint beside it.

    A model that is not the authors' may be written in metadata.yaml as <source>/<id>.
    """
    origin = folder / "metadata.yaml"
    metadata = _metadata(origin)
    name = metadata.model
    wrong = ""
    if metadata.architecture != "linear":
        kind = metadata.architecture
        wrong = f"architecture {kind!r} cannot be imported: only linear is an affine map"
    elif metadata.embedding_backend not in BACKENDS:
        known = ", ".join(BACKENDS)
        wrong = f"unknown embedding_backend {metadata.embedding_backend!r}; known: {known}"
    elif name not in MODELS and "/" not in name:
        wrong = (
            f"unknown model_name {name!r}: write <source>/<id>, as in timm/resnet18.a1_in1k, or "
            f"one of the authors' names: {', '.join(MODELS)}"
        )
    if wrong:
        raise InputError(f"{origin}: {wrong}")
    path, shape = folder / metadata.checkpoint_file, (metadata.out_dim, metadata.in_dim)
    translator = _affine(path, "weight", "bias", f"{origin} says", shape)
    return Release(name, metadata.model_id, BACKENDS[metadata.embedding_backend], translator)


def check_model(
    release: Release, origin: Path, name: str, entry: ModelEntry, known: Mapping[str, str]
) -> str | None:
    """Refuse a translator of another classifier or width, and return what could not be checked.

    The weights are compared by their hashes if both are known, and otherwise by the model's id or
    the published file of the weights. known: the registry's classifiers by <source>/<id>.
    """
    from singflow.towers.classifiers import feature_width, load_classifier

    own = f"{entry.source}/{entry.id}"
    here = None
    if release.weights_sha256:
        here = _hash_here(entry, lambda: load_classifier(entry).model)
        if here and here != release.weights_sha256:
            raise InputError(
                f"{origin}: it was fitted for {release.model_id} with weights "
                f"{release.weights_sha256[:12]}, but {name} is {own} with weights {here[:12]}: "
                f"name the model that it was fitted for with --model, or fit one for {name}"
            )
    if not here and release.model_id and not _same_weights(entry, release.model_id):
        raise InputError(
            f"{origin}: {release.model!r} was fitted for {release.model_id}, but {name} is {own}: "
            f"write --model {known.get(release.model_id, release.model_id)}, here and in the study"
        )
    width, columns = entry.feature_dim or feature_width(entry), release.translator.weight.shape[1]
    if width != columns:
        raise InputError(
            f"{origin}: it translates {columns} features, but {name} has {width}: it was fitted "
            "for another head"
        )
    if release.model_id is None:
        return (
            f"{origin} does not say which model it was fitted for: that it was {own} is your word; "
            "its width is right"
        )
    if release.weights_sha256 and not here:
        return (
            f"the weights of {name} are not here: that they are those it was fitted for was not "
            "checked"
        )
    if not release.weights_sha256 and (entry.weights.startswith("file:") or entry.head_weights):
        return (
            f"{name} has weights of your own: this translator was fitted for the published ones of "
            f"{release.model_id}"
        )
    return None


def check_space(release: Release, origin: Path, name: str, entry: SpaceEntry) -> str | None:
    """Refuse a translator into another space, and return what could not be checked."""
    from singflow.towers.spaces import load_image_tower

    rows = len(release.translator.weight)
    if space_id(entry) != release.space_id or entry.dim != rows:
        known = ("the space " if "{" in release.space_id else "open_clip's ") + release.space_id
        raise InputError(
            f"{origin}: it translates into {known} ({rows} dimensions), which {name} is not"
        )
    if not release.space_sha256:
        return None
    here = _hash_here(entry, lambda: load_image_tower(entry))
    if here and here != release.space_sha256:
        raise InputError(
            f"{origin}: its space has weights {release.space_sha256[:12]}, but those of {name} are "
            f"{here[:12]}: restore them, or name the space that it was fitted for with --space"
        )
    if here:
        return None
    return f"the weights of {name} are not here: that they are those of its space was not checked"


def _hash_here(entry: ModelEntry | SpaceEntry, load: Callable[[], nn.Module]) -> str | None:
    """Hash of a tower's weights; None if the weights are not on this machine."""
    from singflow.towers.classifiers import weights_sha256
    from singflow.towers.weights import missing

    return None if missing(entry) else weights_sha256(load())


def _same_weights(entry: ModelEntry, model_id: str) -> bool:
    """Whether an entry has this id or the same published weights; timm has some of torchvision."""
    from singflow.towers.weights import published_at

    source, _, identifier = model_id.partition("/")
    if (entry.source, entry.id) == (source, identifier):
        return True
    if source not in ("timm", "torchvision") or entry.weights != "hub":
        return False
    named = entry.model_copy(update={"source": source, "id": identifier})
    return published_at(entry) == published_at(named) is not None
