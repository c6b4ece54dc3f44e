"""Linear translators in files: fitted by a study, or released and named by the study instead."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from singflow.artifacts.files import FIX, Facts, sha256_of
from singflow.artifacts.made import MODEL, SPACE, Made, differences
from singflow.artifacts.shards import shard_path
from singflow.artifacts.tensors import Tensors, read_tensors
from singflow.config.sections import LOCAL
from singflow.errors import InputError
from singflow.translators.crossfit import WHOLE, CrossFitted, split
from singflow.translators.ridge import Affine

if TYPE_CHECKING:
    import pandas as pd

FILE = "linear.safetensors"
FIGURES = (  # of the report that a translator's file and card have, too
    *("validation_r2", "validation_cosine", "baseline_cosine"),
    *("n_train", "n_validation", "lambda"),
)


def read_linear(path: Path) -> tuple[Tensors, Facts]:
    """The weight (m, d) and bias (m,) in a file of a linear translator, and its metadata."""
    _, made = read_tensors(path, [])
    if made.get("kind") != "linear":
        raise InputError(
            f"{path}: holds no linear translator: name a linear.safetensors of translators/; "
            "networks.load_network reads those of the other kinds"
        )
    tensors, _ = read_tensors(path, ["weight", "bias"])
    weight, bias = (tensor.shape for tensor in tensors.values())
    if bias != weight[:1]:
        raise InputError(f"{path}: weight {weight} and bias {bias} make no affine map: {FIX}")
    return tensors, made


def imported_path(space: str, model: str) -> Path:
    """checkpoints/translators/<space>/<model>.safetensors, relative to the working directory."""
    return Path(LOCAL) / "translators" / space / f"{model}.safetensors"


def read_imported(imported: list[str], space: str, model: str) -> Affine | None:
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
    return Affine(**read_linear(path)[0])


def check_made(path: Path, facts: Mapping[str, Any], model: Made, space: Made) -> None:
    """Refuse a translator for another model or space, as far as the facts of its file tell."""
    for key, name in _names(model, space).items():
        if facts.get(key, name) != name:
            raise InputError(
                f"{path}: was fitted for {facts[key]}, not for {name}: name the model and the "
                "space that it was fitted for, or another translator"
            )
    for keys, mine, kind in ((MODEL, model, "model"), (SPACE, space, "space")):
        if words := differences(Made.read(facts, keys), mine):
            raise InputError(
                f"{path}: was fitted for a {kind} with {words}: restore them, or name a translator "
                "of this model and space"
            )


def made_by(features: Path, embeddings: Path) -> tuple[Made, Made]:
    """What made the features and the embeddings in two folders of shards."""
    model, space = (read_tensors(shard_path(of, 0), [])[1] for of in (features, embeddings))
    return Made.read(model), Made.read(space)


def made_for(features: Path, embeddings: Path) -> dict[str, str]:
    """What a translator from these features into these embeddings is for, as its card says it."""
    model, space = made_by(features, embeddings)
    zero = read_tensors(shard_path(embeddings, 0), [])[1].get("classifier_sha256")
    facts = model.header() | space.header(SPACE) | _names(model, space)
    return facts | ({"classifier_sha256": zero} if zero else {})


def _names(model: Made, space: Made) -> dict[str, str]:
    """Names of a model (<source>/<id>) and of a space (open_clip's, or its definition)."""
    names = {}
    if model.tower:
        names["model_id"] = "{source}/{id}".format_map(json.loads(model.tower))
    if space.tower:
        tower = json.loads(space.tower)
        names["space_id"] = tower["id"] if tower["source"] == "open_clip" else space.tower
    return names


def read_crossfitted(path: Path | str, manifest: pd.DataFrame) -> CrossFitted:
    """Read a linear.safetensors: for each image, the translator that was not fitted on it.

    A file without folds gives the translator of all training images alone.
    """
    path = Path(path)
    tensors, made = read_linear(path)
    whole = Affine(**tensors)
    folds = made.parsed("folds", int) if "folds" in made else 0
    member_of = fold = np.full(len(manifest), WHOLE, np.int32)
    of_folds: tuple[Affine, ...] = ()
    if folds:
        member_of = fold = split(manifest, folds).member_of
        tensors = read_tensors(path, ["fold_weight", "fold_bias"])[0]
        of_folds = tuple(map(Affine, *tensors.values()))
    if made.get("in_sample") == "true":
        fold = np.where(manifest["split"] == "train", manifest["fold"], WHOLE).astype(np.int32)
    shape = (whole.weight.shape, whole.bias.shape)
    if any((of_fold.weight.shape, of_fold.bias.shape) != shape for of_fold in of_folds):
        raise InputError(
            f"{path}: fold_weight and fold_bias are not of the shape of weight and bias: {FIX}"
        )
    if len(of_folds) <= member_of.max(initial=WHOLE):
        raise InputError(
            f"{path}: has translators of {len(of_folds)} folds, but the manifest has more: {FIX}"
        )
    return CrossFitted((*of_folds, whole), member_of, fold)


def with_held_out_figures(report: Mapping[str, Any]) -> dict[str, Any]:
    """The report linear.json with the figures of the split validation, as networks have them."""
    held_out = ["cosine", "mse", "r2"]
    figures = {f"validation_{name}": report[f"held_out_{name}"] for name in held_out}
    figures |= {name: report[f"held_out_{name}"] for name in ("baseline_cosine", "n_train")}
    return {**report, **figures, "n_validation": report["n_held_out"]}


def quality_said(report: Mapping[str, Any]) -> str:
    """The quality of a translator in words, for the log of the step that made it."""
    cosine, baseline, r2 = (
        report[name] for name in ("validation_cosine", "baseline_cosine", "validation_r2")
    )
    return f"held-out cosine {cosine:.3f} (baseline {baseline:.3f}), R2 {r2:.3f}"
