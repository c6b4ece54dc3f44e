"""A model and a space whose translator is fitted on a reference, or read from a file."""

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from singflow.analyses.evidence import EvidenceSettings
from singflow.analyses.findings import OPEN, TABLES, findings, hidden_texts
from singflow.analyses.fits import Fits
from singflow.analyses.geometry import null_space
from singflow.analyses.inputs import Inputs, known_answer
from singflow.analyses.summary import Summary
from singflow.artifacts.catalog import CATALOG
from singflow.artifacts.files import sha256_of
from singflow.artifacts.made import Made
from singflow.artifacts.shards import count_shards, read_manifest, shard_path
from singflow.artifacts.tensors import Tensors
from singflow.config.sections import at_hand
from singflow.data.manifest import read_classes
from singflow.errors import InputError
from singflow.measuring import Evidence, evidence_of
from singflow.photo.analysis import Loaded, Setting
from singflow.photo.cached import cached
from singflow.photo.finished import read_texts
from singflow.towers.live import CLASSES, Classifier, Space
from singflow.towers.texts import Texts
from singflow.translators.linear import check_made, read_linear
from singflow.translators.parameters import Translation
from singflow.translators.reference import Paired, Pool, find_shards
from singflow.translators.ridge import Affine

if TYPE_CHECKING:
    from singflow.translators.hub import Translator

# The defaults of a study.
EVIDENCE, SUMMARY = EvidenceSettings.model_validate({}), Summary.model_validate({})
FITTING = Translation.model_validate({})


def _loaded(
    classifier: Classifier,
    space: Space,
    texts: Texts,
    translator: Affine,
    basis: np.ndarray,
    facts: Mapping[str, Any] | None,
    known: dict[str, np.ndarray],
    whose: str,
    setting: dict[str, Any],
    **more: Any,
) -> Loaded:
    """A model and a space, with the facts of evidence, if there are any.

    known: scores of the images of the evidence. whose: these images. setting: further fields of
    Setting. more: of Loaded.
    """
    r2 = setting["validation_r2"]
    made = Setting.of(
        facts,
        whose,
        len(known.get("is_deg", ())),
        model=classifier.name,
        space=space.name,
        rank_rule="exact",
        null_dim=basis.shape[1],
        translator="unknown" if r2 is None else "weak" if r2 < SUMMARY.min_r2 else "not weak",
        **setting,
    )
    of_classes = texts.of_classes(classifier.class_names)
    return Loaded(classifier, texts, made, *of_classes, basis, translator, known=known, **more)


def read_reference(
    folder: Path, classifier: Classifier, space: Space, threads: int, cache: Path, asked: list[str]
) -> Loaded:
    """A model and a space, with evidence and fits by the images of a reference.

    The texts asked for are embedded while the fits are made.
    """
    entry = classifier.entry
    if entry is None:
        raise InputError(
            f"{classifier.name}: a model in memory has no images in a reference: give its "
            "translator"
        )
    model = Made(entry.identity, classifier.weights_sha256)
    features, embeddings = reference_shards(folder, classifier.name, model, space)
    manifest = read_manifest(CATALOG["manifest"].at(folder))
    images = Paired(manifest, features, embeddings, count_shards(features), reference=True)
    inputs = Inputs(folder, space=embeddings.relative_to(folder / "embeddings").as_posix())
    names, texts = classifier.class_names, _texts(inputs, classifier, space)
    classes, sha256 = at_hand(CLASSES), manifest["sha256"]
    weights = classifier.weight.tobytes() + classifier.bias.tobytes()
    own, shard = classifier.weights_sha256, shard_path(embeddings, 0)
    known = known_answer(own, shard, cut=entry.kept is not None)
    made_of = {
        "head": hashlib.sha256(weights + classifier.weight_dtype.encode()).hexdigest(),
        "words": [names, texts.templates, space.entry.identity, sha256_of(classes)],
        "known": known,
        "texts": [sha256_of(p) for p in map(inputs.path, ("names", "texts")) if p.is_file()],
    }

    def make() -> tuple[Tensors, dict[str, Any]]:
        spelled = pool.submit(lambda: texts.spellings(names, read_classes(classes)))
        of_classes, others = spelled.result()
        found = evidence_of(
            Pool(images),
            (classifier.weight, classifier.bias),
            of_classes,
            others,
            pd.factorize(sha256)[0],
            EVIDENCE,
            folds=FITTING.folds,
            confidence=SUMMARY.confidence,
            seed=0,
            threads=threads,
            known=known,
        )
        whole = {"weight": found.fitted.weight, "bias": found.fitted.bias}
        is_deg = found.images["is_deg"].to_numpy()
        said = {"facts": found.facts, "hidden": _hidden(found, inputs, names)}
        return {**vars(found.fits), **whole, "is_deg": is_deg}, said

    with ThreadPoolExecutor(1) as pool:  # one thread embeds all texts
        wanted = ["weight", "bias", "is_deg", *(field.name for field in fields(Fits))]
        embedded = pool.submit(texts.embed, asked)
        tensors, made = cached(cache, folder, images, made_of, wanted, make)
        embedded.result()
    weight, bias, is_deg = (tensors.pop(name) for name in wanted[:3])
    facts, fits = made.parsed("facts", dict), Fits(**tensors)
    return _loaded(
        classifier,
        space,
        texts,
        Affine(weight, bias),
        fits.null_basis,
        facts,
        {"is_deg": is_deg, "null_energy": fits.null_energy},
        "reference's",
        {
            "validation_r2": facts["r2"],
            "source": f"fitted on the {len(sha256)} images of {folder}",
            **made.parsed("hidden", dict),
        },
        fits=fits,
        training=frozenset(sha256),
    )


def _texts(reference: Inputs, classifier: Classifier, space: Space) -> Texts:
    """The texts of a space, with the embeddings that a reference has stored, if any."""
    if not reference.path("texts").is_file():
        return space.texts
    stored, *_ = read_texts(reference, space.entry, space.device, classifier.class_names)
    return replace(space.texts, stored=stored.stored, made=stored.made)


def _hidden(found: Evidence, reference: Inputs, class_names: list[str]) -> dict[str, Any]:
    """What the hidden meaning is about, as fields of Setting: in sentences, and as a list of texts.

    It is looked for among the texts of a reference, and by the predicted classes.
    """
    measured = found.measured
    if found.verdict not in OPEN or measured.residuals is None:
        return {}
    predicted = np.array(class_names, dtype=object)[measured.residuals.predicted]
    groups = measured.groups(pd.Series(predicted)).assign(by="predicted")
    texts = pd.DataFrame(columns=TABLES["hidden_texts"])
    if reference.path("texts").is_file():
        listed, embeddings = reference.asked(None)
        texts = listed.join(measured.texts(embeddings), how="inner")
    return {"hidden": findings(texts, groups), "hidden_texts": hidden_texts(texts)}


def read_translator(
    given: "Path | Translator | Evidence", classifier: Classifier, space: Space
) -> Loaded:
    """A model and a space, with a translator of a file or in memory, or with evidence.

    Evidence also has the verdict, the scores of its images, and fits to them.
    """
    facts, known, fits, whose = None, {}, None, "reference's"
    translator: Affine
    stated: Mapping[str, Any]
    if isinstance(given, Path):
        tensors, stated = read_linear(given)
        translator, source = Affine(**tensors), str(given)
        identity = classifier.entry.identity if classifier.entry else None
        model = Made(identity, classifier.weights_sha256)
        check_made(given, stated, model, Made(space.entry.identity))
    elif isinstance(given, Evidence):
        translator, stated = given.fitted, given.stated
        source = f"fitted on {stated['n_train']} rows of the evidence"
        known = {name: given.images[name].to_numpy() for name in ("is_deg", "null_energy")}
        facts, fits, whose = given.facts, given.fits, "evidence's"
    else:
        translator, stated, source = given, given.facts, "translator in memory"
    shape = (space.entry.dim, classifier.weight.shape[1])
    if translator.weight.shape != shape:
        raise InputError(
            f"{source}: has shape {translator.weight.shape}, but {classifier.name} -> {space.name} "
            f"needs {shape}: name its own"
        )
    r2 = stated.get("validation_r2")
    setting = {"validation_r2": None if r2 is None else float(r2), "source": source}
    basis = null_space(classifier.weight, stored=classifier.weight_dtype).basis
    return _loaded(
        classifier, space, space.texts, translator, basis, facts, known, whose, setting, fits=fits
    )


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
