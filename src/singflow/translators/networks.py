"""Nonlinear translators: architectures, losses and training (section 1.1 of the supplement).

A training can be killed at any moment and continued later: after every epoch its whole state is in
one file, and the random numbers of an epoch depend on nothing but the seed and the epoch.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from torch.nn.functional import cosine_similarity, mse_loss

from singflow.artifacts.files import FIX
from singflow.artifacts.shards import iterate_pairs, shard_path
from singflow.artifacts.tensors import Tensors, provenance, read_tensors, write_tensors
from singflow.cli import log
from singflow.errors import InputError
from singflow.towers.device import pick_device
from singflow.translators.parameters import Training
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
    projection starts at 0, so that an untrained network predicts the mean embedding for every
    image. Its outputs are in units of the embeddings' standard deviations: the size of AdamW's
    steps does not depend on the scale of the embeddings, so that normalized and unnormalized spaces
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
        self.body: nn.Module
        if kind == "residual":
            branch = [
                nn.LayerNorm(inputs),
                nn.Linear(inputs, width),
                nn.GELU(),
                nn.Linear(width, inputs),
                nn.Dropout(dropout),
            ]
            self.body = Residual(nn.Sequential(*branch))
            self.projection = nn.Linear(inputs, outputs)
        else:
            layers: list[nn.Module] = []
            for before, after in pairwise([inputs] + [width] * HIDDEN[kind]):
                layers += [
                    nn.Linear(before, after),
                    nn.LayerNorm(after),
                    nn.GELU(),
                    nn.Dropout(dropout),
                ]
            self.body = nn.Sequential(*layers)
            self.projection = nn.Linear(width, outputs)
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
    """Read a nonlinear translator in evaluation mode, in float32, on the CPU.

    Raises InputError if the file holds another kind of translator, or if its width, dropout and
    tensors do not fit its kind.
    """
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


@dataclass(frozen=True)
class TrainingMoments:
    """Statistics of the n training rows (all views of the training images), in float64.

    feature_scale, embedding_scale: standard deviations; 1 where a column is constant. sha256: hash
    of all rows and of the split.
    """

    n: int
    feature_mean: np.ndarray
    feature_scale: np.ndarray
    embedding_mean: np.ndarray
    embedding_scale: np.ndarray
    sha256: str


class _Spread:
    """Mean and standard deviation of streamed rows, in float64.

    The first row is subtracted from every row, so that a constant column has a standard deviation
    of exactly 0.
    """

    def __init__(self) -> None:
        self.n = 0
        self._first = self._sum = self._square = np.zeros(0)

    def update(self, block: np.ndarray) -> None:
        rows = block.astype(np.float64)
        if self.n == 0:
            self._first, self._sum, self._square = (
                rows[0].copy(),
                np.zeros(rows.shape[1]),
                np.zeros(rows.shape[1]),
            )
        rows -= self._first
        self.n += len(rows)
        self._sum += rows.sum(axis=0)
        self._square += (rows**2).sum(axis=0)

    def mean_and_scale(self) -> tuple[np.ndarray, np.ndarray]:
        mean = self._sum / self.n
        deviation = np.sqrt(np.maximum(self._square / self.n - mean**2, 0.0))
        return self._first + mean, np.where(deviation > 0, deviation, 1.0)


class Pairs:
    """Features and embeddings of the images of a study; one shard at a time is in memory."""

    def __init__(
        self,
        features: Path,
        embeddings: Path,
        shards: int,
        manifest: pd.DataFrame,
        device: torch.device,
    ) -> None:
        self.shards = shards
        self.device = device
        self._features = features
        self._embeddings = embeddings
        self._manifest = manifest
        self._training = (manifest["split"] == "train").to_numpy()
        self._cached: tuple[int, Rows] | None = None

    def moments(self) -> TrainingMoments:
        """Read all shards once for the statistics of the training rows and a hash of the data.

        Raises InputError if there is no training row or no held-out image, or if shards do not fit
        together.
        """
        digest = hashlib.sha256(self._training.data)
        features, embeddings = _Spread(), _Spread()
        for shard, targets in iterate_pairs(
            self._features, self._embeddings, self.shards, self._manifest
        ):
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
        return TrainingMoments(
            features.n, *features.mean_and_scale(), *embeddings.mean_and_scale(), digest.hexdigest()
        )

    def read(self, shard: int) -> Rows:
        """Features and embeddings of a shard on the device; positions of its training and held-out
        rows.

        Training rows are all views of the training images; held-out rows are view 0 of the held-out
        images. The shard is kept until another one is read.
        """
        if self._cached and self._cached[0] == shard:
            return self._cached[1]
        self._cached = None
        tensors, _ = read_tensors(
            shard_path(self._features, shard), ["features", "image_id", "view"]
        )
        embeddings = read_tensors(shard_path(self._embeddings, shard), ["embeddings"])[0][
            "embeddings"
        ]
        training = self._training[tensors["image_id"]]
        held_out = ~training & (tensors["view"] == 0)
        rows = (
            torch.from_numpy(tensors["features"]).float().to(self.device),
            torch.from_numpy(embeddings).to(self.device),
            np.flatnonzero(training),
            np.flatnonzero(held_out),
        )
        self._cached = (shard, rows)
        return rows

    def judge(self, predict: Callable[[torch.Tensor], torch.Tensor]) -> Agreement:
        """Agreement of predictions with the embeddings of the held-out images, on view 0.

        predict: from features (n, d) to embeddings (n, m), on the device. If a prediction is not
        finite, the cosine and the squared error are NaN.
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


@dataclass(frozen=True)
class Trained:
    """The network that is kept, the loss that trained it, and the figures of every loss."""

    network: Network
    loss: str
    losses: dict[str, dict[str, Any]]
    baseline_cosine: float
    n_train: int
    n_validation: int


def prepare(device: str, threads: int) -> torch.device:
    """Pick the device and make PyTorch reproducible on it.

    The number of CPU threads is fixed, TF32 is off, and algorithms are deterministic where PyTorch
    has such ones.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    return pick_device(device)


def train(
    pairs: Pairs,
    kind: str,
    settings: Training,
    seed: int,
    checkpoint: Path,
    tell: Callable[[str, History], None],
) -> Trained:
    """Train a network with each loss (AdamW, early stopping) and keep the best one by held-out MSE.

    seed: decides, together with the epoch, the initial weights, the order of the rows and the
    dropout. checkpoint: file with the state after every epoch, from which a training continues; the
    caller removes it. A damaged file, or one of other data, settings, code or software, is ignored
    with a warning. tell: called after every epoch with the loss and the records of its epochs so
    far, and once for a loss that was finished earlier. Raises InputError if a loss is no longer
    finite, and as Pairs.moments() does.
    """
    moments = pairs.moments()
    mean = torch.from_numpy(moments.embedding_mean).to(pairs.device)
    baseline = pairs.judge(lambda features: mean.expand(len(features), -1))
    key = _key(moments, kind, settings, seed, pairs.device)
    state, tensors = _read_checkpoint(checkpoint, key) or ({"loss": None, "finished": {}}, {})
    finished: dict[str, dict[str, Any]] = state["finished"]
    kept = _under("kept", tensors)
    with torch.random.fork_rng([pairs.device] if pairs.device.type == "cuda" else []):
        for loss in settings.losses:
            if loss in finished:
                tell(loss, finished[loss]["history"])
                continue
            run = _start(moments, kind, loss, settings, seed, pairs.device)
            if loss == state["loss"]:
                run.restore(state["history"], tensors)
                log.info("%s, loss %s: goes on after epoch %d", kind, loss, len(run.history))
            logged = time.monotonic()
            while (
                len(run.history) < settings.epochs
                and len(run.history) - best_epoch(loss, run.history) < settings.patience
            ):
                record = _run_epoch(run, pairs, settings, seed)
                parts = run.arrays() | {f"kept/{name}": array for name, array in kept.items()}
                _write_checkpoint(
                    checkpoint,
                    key,
                    {"loss": loss, "history": run.history, "finished": finished},
                    parts,
                )
                tell(loss, run.history)
                if time.monotonic() - logged >= 10:
                    logged = time.monotonic()
                    log.info(
                        "%s, loss %s: epoch %d of at most %d: held-out cosine %.4f, MSE %.3g",
                        kind,
                        loss,
                        record["epoch"],
                        settings.epochs,
                        record["validation_cosine"],
                        record["validation_mse"],
                    )
            chosen = best_epoch(loss, run.history)
            figures = {
                name: run.history[chosen - 1][name]
                for name in ("validation_cosine", "validation_mse")
            }
            if all(
                figures["validation_mse"] < earlier["validation_mse"]
                for earlier in finished.values()
            ):
                kept = run.best
            figures["validation_r2"] = 1.0 - figures["validation_mse"] / baseline.mse(len(mean))
            finished[loss] = {
                "epochs": len(run.history),
                "best_epoch": chosen,
                **figures,
                "history": run.history,
            }
    _load(run.network.cpu(), kept)
    best = min(finished, key=lambda name: finished[name]["validation_mse"])
    return Trained(run.network.eval(), best, finished, baseline.cosine, moments.n, baseline.n)


def held_out_loss(loss: str, record: dict[str, float]) -> float:
    """Value of a loss on the held-out images, from the record of an epoch."""
    cosine, mse = 1.0 - record["validation_cosine"], record["validation_mse"]
    return {"mse": mse, "cosine": cosine, "both": mse + cosine}[loss]


def best_epoch(loss: str, history: History) -> int:
    """The first epoch with the lowest held-out loss, counted from 1; 0 before the first epoch."""
    return int(np.argmin([held_out_loss(loss, record) for record in history])) + 1 if history else 0


@dataclass
class _Run:
    """The training with one loss: everything that an epoch changes."""

    loss: str
    network: Network
    optimizer: torch.optim.AdamW
    history: History
    best: Tensors

    def arrays(self) -> Tensors:
        moments = self.optimizer.state_dict()["state"]
        optimizer = {
            f"{number}.{name}": tensor
            for number, state in moments.items()
            for name, tensor in state.items()
        }
        parts = {
            "weights": _arrays(self.network.state_dict()),
            "best": self.best,
            "optimizer": _arrays(optimizer),
        }
        return {
            f"{part}/{name}": array
            for part, arrays in parts.items()
            for name, array in arrays.items()
        }

    def restore(self, history: History, tensors: Tensors) -> None:
        self.history, self.best = history, _under("best", tensors)
        _load(self.network, _under("weights", tensors))
        state = self.optimizer.state_dict()
        for key, array in _under("optimizer", tensors).items():
            number, name = key.split(".")
            state["state"].setdefault(int(number), {})[name] = torch.tensor(array)
        self.optimizer.load_state_dict(state)


def _start(
    moments: TrainingMoments,
    kind: str,
    loss: str,
    settings: Training,
    seed: int,
    device: torch.device,
) -> _Run:
    torch.manual_seed(_seed(seed, 0))
    network = Network(
        kind,
        len(moments.feature_mean),
        len(moments.embedding_mean),
        settings.width,
        settings.dropout,
    )
    with torch.no_grad():
        network.feature_mean.copy_(torch.from_numpy(moments.feature_mean))
        network.feature_scale.copy_(torch.from_numpy(moments.feature_scale))
        network.embedding_mean.copy_(torch.from_numpy(moments.embedding_mean))
        network.embedding_scale.copy_(torch.from_numpy(moments.embedding_scale))
    network.to(device)
    matrices, vectors = (
        [p for p in network.parameters() if (p.ndim > 1) == many] for many in (True, False)
    )
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return _Run(loss, network, torch.optim.AdamW(groups, lr=settings.learning_rate), [], {})


def _run_epoch(run: _Run, pairs: Pairs, settings: Training, seed: int) -> dict[str, float]:
    """One pass over the training rows, then one over the held-out rows; the new record.

    Batches have nearly equal sizes.
    """
    epoch = len(run.history) + 1
    torch.manual_seed(_seed(seed, epoch))
    run.network.train()
    total, rows = torch.zeros((), dtype=torch.float64, device=pairs.device), 0
    for shard in np.random.default_rng([seed, epoch]).permutation(pairs.shards):
        features, embeddings, training, _ = pairs.read(int(shard))
        order = torch.from_numpy(
            np.random.default_rng([seed, epoch, shard + 1]).permutation(training)
        ).to(pairs.device)
        steps = -(-len(order) // settings.batch_size)
        for step in range(steps):
            batch = order[step::steps]
            run.optimizer.zero_grad()
            value = LOSSES[run.loss](run.network(features[batch]), embeddings[batch])
            value.backward()
            run.optimizer.step()
            total += value.detach() * len(batch)
        rows += len(order)
    with torch.inference_mode():
        agreement = pairs.judge(run.network.eval())
    record = {
        "epoch": epoch,
        "train_loss": float(total) / rows,
        "validation_cosine": agreement.cosine,
        "validation_mse": agreement.mse(run.network.projection.out_features),
    }
    if not np.isfinite(list(record.values())).all():
        raise InputError(
            f"loss {run.loss} is not finite in epoch {epoch}: lower training.learning_rate "
            f"({settings.learning_rate:g}) or raise training.batch_size ({settings.batch_size})"
        )
    run.history.append(record)
    if best_epoch(run.loss, run.history) == epoch:
        run.best = _arrays(run.network.state_dict())
    return record


def _seed(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0])


def _key(
    moments: TrainingMoments, kind: str, settings: Training, seed: int, device: torch.device
) -> str:
    """Hash of everything that decides the result of a training."""
    decides = {
        "settings": {
            name: getattr(settings, name) for name in Training.model_fields if name != "history"
        },
        "software": provenance(["torch"])["software"],
        "code": hashlib.sha256(Path(__file__).read_bytes()).hexdigest(),
        "data": moments.sha256,
        "threads": torch.get_num_threads(),
    }
    return hashlib.sha256(
        json.dumps([decides, kind, seed, device.type], sort_keys=True).encode()
    ).hexdigest()


def _arrays(tensors: dict[str, torch.Tensor]) -> Tensors:
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in tensors.items()}


def _load(network: Network, tensors: Tensors) -> None:
    network.load_state_dict({name: torch.from_numpy(array) for name, array in tensors.items()})


def _under(part: str, tensors: Tensors) -> Tensors:
    return {
        name.removeprefix(f"{part}/"): array
        for name, array in tensors.items()
        if name.startswith(f"{part}/")
    }


def _write_checkpoint(path: Path, key: str, state: dict[str, Any], tensors: Tensors) -> None:
    text = json.dumps(state)
    write_tensors(path, tensors, {"key": key, "state": text, "sha256": _digest(tensors, text)})


def _read_checkpoint(path: Path, key: str) -> tuple[dict[str, Any], Tensors] | None:
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        log.warning("%s: not readable (%s): training starts over", path, error)
        return None
    if metadata.get("sha256") != _digest(tensors, metadata.get("state", "")):
        log.warning("%s: damaged: training starts over", path)
        return None
    if metadata.get("key") != key:
        log.warning("%s: of other data, settings, code or software: training starts over", path)
        return None
    return json.loads(metadata["state"]), tensors


def _digest(tensors: Tensors, state: str) -> str:
    digest = hashlib.sha256(state.encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tensors[name].shape}".encode())
        digest.update(np.ascontiguousarray(tensors[name]).data)
    return digest.hexdigest()
