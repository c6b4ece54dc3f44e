"""A model and a space whose translator is fitted on a reference, or read from a file."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from singflow.analyses.evidence import EvidenceSettings, unique_meaning
from singflow.analyses.floor import SplitHead, whole_images
from singflow.analyses.geometry import null_space
from singflow.analyses.summary import (
    EMPTY,
    NO_NULL_SPACE,
    Summary,
    add_verdicts,
    verdict_sentence,
    verdict_words,
)
from singflow.artifacts.catalog import CATALOG
from singflow.artifacts.files import Facts, sha256_of
from singflow.artifacts.shards import read_manifest, shard_path
from singflow.artifacts.tensors import read_tensors
from singflow.config.sections import at_hand
from singflow.data.manifest import read_classes
from singflow.errors import InputError
from singflow.measuring import Evidence
from singflow.photo.analysis import Loaded, Setting
from singflow.photo.fits import Parts, Settings, cached_fit
from singflow.photo.photos import Photos
from singflow.photo.study import read_texts
from singflow.photo.texts import Texts
from singflow.photo.towers import CLASSES, Classifier, Space
from singflow.translators.linear import Translator
from singflow.translators.parameters import Translation as TranslatorParameters
from singflow.translators.reference import Paired, find_shards
from singflow.translators.released import MODELS as RELEASED
from singflow.translators.released import space_id
from singflow.translators.ridge import Affine

# The defaults of a study.
EVIDENCE, SUMMARY = EvidenceSettings.model_validate({}), Summary.model_validate({})
FITTING = TranslatorParameters.model_validate({})


def _setting(
    classifier: Classifier, space: Space, null_dim: int, r2: float | None, **facts: Any
) -> Setting:
    quality = "unknown" if r2 is None else "weak" if r2 < SUMMARY.min_r2 else "not weak"
    return Setting(
        model=classifier.name,
        space=space.name,
        rank_rule="exact",
        null_dim=null_dim,
        validation_r2=r2,
        translator=quality,
        **facts,
    )


def _null_basis(classifier: Classifier) -> np.ndarray:
    return null_space(classifier.weight, stored=classifier.weight_dtype).basis


def read_reference(
    folder: Path, classifier: Classifier, space: Space, threads: int, cache: Path, asked: list[str]
) -> Loaded:
    """A model and a space, with fits to the images of a reference.

    The texts asked for are embedded while the fits are made.
    """
    entry = classifier.entry
    if entry is None:
        raise InputError(
            f"{classifier.name}: a model in memory has no images in a reference: give its "
            "translator"
        )
    features, embeddings = reference_shards(
        folder, classifier.name, entry.identity, space, classifier.weights_sha256
    )
    manifest = read_manifest(CATALOG["manifest"].at(folder))
    n, shards = len(manifest), len(list(features.glob("shard-*.safetensors")))
    images = Paired(manifest, features, embeddings, shards, reference=True)
    settings = Settings(FITTING.folds, tuple(FITTING.lambdas), None, EVIDENCE.draws, 0)
    names, texts = classifier.class_names, _texts(folder, embeddings, classifier, space)
    classes = at_hand(CLASSES)
    weights = classifier.weight.tobytes() + classifier.bias.tobytes()
    made_of = {
        "head": hashlib.sha256(weights + classifier.weight_dtype.encode()).hexdigest(),
        "words": [names, texts.templates, space.entry.identity, sha256_of(classes)],
        "test": [EVIDENCE.margin, SUMMARY.confidence],
    }
    with ThreadPoolExecutor(1) as pool:  # one thread embeds all texts

        def parts() -> Parts:
            head = SplitHead.split(
                {"weight": classifier.weight, "bias": classifier.bias}, _null_basis(classifier)
            )
            found = unique_meaning(
                partial(whole_images, images, head),
                *pool.submit(lambda: texts.spellings(names, read_classes(classes))).result(),
                EVIDENCE,
                SUMMARY.confidence,
                settings.seed,
            )
            return head, found.words, found.facts

        of_classes, embedded = pool.submit(texts.of_classes, names), pool.submit(texts.embed, asked)
        fits = cached_fit(folder, images, made_of, parts, settings, cache, threads)
        embedded.result()
        class_texts, class_embeddings = of_classes.result()
    leak, null_dim = entry.kept is not None, fits.null_basis.shape[1]
    made = read_tensors(shard_path(embeddings, 0), [])[1]
    row = fits.facts | {
        "model": classifier.name,
        "marks": "",
        "null_dim": null_dim,
        "validation_r2": fits.r2,
        "in_sample": False,
        "known_zero": not leak and made.get("classifier_sha256") == classifier.weights_sha256,
        "known_leak": leak,
    }
    add_verdicts([row], SUMMARY.confidence)
    setting = _setting(
        classifier,
        space,
        null_dim,
        fits.r2,
        source=f"fitted on the {n} images of {folder}",
        images=f"reference's {n} images",
        n_images=n,
        verdict=row["verdict"],
        said=verdict_sentence(row),
    )
    return Loaded(
        classifier,
        texts,
        setting,
        class_texts,
        class_embeddings,
        fits.null_basis,
        Affine(fits.weight, fits.bias),
        known={"is_deg": fits.is_deg, "null_energy": fits.null_energy},
        fits=fits,
        photos=Photos(manifest, embeddings, shards, None),
        training=frozenset(manifest["sha256"]),
    )


def _texts(folder: Path, embeddings: Path, classifier: Classifier, space: Space) -> Texts:
    """The texts of a space, with the embeddings that a reference has stored, if any."""
    name = embeddings.relative_to(folder / "embeddings").as_posix()
    if not CATALOG["texts"].at(folder, space=name).is_file():
        return space.texts
    stored, *_ = read_texts(folder, name, space.entry, space.device, classifier.class_names)
    return replace(space.texts, stored=stored.stored, made=stored.made)


def read_translator(
    given: Path | Translator | Evidence, classifier: Classifier, space: Space
) -> Loaded:
    """A model and a space, with a translator of a file or in memory, or with evidence.

    Evidence also has the verdict, and the scores of its images.
    """
    basis, known, n = _null_basis(classifier), {}, 0
    verdict, said = ("", "") if basis.shape[1] else (EMPTY, NO_NULL_SPACE)
    if isinstance(given, Path):
        translator, source = Translator.load(given), str(given)
        check_pair(given, translator, classifier, space)
    elif isinstance(given, Evidence):
        translator, n = given.translator, len(given.images)
        source = f"fitted on {translator.facts['n_train']} rows of the evidence"
        verdict, said = given.verdict, f"{classifier.name}: {verdict_words(given.facts)}"
        known = {name: given.images[name].to_numpy() for name in ("is_deg", "null_energy")}
        check_shape("evidence", translator, classifier, space)
    else:
        translator, source = given, "translator in memory"
        check_shape(source, translator, classifier, space)
    r2 = translator.facts.get("validation_r2")
    setting = _setting(
        classifier,
        space,
        basis.shape[1],
        None if r2 is None else float(r2),
        source=source,
        images=f"{'evidence' if n else 'reference'}'s {n} images",
        n_images=n,
        verdict=verdict,
        said=said,
    )
    of_classes = space.texts.of_classes(classifier.class_names)
    return Loaded(classifier, space.texts, setting, *of_classes, basis, translator, known=known)


def check_pair(path: Path, translator: Translator, classifier: Classifier, space: Space) -> None:
    """Raise InputError for a translator of another model, space or shape.

    Models are compared by the hash of their weights or, for a released translator, by model id.
    """
    made, entry = read_tensors(path, [])[1], classifier.entry
    mine = f"{entry.source}/{entry.id}" if entry else classifier.name
    check_shape(path, translator, classifier, space)
    into = made.get("space_id", made.get("space", space.name))
    if into not in (space.name, space_id(space.entry)):
        raise InputError(
            f"{path}: translates into {into}, not {space.name}: write --space with the name of its "
            "space"
        )
    weights = made.get("weights_sha256") or _study_weights(path, made)
    if weights is not None:
        if weights == classifier.weights_sha256:
            return
        raise InputError(
            f"{path}: was fitted for other weights ({weights[:12]}) than {classifier.name} has "
            f"({classifier.weights_sha256[:12]}): name the model that it was fitted for with "
            "--model"
        )
    released = made.get("model_id", made.get("released_for", made.get("model", classifier.name)))
    wanted = RELEASED.get(released, released)
    if wanted not in (mine, classifier.name):
        raise InputError(
            f"{path}: was made for {wanted}, but {classifier.name} is {mine}: write --model "
            f"{wanted}"
        )


def check_shape(
    origin: Path | str, translator: Translator, classifier: Classifier, space: Space
) -> None:
    shape = (space.entry.dim, classifier.weight.shape[1])
    if translator.weight.shape != shape:
        raise InputError(
            f"{origin}: has shape {translator.weight.shape}, but {classifier.name} -> {space.name} "
            f"needs {shape}: name its own"
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
    features = find_shards(folder / "features", identity, weights_sha256)
    embeddings = find_shards(folder / "embeddings", space.entry.identity)
    if features is None or embeddings is None:
        raise InputError(
            f"no translator of {model} into {space.name} is at hand: {folder} has no images of "
            f"both with these weights. Two ways to get one: run a study with models: [{model}] and "
            f"spaces: [{space.name}] (`singflow study`, `singflow run`) and name its results with "
            "--results; or take one that was released for it (`singflow import_translator`) and "
            "name its file with --translator"
        )
    return features, embeddings
