"""Models of transformers: from the hub's cache, from a folder of one's own, or untrained."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from singflow.config.registry import ModelEntry, TransformersEntry
from singflow.errors import InputError, in_one_line
from singflow.towers.checkpoints import check_finite, some
from singflow.towers.device import seeded
from singflow.towers.views import Preprocess, from_processor
from singflow.towers.weights import read_part, saved_at


def load_pretrained(
    entry: ModelEntry | TransformersEntry, auto: str, **settings: Any
) -> tuple[Any, Preprocess]:
    """The model of an entry, as the class `auto` of transformers builds it, and its transform."""
    import transformers
    from huggingface_hub import is_offline_mode
    from transformers.utils.logging import disable_progress_bar

    if is_offline_mode():  # otherwise downloads show how far they are
        disable_progress_bar()
    kind, where = getattr(transformers, auto), saved_at(entry)
    if where:
        preprocess = from_processor(read_part(entry, "image processor"))
    with in_one_line(f"{where or entry.id}: transformers cannot build it"):
        if where is None:
            settings |= entry.config or {}
            choices = dict(entry.transform or {})
            configuration = transformers.AutoConfig.for_model(
                settings.pop("model_type"), **settings
            )
            processor = getattr(transformers, choices.pop("image_processor_type"))(**choices)
            return kind.from_config(configuration).eval(), from_processor(processor)
        safe = {"revision": entry.revision or "main", "trust_remote_code": False}
        configuration = transformers.AutoConfig.from_pretrained(where, **safe)
        if configuration.model_type == "siglip2":
            raise InputError(
                f"{where}: this SigLIP 2 takes images of any shape (NaFlex), but views have one "
                "size: take a variant of fixed size, as google/siglip2-base-patch16-224"
            )
        model, found = kind.from_pretrained(
            where,
            dtype=torch.float32,
            use_safetensors=True if entry.weights != "hub" else None,  # the hub may have others
            weights_only=True,
            output_loading_info=True,
            **safe,
        )
    if missing := sorted(found["missing_keys"]):
        raise InputError(
            f"{entry.id}: its weights lack {some(missing)} of a {type(model).__name__}, which "
            "would be random: save the whole model with save_pretrained"
        )
    return model.eval(), preprocess


class ImageFeatures(nn.Module):
    """Images (n, 3, h, w) -> embeddings (n, m) of a dual encoder."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        embeddings: torch.Tensor = self.model.get_image_features(pixel_values=images).pooler_output
        return embeddings


def load_dual_encoder(entry: TransformersEntry, *, without: str) -> tuple[Any, Preprocess]:
    """A dual encoder, without the parts whose names begin so, and its transform."""
    with seeded():
        model, preprocess = load_pretrained(entry, "AutoModel")
    for side in ("image", "text"):
        if not hasattr(model, f"get_{side}_features"):
            raise InputError(
                f"{entry.id}: {type(model).__name__} gives no embeddings of {side}s in one space "
                "with the others: a space needs a dual encoder, such as CLIP or SigLIP"
            )
    if entry.weights != "random":
        check_finite(model, entry.id)
    for name, _ in [*model.named_children()]:
        if name.startswith(without):
            delattr(model, name)
    return model, preprocess


def tokenize_for(
    entry: TransformersEntry, tokenizer: Any, model: Any
) -> Callable[[list[str]], tuple[Any, list[int]]]:
    """Texts -> a batch, padded as the model was trained, and the number of tokens of every text."""
    text = model.config.text_config
    most = min(tokenizer.model_max_length, text.max_position_embeddings)
    padding: dict[str, Any] = {"padding": True}
    if model.config.model_type == "siglip":  # whose text embedding is that of the last token
        padding = {"padding": "max_length", "max_length": most}

    def tokenize(texts: list[str]) -> tuple[Any, list[int]]:
        tokens = tokenizer(texts, verbose=False)["input_ids"]
        lengths = list(map(len, tokens))
        if (longest := max(lengths)) > most:
            raise too_long(most, texts[lengths.index(longest)])
        if max(map(max, tokens)) >= text.vocab_size:
            raise InputError(
                f"{entry.id}: its tokenizer has more tokens than the {text.vocab_size} of its "
                "model: save the tokenizer that the model was trained with"
            )
        return tokenizer(texts, return_tensors="pt", **padding), lengths

    return tokenize


def too_long(tokens: int, text: str) -> InputError:
    return InputError(f"the text tower takes {tokens} tokens; shorten the text {text[:60]!r}...")
