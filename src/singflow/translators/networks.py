"""Nonlinear translators: architectures, losses and training (section 1.1 of the supplement).

A training continues after a kill: every epoch's whole state is in a file, and its random numbers
depend on nothing but the seed and the epoch.
"""

import copy
import hashlib
import io
import json
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cosine_similarity, mse_loss

from singflow.artifacts.files import FIX, write_bytes
from singflow.artifacts.shards import shard_path
from singflow.artifacts.tensors import Tensors, provenance, read_tensors
from singflow.cli import log
from singflow.errors import InputError
from singflow.translators.parameters import Training
from singflow.translators.reference import Paired
from singflow.translators.ridge import Agreement

BLOCK = 4096  # rows that are predicted or summed at once
HIDDEN = {"mlp3": 2, "mlp4": 3}
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
History = list[dict[str, float]]
Rows = tuple[torch.Tensor, torch.Tensor, np.ndarray, np.ndarray]


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


class TrainingMoments(NamedTuple):
    """Statistics of the n training rows, in float64."""

    n: int
    buffers: Tensors  # of Network; the scale of a constant column is 1
    sha256: str  # of all rows and of the split


class _Spread:
    """Mean and standard deviation of streamed rows, in float64.

    The first row is subtracted from every row: a constant column has a deviation of exactly 0.
    """

    def __init__(self) -> None:
        self.n = 0
        self._first = self._sums = np.zeros(0)

    def update(self, block: np.ndarray) -> None:
        rows = block.astype(np.float64)
        if self.n == 0:
            self._first, self._sums = rows[0].copy(), np.zeros((2, rows.shape[1]))
        rows -= self._first
        self.n += len(rows)
        self._sums += np.stack([rows.sum(axis=0), (rows**2).sum(axis=0)])

    def buffers(self, name: str) -> Tensors:
        mean, square = self._sums / self.n
        deviation = np.sqrt(np.maximum(square - mean**2, 0.0))
        scale = np.where(deviation > 0, deviation, 1.0)
        return {f"{name}_mean": self._first + mean, f"{name}_scale": scale}


class Pairs:
    """Features and embeddings of images; one shard at a time is in memory."""

    def __init__(self, images: Paired, device: torch.device) -> None:
        self.device = device
        self.shards = images.shards
        self._images = images
        self._training = (images.manifest["split"] == "train").to_numpy()
        self._cached: tuple[int, Rows] | None = None

    def moments(self) -> TrainingMoments:
        """Read all shards once for the statistics of the training rows and a hash of the data."""
        digest = hashlib.sha256(self._training.data)
        features, embeddings = _Spread(), _Spread()
        for shard, targets in self._images:
            for array in (shard["features"], targets, shard["image_id"], shard["view"]):
                digest.update(np.ascontiguousarray(array).data)
            chosen = np.flatnonzero(self._training[shard["image_id"]])
            for start in range(0, len(chosen), BLOCK):
                rows = chosen[start : start + BLOCK]
                features.update(shard["features"][rows])
                embeddings.update(targets[rows])
        if not features.n or self._training.all():
            raise InputError(
                "a translator needs at least one training row and one held-out image, not "
                f"{features.n} and {(~self._training).sum()}: add images"
            )
        buffers = features.buffers("feature") | embeddings.buffers("embedding")
        return TrainingMoments(features.n, buffers, digest.hexdigest())

    def read(self, shard: int) -> Rows:
        """Features and embeddings of a shard, and the positions of its training and held-out rows.

        Held-out rows are view 0 of the held-out images. The last shard that was read is kept.
        """
        if self._cached and self._cached[0] == shard:
            return self._cached[1]
        self._cached = None
        features, embeddings = (
            read_tensors(shard_path(folder, shard), names)[0]
            for folder, names in (
                (self._images.features, ["features", "image_id", "view"]),
                (self._images.embeddings, ["embeddings"]),
            )
        )
        training = self._training[features["image_id"]]
        rows = (
            torch.from_numpy(features["features"]).float().to(self.device),
            torch.from_numpy(embeddings["embeddings"]).to(self.device),
            np.flatnonzero(training),
            np.flatnonzero(~training & (features["view"] == 0)),
        )
        self._cached = (shard, rows)
        return rows

    def judge(self, predict: Callable[[torch.Tensor], torch.Tensor]) -> Agreement:
        """Agreement of predictions (n, m) with the embeddings of the held-out images, on view 0.

        The cosine and the squared error are NaN if a prediction is not finite.
        """
        agreement = Agreement()
        for shard in range(self.shards):
            features, embeddings, _, held_out = self.read(shard)
            for start in range(0, len(held_out), BLOCK):
                rows = torch.from_numpy(held_out[start : start + BLOCK]).to(self.device)
                predicted = predict(features[rows]).double().cpu().numpy()
                if not np.isfinite(predicted).all():
                    return Agreement(1, np.nan, np.nan)
                agreement.update(predicted, embeddings[rows].cpu().numpy())
        return agreement


def train(
    pairs: Pairs,
    kind: str,
    settings: Training,
    seed: int,
    checkpoint: Path,
    tell: Callable[[str, History], None],
) -> tuple[Network, dict[str, Any]]:
    """Train a network with each loss (AdamW, early stopping) and keep the best one by held-out MSE.

    checkpoint: file with the state after every epoch, from which a training continues; the caller
    removes it. A damaged file, or one of other data, settings, code or software, is ignored with a
    warning. tell: called after every epoch with the loss and the records of its epochs so far, and
    once for a loss that was finished earlier. Returns also the network's report.
    """
    moments = pairs.moments()
    mean = torch.from_numpy(moments.buffers["embedding_mean"]).to(pairs.device)
    baseline = pairs.judge(lambda features: mean.expand(len(features), -1))
    key = _key(moments, kind, settings, seed, pairs.device)
    state = _read_checkpoint(checkpoint, key, pairs.device) or {"loss": "", "finished": {}}
    finished, kept = state["finished"], state.get("kept", {})
    with torch.random.fork_rng([pairs.device] if pairs.device.type == "cuda" else []):
        for loss in settings.losses:
            if loss in finished:
                tell(loss, finished[loss]["history"])
                continue
            run = _Run(moments, kind, loss, settings, seed, pairs.device)
            if loss == state["loss"]:
                run.restore(state)
                log.info("%s, loss %s: goes on after epoch %d", kind, loss, len(run.history))
            logged = time.monotonic()
            while len(run.history) < min(settings.epochs, run.best_epoch + settings.patience):
                record = run.epoch(pairs)
                whole = run.state() | {"key": key, "finished": finished, "kept": kept}
                _write_checkpoint(checkpoint, whole)
                tell(loss, run.history)
                if time.monotonic() - logged >= 10:
                    logged = time.monotonic()
                    cosine, mse = record["validation_cosine"], record["validation_mse"]
                    log.info(
                        f"{kind}, loss {loss}: epoch {record['epoch']} of at most "
                        f"{settings.epochs}: held-out cosine {cosine:.4f}, MSE {mse:.3g}"
                    )
            record = run.history[run.best_epoch - 1]
            finished[loss] = {
                "epochs": len(run.history),
                "best_epoch": run.best_epoch,
                "validation_cosine": record["validation_cosine"],
                "validation_mse": record["validation_mse"],
                "validation_r2": 1.0 - record["validation_mse"] / baseline.mse(len(mean)),
                "history": run.history,
            }
            best = min(finished, key=lambda name: finished[name]["validation_mse"])
            kept = run.best if best == loss else kept
    network = run.network.cpu().eval()
    network.load_state_dict(kept)
    figures = ("validation_cosine", "validation_mse", "validation_r2")
    return network, {
        "loss": best,
        **{name: finished[best][name] for name in figures},
        "baseline_cosine": baseline.cosine,
        "n_train": moments.n,
        "n_validation": baseline.n,
        "parameters": network.size,
        "losses": finished,
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


class _Run:
    """The training with one loss; history, best, network and optimizer change in every epoch."""

    def __init__(
        self,
        moments: TrainingMoments,
        kind: str,
        loss: str,
        settings: Training,
        seed: int,
        device: torch.device,
    ) -> None:
        torch.manual_seed(_seed(seed, 0))
        self.loss, self.settings, self.seed = loss, settings, seed
        inputs, outputs = (len(moments.buffers[f"{x}_mean"]) for x in ("feature", "embedding"))
        network = Network(kind, inputs, outputs, settings.width, settings.dropout)
        for name, array in moments.buffers.items():
            network.get_buffer(name).copy_(torch.from_numpy(array))
        self.network = network.to(device)
        self.history: History = []
        self.best: dict[str, torch.Tensor] = {}
        matrices, vectors = (
            [p for p in self.network.parameters() if (p.ndim > 1) == many] for many in (True, False)
        )
        groups = [
            {"params": matrices, "weight_decay": settings.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate)

    @property
    def best_epoch(self) -> int:
        return best_epoch(self.loss, self.history)

    def state(self) -> dict[str, Any]:
        return {
            "loss": self.loss,
            "history": self.history,
            "best": self.best,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.history, self.best = state["history"], state["best"]
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])

    def epoch(self, pairs: Pairs) -> dict[str, float]:
        """One pass over the training rows, then one over the held-out rows; the new record."""
        number, settings = len(self.history) + 1, self.settings
        torch.manual_seed(_seed(self.seed, number))
        self.network.train()
        total, rows = torch.zeros((), dtype=torch.float64, device=pairs.device), 0
        for shard in np.random.default_rng([self.seed, number]).permutation(pairs.shards):
            features, embeddings, training, _ = pairs.read(int(shard))
            shuffled = np.random.default_rng([self.seed, number, shard + 1]).permutation(training)
            order = torch.from_numpy(shuffled).to(pairs.device)
            steps = -(-len(order) // settings.batch_size)
            for step in range(steps):
                batch = order[step::steps]
                self.optimizer.zero_grad()
                value = LOSSES[self.loss](self.network(features[batch]), embeddings[batch])
                value.backward()
                self.optimizer.step()
                total += value.detach() * len(batch)
            rows += len(order)
        with torch.inference_mode():
            agreement = pairs.judge(self.network.eval())
        record = {
            "epoch": number,
            "train_loss": float(total) / rows,
            "validation_cosine": agreement.cosine,
            "validation_mse": agreement.mse(self.network.projection.out_features),
        }
        if not np.isfinite(list(record.values())).all():
            raise InputError(
                f"loss {self.loss} is not finite in epoch {number}: lower training.learning_rate "
                f"({settings.learning_rate:g}) or raise training.batch_size ({settings.batch_size})"
            )
        self.history.append(record)
        if self.best_epoch == number:
            self.best = copy.deepcopy(self.network.state_dict())
        return record


def _seed(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0])


def _key(
    moments: TrainingMoments, kind: str, settings: Training, seed: int, device: torch.device
) -> str:
    """Hash of everything that decides the result of a training."""
    decides = {
        "settings": settings.model_dump(include={*Training.model_fields} - {"history"}),
        "software": provenance(["torch"])["software"],
        "code": hashlib.sha256(Path(__file__).read_bytes()).hexdigest(),
        "data": moments.sha256,
        "threads": torch.get_num_threads(),
    }
    text = json.dumps([decides, kind, seed, device.type], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    content = io.BytesIO()
    torch.save(state, content)
    write_bytes(path, hashlib.sha256(content.getbuffer()).digest() + content.getbuffer())


def _read_checkpoint(path: Path, key: str, device: torch.device) -> dict[str, Any] | None:
    if not path.exists():
        return None
    content = path.read_bytes()
    if hashlib.sha256(content[32:]).digest() != content[:32]:
        log.warning("%s: damaged: training starts over", path)
        return None
    state = torch.load(io.BytesIO(content[32:]), map_location=device, weights_only=True)
    if state["key"] != key:
        log.warning("%s: of other data, settings, code or software: training starts over", path)
        return None
    return state
