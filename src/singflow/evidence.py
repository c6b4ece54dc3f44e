"""What the test of meaning says about a model in a space, with all that a photo is judged by."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from singflow.analyses.evidence import OwnWords, Residuals
from singflow.analyses.hidden import TESTED, Question, by_group, by_text, judged
from singflow.analyses.metrics import centred_texts
from singflow.artifacts.files import FIX, read_json, staged, write_bytes, write_json
from singflow.artifacts.tensors import Tensors, provenance, read_tensors, write_tensors
from singflow.errors import InputError, in_one_line
from singflow.extras import explained
from singflow.markdown import as_list, escaped
from singflow.translators.ridge import Affine

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from singflow.analyses.fits import Fits
    from singflow.data.arrays import Array
    from singflow.translators.hub import Translator

# Fields of Evidence in a saved folder: CSV files, tensors, and tensors of their own fields.
TABLES = ("images", "planted", "hidden_texts", "hidden_groups")
PARTS = ("fitted", "own_words", "residuals", "fits")

UNASKED = Question(margin=0.0, confidence=1.0, seed=0)  # of a translator alone


@dataclass(frozen=True, eq=False, repr=False)
class Evidence:
    """What the test of meaning says about a model in a space.

    Shown, it is the verdict in a sentence with the numbers behind it. D is the share of the
    embeddings' variance that the null component adds to what the logits and the principal component
    tell. All shares are of this variance. Angles are in degrees. It holds no open file, and can be
    pickled and compared.

    Attributes
    ----------
    fitted : Affine
        The translator, of all training images. `translator` is the same for others.
    stated : mapping
        What is stated about the translator.
    source : str
        Where the translator is from, in words.
    facts : dict
        All numbers, by the names of evidence/<space>/<model>.json; empty for a translator alone.
    images : DataFrame
        A row an image: is_deg (IS, the angle by which its translation turns when the null
        component is removed), floor_is_deg (this angle where the null component tells nothing),
        null_energy, and with labels and their texts as_deg.
    planted : DataFrame
        A row a planted leak: kind, share, draw, unique_r2, unique_r2_low, p.
    question : Question
        Margin, confidence and seed of the tests.
    null_basis : ndarray (d, k) or None
        Basis of the null space.
    own_words : OwnWords or None
        What the logits spell.
    residuals : Residuals or None
        Errors of the read-outs, for texts() and groups(); a study keeps none.
    labels : ndarray or None
        Labels of the images.
    fits : Fits or None
        What a new image is compared with.
    seen : frozenset of str
        SHA-256 of the files of the training images, as far as they are known.
    hidden_texts, hidden_groups : DataFrame or None
        D by text and by group, where a study or a reference has looked.
    """

    fitted: Affine
    stated: Mapping[str, Any]
    source: str
    facts: dict[str, Any] = field(default_factory=dict)
    images: pd.DataFrame = field(default_factory=pd.DataFrame)
    planted: pd.DataFrame = field(default_factory=pd.DataFrame)
    question: Question = UNASKED
    null_basis: np.ndarray | None = None
    own_words: OwnWords | None = None
    residuals: Residuals | None = None
    labels: np.ndarray | None = None
    fits: Fits | None = None
    seen: frozenset[str] = frozenset()
    hidden_texts: pd.DataFrame | None = None
    hidden_groups: pd.DataFrame | None = None

    @classmethod
    def of(cls, translator: Translator) -> Evidence:
        """A translator alone, with which photos are translated and nothing is judged.

        Parameters
        ----------
        translator : Translator
            A linear translator.

        Returns
        -------
        Evidence
            Without facts.
        """
        affine = Affine(translator.weight, translator.bias)
        return cls(affine, dict(translator.facts), "translator in memory")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Evidence):
            return False
        (said, mine), (also, theirs) = self._content(), other._content()
        return (said, mine.keys()) == (also, theirs.keys()) and all(
            np.array_equal(mine[name], theirs[name], equal_nan=True) for name in mine
        )

    @cached_property
    def translator(self) -> Translator:
        """The translator; it needs huggingface_hub, which is loaded when it is first asked for."""
        from singflow.translators.hub import Translator

        return Translator(self.fitted.weight, self.fitted.bias, self.stated)

    @property
    def verdict(self) -> str:
        """The verdict.

        `meaning`: D exceeds the margin. `trace`: D is above 0, but not above the margin. `nothing
        found`: neither, and a planted leak of 10 % would have been found. `cannot tell`: it would
        not. `no null space`. Empty for a translator alone.
        """
        return str(self.facts.get("verdict", ""))

    @property
    def sentence(self) -> str:
        """Features or logits, in a sentence."""
        if not self.facts:
            return f"A translator without evidence: {self.source}"
        from singflow.analyses.findings import decision  # on whose words no step depends

        said = decision(self.facts, self.hidden_texts)
        return said[0].upper() + said[1:]

    @property
    def d(self) -> float | None:
        """D; None where there is no null space, or where images are too few."""
        return self.facts.get("unique_r2")

    @property
    def interval(self) -> tuple[float | None, float | None]:
        """The ends of the interval of D."""
        return self.facts.get("unique_r2_low"), self.facts.get("unique_r2_high")

    @property
    def p(self) -> float | None:
        """One-sided p for D above the margin."""
        return self.facts.get("p")

    @property
    def r2(self) -> float | None:
        """R2 of the translator on images that it has not seen; None if it is not known."""
        r2 = self.stated.get("validation_r2")
        return None if r2 is None else float(r2)

    @property
    def controls(self) -> pd.DataFrame:
        """D where the answer is known.

        The controls are the blind check (a known zero: what logits spell), the known leak (of
        `measure(controls=True)`) and planted leaks. Columns: control, share (of a planted leak),
        unique_r2 (mean D), meaning (share of the trials that are called meaning; NaN for the blind
        check).
        """
        level = 1 - self.question.confidence
        planted = self.planted.assign(meaning=self.planted["p"] <= level)
        table = planted.groupby(["kind", "share"], as_index=False)[["unique_r2", "meaning"]].mean()
        table = table.rename(columns={"kind": "control"}).assign(
            control="leak, " + table["kind"].where(table["share"] > 0, "none")
        )
        blind, leak = self.facts["blind_unique_r2"], self.facts.get("cut_head")
        rows = [] if blind is None else [("blind check", 0.0, blind, np.nan)]
        if leak:
            found = float(leak["p"] is not None and leak["p"] <= level)
            rows.append(("known leak", np.nan, leak["unique_r2"], found))
        first = pd.DataFrame(rows, columns=["control", "share", "unique_r2", "meaning"])
        return pd.concat([first, table], ignore_index=True) if rows else table

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
            all texts), and hidden: whether D exceeds the margin at the familywise level, where the
            verdict on the model is meaning.

        Raises
        ------
        InputError
            When shapes do not fit, when a value is not finite, or when there are no residuals.
        """
        from singflow.data.arrays import matrix_of

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
        tested = self.text_rows(centred)
        return self._by_verdict(pd.DataFrame({"text": listed}).join(tested, how="inner"))

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
            When there is not one label an image, or when there are no residuals.
        """
        residuals, own = self._tested(), len(self.images)
        n = self.facts["n"]
        of = self.labels if labels is None else np.array(list(labels), dtype=object)
        if of is None:
            of = np.zeros(n, np.int32) if residuals is None else residuals.predicted
        if of.shape not in ((n,), (own,)):
            raise InputError(f"labels: has shape {of.shape}, not ({own},): give one an image")
        series = pd.Series(of, dtype=object).set_axis(range(n - len(of), n)).reindex(range(n))
        return self._by_verdict(self.group_rows(series))

    def text_rows(self, embeddings: np.ndarray) -> pd.DataFrame:
        """D of each text; p is corrected within all of them.

        Parameters
        ----------
        embeddings : ndarray (T, m)
            Texts of centred_texts().

        Returns
        -------
        DataFrame
            A row a text, in their order.
        """
        return self._rows(by_text, embeddings)[[*TESTED, "hidden"]]

    def group_rows(self, groups: pd.Series) -> pd.DataFrame:
        """D within each group of all images of the test; p is corrected within the groups.

        Parameters
        ----------
        groups : Series
            The group of each image; None: of no group.

        Returns
        -------
        DataFrame
            A row a group, with columns group and n.
        """
        codes, names = pd.factorize(groups, sort=True)
        table = self._rows(by_group, codes, group=names)
        return table[["group", "n", *TESTED, "hidden"]]

    def _rows(
        self, test: Callable[..., pd.DataFrame], of: np.ndarray, **columns: Any
    ) -> pd.DataFrame:
        if (residuals := self._tested()) is not None:
            table = test(residuals, of, self.question).assign(**columns)
        else:
            kinds = {"group": object, "n": np.int64, **TESTED}
            table = pd.DataFrame(columns=[*kinds]).astype(kinds)
        return judged(table, self.question)

    def _by_verdict(self, table: pd.DataFrame) -> pd.DataFrame:
        """The largest D first; nothing is hidden unless the verdict opens texts and groups."""
        from singflow.analyses.findings import OPEN

        table = table.assign(hidden=table["hidden"] & (self.verdict in OPEN))
        return table.sort_values("unique_r2", ascending=False, kind="stable", ignore_index=True)

    def _tested(self) -> Residuals | None:
        """The residuals; None where there is no D, and so nothing to test."""
        if self.residuals is None and (not self.facts or self.d is not None):
            raise InputError(
                f"{self.source}: has no residuals, which texts and groups are tested by: call "
                "measure() with features and embeddings, as Study.rows() gives them"
            )
        return self.residuals

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
        """Write README.md, evidence.json, a CSV file a table, and evidence.safetensors.

        README.md is a card with the verdict. `load` reads the folder. `translator.save_pretrained`
        writes the translator for others.

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

    @classmethod
    def load(cls, folder: str | Path) -> Evidence:
        """Read what save() wrote.

        Parameters
        ----------
        folder : str or Path
            The folder.

        Returns
        -------
        Evidence
            Equal to the one that was saved.

        Raises
        ------
        InputError
            When a file is missing or damaged.
        """
        from singflow.analyses.fits import Fits

        folder = Path(folder)
        tensors, made = read_tensors(folder / "evidence.safetensors")
        facts, about = dict(read_json(folder / "evidence.json")), made.parsed("about", dict)
        del facts["sentence"]
        held: dict[str, Any] = {"null_basis": tensors.get("null_basis")}
        for name, kind in zip(PARTS, (Affine, OwnWords, Residuals, Fits), strict=True):
            part = {of.name: tensors.get(f"{name}.{of.name}") for of in fields(kind)}
            if any(tensor is not None for tensor in part.values()):
                held[name] = kind(**part)
        for name in TABLES:
            if (path := folder / f"{name}.csv").is_file():
                with in_one_line(f"{path}: not readable as CSV", FIX):
                    held[name] = pd.read_csv(path, keep_default_na=False, na_values=[""])
        labels, question = about.pop("labels"), about.pop("question")
        return cls(
            facts=facts,
            labels=None if labels is None else np.array(labels, dtype=object),
            question=Question(**question),
            seen=frozenset(about.pop("seen")),
            **about,
            **held,
        )

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
        texts, tensors = self._content()
        write_json(folder / "evidence.json", texts.pop("facts"))
        made = provenance([], about=texts.pop("about"))
        write_tensors(folder / "evidence.safetensors", tensors, made)
        for file, text in {**texts, "README.md": self._card(name)}.items():
            write_bytes(folder / file, text.encode())

    def _content(self) -> tuple[dict[str, Any], Tensors]:
        """What a folder keeps: facts, what is stated beside them, CSV files; and tensors."""
        about: dict[str, Any] = {"stated": dict(self.stated), "source": self.source}
        about |= {"question": asdict(self.question), "seen": sorted(self.seen)}
        about["labels"] = None if self.labels is None else self.labels.tolist()
        texts = {"facts": self.to_dict(), "about": json.dumps(about, default=_plain)}
        tables = {f"{name}.csv": getattr(self, name) for name in TABLES}
        texts |= {
            name: table.to_csv(index=False)
            for name, table in tables.items()
            if table is not None and len(table.columns)
        }
        parts = {name: part for name in PARTS if (part := getattr(self, name)) is not None}
        tensors = {"null_basis": self.null_basis} | {
            f"{name}.{key}": tensor for name in parts for key, tensor in vars(parts[name]).items()
        }
        return texts, {key: tensor for key, tensor in tensors.items() if tensor is not None}

    def _card(self, name: str) -> str:
        from huggingface_hub import ModelCardData

        tags = ["null-space", "evidence", "vision-language"]
        return f"""---
{ModelCardData(library_name="singflow", tags=tags).to_yaml()}
---

# {escaped(name)}

{as_list(repr(self))}

D is the share of the variance of embeddings by which the null component improves a read-out of the
embeddings from the logits and the principal component. `evidence.json` has all numbers,
`planted.csv` D of planted leaks, and `images.csv` the angles of each image.
`singflow.Evidence.load` reads this folder.
"""

    def __repr__(self) -> str:
        from singflow.analyses.findings import HIDES
        from singflow.analyses.summary import ALIKE, NAMED, NOTHING, TRIALS, detected
        from singflow.analyses.tables import with_interval
        from singflow.config.registry import LEAST

        facts, lines = self.facts, [self.sentence]
        if self.verdict == NOTHING:
            lines.append(HIDES)
        if self.d is not None:
            ends = (facts[f"unique_r2{end}"] for end in ("", "_low", "_high"))
            lines.append(
                f"D {with_interval(ends, 4)} of the variance of {facts['n']} embeddings (interval "
                f"by {len(facts['unique_r2_without'])} groups of images); p {facts['p']:.2g} for D "
                f"above the margin {facts['margin']:g}"
            )
            lines.append(
                f"called meaning in {TRIALS}: a leak of {detected(facts, 'detectable')} spread "
                f"evenly over the null space, of {detected(facts, 'detectable_first')} along its "
                "first direction"
            )
        if facts.get("blind_unique_r2") is not None:
            blind = with_interval([facts["blind_unique_r2"]], 4)
            lines.append(f"D where nothing is hidden (blind check): {blind}")
        if leak := facts.get("cut_head"):
            ends = (leak[f"unique_r2{end}"] for end in ("", "_low", "_high"))
            lines.append(
                f"{leak['verdict']}, in the head cut to {leak['classes']} classes: D "
                f"{with_interval(ends, 4)}"
            )
        elif "cut_head" in facts:
            lines.append(f"no known leak: a head is cut if it has {LEAST} classes")
        if self.r2 is not None:
            words = facts.get("r2_words")
            also = "" if words is None else f"; the classes' texts {words:.2f}"
            lines.append(f"R2 of the translator {self.r2:.2f}{also}")
        if left_out := facts.get("left_out"):
            named = ", ".join(map(str, left_out[:NAMED])) + ", ..." * (len(left_out) > NAMED)
            lines.append(
                f"left out of the fits: {len(left_out)} images of the reference that are near "
                f"copies of these images ({named})"
            )
        if (facts.get("near_copies") or 0) > ALIKE * (facts.get("n_compared") or 0):
            lines.append(
                f"{facts['near_copies']} of {facts['n_compared']} images have near copies in other "
                "folds, so R2 and D are too good: put rows that belong together into groups="
            )
        if facts.get("null_dim") and "is_deg" in self.images:
            lines.append(
                f"IS {self.images['is_deg'].mean():.1f} degrees; {facts['floor_is_deg']:.1f} for "
                "a null component without meaning"
            )
        if facts:
            total = facts["null_dim"] + facts["principal_dim"]
            lines.append(f"null space: {facts['null_dim']} of {total} dimensions")
        return "\n  ".join(lines)

    def _repr_markdown_(self) -> str:
        return as_list(repr(self))


def _plain(label: Any) -> Any:
    return label.item() if isinstance(label, np.generic) else str(label)
