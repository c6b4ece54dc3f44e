"""The test of meaning as one call on arrays."""

from __future__ import annotations

import html
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pydantic import ValidationError
from threadpoolctl import threadpool_limits

from singflow.analyses.evidence import EvidenceSettings
from singflow.analyses.fits import Fits, fit
from singflow.analyses.floor import Refitting, SplitHead
from singflow.analyses.geometry import null_energy, null_space
from singflow.analyses.measured import Measured
from singflow.analyses.measured import measure as measure_pool
from singflow.analyses.metrics import NullRemoval, centred_texts, unit
from singflow.analyses.summary import TRIALS, detected, verdict, verdict_words
from singflow.analyses.tables import with_interval
from singflow.artifacts.files import staged, write_bytes, write_json
from singflow.artifacts.tensors import stored_precision
from singflow.config.reading import explain
from singflow.data.arrays import as_array, head_of, is_pair, matrix_of
from singflow.errors import InputError
from singflow.extras import explained
from singflow.translators.arrays import ArrayImages, clusters_of, folds_of, one_each
from singflow.translators.crossfit import CrossFitted
from singflow.translators.fitting import fit_translators
from singflow.translators.parameters import Translation
from singflow.translators.reference import Pool
from singflow.translators.ridge import Affine

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from singflow.data.arrays import Array, Linear, Rows
    from singflow.translators.hub import Translator
    from singflow.translators.reference import Images

FITTED_ON = "features and embeddings that were given to singflow.measure"
UNIT = 1e-4  # how far the norm of a text may be from 1 without being brought to 1


@dataclass(frozen=True, repr=False)
class Evidence:
    """What the test of meaning says about a model in a space.

    Shown, it is the verdict in a sentence with the numbers behind it. D is the share of the
    embeddings' variance that the null component adds to what the logits and the principal component
    tell. All shares are of this variance. Angles are in degrees.

    Attributes
    ----------
    verdict : str
        `meaning`: D exceeds the margin. `trace`: D is above 0, but not above the margin. `nothing
        found`: neither, and a planted leak of 10 % would have been found. `cannot tell`: it would
        not. `no null space`.
    facts : dict
        All numbers, by the names of evidence/<space>/<model>.json.
    images : DataFrame
        A row an image: is_deg (IS, the angle by which its translation turns when the null
        component is removed), floor_is_deg (this angle where the null component tells nothing),
        null_energy, and with labels and their texts as_deg.
    translator : Translator
        Ridge regression from features to embeddings, fitted on all images. It needs
        huggingface_hub, which is loaded when it is first asked for.
    """

    facts: dict[str, Any]
    images: pd.DataFrame
    fitted: Affine = field(compare=False)
    stated: dict[str, Any] = field(compare=False)
    measured: Measured = field(compare=False)
    labels: np.ndarray | None = field(compare=False)
    refit: Callable[[Path], Fits] = field(compare=False)

    @cached_property
    def fits(self) -> Fits:
        """What a new image is compared with; the data are read anew when it is first asked for."""
        with threadpool_limits(1), tempfile.TemporaryDirectory(prefix="singflow-") as scratch:
            return self.refit(Path(scratch))

    @cached_property
    def translator(self) -> Translator:
        from singflow.translators.hub import Translator

        return Translator(self.fitted.weight, self.fitted.bias, self.stated)

    @property
    def verdict(self) -> str:
        return str(self.facts["verdict"])

    @property
    def sentence(self) -> str:
        """The verdict in a sentence."""
        said = verdict_words(self.facts)
        return said[0].upper() + said[1:]

    @property
    def d(self) -> float | None:
        """D; None where there is no null space, or where images are too few."""
        return self.facts["unique_r2"]

    @property
    def interval(self) -> tuple[float | None, float | None]:
        """The ends of the interval of D."""
        return self.facts["unique_r2_low"], self.facts["unique_r2_high"]

    @property
    def p(self) -> float | None:
        """One-sided p for D above the margin."""
        return self.facts["p"]

    @property
    def turn_deg(self) -> float | None:
        """D as an angle."""
        return self.facts["turn_deg"]

    @property
    def detectable(self) -> float | None:
        """The smallest planted leak, spread over all null directions, found in 9 of 10 trials."""
        return self.facts["detectable"]

    @property
    def gain(self) -> float | None:
        """D of a planted leak, divided by its true share."""
        return self.facts["gain"]

    @property
    def r2(self) -> float:
        """Cross-validated R2 of the translator."""
        return float(self.facts["r2"])

    @property
    def own_words_r2(self) -> float | None:
        """Share that the texts of the classes explain, weighted by the logits; None without."""
        return self.facts["r2_words"]

    @property
    def controls(self) -> pd.DataFrame:
        """D where the answer is known: of what logits spell (blind check), and of planted leaks.

        Columns: control, share (of the leak), unique_r2 (mean D), meaning (share of the trials that
        are called meaning; NaN for the blind check, which is one).
        """
        level = 1 - self.measured.question.confidence
        planted = self.measured.planted.assign(meaning=self.measured.planted["p"] <= level)
        table = planted.groupby(["kind", "share"], as_index=False)[["unique_r2", "meaning"]].mean()
        table = table.rename(columns={"kind": "control"}).assign(
            control="leak, " + table["kind"].where(table["share"] > 0, "none")
        )
        blind = self.facts["blind_unique_r2"]
        if blind is None:
            return table
        row = {"control": "blind check", "share": 0.0, "unique_r2": blind, "meaning": np.nan}
        return pd.concat([pd.DataFrame([row]), table], ignore_index=True)

    def texts(
        self, embeddings: Array, names: Iterable[str], kinds: Iterable[str] | None = None
    ) -> pd.DataFrame:
        """Which texts name hidden meaning.

        Parameters
        ----------
        embeddings : array (T, m)
            Embeddings of texts in the space.
        names : sequence of str
            The T texts.
        kinds : sequence of str, optional
            Texts of one kind have one template, and are centred together. By default, all are.

        Returns
        -------
        DataFrame
            A row a text, the largest D first: text, unique_r2 with its interval, p (corrected for
            all texts), and hidden: whether D exceeds the margin at the familywise level.

        Raises
        ------
        InputError
            When shapes do not fit, or when a value is not finite.
        """
        listed = list(names)
        found = matrix_of("embeddings", embeddings, len(self.fitted.bias), "dimensions")
        if len(listed) != len(found):
            raise InputError(
                f"names: holds {len(listed)} texts, but embeddings has {len(found)} rows: give one "
                "name a row"
            )
        of = pd.Series(list(kinds) if kinds is not None else [""] * len(listed), dtype=object)
        if len(of) != len(listed):
            raise InputError(f"kinds: holds {len(of)}, not {len(listed)}: give one a text")
        if of.isna().any():
            raise InputError(f"kinds: row {int(of.isna().argmax())} has none: give one a text")
        centred = np.empty(found.shape)
        for rows in of.groupby(of).indices.values():
            centred[rows] = centred_texts(found[rows])
        table = pd.DataFrame({"text": listed}).join(self.measured.texts(centred), how="inner")
        return table.sort_values("unique_r2", ascending=False, kind="stable", ignore_index=True)

    def groups(self, labels: Iterable[Any] | None = None) -> pd.DataFrame:
        """In which groups of images the hidden meaning is.

        Parameters
        ----------
        labels : sequence, optional
            The group of each image; None: of no group. By default the labels given to measure(), or
            else the predicted classes.

        Returns
        -------
        DataFrame
            A row a group: group, n (images), unique_r2 within them with its interval, p (corrected
            for all groups), and hidden. Groups of fewer than 10 images have no p.

        Raises
        ------
        InputError
            When there is not one label an image.
        """
        n, own = len(self.measured.copies), len(self.images)
        of = self.labels if labels is None else np.array(list(labels), dtype=object)
        if of is None:
            residuals = self.measured.residuals
            of = np.zeros(n, np.int32) if residuals is None else residuals.predicted
        if of.shape not in ((n,), (own,)):
            raise InputError(f"labels: has shape {of.shape}, not ({own},): give one an image")
        series = pd.Series(of, dtype=object).set_axis(range(n - len(of), n)).reindex(range(n))
        table = self.measured.groups(series)
        return table.sort_values("unique_r2", ascending=False, kind="stable", ignore_index=True)

    def plot(self) -> Figure:
        """D beside planted leaks, and IS beside its floor."""
        with explained():
            from singflow.figures.evidence import draw
            from singflow.figures.style import shown

        return shown(draw(self.facts, self.controls, self.images))

    def to_dict(self) -> dict[str, Any]:
        """The facts, as values that JSON can hold."""
        return {**self.facts, "sentence": self.sentence}

    def to_frame(self) -> pd.DataFrame:
        """The facts in one row, without those that are lists."""
        row = {k: v for k, v in self.to_dict().items() if not isinstance(v, list | dict)}
        return pd.DataFrame([row])

    def save(self, folder: str | Path) -> None:
        """Write README.md, evidence.json, images.csv and controls.csv.

        README.md is a card with the verdict. `translator.save_pretrained` writes the translator.

        Parameters
        ----------
        folder : str or Path
            A new or empty folder. All files are written, or none.

        Raises
        ------
        InputError
            When the folder holds files.
        """
        folder = Path(folder)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(f"{folder}: holds files: remove it, or name another folder")
        with staged(folder.resolve()) as made:
            self._write(made, folder.name)
            made.rename(folder.resolve())

    def push_to_hub(
        self,
        repo_id: str,
        *,
        branch: str | None = None,
        token: str | None = None,
        private: bool | None = None,
        commit_message: str = "Add evidence",
    ) -> str:
        """Write the files of save() into a repository of the Hugging Face Hub, as one commit.

        Parameters
        ----------
        repo_id : str
            The repository: <owner>/<name>. It is made if it is not there.
        branch : str, optional
            A branch of the repository; by default main.
        token, private, commit_message
            As in `create_repo` and `upload_folder` of `huggingface_hub.HfApi`.

        Returns
        -------
        str
            The address of the commit.
        """
        from huggingface_hub import HfApi

        api = HfApi(token=token)
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        with tempfile.TemporaryDirectory(prefix="singflow-") as made:
            self._write(Path(made), repo_id)
            done = api.upload_folder(
                repo_id=repo_id, folder_path=made, revision=branch, commit_message=commit_message
            )
        return done.commit_url

    def _write(self, folder: Path, name: str) -> None:
        write_json(folder / "evidence.json", self.to_dict())
        for table, rows in {"images": self.images, "controls": self.controls}.items():
            write_bytes(folder / f"{table}.csv", rows.to_csv(index=False).encode())
        write_bytes(folder / "README.md", self._card(name).encode())

    def _card(self, name: str) -> str:
        from huggingface_hub import ModelCardData

        from singflow.translators.hub import escaped

        tags = ["null-space", "evidence", "vision-language"]
        first, *lines = (escaped(line) for line in repr(self).splitlines())
        listed = "\n".join(f"- {line}" for line in lines)
        return f"""---
{ModelCardData(library_name="singflow", tags=tags).to_yaml()}
---

# {escaped(name)}

**{first}**

{listed}

D is the share of the variance of embeddings by which the null component improves a read-out of the
embeddings from the logits and the principal component. `evidence.json` has all numbers,
`controls.csv` D of planted leaks, and `images.csv` the angles of each image. Computed with
`singflow.measure`.
"""

    def __repr__(self) -> str:
        facts = self.facts
        lines = [self.sentence]
        if self.d is not None:
            ends = (facts[f"unique_r2{end}"] for end in ("", "_low", "_high"))
            lines.append(
                f"D {with_interval(ends, 4)} of the variance of {facts['n']} embeddings; p "
                f"{facts['p']:.2g} for D above the margin {facts['margin']:g}"
            )
            lines.append(
                f"called meaning in {TRIALS}: a leak of {detected(facts, 'detectable')} spread "
                f"evenly over the null space, of {detected(facts, 'detectable_first')} along its "
                "first direction"
            )
        if facts["blind_unique_r2"] is not None:
            said = with_interval([facts["blind_unique_r2"]], 4)
            lines.append(f"D where nothing is hidden (blind check): {said}")
        words = "" if self.own_words_r2 is None else f"; the classes' texts {self.own_words_r2:.2f}"
        lines.append(f"R2 of the translator {self.r2:.2f}{words}")
        if facts["null_dim"]:
            lines.append(
                f"IS {self.images['is_deg'].mean():.1f} degrees; {facts['floor_is_deg']:.1f} for "
                "a null component without meaning"
            )
        total = facts["null_dim"] + facts["principal_dim"]
        lines.append(f"null space: {facts['null_dim']} of {total} dimensions")
        return "\n  ".join(lines)

    def _repr_html_(self) -> str:
        first, *lines = (html.escape(line.strip()) for line in repr(self).splitlines())
        return f"<b>{first}</b><ul>{''.join(f'<li>{line}</li>' for line in lines)}</ul>"


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
        pass, and yields arrays of rows; memory then does not grow with n.
    head : array (C, d), pair of arrays (C, d) and (C,), or torch.nn.Linear
        The head: weight, and bias if it has one.
    embeddings : array (n, m) or (n, v, m), or function
        Embeddings of the same images, in the same order.
    class_texts : array (C, m), or pair of such arrays, optional
        Embeddings of the texts of the head's classes. Their means, weighted by the logits, are no
        hidden meaning. A second array has the same classes in other words, for the blind check.
    groups : sequence of n, optional
        Rows of one group (a patient, copies of an image) share a fold. Rows with equal embeddings
        always do.
    labels : sequence of n, optional
        Label of each image, for Evidence.groups(), and with `texts` for AS.
    texts : array (L, m), or mapping of labels to arrays (m,), optional
        Texts of the labels. Rows of an array belong to labels 0 to L - 1.
    reference : pair of features and embeddings, optional
        Other images of the same model and space. Translators are fitted on them alone. D is
        measured on them and on the images.
    folds : int, or sequence of the fold of each image
        Number of folds, at least 2; intervals need 3. Folds of a reference come first.
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
    return evidence_of(
        Pool(own.with_folds(mine), None if others is None else others.with_folds(theirs)),
        (weight, bias),
        *spelled,
        copies,
        settings,
        label_texts=label_texts,
        labels=listed,
        folds=len(np.unique(fold)),
        confidence=confidence,
        seed=seed,
        threads=threads,
    )


def evidence_of(
    pool: Pool[Any],
    head: tuple[np.ndarray, np.ndarray],
    class_texts: np.ndarray | None,
    others: np.ndarray | None,
    copies: np.ndarray,
    settings: EvidenceSettings,
    *,
    label_texts: np.ndarray | None = None,
    labels: np.ndarray | None = None,
    folds: int,
    confidence: float,
    seed: int,
    threads: int,
    known: dict[str, bool] | None = None,
) -> Evidence:
    """Evidence of the images that are scored; see measure() of analyses/measured.py.

    head: weight (C, d) and bias (C,). labels: of the images. known: known_zero or known_leak, where
    the answer is known in advance.
    """
    weight, bias = head
    basis = null_space(weight, stored=stored_precision(weight)).basis
    split = SplitHead.split({"weight": weight, "bias": bias}, basis)
    lambdas = list(Translation.model_validate({}).lambdas)
    with threadpool_limits(1), tempfile.TemporaryDirectory(prefix="singflow-") as scratch:
        crossed, _, chosen = fit_translators(pool.training, folds, lambdas)
        crossed = crossed.map(lambda affine: affine.astype(np.float32))
        r2 = max(point["validation_r2"] for point in chosen["alpha_curve"])
        fitted = chosen["lambda"], r2
        how = Refitting(fitted, folds, lambdas, settings.draws, seed, threads, Path(scratch))
        found = measure_pool(
            pool, split, class_texts, others, copies, settings.margin, how, confidence=confidence
        )
        if pool.reference is not None:
            crossed = CrossFitted.alone(crossed.whole, len(pool.scored.manifest))
        scores = pd.DataFrame(_removal_scores(pool.scored, crossed, basis, label_texts))
    facts = found.facts | {"r2": r2, "lambda": chosen["lambda"]}
    unknown = dict.fromkeys(("known_zero", "known_leak", "in_sample"), False)
    row = facts | unknown | (known or {}) | {"validation_r2": r2, "p_holm": facts["p"]}
    facts["verdict"] = verdict(row, 1 - confidence)
    images = scores.join(found.floors.drop(columns="image_id"))
    stated = {"lambda": chosen["lambda"], "validation_r2": r2, "n_train": chosen["n_train"]}
    stated["fitted_on"] = FITTED_ON

    def refit(folder: Path) -> Fits:
        return fit(pool.training, split, found.own_words, replace(how, folder=folder))

    return Evidence(facts, images, crossed.whole, stated, found, labels, refit)


def _removal_scores(
    images: Images, crossed: CrossFitted, basis: np.ndarray, texts: np.ndarray | None
) -> dict[str, np.ndarray]:
    """IS, null energy and, with texts (n, m) of the labels, AS of each image."""
    removed = NullRemoval(crossed, basis)
    names = ["is_deg", "null_energy", *(["as_deg"] if texts is not None else [])]
    scores = {name: np.empty(len(images.manifest)) for name in names}
    for shard, _ in images:
        rows = shard["view"] == 0
        ids, x = shard["image_id"][rows], shard["features"][rows]
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
