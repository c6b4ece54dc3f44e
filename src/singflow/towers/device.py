"""Where towers run."""

import torch

from singflow.errors import InputError


def pick_device(wanted: str, *, float64: bool = False) -> torch.device:
    """The device to run on.

    Parameters
    ----------
    wanted : str
        cpu, cuda, mps (an Apple GPU), or auto: the NVIDIA GPU when there is one.
    float64 : bool
        Whether the work needs double precision, which Apple GPUs lack: then mps stands for the CPU.

    Returns
    -------
    torch.device
        cpu, cuda or mps.

    Raises
    ------
    InputError
        For cuda or mps when PyTorch sees no such GPU.
    """
    if wanted == "mps" and not torch.backends.mps.is_available():
        raise InputError("extraction.device is mps, but PyTorch sees no Apple GPU: write auto or cpu")
    if wanted == "mps":
        return torch.device("cpu" if float64 else "mps")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise InputError("extraction.device is cuda, but PyTorch sees no GPU: write auto or cpu")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")
