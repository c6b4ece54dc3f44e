"""Rates of towers on one device, as benchmarks/gpu.py measured them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from singflow.config.registry import ModelEntry, SpaceEntry
from singflow.errors import InputError
from singflow.planning.calibration import read_columns
from singflow.towers.parameters import Precision

if TYPE_CHECKING:
    import pandas as pd

RATES = Path("benchmarks/rates.csv")
READ = {  # what a plan reads of them
    "device": str,
    "on": str,  # CPU or GPU
    "tower": str,  # its id
    "source": str,  # its library
    "gmacs": float,  # 10^9 multiply-adds for a view
    "precision": str,
    "path": str,  # product, timm or dataloader
    "decode_threads": float,
    "images_per_s": float,  # empty: not measured, for the reason in `note`
}
KNOWN = {
    "on": ("CPU", "GPU"),
    "precision": get_args(Precision),
    "path": ("product", "timm", "dataloader"),
}
COLUMNS = (
    *("device", "tower", "source", "gmacs", "precision", "path", "batch", "decode_threads"),
    *("images_per_s", "busy", "torch", "on", "note"),
)


@dataclass(frozen=True)
class Rates:
    """The rates of this workflow on one device. measured: where, in words."""

    measured: str
    table: pd.DataFrame

    def of(self, entry: ModelEntry | SpaceEntry, gmacs: float, precision: Precision) -> float:
        """Views a second of a tower; NaN if nothing was measured at this precision.

        For a tower that was not measured: the median of the others' multiply-adds a second, over
        its own per view.
        """
        rows = self.table[self.table["precision"] == precision]
        named = (rows["source"] == entry.source) & (rows["tower"] == getattr(entry, "id", None))
        if named.any():
            return float(rows.loc[named, "images_per_s"].median())
        return float((rows["images_per_s"] * rows["gmacs"]).median() / gmacs)


def read_rates(path: Path, gpu: bool, threads: int) -> Rates | None:
    """The rates of a GPU, or of a CPU with so many threads; None if the file has none."""
    what = "a table of rates of benchmarks/gpu.py"
    table = read_columns(path, READ, what, keep_default_na=False, na_values={"images_per_s": ""})
    wrong = [
        f"{name} is {value!r}, not one of {', '.join(allowed)}"
        for name, allowed in KNOWN.items()
        for value in set(table[name]) - set(allowed)
    ]
    wrong += [
        f"{name} is {value!r}, not a positive number"
        for name in ("gmacs", "decode_threads", "images_per_s")
        for value in table[name].dropna()
        if not 0 < value < float("inf")
    ]
    if wrong:
        again = "remove the file, and measure again with `make bench-gpu`"
        raise InputError(f"{path}: {wrong[0]}: {again}")
    rows = table[
        (table["on"] == ("GPU" if gpu else "CPU"))
        & (table["path"] == "product")
        & table["images_per_s"].notna()
        & (gpu | (table["decode_threads"] == threads))
    ]
    if rows.empty:
        return None
    devices, decoders = (sorted(set(rows[name])) for name in ("device", "decode_threads"))
    if len(devices) > 1:
        raise InputError(f"{path}: rates of {' and '.join(devices)}: keep the rows of one device")
    counts = " or ".join(f"{count:g}" for count in decoders)
    return Rates(f"{path}, {devices[0]}, {counts} threads that decode", rows)
