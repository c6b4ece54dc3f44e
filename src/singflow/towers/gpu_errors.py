"""Errors of a GPU: those that say that its memory is too small, and those that blame no model."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from singflow.errors import InputError

# How CUDA, cuDNN and cuBLAS report too little memory, and other errors.
_MEMORY = re.compile(r"out of memory|_STATUS_\w*ALLOC")
_ERROR = re.compile(r"\b(CUDA|cuDNN)( \w+)? error|_STATUS_|cuDNN algorithm|find an engine")


def is_memory(error: Exception) -> bool:
    """Whether an error says that the memory of a GPU is too small."""
    return isinstance(error, torch.OutOfMemoryError) or bool(_MEMORY.search(str(error)))


def is_of_device(error: Exception) -> bool:
    """Whether an error is that of a GPU or of its libraries, and not of a model."""
    return is_memory(error) or bool(_ERROR.search(str(error)))


def too_small(what: str, error: Exception) -> InputError:
    """The message that a GPU's memory is too small for this."""
    said = str(error).partition("\n")[0]
    return InputError(
        f"the GPU's memory is too small for {what} ({said}): take a larger GPU, end other programs "
        "on it, or set extraction.device to cpu"
    )


@contextmanager
def in_memory(what: str) -> Iterator[None]:
    """Raise InputError if the memory of a GPU is too small for what the block moves there."""
    try:
        yield
    except RuntimeError as error:
        if is_memory(error):
            raise too_small(what, error) from None
        raise
