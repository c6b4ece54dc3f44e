"""Linear translators in files: those a study has fitted, and released ones that it names in their place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from singflow.artifacts.files import sha256_of
from singflow.artifacts.tensors import read_tensors
from singflow.config.sections import LOCAL
from singflow.errors import InputError
from singflow.translators.crossfit import WHOLE, CrossFitted, split
from singflow.translators.ridge import Affine

if TYPE_CHECKING:
    import pandas as pd


class Translator(Affine):
    """A linear translator: weight (m, d), bias (m,)."""

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
            The translator of the file.

        Raises
        ------
        InputError
            For any other file, and for one that is damaged.
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
            raise InputError(
                f"{path}: weight {weight} and bias {bias} make no affine map: remove it and run the workflow again"
            )
        return loaded


def imported_path(space: str, model: str) -> Path:
    """Where an imported translator lies.

    Parameters
    ----------
    space, model : str
        Their names in the study.

    Returns
    -------
    Path
        checkpoints/translators/<space>/<model>.safetensors, relative to the working directory.
    """
    return Path(LOCAL) / "translators" / space / f"{model}.safetensors"


def read_imported(imported: list[str], space: str, model: str) -> Translator | None:
    """The translator that the study names for a model and space.

    Parameters
    ----------
    imported : list of str
        translator.imported of the study: <space>/<model>:<hash>, where the hash is the beginning of the file's SHA-256.
    space, model : str
        Their names in the study.

    Returns
    -------
    Translator or None
        None when the study names none for them.

    Raises
    ------
    InputError
        When the file is not there, has another hash, or holds no linear translator.
    """
    pins = dict(each.rsplit(":", 1) for each in imported)
    pin = pins.get(f"{space}/{model}")
    if pin is None:
        return None
    path = imported_path(space, model)
    if not path.is_file():
        raise InputError(
            f"{path}: no such file: make it with `singflow import_translator`, or take {space}/{model} out of translator.imported"
        )
    if not sha256_of(path).startswith(pin):
        raise InputError(
            f"{path}: its SHA-256 is {sha256_of(path)}, but translator.imported says {pin}: import it again, or correct the hash"
        )
    return Translator.load(path)


def check_weights(space: str, model: str, features: Path, embeddings: Path) -> None:
    """Refuse an imported translator of other weights than features and embeddings were made with; a file may not say of which it is.

    Parameters
    ----------
    space, model : str
        Their names in the study.
    features, embeddings : Path
        Folders of shards, whose headers have the hashes of the weights.

    Raises
    ------
    InputError
        When the classifier's weights or the image tower's are others.
    """
    from singflow.artifacts.shards import shard_path

    path = imported_path(space, model)
    made = read_tensors(path, [])[1]
    for key, name, shards in (
        ("weights_sha256", model, features),
        ("space_sha256", space, embeddings),
    ):
        here = read_tensors(shard_path(shards, 0), [])[1]["weights_sha256"]
        if made.get(key, here) != here:
            raise InputError(
                f"{path}: was fitted for weights {made[key][:12]} of {name}, but {shards} was made with {here[:12]}: restore the former, "
                f"import a translator of the latter, or take {space}/{model} out of translator.imported"
            )


def read_crossfitted(path: Path | str, manifest: pd.DataFrame) -> CrossFitted:
    """The translators of a file, of which each image of a study has the one that did not see it.

    Parameters
    ----------
    path : Path or str
        A file translators/<space>/<model>/linear.safetensors.
    manifest : DataFrame
        The study's images.

    Returns
    -------
    CrossFitted
        The translators of the folds, if the file has any, and that of all training images.

    Raises
    ------
    InputError
        As Translator.load() does, and when the folds of the file are not those of the manifest.
    """
    path = Path(path)
    whole = Translator.load(path)
    made = read_tensors(path, [])[1]
    folds = made.parsed("folds", int) if "folds" in made else 0
    place = fold = (
        split(manifest, folds).place if folds else np.full(len(manifest), WHOLE, np.int32)
    )
    if made.get("in_sample") == "true":
        fold = np.where(manifest["split"] == "train", manifest["fold"], WHOLE).astype(np.int32)
    tensors = read_tensors(path, ["fold_weight", "fold_bias"])[0] if folds else {}
    maps = tuple(map(Affine, *tensors.values())) if folds else ()
    if any(
        each.weight.shape != whole.weight.shape or each.bias.shape != whole.bias.shape
        for each in maps
    ):
        raise InputError(
            f"{path}: fold_weight and fold_bias are not of the shape of weight and bias: remove it and run the workflow again"
        )
    if len(maps) <= place.max(initial=WHOLE):
        raise InputError(
            f"{path}: has translators of {len(maps)} folds, but the manifest has more: remove it and run the workflow again"
        )
    return CrossFitted((*maps, whole), place, fold)


def judged_as_networks_are(report: Mapping[str, Any]) -> dict[str, Any]:
    """The report of a linear translator with its figures on the held-out images in place of those of all folds.

    Parameters
    ----------
    report : Mapping
        translators/<space>/<model>/linear.json.

    Returns
    -------
    dict
        The report, with validation_cosine, validation_mse, validation_r2 and n_validation of the split validation.
    """
    names = ["validation_cosine", "validation_mse", "validation_r2", "n_validation"]
    return {**report, **{name: report[name.replace("validation", "held_out")] for name in names}}
