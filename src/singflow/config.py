"""The study: every key of params.yaml, its type, its limits and its unit.

One class per section. The same classes check params.yaml, write the JSON schema that the
Snakefile validates against, and parse the flags of the scripts.
"""

import difflib
import hashlib
import json
import os
import re
import reprlib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from singflow.errors import InputError

RUNNING = "SINGFLOW_STUDY"  # variable of the environment: the digest of the study that a run began with
MOST_VALUES = 100_000  # in a YAML file
LOCAL = "checkpoints"  # folder of the user's own files, which both engines watch
CPU_BATCH = 8  # views per forward pass of one thread, at most
NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
MODEL = rf"(?:(?:timm|torchvision)/{NAME}|transformers/{NAME}(?:/{NAME})?|{NAME})"

SHORT = reprlib.Repr()  # values in messages
SHORT.maxlevel, SHORT.maxlist, SHORT.maxdict, SHORT.maxstring, SHORT.maxother = 3, 20, 20, 300, 300


def _refuse(value: str, pattern: str, allowed: str) -> str:
    if not re.fullmatch(pattern, value):
        raise ValueError(f"may hold only {allowed}, because it becomes a file name")
    return value


def _text(value: str) -> str:
    if value == "None":
        raise ValueError("is how the scripts are told null: choose another")
    return value


def _name(value: str) -> str:
    return _refuse(value, NAME, "letters, digits, '_', '-' and '.', and starts with a letter or digit")


def _model_name(value: str) -> str:
    return _refuse(value, MODEL, "a name of models.yaml or <source>/<id>, as in timm/resnet18.a1_in1k")


def _shell_safe(value: str) -> str:
    if not value or re.search(r'["$`\\\x00-\x1f\x7f]', value):
        raise ValueError('must be a path without ", $, `, \\ or control characters, because it becomes part of a command')
    return value


Values = TypeVar("Values", bound=list[Any])


def _unique(values: Values) -> Values:
    repeated = sorted({value for value in values if values.count(value) > 1})
    if repeated:
        raise ValueError(f"lists {', '.join(map(str, repeated))} more than once")
    return values


def _listed(value: str) -> str:
    if not value.strip() or value.startswith("-"):
        raise ValueError("must not be blank or start with '-', because it becomes one of several words after a flag")
    return value


def _template(value: str) -> str:
    if "{}" not in value:
        raise ValueError("must hold {}, which stands for the label or concept")
    return value


def _imported(value: str) -> str:
    if not re.fullmatch(rf"{NAME}/{MODEL}:[0-9a-f]{{16,64}}", value):
        raise ValueError("must be <space>/<model>:<first 16 or more digits of its SHA-256>, as scripts/import_translator.py prints it")
    return value


def _generator(value: str) -> str:
    if not re.fullmatch(rf"{LOCAL}/{NAME}|{NAME}/{NAME}", value):
        raise ValueError(f"must be a hub name as in kakaobrain/karlo-v1-alpha-image-variations, or {LOCAL}/<folder>")
    return value


Text = Annotated[str, AfterValidator(_text)]
Name = Annotated[Text, AfterValidator(_name)]
ModelName = Annotated[Text, AfterValidator(_model_name)]
SafePath = Annotated[Text, AfterValidator(_shell_safe)]
Listed = Annotated[Text, AfterValidator(_listed)]
Template = Annotated[Listed, AfterValidator(_template)]
Imported = Annotated[Text, AfterValidator(_imported)]


class Section(BaseModel):
    """A section of params.yaml: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class Data(Section):
    """Which images are studied."""

    source: Literal["packaged", "folder", "table"] = Field(
        description="packaged: the 20 ImageNet images of the distribution foolbox; folder: one folder a class; table: CSV or Parquet"
    )
    root: SafePath = Field(description="folder that the images' paths are relative to (packaged: not read)")
    table: SafePath | None = Field(description="CSV or Parquet file with one image a row (folder: not read)")
    label_column: Text = Field(min_length=1, description="column of the table that holds the label")
    classes: SafePath = Field(description="CSV file with the heads' classes in order: class_index, synset, name")
    per_class: int | None = Field(ge=1, description="images drawn per label; None: all")
    validation_fraction: float = Field(gt=0, lt=1, description="share of the images held out from translator fitting")
    max_pixels: int = Field(ge=1, description="pixels; larger images are rejected unread")
    max_rejected_fraction: float = Field(ge=0, le=1, description="share of unusable images that stops the run")


class Extraction(Section):
    """How images become features and embeddings."""

    views: int = Field(ge=1, description="views per image: the whole image, then random crops")
    crop_area: list[float] = Field(min_length=2, max_length=2, description="share of the image's area in a crop: smallest, largest")
    shards: int = Field(ge=1, le=99999, description="jobs that the images of a model are split into")
    shard_ids: list[str] = Field(description="the shards' names, 00000 up")
    batch_size: int = Field(ge=1, description=f"views per forward pass; on a CPU at most {CPU_BATCH} a thread")
    device: Literal["auto", "cpu", "cuda"] = Field(description="auto: a GPU when there is one")
    decode: Literal["full", "reduced"] = Field(description="reduced: JPEGs at the smallest scale that no view needs more than")
    precision: Literal["float32", "bfloat16"] = Field(description="bfloat16: autocast of the towers")
    top1_margin: float = Field(ge=0, le=100, description="percentage points below the reported top-1 that cause a warning")

    @model_validator(mode="after")
    def _consistent(self) -> "Extraction":
        expected = [f"{shard:05d}" for shard in range(self.shards)]
        if self.shard_ids != expected:
            raise ValueError(f"shard_ids must name the {self.shards} shards: write {json.dumps(expected)}")
        if not 0 < self.crop_area[0] <= self.crop_area[1] <= 1:
            raise ValueError(f"crop_area is [smallest, largest] with 0 < smallest <= largest <= 1, not {self.crop_area}")
        return self


class Prompts(Section):
    """The texts that stand for labels and concepts in a space."""

    label_templates: list[Template] = Field(min_length=1, description="{} is the label; several are averaged at unit norm")
    concept_templates: list[Template] = Field(min_length=1, description="{} is the concept; several are averaged at unit norm")
    batch_size: int = Field(ge=1, description="texts per forward pass")
    cache: SafePath = Field(description="folder that keeps embedded texts, found again by their content")


class Projector(Section):
    """Where the null space begins (equation 3)."""

    rule: Literal["exact", "energy", "fixed", "centered"] = Field(
        description="exact: numerical rank; energy: share of ||W||^2; fixed: given rank; centered: rank of W less its mean row"
    )
    energy: float = Field(gt=0, le=1, description="rule energy: share of ||W||^2 that the principal space keeps")
    rank: int | None = Field(ge=0, description="rule fixed: dimensions of the principal space")

    @model_validator(mode="after")
    def _has_rank(self) -> "Projector":
        if self.rule == "fixed" and self.rank is None:
            raise ValueError("rule fixed needs a rank: write rank: <number>")
        return self


class Translator(Section):
    """How features are translated into the space (equation 4)."""

    kind: Literal["linear"] = Field(description="linear: ridge regression")
    alphas: list[Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(
        min_length=1, description="ridge penalties tried, in squared units of the features; the best on held-out images is kept"
    )
    imported: list[Imported] = Field(description="<space>/<model>:<hash> of released translators that take the place of fitted ones")


class Controls(Section):
    """Removal of other subspaces: what the loss of dimensions alone does."""

    dimensions: list[Annotated[int, Field(ge=1)]] = Field(
        description="dimensions at which models are compared, besides each null space's own; those above it are left out"
    )
    min_draws: int = Field(ge=2, description="random subspaces removed at least")
    max_draws: int = Field(ge=2, description="random subspaces removed at most")
    tolerance_deg: float = Field(gt=0, description="degrees; standard error of the mean IS over draws at which drawing stops")

    @model_validator(mode="after")
    def _ordered(self) -> "Controls":
        if self.max_draws < self.min_draws:
            raise ValueError(f"max_draws ({self.max_draws}) is below min_draws ({self.min_draws})")
        return self


class RankCurve(Section):
    """How invariant the almost-null space is."""

    kept: list[Annotated[float, Field(gt=0, le=1)]] = Field(
        min_length=1, description="shares of the head's rank that are kept; what is left of the feature space is removed"
    )


class Concepts(Section):
    """The open vocabulary."""

    vocabulary: SafePath = Field(description="text file with one phrase a line")
    extremes: int = Field(ge=1, description="strongest and weakest concepts listed per label")
    nearest: int = Field(ge=1, description="nearest concepts per label among which spurious cues are sought")


class Steering(Section):
    """Where features are steered to (equations 10 to 13)."""

    prompts: Annotated[list[Listed], AfterValidator(_unique)] = Field(description="texts whose embeddings are the targets")
    target_is_deg: Annotated[list[Annotated[float, Field(gt=0, lt=180)]], AfterValidator(_unique)] = Field(
        min_length=1, description="degrees; IS that the steps reach"
    )
    labels: list[Listed] = Field(description="labels whose images are steered; none: all")


class Training(Section):
    """How nonlinear translators are trained (section 1.1 of the supplement)."""

    losses: Annotated[list[Literal["mse", "cosine", "both"]], AfterValidator(_unique)] = Field(
        min_length=1, description="losses tried; the lowest held-out MSE is kept"
    )
    width: int = Field(ge=1, description="units of the hidden layers")
    dropout: float = Field(ge=0, lt=1, description="share of hidden units dropped in training")
    learning_rate: float = Field(gt=0, description="AdamW's step size")
    weight_decay: float = Field(ge=0, description="AdamW's decoupled weight decay")
    batch_size: int = Field(ge=2, description="rows per step")
    epochs: int = Field(ge=1, description="passes over the training rows at most")
    patience: int = Field(ge=1, description="epochs without a better held-out loss that end the training")


class Comparison(Section):
    """Which nonlinear translators are compared with the linear one."""

    models: Annotated[list[ModelName], AfterValidator(_unique)] = Field(description="models of the study to train them for; none: none")
    kinds: Annotated[list[Literal["mlp3", "mlp4", "residual"]], AfterValidator(_unique)] = Field(description="architectures")


class Probe(Section):
    """Linear classifiers on principal features before and after translation (figure 12)."""

    alphas: list[Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(
        min_length=1, description="ridge penalties tried, as multiples of the features' total variance; chosen on training images alone"
    )


class Pictures(Section):
    """Pictures of what the null space holds (section 3.2 of the supplement)."""

    renderer: Literal["auto", "unclip", "retrieval"] = Field(
        description="unclip: a generator draws embeddings; retrieval: the nearest real images of the study; "
        "auto: unclip in the space that the generator draws from, when its weights and a GPU are here, and retrieval elsewhere"
    )
    generator: Annotated[Text, AfterValidator(_generator)] = Field(
        description="UnCLIP generator: a hub name, or checkpoints/<folder> in the same layout"
    )
    revision: Annotated[Text, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_./-]*$")] = Field(
        description="branch, tag or commit of the generator in the hub"
    )
    dtype: Literal["float16", "float32"] = Field(description="precision of the generator; float32 on a CPU")
    decoder_steps: int = Field(ge=2, description="denoising steps of the generator's decoder")
    super_res_steps: int = Field(ge=2, description="denoising steps of its super-resolution")
    guidance: float = Field(ge=1, allow_inf_nan=False, description="guidance scale of the decoder; 1: none")
    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**32)]], AfterValidator(_unique)] = Field(
        min_length=1, description="noise that pictures start from: all in figure 13, the first elsewhere; retrieval: as many neighbours"
    )
    images: Annotated[list[Listed], AfterValidator(_unique)] = Field(
        description="images that are shown, by their path in the manifest; none: drawn by the seed"
    )
    count: int = Field(ge=1, description="images drawn when none are named")
    closeup: ModelName = Field(description="model of the study that figures 6, 10, 11 and 13 look at")
    ladder_is_deg: Annotated[list[Annotated[float, Field(gt=0, lt=180)]], AfterValidator(_unique)] = Field(
        min_length=1, description="degrees; IS of the steps of figure 10"
    )
    exact_up_to: int = Field(ge=1, description="images up to which neighbours are searched exactly; above, by an approximate index")


class Summary(Section):
    """The tables."""

    resamples: int = Field(ge=100, description="bootstrap resamples of the images behind every interval")
    permutations: int = Field(ge=100, description="permutations behind every p-value")
    confidence: float = Field(gt=0, lt=1, description="coverage of the intervals; its complement is the level of the tests")
    min_r2: float = Field(le=1, allow_inf_nan=False, description="held-out R2 below which a translator is called weak")


class PlotFig4(Section):
    """The violins of |AS| per label."""

    labels: list[Listed] = Field(description="labels to show; none: the 16 with most images")


class PlotFig5(Section):
    """The concept scan of one label."""

    label: Text | None = Field(description="label to show; None: the one with most images")
    extremes: int = Field(ge=1, description="concepts shown from either end")


class PlotFig15(Section):
    """The extended concept scans of some labels (figures 15 and 16)."""

    labels: list[Listed] = Field(description="labels to show; none: the two with most images")
    most: int = Field(ge=1, description="concepts shown per label: those nearest to it")


class Report(Section):
    """The page that holds a study."""

    max_images: int = Field(ge=1, description="images shown one by one; of more, a sample drawn by the seed")


class Study(Section):
    """A complete params.yaml."""

    study: Name = Field(description="name of the folder under results/")
    seed: int = Field(ge=0, lt=2**32, description="the only source of randomness")
    threads: int = Field(ge=1, description="threads of every numerical step: sums depend on them")
    models: Annotated[list[ModelName], Field(min_length=1), AfterValidator(_unique)]
    spaces: Annotated[list[Name], Field(min_length=1), AfterValidator(_unique)]
    weights: Literal["registry", "random"] = Field(description="registry: what models.yaml and spaces.yaml say; random: untrained")
    data: Data
    extraction: Extraction
    prompts: Prompts
    projector: Projector
    translator: Translator
    controls: Controls
    rank_curve: RankCurve
    concepts: Concepts
    steering: Steering
    training: Training
    comparison: Comparison
    probe: Probe
    pictures: Pictures
    summary: Summary
    plot_fig4: PlotFig4
    plot_fig5: PlotFig5
    plot_fig15: PlotFig15
    report: Report

    @model_validator(mode="after")
    def _table_is_named(self) -> "Study":
        if self.data.source != "folder" and self.data.table is None:
            raise ValueError(f"data.source {self.data.source} needs data.table: a CSV or Parquet file")
        return self

    @model_validator(mode="after")
    def _named_models_are_studied(self) -> "Study":
        wrong = []
        if unknown := [model for model in self.comparison.models if model not in self.models]:
            mend = f"write comparison.models: [{self.models[0]}], or [] to train no nonlinear translator"
            wrong.append(f"comparison.models names {', '.join(unknown)}, which models does not list: {mend}")
        if self.pictures.closeup not in self.models:
            wrong.append(f"pictures.closeup is {self.pictures.closeup}, which models does not list: write closeup: {self.models[0]}")
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    @model_validator(mode="after")
    def _imported_translators_are_used(self) -> "Study":
        for each in self.translator.imported:
            space, _, model = each.rpartition(":")[0].partition("/")
            if space not in self.spaces or model not in self.models:
                raise ValueError(f"translator.imported names {space}/{model}, but the study has no such space and model")
        return self


class _Loader(yaml.SafeLoader):
    """YAML in which a key may be written once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping = super().construct_mapping(node, deep)
        if len(mapping) < len(node.value):
            keys = [key.value for key, _ in node.value]
            repeated = sorted({key for key in keys if keys.count(key) > 1})
            raise yaml.constructor.ConstructorError(None, None, f"{', '.join(repeated)}: written twice", node.start_mark)
        return mapping


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Parse a YAML mapping, or raise InputError with the place of the mistake."""
    try:
        content = yaml.load(Path(path).read_text(encoding="utf-8"), _Loader)  # noqa: S506
        if isinstance(content, dict) and _size(content, {}) > MOST_VALUES:
            raise ValueError("its aliases (*name) stand for too many values: write them out")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: not readable: {error.strerror}") from None
    except RecursionError:
        raise InputError(f"{path}: not valid YAML: nested too deeply, or an alias (*name) stands inside what it names") from None
    except Exception as error:  # noqa: BLE001 (YAML's constructors raise whatever a damaged value provokes)
        raise InputError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: must be a mapping of keys to values")
    return content


def _size(value: Any, sizes: dict[int, int]) -> int:
    """Number of values in parsed YAML with its aliases written out; sizes: of the containers that are counted already."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in sizes:
        inner = value.values() if isinstance(value, dict) else value
        sizes[id(value)] = 1 + sum(_size(each, sizes) for each in inner)
    return sizes[id(value)]


def explain(error: ValidationError, model: type[BaseModel], origin: str) -> str:
    """One line per mistake: where, what value, what is wrong, and for a misspelt key the nearest valid one."""
    lines = []
    for mistake in error.errors(include_url=False):
        place = ".".join(str(part) for part in mistake["loc"]) or "(whole file)"
        if mistake["type"] == "extra_forbidden":
            siblings = _fields_at(model, mistake["loc"][:-1])
            near = difflib.get_close_matches(str(mistake["loc"][-1]), siblings, n=1, cutoff=0.5)
            mend = f"did you mean {near[0]!r}?" if near else f"valid keys are {', '.join(sorted(siblings))}"
            lines.append(f"{origin}: {place}: unknown key; {mend}")
        elif mistake["type"] == "missing":
            lines.append(f"{origin}: {place}: missing; every key must be written out")
        else:
            hint = ""
            text = mistake["input"] if mistake["type"] == "float_type" and isinstance(mistake["input"], str) else ""
            if number := re.fullmatch(r"([-+]?\d+)(\.\d*)?[eE]([-+]?)(\d+)", text):
                mend = f"{number[1]}{number[2] or '.0'}e{number[3] or '+'}{number[4]}"
                hint = f"; YAML reads {text} as text: write {mend}"
            value = "" if isinstance(mistake["input"], dict | BaseModel) else f" {SHORT.repr(mistake['input'])}"
            lines.append(f"{origin}: {place}:{value} {mistake['msg'].removeprefix('Value error, ')}{hint}")
    return "\n".join(lines)


def _fields_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    for part in location:
        annotation = model.model_fields[str(part)].annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            model = annotation
    return list(model.model_fields)


def check(content: dict[str, Any], origin: str) -> Study:
    """Validate a study; raise InputError that lists every mistake."""
    try:
        return Study.model_validate(content, strict=True)
    except ValidationError as error:
        raise InputError(explain(error, Study, origin)) from None


def keep_study(content: dict[str, Any], main: bool) -> None:
    """Hold a run to the study that it began with, because every job of a cluster reads params.yaml again.

    main: whether this process starts the run; its jobs inherit its environment. Raises InputError in a job whose study is another.
    """
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    if main:
        os.environ[RUNNING] = digest
    elif os.environ.get(RUNNING, digest) != digest:
        raise InputError(
            "it has changed since this run began: put params.yaml back, or stop the run and start it again; "
            "two studies at once need a file each, and --configfile <file>"
        )


def json_schema() -> str:
    """The JSON schema of params.yaml, as text."""
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return json.dumps(dialect | Study.model_json_schema(), indent=2) + "\n"


if __name__ == "__main__":
    Path("schemas/params.schema.json").write_text(json_schema(), encoding="utf-8")
