"""Growth of scoring, ridge, scan and bootstrap with the rows, which come in shards as from files.

Every kernel runs at every size in a process of its own. Seconds are processor time with one thread,
medians over repeats. Ends with exit status 1 when a row takes longer at the largest size than the
tolerance allows, or memory grows by more than the table of scores that the bootstrap resamples.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import common
import numpy as np
import pandas as pd
from common import Mark, size
from pydantic import Field

from singflow import cli
from singflow.analyses.concepts import scan_block
from singflow.analyses.geometry import random_basis
from singflow.analyses.metrics import remove, subspace_translator, unit
from singflow.analyses.statistics import bootstrap_means
from singflow.translators.ridge import Affine, RidgeStatistics

WIDTH, DIM, LABELS, CONCEPTS, SCORES, RESAMPLES, SHARD = 256, 128, 100, 100, 3, 400, 5000
LONGER = 1.1  # times as long as at a smaller size that a row may take at the largest
SLACK_MB = 30.0  # between runs of one process
COPIES = 6.0  # of its table that the bootstrap may hold


class Flags(common.Flags):
    rows: list[int] = Field(
        [10_000, 100_000, 1_000_000], min_length=2, description="numbers of rows, ascending"
    )
    repeats: int = size(3, 1, "times that every kernel runs in its process")
    plot: Path | None = Field(None, description="PNG to draw")


class Shards:
    """The same rows repeated, (n, width) float32; a slice lies within a shard."""

    def __init__(self, n: int, shard: np.ndarray) -> None:
        self._n, self._shard = n, shard

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, part: slice) -> np.ndarray:
        start, stop, _ = part.indices(self._n)
        return self._shard[: stop - start]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[slice(start, start + SHARD)] for start in range(0, self._n, SHARD))


def normal(n: int, width: int, seed: int) -> Shards:
    """Shards of made-up rows."""
    generator = np.random.default_rng(seed)
    return Shards(n, generator.standard_normal((SHARD, width), dtype=np.float32))


def units(n: int, seed: int) -> Shards:
    """Shards of unit embeddings."""
    return Shards(n, unit(normal(SHARD, DIM, seed)[:]).astype(np.float32))


def scoring(n: int) -> Callable[[], object]:
    """IS and AS of the rows."""
    features, texts = normal(n, WIDTH, 0), units(n, 1)
    translator = Affine(normal(DIM, WIDTH, 2)[:], np.ones(DIM, dtype=np.float32))
    removed = subspace_translator(translator, random_basis(WIDTH, WIDTH // 2, 0, 0))

    def run() -> None:
        for shard, targets in zip(features, texts, strict=True):
            removal = remove(shard, translator, removed)
            removal.image_score()
            removal.attribute_score(targets)

    return run


def ridge(n: int) -> Callable[[], object]:
    """Translators of two penalties."""
    features, embeddings = normal(n, WIDTH, 0), normal(n, DIM, 1)

    def run() -> list[Affine]:
        statistics = RidgeStatistics(WIDTH, DIM)
        for x, z in zip(features, embeddings, strict=True):
            statistics.update(x, z)
        return list(statistics.path([1.0, 100.0]))

    return run


def scan(n: int) -> Callable[[], object]:
    """Scores of concepts."""
    counts = np.bincount(np.arange(n) % LABELS, minlength=LABELS)
    original, equivalent, texts = units(n, 0), units(n, 1), units(CONCEPTS, 2)[:CONCEPTS]
    return lambda: scan_block(original, equivalent, counts, texts)


def bootstrap(n: int) -> Callable[[], object]:
    """Means of resampled scores."""
    scores = np.random.default_rng(0).standard_normal((n, SCORES))
    strata = np.arange(n) % LABELS
    return lambda: bootstrap_means(scores, strata, RESAMPLES, 0)


KERNELS = {kernel.__name__: kernel for kernel in (scoring, ridge, scan, bootstrap)}


def seconds(kernel: str, n: int, repeats: int) -> float:
    """Median processor seconds of a kernel of n rows, after a run that does not count."""
    rounds = common.race({kernel: KERNELS[kernel](n)}, repeats + 1, time.process_time)
    return float(rounds[kernel].iloc[1:].median())


def grow(flags: Flags) -> pd.DataFrame:
    """One row a kernel and number of rows: seconds, and peak memory (MB)."""
    rows = []
    for kernel in KERNELS:
        for n in flags.rows:
            took, peak = common.alone(1, seconds, kernel, n, flags.repeats)
            rows.append((kernel, n, took, peak / 1e6))
    return pd.DataFrame(rows, columns=["kernel", "rows", "s", "MB"])


def marks(table: pd.DataFrame) -> Iterator[Mark]:
    """How much slower a row is at the largest size, and by how many MB memory has grown."""
    for kernel, mine in table.groupby("kernel", sort=False):
        per_row = (mine["s"] / mine["rows"]).to_numpy()
        longer = per_row[-1] / per_row[:-1].min()
        yield Mark(f"{kernel}: times as long a row at the largest size", longer, "<=", LONGER)
        grown = mine["MB"].iloc[-1] - mine["MB"].iloc[0]
        held = COPIES * 8 * SCORES * mine["rows"].iloc[-1] / 1e6 if kernel == "bootstrap" else 0.0
        yield Mark(f"{kernel}: MB more at the largest size", grown, "<=", SLACK_MB + held)


def draw(table: pd.DataFrame, path: Path) -> None:
    """Time and memory over rows, one line a kernel."""
    import matplotlib.pyplot as plt

    from singflow.figures.style import STYLE, colour, marker, save

    with plt.style.context(["default", STYLE]):
        figure, axes = plt.subplots(1, 2, figsize=(6.0, 2.4), layout="constrained")
        drawn = {"s": "processor time [s]", "MB": "peak memory [MB]"}
        for axis, (column, name) in zip(axes, drawn.items(), strict=True):
            for number, (kernel, mine) in enumerate(table.groupby("kernel", sort=False)):
                style = {"color": colour(number), "marker": marker(number), "markersize": 4}
                axis.plot(mine["rows"], mine[column], label=kernel, **style)
            axis.set(xscale="log", xlabel="rows", ylabel=name)
            axis.xaxis.set_major_formatter("{x:,.0f}")
        axes[0].set_yscale("log")
        axes[0].yaxis.set_major_formatter("{x:g}")
        axes[1].set_ylim(bottom=0)
        axes[0].legend(fontsize=7)
        save(figure, path)


def main(flags: Flags) -> None:
    table = grow(flags)
    table["us a row"] = 1e6 * table["s"] / table["rows"]
    common.show(table)
    if flags.plot:
        draw(table, flags.plot)
    common.hold(marks(table), flags.ease)


if __name__ == "__main__":
    cli.run_step(main, Flags)
