"""A linear translator as a folder for others, and on the Hugging Face Hub."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from huggingface_hub import ModelCard, ModelCardData, ModelHubMixin, hf_hub_download
from numpy.typing import DTypeLike

from singflow.artifacts.files import FIX
from singflow.artifacts.tensors import SCHEMA_VERSION, write_tensors
from singflow.errors import InputError
from singflow.markdown import escaped
from singflow.translators.linear import FILE, read_linear
from singflow.translators.ridge import Affine

TAGS = ["linear", "null-space", "translator", "vision-language"]
# Of the translators of all folds, which are not written; a reference may be a private path.
OF_FOLDS = {"folds", "in_sample", "reference"}
ROUNDED = ("lambda", "validation_r2", "validation_cosine", "baseline_cosine")
ON_A_HUB = re.compile(r"(?:transformers/(?=[\w.-]+/)|(?=timm/))([\w.-]+/[\w.-]+)")


class Translator(Affine, ModelHubMixin, library_name="singflow", tags=TAGS):
    """A linear translator T f + c: weight (m, d), bias (m,), and facts about it.

    `from_pretrained`, `save_pretrained` and `push_to_hub` are those of
    `huggingface_hub.ModelHubMixin`. A folder or repository has linear.safetensors (float32, with
    the facts as metadata) and a model card, which says which facts are not stated.

    Parameters
    ----------
    weight, bias : ndarray
        The map: (m, d) and (m,).
    facts : mapping, optional
        What is known about the translator, for its file and its card. The card reads `model`,
        `model_id` (<source>/<id>) and `weights_sha256` of the classifier; `space`, `space_id`,
        `space_sha256`, and `classifier_sha256` of a space that a classifier's logits make;
        `fitted_on` (a text), `n_train` (rows), `lambda` (the relative penalty); `validation_r2`,
        `validation_cosine`, `baseline_cosine` and `n_validation`, of rows that the fit had not
        seen. A study's file has them all. In a file, all facts are texts.
    """

    facts: dict[str, Any]
    _hub_mixin_config: ClassVar[dict[str, Any]] = {}  # type: ignore[misc]  # facts are in the file

    def __init__(
        self, weight: np.ndarray, bias: np.ndarray, facts: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(weight, bias)
        self.facts = dict(facts or {})

    def astype(self, dtype: DTypeLike) -> Self:
        """The same map and facts in another type.

        Parameters
        ----------
        dtype : DTypeLike
            Type of weight and bias.

        Returns
        -------
        Translator
            A new translator.
        """
        made = Affine(self.weight, self.bias).astype(dtype)
        return type(self)(made.weight, made.bias, self.facts)

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read the translator in a file: of a study, imported, or saved.

        Parameters
        ----------
        path : Path or str
            A linear.safetensors: weight (m, d) and bias (m,), float32.

        Returns
        -------
        Translator
            The translator in the file, with the metadata of the file as its facts.

        Raises
        ------
        InputError
            When there is no such file, when it is damaged, or holds no linear translator.
        """
        path = Path(path)
        if not path.is_file():
            raise InputError(
                f"{path}: no such file: name a {FILE} that a study, import_translator or "
                "save_pretrained wrote, or use Translator.from_pretrained for a folder"
            )
        try:
            tensors, made = read_linear(path)
        except InputError as error:
            reason = str(error).removesuffix(f": {FIX}")
            raise InputError(f"{reason}: write or download it again") from None
        return cls(**tensors, facts=made)

    def save_pretrained(self, save_directory: Path | str, **options: Any) -> str | None:
        """Write linear.safetensors, README.md and config.json; those of a translator are replaced.

        Parameters
        ----------
        save_directory : Path or str
            The folder, which is made if it is not there.
        **options : Any
            Those of `ModelHubMixin.save_pretrained`.

        Returns
        -------
        str or None
            The address of the commit, with `push_to_hub=True`.

        Raises
        ------
        InputError
            When the arrays make no finite affine map in float32, or when the folder has a README.md
            that is no card of a translator, or the files of a study.
        """
        folder, shape = Path(save_directory), (self.weight.shape, self.bias.shape)
        made = self.astype(np.float32)
        finite = np.isfinite(made.weight).all() and np.isfinite(made.bias).all()
        if self.weight.ndim != 2 or shape[1] != shape[0][:1] or not finite:
            raise InputError(
                f"weight {shape[0]} and bias {shape[1]} make no affine map of finite float32 "
                "values: give (m, d) and (m,)"
            )
        if (folder / "linear.json").exists():
            raise InputError(f"{folder}: holds the translator of a study: name another folder")
        readme = folder / "README.md"
        if readme.exists():
            text = readme.read_text(encoding="utf-8")
            if not text.startswith("---\n") or "\n- translator\n" not in text:
                raise InputError(
                    f"{readme}: is no card of a translator, and would be replaced by one: name "
                    "another folder"
                )
            readme.unlink()
        return super().save_pretrained(folder, **options)

    def _header(self) -> dict[str, str]:
        return {
            key: fact if isinstance(fact, str) else json.dumps(fact, default=np.generic.item)
            for key, fact in self.facts.items()
            if key not in OF_FOLDS
        } | {"schema_version": SCHEMA_VERSION, "kind": "linear"}

    def _save_pretrained(self, save_directory: Path) -> None:
        made = self.astype(np.float32)
        tensors = {"weight": made.weight, "bias": made.bias}
        write_tensors(save_directory / FILE, tensors, self._header())

    @classmethod
    def _from_pretrained(
        cls, *, model_id: str, revision: str | None = None, **options: Any
    ) -> Self:
        folder = Path(model_id)
        if not folder.is_dir():
            return cls.load(hf_hub_download(model_id, FILE, revision=revision, **options))
        if revision is not None:
            raise InputError(
                f"{folder}: is a folder, which has no revision {revision!r}: leave revision out, "
                "or name a repository"
            )
        return cls.load(folder / FILE)

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """The card: what the translator is, how it was made, how good it is, how to use it.

        Parameters
        ----------
        *args, **kwargs : Any
            Those of `ModelHubMixin`, which are not used.

        Returns
        -------
        huggingface_hub.ModelCard
            The card.
        """
        header = self._header()
        rows, columns = self.weight.shape
        data = self._hub_mixin_info.model_card_data.to_dict()
        if on_a_hub := ON_A_HUB.fullmatch(header.get("model_id", "")):
            data["base_model"] = on_a_hub[1]
        weights, known = header.get("weights_sha256"), header.get("classifier_sha256")
        return ModelCard.from_template(
            ModelCardData(**data),
            template_path=str(Path(__file__).with_name("card.md")),
            facts={key: _shown(key, fact) for key, fact in header.items() if fact != "null"},
            known_zero=weights is not None and weights == known,
            rows=rows,
            columns=columns,
        )


def _shown(key: str, fact: str) -> str:
    try:
        return f"{float(fact):.4g}" if key in ROUNDED else escaped(fact)
    except ValueError:
        return escaped(fact)
