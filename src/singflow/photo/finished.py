"""A finished study as the source of a model, a space and a translator."""

import difflib
import hashlib
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pandas as pd

from singflow.analyses.evidence import EvidenceSettings, OwnWords
from singflow.analyses.findings import OPEN, findings, hidden_texts
from singflow.analyses.fits import Fits, fit
from singflow.analyses.floor import Refitting, SplitHead
from singflow.analyses.inputs import Inputs
from singflow.artifacts.catalog import CATALOG, Analysis
from singflow.artifacts.files import FIX, read_json, sha256_of
from singflow.artifacts.made import Made, differences
from singflow.artifacts.tables import read_models, read_parquet
from singflow.artifacts.tensors import Tensors, read_tensors
from singflow.cli import log
from singflow.config.reading import read_section, read_yaml
from singflow.config.registry import SpaceEntry, read_model, read_space
from singflow.config.sections import at_hand
from singflow.data.manifest import head_classes
from singflow.data.parameters import Data
from singflow.data.vocabulary import read_class_list
from singflow.errors import InputError
from singflow.photo.analysis import OF_D, Loaded, Setting
from singflow.photo.cached import cached
from singflow.towers.live import Classifier, load_entry
from singflow.towers.parameters import Extraction
from singflow.towers.texts import Texts, stored_texts
from singflow.translators.linear import read_linear
from singflow.translators.parameters import Translation
from singflow.translators.reference import reference_folder
from singflow.translators.ridge import Affine

if TYPE_CHECKING:
    import torch

# Artifacts of a model in a space that a photo cannot be analyzed without.
NEEDED = (
    *("params", "manifest", "head", "projector", "projector_report", "translator", "names"),
    *("translator_report", "texts", "tables/models.csv"),
)
TEXTS = {  # of a study, that a photo is compared with
    "labels": "label_embeddings",
    "concepts": "concept_embeddings",
    "targets": "target_embeddings",
}
# Columns of tables/models.csv, most of which the sentence of the verdict needs.
VERDICT = ["translator", "verdict", "turn_deg", *OF_D, "blind_unique_r2", "margin", "detectable"]


def require_file(path: Path) -> Path:
    """The same path; InputError, with the command that makes the file, if it does not exist."""
    if not path.is_file():
        raise InputError(f"{path}: no such file: make it with `snakemake --cores all {path}`")
    return path


def asked(results: Path) -> list[str]:
    """What a study measured beyond the verdict: everything, if it is older than the key."""
    path = CATALOG["params"].at(results)
    analyses = read_yaml(path).get("analyses", list(get_args(Analysis)))
    if not isinstance(analyses, list):
        raise InputError(f"{path}: analyses: {analyses!r} is no list: {FIX}")
    return analyses


def registry_entry(results: Path, kind: str, name: str) -> Path:
    """The file of the resolved entry of a model or space; `kind` is `model` or `space`."""
    entries = CATALOG[f"{kind}_entry"]
    known = sorted(names[kind] for _, names in entries.among(results))
    if not known:
        raise InputError(
            f"{entries.at(results, **{kind: ''}).parent}: holds no {kind}: run the study with "
            "`singflow run`, or name its folder with --results"
        )
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        guess = f"; did you mean {near[0]!r}?" if near else ""
        raise InputError(f"--{kind} {name!r}: the study in {results} has {', '.join(known)}{guess}")
    return entries.at(results, **{kind: name})


def read_texts(
    inputs: Inputs, entry: SpaceEntry, device: "torch.device", class_names: list[str]
) -> tuple[Texts, list[str], np.ndarray]:
    """The study's texts in a space, and its P concepts with their embeddings (P, m)."""
    inputs = replace(inputs, columns=("prompt",))
    for artifact in ("texts", "names", "manifest"):
        require_file(inputs.path(artifact))
    path, names = inputs.path("texts"), inputs.names
    kinds = {kind: tensor for kind, tensor in TEXTS.items() if names[kind]}
    tensors, made = read_tensors(path, list(kinds.values()))
    rows = inputs.manifest.drop_duplicates("label")
    prompts = dict(zip(rows["label"], rows["prompt"], strict=True))
    if prompts.keys() != set(names["labels"]) or any(
        len(tensors[tensor]) != len(names[kind]) for kind, tensor in kinds.items()
    ):
        raise InputError(
            f"{path}: holds other texts than its names and the manifest: remove it and run the "
            "workflow again"
        )
    templates, of_concepts = (
        made.parsed(f"{kind}_templates", list) for kind in ("label", "concept")
    )
    stored, own = stored_texts(names, tensors, templates, of_concepts, prompts)
    head_rows = head_classes(pd.DataFrame({"label": names["labels"]}), class_names).tolist()
    of_labels = zip(head_rows, own, tensors["label_embeddings"], strict=True)
    labels = {row: (text, embedding) for row, text, embedding in of_labels if row >= 0}
    texts = Texts(entry, device, templates, stored, labels, (path, made["weights_sha256"]))
    none = np.empty((0, entry.dim), np.float32)
    return texts, names["concepts"], tensors.get("concept_embeddings", none)


def class_names(inputs: Inputs, classes: Path | None) -> list[str]:
    """Names of the head's classes: the head's own, or those of a list, by default the study's."""
    if classes is None:
        classes = at_hand(Path(read_section(inputs.path("params"), "data", Data).classes))
    names = inputs.head_facts.parsed("class_names", list | None) or read_class_list(classes)
    if len(names) != len(inputs.head["weight"]):
        raise InputError(
            f"{classes}: holds {len(names)} classes, but {inputs.path('head')} has "
            f"{len(inputs.head['weight'])}: name the study's with --classes"
        )
    return names


def read_stored(inputs: Inputs, classifier: Classifier, device: "torch.device") -> Loaded:
    """What a study's files hold for a model and a space, without its images."""
    space, basis = inputs.space, inputs.null_basis
    translator = Affine(**read_linear(inputs.path("translator"))[0])
    entry = read_space(registry_entry(inputs.results, "space", space))
    texts, concepts, embeddings = read_texts(inputs, entry, device, classifier.class_names)
    widths = {len(basis), translator.weight.shape[1], inputs.head["weight"].shape[1]}
    if len(widths) > 1 or len(translator.weight) != embeddings.shape[1]:
        folder = inputs.path("translator").parent
        raise InputError(
            f"{inputs.path('head')}, {inputs.path('projector')}, {folder} and the prompts of "
            f"{space} differ in width: run the study again"
        )
    known = {}
    if "scores" in asked(inputs.results):
        columns = ["is_deg", "null_energy"]
        scores = read_parquet(require_file(inputs.path("scores")), "scores", columns)
        known = {name: scores[name].to_numpy() for name in columns}
    return Loaded(
        classifier,
        texts,
        _setting(inputs),
        *texts.of_classes(classifier.class_names),
        basis,
        translator,
        concepts,
        embeddings,
        known,
    )


def _setting(inputs: Inputs) -> Setting:
    table, model, space = inputs.path("tables/models.csv"), inputs.model, inputs.space
    models = read_models(table, VERDICT)
    rows = models[(models["space"] == space) & (models["model"] == model)]
    if rows.empty:
        raise InputError(f"{table}: has no row for {space} and {model}: {FIX}")
    row = rows.iloc[0].to_dict()
    more: dict[str, Any] = {
        "rank_rule": read_json(inputs.path("projector_report")).of_kind("rule", str),
        "validation_r2": read_json(inputs.path("translator_report")).of_kind(
            "validation_r2", int | float
        ),
    }
    if row["verdict"] in OPEN:
        texts, groups = (
            read_parquet(require_file(inputs.path(name)), name)
            for name in ("evidence_texts", "evidence_groups")
        )
        more |= {"hidden": findings(texts, groups), "hidden_texts": hidden_texts(texts)}
    try:
        return Setting.of(
            row,
            "study's",
            len(inputs.manifest),
            model=model,
            space=space,
            source=f"study {inputs.head_facts['study']}",
            null_dim=inputs.null_basis.shape[1],
            translator=str(row["translator"]),
            **more,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{table}: its row of {space} and {model} is damaged ({error}): {FIX}"
        ) from None


def read_finished(
    results: Path,
    model: str,
    space: str,
    classes: Path | None,
    device: str,
    threads: int,
    cache: Path,
) -> Loaded:
    """Load a model and a space from a study; `classes` None means the study's class list.

    Without the study's features and embeddings there are no fits: a warning says so. Raises
    InputError if the weights of the model have changed since the study.
    """
    from singflow.towers.device import pick_device

    entry = read_model(registry_entry(results, "model", model))
    registry_entry(results, "space", space)
    inputs = Inputs(results, model, space, ("sha256",))
    for artifact in NEEDED:
        require_file(inputs.path(artifact))
    classifier = load_entry(entry, model, class_names(inputs, classes), device)
    now = Made(entry.identity, classifier.weights_sha256)
    if words := differences(Made.read(inputs.head_facts), now):
        raise InputError(
            f"{inputs.path('head')}: was made with {words}: restore what it was made with, or run "
            "the study again"
        )
    loaded = read_stored(inputs, classifier, pick_device(device))
    shards = read_section(inputs.path("params"), "extraction", Extraction).shards
    found = read_training(replace(inputs, shards=shards), threads, cache)
    fits, training = found or (None, frozenset(inputs.manifest["sha256"]))
    return replace(loaded, fits=fits, training=training)


def read_training(inputs: Inputs, threads: int, cache: Path) -> tuple[Fits, frozenset[str]] | None:
    """Fits to the images that the study's translator is fitted on, and the hashes of these images.

    None, with a warning, if the study's features or embeddings are missing.
    """
    shards = [inputs.path(artifact) for artifact in ("features", "embeddings")]
    if absent := [path.parent for path in shards if not path.is_file()]:
        log.warning(
            "%s: holds no shards, so it is not known what chance does: `make fetch` brings them",
            absent[0],
        )
        return None
    params = inputs.path("params")
    settings = read_section(params, "translator", Translation)
    draws = read_section(params, "evidence", EvidenceSettings).draws
    seed, reference = read_yaml(params).get("seed"), settings.reference
    if not isinstance(seed, int):
        raise InputError(f"{params}: seed: {seed!r} is not a whole number: {FIX}")
    how: dict[str, Any] = {
        "fitted": inputs.fitted,
        "folds": settings.folds,
        "lambdas": settings.lambdas,
        "draws": draws,
        "seed": seed,
    }
    folder = reference_folder(reference) if reference else inputs.results
    images = inputs.training(reference)
    path, basis = require_file(inputs.path("own_words")), inputs.null_basis
    made_of = {"basis": hashlib.sha256(basis.tobytes()).hexdigest(), "words": sha256_of(path)}

    def make() -> tuple[Tensors, dict[str, Any]]:
        own_words = OwnWords.read(
            read_tensors(path, ["class_embeddings", "word_weights", "offset"])[0]
        )
        head = SplitHead.split(inputs.head, basis)
        return vars(
            fit(images, head, own_words, Refitting(**how, threads=threads, folder=cache))
        ), {}

    names = [field.name for field in fields(Fits)]
    tensors, _ = cached(cache, folder, images, made_of | how, names, make)
    return Fits(**tensors), frozenset(images.manifest["sha256"])
