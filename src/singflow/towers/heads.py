"""The linear head of a model: its input is caught, and W f + b is compared with the output."""

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import nn

from singflow.errors import InputError
from singflow.towers.device import in_float32

HEAD_TOLERANCE = 1e-4
LINEAR = "a linear layer or 1 x 1 convolution"

Run = Callable[..., Any]  # one pass of a model: what it returns


class Heads:
    """Linear layers whose mean output is a model's logits: one head on their joined inputs.

    weight (C, d), bias (C,): float32. of, fix: the model and what to correct, for messages. Threads
    may run passes at the same time.
    """

    def __init__(self, model: nn.Module, paths: Sequence[str], of: str, fix: str) -> None:
        self.modules = linear_layers(model, paths, of, fix)
        weights = [module.weight.detach().flatten(1).float() for module in self.modules]
        biases = [_bias(module) for module in self.modules]
        self.weight = torch.cat(weights, dim=1) / len(self.modules)
        self.bias = torch.stack(biases).mean(dim=0)
        self.path = " and ".join(paths)
        self._of, self._fix = of, fix
        self._rows: Any = slice(None)
        self._caught: dict[tuple[int, int], list[torch.Tensor]] = {}

    def keep(self, rows: list[int]) -> None:
        """Forget the other classes."""
        self.weight, self.bias, self._rows = self.weight[rows], self.bias[rows], rows

    def attach(self) -> ExitStack:
        """Catch the inputs of the layers, which compute in float32, until the stack is closed."""
        undo = ExitStack()
        for position, module in enumerate(self.modules):
            float32 = module.weight.dtype == torch.float32
            wide = module if float32 else deepcopy(module).float()
            forward = partial(_in_float32, wide.forward)
            hook = partial(self._catch, position)
            undo.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)
            if "forward" in vars(module):
                undo.callback(setattr, module, "forward", module.forward)
            else:
                undo.callback(delattr, module, "forward")
            module.forward = forward
        return undo

    def _catch(
        self, position: int, _: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]
    ) -> None:
        caught = self._caught.get((threading.get_ident(), position))
        if caught is not None:
            caught.append(*inputs, *named.values())

    def watch(self, run: Run) -> tuple[torch.Tensor, torch.Tensor, float]:
        """Features (n, d) and logits (n, C) of one pass in float32; their largest difference."""
        mine = [(threading.get_ident(), position) for position in range(len(self.modules))]
        self._caught.update({key: [] for key in mine})
        try:
            logits = logits_of(run())[:, self._rows].float()
        finally:
            caught = [self._caught.pop(key) for key in mine]
        head = f"the head {self.path!r}"
        if not all(caught):
            raise self._refusal(f"never ran {head}")
        if (times := max(map(len, caught))) > 1:
            raise self._refusal(f"runs {head} {times} times in a pass")
        features = torch.cat([found.flatten(1) for (found,) in caught], dim=1).float()
        if features.shape != (len(logits), self.weight.shape[1]):
            shape = tuple(caught[0][0].shape)
            raise self._refusal(
                f"the input of {head} has shape {shape}, not (n, {self.weight.shape[1]}): it is "
                "applied before pooling"
            )
        if logits.shape[1] != len(self.weight):
            raise self._refusal(
                f"{head} gives {len(self.weight)} numbers, but the model {logits.shape[1]}"
            )
        gap, close = _compared(self.logits(features), logits)
        if not close and torch.isfinite(features).all():
            raise self._refusal(
                f"W f + b differs from the model's logits by {gap:.2g}: {head} is not the last "
                "layer, or a softmax or a scale follows it"
            )
        return features, logits, gap

    def _refusal(self, reason: str) -> InputError:
        return InputError(f"{self._of}: {reason}: {self._fix}")

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """W f + b in float32, on the device of the features."""
        with in_float32(features.device):
            return features @ self.weight.to(features.device).T + self.bias.to(features.device)


def linear_layers(model: nn.Module, paths: Sequence[str], of: str, fix: str) -> list[Any]:
    """The modules at these paths, which must be linear layers or 1 x 1 convolutions."""
    found = []
    for path in paths:
        module = module_at(model, path, of, fix)
        shape = tuple(getattr(getattr(module, "weight", None), "shape", ()))
        if len(shape) not in (2, 4) or any(side != 1 for side in shape[2:]):
            raise InputError(f"{of}: {path!r} is {type(module).__name__}, not {LINEAR}: {fix}")
        found.append(module)
    return found


def module_at(model: nn.Module, path: str, of: str, fix: str) -> Any:
    try:
        return model.get_submodule(path)
    except AttributeError:
        raise InputError(f"{of}: has no module {path!r}: {fix}") from None


def logits_of(output: Any) -> torch.Tensor:
    """The logits (n, C) in what a model returns: a tensor, `.logits`, or the first of a tuple."""
    found = output["logits"] if isinstance(output, Mapping) and "logits" in output else output
    found = getattr(found, "logits", found)
    found = found[0] if isinstance(found, tuple) and found else found
    if not isinstance(found, torch.Tensor) or found.ndim != 2 or not found.is_floating_point():
        shape = getattr(found, "shape", None)
        form = type(found).__name__ if shape is None else f"of shape {tuple(shape)}"
        raise InputError(f"the model's output is {form}, not logits (n, C): return the logits")
    return found


def find_heads(model: nn.Module, run: Run, of: str, fix: str) -> list[str]:
    """Paths of the layer whose output is the model's, or of all layers whose mean it is."""
    made: dict[str, torch.Tensor | None] = {}  # in the order of their last runs

    def note(path: str, module: Any, _: Any, output: torch.Tensor) -> None:
        made.pop(path, None)
        made[path] = output.flatten(1) if output[0].numel() == len(module.weight) else None

    with ExitStack() as hooks:
        for path, module in model.named_modules():
            if isinstance(module, nn.Linear | nn.Conv2d) and module.weight.shape[2:].numel() == 1:
                hooks.callback(module.register_forward_hook(partial(note, path)).remove)
        logits = logits_of(run())
    width = logits.shape[1]
    alike = [path for path in made if len(linear_layers(model, [path], of, fix)[0].weight) == width]
    pooled = {
        path: output
        for path in alike
        if (output := made[path]) is not None and output.shape == logits.shape
    }
    if heads := [path for path, output in pooled.items() if _compared(output, logits)[1]]:
        return heads[-1:]
    if len(pooled) > 1 and _compared(torch.stack([*pooled.values()]).mean(dim=0), logits)[1]:
        return [*pooled]
    if not alike:
        raise InputError(f"{of}: no {LINEAR[2:]} of the model has {width} outputs: {fix}")
    return alike[-1:]


def head_paths(model: nn.Module, head: Any, of: str, fix: str) -> list[str]:
    """Paths of a head that is named by its path or module, or of several, whose mean counts."""
    if isinstance(head, str):
        return [head]
    if isinstance(head, nn.Module):
        paths = [path for path, module in model.named_modules() if module is head]
        if not paths:
            raise InputError(f"{of}: head is a {type(head).__name__} of another model: {fix}")
        return paths
    if isinstance(head, Sequence) and head:
        return [path for part in head for path in head_paths(model, part, of, fix)]
    raise InputError(f"{of}: head is {head!r}, not a path or a module: {fix}")


def _compared(output: torch.Tensor, logits: torch.Tensor) -> tuple[float, bool]:
    """The largest difference between an output and logits, and whether it is but rounding."""
    gap = float((output.float() - logits.float()).abs().max().detach())
    return gap, gap <= HEAD_TOLERANCE * max(1.0, float(logits.detach().abs().max()))


def _in_float32(forward: Run, *inputs: Any, **named: Any) -> Any:
    """What a head's own forward function gives in float32, whatever the precision of its model."""
    device = next(part.device for part in (*inputs, *named.values()) if torch.is_tensor(part))
    with in_float32(device):
        wide = {name: _float32(part) for name, part in named.items()}
        return forward(*map(_float32, inputs), **wide)


def _float32(part: Any) -> Any:
    return part.float() if torch.is_tensor(part) and part.is_floating_point() else part


def _bias(head: Any) -> torch.Tensor:
    bias = getattr(head, "bias", None)
    found = head.weight.new_zeros(len(head.weight)) if bias is None else bias.detach()
    return found.float()
