"""Manifests that tests make."""

import pandas as pd

from singflow.artifacts.catalog import TABLE_COLUMNS
from singflow.data.manifest import build_manifest, read_classes
from singflow.data.parameters import Data
from tests.project import ROOT

CLASSES_FILE = ROOT / "config/vocab/imagenet_1k.csv"
CLASSES = read_classes(CLASSES_FILE)


def whole(frame: pd.DataFrame) -> pd.DataFrame:
    """A manifest with the columns of the frame, and the others filled in."""
    filled = {"i": range(len(frame)), "O": [f"text {row}" for row in range(len(frame))]}
    columns = TABLE_COLUMNS["manifest"].items()
    return frame.assign(**{name: filled[kind] for name, kind in columns if name not in frame})


def build(root, found, rejected=(), *, folds=5, seed=0, threads=2, referenced=False, **options):
    """Build a manifest of small images. `options`: keys of `data` in params.yaml."""
    data = Data(**{"max_pixels": 10**6, "max_rejected_fraction": 1.0} | options)
    flags = {"folds": folds, "seed": seed, "threads": threads, "referenced": referenced}
    return build_manifest(root, found, list(rejected), data, **flags)
