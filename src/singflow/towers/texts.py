"""Embeddings of texts in a space; the text tower is loaded only for a text without one."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from singflow import cli
from singflow.artifacts.tensors import Tensors
from singflow.config.registry import SpaceEntry
from singflow.data.manifest import Classes, fill, head_rows, prompt_of
from singflow.errors import InputError, is_unicode
from singflow.extras import explained

if TYPE_CHECKING:
    import torch

    from singflow.towers.spaces import TextTower


def text_of(name: str, templates: list[str]) -> str:
    """The text of a class, or its name and the number of templates if there are several."""
    one = len(templates) == 1
    return fill(templates[0], name) if one else f"{name} ({len(templates)} templates)"


def checked_texts(texts: Sequence[str]) -> list[str]:
    """The texts as a list; InputError if one of them is blank or not valid Unicode."""
    for text in texts:
        if not text.strip():
            raise InputError(
                "a text that images are compared with is blank: write words, or leave it out"
            )
        if not is_unicode(text):
            raise InputError(f"the text {text[:40]!r} is not valid Unicode: write it anew")
    return list(texts)


def stored_texts(
    names: dict[str, list[str]],
    tensors: Tensors,
    label_templates: list[str],
    concept_templates: list[str],
    prompts: dict[str, str],
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Embeddings of a study by text, where it embedded the text itself; texts of labels."""
    labels = names["labels"]
    own = [prompts[label] != prompt_of(label) for label in labels]
    texts = [
        prompts[label] if is_own else text_of(label, label_templates)
        for label, is_own in zip(labels, own, strict=True)
    ]
    stored = dict(zip(names["targets"], tensors.get("target_embeddings", []), strict=True))
    if len(concept_templates) == 1:
        filled = [fill(concept_templates[0], concept) for concept in names["concepts"]]
        stored |= dict(zip(filled, tensors["concept_embeddings"], strict=True))
    for text, is_own, embedding in zip(texts, own, tensors["label_embeddings"], strict=True):
        if is_own or len(label_templates) == 1:
            stored[text] = embedding
    return stored, texts


@dataclass
class Texts:
    """Embeddings of texts in a space.

    templates: of class names. stored: embeddings by text, from the space's text tower. labels: text
    and embedding of a study's labels. concepts: P phrases of a study, with embeddings (P, m). made:
    the file of the stored embeddings, and the hash of the tower's weights that made the file.
    """

    entry: SpaceEntry
    device: "torch.device"
    templates: list[str]
    stored: dict[str, np.ndarray] = field(default_factory=dict)
    labels: dict[str, tuple[str, np.ndarray]] = field(default_factory=dict)
    concepts: Sequence[str] = ()
    concept_embeddings: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    made: tuple[Path, str] | None = None

    @cached_property
    @explained()
    def _tower(self) -> "TextTower":
        from singflow.towers.checkpoints import weights_sha256
        from singflow.towers.spaces import load_text_tower

        started = time.perf_counter()
        tower = load_text_tower(self.entry, self.device)
        if self.made and (weights := weights_sha256(tower.module)) != self.made[1]:
            raise InputError(
                f"{self.made[0]}: was made with weights {self.made[1][:12]} of the text tower, but "
                f"those here are {weights[:12]}: install the former again, or run the study again"
            )
        cli.log.info("text tower loaded in %.1f s", time.perf_counter() - started)
        return tower

    def embed(self, texts: list[str]) -> np.ndarray:
        """Unit embeddings (n, m) of texts. A new text is embedded alone, whatever the others."""
        from singflow.towers.device import without_tf32

        for text in texts:
            if text not in self.stored:
                with without_tf32(self.device):
                    self.stored[text] = self._tower.embed([text])[0]
        return np.array([self.stored[text] for text in texts]).reshape(len(texts), self.entry.dim)

    def of_classes(self, names: list[str]) -> tuple[list[str], np.ndarray]:
        """Texts of the classes of a head, as the study has them, and their embeddings (C, m)."""
        from singflow.towers.spaces import embed_templates

        texts = [text_of(name, self.templates) for name in names]
        rows = head_rows(self.labels, names)
        own = {row: of for row, of in zip(rows, self.labels.values(), strict=True) if row >= 0}
        others = [row for row in range(len(names)) if row not in own]
        embeddings = np.empty((len(names), self.entry.dim), np.float32)
        if others:
            chosen = [names[row] for row in others]
            embeddings[others] = embed_templates(self._of_tower, chosen, self.templates, {})
        for row, (text, embedding) in own.items():
            texts[row], embeddings[row] = text, embedding
        return texts, embeddings

    def spellings(self, names: list[str], listed: Classes) -> tuple[np.ndarray, np.ndarray]:
        """Unit embeddings (C, m) of class texts and of other spellings, as in embed_classes."""
        from singflow.towers.spaces import class_spellings

        texts, others = class_spellings(self._of_tower, names, listed, self.entry, self.templates)
        return texts.astype(np.float64), others.astype(np.float64)

    def _of_tower(self, texts: list[str]) -> np.ndarray:
        """Stored embeddings; the text tower embeds the texts that have none, as embed_prompts."""
        from singflow.towers.device import without_tf32

        known = dict(self.stored)
        lacking = [text for text in texts if text not in known]
        if lacking:
            with without_tf32(self.device):
                known |= dict(zip(lacking, self._tower.embed(lacking), strict=True))
        return np.stack([known[text] for text in texts])
