"""Reading a finished study for the analysis of single photos."""

import difflib
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from singflow.analyses.evidence import Words
from singflow.analyses.floor import SplitHead
from singflow.analyses.inputs import Inputs
from singflow.analyses.summary import verdict_sentence as sentence
from singflow.artifacts.catalog import CATALOG
from singflow.artifacts.files import FIX, read_json, read_names, sha256_of
from singflow.artifacts.shards import read_manifest, shard_path
from singflow.artifacts.tables import iterate_row_groups, read_models
from singflow.artifacts.tensors import Tensors, read_null_basis, read_tensors
from singflow.cli import log
from singflow.config.reading import read_yaml
from singflow.config.registry import SpaceEntry, read_model, read_space
from singflow.data.manifest import data_root, head_classes, prompt_of
from singflow.data.vocabulary import read_class_list
from singflow.errors import InputError
from singflow.photo.analysis import KnownScores, Loaded, Setting
from singflow.photo.fits import Settings, cached_fit
from singflow.photo.photos import Photos
from singflow.photo.texts import Texts, stored_texts, text_of
from singflow.photo.towers import CLASSES, load_entry
from singflow.towers.ready_texts import read_ready
from singflow.translators.linear import Translator
from singflow.translators.reference import Paired, reference_folder, training_images

if TYPE_CHECKING:
    import torch

# Columns of tables/models.csv that the sentence of the verdict needs.
VERDICT = ["turn_deg", "unique_r2", "blind_unique_r2", "margin", "detectable"]


def require_file(path: Path) -> Path:
    """The same path; InputError, with the command that makes the file, if it does not exist."""
    if not path.is_file():
        raise InputError(f"{path}: no such file: make it with `snakemake --cores all {path}`")
    return path


def _required(inputs: Inputs, artifact: str) -> Path:
    return require_file(inputs.path(artifact))


def registry_entry(results: Path, kind: str, name: str) -> Path:
    """The file of the resolved entry of a model or space; `kind` is `model` or `space`."""
    pattern = CATALOG[f"{kind}_entry"]
    folder = pattern.at(results, **{kind: ""}).parent
    known = sorted(
        path.relative_to(folder).as_posix().removesuffix(".json") for path in folder.rglob("*.json")
    )
    if not known:
        raise InputError(
            f"{folder}: holds no {kind}: run the study with `singflow run`, or name its folder "
            "with --results"
        )
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        guess = f"; did you mean {near[0]!r}?" if near else ""
        raise InputError(f"--{kind} {name!r}: the study in {results} has {', '.join(known)}{guess}")
    return pattern.at(results, **{kind: name})


def read_photos(results: Path, space: str) -> Photos:
    """The study's photos, with their embeddings in a space."""
    inputs = Inputs(results, "", 1, space)
    params = read_yaml(_required(inputs, "params"))
    data = params["data"]
    root = Path(data["root"]) if data["source"] != "packaged" else data_root("packaged", "")
    manifest = read_manifest(_required(inputs, "manifest"))
    folder = inputs.path("embeddings").parent
    return Photos(manifest, folder, params["extraction"]["shards"], root)


def read_texts(
    results: Path, space: str, entry: SpaceEntry, device: "torch.device", class_names: list[str]
) -> tuple[Texts, list[str], np.ndarray]:
    """The study's texts in a space, and its P concepts with their embeddings (P, m)."""
    inputs = Inputs(results, "", 1, space)
    path, names = _required(inputs, "texts"), read_names(_required(inputs, "names"))
    kinds = [f"{kind[:-1]}_embeddings" for kind, texts in names.items() if texts]
    tensors, made = read_tensors(path, kinds)
    columns = ["label", "prompt"]
    rows = pd.concat(iterate_row_groups(_required(inputs, "manifest"), columns, columns))
    rows = rows.astype(str).drop_duplicates("label")
    prompts = dict(rows.itertuples(index=False, name=None))
    if prompts.keys() != set(names["labels"]) or any(
        len(tensors[kind]) != len(names[f"{kind.split('_')[0]}s"]) for kind in kinds
    ):
        raise InputError(
            f"{path}: holds other texts than its names and the manifest: remove it and run the "
            "workflow again"
        )
    templates, of_concepts = (
        made.parsed(f"{kind}_templates", list) for kind in ("label", "concept")
    )
    labels: dict[int, tuple[str, np.ndarray]] = {}
    head_rows = head_classes(pd.DataFrame({"label": names["labels"]}), class_names).tolist()
    for label, row, embedding in zip(
        names["labels"], head_rows, tensors["label_embeddings"], strict=True
    ):
        own = prompts[label] if prompts[label] != prompt_of(label) else text_of(label, templates)
        labels |= {row: (own, embedding)} if row >= 0 else {}
    texts = Texts(
        entry,
        device,
        templates,
        stored_texts(names, tensors, templates, of_concepts, prompts),
        read_ready(space, entry),
        labels,
        (path, made["weights_sha256"]),
    )
    none = np.empty((0, entry.dim), np.float32)
    return texts, names["concepts"], tensors.get("concept_embeddings", none)


@dataclass(frozen=True)
class Stored:
    """The contents of a study's files for a model and a space.

    The widths of head, basis, translator and embeddings agree. weights_sha256: of the model.
    """

    setting: Setting
    head: Tensors
    weights_sha256: str
    class_names: list[str]
    basis: np.ndarray
    translator: Translator
    texts: Texts
    concepts: list[str]
    concept_embeddings: np.ndarray
    known: KnownScores


def read_stored(
    results: Path, model: str, space: str, classes: Path | None, device: "torch.device"
) -> Stored:
    """Read a study's files for a model and a space; `classes` None means the study's class list."""
    inputs = Inputs(results, model, 1, space)
    head, made = read_tensors(_required(inputs, "head"), ["weight", "bias"])
    if classes is None:
        params = read_yaml(_required(inputs, "params"))
        classes = Path(params["data"].get("classes", CLASSES))
    class_names = made.parsed("class_names", list | None) or read_class_list(classes)
    if len(class_names) != len(head["weight"]):
        raise InputError(
            f"{classes}: holds {len(class_names)} classes, but {inputs.path('head')} has "
            f"{len(head['weight'])}: name the study's with --classes"
        )
    basis = read_null_basis(_required(inputs, "projector"))
    translator = Translator.load(_required(inputs, "translator"))
    entry = read_space(registry_entry(results, "space", space))
    texts, concepts, embeddings = read_texts(results, space, entry, device, class_names)
    widths = {len(basis), translator.weight.shape[1], head["weight"].shape[1]}
    if len(widths) > 1 or len(translator.weight) != embeddings.shape[1]:
        folder = inputs.path("translator").parent
        raise InputError(
            f"{inputs.path('head')}, {inputs.path('projector')}, {folder} and the prompts of "
            f"{space} differ in width: run the study again"
        )
    columns = ["is_deg", "null_energy"]
    scores = pd.concat(iterate_row_groups(_required(inputs, "scores"), [], columns))[columns]
    n = len(scores)
    quality, verdict, words = _verdict(_required(inputs, "tables/models.csv"), model, space)
    report = read_json(_required(inputs, "translator_report"))
    setting = Setting(
        model=model,
        space=space,
        source=f"study {made['study']}",
        rank_rule=read_json(_required(inputs, "projector_report")).of_kind("rule", str),
        null_dim=basis.shape[1],
        validation_r2=report.of_kind("validation_r2", int | float),
        translator=quality,
        images=f"study's {n} image{'s' if n != 1 else ''}",
        n_images=n,
        verdict=verdict,
        said=words,
    )
    return Stored(
        setting,
        head,
        made["weights_sha256"],
        class_names,
        basis,
        translator,
        texts,
        concepts,
        embeddings,
        KnownScores(*scores.to_numpy().T),
    )


def _verdict(table: Path, model: str, space: str) -> tuple[str, str, str]:
    """The translator's quality, the verdict, and the verdict as a sentence."""
    models = read_models(table, ["translator", "verdict", *VERDICT])
    rows = models[(models["space"] == space) & (models["model"] == model)]
    if rows.empty:
        raise InputError(f"{table}: has no row for {space} and {model}: {FIX}")
    row = rows.iloc[0].to_dict()
    try:
        return str(row["translator"]), str(row["verdict"]), sentence(row | {"marks": ""})
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{table}: its row of {space} and {model} is damaged ({error}): {FIX}"
        ) from None


def read_study(
    results: Path,
    model: str,
    space: str,
    classes: Path | None,
    device: str,
    threads: int,
    cache: Path,
) -> Loaded:
    """Load a model and a space from a study.

    Without the study's features and embeddings there are no fits and no nearest photos: a warning
    says so. Raises InputError if the weights of the model have changed since the study.
    """
    from singflow.towers.device import pick_device

    entry = read_model(registry_entry(results, "model", model))
    registry_entry(results, "space", space)
    stored = read_stored(results, model, space, classes, pick_device(device))
    entry = entry.model_copy(update={"class_names": stored.class_names})
    classifier = load_entry(entry, model, CLASSES, device)
    photos = read_photos(results, space)
    inputs = Inputs(results, model, photos.shards, space, ("sha256",))
    if classifier.weights_sha256 != stored.weights_sha256:
        raise InputError(
            f"{inputs.path('head')}: was made with other weights than the model has now: restore "
            "them, or run the study again"
        )
    if not photos.folder.is_dir():
        log.warning(
            "%s: not here, so the nearest photos are left out: `make fetch` brings it",
            photos.folder,
        )
    found = training_folder(inputs)
    fits = None
    if found:
        path = _required(inputs, "own_words")
        words = Words.read(read_tensors(path, ["class_embeddings", "word_weights", "offset"])[0])
        head = SplitHead.split(stored.head, stored.basis)
        basis = hashlib.sha256(stored.basis.tobytes()).hexdigest()
        made_of = {"basis": basis, "words": sha256_of(path)}
        fits = cached_fit(
            *found, made_of, lambda: head, lambda _: (words, {}), _settings(inputs), cache, threads
        )
    return Loaded(
        classifier,
        stored.texts,
        stored.setting,
        *stored.texts.of_classes(stored.class_names),
        stored.basis,
        stored.translator,
        stored.concepts,
        stored.concept_embeddings,
        stored.known,
        fits,
        photos,
        frozenset((found[1] if found else photos).manifest["sha256"]),
    )


def training_folder(inputs: Inputs) -> tuple[Path, Paired] | None:
    """The images that the translator is fitted on, after their results folder.

    None, with a warning, if the study's features or embeddings are missing.
    """
    own = inputs.pairs
    absent = [path for path in (own.features, own.embeddings) if not shard_path(path, 0).is_file()]
    if absent:
        log.warning(
            "%s: holds no shards, so it is not known what chance does: `make fetch` brings them",
            absent[0],
        )
        return None
    reference = read_yaml(inputs.path("params"))["translator"]["reference"]
    folder = reference_folder(reference) if reference else inputs.results
    return folder, training_images(reference, own)


def _settings(inputs: Inputs) -> Settings:
    """The settings of the study's fits."""
    params, report = read_yaml(inputs.path("params")), read_json(inputs.path("translator_report"))
    translator, fitted = params["translator"], report.of_kind("lambda", float | None)
    draws, seed = params["evidence"]["draws"], params["seed"]
    return Settings(translator["folds"], tuple(translator["lambdas"]), fitted, draws, seed)
