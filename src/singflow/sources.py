"""Classifiers, spaces and evidence of a finished study, of a reference, and of a file."""

import difflib
import hashlib
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from singflow import cli
from singflow.analyses.evidence import EvidenceSettings, OwnWords
from singflow.analyses.findings import OPEN, TABLES, decision
from singflow.analyses.fits import fit
from singflow.analyses.floor import Refitting, SplitHead
from singflow.analyses.hidden import Question
from singflow.analyses.inputs import Inputs, known_answer
from singflow.analyses.summary import OF_ROWS, Summary
from singflow.artifacts.catalog import CATALOG, Analysis
from singflow.artifacts.files import FIX, read_json, sha256_of, sources_sha256
from singflow.artifacts.made import Made, differences
from singflow.artifacts.shards import count_shards, read_manifest, shard_path
from singflow.artifacts.tables import read_models, read_parquet
from singflow.artifacts.tensors import provenance, read_tensors
from singflow.config.reading import read_section, read_yaml
from singflow.config.registry import read_model, read_space
from singflow.config.sections import at_hand
from singflow.data.parameters import Data
from singflow.data.vocabulary import read_class_list, read_classes
from singflow.errors import InputError
from singflow.evidence import Evidence
from singflow.measuring import evidence_of
from singflow.towers.live import CLASSES, Classifier, Space, load_entry
from singflow.towers.parameters import Extraction
from singflow.towers.texts import Texts, stored_texts
from singflow.translators.hub import Translator
from singflow.translators.linear import check_made, read_linear
from singflow.translators.parameters import Translation
from singflow.translators.reference import Paired, Pool, find_shards, fingerprint, reference_folder
from singflow.translators.ridge import Affine

CACHE = Path(".cache/photo")
NEEDED = (  # artifacts of a study that its evidence is made of
    *("params", "manifest", "head", "projector", "projector_report", "translator"),
    *("translator_report", "evidence", "planted_leaks", "own_words", "tables/models.csv"),
)
TEXTS = {  # of a study, that a photo is compared with
    "labels": "label_embeddings",
    "concepts": "concept_embeddings",
    "targets": "target_embeddings",
}
SCORES = ["is_deg", "null_energy", "as_deg", "floor_is_deg"]


def require_file(path: Path) -> Path:
    """The same path; InputError, with the command that makes the file, if it does not exist."""
    if not path.is_file():
        raise InputError(f"{path}: no such file: make it with `snakemake --cores all {path}`")
    return path


def study_classifier(folder: Path, model: str, classes: Path | None, device: str) -> Classifier:
    """The classifier of a study; its weights must be those of the study.

    classes: list for a head that names no classes; None: the study's.
    """
    entry = read_model(_registry_entry(folder, "model", model))
    inputs = Inputs(folder, model)
    params, head = (require_file(inputs.path(name)) for name in ("params", "head"))
    if classes is None:
        classes = at_hand(Path(read_section(params, "data", Data).classes))
    names = inputs.head_facts.parsed("class_names", list | None) or read_class_list(classes)
    if len(names) != len(inputs.head["weight"]):
        raise InputError(
            f"{classes}: holds {len(names)} classes, but {head} has {len(inputs.head['weight'])}: "
            "name the study's with --classes"
        )
    classifier = load_entry(entry, model, names, device)
    now = Made(entry.identity, classifier.weights_sha256)
    if words := differences(Made.read(inputs.head_facts), now):
        raise InputError(
            f"{head}: was made with {words}: restore what it was made with, or run the study again"
        )
    return classifier


def study_space(folder: Path, space: str, device: str) -> Space:
    """The space of a study, with the embeddings of the study's texts."""
    from singflow.towers.device import pick_device

    entry, on = read_space(_registry_entry(folder, "space", space)), pick_device(device)
    return with_texts(Space(space, entry, Texts(entry, on, []), on), folder, space)


def with_texts(space: Space, folder: Path, name: str) -> Space:
    """A space with the embeddings of texts that a study or a reference has of it."""
    inputs = Inputs(folder, space=name, columns=("prompt",))
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
    labels = zip(names["labels"], zip(own, tensors["label_embeddings"], strict=True), strict=True)
    texts = Texts(
        entry=space.entry,
        device=space.device,
        templates=templates,
        stored=stored,
        labels=dict(labels),
        concepts=names["concepts"],
        concept_embeddings=tensors.get("concept_embeddings", np.empty((0, space.entry.dim))),
        made=(path, made["weights_sha256"]),
    )
    return replace(space, texts=texts)


def _registry_entry(folder: Path, kind: str, name: str) -> Path:
    """The file of the resolved entry of a model or space; `kind` is `model` or `space`."""
    entries = CATALOG[f"{kind}_entry"]
    known = sorted(names[kind] for _, names in entries.among(folder))
    if not known:
        raise InputError(
            f"{entries.at(folder, **{kind: ''}).parent}: holds no {kind}: run the study with "
            "`singflow run`, or name its folder with --results"
        )
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        guess = f"; did you mean {near[0]!r}?" if near else ""
        raise InputError(f"--{kind} {name!r}: the study in {folder} has {', '.join(known)}{guess}")
    return entries.at(folder, **{kind: name})


def study_evidence(
    folder: Path, model: str, space: str, threads: int = 1, cache: Path = CACHE
) -> Evidence:
    """The evidence of a study, with its verdict.

    Without the features and embeddings that the translator is fitted on there are no fits: a
    warning says so. The residuals are not kept.
    """
    for kind, name in (("model", model), ("space", space)):
        _registry_entry(folder, kind, name)
    inputs = Inputs(folder, model, space, ("sha256",))
    for artifact in NEEDED:
        require_file(inputs.path(artifact))
    params, table = inputs.path("params"), inputs.path("tables/models.csv")
    models = read_models(table, ["translator", "verdict"])
    rows = models[(models["space"] == space) & (models["model"] == model)]
    if rows.empty:
        raise InputError(f"{table}: has no row for {space} and {model}: {FIX}")
    row, facts = rows.iloc[0], read_json(inputs.path("evidence"))
    report = read_json(inputs.path("translator_report"))
    told = {name: report[name] for name in OF_ROWS}
    texts = groups = None
    if row["verdict"] in OPEN:
        texts, groups = (
            read_parquet(require_file(inputs.path(name)), name)
            for name in ("evidence_texts", "evidence_groups")
        )
    settings = read_yaml(params)
    seed, analyses = settings.get("seed"), settings.get("analyses", [*get_args(Analysis)])
    if not isinstance(seed, int):
        raise InputError(f"{params}: seed: {seed!r} is not a whole number: {FIX}")
    try:
        decision(facts | told | {"verdict": row["verdict"]}, texts)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{inputs.path('evidence')} or {table}: what it says of {model} is damaged ({error}): "
            f"{FIX}"
        ) from None
    images = pd.DataFrame()
    if "scores" in analyses:
        images = read_parquet(require_file(inputs.path("scores")), "scores", SCORES)
    margin = facts.of_kind("margin", int | float)
    confidence = read_section(params, "summary", Summary).confidence
    names = ["class_embeddings", "word_weights", "offset"]
    own_words = OwnWords.read(read_tensors(inputs.path("own_words"), names)[0])
    translator, stated = read_linear(inputs.path("translator"))
    r2 = report.of_kind("validation_r2", int | float)
    found = Evidence(
        fitted=Affine(**translator),
        stated=stated | {"validation_r2": r2},
        source=f"study {inputs.head_facts['study']}",
        facts={
            **facts,
            **told,
            "verdict": str(row["verdict"]),
            "translator": str(row["translator"]),
            "rank_rule": read_json(inputs.path("projector_report")).of_kind("rule", str),
        },
        images=images,
        planted=read_parquet(inputs.path("planted_leaks"), "planted_leaks"),
        question=Question(margin, confidence, seed),
        null_basis=inputs.null_basis,
        own_words=own_words,
        hidden_texts=texts,
        hidden_groups=groups,
    )
    return _with_fits(found, inputs, threads, cache)


def _with_fits(found: Evidence, inputs: Inputs, threads: int, cache: Path) -> Evidence:
    """With fits to the images that a study's translator is fitted on, and hashes of the images."""
    params, own_words = inputs.path("params"), found.own_words
    settings = read_section(params, "translator", Translation)
    folder = reference_folder(settings.reference) if settings.reference else inputs.results
    images = read_manifest(CATALOG["manifest"].at(folder))
    fitted = ~images["path"].isin(inputs.left_out or [])
    found = replace(found, seen=frozenset(images.loc[fitted, "sha256"]))
    shards = [inputs.path(artifact) for artifact in ("features", "embeddings")]
    if absent := [path.parent for path in shards if not path.is_file()]:
        cli.log.warning(
            "%s: holds no shards, so it is not known what chance does: `make fetch` brings them",
            absent[0],
        )
        return found
    inputs = replace(inputs, shards=read_section(params, "extraction", Extraction).shards)
    images, basis = inputs.fitted_on(settings.reference), inputs.null_basis
    if not basis.size or own_words is None:
        return found
    how: dict[str, Any] = {
        "fitted": inputs.fitted,
        "folds": settings.folds,
        "lambdas": settings.lambdas,
        "draws": read_section(params, "evidence", EvidenceSettings).draws,
        "seed": found.question.seed,
    }
    basis_sha256 = hashlib.sha256(basis.tobytes()).hexdigest()
    made_of = how | {"basis": basis_sha256, "words": sha256_of(inputs.path("own_words"))}
    made_of["left_out"] = inputs.left_out

    def make() -> Evidence:
        head = SplitHead.split(inputs.head, basis)
        fits = fit(images, head, own_words, Refitting(**how, threads=threads, folder=cache))
        return Evidence(found.fitted, found.stated, found.source, fits=fits)

    return replace(found, fits=kept(cache, folder, images, made_of, make).fits)


def reference_shards(folder: Path, name: str, model: Made, space: Space) -> tuple[Path, Path]:
    """Folders of a reference's features by a model and of its embeddings in a space."""
    if not CATALOG["manifest"].at(folder).is_file():
        raise InputError(
            f"--reference {folder}: holds no data/manifest.parquet: name the results folder of a "
            "finished study, or packaged"
        )
    features, why = find_shards(folder / "features", model)
    embeddings, other = find_shards(folder / "embeddings", Made(space.entry.identity))
    if features is None or embeddings is None:
        raise InputError(
            f"no translator of {name} into {space.name} is at hand: {why or other}. Two ways to "
            f"get one: run a study with models: [{name}] and "
            f"spaces: [{space.name}] (`singflow study`, `singflow run`) and name its results with "
            "--results; or take one that was released for it (`singflow import_translator`) and "
            "name its file with --translator"
        )
    return features, embeddings


def reference_evidence(
    folder: Path, classifier: Classifier, space: Space, threads: int = 1, cache: Path = CACHE
) -> tuple[Evidence, Space]:
    """Evidence by the images of a reference, and the space with the texts of the reference."""
    entry = classifier.entry
    if entry is None:
        raise InputError(
            f"{classifier.name}: a model in memory has no images in a reference: give its "
            "translator"
        )
    made_by = Made(entry.identity, classifier.weights_sha256)
    features, embeddings = reference_shards(folder, classifier.name, made_by, space)
    manifest = read_manifest(CATALOG["manifest"].at(folder))
    sha256 = manifest["sha256"]
    images = Paired(manifest, features, embeddings, count_shards(features), reference=True)
    inputs = Inputs(folder, space=embeddings.relative_to(folder / "embeddings").as_posix())
    texts_here = inputs.path("texts").is_file()
    if texts_here:
        space = with_texts(space, folder, inputs.space)
    names, texts, classes = classifier.class_names, space.texts, at_hand(CLASSES)
    weights = classifier.weight.tobytes() + classifier.bias.tobytes()
    cut, shard = entry.kept is not None, shard_path(embeddings, 0)
    known = known_answer(classifier.weights_sha256, shard, cut=cut)
    made_of = {
        "head": hashlib.sha256(weights + classifier.weight_dtype.encode()).hexdigest(),
        "words": [names, texts.templates, space.entry.identity, sha256_of(classes)],
        "known": known,
        "texts": [sha256_of(p) for p in map(inputs.path, ("names", "texts")) if p.is_file()],
    }
    settings, summary = EvidenceSettings.model_validate({}), Summary.model_validate({})

    def make() -> Evidence:
        found = evidence_of(
            Pool(images),
            (classifier.weight, classifier.bias),
            *texts.spellings(names, read_classes(classes)),
            Question(settings.margin, summary.confidence, 0),
            folds=Translation.model_validate({}).folds,
            draws=settings.draws,
            threads=threads,
            known=known,
        )
        own = folder == reference_folder("packaged")
        whose = "the packaged reference" if own else str(folder)
        source = f"fitted on the {len(sha256)} images of {whose}"
        found = replace(found, source=source, seen=frozenset(sha256))
        if found.verdict not in OPEN or found.residuals is None:
            return found
        predicted = np.array(names, dtype=object)[found.residuals.predicted]
        groups = found.group_rows(pd.Series(predicted)).assign(by="predicted")
        hidden = pd.DataFrame(columns=TABLES["hidden_texts"])
        if texts_here:
            listed, embedded = inputs.asked(None)
            hidden = listed.join(found.text_rows(embedded), how="inner")
        return replace(found, hidden_texts=hidden, hidden_groups=groups)

    return kept(cache, folder, images, made_of, make), space


def file_evidence(path: Path, classifier: Classifier, space: Space) -> Evidence:
    """The translator in a file, which must be of this model and space, without evidence."""
    _, stated = read_linear(path)
    identity = classifier.entry.identity if classifier.entry else None
    model = Made(identity, classifier.weights_sha256)
    check_made(path, stated, model, Made(space.entry.identity))
    return replace(Evidence.of(Translator.load(path)), source=str(path))


def kept(
    cache: Path, folder: Path, images: Paired, made_of: dict[str, Any], make: Callable[[], Evidence]
) -> Evidence:
    """The evidence that `make` gives, in a folder that is named by all inputs.

    folder: the results of the images. made_of: all that is fitted, beside the images.
    """
    inputs = {
        "images": [fingerprint(str(folder)), str(images.features), str(images.embeddings)],
        "made_of": made_of,
        "code": sources_sha256(".", "analyses", "translators", "towers"),
        "software": provenance(["scipy"])["software"],
    }
    digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
    place = cache / digest
    if place.is_dir():
        try:
            return Evidence.load(place)
        except InputError as error:
            cli.log.warning("%s; it is made again", error)
            shutil.rmtree(place, ignore_errors=True)
    started = time.perf_counter()
    # The matrices are small: on shared cores, several BLAS threads are slower than one.
    with threadpool_limits(1):
        found = make()
    seconds = time.perf_counter() - started
    cli.log.info("fitted to %d images in %.1f s", len(images.manifest), seconds)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        found.save(place)
    except (InputError, OSError) as error:  # for instance in the checkout of another user
        cli.log.warning("not kept for other photos: %s", error)
    return found
