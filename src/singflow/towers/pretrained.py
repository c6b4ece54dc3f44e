"""Models of transformers: from the hub's cache, from a folder of one's own, or untrained."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from singflow.config.registry import ModelEntry, TransformersEntry, saved_folder
from singflow.errors import InputError, in_one_line
from singflow.towers.checkpoints import check_finite, some
from singflow.towers.device import seeded
from singflow.towers.views import Preprocess, from_processor


def load_pretrained(
    entry: ModelEntry | TransformersEntry, files: list[Path], auto: str, **settings: Any
) -> tuple[Any, Preprocess]:
    """The model of an entry, as the class `auto` of transformers builds it, and its transform.

    files: those of locate(). settings: further settings of the configuration, if nothing is saved.
    """
    import transformers
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    kind = getattr(transformers, auto)
    folder = files[0].parent if entry.weights == "hub" else saved_folder(entry)
    where = folder if entry.weights != "hub" and folder else entry.id
    with in_one_line(f"{where}: transformers cannot build it"):
        if folder is None:  # weights.required() has seen to both
            settings |= entry.config or {}
            choices = dict(entry.transform or {})
            configuration = transformers.AutoConfig.for_model(
                settings.pop("model_type"), **settings
            )
            processor = getattr(transformers, choices.pop("image_processor_type"))(**choices)
            return kind.from_config(configuration).eval(), from_processor(processor)
        safe: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        own = True if entry.weights != "hub" else None  # the hub may have a checkpoint alone
        options = {"use_safetensors": own, "weights_only": True, "output_loading_info": True}
        model, found = kind.from_pretrained(folder, dtype=torch.float32, **options, **safe)
        preprocess = from_processor(transformers.AutoImageProcessor.from_pretrained(folder, **safe))
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


def load_dual_encoder(
    entry: TransformersEntry, files: list[Path], *, without: str
) -> tuple[Any, Preprocess]:
    """A dual encoder, without the parts whose names begin so, and its transform."""
    with seeded():
        model, preprocess = load_pretrained(entry, files, "AutoModel")
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


def load_tokenizer(
    entry: TransformersEntry, files: list[Path], model: Any
) -> Callable[[list[str]], tuple[Any, list[int]]]:
    """Texts -> a batch, padded as the model was trained, and the number of tokens of every text."""
    from transformers import AutoTokenizer

    folder = saved_folder(entry) or files[0].parent
    with in_one_line(f"{entry.id}: transformers cannot read its tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
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
