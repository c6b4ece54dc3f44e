"""Linear translators in files: fitted by a study, or released and named by the study instead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from singflow.artifacts.files import FIX, Facts, sha256_of
from singflow.artifacts.shards import shard_path
from singflow.artifacts.tensors import Tensors, read_tensors
from singflow.config.sections import LOCAL
from singflow.errors import InputError
from singflow.extras import explained
from singflow.translators.cards import FILE, save
from singflow.translators.crossfit import WHOLE, CrossFitted, split
from singflow.translators.ridge import Affine

if TYPE_CHECKING:
    import pandas as pd

FIGURES = (  # of the report that a translator's file and card have, too
    *("validation_r2", "validation_cosine", "baseline_cosine"),
    *("n_train", "n_validation", "lambda"),
)


def read_linear(path: Path) -> tuple[Tensors, Facts]:
    """The weight (m, d) and bias (m,) in a file of a linear translator, and its metadata.

    Steps read with this, so that code that only Translator reaches makes nothing stale.
    """
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


@dataclass(frozen=True)
class Translator(Affine):
    """A linear translator T f + c: weight (m, d), bias (m,), and facts about it.

    Parameters
    ----------
    weight, bias : ndarray
        The map: (m, d) and (m,).
    facts : mapping
        What is known about the translator, for its file and its card. The card reads `model`,
        `model_id` (<source>/<id>) and `weights_sha256` of the classifier; `space`, `space_id`,
        `space_sha256`, and `classifier_sha256` of a space that a classifier's logits make;
        `fitted_on` (a text), `n_train` (rows), `lambda` (the relative penalty); `validation_r2`,
        `validation_cosine`, `baseline_cosine` and `n_validation`, of rows that the fit had not
        seen. A study's file has them all. In a file, all facts are texts.
    """

    facts: Mapping[str, Any] = field(default_factory=dict)

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
            The translator in the file, with the metadata of the file as its facts.

        Raises
        ------
        InputError
            When the file is damaged, or holds no linear translator.
        """
        if Path(path).is_dir():
            raise InputError(
                f"{path}: is a folder: name its {FILE}, or use Translator.from_pretrained"
            )
        tensors, made = read_linear(Path(path))
        return cls(**tensors, facts=dict(made))

    @classmethod
    def from_pretrained(
        cls,
        repo_or_folder: Path | str,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: Path | str | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
    ) -> Self:
        """Read the translator in a folder, or in a repository of the Hugging Face Hub.

        A folder needs neither the network nor huggingface_hub.

        Parameters
        ----------
        repo_or_folder : Path or str
            A folder with a linear.safetensors, or else a repository: <owner>/<name>.
        revision : str, optional
            A branch, tag or commit of the repository; by default its main branch.
        token, cache_dir, force_download, local_files_only
            As in `huggingface_hub.hf_hub_download`.

        Returns
        -------
        Translator
            The translator, with the metadata of its file as its facts.

        Raises
        ------
        InputError
            When there is no such folder, repository, revision or file, when the hub does not
            answer, or when the file holds no linear translator.
        """
        folder = Path(repo_or_folder)
        if not folder.is_dir():
            with explained():
                from singflow.translators.hub import fetch

            path = fetch(
                str(repo_or_folder),
                revision,
                token=token,
                cache_dir=cache_dir,
                force_download=force_download,
                local_files_only=local_files_only,
            )
            try:
                return cls.load(path)
            except InputError as error:
                reason = str(error).removesuffix(f": {FIX}")
                raise InputError(
                    f"{repo_or_folder}: {reason}: name another revision, or tell the owner"
                ) from None
        if revision is not None:
            raise InputError(
                f"{folder}: is a folder, which has no revision {revision!r}: leave revision out, "
                "or name a repository"
            )
        if not (folder / FILE).is_file():
            raise InputError(
                f"{folder}: holds no {FILE}: name a folder that a study or save_pretrained wrote"
            )
        return cls.load(folder / FILE)

    def save_pretrained(self, folder: Path | str) -> None:
        """Write linear.safetensors, in float32, and its model card README.md into a folder.

        The file has the facts as metadata, without those of a study's folds (`folds`, `in_sample`,
        `reference`). The card says which facts are not stated. A translator and its card that are
        in the folder are replaced.

        Parameters
        ----------
        folder : Path or str
            The folder, which is made if it is not there.

        Raises
        ------
        InputError
            When the arrays make no affine map or are not finite in float32, when a fact is neither
            text nor JSON, or when the folder has a README.md that is no card of a translator, or
            the files of a study.
        """
        save(self, self.facts, Path(folder), "<this repository or folder>")

    def push_to_hub(
        self,
        repo_id: str,
        *,
        branch: str | None = None,
        token: str | None = None,
        private: bool | None = None,
        commit_message: str = "Add a translator",
    ) -> str:
        """Write the files of `save_pretrained` into a repository of the Hugging Face Hub.

        The repository is made if it is not there. Both files are one commit.

        Parameters
        ----------
        repo_id : str
            The repository: <owner>/<name>.
        branch : str, optional
            A branch of the repository; by default main.
        token, private, commit_message
            As in `create_repo` and `upload_folder` of `huggingface_hub.HfApi`.

        Returns
        -------
        str
            The address of the commit.

        Raises
        ------
        InputError
            As `save_pretrained`; also when the hub does not answer, or refuses.
        """
        with explained():
            from singflow.translators.hub import push_folder

        with TemporaryDirectory() as temporary:
            save(self, self.facts, Path(temporary), repo_id)
            return push_folder(
                temporary,
                repo_id,
                branch=branch,
                token=token,
                private=private,
                commit_message=commit_message,
            )


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


def made_for(features: Path, embeddings: Path) -> dict[str, str]:
    """What a translator from these features into these embeddings is for, as its card says it."""
    model, space = (read_tensors(shard_path(of, 0), [])[1] for of in (features, embeddings))
    facts = {
        "weights_sha256": model.get("weights_sha256"),
        "space_sha256": space.get("weights_sha256"),
        "classifier_sha256": space.get("classifier_sha256"),
        "precision": space.get("precision"),  # of the towers
    }
    if "tower" in model:
        facts["model_id"] = "{source}/{id}".format_map(model.parsed("tower", dict))
    if "tower" in space:
        tower = space.parsed("tower", dict)
        facts["space_id"] = tower["id"] if tower["source"] == "open_clip" else space["tower"]
    return {key: fact for key, fact in facts.items() if fact is not None}


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
