"""The study: all sections of params.yaml together.

This module does not count in the digests of steps (SHARED in engines/code.py), so that a new
section makes no finished step stale.
"""

import copy
import hashlib
import io
import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, Field, TypeAdapter, ValidationError, model_validator

from singflow.analyses.concepts import Concepts
from singflow.analyses.evidence import EvidenceSettings
from singflow.analyses.probes import Probe
from singflow.analyses.steering import Steering
from singflow.analyses.summary import Controls, Summary
from singflow.artifacts.catalog import CATALOG, Analysis
from singflow.artifacts.files import write_bytes
from singflow.artifacts.made import Made
from singflow.artifacts.tensors import read_tensors
from singflow.config.public import PATHS
from singflow.config.reading import explain, read_yaml, section_of
from singflow.config.registry import (
    CUT,
    LEAST,
    MODELS,
    SPACES,
    ModelEntry,
    SpaceEntry,
    read_registry,
    resolve_models,
    resolve_spaces,
    whole_of,
)
from singflow.config.sections import (
    MOST_THREADS,
    ModelName,
    Name,
    Section,
    at_hand,
    at_home,
    outside,
    unique,
)
from singflow.data import archives
from singflow.data.imported import check_source, facts_of, own_class_names, source_fingerprint
from singflow.data.parameters import Data
from singflow.data.reading import group_cells
from singflow.data.vocabulary import few_of, head_names
from singflow.errors import InputError, check_labels
from singflow.figures.parameters import PlotConcepts, PlotLabels
from singflow.pictures.parameters import Pictures
from singflow.pictures.weights import own_generator_files, refuse_space
from singflow.report.parameters import Report
from singflow.system import regular
from singflow.towers.parameters import MOST_SHARDS, Extraction, Prompts
from singflow.translators.linear import imported_path, read_imported
from singflow.translators.parameters import Comparison, Projector, Training, Translation
from singflow.translators.reference import check_reference, find_shards, reference_folder

if TYPE_CHECKING:
    import pandas as pd

TITLE = (
    "The study in force, as `singflow study <name>` writes it. "
    "Every key is written out; an unknown or missing key is refused.\n"
)
COLUMN = 27  # where explanations in params.yaml begin
FLOW = 60  # shorter lists (in characters) are written on one line
PARAMS = Path("params.yaml")
RUNNING = "SINGFLOW_STUDY"  # environment variable: digests of the studies that a run began with
SHIPPED = (("data", "table"), ("data", "classes"), ("concepts", "vocabulary"))  # have such defaults

log = logging.getLogger("singflow")


class Params(Section):
    """A complete params.yaml."""

    study: Name = Field(description="name of the folder under results/")
    seed: int = Field(
        0, ge=0, lt=2**32, description="the only source of randomness (any whole number)"
    )
    threads: int = Field(
        1,
        ge=1,
        le=MOST_THREADS,
        description="threads of every numerical step; the last digits of results depend on this "
        "number",
    )
    models: Annotated[list[ModelName], Field(min_length=1), AfterValidator(unique)] = Field(
        description="names in config/models.yaml, or <source>/<id> as in timm/resnet18.a1_in1k; "
        "<model>@cut: with its head cut to few classes; the paper compares five"
    )
    spaces: Annotated[list[Name], Field(min_length=1), AfterValidator(unique)] = Field(
        ["conse_minilm"], description="names in config/spaces.yaml; the paper uses CLIP ViT-L/14"
    )
    weights: Literal["registry", "random"] = Field(
        "registry",
        description="registry (what config/ says) | random (untrained: shows only that "
        "everything runs)",
    )
    analyses: Annotated[list[Analysis], AfterValidator(unique)] = Field(
        ["scores", "pictures"],
        description="what the study measures and draws beyond the verdict; []: the verdict alone",
    )
    data: Data
    extraction: Extraction
    prompts: Prompts
    projector: Projector
    translator: Translation
    controls: Controls
    evidence: EvidenceSettings
    concepts: Concepts
    steering: Steering
    training: Training
    comparison: Comparison
    probe: Probe
    pictures: Pictures
    summary: Summary
    plot_labels: PlotLabels
    plot_concepts: PlotConcepts
    report: Report

    @model_validator(mode="after")
    def _parts_fit(self) -> "Params":
        if wrong := list(self._misfits()):
            raise ValueError("; ".join(wrong))
        return self

    def _misfits(self) -> Iterator[str]:
        first = self.models[0]
        for says, named, fix in (
            ("comparison.models names", self.comparison.models, f"comparison.models: [{first}], "
                "or [] to train no nonlinear translator"),
            ("plot_concepts.shown names", self.plot_concepts.shown, "plot_concepts.shown: [] to "
                "show all models"),
            ("pictures.closeup is", [self.pictures.closeup], f"closeup: {first}"),
        ):  # fmt: skip
            if unknown := [model for model in named if model not in self.models]:
                yield f"{says} {', '.join(unknown)}, which models does not list: write {fix}"
        reference = self.translator.reference
        if reference is not None and Path(reference) == Path("results", self.study):
            yield (
                f"translator.reference is {reference}, the study itself: write reference: null, or "
                "another"
            )
        if "paper" in self.analyses and not {"scores", "pictures"} <= {*self.analyses}:
            yield "analyses has paper, which shows scores and pictures: add both"
        if self.data.source == "features" and self.pictures.renderer == "unclip":
            yield (
                "pictures.renderer is unclip, but data.source features has no photos: write "
                "renderer: words"
            )
        for space, model in self.imported():
            if space not in self.spaces or model not in self.models:
                yield (
                    f"translator.imported names {space}/{model}, but the study has no such space "
                    "and model"
                )

    def imported(self) -> list[tuple[str, str]]:
        """Spaces and models of the imported translators."""
        pairs = (entry.rpartition(":")[0].partition("/") for entry in self.translator.imported)
        return [(space, model) for space, _, model in pairs]


def check(content: dict[str, Any], origin: str) -> Params:
    """Validate a study, in which every key must be written out; one InputError has all mistakes."""
    fix = f"every key must be written out: `singflow study {origin}` does it"
    lines = [f"{origin}: {key}: missing; {fix}" for key in _absent(content, Params)]
    try:
        study = Params.model_validate(content, strict=True)
    except ValidationError as error:
        raise InputError("\n".join([explain(error, Params, origin, fix), *lines])) from None
    if lines:
        raise InputError("\n".join(lines))
    return study


def _absent(content: Mapping[str, Any], section: type[BaseModel]) -> Iterator[str]:
    """Keys that have a default but are not written out."""
    for name, field in section.model_fields.items():
        if name not in content:
            if not field.is_required():
                yield name
        elif (inner := section_of(field)) and isinstance(content[name], Mapping):
            yield from (f"{name}.{key}" for key in _absent(content[name], inner))


def with_derived_keys(differences: Mapping[str, Any]) -> dict[str, Any]:
    """Add the defaults to the given keys of a study, in the order of the classes, unchecked.

    If all models and spaces are packaged, the packaged reference is the default. A known zero and a
    known leak join the models unless controls.known is none.
    """
    study = with_defaults(differences)
    sections = {name for name, field in Params.model_fields.items() if section_of(field)}
    if not all(isinstance(study[name], dict) for name in sections):
        return study  # check() says what is wrong
    shards = study["extraction"].get("shards")
    counted = isinstance(shards, int) and shards <= MOST_SHARDS
    if counted and not _is_given(differences, "extraction", "shard_ids"):
        study["extraction"]["shard_ids"] = [f"{shard:05d}" for shard in range(shards)]
    first = study["models"][:1] if isinstance(study.get("models"), list) else []
    study["comparison"] = {"models": first} | study["comparison"]
    if first:
        study["pictures"].setdefault("closeup", first[0])
    if first and isinstance(study["spaces"], list) and study["weights"] == "registry":
        try:
            models = resolve_models(MODELS, list(map(str, study["models"])), files=False)
            spaces = resolve_spaces(SPACES, list(map(str, study["spaces"])), files=False)
        except InputError:  # whoever settles the study says what is wrong
            return study
        precision = str(study["extraction"]["precision"])
        packaged = study["data"].get("source") != "features" and all(
            in_packaged_reference(tower, precision) for tower in {**models, **spaces}.values()
        )
        if packaged and not _is_given(differences, "translator", "reference"):
            study["translator"]["reference"] = "packaged"
        study["models"] = [*study["models"], *_known_controls(study, models, spaces)]
    return with_defaults(study)


def choices_made(
    differences: Mapping[str, Any], study: Mapping[str, Any], models: Mapping[str, ModelEntry]
) -> str:
    """What with_derived_keys() chose, and how to change it; or empty."""
    words = []
    if study["translator"]["reference"] and not _is_given(differences, "translator", "reference"):
        words.append(
            "translators are fitted on 507 packaged ImageNet images (on your own: write "
            "translator.reference: null)"
        )
    if joined := [model for model in study["models"] if model not in differences["models"]]:
        one, several = "joins the models as a known control", "join the models as known controls"
        join = one if len(joined) == 1 else several
        words.append(f"{' and '.join(joined)} {join} (without: controls.known: none)")
    if study["controls"]["known"] == "auto" and (small := _too_small(study, models)):
        words.append(f"no known leak joins the models: {small}")
    return "; ".join(words)


def losses(
    differences: Mapping[str, Any],
    study: Mapping[str, Any],
    models: Mapping[str, ModelEntry],
    spaces: Mapping[str, SpaceEntry],
) -> str:
    """Why the packaged reference does not fit a study, and the way to a reference; or empty.

    models, spaces: the registry entries of the study. Empty if the study has or needs no packaged
    reference, or says itself what its reference is.
    """
    imported = study["data"]["source"] == "features" or study["weights"] == "random"
    if imported or _is_given(differences, "translator", "reference"):
        return ""
    precision = study["extraction"]["precision"]
    own = {name: models[name] for name in differences["models"]}
    lacks = []
    for kind, towers in (("features of", own), ("embeddings in", spaces)):
        absent = [name for name in towers if not in_packaged_reference(towers[name], precision)]
        lacks += [f"no {kind} {', '.join(absent)}"] if absent else []
    if not lacks:
        return ""
    whole = ", ".join(name for name in models if not whole_of(models, name))
    return (
        f"the packaged reference has {' and '.join(lacks)} with extraction.precision {precision}: "
        "translators are fitted on the study's own images\n  to have a reference: first a study of "
        f"some hundred other images with models: [{whole}], then this study with "
        "translator.reference: results/<the first study>"
    )


def _is_given(differences: Mapping[str, Any], section: str, key: str) -> bool:
    return key in (differences.get(section) or {})


def in_packaged_reference(entry: ModelEntry | SpaceEntry, precision: str | None = None) -> bool:
    """Whether the packaged reference has rows of this tower, from the same packaged weights."""
    kind = "features" if isinstance(entry, ModelEntry) else "embeddings"
    weights = getattr(getattr(entry, "classifier", entry), "weights", "")
    made = Made(entry.identity, precision=precision)
    held = find_shards(reference_folder("packaged") / kind, made)[0]
    return weights.startswith("package:") and held is not None


def _known_controls(
    study: Mapping[str, Any], models: Mapping[str, ModelEntry], spaces: Mapping[str, SpaceEntry]
) -> list[str]:
    """Names of a known zero and a known leak that the study lacks, if it has verdicts."""
    reference = study["translator"]["reference"]
    if study["controls"]["known"] != "auto" or not (study["translator"]["folds"] or reference):
        return []
    packaged = [
        name
        for name, entry in read_registry(MODELS, MODELS).entries.items()
        if isinstance(entry, dict) and str(entry.get("weights")).startswith("package:")
    ]
    known, joined = resolve_models(MODELS, packaged), []

    def is_zero(entry: ModelEntry) -> bool:
        return any(map(entry.is_that_of, spaces.values()))

    if study["data"].get("source") != "features" and not any(map(is_zero, models.values())):
        zeros = {name: Made(entry.identity) for name, entry in known.items() if is_zero(entry)}
        if reference is not None:
            held = reference_folder(str(reference)) / "features"
            zeros = {name: made for name, made in zeros.items() if find_shards(held, made)[0]}
        joined = [*zeros][:1]
    first = next(iter(models))
    if not (any(entry.keep_classes for entry in models.values()) or _too_small(study, models)):
        cut = (name for name in known if whole_of({first: models[first], name: known[name]}, name))
        joined.append(next(cut, first + CUT))
    return joined


def _too_small(study: Mapping[str, Any], models: Mapping[str, ModelEntry]) -> str:
    """Why the first head cannot be cut to few classes; empty if it can be, or is not known yet."""
    first, entry = next(iter(models.items()))
    data, names = study["data"], []
    with suppress(InputError, OSError):
        if data["source"] == "features":
            names = own_class_names(outside(str(data["root"])), first) or []
        names = names or head_names(entry, at_hand(Path(str(data["classes"]))))
    small = names and not entry.keep_classes and few_of(names) is None
    return f"the head of {first} has {len(names)} classes, and needs {LEAST}" if small else ""


def expand_home(content: dict[str, Any]) -> None:
    """Expand a leading `~`, which Snakemake and DVC do not know, in a study's paths."""
    for section, key in PATHS:
        inner = content.get(section)
        value = inner.get(key) if isinstance(inner, dict) else None
        if isinstance(value, str):
            content[section][key] = at_home(value)


def completed(given: Mapping[str, Any]) -> dict[str, Any]:
    """A study for a folder that is no checkout: with the defaults, and with files of the workflow.

    Where this folder lacks a file, it is the packaged one.
    """
    content = {key: value for key, value in given.items() if key != "pathvars"}  # Snakemake's
    if not content.keys() >= Params.model_fields.keys():
        content = with_derived_keys(content)
    for section, key in SHIPPED:
        inner = content[section]
        if isinstance(inner, dict) and isinstance(value := inner.get(key), str):
            content[section] = inner | {key: str(at_hand(Path(value)))}
    return content


def with_defaults(given: Mapping[str, Any], section: type[BaseModel] = Params) -> dict[str, Any]:
    """The content of a section with the defaults of missing keys; unknown keys stay, at the end."""
    made: dict[str, Any] = {}
    for name, field in section.model_fields.items():
        if (inner := section_of(field)) and isinstance(given.get(name) or {}, Mapping):
            made[name] = with_defaults(given.get(name) or {}, inner)
        elif name in given:
            made[name] = given[name]
        elif not field.is_required():
            made[name] = copy.deepcopy(field.default)
    return made | {name: value for name, value in given.items() if name not in made}


def parse_texts(
    content: dict[str, Any], words: Mapping[str, Any], section: type[BaseModel] = Params
) -> None:
    """Parse texts from --config as YAML where the key of a section has another type (in place).

    words: the part of the study that the command line gave.
    """
    for name, value in words.items():
        field = section.model_fields.get(name)
        if field is None or name not in content:
            continue
        if (inner := section_of(field)) and isinstance(value, Mapping):
            parse_texts(content[name], value, inner)
        elif isinstance(value, str | list):
            wanted: TypeAdapter[Any] = TypeAdapter(
                Annotated[field.annotation, field, *field.metadata]  # type: ignore[arg-type]
            )
            try:
                wanted.validate_python(value, strict=True)
            except ValidationError:
                with suppress(yaml.YAMLError, AttributeError):  # of an item that is no text
                    items = value if isinstance(value, list) else [value]
                    parsed = [yaml.safe_load(item) for item in items]
                    content[name] = parsed if isinstance(value, list) else parsed[0]


def render_params(study: Mapping[str, Any]) -> str:
    """The text of a complete params.yaml, with comments, in the style of `dvc exp run`."""
    from ruamel.yaml import YAML
    from ruamel.yaml.comments import CommentedMap, CommentedSeq

    def described(content: Mapping[str, Any], section: type[BaseModel]) -> CommentedMap:
        commented = CommentedMap()
        for name, value in content.items():
            field = section.model_fields[name]
            if inner := section_of(field):
                words = (inner.__doc__ or "").partition("\n")[0]
                commented[name] = described(value, inner)
                commented.yaml_set_comment_before_after_key(name, before=f"\n{words}")
                continue
            if isinstance(value, list):
                value = CommentedSeq(value)
                if not value or len(repr(value)) < FLOW:
                    value.fa.set_flow_style()
            commented[name] = value
            commented.yaml_add_eol_comment(field.description, name, column=COLUMN)
        return commented

    text = io.StringIO()
    document = described(study, Params)
    document.yaml_set_start_comment(TITLE)
    YAML().dump(document, text)
    return text.getvalue()


def read_layers(path: Path) -> dict[str, Any]:
    """Read a study, unchecked; one without all keys is laid over params.yaml, as Snakemake does."""
    content = read_yaml(path)
    if not (content.keys() >= Params.model_fields.keys() or path == PARAMS or not PARAMS.is_file()):
        from snakemake.utils import update_config

        upper, content = content, read_yaml(PARAMS)
        update_config(content, upper)
    expand_home(content)
    return content


def read_params(path: Path = PARAMS) -> Params:
    """Read and check a study, without what it refers to."""
    return check(read_layers(path), str(path))


def settle(content: dict[str, Any], origin: str) -> tuple[Params, dict[str, dict[str, Any]]]:
    """Check a study and all that it refers to. The entries are under `model` and `space`."""
    study = check(content, origin)
    for named in (study.data.table, study.data.classes, study.concepts.vocabulary):
        regular(Path(named))
    if study.evidence.groups:
        group_cells(Path(study.data.classes), Path(study.data.table), study.evidence.groups)
    models = resolve_models(MODELS, study.models, study.weights)
    spaces = resolve_spaces(SPACES, study.spaces, study.weights)
    _check_towers(study, models, spaces)
    if "pictures" in study.analyses and study.pictures.renderer == "unclip":
        for name, entry in spaces.items():
            refuse_space(name, entry)
    check_beside_reference(study, models, spaces)
    for space, model in study.imported():
        read_imported(study.translator.imported, space, model)
        path = imported_path(space, model)
        made = read_tensors(path, [])[1]
        if (made.get("space"), made.get("model")) != (space, model):
            raise InputError(
                f"{path}: was imported for {made.get('model')} and {made.get('space')}, not for "
                f"{model} and {space}: import the one that was fitted for them with `singflow "
                "import_translator`"
            )
    return study, {"model": models, "space": spaces}


def check_chosen(study: Params, manifest: "pd.DataFrame") -> None:
    """Refuse labels and images that the study chooses and the manifest lacks.

    The key of labels in a section ends in `labels`, and no other key does.
    """
    from singflow.pictures.selection import choose_images

    known = sorted(manifest["label"].unique())
    for section in (name for name, field in Params.model_fields.items() if section_of(field)):
        for key, value in getattr(study, section):
            if key.endswith("labels") and value:
                check_labels(value, known, f"{section}.{key}")
    if study.pictures.images:
        choose_images(manifest, study.pictures.images, 0, study.seed)


def _check_towers(
    study: Params, models: Mapping[str, ModelEntry], spaces: Mapping[str, SpaceEntry]
) -> None:
    """Refuse imported features that are not there, and towers that images need and lack."""
    if study.data.source == "features":
        root = outside(study.data.root)
        if root.resolve() == Path("results", study.study).resolve():
            raise InputError(
                f"data.root {study.data.root}: is where this study writes: give it another name, "
                "as in study: again"
            )
        held = [name for name in models if not whole_of(models, name)]
        return check_source(root, held, spaces, study.extraction.views)
    for name, entry in {**models, **spaces}.items():
        if entry.source == "features":
            raise InputError(
                f"{name}: has no network for images: write data.source: features, and data.root: "
                "the folder that singflow.save_features wrote"
            )


def check_beside_reference(
    study: Params, models: Mapping[str, ModelEntry], spaces: Mapping[str, SpaceEntry]
) -> None:
    """Refuse a reference beside which the study's steps would stop, before the first of them."""
    if study.translator.reference is None:
        return
    wanted: dict[str, dict[str, Made]] = {"features": {}, "embeddings": {}}
    for artifact, kind, towers in (("features", "model", models), ("embeddings", "space", spaces)):
        for name, entry in towers.items():
            made: dict[str, str] = {"precision": study.extraction.precision}
            if study.data.source == "features":
                held = {kind: whole_of(models, name) or name}
                made = facts_of(outside(study.data.root), artifact, **held)
            wanted[artifact][name] = Made.read({"tower": entry.identity} | made)
    check_reference(study.translator.reference, wanted)


def own_files(study: Params, entries: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Sorted paths of the user's own files that a study uses; entries: as settle() returns them."""
    towers = [entry for group in entries.values() for entry in group.values()]
    named = {file for entry in towers for file in entry.local_files()}
    imported = {str(imported_path(space, model)) for space, model in study.imported()}
    return sorted({*named, *imported, *own_generator_files(study.pictures)})


def layered(content: dict[str, Any], origin: str, *, main: bool) -> str:
    """The file that holds a study: `origin`, or a new file if other files or options changed it.

    A job's study must be that of its run. main: this process starts the run.
    """
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    begun = os.environ.get(RUNNING)
    if main:
        os.environ[RUNNING] = f"{begun or ''} {digest}"
    elif begun and digest not in begun.split():
        raise InputError(
            "it has changed since this run began: put params.yaml back, or stop the run and start "
            "it again; two studies at once need a file each, and --configfile <file>"
        )
    if Path(origin).is_file() and content == read_yaml(origin):
        return origin
    path = Path(".snakemake/studies", f"{content['study']}-{digest[:8]}.yaml")
    text = render_params(content).encode()
    if main and not (path.is_file() and path.read_bytes() == text):
        write_bytes(path, text)
    return str(path)


def in_force(
    config: dict[str, Any], given: Mapping[str, Any], module: str | None, *, here: bool, main: bool
) -> tuple[dict[str, Any], Params, dict[str, dict[str, Any]], str]:
    """The checked study of a run of Snakemake: its content, sections, registry entries, and file.

    given: the part of config that the command line gave. module: name of the module of Snakemake
    that has this config; None: there is no module. here: this folder is the checkout of the rules.
    main: as in layered().
    """
    if module is None:
        parse_texts(config, given)
    expand_home(config)
    if not main:  # which has said already what is worth knowing
        log.setLevel(logging.ERROR)
    content = config if here else completed(config)
    study, entries = settle(content, f"config of {module}" if module else str(PARAMS))
    return content, study, entries, layered(content, str(PARAMS), main=main)


def images_state(study: Mapping[str, Any], results: Path) -> str | None:
    """State of a study's archives (archives.state()) or of its imported features; else None."""
    data = study["data"]
    if data["source"] == "features":
        return source_fingerprint(outside(data["root"]))
    if data["source"] != "archive":
        return None
    return archives.state(outside(data["root"]), data["archives"], CATALOG["manifest"].at(results))


def json_schema() -> str:
    """The JSON schema of params.yaml, for editors."""
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return json.dumps(dialect | Params.model_json_schema(mode="serialization"), indent=2) + "\n"


if __name__ == "__main__":
    Path("config/schemas/params.schema.json").write_text(json_schema(), encoding="utf-8")
