"""List the translators at hand, and export a translator as a file with a model card for others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from singflow.analyses.fitting import fit_quality, fit_translators
from singflow.analyses.inputs import Inputs
from singflow.artifacts.catalog import CATALOG
from singflow.artifacts.files import Facts, read_json, sha256_of, write_bytes
from singflow.artifacts.tensors import SCHEMA_VERSION, read_tensors, write_tensors
from singflow.config.registry import read_model, read_space, resolve_models, resolve_spaces
from singflow.config.sections import LOCAL
from singflow.errors import InputError
from singflow.study import MODELS, SPACES
from singflow.translators.crossfit import WHOLE
from singflow.translators.linear import Translator
from singflow.translators.parameters import Translation as Settings
from singflow.translators.reference import PACKAGED, towers_in
from singflow.translators.released import EXPORTED, FIGURES, space_id
from singflow.translators.ridge import Affine

if TYPE_CHECKING:
    from singflow.config.registry import ModelEntry, SpaceEntry

CARD = "---\nlibrary_name: singflow"  # the first lines of a card
LEARNED_FROM = {
    "study": "the images of study {}",
    "packaged": "507 ImageNet images, one a class (the packaged reference)",
}


@dataclass(frozen=True)
class AtHand:
    """A translator, and what is known about it; None where something is unknown.

    origin: packaged, imported, or a results folder; r2: share of variance explained in images that
    it has not seen; rows: number of rows it was fitted on; weights_sha256: hash of the classifier;
    sha256: hash of the translator's file.
    """

    origin: str
    space: str
    model: str
    r2: float | None
    rows: int | None
    weights_sha256: str | None
    sha256: str | None


def at_hand(results: Path = Path("results")) -> Iterator[AtHand]:
    """Translators of the packaged reference, then imported ones, then those of studies."""
    for space, model in packaged():
        fitted = fit_packaged(space, model)
        yield AtHand("packaged", space, model, fitted.r2, fitted.rows, fitted.weights_sha256, None)
    imported = Path(LOCAL) / "translators"
    for path in sorted(imported.glob("*/**/*.safetensors")):
        made = read_tensors(path, [])[1]
        figures = {
            key: made.parsed(key, kind)
            for key, kind in (("validation_r2", float), ("n_train", int))
            if key in made
        }
        space, model = made["space"], made["model"]
        weights = made.get("weights_sha256")
        yield AtHand(
            "imported",
            space,
            model,
            figures.get("validation_r2"),
            figures.get("n_train"),
            weights,
            sha256_of(path),
        )
    for study in sorted(results.glob("*/")):
        for report, names in CATALOG["translator_report"].among(study):
            at = Inputs(study, names["model"], 1, names["space"]).path
            tensors, shard, facts = at("translator"), at("features"), read_json(report)
            if not tensors.is_file():
                continue
            weights = read_tensors(shard, [])[1].get("weights_sha256") if shard.is_file() else None
            r2, rows = facts.of_kind("validation_r2", float), facts.of_kind("n_train", int)
            of = str(study), names["space"], names["model"]
            yield AtHand(*of, r2, rows, weights, sha256_of(tensors))


def packaged() -> list[tuple[str, str]]:
    """Pairs of a space and a model that the packaged reference has."""
    models, spaces = towers_in(PACKAGED)
    return [(space, model) for space in spaces for model in models]


@dataclass(frozen=True)
class Exported:
    """A translator for others, what it was fitted for, and how good it is.

    model_id: <source>/<id>; space_id: as released.space_id() returns it; r2, cosine, baseline: on
    images that it has not seen; zero: whether the space is a function of the model's own logits.
    """

    translator: Affine
    model: str
    space: str
    model_id: str
    space_id: str
    weights_sha256: str
    space_sha256: str
    r2: float
    cosine: float
    baseline: float
    rows: int
    images: int
    penalty: float | None
    fitted_on: str
    zero: bool

    @property
    def metadata(self) -> dict[str, str]:
        """The header of the file, without software versions: equal translators give equal files."""
        *figures, fitted_on = FIGURES
        values = (self.r2, self.cosine, self.baseline, self.rows, self.images, self.penalty)
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": "linear",
            "model": self.model,
            "space": self.space,
            "model_id": self.model_id,
            "space_id": self.space_id,
            "weights_sha256": self.weights_sha256,
            "space_sha256": self.space_sha256,
            **{key: json.dumps(value) for key, value in zip(figures, values, strict=True)},
            fitted_on: self.fitted_on,
        }


def fit_packaged(space: str, model: str) -> Exported:
    """Fit a translator on the packaged reference, as a study with the default parameters does.

    R2 and cosines are measured by cross-validation over the folds.
    """
    if (space, model) not in packaged():
        known = (
            ", ".join(f"{known_model} for {name}" for name, known_model in packaged()) or "nothing"
        )
        raise InputError(
            f"the packaged reference has no {model} for {space}; it has {known}: "
            "name a study's results with --results, or one of these"
        )
    shards = [names["model"] for _, names in CATALOG["features"].among(PACKAGED)].count(model)
    inputs = Inputs(PACKAGED, model, shards, space)
    images = inputs.pairs
    settings = Settings.model_validate({})
    translators, means, facts = fit_translators(images, settings.folds, settings.lambdas)
    (found,) = fit_quality(images, translators, means, translators.map_index != WHOLE)
    models, spaces = resolve_models(MODELS, [model]), resolve_spaces(SPACES, [space])
    made = tuple(read_tensors(inputs.path(kind), [])[1] for kind in ("features", "embeddings"))
    figures = Facts(
        PACKAGED,
        {
            **found.facts("validation", len(translators.whole.bias)),
            "baseline_cosine": found.baseline.cosine,
            "n_train": facts["n_train"],
            "n_validation": found.agreement.n,
            "lambda": facts["lambda"],
        },
    )
    return _exported(
        translators.whole.astype("float32"),
        (space, spaces[space]),
        (model, models[model]),
        made,
        figures,
        LEARNED_FROM["packaged"],
    )


def of_study(results: Path, space: str, model: str) -> Exported:
    """A finished study's translator that was fitted on all training images."""

    at = Inputs(results, model, 1, space).path
    path = at("translator")
    if not path.is_file():
        known = [
            f"{names['space']}/{names['model']}"
            for _, names in CATALOG["translator_report"].among(results)
        ]
        fix = (
            f"it has {', '.join(known)}: name one of them with --space and --model"
            if known
            else "name a finished study's with --results"
        )
        raise InputError(f"{path}: no such file, so {results} has no such translator: {fix}")
    shards = [at("features"), at("embeddings")]
    if absent := [shard for shard in shards if not shard.is_file()]:
        raise InputError(
            f"{absent[0]}: not here, and it says with which weights the translator was fitted: "
            "`make fetch` brings it"
        )
    facts, made = (
        read_json(at("translator_report")),
        tuple(read_tensors(shard, [])[1] for shard in shards),
    )
    entries = read_space(at("space_entry")), read_model(at("model_entry"))
    reference = facts["reference"]
    if not facts["n_train"]:
        learned = "images that its makers chose: it was imported"
    elif reference == "packaged":
        learned = LEARNED_FROM["packaged"]
    else:  # of a reference's folder only the name, because its path is private
        learned = LEARNED_FROM["study"].format(
            Path(reference).name if reference else read_tensors(path, [])[1]["study"]
        )
    return _exported(
        Translator.load(path), (space, entries[0]), (model, entries[1]), made, facts, learned
    )


def _exported(
    translator: Affine,
    space: tuple[str, SpaceEntry],
    model: tuple[str, ModelEntry],
    made: tuple[Facts, ...],
    figures: Facts,
    learned: str,
) -> Exported:
    of_model, of_space = made
    return Exported(
        translator,
        model[0],
        space[0],
        f"{model[1].source}/{model[1].id}",
        space_id(space[1]),
        of_model["weights_sha256"],
        of_space["weights_sha256"],
        figures["validation_r2"],
        figures["validation_cosine"],
        figures["baseline_cosine"],
        figures["n_train"],
        figures["n_validation"],
        figures["lambda"],
        learned,
        of_space.get("classifier_sha256") == of_model["weights_sha256"],
    )


def export(exported: Exported, folder: Path) -> Path:
    """Write translator.safetensors and its card; refuses a folder that has another README.md."""
    path, readme = folder / EXPORTED, folder / "README.md"
    if readme.exists() and not readme.read_bytes().startswith(CARD.encode()):
        raise InputError(
            f"{readme}: is no card of a translator, and would be replaced by one: "
            "name another folder"
        )
    write_tensors(
        path,
        {"weight": exported.translator.weight, "bias": exported.translator.bias},
        exported.metadata,
    )
    write_bytes(readme, card(exported).encode())
    return path


def card(exported: Exported) -> str:
    """The card: what a translator is, how it was made, how good it is and how to use it."""
    shown, (rows, columns) = exported, exported.translator.weight.shape
    penalty = (
        ""
        if shown.penalty is None
        else f" by ridge regression with lambda {shown.penalty:g}, chosen by cross-validation,"
    )
    zero = (
        "\n**Known zero.** This space is a function of the model's own logits, "
        "so the null space can hide nothing in it.\n"
    )
    return f"""{CARD}
tags: [translator, null-space, vision-language, linear]
base_model: {shown.model_id}
---

# {shown.model} to {shown.space}

A linear map T f + c from the features of an image classifier, as its head takes them, \
to a vision-language space.
{zero if shown.zero else ""}
| | |
| --- | --- |
| model | `{shown.model_id}`, {columns} features |
| its weights | SHA-256 `{shown.weights_sha256}`, as `singflow` counts it |
| space | `{shown.space_id}`, {rows} dimensions |
| its image tower | SHA-256 `{shown.space_sha256}` |
| file | `{EXPORTED}`: weight ({rows}, {columns}) and bias ({rows},), float32 |

## From what

Fitted{penalty} on {shown.rows} rows of features and embeddings: {shown.fitted_on}.

## How good

On {shown.images} images, each translated by a fit that had not seen it: \
R² {shown.r2:.4f} (the mean embedding: 0), cosine
{shown.cosine:.4f} (the mean embedding: {shown.baseline:.4f}).

## How to use

```sh
singflow import_translator --release <this folder> \
--model {shown.model} --space {shown.space}
```

prints the line for `params.yaml`. Another model, other weights or another space are \
refused. In Python:

```python
from safetensors.numpy import load_file

translator = load_file("{EXPORTED}")
embedding = features @ translator["weight"].T + translator["bias"]  \
# features (n, {columns}) -> embeddings (n, {rows})
```
"""
