"""Vision-language spaces: an image tower and a text tower that share their embeddings."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from singflow.config.registry import (
    ConSEEntry,
    FeaturesEntry,
    ModelEntry,
    OpenCLIPEntry,
    SpaceEntry,
    TransformersEntry,
)
from singflow.data.manifest import Classes, fill, prompt_of
from singflow.errors import InputError, in_one_line, readable_as
from singflow.parallel import map_ahead
from singflow.system import regular
from singflow.towers.checkpoints import check_finite, check_unpacked, read_checkpoint
from singflow.towers.classifiers import (
    LoadedClassifier,
    load_classifier,
    run_on_images,
    weights_sha256,
)
from singflow.towers.device import in_float32, seeded
from singflow.towers.gpu_errors import in_memory
from singflow.towers.pretrained import ImageFeatures, load_dual_encoder, tokenize_for, too_long
from singflow.towers.views import Preprocess, from_open_clip
from singflow.towers.weights import (
    open_clip_tag,
    open_clip_tokenizer,
    package_model,
    read_part,
    weights_of,
)

Encode = Callable[[list[str]], np.ndarray]
Tokenize = Callable[[list[str]], tuple[Any, list[int]]]
Progress = Callable[[Iterable[list[str]], int], Iterable[list[str]]]
CHUNK = 1024  # texts that are sorted by length at once


class ConSE(nn.Module):
    """The image tower of a space of label sentences (Norouzi et al. 2014).

    forward: images (n, 3, h, w) -> unit embeddings (n, m): the mean of the sentences' embeddings
    over the `top` likeliest classes, weighted by softmax(logits / temperature). A sentence is
    embedded alone, so that no number depends on the other images.
    """

    def __init__(
        self,
        classifier: LoadedClassifier,
        text: "TextTower",
        sentences: list[str],
        temperature: float,
        top: int,
    ) -> None:
        super().__init__()
        self.classifier, self.preprocess = classifier, classifier.preprocess
        self.text, self.sentences = text, sentences
        self.temperature, self.top = temperature, top
        self.embedded: torch.Tensor
        self.register_buffer("embedded", torch.zeros(len(sentences), text.dim), persistent=False)
        self.known: set[int] = set()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = self.classifier.logits(self.classifier(images))
        weights, classes = torch.softmax(logits / self.temperature, dim=1).topk(self.top)
        # Texts are embedded in single precision, whatever the precision for images. Two threads may
        # embed the same text: they write the same numbers.
        with in_float32(images.device):
            for missing in set(classes.flatten().tolist()) - self.known:
                (embedding,) = self.text.embed([self.sentences[missing]])
                self.embedded[missing] = torch.from_numpy(embedding)
                self.known.add(missing)
            mean = torch.einsum("nk,nkm->nm", weights, self.embedded[classes])
        return nn.functional.normalize(mean, dim=1)


class CLIPImages(nn.Module):
    """Images -> embeddings (n, m) of a dual encoder, not normalized, as renderers expect them."""

    def __init__(self, visual: nn.Module, preprocess: Preprocess, dim: int) -> None:
        super().__init__()
        self.visual, self.preprocess, self.dim = visual, preprocess, dim

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hint = "look at its `transform`, or its image processor"
        output = run_on_images(self.visual, images, "config/spaces.yaml: the tower", hint)
        # Some towers return embeddings of patches as well.
        embeddings: torch.Tensor = output[0] if isinstance(output, tuple) else output
        _check_width(embeddings, self.dim)
        return embeddings


ImageTower = ConSE | CLIPImages


class TextTower(nn.Module):
    """Texts -> embeddings (n, m) float32. A text that is too long is refused, not cut."""

    def __init__(
        self, module: nn.Module, tokenize: Tokenize, encode: Callable[[Any], torch.Tensor], dim: int
    ) -> None:
        super().__init__()
        self.module = module.eval()
        self._tokenize = tokenize
        self._encode = torch.inference_mode()(encode)
        self.dim = dim

    def embed(
        self,
        texts: list[str],
        batch_size: int = 64,
        threads: int = 1,
        progress: Progress = lambda chunks, _: chunks,
    ) -> np.ndarray:
        """Unit embeddings (n, m) of texts, in their order. progress: wraps the chunks of texts."""
        chunks = [texts[start : start + CHUNK] for start in range(0, len(texts), CHUNK)]
        shown = progress(chunks, len(chunks))
        return np.concatenate([self._chunk(chunk, batch_size, threads) for chunk in shown])

    def _chunk(self, texts: list[str], batch_size: int, threads: int) -> np.ndarray:
        lengths = self._tokenize(texts)[1]  # a batch costs as much as its longest text
        order = sorted(range(len(texts)), key=lambda row: (lengths[row], texts[row]))
        parts = (
            [texts[row] for row in order[start : start + batch_size]]
            for start in range(0, len(texts), batch_size)
        )
        # Only encoding runs in threads, because tokenizers are not thread-safe.
        encoded = map_ahead(self._encode, (self._tokenize(part)[0] for part in parts), threads)
        unit = nn.functional.normalize(torch.cat(list(encoded)).float(), dim=1).cpu().numpy()
        _check_width(unit, self.dim)
        embeddings = np.empty_like(unit)
        embeddings[order] = unit
        return embeddings


def _check_width(embeddings: torch.Tensor | np.ndarray, dim: int) -> None:
    if embeddings.shape[1:] != (dim,):
        found = " x ".join(map(str, embeddings.shape[1:]))
        raise InputError(
            f"config/spaces.yaml: the tower gives {found} dimensions, not {dim}: correct `dim`"
        )


def load_image_tower(entry: SpaceEntry, *, download: bool = False) -> ImageTower:
    """The image tower of a space. download: weights that are not here, from the network."""
    if isinstance(entry, FeaturesEntry):
        raise InputError(
            f"a space of source features with text {entry.text} has no image tower: it is for "
            "imported embeddings, data.source: features"
        )
    if isinstance(entry, OpenCLIPEntry):
        with weights_of(entry, download):
            model = _open_clip(entry)
        preprocess = from_open_clip(model.visual.preprocess_cfg)
        return CLIPImages(model.visual, preprocess, entry.dim).eval()
    if isinstance(entry, TransformersEntry):
        with weights_of(entry, download):
            model, preprocess = load_dual_encoder(entry, without="text")
        return CLIPImages(ImageFeatures(model), preprocess, entry.dim).eval()
    sentences = list(_imagenet_sentences().values())
    classes = len(entry.classifier.kept or range(entry.classifier.head_classes))
    if len(sentences) != classes:
        raise InputError(
            f"config/spaces.yaml: conse needs an ImageNet classifier of {len(sentences)} classes, "
            f"not {classes}"
        )
    return ConSE(
        load_classifier(entry.classifier, download=download),
        load_text_tower(entry),
        sentences,
        entry.temperature,
        entry.top,
    )


def _imagenet_sentences() -> dict[str, str]:
    """A sentence for each class of ImageNet, by its synset, in the order of the classes."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    return {
        info.index_to_label_name(index): prompt_of(info.index_to_description(index, detailed=True))
        for index in range(info.num_classes())
    }


def class_sentences(entry: SpaceEntry, classes: Classes) -> dict[str, str]:
    """Sentence by class name, for a ConSE space and ImageNet's classes in order; else empty."""
    sentences = _imagenet_sentences() if isinstance(entry, ConSEEntry) else {}
    if [classes.find(synset) for synset in sentences] != list(range(len(classes.names))):
        return {}
    return dict(zip(classes.names, sentences.values(), strict=True))


def class_spellings(
    embed: Encode, names: list[str], listed: Classes, entry: SpaceEntry, templates: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Unit embeddings (C, m) of a head's classes for the own words, and in a second spelling.

    A ConSE space has sentences, then the templates; another space the templates, then bare names,
    or "a photo of a" if the templates are bare; (0, m) if its texts are a file that lacks these.
    """
    # All heads with a part of the listed classes share one set of embeddings.
    whole = listed.names if set(names) <= set(listed.names) else names
    rows = [{name: row for row, name in enumerate(whole)}[name] for name in names]
    sentences = class_sentences(entry, listed) if whole is listed.names else {}
    bare = ["a photo of a {}"] if templates == ["{}"] else ["{}"]
    texts = embed_templates(embed, whole, templates, sentences)
    try:
        others = embed_templates(embed, whole, templates if sentences else bare, {})[rows]
    except MissingText:
        others = texts[:0]
    return texts[rows], others


def fetch(entry: ModelEntry | SpaceEntry) -> str:
    """Build an entry's towers with the network, which fills caches; the hash of their weights."""
    if isinstance(entry, ModelEntry):
        return weights_sha256(load_classifier(entry, download=True).model)
    text = weights_sha256(load_text_tower(entry, download=True).module)
    if isinstance(entry, FeaturesEntry):
        return text
    return weights_sha256(load_image_tower(entry, download=True))


def load_text_tower(
    entry: SpaceEntry, device: torch.device | None = None, *, download: bool = False
) -> TextTower:
    """The text tower of a space. download: weights that are not here, from the network."""
    device = device or torch.device("cpu")
    with weights_of(entry, download), in_memory("the weights of the text tower"):
        if isinstance(entry, FeaturesEntry) and entry.text.startswith("file:"):
            return _given_texts(Path(entry.text.removeprefix("file:")), entry.dim)
        if isinstance(entry, ConSEEntry | FeaturesEntry):
            return _sentence_encoder(entry, device)
        if isinstance(entry, TransformersEntry):
            return _of_transformers(entry, device)
        return _of_open_clip(entry, device)


def _of_open_clip(entry: OpenCLIPEntry, device: torch.device) -> TextTower:
    tokenize = open_clip_tokenizer(entry)  # before the weights: see lacking()
    model = _open_clip(entry)
    model.visual = nn.Identity()
    model.to(device)

    def numbered(texts: list[str]) -> tuple[torch.Tensor, list[int]]:
        tokens = tokenize(texts)
        longer = tokenize(texts, context_length=tokenize.context_length + 1)
        cut = (tokens != longer[:, : tokens.shape[1]]).any(dim=1)
        if cut.any():
            raise too_long(tokens.shape[1], texts[int(cut.int().argmax())])
        return tokens, [tokens.shape[1]] * len(texts)

    return TextTower(
        model, numbered, lambda tokens: model.encode_text(tokens.to(device)), entry.dim
    )


def _of_transformers(entry: TransformersEntry, device: torch.device) -> TextTower:
    tokenizer = read_part(entry, "tokenizer")  # before the weights: see lacking()
    model, _ = load_dual_encoder(entry, without="vis")
    tokenize = tokenize_for(entry, tokenizer, model)
    model.to(device)

    def encode(batch: Any) -> torch.Tensor:
        return model.get_text_features(**batch.to(model.device)).pooler_output

    return TextTower(model, tokenize, encode, entry.dim)


def _open_clip(entry: OpenCLIPEntry) -> Any:
    """Both towers with their weights."""
    import open_clip

    tag = open_clip_tag(entry)
    model, _, pretrained = entry.id.partition("/")
    kind, _, file = entry.weights.partition(":")
    weights = {"hub": pretrained, "file": file}.get(kind)
    changes = tag if kind != "hub" else {}
    if entry.transform:
        changes = changes | entry.transform
    with seeded(), in_one_line(f"{entry.id}: open_clip cannot build it from {entry.weights}"):
        try:
            built = open_clip.create_model(
                model, pretrained=weights, pretrained_text=False, force_preprocess_cfg=changes
            )
        except Exception:
            if kind == "file":
                read_checkpoint(Path(file))  # whose message says what the file is
            raise
    if kind != "random":
        check_finite(built, entry.id)
    return built.eval()


class MissingText(InputError):
    """A text that a file of embedded texts does not have."""


def _read_npz(path: Path) -> tuple[list[str], np.ndarray]:
    """Texts, and their unit embeddings (t, m), in an .npz of `classes` and `embeddings`."""
    fix = "it must be an .npz of classes (t,), made by np.array(texts, dtype=str), and embeddings"
    with readable_as("text embeddings", path, fix):
        check_unpacked(regular(path))
        with np.load(path, allow_pickle=False) as file:
            texts, found = file["classes"], file["embeddings"].astype(np.float64)
        if texts.dtype.kind != "U" or found.ndim != 2 or texts.shape != found.shape[:1]:
            raise ValueError(f"classes is {texts.dtype} {texts.shape}, embeddings {found.shape}")
    lengths = np.sqrt(np.einsum("tm,tm->t", found, found))
    if not (np.isfinite(lengths) & (lengths > 0)).all():
        raise InputError(f"{path}: holds NaN, infinite values or zeros alone: embed the texts anew")
    if len({*texts.tolist()}) < len(texts):
        raise InputError(f"{path}: repeats a text: remove one of the two")
    return texts.tolist(), (found / lengths[:, None]).astype(np.float32)


def _given_texts(path: Path, dim: int) -> TextTower:
    """A text tower that knows the texts of a file alone."""
    texts, embeddings = _read_npz(path)
    rows = {text: row for row, text in enumerate(texts)}
    known = nn.Embedding.from_pretrained(torch.from_numpy(embeddings))

    def find(wanted: list[str]) -> tuple[torch.Tensor, list[int]]:
        if missing := [text for text in dict.fromkeys(wanted) if text not in rows]:
            raise MissingText(
                f"{path}: lacks {len(missing)} of {len(wanted)} texts, {missing[0]!r} among them: "
                "embed them into it, or change the templates under prompts, "
                "concepts.vocabulary or steering.prompts"
            )
        return torch.tensor([rows[text] for text in wanted]), [1] * len(wanted)

    return TextTower(known, find, known, dim)


def _sentence_encoder(entry: ConSEEntry | FeaturesEntry, device: torch.device) -> TextTower:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.util import batch_to_device
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    folder = package_model(entry.text.removeprefix("package:"))
    model = SentenceTransformer(str(folder), device=str(device), local_files_only=True)
    # `preprocess` is called `tokenize` before sentence-transformers 6.
    prepare = getattr(model, "preprocess", None) or model.tokenize

    def tokenize(texts: list[str]) -> tuple[dict[str, torch.Tensor], list[int]]:
        batch = prepare(texts)
        lengths = batch["attention_mask"].sum(dim=1).tolist()
        for text, length in zip(texts, lengths, strict=True):
            full = length == model.max_seq_length
            if full and len(model.tokenizer(text, verbose=False)["input_ids"]) > length:
                raise too_long(length, text)
        return batch, lengths

    def encode(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        # The model may have been moved to another device.
        embeddings: torch.Tensor = model(batch_to_device(batch, model.device))["sentence_embedding"]
        return embeddings

    return TextTower(model, tokenize, encode, entry.dim)


def embed_templates(
    embed: Encode, names: list[str], templates: list[str], own: dict[str, str]
) -> np.ndarray:
    """Unit embeddings (n, m) of names: the mean over filled templates, or the text in `own`."""
    texts = [own.get(name, fill(template, name)) for name in names for template in templates]
    embeddings = embed(texts).reshape(len(names), len(templates), -1)
    mean = embeddings.mean(axis=1, dtype=np.float64)
    mean /= np.sqrt(np.einsum("nm,nm->n", mean, mean))[:, None]
    return mean.astype(np.float32)
