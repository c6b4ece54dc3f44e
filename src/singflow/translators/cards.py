"""A translator as a folder for others: linear.safetensors and its model card, README.md."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from singflow.artifacts.files import staged, write_bytes
from singflow.artifacts.tensors import SCHEMA_VERSION, write_tensors
from singflow.errors import InputError
from singflow.translators.ridge import Affine

FILE, CARD = "linear.safetensors", "README.md"
UNKNOWN = "not stated"
TAGS = ["translator", "null-space", "vision-language", "linear"]
# Of the translators of all folds, which are not written; a reference may be a private path.
OF_FOLDS = {"folds", "in_sample", "reference"}
ON_A_HUB = re.compile(r"(?:transformers/(?=[\w.-]+/)|(?=timm/))([\w.-]+/[\w.-]+)")


def save(translator: Affine, facts: Mapping[str, Any], folder: Path, name: str) -> None:
    """Write a translator and its card, which says that from_pretrained loads it by this name.

    If this is killed, no card is there that is not of the translator.
    """
    readme = folder / CARD
    own = front_matter(TAGS).removesuffix("---\n").encode()
    if readme.exists() and not readme.read_bytes().startswith(own):
        raise InputError(
            f"{readme}: is no card of a translator, and would be replaced by one: "
            "name another folder"
        )
    if (folder / "linear.json").exists():
        raise InputError(f"{folder}: holds the translator of a study: name another folder")
    tensors = _checked(translator)
    kept = {key: fact for key, fact in facts.items() if key not in OF_FOLDS}
    header = {key: _text(key, fact) for key, fact in kept.items()}
    header |= {"schema_version": SCHEMA_VERSION, "kind": "linear"}
    with staged(folder.resolve()) as made:
        write_tensors(made / FILE, tensors, header)
        write_bytes(made / CARD, card(header, translator.weight.shape, name).encode())
        folder.mkdir(exist_ok=True)
        readme.unlink(missing_ok=True)
        for file in (FILE, CARD):
            (made / file).replace(folder / file)


def _checked(translator: Affine) -> dict[str, np.ndarray]:
    """The tensors of a translator in float32."""
    weight, bias = translator.weight, translator.bias
    if weight.ndim != 2 or bias.shape != weight.shape[:1]:
        raise InputError(
            f"weight {weight.shape} and bias {bias.shape} make no affine map: give (m, d) and (m,)"
        )
    with np.errstate(over="ignore"):
        tensors = {"weight": weight.astype(np.float32), "bias": bias.astype(np.float32)}
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            row = int(np.argwhere(~np.isfinite(tensor))[0][0])
            raise InputError(
                f"{name} holds NaN or infinite values in float32, first in row {row}: "
                "fit the translator again"
            )
    return tensors


def _text(key: str, fact: Any) -> str:
    """A fact as the header of a file has it: texts as they are, others as JSON."""
    try:
        return fact if isinstance(fact, str) else json.dumps(fact, default=np.generic.item)
    except (TypeError, ValueError):
        raise InputError(
            f"facts: {key} is {type(fact).__name__}, which JSON has not: give a text or a number"
        ) from None


def front_matter(tags: list[str], base_model: str | None = None) -> str:
    """The first lines of a model card, which a hub reads."""
    data: dict[str, Any] = {"library_name": "singflow", "tags": tags}
    if base_model:
        data["base_model"] = base_model
    return f"---\n{yaml.safe_dump(data, sort_keys=False)}---\n"


def escaped(text: str) -> str:
    """A text as one line of Markdown that says nothing but this text, in a table, too."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return re.sub(r"([\\`*_\[\]<>|#~&$])", r"\\\1", line)


def card(header: Mapping[str, str], shape: tuple[int, ...], name: str) -> str:
    """The card: what a translator is, how it was made, how good it is and how to use it.

    header: metadata of its file. shape: (m, d). name: what from_pretrained loads it by.
    """
    rows, columns = shape

    def stated(key: str) -> str:
        return escaped(header[key]) if header.get(key, "null") != "null" else UNKNOWN

    def figure(key: str, form: str) -> str:
        try:
            return format(float(header[key]), form)
        except (KeyError, ValueError):
            return stated(key)

    on_a_hub = ON_A_HUB.fullmatch(header.get("model_id", ""))
    zero = ""
    if header.get("classifier_sha256", "") == header.get("weights_sha256"):
        zero = (
            "\n**Known zero.** This space was computed from the logits of this model, "
            "so the null space of its whole head cannot add anything to them.\n"
        )
    return f"""{front_matter(TAGS, on_a_hub[1] if on_a_hub else None)}
# {stated("model")} to {stated("space")}

A linear map T f + c from the features of an image classifier, as its head takes them, \
to a vision-language space.
{zero}
| | |
| --- | --- |
| model | {stated("model_id")}; {columns} features |
| its weights | SHA-256, as `singflow` counts it: {stated("weights_sha256")} |
| space | {stated("space_id")}; {rows} dimensions |
| its image tower | SHA-256: {stated("space_sha256")} |
| fitted on | {stated("fitted_on")} |
| rows of features and embeddings | {stated("n_train")} |
| penalty of the ridge regression | lambda, relative: {figure("lambda", "g")} |
| R² | {figure("validation_r2", ".4f")} (the mean embedding: 0) |
| cosine | {figure("validation_cosine", ".4f")} \
(the mean embedding: {figure("baseline_cosine", ".4f")}) |
| images of R² and cosine, which the fit had not seen | {stated("n_validation")} |
| file | `{FILE}`: weight ({rows}, {columns}) and bias ({rows},), float32 |

## How to use

```python
import singflow

translator = singflow.Translator.from_pretrained({json.dumps(name)})
embeddings = translator(features)  # (n, {columns}) -> (n, {rows})
```

In a study, `singflow import_translator --release <this folder> --model <model> \
--space <space>` prints the line for `params.yaml`. Another model, other weights or another space \
are refused.
"""
