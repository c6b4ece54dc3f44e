"""Vision-language spaces: an image tower and a text tower that end in the same vectors."""

import importlib.metadata
from pathlib import Path

import numpy as np
import torch
from torch import nn

from singflow.data import prompt_of
from singflow.errors import InputError
from singflow.features import Classifier, load_classifier
from singflow.registry import SpaceEntry


class SentenceEncoder:
    """The text tower of conse_minilm: sentences -> unit vectors (n, m) float32."""

    def __init__(self, entry: SpaceEntry) -> None:
        from sentence_transformers import SentenceTransformer
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
        self._model = SentenceTransformer(str(_package_model(entry.text.removeprefix("package:"))), device="cpu", local_files_only=True)
        if self._model.get_embedding_dimension() != entry.dim:
            raise InputError(
                f"spaces.yaml: {entry.text} gives {self._model.get_embedding_dimension()} dimensions, not {entry.dim}: correct `dim`"
            )

    def __call__(self, texts: list[str]) -> np.ndarray:
        """Unit embeddings (n, m) of n texts."""
        return np.asarray(self._model.encode(texts, normalize_embeddings=True, show_progress_bar=False), dtype=np.float32)


def _package_model(distribution: str) -> Path:
    try:
        files = importlib.metadata.files(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        raise InputError(f"spaces.yaml: package:{distribution} is not installed: pip install {distribution}") from None
    roots = [Path(str(file.locate())).parent for file in files if file.name == "modules.json"]
    if len(roots) != 1:
        raise InputError(f"spaces.yaml: package:{distribution} holds {len(roots)} sentence encoders, not one")
    return roots[0]


class ConSE(nn.Module):
    """The image tower of conse_minilm (Norouzi et al. 2014).

    forward: images (n, 3, h, w) -> the mean of the label sentences' embeddings over the `top` likeliest classes,
    weighted by softmax(logits / temperature), at unit norm: (n, m).
    """

    def __init__(self, classifier: Classifier, sentences: np.ndarray, temperature: float, top: int) -> None:
        super().__init__()
        self.classifier = classifier
        self.sentences: torch.Tensor
        self.register_buffer("sentences", torch.from_numpy(sentences))
        self.temperature = temperature
        self.top = top

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Unit embeddings (n, m)."""
        logits = self.classifier.logits(self.classifier(images))
        weights, classes = torch.softmax(logits / self.temperature, dim=1).topk(self.top)
        mean = torch.einsum("nk,nkm->nm", weights, self.sentences[classes])
        return nn.functional.normalize(mean, dim=1)


def load_image_tower(entry: SpaceEntry) -> ConSE:
    """The image tower of a space. Raises InputError when its parts cannot be had."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    sentences = [prompt_of(info.index_to_description(index, detailed=True)) for index in range(info.num_classes())]
    if len(sentences) != entry.classifier.classes:
        raise InputError(f"spaces.yaml: conse needs an ImageNet classifier of {len(sentences)} classes, not {entry.classifier.classes}")
    return ConSE(load_classifier(entry.classifier), SentenceEncoder(entry)(sentences), entry.temperature, entry.top)
