"""A finished study, read for single images: its artifacts, its texts and its model."""

import difflib
import time
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from singflow import cli
from singflow.analyses.metrics import share
from singflow.analyses.summary import NO_NULL_SPACE
from singflow.artifacts.files import Facts, read_json, read_names
from singflow.artifacts.shards import iterate_whole, read_manifest
from singflow.artifacts.tables import iterate_row_groups, read_models
from singflow.artifacts.tensors import Tensors, read_null_basis, read_tensors
from singflow.config.reading import read_yaml
from singflow.config.registry import read_model, read_space
from singflow.data.images import read_unchanged
from singflow.data.manifest import data_root, fill, head_classes, prompt_of
from singflow.data.vocabulary import read_class_list
from singflow.errors import InputError
from singflow.photo.analysis import Artifacts, Neighbour, Setting, stored_texts
from singflow.pictures.neighbours import contents, nearest
from singflow.translators.linear import Translator

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from singflow.towers.classifiers import Classifier
    from singflow.towers.spaces import TextTower


def existing(path: Path) -> Path:
    """The path of an artifact.

    Parameters
    ----------
    path : Path
        Where it should be.

    Returns
    -------
    Path
        The same path.

    Raises
    ------
    InputError
        When it is not there; the message says how to make it.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file: make it with `snakemake --cores all {path}`")
    return path


def registry_entry(results: Path, kind: str, name: str) -> Path:
    """The resolved entry of a model or space of the study.

    Parameters
    ----------
    results : Path
        Folder of the study.
    kind : str
        `model` or `space`.
    name : str
        Its name in the study.

    Returns
    -------
    Path
        Its JSON file.

    Raises
    ------
    InputError
        When the study has none, or none of this name; the message names those it has, and the nearest.
    """
    folder = results / "registry" / f"{kind}s"
    known = sorted(path.relative_to(folder).as_posix().removesuffix(".json") for path in folder.rglob("*.json"))
    if not known:
        raise InputError(f"{folder}: holds no {kind}: run the study with `singflow run`, or name its folder with --results")
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        guess = f"; did you mean {near[0]!r}?" if near else ""
        raise InputError(f"--{kind} {name!r}: the study in {results} has {', '.join(known)}{guess}")
    return folder / f"{name}.json"


@dataclass
class Texts:
    """Embeddings of texts: those that the study has, and those of the space's text tower, loaded for the first that it lacks.

    labels: the study's; tensors: of prompts/<space>.safetensors, whose metadata is `made`; prompts: the labels' texts in the manifest.
    """

    path: Path
    entry: Path
    labels: list[str]
    tensors: Tensors
    made: Facts
    prompts: dict[str, str]
    stored: dict[str, np.ndarray]
    device: "torch.device"

    @cached_property
    def tower(self) -> "TextTower":
        """The tower that embedded the study's texts.

        Raises
        ------
        InputError
            When its weights are other ones now than those that the study's embeddings were made with.
        """
        from singflow.towers.classifiers import weights_sha256
        from singflow.towers.spaces import load_text_tower

        started = time.perf_counter()
        tower = load_text_tower(read_space(self.entry), self.device)
        if weights_sha256(tower.module) != self.made["weights_sha256"]:
            raise InputError(
                f"{self.path}: was made with other weights of the text tower than are here now: remove it and run the study again"
            )
        cli.log.info("text tower loaded in %.1f s", time.perf_counter() - started)
        return tower

    def embed(self, texts: list[str]) -> np.ndarray:
        """Unit embeddings; each new text alone, so that it does not depend on the others.

        Parameters
        ----------
        texts : list of str
            At least one.

        Returns
        -------
        ndarray of shape (n, m)
            In the order of the texts.
        """
        for text in texts:
            if text not in self.stored:
                self.stored[text] = self.tower.embed([text])[0]
        return np.stack([self.stored[text] for text in texts])

    def of_class(self, index: int, class_names: list[str]) -> tuple[str, np.ndarray]:
        """What stands for a class of the head: the label of the study that names the class, or its templates.

        Parameters
        ----------
        index : int
            Row of the head.
        class_names : list of str
            The head's classes, in the order of its rows.

        Returns
        -------
        text : str
            What the class is called: its text, or its name and the number of templates.
        embedding : ndarray of shape (m,)
            Its embedding.
        """
        from singflow.towers.spaces import embed_templates

        templates = self.made.parsed("label_templates", list)
        rows = np.flatnonzero(head_classes(pd.DataFrame({"label": self.labels}), class_names) == index)
        name = self.labels[rows[0]] if len(rows) else class_names[index]
        own = len(rows) and self.prompts[name] != prompt_of(name)
        text = fill(templates[0], name) if len(templates) == 1 else f"{name} ({len(templates)} templates)"
        embedding = self.tensors["label_embeddings"][rows[0]] if len(rows) else embed_templates(self.embed, [name], templates, {})[0]
        return self.prompts[name] if own else text, embedding


@dataclass
class Photos:
    """The study's photos: their embeddings in a space, and their files, which need not be here.

    folder: of the embeddings' shards, of which there are so many; root: what the manifest's paths are relative to.
    """

    manifest: pd.DataFrame
    folder: Path
    shards: int
    root: Path

    def nearest(self, sha256: str, points: np.ndarray) -> list[Neighbour]:
        """The photo nearest to each point, exactly; none of the content asked about.

        Parameters
        ----------
        sha256 : str
            Hash of the file that the points come from.
        points : ndarray of shape (n, m)
            Translated features.

        Returns
        -------
        list of Neighbour
            One each; empty where the embeddings are not here, or there is no other photo.
        """
        if not self.folder.is_dir():
            return []
        content = contents(self.manifest["sha256"])
        same = np.flatnonzero(self.manifest["sha256"] == sha256)
        own = np.full(len(points), same[0] if len(same) else -1)
        gallery = partial(iterate_whole, self.folder, "embeddings", self.shards, self.manifest)
        found = nearest(points, own, gallery, content, 1)
        pairs = zip(found.image_id[:, 0].tolist(), found.angle_deg[:, 0].tolist(), strict=True)
        return [Neighbour(number, self.manifest["path"][number], angle) for number, angle in pairs if number >= 0]

    def picture(self, photo: Neighbour, max_pixels: int) -> "Image.Image | None":
        """A photo of the study.

        Parameters
        ----------
        photo : Neighbour
            Which one.
        max_pixels : int
            Pixels; a larger one is not read.

        Returns
        -------
        PIL.Image.Image or None
            None where its file is not here, or is another by now.
        """
        try:
            return read_unchanged(self.root, photo.path, self.manifest["sha256"][photo.image_id], max_pixels)
        except InputError:
            return None


def read_photos(results: Path, space: str) -> Photos:
    """The study's photos.

    Parameters
    ----------
    results : Path
        Folder of the study.
    space : str
        Name of the space.

    Returns
    -------
    Photos
        Whose embeddings and files need not be here.
    """
    params = read_yaml(existing(results / "params.yaml"))
    data = params["data"]
    root = Path(data["root"]) if data["source"] != "packaged" else data_root("packaged", "")
    manifest = read_manifest(existing(results / "data/manifest.parquet"))
    return Photos(manifest, results / "embeddings" / space, params["extraction"]["shards"], root)


def read_texts(results: Path, space: str, entry: Path, device: "torch.device") -> tuple[Texts, list[str]]:
    """The study's texts in a space, and its concepts.

    Parameters
    ----------
    results : Path
        Folder of the study.
    space : str
        Name of the space.
    entry : Path
        The space's resolved registry entry.
    device : torch.device
        Where the text tower runs, if it is needed.

    Returns
    -------
    texts : Texts
        Embeddings of the study's texts.
    concepts : list of str
        In the order of their embeddings.

    Raises
    ------
    InputError
        When the embeddings are of other texts than the names and the manifest.
    """
    path = existing(results / f"prompts/{space}.safetensors")
    names = read_names(existing(results / f"prompts/{space}.json"))
    kinds = [f"{kind[:-1]}_embeddings" for kind, each in names.items() if each]
    tensors, made = read_tensors(path, kinds)
    manifest = pd.concat(iterate_row_groups(existing(results / "data/manifest.parquet"), ["label", "prompt"], ["label", "prompt"]))
    prompts = dict(manifest.astype(str).drop_duplicates("label").itertuples(index=False, name=None))
    if prompts.keys() != set(names["labels"]) or any(len(tensors[kind]) != len(names[f"{kind.split('_')[0]}s"]) for kind in kinds):
        raise InputError(f"{path}: holds other texts than its names and the manifest: remove it and run the workflow again")
    templates = [made.parsed(f"{kind}_templates", list) for kind in ("label", "concept")]
    stored = stored_texts(names, tensors, templates[0], templates[1], prompts)
    return Texts(path, entry, names["labels"], tensors, made, prompts, stored, device), names["concepts"]


def read_artifacts(
    results: Path, model: str, space: str, classes: Path, concepts: list[str], embeddings: np.ndarray
) -> tuple[Artifacts, str]:
    """What the study knows of a model and a space.

    Parameters
    ----------
    results : Path
        Folder of the study.
    model, space : str
        Their names.
    classes : Path
        Class list of a head that does not name its classes itself.
    concepts : list of str
        The study's concepts.
    embeddings : ndarray of shape (P, m)
        Embeddings of the concepts.

    Returns
    -------
    artifacts : Artifacts
        The model and the space.
    weights_sha256 : str
        Hash of the model's weights.

    Raises
    ------
    InputError
        When class list and head, or the widths of the artifacts, do not agree, or when tables/models.csv lacks the pair.
    """
    head_path = existing(results / f"features/{model}/head.safetensors")
    head, made = read_tensors(head_path, ["weight", "bias"])
    class_names = made.parsed("class_names", list | None) or read_class_list(classes)
    if len(class_names) != len(head["weight"]):
        raise InputError(
            f"{classes}: holds {len(class_names)} classes, but {head_path} has {len(head['weight'])}: name the study's with --classes"
        )
    basis_path = existing(results / f"projectors/{model}.safetensors")
    basis = read_null_basis(basis_path)
    rule = read_json(existing(basis_path.with_name(f"{basis_path.stem}.json"))).of_kind("rule", str)
    folder = results / f"translators/{space}/{model}"
    translator = Translator.load(existing(folder / "linear.safetensors"))
    if not translator.weight.shape[1] == len(basis) == head["weight"].shape[1] or len(translator.weight) != embeddings.shape[1]:
        raise InputError(f"{head_path}, {basis_path}, {folder} and the prompts of {space} differ in width: run the study again")
    table = existing(results / "tables/models.csv")
    models = read_models(table, ["translator"]).set_index(["space", "model"])["translator"]
    if (space, model) not in models:
        raise InputError(f"{table}: has no row for {space} and {model}: remove it and run the workflow again")
    columns = ["is_deg", "as_deg"]
    scores = pd.concat(iterate_row_groups(existing(results / f"scores/{space}/{model}.parquet"), [], columns))
    null_dim = basis.shape[1]
    setting = Setting(
        study=made["study"],
        model=model,
        space=space,
        rank_rule=rule,
        null_dim=null_dim,
        validation_r2=read_json(existing(folder / "linear.json")).of_kind("validation_r2", int | float),
        translator=str(models[space, model]),
        n_images=len(scores),
        note="" if null_dim else NO_NULL_SPACE,
    )
    is_deg, as_deg = (scores[column].to_numpy() for column in columns)
    removed = share(translator, basis)
    return Artifacts(setting, head, class_names, basis, translator, removed, concepts, embeddings, is_deg, as_deg), made["weights_sha256"]


def load_model(entry: Path, weights: str, head: Path, device: "torch.device") -> "Classifier":
    """The classifier whose head the study has.

    Parameters
    ----------
    entry : Path
        The model's resolved registry entry.
    weights : str
        SHA-256 of the weights that the study was made with.
    head : Path
        The head's file, for the message.
    device : torch.device
        Where the classifier runs.

    Returns
    -------
    Classifier
        On the device, in channels-last memory format.

    Raises
    ------
    InputError
        When its weights are others by now.
    """
    import torch

    from singflow.towers.classifiers import load_classifier, weights_sha256

    classifier = load_classifier(read_model(entry))
    if weights_sha256(classifier.model) != weights:
        raise InputError(f"{head}: was made with other weights than the model has now: restore them, or run the study again")
    return classifier.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
