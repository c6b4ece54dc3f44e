"""Classifiers and spaces by their names in the registries, with NumPy arrays in and out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import scipy

from singflow.analyses.maps import Located
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
from singflow.photo.texts import Texts
from singflow.towers.ready_texts import read_ready

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from singflow.towers import classifiers, spaces

    Photo = str | Path | bytes | Image.Image

CLASSES = Path("config/vocab/imagenet_1k.csv")
MAX_PIXELS = 10**8
LIKELIEST = 5


@dataclass(frozen=True)
class Prediction:
    """A class of the head; its probability is the softmax, from 0 to 1."""

    index: int
    name: str
    probability: float


def open_image(image: Photo, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """An upright 8-bit RGB image from a path, the bytes of a file, or an image.

    Raises InputError for a file that is no image, is damaged, or exceeds `max_pixels`.
    """
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


def pick(wanted: str) -> torch.device:
    """The device for towers; as a side effect, TF32 is switched off for the whole process."""
    from singflow.towers.device import pick_tower_device, use_tf32

    use_tf32(False)
    return pick_tower_device(wanted)


@dataclass
class Classifier:
    """A classifier with its head as arrays.

    weight (C, d) and bias (C,): of the head, float32. weights_sha256: hash of all weights.
    weight_dtype: precision in which the weights of the head are stored.
    """

    name: str
    entry: ModelEntry
    weight: np.ndarray
    bias: np.ndarray
    class_names: list[str]
    weights_sha256: str
    weight_dtype: str
    tower: classifiers.LoadedClassifier
    device: torch.device

    @classmethod
    def load(
        cls,
        name: str,
        *,
        models: str | Path = MODELS,
        classes: str | Path = CLASSES,
        device: str = "auto",
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
            auto, cpu, cuda or mps.

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
        return load_entry(entry, name, entry.class_names or read_class_list(listed), device)

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
        from singflow.towers.positions import split_by_position

        photo, preprocess = open_image(image, max_pixels), self.tower.preprocess
        found = split_by_position(self.tower, _view(self.tower, photo, self.device))
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


def load_entry(entry: ModelEntry, name: str, classes: list[str], device: str) -> Classifier:
    """Load the classifier of a resolved entry, whose head has classes of these names."""
    import torch

    from singflow.towers.classifiers import load_classifier, weights_sha256

    tower, on = load_classifier(entry), pick(device)
    head = (tower.weight.numpy(), tower.bias.numpy())
    made = weights_sha256(tower.model), stored_precision(head[0])
    placed = tower.to(on).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Classifier(name, entry, *head, classes, *made, placed, on)


@dataclass
class Space:
    """A vision-language space: images and texts as vectors of the same width m."""

    name: str
    entry: SpaceEntry
    texts: Texts
    device: torch.device

    @classmethod
    def load(
        cls, name: str = "conse_minilm", *, spaces: str | Path = SPACES, device: str = "auto"
    ) -> Self:
        """Find a space; its towers are loaded when they are first needed.

        Parameters
        ----------
        name : str
            Name in the registry.
        spaces : str or Path
            Registry of your own spaces, beside the packaged ones.
        device : str
            auto, cpu, cuda or mps.

        Returns
        -------
        Space
            The space, whose towers are not loaded yet.

        Raises
        ------
        InputError
            For an unknown name.
        """
        from singflow.towers.device import pick_device

        entry, on = resolve_spaces(spaces, [name])[name], pick(device)
        ready = read_ready(name, entry)
        texts = Texts(entry, pick_device(device), ["an image of a {}"], ready=ready)
        return cls(name, entry, texts, on)

    @cached_property
    def tower(self) -> spaces.ImageTower:
        """The image tower."""
        from singflow.towers.spaces import load_image_tower

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
        self, images: Photo | Sequence[Photo], max_pixels: int = MAX_PIXELS
    ) -> np.ndarray:
        """Embeddings of images.

        Parameters
        ----------
        images : str, Path, bytes or PIL.Image.Image, or a sequence of them
            n images.
        max_pixels : int
            Limit on width times height, in pixels.

        Returns
        -------
        ndarray of shape (n, m)
            Float32, not normalized.
        """
        return _embedded(self.tower, images, self.device, max_pixels)


def _embedded(
    tower: classifiers.LoadedClassifier | spaces.ImageTower,
    images: Photo | Sequence[Photo],
    device: torch.device,
    max_pixels: int,
) -> np.ndarray:
    """Outputs of a tower for view 0 of every image; each image is a batch of its own."""
    import torch
    from PIL import Image

    rows = []
    with torch.inference_mode():
        for image in [images] if isinstance(images, str | Path | bytes | Image.Image) else images:
            view = _view(tower, open_image(image, max_pixels), device)
            rows.append(tower(view).float().cpu().numpy())
    return np.concatenate(rows)


def _view(
    tower: classifiers.LoadedClassifier | spaces.ImageTower,
    photo: Image.Image,
    device: torch.device,
) -> torch.Tensor:
    import torch

    view = tower.preprocess.whole(photo)[None]
    return view.to(device, memory_format=torch.channels_last)
