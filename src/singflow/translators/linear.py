"""Linear translators in files: fitted by a study, or released and named by the study instead."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from singflow.artifacts.files import FIX, sha256_of
from singflow.artifacts.shards import shard_path
from singflow.artifacts.tensors import read_tensors
from singflow.config.sections import LOCAL
from singflow.errors import InputError
from singflow.translators.crossfit import WHOLE, CrossFitted, split
from singflow.translators.ridge import Affine

if TYPE_CHECKING:
    import pandas as pd


class Translator(Affine):
    """A linear translator T f + c: weight (m, d), bias (m,)."""

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read the translator in a file translators/<space>/<model>/linear.safetensors.

        Parameters
        ----------
        path : Path or str
            The file: weight (m, d) and bias (m,), float32.

        Returns
        -------
        Translator
            The translator in the file.

        Raises
        ------
        InputError
            When the file is damaged, or holds no linear translator.
        """
        path = Path(path)
        _, made = read_tensors(path, [])
        if made.get("kind") != "linear":
            raise InputError(
                f"{path}: holds no linear translator: name a linear.safetensors of translators/; "
                "networks.load_network reads those of the other kinds"
            )
        loaded = cls(**read_tensors(path, ["weight", "bias"])[0])
        weight, bias = loaded.weight.shape, loaded.bias.shape
        if bias != weight[:1]:
            raise InputError(f"{path}: weight {weight} and bias {bias} make no affine map: {FIX}")
        return loaded


def imported_path(space: str, model: str) -> Path:
    """checkpoints/translators/<space>/<model>.safetensors, relative to the working directory."""
    return Path(LOCAL) / "translators" / space / f"{model}.safetensors"


def read_imported(imported: list[str], space: str, model: str) -> Translator | None:
    """The translator that the study imports for a model and space; None if it imports none.

    imported: entries <space>/<model>:<hash>, the hash being the beginning of the file's SHA-256.
    """
    pins = dict(entry.rsplit(":", 1) for entry in imported)
    pin = pins.get(f"{space}/{model}")
    if pin is None:
        return None
    path = imported_path(space, model)
    if not path.is_file():
        raise InputError(
            f"{path}: no such file: make it with `singflow import_translator`, or take "
            f"{space}/{model} out of translator.imported"
        )
    here = sha256_of(path)
    if not here.startswith(pin):
        raise InputError(
            f"{path}: its SHA-256 is {here}, but translator.imported says {pin}: import "
            "it again, or correct the hash"
        )
    return Translator.load(path)


def check_imported_weights(space: str, model: str, features: Path, embeddings: Path) -> None:
    """Refuse an imported translator that was fitted for other weights, if its file names them.

    features, embeddings: folders of the study's shards, which have the hashes of the weights.
    """
    path = imported_path(space, model)
    made = read_tensors(path, [])[1]
    for key, name, shards in (
        ("weights_sha256", model, features),
        ("space_sha256", space, embeddings),
    ):
        here = read_tensors(shard_path(shards, 0), [])[1]["weights_sha256"]
        if made.get(key, here) != here:
            raise InputError(
                f"{path}: was fitted for weights {made[key][:12]} of {name}, but {shards} was made "
                f"with {here[:12]}: restore the former, import a translator of the latter, or take "
                f"{space}/{model} out of translator.imported"
            )


def read_crossfitted(path: Path | str, manifest: pd.DataFrame) -> CrossFitted:
    """Read a linear.safetensors: for each image, the translator that was not fitted on it.

    A file without folds gives the translator of all training images alone.
    """
    path = Path(path)
    whole = Translator.load(path)
    made = read_tensors(path, [])[1]
    folds = made.parsed("folds", int) if "folds" in made else 0
    map_index = fold = np.full(len(manifest), WHOLE, np.int32)
    maps: tuple[Affine, ...] = ()
    if folds:
        map_index = fold = split(manifest, folds).map_index
        tensors = read_tensors(path, ["fold_weight", "fold_bias"])[0]
        maps = tuple(map(Affine, *tensors.values()))
    if made.get("in_sample") == "true":
        fold = np.where(manifest["split"] == "train", manifest["fold"], WHOLE).astype(np.int32)
    shape = (whole.weight.shape, whole.bias.shape)
    if any((of_fold.weight.shape, of_fold.bias.shape) != shape for of_fold in maps):
        raise InputError(
            f"{path}: fold_weight and fold_bias are not of the shape of weight and bias: {FIX}"
        )
    if len(maps) <= map_index.max(initial=WHOLE):
        raise InputError(
            f"{path}: has translators of {len(maps)} folds, but the manifest has more: {FIX}"
        )
    return CrossFitted((*maps, whole), map_index, fold)


def with_held_out_figures(report: Mapping[str, Any]) -> dict[str, Any]:
    """The report linear.json with figures of the split validation instead of those of all folds.

    Nonlinear translators are validated on this split, too.
    """
    names = ["validation_cosine", "validation_mse", "validation_r2", "n_validation"]
    return {**report, **{name: report[name.replace("validation", "held_out")] for name in names}}


def quality_said(report: Mapping[str, Any]) -> str:
    """The quality of a translator in words, for the log of the step that made it."""
    cosine, baseline, r2 = (
        report[name] for name in ("validation_cosine", "baseline_cosine", "validation_r2")
    )
    return f"held-out cosine {cosine:.3f} (baseline {baseline:.3f}), R2 {r2:.3f}"
