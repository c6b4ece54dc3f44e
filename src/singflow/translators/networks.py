"""Nonlinear translators: architectures, losses and training (section 1.1 of the supplement)."""

import copy
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cosine_similarity, mse_loss

from singflow.artifacts.files import FIX
from singflow.artifacts.tensors import Tensors, read_tensors
from singflow.cli import log
from singflow.errors import InputError
from singflow.translators.parameters import Training
from singflow.translators.reference import Images
from singflow.translators.ridge import Agreement

BLOCK = 4096  # rows that are summed at once
HIDDEN = {"mlp3": 2, "mlp4": 3}
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
History = list[dict[str, float]]


def cosine_loss(predicted: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
    """Mean of 1 - cosine similarity over rows (n, m), from 0 to 2 (equation 15)."""
    return (1 - cosine_similarity(predicted, embeddings)).mean()


def both_loss(predicted: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
    """Mean squared error per coordinate (equation 14) plus the cosine loss (equation 15)."""
    return mse_loss(predicted, embeddings) + cosine_loss(predicted, embeddings)


LOSSES: dict[str, Loss] = {"mse": mse_loss, "cosine": cosine_loss, "both": both_loss}


class Residual(nn.Module):
    """x + branch(x)."""

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.branch(x)


class Network(nn.Module):
    """A translator (n, d) -> (n, m): standardization of the features, hidden layers, projection.

    kind: mlp3 or mlp4 (the number counts all linear layers), or residual (one block). The
    projection starts at 0, so that an untrained network predicts the mean embedding. Its outputs
    are in units of the embeddings' standard deviations, so that normalized and unnormalized spaces
    train alike.
    """

    feature_mean: torch.Tensor
    feature_scale: torch.Tensor
    embedding_mean: torch.Tensor
    embedding_scale: torch.Tensor

    def __init__(self, kind: str, inputs: int, outputs: int, width: int, dropout: float) -> None:
        super().__init__()
        for name, size in (("feature", inputs), ("embedding", outputs)):
            self.register_buffer(f"{name}_mean", torch.zeros(size))
            self.register_buffer(f"{name}_scale", torch.ones(size))
        layers: list[nn.Module] = []
        if kind == "residual":
            block = [nn.Linear(inputs, width), nn.GELU(), nn.Linear(width, inputs)]
            branch = nn.Sequential(nn.LayerNorm(inputs), *block, nn.Dropout(dropout))
            self.body: nn.Module = Residual(branch)
        else:
            for before, after in pairwise([inputs] + [width] * HIDDEN[kind]):
                layers += [nn.Linear(before, after), nn.LayerNorm(after), nn.GELU()]
                layers.append(nn.Dropout(dropout))
            self.body = nn.Sequential(*layers)
        self.projection = nn.Linear(width if layers else inputs, outputs)
        nn.init.zeros_(self.projection.weight)
        nn.init.zeros_(self.projection.bias)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Embeddings in the units of the space; the features are standardized here."""
        outputs = self.projection(self.body((features - self.feature_mean) / self.feature_scale))
        return self.embedding_mean + self.embedding_scale * outputs

    @property
    def size(self) -> int:
        """Number of trained parameters."""
        return sum(parameter.numel() for parameter in self.parameters())


def load_network(path: Path) -> Network:
    """Read a nonlinear translator in evaluation mode, in float32, on the CPU."""
    _, made = read_tensors(path, [])
    if made.get("kind") not in {"residual", *HIDDEN}:
        raise InputError(
            f"{path}: holds no nonlinear translator: name a file of translators/ whose kind is "
            "mlp3, mlp4 or residual"
        )
    means = read_tensors(path, ["feature_mean", "embedding_mean"])[0]
    sizes = len(means["feature_mean"]), len(means["embedding_mean"])
    try:
        with torch.device("meta"):
            network = Network(
                made["kind"], *sizes, made.parsed("width", int), made.parsed("dropout", int | float)
            )
        tensors, _ = read_tensors(path, list(network.state_dict()))
        network.load_state_dict(
            {name: torch.from_numpy(array).float() for name, array in tensors.items()}, assign=True
        )
    except (RuntimeError, ValueError, TypeError) as error:
        raise InputError(
            f"{path}: its width, dropout and tensors make no translator of kind {made['kind']} "
            f"({error}): {FIX}"
        ) from None
    return network.eval()


class Pairs:
    """Features and embeddings of images in memory: training rows, and view 0 of held-out images."""

    def __init__(self, images: Images, device: torch.device) -> None:
        train = (images.manifest["split"] == "train").to_numpy()
        rows = [(of["features"], z, of["image_id"], of["view"]) for of, z in images]
        features, embeddings, image_id, view = map(np.concatenate, zip(*rows, strict=True))
        training = train[image_id]
        self.training = np.flatnonzero(training)
        self.held_out = np.flatnonzero(~training & (view == 0))
        if not (len(self.training) and len(self.held_out)):
            raise InputError(
                "a translator needs at least one training row and one held-out image, not "
                f"{len(self.training)} and {len(self.held_out)}: add images"
            )
        self.buffers = _spread("feature", features, self.training)
        self.buffers |= _spread("embedding", embeddings, self.training)
        self.features, self.embeddings = (
            torch.from_numpy(array).float().to(device) for array in (features, embeddings)
        )

    def judge(self, predict: Callable[[torch.Tensor], torch.Tensor]) -> Agreement:
        """Agreement with the held-out images; NaN if a prediction is not finite."""
        with torch.inference_mode():
            predicted = predict(self.features[self.held_out]).double().cpu().numpy()
        if not np.isfinite(predicted).all():
            return Agreement(1, np.nan, np.nan)
        agreement = Agreement()
        agreement.update(predicted, self.embeddings[self.held_out].cpu().numpy())
        return agreement


def _spread(name: str, array: np.ndarray, chosen: np.ndarray) -> Tensors:
    """Mean and scale of the chosen rows, by column and in float64, about the first row.

    So a constant column has a deviation of exactly 0; its scale is 1.
    """
    first = array[chosen[0]].astype(np.float64)
    sums = np.zeros((2, len(first)))
    for start in range(0, len(chosen), BLOCK):
        rows = array[chosen[start : start + BLOCK]] - first
        sums += np.stack([rows.sum(axis=0), (rows**2).sum(axis=0)])
    mean, square = sums / len(chosen)
    deviation = np.sqrt(np.maximum(square - mean**2, 0.0))
    scale = np.where(deviation > 0, deviation, 1.0)
    return {f"{name}_mean": first + mean, f"{name}_scale": scale}


def train(
    images: Images, kind: str, settings: Training, seed: int, device: torch.device
) -> tuple[Network, dict[str, Any]]:
    """Train a network with each loss, keep the best one by held-out MSE, and report on all."""
    pairs = Pairs(images, device)
    mean = torch.from_numpy(pairs.buffers["embedding_mean"]).to(device)
    baseline = pairs.judge(lambda features: mean.expand(len(features), -1))
    trained: dict[str, Network] = {}
    losses: dict[str, dict[str, Any]] = {}
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        for loss in settings.losses:
            trained[loss], history = _train(pairs, kind, loss, settings, seed)
            best = best_epoch(loss, history)
            cosine, mse = (history[best - 1][f"validation_{name}"] for name in ("cosine", "mse"))
            losses[loss] = {
                "epochs": len(history),
                "best_epoch": best,
                "validation_cosine": cosine,
                "validation_mse": mse,
                "validation_r2": 1.0 - mse / baseline.mse(len(mean)),
                "history": history,
            }
            log.info(
                f"{kind}, loss {loss}: epoch {best} of {len(history)}: held-out cosine "
                f"{cosine:.4f}, MSE {mse:.3g}"
            )
    kept = min(losses, key=lambda loss: losses[loss]["validation_mse"])
    network = trained[kept].cpu().eval()
    figures = ("validation_cosine", "validation_mse", "validation_r2")
    return network, {
        "loss": kept,
        **{name: losses[kept][name] for name in figures},
        "baseline_cosine": baseline.cosine,
        "n_train": len(pairs.training),
        "n_validation": baseline.n,
        "parameters": network.size,
        "losses": losses,
    }


def best_epoch(loss: str, history: History) -> int:
    """The first epoch with the lowest held-out loss, counted from 1; 0 before the first epoch."""
    if not history:
        return 0
    cosine, mse = (
        np.array([record[f"validation_{name}"] for record in history]) for name in ("cosine", "mse")
    )
    values = {"mse": mse, "cosine": 1.0 - cosine, "both": mse + (1.0 - cosine)}
    return int(np.argmin(values[loss])) + 1


def _train(
    pairs: Pairs, kind: str, loss: str, settings: Training, seed: int
) -> tuple[Network, History]:
    """A network after its best epoch with a loss (AdamW, early stopping), and all its epochs."""
    torch.manual_seed(_seed(seed, 0))
    inputs, outputs = pairs.features.shape[1], pairs.embeddings.shape[1]
    network = Network(kind, inputs, outputs, settings.width, settings.dropout)
    for name, array in pairs.buffers.items():
        network.get_buffer(name).copy_(torch.from_numpy(array))
    network.to(device := pairs.features.device)
    matrices, vectors = (
        [p for p in network.parameters() if (p.ndim > 1) == many] for many in (True, False)
    )
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate)
    history: History = []
    best: dict[str, torch.Tensor] = {}
    while len(history) < min(settings.epochs, best_epoch(loss, history) + settings.patience):
        number = len(history) + 1
        torch.manual_seed(_seed(seed, number))
        network.train()
        # Seeded as the first of several shards once was.
        order = torch.from_numpy(
            np.random.default_rng([seed, number, 1]).permutation(pairs.training)
        )
        steps = -(-len(order) // settings.batch_size)
        total = torch.zeros((), dtype=torch.float64, device=device)
        for step in range(steps):
            batch = order[step::steps].to(device)
            optimizer.zero_grad()
            value = LOSSES[loss](network(pairs.features[batch]), pairs.embeddings[batch])
            value.backward()
            optimizer.step()
            total += value.detach() * len(batch)
        agreement = pairs.judge(network.eval())
        record = {
            "epoch": number,
            "train_loss": float(total) / len(order),
            "validation_cosine": agreement.cosine,
            "validation_mse": agreement.mse(outputs),
        }
        if not np.isfinite(list(record.values())).all():
            raise InputError(
                f"loss {loss} is not finite in epoch {number}: lower training.learning_rate "
                f"({settings.learning_rate:g}) or raise training.batch_size ({settings.batch_size})"
            )
        history.append(record)
        if best_epoch(loss, history) == number:
            best = copy.deepcopy(network.state_dict())
    network.load_state_dict(best)
    return network, history


def _seed(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0])
