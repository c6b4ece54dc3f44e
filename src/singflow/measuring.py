"""The test of meaning as one call on arrays."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pydantic import ValidationError
from threadpoolctl import threadpool_limits

from singflow.analyses.evidence import EvidenceSettings
from singflow.analyses.fits import fit
from singflow.analyses.floor import Refitting, SplitHead
from singflow.analyses.geometry import null_energy, null_space
from singflow.analyses.hidden import Question
from singflow.analyses.metrics import NullRemoval, unit
from singflow.analyses.summary import verdict
from singflow.artifacts.tensors import stored_precision
from singflow.config.reading import explain
from singflow.config.registry import few, positions
from singflow.data.arrays import as_array, head_of, is_pair, matrix_of
from singflow.errors import InputError
from singflow.evidence import Evidence
from singflow.judging import judge
from singflow.translators.arrays import ArrayImages, clusters_of, folds_of, one_each
from singflow.translators.copies import copies_across_folds, near_copies, without
from singflow.translators.crossfit import WHOLE, CrossFitted
from singflow.translators.fitting import fit_quality, fit_translators, permuted_r2
from singflow.translators.parameters import Translation
from singflow.translators.reference import Pool, whole_features

if TYPE_CHECKING:
    from singflow.data.arrays import Array, Linear, Rows
    from singflow.translators.reference import Images

FITTED_ON = "features and embeddings that were given to singflow.measure"
OF_LEAK = ("unique_r2", "unique_r2_low", "unique_r2_high", "p")
UNIT = 1e-4  # how far the norm of a text may be from 1 without being brought to 1


def measure(
    features: Rows,
    head: Linear,
    embeddings: Rows,
    class_texts: Array | tuple[Array, Array] | None = None,
    *,
    groups: Iterable[Any] | None = None,
    labels: Iterable[Any] | None = None,
    texts: Array | Mapping[Any, Array] | None = None,
    reference: tuple[Rows, Rows] | None = None,
    controls: bool = False,
    folds: int | Iterable[int] = 5,
    seed: int = 0,
    margin: float = 0.005,
    draws: int = 20,
    confidence: float = 0.95,
    threads: int = 1,
) -> Evidence:
    """Does the null space of a head hold meaning that the logits do not tell?

    Parameters
    ----------
    features : array (n, d) or (n, v, d), or function
        Inputs of the head, of NumPy, PyTorch or a memory map. With v views of an image, the first
        is the image itself; translators are fitted on all of them. A function is called for each
        pass, and yields arrays of rows; memory then grows by 8 bytes a dimension of an embedding.
    head : array (C, d), pair of arrays (C, d) and (C,), or torch.nn.Linear
        The head: weight, and bias if it has one.
    embeddings : array (n, m) or (n, v, m), or function
        Embeddings of the same images, in the same order.
    class_texts : array (C, m), or pair of such arrays, optional
        Embeddings of the texts of the head's classes. Their means, weighted by the logits, are no
        hidden meaning. A second array has the same classes in other words, for the blind check.
    groups : sequence of n, optional
        Rows of one group (a patient, copies of an image) share a fold, and count as one image in
        intervals. Rows with equal embeddings always do.
    labels : sequence of n, optional
        Label of each image, for Evidence.groups(), and with `texts` for AS.
    texts : array (L, m), or mapping of labels to arrays (m,), optional
        Texts of the labels. Rows of an array belong to labels 0 to L - 1.
    reference : pair of features and embeddings, optional
        Other images of the same model and space. Translators are fitted on them alone. D is
        measured on them and on the images.
    controls : bool
        Whether the test is repeated with a known leak: the head cut to a twentieth of its classes.
        It takes twice the time. A head with fewer than 10 classes has none.
    folds : int, or sequence of the fold of each image
        Number of folds, at least 2. Folds of a reference come first.
    seed : int
        Of folds, planted leaks and draws.
    margin : float
        Share of the variance that D must exceed to be called meaning.
    draws : int
        Planted leaks of each size, and random signs behind the floor of IS.
    confidence : float
        Coverage of intervals; its complement is the level of the tests.
    threads : int
        Fits at once, which change no result.

    Returns
    -------
    Evidence
        The verdict, and all behind it.

    Raises
    ------
    InputError
        When an argument has another shape, or is not finite; the message names the argument.
    """
    settings = _settings(margin, draws, confidence, threads, seed)
    own = ArrayImages.read(features, embeddings)
    if not (reference is None or (isinstance(reference, tuple | list) and len(reference) == 2)):
        kind = type(reference).__name__
        raise InputError(f"reference: is a {kind}, not a pair: give (features, embeddings)")
    others = None if reference is None else ArrayImages.read(*reference, of="reference")
    if others is not None:
        widths = [[shape[1] for shape in images.shapes] for images in (others, own)]
        if widths[0] != widths[1]:
            raise InputError(
                f"reference: has features and embeddings of {widths[0]} columns, but those of the "
                f"images have {widths[1]}: give the same model and space"
            )
    width, dim = (shape[1] for shape in own.shapes)
    weight, bias = head_of(head, width)
    spelled = _class_texts(class_texts, len(weight), dim)
    listed = None if labels is None else one_each("labels", labels, len(own))
    label_texts = None if texts is None else _label_texts(texts, listed, dim)
    copies = clusters_of(Pool(own, others), groups)
    fold = folds_of(folds, copies, seed)
    theirs, mine = np.split(fold, [len(fold) - len(own)])
    others = others and others.placed(theirs, copies[: -len(own)])
    judge_head = partial(
        evidence_of,
        Pool(own.placed(mine, copies[-len(own) :]), others),
        question=Question(settings.margin, confidence, seed),
        label_texts=label_texts,
        labels=listed,
        folds=len(np.unique(fold)),
        draws=settings.draws,
        threads=threads,
    )
    found = judge_head((weight, bias), *spelled)
    if controls:
        found.facts["cut_head"] = None
        if value := few(len(weight)):
            kept = positions(value, len(weight))
            words = (None if texts is None else texts[kept] for texts in spelled)
            cut = judge_head((weight[kept], bias[kept]), *words, known={"known_leak": True})
            facts = {name: cut.facts[name] for name in (*OF_LEAK, "verdict")}
            found.facts["cut_head"] = {"classes": len(kept)} | facts
    return found


def evidence_of(
    pool: Pool[Any],
    head: tuple[np.ndarray, np.ndarray],
    class_texts: np.ndarray | None,
    others: np.ndarray | None,
    question: Question,
    *,
    label_texts: np.ndarray | None = None,
    labels: np.ndarray | None = None,
    folds: int,
    draws: int,
    threads: int,
    known: dict[str, bool] | None = None,
) -> Evidence:
    """Fit translators, and judge the images that are scored by them.

    head: weight (C, d) and bias (C,). labels: of the images. known: known_zero or known_leak, where
    the answer is known in advance.
    """
    weight, bias = head
    basis = null_space(weight, stored=stored_precision(weight)).basis
    split = SplitHead.split({"weight": weight, "bias": bias}, basis)
    alike: dict[str, Any] = dict.fromkeys(("left_out", "near_copies", "n_compared"))
    if pool.reference is not None:
        left_out = near_copies(pool.reference, pool.scored)
        pool = replace(pool, reference=without(pool.reference, left_out))
        alike["left_out"] = np.flatnonzero(left_out).tolist()
    else:
        alike["near_copies"], alike["n_compared"] = copies_across_folds(pool.scored, weight, bias)
    lambdas = list(Translation.model_validate({}).lambdas)
    with threadpool_limits(1), tempfile.TemporaryDirectory(prefix="singflow-") as scratch:
        crossed, means, chosen = fit_translators(pool.training, folds, lambdas)
        r2 = shown = max(point["validation_r2"] for point in chosen["alpha_curve"])
        if pool.reference is not None:
            n = len(pool.scored.manifest)
            crossed = CrossFitted.alone(crossed.whole, n)
            (own,) = fit_quality(pool.scored, crossed, means[WHOLE:], np.ones(n, dtype=bool))
            shown = own.agreement.r2(own.baseline)
        crossed = crossed.map(lambda affine: affine.astype(np.float32))
        stated = {"lambda": chosen["lambda"], "validation_r2": shown, "n_train": chosen["n_train"]}
        stated["fitted_on"] = FITTED_ON
        fitted = chosen["lambda"], r2
        how = Refitting(fitted, folds, lambdas, draws, question.seed, threads, Path(scratch))
        whole = crossed.whole
        found = judge(pool, split, whole, stated, class_texts, others, question, how)
        own_words = found.own_words
        fits = fit(pool.training, split, own_words, how) if basis.size and own_words else None
        scores = pd.DataFrame(_removal_scores(pool.scored, crossed, basis, label_texts))
        alike["permuted_r2"] = permuted_r2(pool.training, folds, lambdas)
    facts = found.facts | {"r2": r2, "lambda": chosen["lambda"], "validation_r2": shown, **alike}
    unknown = dict.fromkeys(("known_zero", "known_leak", "in_sample"), False)
    row = facts | unknown | (known or {}) | {"p_holm": facts["p"]}
    facts["verdict"] = verdict(row, 1 - question.confidence)
    images = scores.join(found.images.drop(columns="image_id"))
    source = f"fitted on {stated['n_train']} rows of the evidence"
    return replace(found, source=source, facts=facts, images=images, labels=labels, fits=fits)


def _removal_scores(
    images: Images, crossed: CrossFitted, basis: np.ndarray, texts: np.ndarray | None
) -> dict[str, np.ndarray]:
    """IS, null energy and, with texts (n, m) of the labels, AS of each image."""
    removed = NullRemoval(crossed, basis)
    names = ["is_deg", "null_energy", *(["as_deg"] if texts is not None else [])]
    scores = {name: np.empty(len(images.manifest)) for name in names}
    for ids, x in whole_features(images):
        removal = removed(x, ids)
        scores["is_deg"][ids] = removal.image_score()
        scores["null_energy"][ids] = null_energy(x, basis)
        if texts is not None:
            scores["as_deg"][ids] = removal.attribute_score(texts[ids])
    return scores


def _settings(
    margin: float, draws: int, confidence: float, threads: int, seed: int
) -> EvidenceSettings:
    if not (isinstance(confidence, float | np.floating) and 0 < confidence < 1):
        raise InputError(f"confidence: is {confidence!r}, but must be between 0 and 1")
    for name, value, least in (("threads", threads, 1), ("seed", seed, 0)):
        if not isinstance(value, int | np.integer) or value < least:
            raise InputError(f"{name}: is {value!r}, but must be a whole number from {least} on")
    try:
        return EvidenceSettings.model_validate({"margin": margin, "draws": draws})
    except ValidationError as error:
        raise InputError(explain(error, EvidenceSettings, "measure")) from None


def _text_rows(name: str, values: Any, dim: int) -> np.ndarray:
    """Embeddings of texts (n, dim), which have directions, in float64."""
    matrix = matrix_of(name, values, dim, "columns, as embeddings have")
    if not (there := np.linalg.norm(matrix, axis=1) > 0).all():
        row = int(np.argmin(there))
        raise InputError(f"{name}: row {row} is zero, and has no direction: embed its text anew")
    return matrix


def _class_texts(given: Any, classes: int, dim: int) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Unit texts of the classes, and of the classes in other words, in float64."""
    if given is None:
        return None, None
    pair = given if is_pair(given) else (given, None)
    found = []
    for texts in pair:
        if texts is not None:
            texts = _text_rows("class_texts", texts, dim)
            if len(texts) != classes:
                raise InputError(
                    f"class_texts: has {len(texts)} rows, but the head has {classes} classes: give "
                    "one text a row of the head"
                )
            if np.abs(np.linalg.norm(texts, axis=1) - 1).max() > UNIT:
                texts = unit(texts)
        found.append(texts)
    return found[0], found[1]


def _label_texts(texts: Any, labels: np.ndarray | None, dim: int) -> np.ndarray:
    """The text (n, m) of each image's label."""
    if labels is None:
        raise InputError("texts: are those of labels: give labels, too")
    named = isinstance(texts, Mapping)
    given = [as_array("texts", row) for row in texts.values()] if named else texts
    matrix = _text_rows("texts", given, dim)
    of = pd.Index([*texts] if named else range(len(matrix))).get_indexer(pd.Index(labels))
    if (of < 0).any():
        label = labels[int(np.argmin(of))]
        raise InputError(f"texts: has none of the label {label!r}: give one a label")
    return matrix[of].astype(np.float32)
