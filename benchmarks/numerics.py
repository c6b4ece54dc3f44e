"""Speed and memory of the numerical core beside scikit-learn and plain versions.

Data are made up, at ImageNet's size. Contestants take turns in one process; seconds are medians.
Memory is the peak of a process of its own.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial

import common
import numpy as np
import pandas as pd
from common import Mark, alone, normal, size

import singflow
from singflow import cli
from singflow.analyses.geometry import random_basis
from singflow.analyses.metrics import remove, subspace_translator, unit
from singflow.artifacts.shards import in_blocks
from singflow.errors import InputError
from singflow.translators.ridge import Affine, RidgeStatistics

ALPHAS = np.logspace(-2, 6, 20)  # penalties of a ridge path
SHARD = 4096  # rows that the streamed ridge takes at once


class Flags(cli.Command):
    images: int = size(20_000, 10, "number of images, and of rows of the ridge")
    features: int = size(2048, 2, "dimensions of the features")
    null: int = size(1048, 1, "dimensions of the null space")
    dims: int = size(768, 2, "dimensions of the space")
    labels: int = size(1000, 1, "labels, and texts, of the evidence")
    evidence_images: int = size(10_000, 50, "images whose evidence is measured")
    rows: int = size(1_000_000, 1, "rows streamed into the ridge whose memory is measured")
    square: int = size(4096, 1, "size of the products that give the machine's rate")
    repeats: int = size(5, 1, "times that every contestant runs, all but the loop over Ridge")
    threads: int = size(2, 1, "threads of every contestant")


def race(contestants: Mapping[str, Callable[[], object]], flags: Flags) -> pd.Series:
    """Median seconds of contestants, without a first turn."""
    medians = common.race(contestants, flags.repeats + 1).iloc[1:].median()
    print(medians.to_string(float_format="{:.3g} s".format))
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
        raise InputError(f"scores are {difference} degrees from the plain version's in float64")
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


def ridge_path(parts: Iterable[tuple[np.ndarray, ...]], flags: Flags) -> list[Affine]:
    """The translators of all penalties, from parts of features and embeddings."""
    statistics = RidgeStatistics(flags.features, flags.dims)
    for part in parts:
        for rows in in_blocks(np.arange(len(part[0]))):
            statistics.update(*(array[rows] for array in part))
    return list(statistics.path(ALPHAS))


def stream(flags: Flags) -> None:
    """The ridge path of flags.rows rows that come in shards."""
    shard = normal(SHARD, flags.features), normal(SHARD, flags.dims)
    sizes = [min(SHARD, flags.rows - start) for start in range(0, flags.rows, SHARD)]
    ridge_path((tuple(array[:size] for array in shard) for size in sizes), flags)


def ridge(flags: Flags) -> list[Mark]:
    """Time relative to one Ridge fit, speed-up over a loop over alphas, peak GB of many rows."""
    from sklearn.linear_model import Ridge

    features, embeddings = normal(flags.images, flags.features), normal(flags.images, flags.dims)
    ours = partial(ridge_path, [(features, embeddings)], flags)

    def theirs(alpha: float) -> np.ndarray:
        model = Ridge(alpha=alpha, solver="cholesky")
        fitted = model.fit(features.astype(np.float64), embeddings.astype(np.float64))
        return np.asarray(fitted.coef_)

    path, reference = ours(), theirs(ALPHAS[-1])
    if not np.linalg.norm(path[-1].weight - reference) <= 1e-6 * np.linalg.norm(reference):
        raise InputError("the ridge path differs from scikit-learn's solution")
    own, one = race({"ridge path": ours, "one Ridge fit": lambda: theirs(1.0)}, flags)
    many = common.race({"loop over Ridge": lambda: list(map(theirs, ALPHAS))}, 1).iloc[0, 0]
    memory = alone(flags.threads, stream, flags)[1]
    return [
        Mark("ridge path: times as long as one Ridge fit", own / one, "<=", 1.5),
        Mark("ridge path: times faster than a loop over Ridge", many / own, ">=", 8.0),
        Mark("ridge path: peak memory of streamed rows (GB)", memory, "<=", 1.5),
    ]


def evidence_inputs(flags: Flags) -> list[np.ndarray]:
    """Features, the head's weight, embeddings that depend on features, and texts of classes."""
    n, rank = flags.evidence_images, flags.features - flags.null
    axes = np.linalg.qr(normal(flags.features, flags.features))[0]
    spread = np.arange(1, flags.features + 1, dtype=np.float32) ** -0.5
    features = (normal(n, flags.features) * spread) @ axes.T
    embeddings = features[:, : flags.dims] + normal(n, flags.dims) * np.float32(0.1)
    return [features, axes[:, :rank].T, embeddings, unit(normal(rank, flags.dims))]


def measured(flags: Flags) -> float:
    """Seconds of the test of meaning, of texts and of groups."""
    inputs, labels = evidence_inputs(flags), np.arange(flags.evidence_images) % flags.labels
    started = time.perf_counter()
    found = singflow.measure(*inputs, labels=labels, threads=flags.threads)
    found.texts(unit(normal(flags.labels, flags.dims)), map(str, range(flags.labels)))
    found.groups()
    return time.perf_counter() - started


def evidence(flags: Flags) -> list[Mark]:
    """Times as long as one ridge path of the same data, and the peak memory (GB)."""
    features, _, embeddings, _ = evidence_inputs(flags)
    path = partial(ridge_path, [(features, embeddings)], flags)
    one = race({"ridge path of the same images": path}, flags).iloc[0]
    seconds, memory = alone(flags.threads, measured, flags)
    print(f"evidence: {seconds:.3g} s")
    return [
        Mark("evidence: times as long as one ridge path", seconds / one, "<=", 25.0),
        Mark("evidence: peak memory (GB)", memory, "<=", 2.0),
    ]


def main(flags: Flags) -> None:
    cli.limit_threads(flags.threads)
    common.tell([*scoring(flags), *ridge(flags), *evidence(flags)])


if __name__ == "__main__":
    cli.run_step(main, Flags)
