"""Where towers run."""

import torch

from singflow.errors import InputError


def pick_device(wanted: str) -> torch.device:
    """The device to run on."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise InputError("device is cuda, but PyTorch sees no GPU: write auto or cpu")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def pick_tower_device(wanted: str) -> torch.device:
    """The device that images go through towers on, in single precision: the only work for which Apple GPUs are taken."""
    if wanted != "mps":
        return pick_device(wanted)
    if not torch.backends.mps.is_available():
        raise InputError("device is mps, but PyTorch sees no Apple GPU: write auto or cpu")
    return torch.device("mps")
