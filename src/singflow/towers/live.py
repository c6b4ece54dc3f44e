"""Classifiers and spaces by their names in the registries, with NumPy arrays in and out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import scipy

from singflow.artifacts.tensors import stored_precision
from singflow.config.registry import (
    MODELS,
    SPACES,
    ModelEntry,
    SpaceEntry,
    resolve_models,
    resolve_spaces,
)
from singflow.config.sections import at_hand
from singflow.data.images import Unusable, decode, read, upright
from singflow.data.vocabulary import read_class_list, with_classes_and_hashes
from singflow.errors import InputError
from singflow.extras import explained
from singflow.towers.texts import Texts

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from torch import nn

    from singflow.towers import classifiers, spaces
    from singflow.towers.batches import Normalized

    Photo = str | Path | bytes | Image.Image

CLASSES = Path("config/vocab/imagenet_1k.csv")
MAX_PIXELS = 10**8
LIKELIEST = 5
NO_POSITIONS = (
    "no maps: the feature of this model is no mean over positions of the image, but a class token, "
    "or layers follow the mean"
)


@dataclass(frozen=True)
class Prediction:
    """A class of the head; its probability is the softmax, from 0 to 1."""

    index: int
    name: str
    probability: float


def open_image(image: Photo, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """An upright 8-bit RGB image from a path, the bytes of a file, or an image."""
    named = image if isinstance(image, str | Path) else "this image"
    try:
        if isinstance(image, str | Path):
            image = read(Path(image), max_pixels)
        if isinstance(image, bytes):
            return decode(image, max_pixels)
        image = image.copy()
        try:
            image.getexif()
        except SyntaxError:  # no EXIF, which decode() ignores, too
            image.info.pop("exif", None)
        return upright(image, max_pixels)
    except (OSError, Unusable) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{named}: {reason}") from None


@dataclass(frozen=True)
class Located:
    """The feature of an image by positions.

    feature: (1, d), f, the mean of its parts plus the rest. parts: (h, w, d), F_p; None if f is no
    mean over positions. rest: (d,), what belongs to no position. seen: what the positions cover of
    the image: left, top, right and bottom, in shares of its width and height.
    """

    feature: np.ndarray
    parts: np.ndarray | None
    rest: np.ndarray
    seen: tuple[float, float, float, float]

    def by_position(self) -> np.ndarray:
        """The parts; raises InputError if there are none."""
        if self.parts is None:
            raise InputError(NO_POSITIONS)
        return self.parts


@dataclass
class Classifier:
    """A classifier with its head as arrays.

    entry: in the registry; None for a model that was in memory. weight (C, d) and bias (C,): of the
    head, float32. weights_sha256: hash of all weights. weight_dtype: precision in which the weights
    of the head are stored.
    """

    name: str
    entry: ModelEntry | None
    weight: np.ndarray
    bias: np.ndarray
    class_names: list[str]
    weights_sha256: str
    weight_dtype: str
    tower: classifiers.LoadedClassifier
    device: torch.device

    @classmethod
    @explained()
    def load(
        cls,
        name: str,
        *,
        models: str | Path = MODELS,
        classes: str | Path = CLASSES,
        device: str = "auto",
        download: bool = False,
    ) -> Classifier:
        """Load a classifier whose weights are on this machine.

        Parameters
        ----------
        name : str
            Name in the registry, or <source>/<id>, as in timm/resnet18.a1_in1k.
        models : str or Path
            Registry of your own models, beside the packaged ones.
        classes : str or Path
            Class list for a head whose entry names none.
        device : str
            auto, cpu or cuda.
        download : bool
            Whether weights are downloaded that are not here, as by `singflow prefetch`. Without
            it, nothing asks the network.

        Returns
        -------
        Classifier
            In evaluation mode.

        Raises
        ------
        InputError
            For an unknown name, and for weights that are missing, are damaged, or do not fit the
            entry.
        """
        listed = at_hand(Path(classes))
        entry = with_classes_and_hashes(
            resolve_models(models, [name])[name], Path(models), name, listed
        )
        names = entry.class_names or read_class_list(listed)
        return load_entry(entry, name, names, device, download=download)

    def __repr__(self) -> str:
        classes, width = self.weight.shape
        return f"Classifier {self.name}: {classes} classes, features of {width} numbers"

    @classmethod
    @explained()
    def of(
        cls,
        model: nn.Module,
        transform: Callable[[Image.Image], torch.Tensor],
        class_names: Sequence[str],
        *,
        head: str | nn.Module | Sequence[str | nn.Module] | None = None,
        name: str = "model",
        device: str = "auto",
    ) -> Classifier:
        """Make a classifier of a copy of a model that is in memory.

        Parameters
        ----------
        model : torch.nn.Module
            Images (n, 3, H, W) -> logits, as in collect(). It is copied, and stays as it is.
        transform : callable
            Evaluation transform: an RGB image of Pillow -> a tensor (3, H, W).
        class_names : sequence of str
            Names of the C classes of the head, in their order.
        head : str, torch.nn.Module or sequence of them, optional
            Path or module of the head, as in collect().
        name : str
            Name of the model in results.
        device : str
            auto (where the model's parameters are), cpu or cuda.

        Returns
        -------
        Classifier
            In evaluation mode, without an entry in a registry.

        Raises
        ------
        InputError
            When the model cannot be copied, has no such head, or has other classes, and when the
            transform gives no tensor (3, H, W).
        """
        from singflow.data.features import named_classes
        from singflow.towers.classifiers import of_model
        from singflow.towers.device import place_of

        on = place_of(model, device)
        tower = of_model(model, transform, head, name, on)
        names = named_classes(class_names, tower.weight, f"the head of {name}")
        return _placed(tower, name, None, names, on)

    def features(self, images: Photo | Sequence[Photo], max_pixels: int = MAX_PIXELS) -> np.ndarray:
        """The inputs of the head, with the model's own evaluation transform.

        Parameters
        ----------
        images : str, Path, bytes or PIL.Image.Image, or a sequence of them
            n images.
        max_pixels : int
            Limit on width times height, in pixels.

        Returns
        -------
        ndarray of shape (n, d)
            Float32.
        """
        return _embedded(self.tower, images, self.device, max_pixels)

    def locate(self, image: Photo, max_pixels: int = MAX_PIXELS) -> Located:
        """The feature of an image by positions, with the model's own evaluation transform.

        Parameters
        ----------
        image : str, Path, bytes or PIL.Image.Image
            Image.
        max_pixels : int
            Limit on width times height, in pixels.

        Returns
        -------
        Located
            Feature, its parts by position, and the part of the image that they cover; no parts if
            the feature is no mean over positions.
        """
        from singflow.towers.device import without_tf32
        from singflow.towers.positions import split_by_position

        photo, preprocess = open_image(image, max_pixels), self.tower.preprocess
        with without_tf32(self.device):
            found = split_by_position(self.tower, _views(self.tower, [photo], self.device))
        seen = preprocess.seen(*photo.size)
        parts = None if found.parts is None else found.parts[0].numpy()
        return Located(found.features.numpy(), parts, found.rest[0].numpy(), seen)

    def predict(self, features: np.ndarray) -> list[list[Prediction]]:
        """The likeliest classes of features.

        Parameters
        ----------
        features : ndarray of shape (n, d)
            Features of images.

        Returns
        -------
        list of list of Prediction
            At most five classes for every feature, likeliest first.
        """
        found = []
        for row in features:
            logits = (row[None] @ self.weight.T + self.bias)[0]
            shares = scipy.special.softmax(logits.astype(np.float64)).tolist()
            best = np.argsort(-logits, kind="stable")[:LIKELIEST].tolist()
            found.append([Prediction(i, self.class_names[i], shares[i]) for i in best])
        return found


def load_entry(
    entry: ModelEntry, name: str, classes: list[str], device: str, *, download: bool = False
) -> Classifier:
    """Load the classifier of a resolved entry, whose head has classes of these names."""
    from singflow.towers.classifiers import load_classifier
    from singflow.towers.device import pick_device

    tower = load_classifier(entry, download=download)
    return _placed(tower, name, entry, classes, pick_device(device))


def _placed(
    tower: classifiers.LoadedClassifier,
    name: str,
    entry: ModelEntry | None,
    classes: list[str],
    device: torch.device,
) -> Classifier:
    import torch

    from singflow.towers.classifiers import weights_sha256
    from singflow.towers.gpu_errors import in_memory

    weight, bias = (part.cpu().numpy().copy() for part in (tower.weight, tower.bias))
    made = weights_sha256(tower.model), stored_precision(weight)
    with in_memory(f"the weights of {name}"):
        placed = tower.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Classifier(name, entry, weight, bias, classes, *made, placed, device)


@dataclass
class Space:
    """A vision-language space: images and texts as vectors of the same width m."""

    name: str
    entry: SpaceEntry
    texts: Texts
    device: torch.device

    @classmethod
    @explained()
    def load(
        cls,
        name: str = "conse_minilm",
        *,
        spaces: str | Path = SPACES,
        device: str = "auto",
        download: bool = False,
    ) -> Self:
        """Find a space whose weights are on this machine; its towers are loaded when first needed.

        Parameters
        ----------
        name : str
            Name in the registry.
        spaces : str or Path
            Registry of your own spaces, beside the packaged ones.
        device : str
            auto, cpu or cuda.
        download : bool
            Whether weights are downloaded that are not here, as by `singflow prefetch`. Without
            it, nothing asks the network.

        Returns
        -------
        Space
            The space, whose towers are not loaded yet.

        Raises
        ------
        InputError
            For an unknown name, and for weights that are missing.
        """
        from singflow.towers.device import pick_device
        from singflow.towers.spaces import fetch
        from singflow.towers.weights import check_here

        entry, on = resolve_spaces(spaces, [name])[name], pick_device(device)
        (fetch if download else check_here)(entry)
        texts = Texts(entry, on, ["an image of a {}"])
        return cls(name, entry, texts, on)

    def __repr__(self) -> str:
        return (
            f"Space {self.name}: vectors of {self.entry.dim} numbers, on {self.device}\n"
            f"embed_images(images) and embed_texts(texts); towers: {self.entry.source}"
        )

    @cached_property
    @explained()
    def tower(self) -> spaces.ImageTower:
        """The image tower."""
        from singflow.towers.gpu_errors import in_memory
        from singflow.towers.spaces import load_image_tower

        with in_memory(f"the weights of {self.name}"):
            return load_image_tower(self.entry).to(self.device)

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Embeddings of texts.

        Parameters
        ----------
        texts : sequence of str
            n texts, at least one.

        Returns
        -------
        ndarray of shape (n, m)
            Float32, of unit norm.
        """
        return self.texts.embed(list(texts))

    def embed_images(
        self,
        images: Photo | Iterable[Any],
        max_pixels: int = MAX_PIXELS,
        *,
        normalized: tuple[Sequence[float], Sequence[float]] | None = None,
    ) -> np.ndarray:
        """Embeddings of images, which go through the space's own transform.

        Parameters
        ----------
        images : str, Path, bytes or PIL.Image.Image, or an iterable of them or of batches
            n images. A batch, as of a data loader, is a tensor (k, 3, H, W), a list of images, a
            tuple of images and labels, or a mapping with `pixel_values`. Single images go through
            the tower one by one, batches as batches.
        max_pixels : int
            Limit on width times height, in pixels.
        normalized : tuple of mean and standard deviation, optional
            How tensors were normalized: three numbers each, for red, green and blue. None: their
            values are from 0 to 1.

        Returns
        -------
        ndarray of shape (n, m)
            Float32, not normalized.

        Raises
        ------
        InputError
            For unusable images, and for tensors whose values are not from 0 to 1 after the
            normalization is undone.
        """
        return _embedded(self.tower, images, self.device, max_pixels, normalized)


def _embedded(
    tower: classifiers.LoadedClassifier | spaces.ImageTower,
    images: Photo | Iterable[Any],
    device: torch.device,
    max_pixels: int,
    normalized: Normalized = None,
) -> np.ndarray:
    """Outputs of a tower for view 0 of every image; each single image is a batch of its own."""
    import torch
    from PIL import Image

    from singflow.towers.batches import photos_of
    from singflow.towers.device import without_tf32
    from singflow.towers.parameters import CPU_BATCH, GPU_BATCH

    one = str | Path | bytes | Image.Image | torch.Tensor
    most = CPU_BATCH if device.type == "cpu" else GPU_BATCH
    rows = []
    with torch.no_grad(), without_tf32(device):
        for item in [images] if isinstance(images, one) else images:
            photos = [open_image(photo, max_pixels) for photo in photos_of(item, normalized)]
            for start in range(0, len(photos), most):
                views = _views(tower, photos[start : start + most], device)
                rows.append(tower(views).float().cpu().numpy())
    if not rows:
        raise InputError("images: none were given: the loader or the list is empty")
    return np.concatenate(rows)


def _views(
    tower: classifiers.LoadedClassifier | spaces.ImageTower,
    photos: list[Image.Image],
    device: torch.device,
) -> torch.Tensor:
    import torch

    views = torch.stack([tower.preprocess.whole(photo) for photo in photos])
    return views.to(device, memory_format=torch.channels_last)
