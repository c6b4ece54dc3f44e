"""List the translators at hand, and export a translator with its model card for others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from singflow.analyses.inputs import Inputs, known_answer
from singflow.artifacts.catalog import CATALOG
from singflow.artifacts.files import read_json, sha256_of
from singflow.artifacts.shards import towers_in
from singflow.artifacts.tensors import read_tensors
from singflow.config.registry import (
    ModelEntry,
    SpaceEntry,
    read_model,
    read_space,
    resolve_models,
    resolve_spaces,
)
from singflow.config.sections import LOCAL
from singflow.errors import InputError
from singflow.study import MODELS, SPACES
from singflow.translators.cards import FILE
from singflow.translators.crossfit import WHOLE
from singflow.translators.fitting import fit_quality, fit_translators
from singflow.translators.linear import Translator
from singflow.translators.parameters import Translation
from singflow.translators.reference import reference_folder
from singflow.translators.released import FIGURES, FITTED_ON, space_id
from singflow.translators.ridge import Affine

LEARNED_FROM = {
    "study": "the images of study {}",
    "packaged": "507 ImageNet images, one a class (the packaged reference)",
}


@dataclass(frozen=True)
class AvailableTranslator:
    """A translator, and what is known about it; None where something is unknown."""

    origin: str  # packaged, imported, or a results folder
    space: str
    model: str
    r2: float | None  # share of variance explained in images that it has not seen
    rows: int | None  # on which it was fitted
    weights_sha256: str | None  # of the classifier
    sha256: str | None  # of the translator's file


def available_translators(results: Path = Path("results")) -> Iterator[AvailableTranslator]:
    """Translators of the packaged reference, then imported ones, then those of studies."""
    for space, model in packaged():
        fitted = fit_packaged(space, model)
        r2, rows = fitted.figures["validation_r2"], fitted.figures["n_train"]
        yield AvailableTranslator(
            "packaged", space, model, r2, rows, fitted.made_for["weights_sha256"], None
        )
    for path in sorted(Path(LOCAL, "translators").glob("*/**/*.safetensors")):
        made = read_tensors(path, [])[1]
        r2 = made.parsed("validation_r2", float) if "validation_r2" in made else None
        rows = made.parsed("n_train", int) if "n_train" in made else None
        named = made["space"], made["model"], r2, rows, made.get("weights_sha256")
        yield AvailableTranslator("imported", *named, sha256_of(path))
    for study in sorted(results.glob("*/")):
        for report, names in CATALOG["translator_report"].among(study):
            at = Inputs(study, names["model"], names["space"]).path
            path, shard, facts = at("translator"), at("features"), read_json(report)
            if not path.is_file():
                continue
            weights = read_tensors(shard, [])[1].get("weights_sha256") if shard.is_file() else None
            r2, rows = facts.of_kind("validation_r2", float), facts.of_kind("n_train", int)
            of = str(study), names["space"], names["model"]
            yield AvailableTranslator(*of, r2, rows, weights, sha256_of(path))


def packaged() -> list[tuple[str, str]]:
    """Pairs of a space and a model that the packaged reference has."""
    models, spaces = towers_in(reference_folder("packaged"))
    return [(space, model) for space in spaces for model in models]


@dataclass(frozen=True)
class Exported:
    """A translator for others."""

    translator: Affine
    made_for: dict[str, str]  # the model, the space and their weights
    figures: dict[str, Any]  # how good it is on images that it has not seen
    fitted_on: str
    zero: bool  # whether the space is a function of the model's own logits

    @property
    def facts(self) -> dict[str, Any]:
        """Without software versions: equal translators give equal files."""
        facts = self.made_for | self.figures | {FITTED_ON: self.fitted_on}
        return facts | {"known_zero": True} if self.zero else facts


def fit_packaged(space: str, model: str) -> Exported:
    """Fit a translator on the packaged reference, as a study with the default parameters does.

    R2 and cosines are measured by cross-validation over the folds.
    """
    if (space, model) not in packaged():
        known = ", ".join(f"{name} for {other}" for other, name in packaged()) or "nothing"
        raise InputError(
            f"the packaged reference has no {model} for {space}; it has {known}: "
            "name a study's results with --results, or one of these"
        )
    folder = reference_folder("packaged")
    inputs = Inputs(folder, model, space)
    images, settings = inputs.pairs, Translation.model_validate({})
    translators, means, facts = fit_translators(images, settings.folds, settings.lambdas)
    (found,) = fit_quality(images, translators, means, translators.member_of != WHOLE)
    figures = facts | found.facts("validation", len(translators.whole.bias))
    figures |= {"baseline_cosine": found.baseline.cosine, "n_validation": found.agreement.n}
    return _exported(
        translators.whole.astype("float32"),
        inputs,
        resolve_models(MODELS, [model])[model],
        resolve_spaces(SPACES, [space])[space],
        figures,
        LEARNED_FROM["packaged"],
    )


def of_study(results: Path, space: str, model: str) -> Exported:
    """A finished study's translator that was fitted on all training images."""
    inputs = Inputs(results, model, space)
    path = inputs.path("translator")
    if not path.is_file():
        reports = CATALOG["translator_report"].among(results)
        known = ", ".join(f"{names['space']}/{names['model']}" for _, names in reports)
        fix = "name a finished study's with --results"
        if known:
            fix = f"it has {known}: name one of them with --space and --model"
        raise InputError(f"{path}: no such file, so {results} has no such translator: {fix}")
    for shard in (inputs.path("features"), inputs.path("embeddings")):
        if not shard.is_file():
            raise InputError(
                f"{shard}: not here, and it says with which weights the translator was fitted: "
                "`make fetch` brings it"
            )
    facts = read_json(inputs.path("translator_report"))
    reference = facts["reference"]
    if not facts["n_train"]:
        learned = "images that its makers chose: it was imported"
    elif reference == "packaged":
        learned = LEARNED_FROM["packaged"]
    else:  # of a reference's folder only the name, because its path is private
        learned = LEARNED_FROM["study"].format(
            Path(reference).name if reference else read_tensors(path, [])[1]["study"]
        )
    entries = read_model(inputs.path("model_entry")), read_space(inputs.path("space_entry"))
    return _exported(Translator.load(path), inputs, *entries, facts, learned)


def _exported(
    translator: Affine,
    inputs: Inputs,
    model: ModelEntry,
    space: SpaceEntry,
    facts: dict[str, Any],
    learned: str,
) -> Exported:
    of_model, of_space = (read_tensors(inputs.path(k), [])[1] for k in ("features", "embeddings"))
    made_for = {
        "model": inputs.model,
        "space": inputs.space,
        "model_id": f"{model.source}/{model.id}",
        "space_id": space_id(space),
        "weights_sha256": of_model["weights_sha256"],
        "space_sha256": of_space["weights_sha256"],
    }
    figures = {key: facts[key] for key in FIGURES}
    cut = model.kept is not None
    known = known_answer(of_model["weights_sha256"], inputs.path("embeddings"), cut=cut)
    return Exported(translator, made_for, figures, learned, known["known_zero"])


def export(exported: Exported, folder: Path) -> Path:
    """Write a translator and its card into a folder, as Translator.save_pretrained does."""
    whole = exported.translator
    Translator(whole.weight, whole.bias, exported.facts).save_pretrained(folder)
    return folder / FILE
