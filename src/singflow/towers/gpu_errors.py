"""Errors of PyTorch that say that memory is too small, and those that blame an image's size."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from singflow.errors import InputError

# How CUDA, cuDNN, cuBLAS and the allocator of the CPU report too little memory.
_MEMORY = re.compile(r"out of memory|_STATUS_\w*ALLOC|DefaultCPUAllocator")
_SIZE = re.compile(r"size|shape|height|width", re.IGNORECASE)


def is_memory(error: Exception) -> bool:
    """Whether an error says that the memory of a GPU or of the machine is too small."""
    return isinstance(error, torch.OutOfMemoryError) or bool(_MEMORY.search(str(error)))


def is_of_size(error: Exception) -> bool:
    """Whether an error says that a tower does not take images of their size."""
    return bool(_SIZE.search(str(error))) and not is_memory(error)


def too_small(what: str, error: Exception) -> InputError:
    """The message that memory is too small for this."""
    said = str(error).partition("\n")[0]
    return InputError(
        f"the memory is too small for {what} ({said}): take a larger GPU or machine, end other "
        "programs on it, or, on a GPU, set extraction.device to cpu"
    )


@contextmanager
def in_memory(what: str) -> Iterator[None]:
    """Raise InputError if memory is too small for what the block loads or moves to a GPU."""
    try:
        yield
    except RuntimeError as error:
        if is_memory(error):
            raise too_small(what, error) from None
        raise
