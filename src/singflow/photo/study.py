"""A finished study, read for single images: its artifacts, its texts and its model."""

import difflib
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from singflow import cli
from singflow.data import head_classes, prompt_of
from singflow.errors import InputError
from singflow.image_analysis import Artifacts, Setting, stored_texts
from singflow.metrics import fold
from singflow.registry import read_model, read_space
from singflow.store import Facts, Tensors, iterate_row_groups, read_json, read_models, read_names, read_null_basis, read_tensors
from singflow.summary import NO_NULL_SPACE
from singflow.translator import Translator
from singflow.vocabulary import read_class_list

if TYPE_CHECKING:
    import torch

    from singflow.classifiers import Classifier
    from singflow.spaces import TextTower


def existing(path: Path) -> Path:
    """The path of an artifact. Raises InputError that says how to make it."""
    if not path.is_file():
        raise InputError(f"{path}: no such file: make it with `snakemake --cores all {path}`")
    return path


def registry_entry(results: Path, kind: str, name: str) -> Path:
    """The resolved entry of a model or space of the study. Raises InputError that names those it has, and the nearest."""
    folder = results / "registry" / f"{kind}s"
    known = sorted(path.relative_to(folder).as_posix().removesuffix(".json") for path in folder.rglob("*.json"))
    if not known:
        raise InputError(f"{folder}: holds no {kind}: run the study with `snakemake --cores all`, or name its folder with --results")
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
        """The tower that embedded the study's texts."""
        from singflow.classifiers import weights_sha256
        from singflow.spaces import load_text_tower

        started = time.perf_counter()
        tower = load_text_tower(read_space(self.entry), self.device)
        if weights_sha256(tower.module) != self.made["weights_sha256"]:
            raise InputError(
                f"{self.path}: was made with other weights of the text tower than are here now: remove it and run the study again"
            )
        cli.log.info("text tower loaded in %.1f s", time.perf_counter() - started)
        return tower

    def embed(self, texts: list[str]) -> np.ndarray:
        """Unit embeddings (n, m); each new text alone, so that it does not depend on the others."""
        for text in texts:
            if text not in self.stored:
                self.stored[text] = self.tower.embed([text])[0]
        return np.stack([self.stored[text] for text in texts])

    def of_class(self, index: int, class_names: list[str]) -> tuple[str, np.ndarray]:
        """What stands for a class of the head, and its embedding (m,): the label of the study that names the class, or its templates."""
        from singflow.spaces import embed_templates

        templates = self.made.parsed("label_templates", list)
        rows = np.flatnonzero(head_classes(pd.DataFrame({"label": self.labels}), class_names) == index)
        name = self.labels[rows[0]] if len(rows) else class_names[index]
        own = len(rows) and self.prompts[name] != prompt_of(name)
        text = templates[0].replace("{}", name) if len(templates) == 1 else f"{name} ({len(templates)} templates)"
        embedding = self.tensors["label_embeddings"][rows[0]] if len(rows) else embed_templates(self.embed, [name], templates, {})[0]
        return self.prompts[name] if own else text, embedding


def read_texts(results: Path, space: str, entry: Path, device: "torch.device") -> tuple[Texts, list[str]]:
    """The study's texts in a space, and its concepts."""
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
    """What the study knows of a model and a space, and the hash of the model's weights; embeddings: of the concepts."""
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
    folded = fold(translator.weight, basis)
    return Artifacts(setting, head, class_names, basis, translator, folded, concepts, embeddings, is_deg, as_deg), made["weights_sha256"]


def load_model(entry: Path, weights: str, head: Path, device: "torch.device") -> "Classifier":
    """The classifier whose head the study has. Raises InputError when its weights are others by now."""
    import torch

    from singflow.classifiers import load_classifier, weights_sha256

    classifier = load_classifier(read_model(entry))
    if weights_sha256(classifier.model) != weights:
        raise InputError(f"{head}: was made with other weights than the model has now: restore them, or run the study again")
    return classifier.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
