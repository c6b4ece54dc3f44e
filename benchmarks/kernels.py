"""Growth of scoring, ridge, scan and bootstrap with the rows, which come in shards as from files.

Every kernel runs at every size in a process of its own. Seconds are processor time with one thread,
medians over repeats. Ends with exit status 1 when a row takes longer at the largest size than the
tolerance allows, or memory grows by more than the table of scores that the bootstrap resamples.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from memory import measure
from pydantic import Field

from singflow import cli
from singflow.analyses.concepts import scan_block
from singflow.analyses.geometry import random_basis
from singflow.analyses.metrics import remove, subspace_translator, unit
from singflow.analyses.statistics import bootstrap_means
from singflow.artifacts.files import read_json, write_json
from singflow.errors import InputError
from singflow.translators.ridge import Affine, RidgeStatistics

WIDTH, DIM, LABELS, CONCEPTS, SCORES, RESAMPLES, SHARD = 256, 128, 100, 100, 3, 400, 5000
SLACK_MB = 30.0  # between runs of one process
COPIES = 6.0  # of its table that the bootstrap may hold


class Flags(cli.Command):
    rows: list[int] = Field(
        [10_000, 100_000, 1_000_000], min_length=2, description="numbers of rows, ascending"
    )
    repeats: int = Field(3, ge=1, description="times that every kernel runs in its process")
    tolerance: float = Field(
        0.1,
        gt=0,
        description=(
            "share by which a row may take longer at the largest size than at a smaller one"
        ),
    )
    plot: Path | None = Field(None, description="PNG to draw")
    alone: str | None = Field(
        None, description="run this kernel and nothing else, for the one number of --rows"
    )
    output: Path = Field(
        Path("seconds.json"), description="file that receives the seconds of --alone"
    )


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


def kernels(n: int) -> dict[str, Callable[[], Callable[[], object]]]:
    """What makes a kernel's inputs of n rows, and gives what is measured."""

    def scoring() -> Callable[[], object]:
        features, texts = normal(n, WIDTH, 0), units(n, 1)
        translator = Affine(normal(DIM, WIDTH, 2)[:], np.ones(DIM, dtype=np.float32))
        removed = subspace_translator(translator, random_basis(WIDTH, WIDTH // 2, 0, 0))

        def run() -> None:
            for shard, targets in zip(features, texts, strict=True):
                removal = remove(shard, translator, removed)
                removal.image_score()
                removal.attribute_score(targets)

        return run

    def ridge() -> Callable[[], object]:
        features, embeddings = normal(n, WIDTH, 0), normal(n, DIM, 1)

        def run() -> list[Affine]:
            statistics = RidgeStatistics(WIDTH, DIM)
            for x, z in zip(features, embeddings, strict=True):
                statistics.update(x, z)
            return list(statistics.path([1.0, 100.0]))

        return run

    def scan() -> Callable[[], object]:
        counts = np.bincount(np.arange(n) % LABELS, minlength=LABELS)
        original, equivalent, texts = units(n, 0), units(n, 1), units(CONCEPTS, 2)[:CONCEPTS]
        return lambda: scan_block(original, equivalent, counts, texts)

    def bootstrap() -> Callable[[], object]:
        scores = np.random.default_rng(0).standard_normal((n, SCORES))
        strata = np.arange(n) % LABELS
        return lambda: bootstrap_means(scores, strata, RESAMPLES, 0)

    return {"scoring": scoring, "ridge": ridge, "scan": scan, "bootstrap": bootstrap}


def run_alone(flags: Flags) -> None:
    """Seconds of the kernel flags.alone, each of the repeats after one that does not count."""
    cli.limit_threads(1)
    run, seconds = kernels(flags.rows[0])[str(flags.alone)](), []
    for _ in range(flags.repeats + 1):
        started = time.process_time()
        run()
        seconds.append(time.process_time() - started)
    write_json(flags.output, {"seconds": seconds[1:]})


def grow(flags: Flags, folder: Path) -> pd.DataFrame:
    """One row a kernel and number of rows: seconds, and peak memory (MB)."""
    rows = []
    for kernel in kernels(1):
        for n in flags.rows:
            output = folder / "seconds.json"
            command = [sys.executable, __file__, "--alone", kernel, "--rows", str(n), str(n)]
            command += ["--repeats", str(flags.repeats), "--output", str(output)]
            peak, _ = measure(command)
            rows.append((kernel, n, float(np.median(read_json(output)["seconds"])), peak / 1e6))
    return pd.DataFrame(rows, columns=["kernel", "rows", "s", "MB"])


def judge(table: pd.DataFrame, tolerance: float) -> list[str]:
    """Complaints: kernels whose rows get slower, or whose memory grows beyond the scores."""
    wrong = []
    for kernel, mine in table.groupby("kernel", sort=False):
        per_row = (mine["s"] / mine["rows"]).to_numpy()
        longer = per_row[-1] / per_row[:-1].min() - 1
        if longer > tolerance:
            wrong.append(f"{kernel} takes {100 * longer:.0f} % longer a row at the largest size")
        grown = mine["MB"].iloc[-1] - mine["MB"].iloc[0]
        held = COPIES * 8 * SCORES * mine["rows"].iloc[-1] / 1e6 if kernel == "bootstrap" else 0.0
        if grown > SLACK_MB + held:
            wrong.append(f"{kernel} needs {grown:.0f} MB more at the largest size")
    return wrong


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
    if flags.alone:
        run_alone(flags)
        return
    with tempfile.TemporaryDirectory() as folder:
        table = grow(flags, Path(folder))
    table["us a row"] = 1e6 * table["s"] / table["rows"]
    print(table.to_string(index=False, float_format="{:.3g}".format))
    if flags.plot:
        draw(table, flags.plot)
    if wrong := judge(table, flags.tolerance):
        raise InputError("; ".join(wrong))
    print("time grows no faster than the rows, memory by no more than the table")


if __name__ == "__main__":
    cli.run_step(main, Flags)
