"""Where towers run."""

import torch

from singflow.errors import InputError


def pick_device(wanted: str) -> torch.device:
    """The device to run on.

    Parameters
    ----------
    wanted : str
        cpu, cuda, or auto: the GPU when there is one; mps counts as auto.

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
        raise InputError("device is cuda, but PyTorch sees no GPU: write auto or cpu")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def pick_tower_device(wanted: str) -> torch.device:
    """The device that images go through towers on, in single precision: the only work for which Apple GPUs are taken.

    Parameters
    ----------
    wanted : str
        mps, for an Apple GPU, or what pick_device takes. All else that is told mps runs on the CPU.

    Returns
    -------
    torch.device
        cpu, cuda or mps.

    Raises
    ------
    InputError
        For mps when PyTorch sees no Apple GPU, and as pick_device does.
    """
    if wanted != "mps":
        return pick_device(wanted)
    if not torch.backends.mps.is_available():
        raise InputError("device is mps, but PyTorch sees no Apple GPU: write auto or cpu")
    return torch.device("mps")
