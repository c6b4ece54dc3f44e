"""Where towers run."""

import torch

from singflow.errors import InputError


def pick_device(wanted: str) -> torch.device:
    """The device to run on.

    Parameters
    ----------
    wanted : str
        cpu, cuda, or auto: the GPU when there is one.

    Returns
    -------
    torch.device
        cpu or cuda.

    Raises
    ------
    InputError
        For cuda when PyTorch sees no GPU.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise InputError("extraction.device is cuda, but PyTorch sees no GPU: write auto or cpu")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")
