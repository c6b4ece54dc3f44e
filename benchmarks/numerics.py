"""Speed of scoring, concept scan and ridge beside the alternatives, on features of ResNet50's size.

Contestants take turns in one process with the same threads; every figure is a ratio of medians.
With one thread, seconds are processor time, which other programs hardly change. Memory is the peak
of a process of its own, minus the peak of a process that only makes the inputs. The evidence is a
process that runs measure_evidence. Ends with exit status 1 when a mark is missed.
"""

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import chdir
from functools import partial
from typing import Literal

import common
import numpy as np
import pandas as pd
from common import Mark, normal, size
from pydantic import Field
from threadpoolctl import threadpool_limits

from singflow import cli
from singflow.analyses.concepts import block_size, scan_block, summed_scores
from singflow.analyses.geometry import random_basis
from singflow.analyses.metrics import remove, subspace_translator, unit
from singflow.artifacts.files import write_json
from singflow.artifacts.shards import in_blocks
from singflow.errors import InputError
from singflow.parallel import map_ahead
from singflow.translators.ridge import Affine, RidgeStatistics

Part = Literal["scoring", "scan", "ridge", "evidence"]
LAMBDAS = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0]
SHARD = 4096  # rows that the streamed ridge takes at once


class Flags(common.Flags):
    images: int = size(20_000, 10, "number of images, and of rows of the ridge")
    features: int = size(2048, 2, "dimensions of the features")
    null: int = size(1048, 1, "dimensions of the null space")
    dims: int = size(768, 2, "dimensions of the space")
    labels: int = size(1000, 1, "labels of the scan, at most as many as images")
    concepts: int = size(1000, 1, "concepts of the scan")
    alphas: int = size(20, 1, "penalties of the ridge path")
    evidence_images: int = size(10_000, 50, "images whose evidence is measured")
    draws: int = size(20, 3, "planted leaks of each size, and random signs, of the evidence")
    rows: int = size(1_000_000, 1, "rows streamed into the ridge whose memory is measured")
    square: int = size(4096, 1, "size of the products that give the machine's rate")
    repeats: int = size(5, 1, "times that every contestant runs, all but the loop over Ridge")
    threads: int = size(2, 1, "threads of every contestant")
    parts: list[Part] = Field(
        ["scoring", "scan", "ridge", "evidence"], description="what is measured"
    )


def race(
    contestants: dict[str, Callable[[], object]], flags: Flags, *, warm_up: bool = True
) -> pd.Series:
    """Median seconds of contestants, with a first turn that does not count if so wanted."""
    # With one thread, processor seconds, which other programs hardly change.
    clock = time.process_time if flags.threads == 1 else time.perf_counter
    rounds = common.race(contestants, flags.repeats + 1 if warm_up else 1, clock)
    medians = rounds.iloc[int(warm_up) :].median()
    for name, median in medians.items():
        print(f"{name}: {median:.3g} s")
    return medians


def scoring(flags: Flags) -> list[Mark]:
    """Share of the machine's rate; speed-up over the batched version and the loop over images."""
    features = normal(flags.images, flags.features)
    texts = unit(normal(flags.images, flags.dims)).astype(np.float32)
    weight = normal(flags.dims, flags.features) / np.float32(flags.features**0.5)
    translator = Affine(weight, normal(flags.dims))
    basis = random_basis(flags.features, flags.null, 0, 0)
    removed, narrow = subspace_translator(translator, basis), basis.astype(np.float32)
    square = normal(flags.square, flags.square)
    blocks = [slice(rows[0], rows[-1] + 1) for rows in in_blocks(np.arange(flags.images))]
    few, product_of_squares = min(flags.images, 300), np.empty_like(square)

    def ours() -> np.ndarray:
        scores = []
        for rows in blocks:
            removal = remove(features[rows], translator, removed)
            scores.append((removal.image_score(), removal.attribute_score(texts[rows])))
        return np.concatenate(scores, axis=1)

    def plain(f: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        equivalent = f - (f @ narrow) @ narrow.T
        z, e = translator(f), translator(equivalent)
        z, e, t = (
            vectors / np.linalg.norm(vectors, axis=-1, keepdims=True) for vectors in (z, e, t)
        )
        image, before, after = (
            np.degrees(np.arccos(np.clip((a * b).sum(axis=-1), -1, 1)))
            for a, b in ((z, e), (z, t), (e, t))
        )
        return image, before - after

    exact = plain(features[:few].astype(np.float64), texts[:few].astype(np.float64))
    difference = np.abs(ours()[:, :few] - exact).max()
    if not difference < 1e-3:
        raise InputError(
            f"scores are off by {difference} degrees from those of the plain version in float64"
        )
    contestants = {
        "scoring": ours,
        "scoring, batched": lambda: plain(features, texts),
        "scoring, one image at a time": lambda: list(map(plain, features[:few], texts[:few])),
        "product of two squares": lambda: np.matmul(square, square, out=product_of_squares),
    }
    own, batched, loop, product = race(contestants, flags)
    rate = (4 * flags.images * flags.features * flags.dims / own) / (2 * flags.square**3 / product)
    loop_times = loop / few / (own / flags.images)
    return [
        Mark("scoring: share of the machine's rate of products", rate, ">=", 0.8),
        Mark("scoring: times faster than a batched version", batched / own, ">=", 2.4),
        Mark("scoring: times faster than a loop over images", loop_times, ">=", 20.0),
    ]


def scan_inputs(flags: Flags) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Unit embeddings before and after removal, images per label, unit concept embeddings."""
    original, texts = normal(flags.images, flags.dims), normal(flags.concepts, flags.dims)
    equivalent = original + np.float32(0.3) * original[::-1]
    for vectors in (original, equivalent, texts):
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    n = np.bincount(np.arange(flags.images) % flags.labels, minlength=flags.labels)
    return original, equivalent, n, texts


def scan_all(
    flags: Flags, original: np.ndarray, equivalent: np.ndarray, n: np.ndarray, texts: np.ndarray
) -> None:
    """The blocks of concepts as scan_concepts shares them out among threads."""
    size = block_size(len(n))
    blocks = [texts[start : start + size] for start in range(0, len(texts), size)]

    def sums(block: np.ndarray) -> np.ndarray:
        return summed_scores(original, equivalent, block)

    def moments(block: np.ndarray) -> dict[str, np.ndarray]:
        return scan_block(original, equivalent, n, block, common)

    with threadpool_limits(1):
        several = len(blocks) > 1
        common = sum(map_ahead(sums, blocks, flags.threads)) / len(texts) if several else None
        for _ in map_ahead(moments, blocks, flags.threads):
            pass


def scan_in_torch(
    flags: Flags, original: np.ndarray, equivalent: np.ndarray, n: np.ndarray, texts: np.ndarray
) -> list[np.ndarray]:
    """What scan_block gives, in plain PyTorch and float32."""
    import torch

    torch.set_num_threads(flags.threads)
    first, second, targets = (torch.from_numpy(rows) for rows in (original, equivalent, texts))
    codes, counts = torch.from_numpy(np.repeat(np.arange(len(n)), n)), torch.from_numpy(n)[:, None]

    def mean(values: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(n), len(texts)).index_add_(0, codes, values) / counts

    angle = torch.rad2deg(torch.arccos((first @ targets.T).clamp(-1, 1)))
    score = angle - torch.rad2deg(torch.arccos((second @ targets.T).clamp(-1, 1)))
    scored = angle, score, score - score.mean(dim=1, keepdim=True)
    means = [mean(values) for values in scored]
    spreads = [
        (mean(values**2) - centre**2).clamp(min=0).sqrt()
        for values, centre in zip(scored, means, strict=True)
    ]
    return [
        statistic.numpy()
        for statistic in (means[0], spreads[0], means[1], spreads[1], mean(score.abs()), spreads[2])
    ]


SCANS = {"scan": scan_all, "scan, PyTorch": scan_in_torch}


def scan_alone(flags: Flags, name: str, work: bool) -> None:
    """Make the inputs of a scan, and run it if so wanted."""
    import torch

    torch.set_num_threads(flags.threads)
    inputs = scan_inputs(flags)
    if work:
        SCANS[name](flags, *inputs)


def scan(flags: Flags) -> list[Mark]:
    """How many times faster than PyTorch, and the share of its memory."""
    inputs = scan_inputs(flags)
    both = zip(scan_block(*inputs).values(), scan_in_torch(flags, *inputs), strict=True)
    difference = max(np.abs(ours - theirs).max() for ours, theirs in both)
    if not difference < 0.05:
        raise InputError(f"moments are off by {difference} degrees from PyTorch's")
    seconds = race({name: partial(run, flags, *inputs) for name, run in SCANS.items()}, flags)
    own, torchs = (
        (peak(flags, scan_alone, name, True) - peak(flags, scan_alone, name, False))
        for name in SCANS
    )
    print(f"memory of the scan: {max(own, 0.0):.3f} GB; in PyTorch: {torchs:.3f} GB")
    faster = seconds["scan, PyTorch"] / seconds["scan"]
    return [
        Mark("scan: times faster than PyTorch", faster, ">=", 1.5),
        Mark("scan: share of PyTorch's memory", max(own, 0.0) / torchs, "<=", 0.5),
    ]


def summed(parts: Iterable[tuple[np.ndarray, np.ndarray]], flags: Flags) -> RidgeStatistics:
    """The sums of a ridge over parts of features and embeddings."""
    statistics = RidgeStatistics(flags.features, flags.dims)
    for features, embeddings in parts:
        statistics.update(features, embeddings)
    return statistics


def batches(*arrays: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """The rows of arrays in the blocks of the workflow."""
    for rows in in_blocks(np.arange(len(arrays[0]))):
        yield tuple(array[rows] for array in arrays)


def ridge(flags: Flags) -> list[Mark]:
    """Time relative to one Ridge fit, speed-up over a loop over alphas, peak GB of many rows."""
    from sklearn.linear_model import Ridge

    features, embeddings = normal(flags.images, flags.features), normal(flags.images, flags.dims)
    alphas = np.logspace(-2, 6, flags.alphas)

    def ours() -> list[Affine]:
        return list(summed(batches(features, embeddings), flags).path(alphas))

    def theirs(alpha: float) -> np.ndarray:
        model = Ridge(alpha=alpha, solver="cholesky")
        fitted = model.fit(features.astype(np.float64), embeddings.astype(np.float64))
        return np.asarray(fitted.coef_)

    path, reference = ours(), theirs(alphas[-1])
    if not np.linalg.norm(path[-1].weight - reference) <= 1e-6 * np.linalg.norm(reference):
        raise InputError("the ridge path differs from scikit-learn's solution")
    seconds = race({"ridge path": ours, "one Ridge fit": lambda: theirs(1.0)}, flags)
    loop = race({"loop over Ridge": lambda: list(map(theirs, alphas))}, flags, warm_up=False)
    own, one, many = *seconds, loop.iloc[0]
    memory = peak(flags, stream)
    return [
        Mark("ridge path: times as long as one Ridge fit", own / one, "<=", 1.5),
        Mark("ridge path: times faster than a loop over Ridge", many / own, ">=", 8.0),
        Mark("ridge path: peak memory of streamed rows (GB)", memory, "<=", 1.5),
    ]


def stream(flags: Flags) -> list[Affine]:
    """The ridge path of flags.rows rows that come in shards."""
    features, embeddings = normal(SHARD, flags.features), normal(SHARD, flags.dims)
    sizes = [min(SHARD, flags.rows - start) for start in range(0, flags.rows, SHARD)]
    shards = ((features[:size], embeddings[:size]) for size in sizes)
    return list(summed(shards, flags).path(np.logspace(-2, 6, flags.alphas)))


def write_study(flags: Flags) -> tuple[np.ndarray, np.ndarray]:
    """Write what measure_evidence reads into the working folder; features and embeddings."""
    n, rank = flags.evidence_images, flags.features - flags.null
    axes = np.linalg.qr(normal(flags.features, flags.features).astype(np.float64))[0]
    spread = np.arange(1, flags.features + 1, dtype=np.float32) ** -0.5
    features = (normal(n, flags.features) * spread) @ axes.T.astype(np.float32)
    embeddings = features[:, : flags.dims] + normal(n, flags.dims) * np.float32(0.1)
    rows = {"image_id": np.arange(n), "view": np.zeros(n, dtype=np.int32)}
    labels = common.write_manifest(n, min(flags.labels, n))
    classes = unit(normal(2, rank, flags.dims))
    tensors = {
        "features": rows | {"features": features},
        "embeddings": rows | {"embeddings": embeddings},
        "head": {"weight": axes[:, :rank].T.astype(np.float32), "bias": normal(rank)},
        "projector": {"null_basis": axes[:, rank:]},
        "texts": {
            "label_embeddings": unit(normal(len(labels), flags.dims)),
            "concept_embeddings": np.zeros((0, flags.dims), np.float32),
        },
        "classes": {"class_embeddings": classes[0], "other_embeddings": classes[1]},
    }
    facts = {"weights_sha256": "0", "keep_classes": "null", "class_names": "[]"}
    common.write_arrays(tensors, facts)
    write_json(common.path("names"), {"labels": labels, "concepts": [], "targets": []})
    curve = [{"lambda": 0.1, "validation_r2": 0.5}]
    write_json(common.path("translator_report"), {"lambda": 0.1, "alpha_curve": curve})
    return features, embeddings


def evidence(flags: Flags) -> list[Mark]:
    """Times as long as one ridge path of the same data, and the peak memory (GB)."""
    command = common.program(
        "measure_evidence",
        margin=0.005,
        draws=flags.draws,
        groups=None,
        table="",
        class_list="",
        folds=5,
        confidence=0.95,
        reference=None,
        seed=0,
        threads=flags.threads,
        lambdas=LAMBDAS,
    )
    name = "ridge path of the same images"
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        arrays = write_study(flags)
        seconds = race({name: lambda: list(summed(batches(*arrays), flags).path(LAMBDAS))}, flags)
        cost = common.measure(command)
    print(f"evidence: {cost.seconds:.3g} s")
    times = cost.seconds / seconds[name]
    return [
        Mark("evidence: times as long as one ridge path", times, "<=", 25.0),
        Mark("evidence: peak memory (GB)", cost.peak / 1e9, "<=", 2.0),
    ]


def peak(flags: Flags, work: Callable[..., object], *arguments: object) -> float:
    """Peak memory (GB) of a process that does nothing else."""
    return common.alone(flags.threads, work, flags, *arguments)[1] / 1e9


PARTS = {"scoring": scoring, "scan": scan, "ridge": ridge, "evidence": evidence}


def main(flags: Flags) -> None:
    cli.limit_threads(flags.threads)
    measured = [PARTS[part](flags) for part in PARTS if part in flags.parts]
    common.hold([mark for marks in measured for mark in marks], flags.ease)


if __name__ == "__main__":
    cli.run_step(main, Flags)
