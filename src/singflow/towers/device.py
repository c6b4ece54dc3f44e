"""Choose the device that towers run on."""

import torch

from singflow.errors import InputError


def pick_device(wanted: str) -> torch.device:
    """The CPU or an NVIDIA GPU. auto and mps take the GPU if there is one."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise InputError("device is cuda, but PyTorch sees no GPU: write auto or cpu")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def pick_tower_device(wanted: str) -> torch.device:
    """The device for image towers, which alone may run on an Apple GPU.

    Everything else takes pick_device().
    """
    if wanted != "mps":
        return pick_device(wanted)
    if not torch.backends.mps.is_available():
        raise InputError("device is mps, but PyTorch sees no Apple GPU: write auto or cpu")
    return torch.device("mps")
