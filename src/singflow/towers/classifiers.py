"""Build classifiers from registry entries, and catch the input of their heads."""

import hashlib
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from torch import nn

from singflow.config.registry import ModelEntry, saved_folder
from singflow.data.reading import brief, in_one_line
from singflow.errors import InputError
from singflow.towers.checkpoints import (
    check_finite,
    load_checkpoint,
    read_checkpoint,
    some,
    state_dicts,
)
from singflow.towers.device import in_float32
from singflow.towers.pretrained import load_pretrained
from singflow.towers.views import Preprocess, from_timm, from_torchvision
from singflow.towers.weights import locate, torchvision_weights

HEAD_TOLERANCE = 1e-4


class LoadedClassifier(nn.Module):
    """A model whose head's exact input is caught by a pre-hook, whatever the architecture.

    forward: images (n, 3, h, w) -> features (n, d), float32. Threads may call it at the same time.
    Several heads whose logits are averaged, as in distilled transformers, count as one head on
    their joined inputs. With keep_classes, W and b have only the kept rows.
    """

    def __init__(
        self, model: nn.Module, heads: list[str], entry: ModelEntry, preprocess: Preprocess
    ) -> None:
        super().__init__()
        self.model = model.eval()
        self.name = entry.id
        self.preprocess = preprocess
        modules = _heads(model, heads, entry)
        weights = [module.weight.detach().flatten(1).float() for module in modules]
        biases = [_bias(module) for module in modules]
        weight, bias = torch.cat(weights, dim=1) / len(heads), torch.stack(biases).mean(dim=0)
        _check_head(weight, entry)
        self._kept = slice(None) if entry.kept is None else entry.kept
        self.weight, self.bias = weight[self._kept], bias[self._kept]
        self._gaps = [0.0]
        self._heads = len(heads)
        self._caught: dict[tuple[int, int], torch.Tensor] = {}
        for position, module in enumerate(modules):
            # By way of self, where compile() replaces it.
            module.register_forward_pre_hook(partial(lambda *call: self._catch(*call), position))
            module.forward = MethodType(_in_float32, module)

    def _catch(self, position: int, _: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        self._caught[threading.get_ident(), position] = inputs[0]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hint = "look at `head`, `head_weights` and `transform` of its entry"
        output = run_on_images(self.model, images, self.name, hint)
        logits = getattr(output, "logits", output)[:, self._kept]
        mine = [(threading.get_ident(), position) for position in range(self._heads)]
        if not all(key in self._caught for key in mine):
            raise InputError(
                "the model never ran the head that config/models.yaml names: correct `head`"
            )
        features = torch.cat([self._caught.pop(key).flatten(1) for key in mine], dim=1).float()
        if features.shape != (len(images), self.weight.shape[1]):
            raise InputError(
                f"the head's input has shape {tuple(features.shape)}, not (n, "
                f"{self.weight.shape[1]}): it is applied before pooling"
            )
        logits = logits.float()
        gap = float((self.logits(features) - logits).abs().max())
        fits = gap <= HEAD_TOLERANCE * max(1.0, float(logits.abs().max()))
        if not fits and torch.isfinite(features).all():
            raise InputError(
                f"W f + b differs from the model's logits by {gap:.2g}: the head in "
                "config/models.yaml is not the last layer"
            )
        self._gaps.append(gap)
        return features

    def compile(self, **options: Any) -> None:
        """Compile the model, but not what catches the input of its head."""
        self._catch = torch.compiler.disable(self._catch)  # type: ignore[method-assign]
        self.model.compile(**options)

    @property
    def head_max_error(self) -> float:
        """Largest difference between W f + b and the model's logits so far."""
        return max(self._gaps)

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """W f + b in float32, on the device of the features."""
        with in_float32(features.device):
            return features @ self.weight.to(features.device).T + self.bias.to(features.device)


def run_on_images(tower: nn.Module, images: torch.Tensor, name: str, hint: str) -> Any:
    """The tower's output; InputError if it does not take images of this size."""
    try:
        return tower(images)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, AssertionError) as error:
        size = tuple(images.shape[2:])
        raise InputError(
            f"{name} cannot run on images of {size} pixels ({brief(error)}): {hint}"
        ) from None


def _in_float32(head: nn.Module, features: torch.Tensor) -> torch.Tensor:
    """The forward function of a head, whatever the precision of its model."""
    with in_float32(features.device):
        logits: torch.Tensor = type(head).forward(head, features.float())
    return logits


def _module_at(model: nn.Module, path: str) -> nn.Module:
    try:
        return model.get_submodule(path)
    except AttributeError:
        raise InputError(
            f"the model has no module {path!r}: correct `head` in config/models.yaml"
        ) from None


def _heads(model: nn.Module, paths: list[str], entry: ModelEntry) -> list[Any]:
    """The modules at these paths, which must be linear layers or 1 x 1 convolutions."""
    heads = [_module_at(model, path) for path in paths]
    for head, path in zip(heads, paths, strict=True):
        shape = tuple(getattr(getattr(head, "weight", None), "shape", ()))
        if len(shape) not in (2, 4) or any(side != 1 for side in shape[2:]):
            raise InputError(
                f"{entry.id}: {path!r} is {type(head).__name__}, not a linear layer or 1 x 1 "
                "convolution: name the head in config/models.yaml"
            )
    return heads


def _bias(head: Any) -> torch.Tensor:
    bias = getattr(head, "bias", None)
    return torch.zeros(len(head.weight)) if bias is None else bias.detach().float()


def _check_head(weight: torch.Tensor, entry: ModelEntry) -> None:
    if len(weight) != entry.head_classes:
        raise InputError(
            f"{entry.id}: the head has {len(weight)} classes, its class list {entry.head_classes}: "
            "name a file with the head's classes in order as `class_list` in config/models.yaml"
        )
    if entry.kept and entry.kept[-1] >= len(weight):
        raise InputError(
            f"{entry.id}: keep_classes {entry.keep_classes} goes beyond the head's rows, 0 to "
            f"{len(weight) - 1}: correct it"
        )
    if entry.feature_dim not in (None, weight.shape[1]):
        raise InputError(
            f"{entry.id}: the feature has {weight.shape[1]} dimensions, its entry says "
            f"{entry.feature_dim}: correct `feature_dim`"
        )


def load_classifier(entry: ModelEntry) -> LoadedClassifier:
    """Build a classifier and load its weights, never from the network."""
    if entry.source == "features":
        raise InputError(
            f"{entry.id}: its features were imported, and there is no network that could look at a "
            "photo: name a model of timm, torchvision or transformers"
        )
    files = locate(entry)
    torch.manual_seed(0)
    model, paths, preprocess = _built(entry, files)
    if entry.weights == "random":
        for head in _heads(model, paths, entry):  # some libraries set its weights to zero
            nn.init.normal_(head.weight, std=head.weight.shape[1] ** -0.5)
            if getattr(head, "bias", None) is not None:
                nn.init.zeros_(head.bias)
    return LoadedClassifier(model, paths, entry, preprocess)


def feature_width(entry: ModelEntry) -> int:
    """Width of the feature, from the architecture alone. No weights are loaded."""
    if entry.source == "transformers" and entry.config is None:
        raise InputError(
            f"{entry.id}: its width is known in the hub alone: write its feature_dim into its "
            "entry in config/models.yaml"
        )
    with torch.device("meta"):
        model, paths, _ = _built(entry.model_copy(update={"weights": "random"}), [])
        return sum(head.weight.shape[1] for head in _heads(model, paths, entry))


Built = tuple[nn.Module, list[str], Preprocess]


def _built(entry: ModelEntry, files: list[Path]) -> Built:
    """A model with its weights, of which `files` are those of locate()."""
    build: dict[str, Callable[[ModelEntry], Built]] = {
        "timm": _timm,
        "torchvision": _torchvision,
        "transformers": partial(_transformers, files=files),
    }
    with in_one_line(f"{entry.id}: {entry.source} cannot build it"):
        model, heads, preprocess = build[entry.source](entry)
    heads = [entry.head] if isinstance(entry.head, str) else entry.head or heads
    if entry.weights.startswith("package:"):
        _load_in_order(model, files[0], entry)
    elif entry.weights.startswith("file:") and not saved_folder(entry):
        load_checkpoint(model, files[0], entry, heads)
    if entry.weights != "random":
        check_finite(model, entry.id)
    if not heads:
        raise InputError(
            f"{entry.id}: its library names no head: write its path as `head` in config/models.yaml"
        )
    if entry.head_weights:
        model, heads = _with_own_head(model, heads, entry, files)
    return model, heads, preprocess


def _timm(entry: ModelEntry) -> Built:
    import timm

    name = entry.id.partition(".")[0]
    if not timm.is_model(name):
        near = timm.list_models(f"*{name.split('_')[0]}*")[:5]
        raise InputError(
            f"timm has no architecture {name!r}" + (f"; near: {', '.join(near)}" if near else "")
        )
    known = timm.list_pretrained(f"{name}.*")
    if entry.id not in (name, *known):
        raise InputError(
            f"timm has no weights {entry.id!r}; it has {', '.join(known) or 'none'} (with weights "
            "of your own, name those you started from, which decide how images are prepared, or "
            f"the architecture alone, id: {name}, and its transform)"
        )
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


def _transformers(entry: ModelEntry, files: list[Path]) -> Built:
    model, preprocess = load_pretrained(
        entry, files, "AutoModelForImageClassification", num_labels=entry.head_classes
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


def _with_own_head(
    model: Any, heads: list[str], entry: ModelEntry, files: list[Path]
) -> tuple[nn.Module, list[str]]:
    """Give the model a linear head from a file, in place of its own head if it has one."""
    if len(heads) > 1 and entry.pooling == "own":
        raise InputError(
            f"{entry.id}: has {len(heads)} heads, which one file of head_weights cannot replace"
        )
    replaced = _module_at(model, heads[0])
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
        _fill(head, files[-1], entry)
    if entry.pooling != "own":
        return _TokenMean(model, head, entry.pooling == "token_mean_interleaved"), ["head"]
    model.set_submodule(heads[0], head)
    return model, heads


def _fill(head: nn.Linear, path: Path, entry: ModelEntry) -> None:
    """Load the weight and bias of a head file."""
    found = state_dicts(read_checkpoint(path))
    like_heads = [
        tensors
        for tensors in found.values()
        if sorted(tensor.ndim for tensor in tensors.values()) in ([2], [1, 2])
    ]
    if len(like_heads) != 1:
        held = "; ".join(some(tensors) for tensors in found.values()) or "no tensors"
        raise InputError(
            f"{path}: a head file holds one weight (C, d) and at most one bias (C,), not {held}: "
            "save the head alone"
        )
    weight, *bias = sorted(like_heads[0].values(), key=lambda tensor: -tensor.ndim)
    if weight.shape != head.weight.shape:
        raise InputError(
            f"{path}: the head's weight has shape {tuple(weight.shape)}, but {entry.id} with "
            f"pooling {entry.pooling} has {head.in_features} features, and its class list "
            f"{head.out_features} classes"
        )
    if not all(torch.isfinite(tensor).all() for tensor in (weight, *bias)):
        raise InputError(
            f"{path}: the head's weights hold NaN or infinite values: the file is damaged"
        )
    head.weight.data = weight.float()
    head.bias.data = bias[0].float() if bias else torch.zeros(head.out_features)


def _load_in_order(model: nn.Module, path: Path, entry: ModelEntry) -> None:
    """Load a state dict with other names: the same tensors, in the same order."""
    own, state = model.state_dict(), next(iter(state_dicts(read_checkpoint(path)).values()), {})
    if [tensor.shape for tensor in own.values()] != [tensor.shape for tensor in state.values()]:
        raise InputError(f"{path}: its tensors are not those of {entry.id}, in order and shape")
    model.load_state_dict(dict(zip(own, state.values(), strict=True)))


def weights_sha256(model: nn.Module) -> str:
    """SHA-256 of the names and values of all parameters and buffers, in order of names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
