"""What benchmarks share: figures beside their marks, races, made-up numbers, photos, and paths."""

import hashlib
import multiprocessing
import re
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from singflow import cli
from singflow.data.manifest import data_root
from singflow.errors import InputError

ROOT = Path(__file__).resolve().parents[1]


def size(default: int | None, least: int, about: str) -> Any:
    """A flag that is a number of something."""
    return Field(default, ge=least, description=about)


@dataclass(frozen=True)
class Mark:
    """A figure, and the value that it must reach, or not exceed."""

    figure: str
    value: float
    sense: Literal[">=", "<="]
    mark: float


def tell(marks: list[Mark]) -> None:
    """Print figures beside their marks, and name those that are missed."""
    table = pd.DataFrame(marks)
    under = table["value"] <= table["mark"]
    table["reached"] = np.where(table["sense"] == "<=", under, table["value"] >= table["mark"])
    show(table)
    missed = "; ".join(table["figure"][~table["reached"]])
    print(f"MISSED: {missed}" if missed else "every mark is reached")


def show(table: pd.DataFrame) -> None:
    """Print a table."""
    print(table.to_string(index=False, float_format="{:.3g}".format, na_rep="-"))


def seconds(run: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def race(contestants: Mapping[str, Callable[[], object]], repeats: int) -> pd.DataFrame:
    """Seconds of contestants that take turns: a column each, and a row a round."""
    turns = [{name: seconds(run) for name, run in contestants.items()} for _ in range(repeats)]
    return pd.DataFrame(turns)


def alone(threads: int, function: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """What a function returns in a process of its own, and the peak memory (GB) of that."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_with_peak, threads, function, *arguments).result()


def _with_peak(threads: int, function: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    cli.limit_threads(threads)
    found = function(*arguments)
    status = Path("/proc/self/status").read_text(encoding="utf-8")  # getrusage counts the parent
    return found, 1024 * int(re.findall(r"^VmHWM:\s+(\d+) kB", status, re.M)[0]) / 1e9


def normal(*shape: int) -> np.ndarray:
    """Made-up numbers in float32, the same for a shape."""
    return np.random.default_rng(shape).standard_normal(shape, dtype=np.float32)


def photos(folder: Path | None, count: int) -> tuple[Path, pd.DataFrame]:
    """Data root, and `count` rows of a manifest: photos of a folder (None: packaged), repeated."""
    if folder:
        names = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    else:
        names = list(pd.read_csv(ROOT / "config/vocab/packaged.csv")["path"])
    if not names:
        raise InputError(f"{folder}: holds no images: name another folder")
    root = folder or data_root("packaged", ".")
    hashes = [hashlib.sha256((root / name).read_bytes()).hexdigest() for name in names]
    rows = pd.DataFrame({"path": names, "sha256": hashes})
    again = rows.iloc[np.arange(count) % len(rows)].reset_index(drop=True)
    return root, again.assign(image_id=again.index)


def loader(root: Path, rows: pd.DataFrame, transform: Any, batch: int, **options: Any) -> Any:
    """A DataLoader over photos, as a user of PyTorch writes it."""
    import torch
    from PIL import Image

    def load(paths: list[str]) -> torch.Tensor:
        return torch.stack([transform(Image.open(root / path).convert("RGB")) for path in paths])

    options |= {"collate_fn": load, "multiprocessing_context": "fork"}
    return torch.utils.data.DataLoader(list(rows["path"]), batch, **options)  # type: ignore


def product(root: Path, rows: pd.DataFrame, tower: Any, preprocess: Any, **how: Any) -> np.ndarray:
    """What a tower gives for photos by the path of this workflow."""
    from singflow.towers.extraction import run_views
    from singflow.towers.views import Views

    views = Views(preprocess, 1, 0, (0.3, 1.0))
    how |= {"max_pixels": 10**9, "progress": lambda items, total: items}
    return run_views(rows, root, views, tower, **how)[0]
