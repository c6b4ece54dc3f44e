"""A tiny UnCLIP generator with random weights, in the layout that the hub publishes Karlo in."""

import inspect
import json

import torch
from diffusers import (
    UnCLIPImageVariationPipeline,
    UnCLIPScheduler,
    UNet2DConditionModel,
    UNet2DModel,
)
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

START, END = "<|startoftext|>", "<|endoftext|>"
UNET = {
    "layers_per_block": 1, "block_out_channels": (8, 16), "norm_num_groups": 4,
    "resnet_time_scale_shift": "scale_shift",
}  # fmt: skip
DOWN, UP = "ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D"
BINARY = {
    "model.safetensors": "pytorch_model.bin",
    "diffusion_pytorch_model.safetensors": "diffusion_pytorch_model.bin",
}


def super_resolution(size):
    blocks = {"down_block_types": (DOWN, DOWN), "up_block_types": (UP, UP)}
    return UNet2DModel(size, in_channels=6, out_channels=3, add_attention=False, **blocks, **UNET)


def build_generator(folder, *, dim=768, small=16, large=32, seed=0, safetensors=True):
    """Write the generator: embeddings of width `dim`, pictures of `large` x `large` pixels."""
    torch.manual_seed(seed)
    text = CLIPTextConfig(
        vocab_size=4, hidden_size=dim, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=2, projection_dim=dim, bos_token_id=2, eos_token_id=3, pad_token_id=0,
    )  # fmt: skip
    decoder = UNet2DConditionModel(
        small, in_channels=3, out_channels=6, cross_attention_dim=8, attention_head_dim=4,
        down_block_types=(DOWN, "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn", class_embed_type="identity",
        up_block_types=("SimpleCrossAttnUpBlock2D", UP), **UNET,
    )  # fmt: skip
    text_proj = inspect.signature(UnCLIPImageVariationPipeline).parameters["text_proj"].annotation
    models = {
        "decoder": decoder,
        "text_encoder": CLIPTextModelWithProjection(text),
        "text_proj": text_proj(clip_embeddings_dim=dim, time_embed_dim=32, cross_attention_dim=8),
        "super_res_first": super_resolution(large),
        "super_res_last": super_resolution(large),
    }
    sample = {"variance_type": "fixed_small_log", "prediction_type": "sample"}
    schedulers = {
        "decoder_scheduler": UnCLIPScheduler(variance_type="learned_range"),
        "super_res_scheduler": UnCLIPScheduler(**sample),  # epsilon: black or white
    }
    index = {"_class_name": "UnCLIPImageVariationPipeline", "_diffusers_version": "0.12.0.dev0"}
    for name, part in (models | schedulers).items():
        part.save_pretrained(folder / name)
        index[name] = ["diffusers", type(part).__name__]
    index |= {
        "text_encoder": ["transformers", "CLIPTextModelWithProjection"],
        "text_proj": ["unclip", "UnCLIPTextProjModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
    }
    special = {"bos_token": START, "eos_token": END, "pad_token": "!", "unk_token": END}
    cleaning = {"tokenizer_class": "CLIPTokenizer", "do_lower_case": True, "errors": "replace"}
    (folder / "tokenizer").mkdir()
    for name, content in (
        ("model_index.json", index),
        ("tokenizer/vocab.json", {"!": 0, "!</w>": 1, START: 2, END: 3}),
        ("tokenizer/special_tokens_map.json", special),
        ("tokenizer/tokenizer_config.json", special | cleaning | {"model_max_length": 77}),
    ):
        (folder / name).write_text(json.dumps(content, indent=2, sort_keys=True))
    (folder / "tokenizer/merges.txt").write_text("#version: 0.2\n")
    for path in sorted(folder.rglob("*.safetensors")) if not safetensors else []:
        torch.save(models[path.parent.name].state_dict(), path.with_name(BINARY[path.name]))
        path.unlink()
    return folder
