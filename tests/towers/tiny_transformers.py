"""Small random models of transformers, saved into a folder as their users save them."""

import string
from pathlib import Path

import tokenizers
import torch
import transformers
from tokenizers import models, normalizers, pre_tokenizers, processors

from singflow.config.registry import ModelEntry, TransformersEntry
from tests.towers.models import FIVE

SIDE, LONGEST = 32, 64  # pixels of an image, tokens of a text
SIZES = {"hidden_size": 16, "intermediate_size": 32}
SIZES |= {"num_hidden_layers": 2, "num_attention_heads": 2}
VISION = SIZES | {"image_size": SIDE, "patch_size": 8}
SQUARE = {"height": SIDE, "width": SIDE}
MARKS = {"pad_token": "</s>", "eos_token": "</s>", "unk_token": "<unk>"}  # of SigLIP
DIMS = {"clip": 12, "siglip": 16, "siglip2": 16}


def space(kind, weights=None, **fields):
    """The entry of a saved dual encoder."""
    given = {"id": f"some/{kind}", "dim": DIMS[kind], "source": "transformers"}
    return TransformersEntry(**given | {"weights": weights or f"file:checkpoints/{kind}"} | fields)


def fine_tuned(kind, **fields):
    """The entry of a saved classifier."""
    given = {"source": "transformers", "id": "some/start", "class_names": FIVE}
    return ModelEntry(**given | {"weights": f"file:checkpoints/{kind}"} | fields)


def text_config(tokenizer, **changes):
    ids = {name: getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    return {
        **SIZES,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": LONGEST,
        **{f"{name}_token_id": token for name, token in ids.items() if token is not None},
        **changes,
    }


def _byte_pairs():
    """CLIP's tokenizer, whose words are letters."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*letters, *(f"{letter}</w>" for letter in letters)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    vocab = {word: token for token, word in enumerate(words)}
    return transformers.CLIPTokenizer(vocab=vocab, merges=[], model_max_length=LONGEST)


def _unigrams():
    """A tokenizer as SigLIP's: lower case, no mask, and the end stands where a text has ended."""
    words = ["</s>", "<unk>", "▁", *string.ascii_lowercase]
    backend = tokenizers.Tokenizer(models.Unigram([(word, -1.0) for word in words], unk_id=1))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 0)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, **MARKS, model_input_names=["input_ids"], model_max_length=LONGEST
    )


def _gemma():
    """SigLIP 2's own tokenizer, which names no longest text."""
    words = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *string.ascii_lowercase]
    words += [f"<0x{byte:02X}>" for byte in range(256)]
    vocab = {word: token for token, word in enumerate(words)}
    tokenizer = transformers.Siglip2Tokenizer(
        vocab=vocab, merges=[], padding_side="right", model_input_names=["input_ids"]
    )
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", 1)]
    )
    return tokenizer


def save_dual_encoder(kind: str, folder: Path, **options: str) -> transformers.PreTrainedModel:
    """Save a CLIP, a SigLIP or a SigLIP 2 of fixed size with all that belongs to it."""
    torch.manual_seed(len(kind))
    tokenizer = {"clip": _byte_pairs, "siglip": _unigrams, "siglip2": _gemma}[kind]()
    parts = {"text_config": text_config(tokenizer), "vision_config": VISION}
    if kind == "clip":
        configuration = transformers.CLIPConfig(**parts, projection_dim=DIMS[kind])
        model = transformers.CLIPModel(configuration)
        processor = transformers.CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=SQUARE)
        transformers.CLIPProcessor(processor, tokenizer).save_pretrained(folder)
    else:
        model = transformers.SiglipModel(transformers.SiglipConfig(**parts))
        transformers.SiglipImageProcessor(size=SQUARE).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    model.save_pretrained(folder, **options)
    return model.eval()


CLASSIFIERS = {  # of five classes
    "vit": lambda: transformers.ViTForImageClassification(
        transformers.ViTConfig(**VISION, num_labels=5)
    ),
    "dinov2": lambda: transformers.Dinov2ForImageClassification(
        transformers.Dinov2Config(**VISION, num_labels=5)
    ),
    "siglip": lambda: transformers.SiglipForImageClassification(
        transformers.SiglipConfig(vision_config=VISION, num_labels=5)
    ),
    "resnet": lambda: transformers.ResNetForImageClassification(
        transformers.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=5
        )
    ),
}


def save_classifier(kind: str, folder: Path) -> transformers.PreTrainedModel:
    """Save a classifier, whose weights no fresh one has, and its image processor."""
    torch.manual_seed(5)
    model = CLASSIFIERS[kind]()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    mean = [0.4, 0.5, 0.6]
    transformers.ViTImageProcessor(size=SQUARE, image_mean=mean).save_pretrained(folder)
    return model.eval()
