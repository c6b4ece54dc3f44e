"""Pictures drawn from embeddings by Karlo, an UnCLIP generator (supplement, section 3.2)."""

import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from singflow.cli import log
from singflow.config.registry import SpaceEntry, objection
from singflow.errors import InputError, brief
from singflow.pictures.parameters import Pictures
from singflow.pictures.weights import generator_folder, refuse_space

if TYPE_CHECKING:
    import torch

PIPELINE = "UnCLIPImageVariationPipeline"
FIX = "fetch or copy the generator again"


def choose_renderer(
    space: str, entry: SpaceEntry, pictures: Pictures
) -> Literal["unclip", "words"]:
    """What shows the features of a space. The log says why auto does not generate pictures."""
    if pictures.renderer == "unclip":
        refuse_space(space, entry)
    if pictures.renderer != "auto":
        return pictures.renderer
    if not (reason := _hindrance(entry, pictures)):
        return "unclip"
    log.info("space %s: words are shown, no pictures are generated: %s", space, reason)
    return "words"


def _hindrance(entry: SpaceEntry, pictures: Pictures) -> str | None:
    """Why no pictures are generated; None if they are."""
    if reason := objection(entry):
        return reason
    try:
        find_generator(pictures)
    except InputError as error:
        return str(error)
    import torch

    from singflow.towers.device import unseen

    if torch.cuda.is_available():
        return None
    return f"{unseen()}; pictures.renderer: unclip generates on a CPU too, slowly"


def find_generator(pictures: Pictures) -> Path:
    """Folder of the generator, which is one of UnCLIP; the network is never used."""
    folder = generator_folder(pictures)
    path = folder / "model_index.json"
    fix = (
        "pictures.generator must name a folder of diffusers, or a hub name, of the kind of "
        "kakaobrain/karlo-v1-alpha-image-variations"
    )
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable ({error}): {fix}") from None
    kind = index.get("_class_name") if isinstance(index, dict) else None
    if kind != PIPELINE:
        raise InputError(f"{path}: _class_name is {kind!r}, not {PIPELINE}: {fix}")
    return folder


def load_pipeline(folder: Path, device: "torch.device", dtype: "torch.dtype") -> Any:
    """The UnCLIPImageVariationPipeline of diffusers from a folder, without its image encoder."""
    from diffusers import UnCLIPImageVariationPipeline
    from diffusers.utils import logging
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    logging.set_verbosity_error()
    parts = {
        name: _load_part(parameter.annotation, folder / name, device, dtype)
        for name, parameter in inspect.signature(UnCLIPImageVariationPipeline).parameters.items()
        if name not in ("image_encoder", "feature_extractor")
    }
    tokenizer, text = parts["tokenizer"], parts["text_encoder"].config
    found = len(tokenizer), tokenizer.model_max_length
    needed = text.vocab_size, text.max_position_embeddings
    # A tokenizer without its files is built all the same, with its special tokens alone.
    if found != needed:
        raise InputError(
            f"{folder / 'tokenizer'}: its vocabulary and longest text are {found}, the text "
            f"encoder's {needed}: {FIX}"
        )
    # Given embeddings, the pipeline reads nothing but the dtype of its image encoder.
    pipeline: Any = UnCLIPImageVariationPipeline(
        **parts, image_encoder=parts["text_proj"], feature_extractor=None
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _load_part(kind: Any, folder: Path, device: "torch.device", dtype: "torch.dtype") -> Any:
    import torch

    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of the generator: {FIX}")
    try:
        if not issubclass(kind, torch.nn.Module):
            return kind.from_pretrained(folder, local_files_only=True)
        safe = None if any(folder.glob("*.safetensors")) else False
        model, keys = kind.from_pretrained(
            folder, local_files_only=True, use_safetensors=safe, output_loading_info=True
        )
    except Exception as error:  # noqa: BLE001 (every library raises its own kinds of errors)
        raise InputError(
            f"{folder}: not readable as {kind.__name__} ({brief(error)}): {FIX}"
        ) from None
    if keys["missing_keys"]:
        raise InputError(
            f"{folder}: its weights lack {', '.join(sorted(keys['missing_keys'])[:3])}: {FIX}"
        )
    model.to(device, dtype).eval()
    # Copy into memory of PyTorch: the alignment in the file changes the last digits of sums.
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    return model


class UnCLIP:
    """A generator that draws embeddings of width `dim`, one picture at a time."""

    def __init__(self, pipeline: Any, pictures: Pictures) -> None:
        self.pipeline = pipeline
        self.pictures = pictures
        self.dim: int = pipeline.text_proj.config.clip_embeddings_dim

    def render(self, embedding: np.ndarray, seed: int) -> np.ndarray:
        """A picture (h, w, 3) of an embedding (dim,), decided by the embedding and the seed alone.

        One noise tensor, drawn on the CPU, starts the super-resolution, and its top left part
        starts the decoder, each scaled by its scheduler. The same random generator then draws the
        noise of the steps.
        """
        import torch

        vector = torch.tensor(np.asarray(embedding), dtype=torch.float32)
        if vector.shape != (self.dim,):
            raise InputError(
                f"an embedding is {tuple(vector.shape)}, not ({self.dim},): render the space that "
                "the generator was trained on"
            )
        if not vector.isfinite().all():
            raise InputError(
                "an embedding holds NaN or infinite values: remove the translator's files and run "
                "the workflow again"
            )
        pipe, like = self.pipeline, self.pipeline.text_proj.embedding_proj.weight
        generator = torch.Generator().manual_seed(seed)
        small, large = pipe.decoder.config.sample_size, pipe.super_res_first.config.sample_size
        noise = torch.randn(1, pipe.decoder.config.in_channels, large, large, generator=generator)
        start = noise[..., :small, :small] * pipe.decoder_scheduler.init_noise_sigma
        enlarged = noise * pipe.super_res_scheduler.init_noise_sigma
        ((picture,),) = pipe(
            image_embeddings=vector[None].to(like),
            decoder_latents=start.to(like),
            super_res_latents=enlarged.to(like),
            decoder_num_inference_steps=self.pictures.decoder_steps,
            super_res_num_inference_steps=self.pictures.super_res_steps,
            decoder_guidance_scale=self.pictures.guidance,
            generator=generator,
            output_type="np",
            return_dict=False,
        )
        if not np.isfinite(picture).all():
            raise InputError(
                f"the generator gives NaN in {like.dtype}: write pictures.dtype: float32, or fewer "
                "steps"
            )
        return np.rint(picture * 255).astype(np.uint8)


def load_generator(pictures: Pictures, device: "torch.device") -> UnCLIP:
    """The generator of pictures.generator, in float32 on a CPU. The network is never used."""
    import torch

    from singflow.towers.gpu_errors import in_memory

    dtype = torch.float32 if device.type == "cpu" else getattr(torch, pictures.dtype)
    with in_memory("the weights of the generator"):
        return UnCLIP(load_pipeline(find_generator(pictures), device, dtype), pictures)
