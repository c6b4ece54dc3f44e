"""Build classifiers from registry entries, and catch the input of their heads."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.hub import HASH_REGEX, download_url_to_file

from singflow.config.registry import ModelEntry, saved_folder
from singflow.errors import InputError, brief, in_one_line
from singflow.extras import explained
from singflow.towers.checkpoints import check_finite, flat, load_checkpoint, read_checkpoint, some
from singflow.towers.checkpoints import weights_sha256 as weights_sha256
from singflow.towers.device import seeded
from singflow.towers.gpu_errors import in_memory, is_of_size
from singflow.towers.heads import Heads, find_heads, head_paths, linear_layers, module_at
from singflow.towers.pretrained import load_pretrained
from singflow.towers.views import Preprocess, Transform, from_timm, from_torchvision
from singflow.towers.weights import (
    check_id,
    package_weights,
    torch_cached,
    torchvision_weights,
    weights_of,
)

FIX = "correct `head` in config/models.yaml"


class LoadedClassifier(nn.Module):
    """A model whose head's exact input is caught by a pre-hook, whatever the architecture.

    forward: images (n, 3, h, w) -> features (n, d), float32. Threads may call it at the same time.
    Several heads whose logits are averaged, as in distilled transformers, count as one head on
    their joined inputs. With keep_classes, W and b have only the kept rows.
    """

    def __init__(
        self, model: nn.Module, heads: Heads, preprocess: Transform, name: str, hint: str
    ) -> None:
        super().__init__()
        self.model = model.eval()
        self.name, self.preprocess = name, preprocess
        self.weight, self.bias = heads.weight, heads.bias
        self.logits = heads.logits
        self._heads, self._hint, self._gaps = heads, hint, [0.0]
        heads.attach()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features, _, gap = self._heads.watch(
            lambda: run_on_images(self.model, images, self.name, self._hint)
        )
        self._gaps.append(gap)
        return features

    @property
    def head_max_error(self) -> float:
        """Largest difference between W f + b and the model's logits so far."""
        return max(self._gaps)


def run_on_images(tower: nn.Module, images: torch.Tensor, name: str, hint: str) -> Any:
    """The tower's output; InputError if it does not take images of this size."""
    try:
        return tower(images)
    except (RuntimeError, ValueError, AssertionError) as error:
        if not is_of_size(error):
            raise
        size = tuple(images.shape[2:])
        raise InputError(
            f"{name} cannot run on images of {size} pixels ({brief(error)}): {hint}"
        ) from None


def with_head(
    model: nn.Module, paths: list[str], entry: ModelEntry, preprocess: Preprocess
) -> LoadedClassifier:
    """A model with the head at these paths; InputError if it is not the head of the entry."""
    heads = Heads(model, paths, entry.id, FIX)
    rows, width = heads.weight.shape
    if rows != entry.head_classes:
        raise InputError(
            f"{entry.id}: the head has {rows} classes, its class list {entry.head_classes}: "
            "name a file with the head's classes in order as `class_list` in config/models.yaml"
        )
    if entry.feature_dim not in (None, width):
        raise InputError(
            f"{entry.id}: the feature has {width} dimensions, its entry says "
            f"{entry.feature_dim}: correct `feature_dim`"
        )
    if entry.kept is not None:
        heads.keep(entry.kept)
    hint = "look at `head`, `head_weights` and `transform` of its entry"
    return LoadedClassifier(model, heads, preprocess, entry.id, hint)


def of_model(
    model: nn.Module,
    transform: Callable[[Image.Image], torch.Tensor],
    head: Any,
    name: str,
    device: torch.device,
) -> LoadedClassifier:
    """A copy of a model on a device, with the head that is named, or found on a made-up image."""
    fix = 'name the last linear layer, as in head="fc", of a model that returns logits'
    paths = [] if head is None else head_paths(model, head, name, fix)
    with in_one_line(f"{name}: the model cannot be copied", "build it anew and load its weights"):
        copy = deepcopy(getattr(model, "_orig_mod", model)).eval()
    with in_memory(f"the weights of {name}"):
        copy.to(device)
    first = next(copy.parameters(), torch.empty(0))

    def whole(image: Image.Image) -> torch.Tensor:
        view = transform(image)
        if not isinstance(view, torch.Tensor) or view.ndim != 3:
            form = tuple(view.shape) if isinstance(view, torch.Tensor) else type(view).__name__
            raise InputError(f"transform gives {form}, not a tensor (3, H, W): let it end in one")
        return view.to(first.dtype)

    if not paths:
        noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
        images = whole(Image.fromarray(noise))[None].to(first.device)
        with torch.no_grad():
            paths = find_heads(copy, lambda: copy(images), name, fix)
    heads = Heads(copy, paths, name, fix)
    return LoadedClassifier(copy, heads, Transform(whole), name, "look at its transform")


def load_classifier(entry: ModelEntry, *, download: bool = False) -> LoadedClassifier:
    """Build a classifier with its weights. download: those that are not here, from the network."""
    if entry.source == "features":
        raise InputError(
            f"{entry.id}: its features were imported, and there is no network that could look at a "
            "photo: name a model of timm, torchvision or transformers"
        )
    with weights_of(entry, download), seeded():
        model, paths, preprocess = _built(entry)
        if entry.weights == "random":
            for head in linear_layers(model, paths, entry.id, FIX):  # some libraries set it to zero
                nn.init.normal_(head.weight, std=head.weight.shape[1] ** -0.5)
                if getattr(head, "bias", None) is not None:
                    nn.init.zeros_(head.bias)
    return with_head(model, paths, entry, preprocess)


def feature_width(entry: ModelEntry) -> int:
    """Width of the feature, from the architecture alone. No weights are loaded."""
    if entry.source == "transformers" and entry.config is None:
        raise InputError(
            f"{entry.id}: its width is known in the hub alone: write its feature_dim into its "
            "entry in config/models.yaml"
        )
    with torch.device("meta"):
        model, paths, _ = _built(entry.model_copy(update={"weights": "random"}))
        layers = linear_layers(model, paths, entry.id, FIX)
        return sum(head.weight.shape[1] for head in layers)


Built = tuple[nn.Module, list[str], Preprocess]


def _built(entry: ModelEntry) -> Built:
    """A model with its weights."""
    build: dict[str, Callable[[ModelEntry], Built]] = {
        "timm": _timm,
        "torchvision": _torchvision,
        "transformers": _transformers,
    }
    with in_one_line(f"{entry.id}: {entry.source} cannot build it"), explained():
        model, heads, preprocess = build[entry.source](entry)
    heads = [entry.head] if isinstance(entry.head, str) else entry.head or heads
    kind, _, target = entry.weights.partition(":")
    if kind == "package":
        _load_in_order(model, package_weights(target), entry)
    elif kind == "file" and not saved_folder(entry):
        load_checkpoint(model, Path(target), entry, heads)
    if entry.weights != "random":
        check_finite(model, entry.id)
    if not heads:
        raise InputError(
            f"{entry.id}: its library names no head: write its path as `head` in config/models.yaml"
        )
    if entry.head_weights:
        model, heads = _with_own_head(model, heads, entry)
    return model, heads, preprocess


def _timm(entry: ModelEntry) -> Built:
    import timm

    check_id(entry)
    hub = entry.weights == "hub"
    published: Any = timm.get_pretrained_cfg(entry.id)
    overlay = None
    if entry.revision and published:
        overlay = {"hf_hub_id": f"{published.hf_hub_id}@{entry.revision}"}
    classes = 0 if entry.head_weights else None if hub else entry.head_classes
    model: Any = timm.create_model(
        entry.id, pretrained=hub, num_classes=classes, pretrained_cfg_overlay=overlay
    )
    named = model.pretrained_cfg.get("classifier") or ()
    heads = [named] if isinstance(named, str) else list(named)
    return model, heads, from_timm(model, entry.transform)


def _torchvision(entry: ModelEntry) -> Built:
    from torchvision.models import get_model

    weights = torchvision_weights(entry)
    name, hub = entry.id.partition(".")[0], entry.weights == "hub"
    options: dict[str, Any] = {}
    if hub:
        options["weights"] = weights
    else:  # get_model would derive these options from weights
        if name.startswith("vit_"):
            options["image_size"] = weights.meta["min_size"][0]
        if name in ("googlenet", "inception_v3"):
            options["transform_input"] = True
        if not entry.head_weights:
            options["num_classes"] = entry.head_classes
    model = get_model(name, **options)
    return model, _last_linear(model), from_torchvision(weights.transforms())


def _transformers(entry: ModelEntry) -> Built:
    model, preprocess = load_pretrained(
        entry, "AutoModelForImageClassification", num_labels=entry.head_classes
    )
    return model, _last_linear(model), preprocess


def _last_linear(model: nn.Module) -> list[str]:
    """Path of the last linear layer or convolution that the model defines, or an empty list."""
    kinds = (nn.Linear, nn.Conv2d)
    names = [name for name, module in model.named_modules() if isinstance(module, kinds) and name]
    return names[-1:]


class _Head(nn.Linear):
    """A linear layer that can replace a 1 x 1 convolution on pooled features (n, d, 1, 1)."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return super().forward(features.flatten(1))


class _TokenMean(nn.Module):
    """A vision transformer of timm, with a linear head on its class token and mean patch token."""

    def __init__(self, backbone: nn.Module, head: nn.Linear, interleaved: bool) -> None:
        super().__init__()
        self.backbone, self.head, self.interleaved = backbone, head, interleaved

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        backbone: Any = self.backbone
        tokens = backbone.forward_features(images)
        parts = [tokens[:, 0], tokens[:, backbone.num_prefix_tokens :].mean(dim=1)]
        return self.head(torch.stack(parts, dim=2 if self.interleaved else 1).flatten(1))


def _with_own_head(model: Any, heads: list[str], entry: ModelEntry) -> tuple[nn.Module, list[str]]:
    """Give the model a linear head from a file, in place of its own head if it has one."""
    if len(heads) > 1 and entry.pooling == "own":
        raise InputError(
            f"{entry.id}: has {len(heads)} heads, which one file of head_weights cannot replace"
        )
    replaced = module_at(model, heads[0], entry.id, FIX)
    if entry.pooling == "own":
        own = getattr(replaced, "in_features", None) or getattr(replaced, "in_channels", None)
        width = own or getattr(model, "head_hidden_size", None) or model.num_features
    elif getattr(model, "cls_token", None) is None:
        raise InputError(
            f"{entry.id}: pooling {entry.pooling} needs a vision transformer with a class token"
        )
    else:
        width = 2 * model.num_features
    head = _Head(width, entry.head_classes)
    if entry.weights != "random":
        _fill(head, _head_file(entry), entry)
    if entry.pooling != "own":
        return _TokenMean(model, head, entry.pooling == "token_mean_interleaved"), ["head"]
    model.set_submodule(heads[0], head)
    return model, heads


def _head_file(entry: ModelEntry) -> Path:
    """The file of head_weights; one that has an address is downloaded unless PyTorch has it."""
    kind, _, target = (entry.head_weights or "").partition(":")
    if kind == "file":
        return Path(target)
    path = torch_cached(target)
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        named = HASH_REGEX.search(path.name)
        download_url_to_file(target, str(path), named and named[1])
    return path


def _fill(head: nn.Linear, path: Path, entry: ModelEntry) -> None:
    """Load the weight and bias of a head file."""
    found = flat(read_checkpoint(path))
    if sorted(tensor.ndim for tensor in found.values()) not in ([2], [1, 2]):
        raise InputError(
            f"{path}: a head file holds one weight (C, d) and at most one bias (C,), not "
            f"{some(found) or 'no tensors'}: save the head alone"
        )
    weight, *bias = sorted(found.values(), key=lambda tensor: -tensor.ndim)
    if weight.shape != head.weight.shape:
        raise InputError(
            f"{path}: the head's weight has shape {tuple(weight.shape)}, but {entry.id} with "
            f"pooling {entry.pooling} has {head.in_features} features, and its class list "
            f"{head.out_features} classes"
        )
    head.weight.data = weight.float()
    head.bias.data = bias[0].float() if bias else torch.zeros(head.out_features)
    check_finite(head, str(path))


def _load_in_order(model: nn.Module, path: Path, entry: ModelEntry) -> None:
    """Load a state dict with other names: the same tensors, in the same order."""
    import timm

    own, state = model.state_dict(), flat(read_checkpoint(path))
    if [tensor.shape for tensor in own.values()] != [tensor.shape for tensor in state.values()]:
        raise InputError(f"{path}: its tensors are not those of {entry.id}, in order and shape")
    model.load_state_dict(timm.models.remap_state_dict(state, model))
