"""A model and a space whose translator is fitted on a reference, or read from a file."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from singflow.analyses.evidence import Evidence, Words, measure
from singflow.analyses.floor import SplitHead
from singflow.analyses.geometry import null_space
from singflow.analyses.readout import Blocks
from singflow.analyses.summary import EMPTY, NO_NULL_SPACE, Summary, add_verdicts
from singflow.analyses.summary import verdict_sentence as sentence
from singflow.artifacts.catalog import CATALOG
from singflow.artifacts.files import Facts, sha256_of
from singflow.artifacts.shards import read_manifest, shard_path
from singflow.artifacts.tensors import read_tensors
from singflow.config.registry import OpenCLIPEntry
from singflow.data.manifest import read_classes
from singflow.errors import InputError
from singflow.photo.analysis import KnownScores, Loaded, Setting
from singflow.photo.fits import Fits, Settings, cached_fit
from singflow.photo.photos import Photos
from singflow.photo.study import read_texts
from singflow.photo.texts import Texts
from singflow.photo.towers import CLASSES, Classifier, Space
from singflow.translators.linear import Translator
from singflow.translators.parameters import Translation as TranslatorParameters
from singflow.translators.reference import Paired, find_shards
from singflow.translators.released import MODELS as RELEASED

# The defaults of a study.
EVIDENCE, SUMMARY = Evidence.model_validate({}), Summary.model_validate({})
FITTING = TranslatorParameters.model_validate({})


def _setting(
    classifier: Classifier,
    space: Space,
    source: str,
    basis: np.ndarray,
    r2: float | None,
    images: int,
    verdict: tuple[str, str],
) -> Setting:
    quality = "unknown" if r2 is None else "good" if r2 >= SUMMARY.min_r2 else "weak"
    return Setting(
        model=classifier.name,
        space=space.name,
        source=source,
        rank_rule="exact",
        null_dim=basis.shape[1],
        validation_r2=r2,
        translator=quality,
        images=f"reference's {images} images",
        n_images=images,
        verdict=verdict[0],
        said=verdict[1],
    )


def _null_basis(classifier: Classifier) -> np.ndarray:
    return null_space(classifier.weight, stored=classifier.weight_dtype).basis


def read_reference(
    folder: Path, classifier: Classifier, space: Space, threads: int, cache: Path, asked: list[str]
) -> Loaded:
    """A model and a space, with fits to the images of a reference.

    The texts asked for are embedded while the fits are made.
    """
    features, embeddings = reference_shards(
        folder, classifier.name, classifier.entry.identity, space, classifier.weights_sha256
    )
    manifest = read_manifest(CATALOG["manifest"].at(folder))
    n, shards = len(manifest), len(list(features.glob("shard-*.safetensors")))
    images = Paired(manifest, features, embeddings, shards, reference=True)
    settings = Settings(FITTING.folds, tuple(FITTING.lambdas), None, EVIDENCE.draws, 0)
    names, texts = classifier.class_names, _texts(folder, embeddings, classifier, space)
    weights = classifier.weight.tobytes() + classifier.bias.tobytes()
    made_of = {
        "head": hashlib.sha256(weights + classifier.weight_dtype.encode()).hexdigest(),
        "words": [names, texts.templates, space.entry.identity, sha256_of(CLASSES)],
        "test": [EVIDENCE.margin, SUMMARY.confidence],
    }
    with ThreadPoolExecutor(1) as pool:  # one thread embeds all texts

        def find_words(blocks: Blocks) -> tuple[Words, dict[str, Any]]:
            found = measure(
                blocks,
                *pool.submit(lambda: texts.spellings(names, read_classes(CLASSES))).result(),
                lambdas=settings.lambdas,
                margin=EVIDENCE.margin,
                draws=settings.draws,
                confidence=SUMMARY.confidence,
                seed=settings.seed,
            )
            return found.words, found.facts

        of_classes, embedded = pool.submit(texts.of_classes, names), pool.submit(texts.embed, asked)
        fits = cached_fit(
            folder,
            images,
            made_of,
            lambda: SplitHead.split(classifier.head, _null_basis(classifier)),
            find_words,
            settings,
            cache,
            threads,
        )
        embedded.result()
        class_texts, class_embeddings = of_classes.result()
    verdict = _verdict(fits, classifier, embeddings)
    source = f"fitted on the {n} images of {folder}"
    return Loaded(
        classifier,
        texts,
        _setting(classifier, space, source, fits.null_basis, fits.r2, n, verdict),
        class_texts,
        class_embeddings,
        fits.null_basis,
        fits.translator,
        [],
        class_embeddings[:0],
        KnownScores(fits.is_deg, fits.null_energy),
        fits,
        Photos(manifest, embeddings, shards, None),
        frozenset(manifest["sha256"]),
    )


def _verdict(fits: Fits, classifier: Classifier, embeddings: Path) -> tuple[str, str]:
    """The verdict on a model by a reference, as in a study, and the verdict as a sentence."""
    leak, made = classifier.entry.kept is not None, read_tensors(shard_path(embeddings, 0), [])[1]
    row = fits.facts | {
        "model": classifier.name,
        "marks": "",
        "null_dim": fits.null_basis.shape[1],
        "validation_r2": fits.r2,
        "in_sample": False,
        "known_zero": not leak and made.get("classifier_sha256") == classifier.weights_sha256,
        "known_leak": leak,
    }
    add_verdicts([row], SUMMARY.confidence)
    return row["verdict"], sentence(row)


def _texts(folder: Path, embeddings: Path, classifier: Classifier, space: Space) -> Texts:
    """The texts of a space, with the embeddings that a reference has stored, if any."""
    name = embeddings.relative_to(folder / "embeddings").as_posix()
    if not CATALOG["texts"].at(folder, space=name).is_file():
        return space.texts
    stored, *_ = read_texts(folder, name, space.entry, space.device, classifier.class_names)
    return replace(space.texts, stored=stored.stored, made=stored.made)


def read_translator(path: Path, classifier: Classifier, space: Space) -> Loaded:
    """A model and a space, with the translator of a file and without known images."""
    translator = Translator.load(path)
    check_pair(path, translator, classifier, space)
    basis = _null_basis(classifier)
    r2 = read_tensors(path, [])[1].get("validation_r2")
    verdict = ("", "") if basis.shape[1] else (EMPTY, NO_NULL_SPACE)
    r2 = None if r2 is None else float(r2)
    setting = _setting(classifier, space, str(path), basis, r2, 0, verdict)
    class_texts, embeddings = space.texts.of_classes(classifier.class_names)
    return Loaded(
        classifier,
        space.texts,
        setting,
        class_texts,
        embeddings,
        basis,
        translator,
        [],
        embeddings[:0],
    )


def check_pair(path: Path, translator: Translator, classifier: Classifier, space: Space) -> None:
    """Raise InputError for a translator of another model, space or shape.

    Models are compared by the hash of their weights or, for a released translator, by model id.
    """
    made = read_tensors(path, [])[1]
    mine = f"{classifier.entry.source}/{classifier.entry.id}"
    shape = (space.entry.dim, classifier.weight.shape[1])
    if translator.weight.shape != shape:
        raise InputError(
            f"{path}: has shape {translator.weight.shape}, but {classifier.name} -> {space.name} "
            f"needs {shape}: name its own"
        )
    into = made.get("space_id", made.get("space", space.name))
    if into not in (
        space.name,
        space.entry.id if isinstance(space.entry, OpenCLIPEntry) else space.entry.identity,
    ):
        raise InputError(
            f"{path}: translates into {into}, not {space.name}: write --space with the name of its "
            "space"
        )
    weights = made.get("weights_sha256") or _study_weights(path, made)
    if weights is not None:
        if weights != classifier.weights_sha256:
            raise InputError(
                f"{path}: was fitted for other weights ({weights[:12]}) than {classifier.name} has "
                f"({classifier.weights_sha256[:12]}): name the model that it was fitted for with "
                "--model"
            )
        return
    released = made.get("model_id", made.get("released_for", made.get("model", classifier.name)))
    wanted = RELEASED.get(released, released)
    if wanted not in (mine, classifier.name):
        raise InputError(
            f"{path}: was made for {wanted}, but {classifier.name} is {mine}: write --model "
            f"{wanted}"
        )


def _study_weights(path: Path, made: Facts) -> str | None:
    """Hash of the model's weights, read from the study that the translator's file belongs to."""
    study = next((folder.parent for folder in path.parents if folder.name == "translators"), None)
    head = study and CATALOG["head"].at(study, model=made.get("model"))
    return read_tensors(head, [])[1]["weights_sha256"] if head and head.is_file() else None


def reference_shards(
    folder: Path, model: str, identity: str, space: Space, weights_sha256: str | None = None
) -> tuple[Path, Path]:
    """Folders of a reference's features by a model and of its embeddings in a space.

    Without `weights_sha256`, features by any weights of the model will do.
    """
    if not CATALOG["manifest"].at(folder).is_file():
        raise InputError(
            f"--reference {folder}: holds no data/manifest.parquet: name the results folder of a "
            "finished study, or packaged"
        )
    features, embeddings = (
        find_shards(folder / "features", identity, weights_sha256),
        find_shards(folder / "embeddings", space.entry.identity),
    )
    if features is None or embeddings is None:
        raise InputError(
            f"no translator of {model} into {space.name} is at hand: {folder} has no images of "
            f"both with these weights. Two ways to get one: run a study with models: [{model}] and "
            f"spaces: [{space.name}] (`singflow study`, `singflow run`) and name its results with "
            "--results; or take one that was released for it (`singflow import_translator`) and "
            "name its file with --translator"
        )
    return features, embeddings
