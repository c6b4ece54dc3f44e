"""The features, the head and the logits of a model that is in memory."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.utils import data
from torch.utils.data import Dataset, IterableDataset

from singflow.errors import InputError
from singflow.towers.checkpoints import weights_sha256
from singflow.towers.device import place_of, without_tf32
from singflow.towers.heads import Heads, find_heads, head_paths

OF, FIX = "collect", 'name the last linear layer, as in head="fc", of a model that returns logits'
SHUFFLING = data.RandomSampler, data.SubsetRandomSampler, data.WeightedRandomSampler


class Head(NamedTuple):
    """A linear head: weight (C, d), bias (C,), float32."""

    weight: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True, repr=False)
class Collected:
    """What collect() found, one row for each of n inputs.

    features: (n, d) float32, the inputs of the head. head: weight (C, d), bias (C,). logits: (n, C)
    float32. labels: (n,) integers or texts; None if the loader gives none. head_path: of the head
    in the model. max_error: the largest |W f + b - logits|. weights_sha256: hash of all weights of
    the model.
    """

    features: np.ndarray
    head: Head
    logits: np.ndarray
    labels: np.ndarray | None
    head_path: str
    max_error: float
    weights_sha256: str

    def __repr__(self) -> str:
        (n, d), classes = self.features.shape, len(self.head.weight)
        labelled = "without labels" if self.labels is None else "with labels"
        return (
            f"{n} rows {labelled}: {d} features before the head {self.head_path!r} of {classes} "
            f"classes; W f + b is within {self.max_error:.1e} of the logits"
        )

    def save(
        self,
        folder: str | Path,
        *,
        class_names: Sequence[str] | None = None,
        ids: Sequence[str] | None = None,
        model: str | None = None,
        space: str | None = None,
        embeddings: Any = None,
    ) -> list[str]:
        """Write the source that a study reads as `data.root`, with `data.source: features`.

        Parameters
        ----------
        folder, class_names, ids, model, space, embeddings
            As of save_features(). By default an id is the number of its row, 0000000 and so on.

        Returns
        -------
        list of str
            What was written, a line for each part.
        """
        from singflow.data.features import save_features

        digits = max(7, len(str(len(self.features) - 1)))
        rows = (f"{row:0{digits}d}" for row in range(len(self.features)))
        return save_features(
            folder,
            rows if ids is None else ids,
            self.labels,
            self.features,
            self.head,
            class_names,
            embeddings,
            space,
            model=model,
            logits=self.logits,
            weights_sha256=self.weights_sha256,
        )


def collect(
    model: nn.Module,
    loader: Iterable[Any],
    head: str | nn.Module | Sequence[str | nn.Module] | None = None,
) -> Collected:
    """Run a model over a loader, and keep the inputs of its linear head, its logits and labels.

    The model runs where its parameters are, in evaluation mode and without gradients. Afterwards it
    is in the mode that it had, also after an error.

    Parameters
    ----------
    model : torch.nn.Module
        A classifier. It returns logits (n, C), an object or a mapping with `logits`, or a tuple
        whose first item is the logits.
    loader : iterable
        Batches in a fixed order: tensors of images, tuples or lists of images, labels and more, or
        mappings as of transformers, which are the model's keyword arguments, beside `labels` or
        `label`. Labels are integers, a tensor, or texts.
    head : str, torch.nn.Module or sequence of them, optional
        The head: its path in the model, or the module. Several heads count as one head, whose
        logits are their mean. By default, the linear layer or 1 x 1 convolution whose output is the
        model's.

    Returns
    -------
    Collected
        Features (n, d), the head, logits (n, C) and labels (n,).

    Raises
    ------
    InputError
        When no head gives the model's logits as W f + b: the head is not linear, was not run or
        more than once, is applied before pooling, or something follows it. For a loader that is
        empty or shuffles, labels of different kinds, and features that are not finite.
    """
    features, logits, labels = list[np.ndarray](), list[np.ndarray](), list[np.ndarray | None]()
    error = 0.0
    _check_loader(loader)
    place = place_of(model)
    floating = (part.dtype for part in model.parameters() if part.is_floating_point())
    kind = next(floating, torch.float32)
    with _evaluating(model), without_tf32(place), ExitStack() as attached:
        found: Heads | None = None
        for number, batch in enumerate(loader):
            inputs, options, given = _parts(batch, number)
            placed = {name: _placed(part, place, kind) for name, part in options.items()}
            run = partial(model, *(_placed(part, place, kind) for part in inputs), **placed)
            if found is None:
                named = None if head is None else head_paths(model, head, OF, FIX)
                paths = find_heads(model, run, OF, FIX) if named is None else named
                found = Heads(model, paths, OF, FIX)
                attached.enter_context(found.attach())
            rows, outputs, gap = found.watch(run)
            if not (finite := torch.isfinite(rows).all(dim=1)).all():
                row = sum(map(len, features)) + int(finite.int().argmin())
                raise InputError(
                    f"features hold NaN or infinite values, first in row {row}: look at the images "
                    "and the weights"
                )
            if given is not None and given.shape != (len(rows),):
                raise InputError(
                    f"loader: batch {number} has labels of shape {given.shape} for {len(rows)} "
                    "rows: give one label, an integer or a text, for each"
                )
            features.append(rows.cpu().numpy())
            logits.append(outputs.cpu().numpy().copy())
            labels.append(given)
            if _kind(given) != _kind(labels[0]):
                raise InputError(
                    f"loader: batch {number} has other labels than those before: give integers "
                    "with all batches, or texts, or none"
                )
            error = max(error, gap)
        if found is None:
            raise InputError(
                "loader: gave no batch: its data set is empty, or it is an iterator that was used"
            )
        sha256 = weights_sha256(getattr(model, "_orig_mod", model))
        kept = Head(*(part.cpu().numpy() for part in (found.weight, found.bias)))
    return Collected(
        np.concatenate(features),
        kept,
        np.concatenate(logits),
        None if labels[0] is None else np.concatenate(labels),  # type: ignore[arg-type]
        found.path,
        error,
        sha256,
    )


def _parts(batch: Any, number: int) -> tuple[list[Any], dict[str, Any], np.ndarray | None]:
    """Positional and keyword arguments of the model, and the labels of a batch."""
    if isinstance(batch, torch.Tensor):
        return [batch], {}, None
    if isinstance(batch, Mapping):
        options = {name: part for name, part in batch.items() if name not in ("labels", "label")}
        given = batch.get("labels", batch.get("label"))
        return [], options, None if given is None else _labels(given)
    if isinstance(batch, tuple | list) and batch and isinstance(batch[0], torch.Tensor):
        return [batch[0]], {}, _labels(batch[1]) if len(batch) > 1 else None
    raise InputError(
        f"loader: batch {number} is a {type(batch).__name__}: give tensors of images, tuples of "
        "images and labels, or mappings of the model's keyword arguments"
    )


def _kind(labels: np.ndarray | None) -> str:
    return "" if labels is None else labels.dtype.kind


def _labels(given: Any) -> np.ndarray:
    found = np.asarray(given.cpu() if isinstance(given, torch.Tensor) else given)
    if found.dtype.kind not in "biuU":
        raise InputError(f"loader: labels are {found.dtype}, not integers or texts: convert them")
    return np.atleast_1d(found if found.dtype.kind == "U" else found.astype(np.int64))


def _placed(part: Any, place: torch.device, precision: torch.dtype) -> Any:
    """The part of a batch on a device; numbers with a fraction in the precision of the model."""
    if not isinstance(part, torch.Tensor):
        return part
    if part.dtype == torch.uint8 and part.ndim > 2:
        raise InputError(
            "loader: holds images of uint8: let the data set convert and normalize them as for "
            "training, for example by torchvision.transforms.v2.ToDtype(torch.float32, scale=True),"
            " and Normalize"
        )
    return part.to(place, precision if part.is_floating_point() else None)


def _check_loader(loader: Any) -> None:
    """Refuse what gives no batches, or batches in another order each time."""
    if isinstance(loader, Dataset) and not isinstance(loader, IterableDataset):
        raise InputError(
            "loader: is a data set, which gives no batches: write "
            "torch.utils.data.DataLoader(dataset, batch_size=64)"
        )
    if isinstance(loader, torch.Tensor | np.ndarray):
        raise InputError("loader: is one array: give a list of batches, as in [images]")
    samplers = [getattr(loader, name, None) for name in ("sampler", "batch_sampler")]
    for one in (*samplers, *(getattr(sampler, "sampler", None) for sampler in samplers)):
        if isinstance(one, SHUFFLING) or getattr(one, "shuffle", False):
            raise InputError(
                "loader: shuffles, so that its rows would not fit labels and embeddings of another "
                "pass: make it with shuffle=False"
            )


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Set a model to evaluation without gradients, and its parts back to their modes."""
    modes = [(module, module.training) for module in model.modules()]
    # In inference mode, what a model keeps from a pass could not be trained with.
    # Compiled code runs no hooks; without this module nothing is compiled, and it loads slowly.
    compiled = "torch._dynamo" in sys.modules
    with torch.no_grad(), torch.compiler.set_stance("force_eager") if compiled else nullcontext():
        try:
            model.eval()
            yield
        finally:
            model.train(modes[0][1])
            for module, mode in modes:
                module.training = mode
