"""A cache of embedded texts, so that a large vocabulary is embedded only once."""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from singflow import cli
from singflow.artifacts.tensors import read_tensors, write_tensors
from singflow.errors import InputError
from singflow.towers.parameters import Prompts

CACHE = Path(Prompts.model_fields["cache"].default)
CHUNK = 1024  # texts

SENTENCES = ["sentence-transformers", "transformers"]
LIBRARIES = {  # that embed the texts of a space, by its source
    "conse": SENTENCES,
    "open_clip": ["open_clip_torch"],
    "transformers": ["transformers"],
    "features": SENTENCES,
}


@dataclass
class TextCache:
    """A folder of embedded texts, in chunks named by the hash of the facts and of their texts.

    A call sets `weights_sha256`, which is kept beside the texts: no tower is needed for known ones.
    """

    facts: dict[str, Any]  # what decides the bytes besides the texts: files, versions, device
    embed: Callable[[list[str]], np.ndarray]  # n texts -> embeddings (n, m)
    folder: Path = CACHE
    # Wraps the chunks, and gets their number.
    progress: Callable[[Iterable[list[str]], int], Iterable[list[str]]] = lambda chunks, _: chunks
    hash_weights: Callable[[], str] = lambda: ""  # SHA-256 of the weights of the tower
    weights_sha256: str = field(default="", init=False)

    def __call__(self, texts: list[str]) -> np.ndarray:
        """Embeddings (n, m) of n texts; chunks that are missing or damaged are embedded."""
        chunks = [texts[start : start + CHUNK] for start in range(0, len(texts), CHUNK)]
        return np.concatenate([self._chunk(chunk) for chunk in self.progress(chunks, len(chunks))])

    def _path(self, texts: list[str]) -> Path:
        key = hashlib.sha256(
            json.dumps({**self.facts, "texts": texts}, sort_keys=True).encode()
        ).hexdigest()
        return self.folder / f"{key}.safetensors"

    def _chunk(self, texts: list[str]) -> np.ndarray:
        path = self._path(texts)
        if path.exists():
            try:
                tensors, metadata = read_tensors(path, ["embeddings"])
            except InputError as error:
                cli.log.warning("%s; its %d texts are embedded again", error, len(texts))
            else:
                if metadata.get("sha256") == _digest(tensors["embeddings"]):
                    self.weights_sha256 = metadata["weights_sha256"]
                    return tensors["embeddings"]
                cli.log.warning("%s: is damaged; its %d texts are embedded again", path, len(texts))
        embeddings = self.embed(texts)
        self.weights_sha256 = self.hash_weights()
        made = {"sha256": _digest(embeddings), "weights_sha256": self.weights_sha256}
        try:
            write_tensors(path, {"embeddings": embeddings}, made)
        except InputError as error:
            cli.log.warning("%s; %d texts are embedded again next time", error, len(texts))
        return embeddings


def _digest(embeddings: np.ndarray) -> str:
    """Hash of shape, type and values."""
    return hashlib.sha256(
        f"{embeddings.shape} {embeddings.dtype}".encode() + embeddings.tobytes()
    ).hexdigest()
