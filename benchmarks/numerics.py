"""Speed of scoring, concept scan and ridge beside the alternatives, on features of ResNet50's size.

Contestants take turns in one process with the same threads; every figure is a ratio of medians.
With one thread, seconds are processor time, which other programs hardly change. Memory is the peak
of a process of its own, minus the peak of a process that only makes the inputs. The evidence is a
process that runs measure_evidence. Ends with exit status 1 when a mark is missed.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import chdir
from typing import Literal

import numpy as np
import pandas as pd
from memory import made_up, measure, path, program
from pydantic import Field
from threadpoolctl import threadpool_limits

from singflow import cli
from singflow.analyses.concepts import block_size, scan_block, summed_scores
from singflow.analyses.geometry import random_basis
from singflow.analyses.metrics import remove, subspace_translator, unit
from singflow.artifacts.files import write_json
from singflow.artifacts.shards import in_blocks
from singflow.artifacts.tensors import write_tensors
from singflow.errors import InputError
from singflow.parallel import map_ahead
from singflow.translators.ridge import Affine, RidgeStatistics

Part = Literal["scoring", "scan", "ridge", "evidence"]
MARKS = {  # (what is measured, at least or at most, mark)
    "scoring: share of the machine's rate of products": (">=", 0.8),
    "scoring: times faster than a batched version": (">=", 2.4),
    "scoring: times faster than a loop over images": (">=", 20.0),
    "scan: times faster than PyTorch": (">=", 1.5),
    "scan: share of PyTorch's memory": ("<=", 0.5),
    "ridge path: times as long as one Ridge fit": ("<=", 1.5),
    "ridge path: times faster than a loop over Ridge": (">=", 8.0),
    "ridge path: peak memory of streamed rows (GB)": ("<=", 1.5),
    "evidence: times as long as one ridge path": ("<=", 25.0),
    "evidence: peak memory (GB)": ("<=", 2.0),
}
LAMBDAS = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0]


class Flags(cli.Command):
    images: int = Field(20_000, ge=10, description="number of images, and of rows of the ridge")
    features: int = Field(2048, ge=2, description="dimensions of the features")
    null: int = Field(1048, ge=1, description="dimensions of the null space")
    dims: int = Field(768, ge=2, description="dimensions of the space")
    labels: int = Field(1000, ge=1, description="labels of the scan, at most as many as images")
    concepts: int = Field(1000, ge=1, description="concepts of the scan")
    alphas: int = Field(20, ge=1, description="penalties of the ridge path")
    evidence_images: int = Field(10_000, ge=50, description="images whose evidence is measured")
    draws: int = Field(
        20, ge=3, description="planted leaks of each size, and random signs, of the evidence"
    )
    rows: int = Field(
        1_000_000, ge=1, description="rows streamed into the ridge whose memory is measured"
    )
    square: int = Field(4096, ge=1, description="size of the products that give the machine's rate")
    repeats: int = Field(
        5, ge=1, description="times that every contestant runs, all but the loop over Ridge"
    )
    threads: int = Field(2, ge=1, description="threads of every contestant")
    parts: list[Part] = Field(
        ["scoring", "scan", "ridge", "evidence"], description="what is measured"
    )
    ease: float = Field(1.0, gt=0, description="marks are eased by this factor")
    alone: str | None = Field(
        None, description="run this contestant once and nothing else: what measures memory calls"
    )


def normal(*shape: int) -> np.ndarray:
    """Made-up numbers in float32, the same for a shape."""
    return np.random.default_rng(shape).standard_normal(shape, dtype=np.float32)


def clock(threads: int) -> float:
    """Processor seconds for one thread, which other programs hardly change; else wall time."""
    return time.process_time() if threads == 1 else time.perf_counter()


def race(contestants: dict[str, Callable[[], object]], flags: Flags) -> dict[str, float]:
    """Median seconds of contestants that take turns, after a turn that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(flags.repeats + 1):
        for name, run in contestants.items():
            started = clock(flags.threads)
            run()
            seconds[name].append(clock(flags.threads) - started)
    medians = {name: float(np.median(times[1:])) for name, times in seconds.items()}
    for name, median in medians.items():
        print(f"{name}: {median:.3g} s")
    return medians


def scoring(flags: Flags) -> list[float]:
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
    seconds = race(contestants, flags)
    own, batched, loop, product = seconds.values()
    rate = (4 * flags.images * flags.features * flags.dims / own) / (2 * flags.square**3 / product)
    return [rate, batched / own, loop / few / (own / flags.images)]


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
    original: np.ndarray, equivalent: np.ndarray, n: np.ndarray, texts: np.ndarray
) -> list[np.ndarray]:
    """What scan_block gives, in plain PyTorch and float32."""
    import torch

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


def scan(flags: Flags) -> list[float]:
    """How many times faster than PyTorch, and the share of its memory."""
    import torch

    torch.set_num_threads(flags.threads)
    inputs = scan_inputs(flags)
    both = zip(scan_block(*inputs).values(), scan_in_torch(*inputs), strict=True)
    difference = max(np.abs(ours - theirs).max() for ours, theirs in both)
    if not difference < 0.05:
        raise InputError(f"moments are off by {difference} degrees from PyTorch's")
    seconds = race(
        {"scan": lambda: scan_all(flags, *inputs), "scan, PyTorch": lambda: scan_in_torch(*inputs)},
        flags,
    )
    own, torchs = (
        peak(flags, name) - peak(flags, f"{name}, nothing") for name in ("scan", "scan, PyTorch")
    )
    print(f"memory of the scan: {max(own, 0.0):.3f} GB; in PyTorch: {torchs:.3f} GB")
    return [seconds["scan, PyTorch"] / seconds["scan"], max(own, 0.0) / torchs]


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


def ridge(flags: Flags) -> list[float]:
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
    started = clock(flags.threads)
    for alpha in alphas:
        theirs(alpha)
    loop = clock(flags.threads) - started
    print(f"loop over Ridge: {loop:.3g} s")
    return [
        seconds["ridge path"] / seconds["one Ridge fit"],
        loop / seconds["ridge path"],
        peak(flags, "ridge path"),
    ]


def stream(flags: Flags) -> list[Affine]:
    """The ridge path of flags.rows rows that come in shards."""
    features, embeddings = normal(4096, flags.features), normal(4096, flags.dims)
    sizes = [min(4096, flags.rows - start) for start in range(0, flags.rows, 4096)]
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
    labels = made_up(n, min(flags.labels, n))
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
    for name, tensor in tensors.items():
        made = {"weights_sha256": "0", "keep_classes": "null", "class_names": "[]"}
        write_tensors(path(name), tensor, made)
    write_json(path("names"), {"labels": labels, "concepts": [], "targets": []})
    curve = [{"lambda": 0.1, "validation_r2": 0.5}]
    write_json(path("translator_report"), {"lambda": 0.1, "alpha_curve": curve})
    return features, embeddings


def evidence(flags: Flags) -> list[float]:
    """Times as long as one ridge path of the same data, and the peak memory (GB)."""
    command = program(
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
        memory, took = measure(command)
    print(f"evidence: {took:.3g} s")
    return [took / seconds[name], memory / 1e9]


def run_alone(flags: Flags) -> None:
    """Run the contestant of flags.alone once."""
    if flags.alone == "ridge path":
        stream(flags)
        return
    if "PyTorch" in str(flags.alone):
        import torch

        torch.set_num_threads(flags.threads)
    inputs = scan_inputs(flags)
    if flags.alone == "scan":
        scan_all(flags, *inputs)
    elif flags.alone == "scan, PyTorch":
        scan_in_torch(*inputs)


def peak(flags: Flags, contestant: str) -> float:
    """Peak memory (GB) of a process that runs one contestant."""
    sizes = ("images", "features", "dims", "labels", "concepts", "alphas", "rows", "threads")
    given = [word for name in sizes for word in (f"--{name}", str(getattr(flags, name)))]
    return measure([sys.executable, __file__, *given, "--alone", contestant])[0] / 1e9


def judge(values: dict[str, float], ease: float) -> pd.DataFrame:
    """One row a figure, with its mark and whether it is reached."""
    rows = []
    for name, value in values.items():
        sense, mark = MARKS[name]
        eased = mark / ease if sense == ">=" else mark * ease
        reached = value >= eased if sense == ">=" else value <= eased
        rows.append((name, value, f"{sense} {eased:g}", reached))
    return pd.DataFrame(rows, columns=["figure", "value", "mark", "reached"])


def conclude(table: pd.DataFrame) -> None:
    """Say that every mark is reached. Raises InputError when some are not."""
    missed = table.loc[~table["reached"], "figure"]
    if len(missed):
        raise InputError(f"missed: {'; '.join(missed)}")
    print("every mark is reached")


def main(flags: Flags) -> None:
    cli.limit_threads(flags.threads)
    if flags.alone:
        run_alone(flags)
        return
    values: dict[str, float] = {}
    for run in (scoring, scan, ridge, evidence):
        if (part := run.__name__) in flags.parts:
            names = [name for name in MARKS if name.startswith(part)]
            values |= zip(names, run(flags), strict=True)
    table = judge(values, flags.ease)
    print(table.to_string(index=False, float_format="{:.2f}".format))
    conclude(table)


if __name__ == "__main__":
    cli.run_step(main, Flags)
