"""The registries: config/models.yaml and config/spaces.yaml of the user, and the packaged ones."""

import difflib
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self, TypeVar

from pydantic import AfterValidator, Field, ValidationError, ValidationInfo, model_validator

from singflow.artifacts.files import read_json
from singflow.config.reading import explain, read_yaml
from singflow.config.sections import (
    LOCAL,
    NAME,
    PACKAGE_DATA,
    WIDEST,
    Section,
    matching,
    phrases,
    too_long,
)
from singflow.errors import InputError

MODELS, SPACES = Path("config/models.yaml"), Path("config/spaces.yaml")


MOST_CLASSES = 10**6  # no head has more
DRAWN = " random"  # ends a value of keep_classes that names a number of rows
CUT = "@cut"  # ends the name of a model whose head is cut to FEW of its classes: the known leak
FEW, LEAST = "few", 10  # LEAST: classes of a head that is cut to few of them


def _kept(value: str) -> str:
    if value == FEW:
        return value
    if len(value) > 1000 or any(int(end) >= MOST_CLASSES for end in re.findall(r"\d+", value)):
        raise ValueError(
            f"must name rows of a head, which has {MOST_CLASSES} classes at most, in 1000 "
            "characters at most"
        )
    if not re.fullmatch(rf"\d+{DRAWN}|\d+(-\d+)?(, ?\d+(-\d+)?)*", value):
        raise ValueError(
            "must be positions and ranges of the head's rows, as in 0-397 or 0-397,500, or a "
            f"number of drawn rows, as in 200{DRAWN}, or {FEW}"
        )
    kept = positions(value)
    if len(kept) < 2 or sorted({*kept}) != kept:
        raise ValueError("must name at least two rows of the head, in order and each once")
    return value


def few(classes: int) -> str | None:
    """Value of keep_classes for a twentieth of a head's rows; None: the head has too few rows."""
    return f"{max(2, classes // 20)}{DRAWN}" if classes >= LEAST else None


def positions(value: str, classes: int = 0) -> list[int]:
    """Rows of a head of `classes` that a value of keep_classes names, in order."""
    if value.endswith(DRAWN):
        count = int(value.removesuffix(DRAWN))
        rows = range(max(classes, count))
        return sorted(sorted(rows, key=lambda row: hashlib.sha256(b"%d" % row).digest())[:count])
    ranges = ([int(end) for end in part.split("-")] for part in value.split(","))
    return [position for ends in ranges for position in range(ends[0], ends[-1] + 1)]


GENERATOR_SPACE = {  # OpenAI's CLIP ViT-L/14, by source
    "open_clip": "ViT-L-14-quickgelu/openai",
    "transformers": "openai/clip-vit-large-patch14",
}
SAVED = "model.safetensors"  # what save_pretrained of transformers calls its weights
READ = {".json", ".safetensors", ".txt", ".model"}  # endings of what is read of its folder
Weights = Annotated[
    str,
    matching(
        "(?s)hub|random|(package|file):.+",
        "must be hub, random, package:<distribution> or file:<path>",
    ),
]
HeadWeights = Annotated[
    str, matching("(?s)file:.+|url:https://.*", "must be file:<path> or url:https://<address>")
]
HubRevision = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_./-]*$")]

ID_FORMS = {
    "timm": (
        r"[\w-]+(\.[\w.-]+)?",
        "pinned as name.tag, for example resnet50.a1_in1k; timm.list_pretrained() has all",
    ),
    "torchvision": (
        r"\w+\.(?!DEFAULT$)\w+",
        "pinned as name.WEIGHTS, for example resnet50.IMAGENET1K_V1",
    ),
    "transformers": (
        r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?",
        "a hub name, for example facebook/dinov2-large-imagenet1k-1-layer",
    ),
    "features": (NAME, "the name under which singflow.save_features has it"),
}
TRANSFORMS = {  # what an entry may change; the libraries ignore other keys without a word
    "timm": ("input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode"),
    "open_clip": ("size", "mean", "std", "interpolation", "resize_mode"),
}


def _transform(value: dict[str, Any] | None, info: ValidationInfo) -> dict[str, Any] | None:
    """The changes to a transform in one order; ValueError for keys that a library would ignore."""
    source = info.data.get("source", "")
    if value is None or source not in (*TRANSFORMS, "transformers"):
        return value
    if source == "transformers":
        if "image_processor_type" not in value:
            raise ValueError("lacks image_processor_type, the name of a class of transformers")
        return value
    if wrong := sorted(set(value) - set(TRANSFORMS[source])):
        raise ValueError(f"{', '.join(wrong)} is none of {', '.join(TRANSFORMS[source])}")
    size = value.get("input_size")
    if size is not None and not (isinstance(size, list) and len(size) == 3):
        raise ValueError(f"input_size {size!r} must be [3, height, width], as in [3, 224, 224]")
    return {key: value[key] for key in TRANSFORMS[source] if key in value}


Changes = Annotated[dict[str, Any] | None, AfterValidator(_transform)]


class Tower(Section):
    """A network that runs over the images."""

    _of_tower: ClassVar[Any]

    @property
    def identity(self) -> str:
        """The settings that, with the weights, determine the output of the tower, as JSON."""
        return self.model_dump_json(include=self._of_tower, exclude_none=True)

    def with_weights(self, **changes: Any) -> Self:
        """A copy with changes to the part that has weights, which is the classifier of ConSE."""
        return self.model_copy(update=changes)

    def local_files(self) -> list[str]:
        """Paths of the user's own files: weights, head and class list."""
        return own_weights(self)


def saved_folder(entry: Any) -> Path | None:
    """The folder of save_pretrained that `weights` names by itself or by its model.safetensors."""
    kind, _, target = entry.weights.partition(":")
    if entry.source != "transformers" or kind != "file":
        return None
    path = Path(target)
    whole = entry.config is None and path.name == SAVED
    return path if path.is_dir() else path.parent if whole else None


def own_weights(entry: Any) -> list[str]:
    """The file that `weights` names, or what is read of its folder."""
    folder = saved_folder(entry)
    read = sorted(path for path in folder.glob("*") if path.suffix in READ) if folder else []
    kind, _, target = entry.weights.partition(":")
    return list(map(str, read)) or ([target] if kind == "file" else [])


REPORTED = ("reported_top1", "reported_by")
OF_CLASSIFIER = {"source", "id", "head", "pooling", "transform", "config"}


class ModelEntry(Tower):
    """A classifier."""

    _of_tower: ClassVar[Any] = OF_CLASSIFIER

    # Library that builds the architecture; features: imported, there is no network.
    source: Literal["timm", "torchvision", "transformers", "features"]
    # timm, torchvision: name.tag (timm with file: and a whole transform: name alone);
    # transformers: the hub's name.
    id: str
    revision: HubRevision | None = None  # branch, tag or commit in the hub; None: main
    # hub, random, package:<distribution> or file:<path>, for transformers also of a folder
    weights: Weights = "hub"
    # Part of the file that weights: file: names, as in state_dict_ema, where the model is in
    # several.
    checkpoint_key: str | None = Field(None, min_length=1)
    # Path of the head inside the model, or of several that are averaged.
    head: str | list[str] | None = None
    # file:<path> or url:<address> of a linear head, weight (C, d) and perhaps bias (C,), put in
    # place of the model's.
    head_weights: HeadWeights | None = None
    # Feature under head_weights: the model's own; class token, then mean patch; or the two
    # interleaved.
    pooling: Literal["own", "token_mean", "token_mean_interleaved"] = "own"
    # timm: changes to the evaluation transform; transformers without the hub: the image processor.
    transform: Changes = None
    config: dict[str, Any] | None = None  # transformers without the hub: the configuration
    feature_dim: int | None = Field(None, ge=1, le=WIDEST)  # checked when given
    # Classes of the head; None: as many as its class list has.
    classes: int | None = Field(None, ge=2, le=MOST_CLASSES)
    # File with the head's classes in order, or their names; None: the study's data.classes.
    class_list: str | None = None
    class_names: Annotated[list[str], AfterValidator(phrases)] | None = None
    # Rows of the head that are kept, as in 0-397 or 0-397,500 or 200 random; None: all; few: which
    # rows, with_classes_and_hashes() says.
    keep_classes: Annotated[str, AfterValidator(_kept)] | None = None
    reported_top1: float | None = Field(None, ge=0, le=100)  # published accuracy, percent
    reported_by: str | None = None  # who published it
    sha256: dict[str, str] = Field(default_factory=dict)  # of the local files, by resolve_model

    @model_validator(mode="after")
    def _consistent(self) -> "ModelEntry":
        pattern, form = ID_FORMS[self.source]
        tagless = self.source == "timm" and "." not in self.id
        if not re.fullmatch(pattern, self.id) or (tagless and not self.weights.startswith("file:")):
            raise ValueError(f"id {self.id!r} must be {form}")
        needed = [key for key in TRANSFORMS["timm"] if key != "crop_mode"]
        absent = [key for key in needed if (self.transform or {}).get(key) is None]
        if tagless and absent:
            raise ValueError(
                f"id {self.id!r} has no tag, which would say how images are prepared: write a tag, "
                "as in resnet50.a1_in1k, or, as in the training of your weights, "
                f"{', '.join(absent)} under transform, for example transform: {{input_size: [3, "
                "224, 224], mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225], "
                "interpolation: bicubic, crop_pct: 0.95}"
            )
        if self.pooling != "own" and (self.source != "timm" or not self.head_weights):
            raise ValueError(
                f"pooling {self.pooling} is for a timm vision transformer under head_weights"
            )
        unused = {"timm": ["config"], "torchvision": ["config", "revision", "transform"]}
        unused["features"] = ["config", "revision", "transform", "head", "head_weights"]
        ignored = [key for key in unused.get(self.source, []) if getattr(self, key) is not None]
        if ignored:
            raise ValueError(
                f"{', '.join(ignored)} would be ignored: {self.source} models have none: remove it"
            )
        if self.checkpoint_key and not self.weights.startswith("file:"):
            raise ValueError(
                "checkpoint_key is the part of a file of your own that is taken: write weights: "
                "file:<path>, or remove it"
            )
        if self.class_list and self.class_names:
            raise ValueError("class_list and class_names say the same: write one of them")
        return self

    @property
    def head_classes(self) -> int:
        """Number of rows that the head must have, before keep_classes selects some."""
        return self.classes or (len(self.class_names) if self.class_names else 1000)

    @property
    def kept(self) -> list[int] | None:
        """Positions of the head's rows that are kept; None: all, or not known yet."""
        if self.keep_classes in (None, FEW):
            return None
        return positions(self.keep_classes, self.head_classes)

    @property
    def expected_top1(self) -> float | None:
        """Published top-1 (percent) to expect of these weights; None if unknown or random."""
        return None if self.weights == "random" else self.reported_top1

    def is_that_of(self, space: "SpaceEntry") -> bool:
        """Whether this model is a space's whole classifier, and so the space's known zero."""
        if not isinstance(space, ConSEEntry) or self.keep_classes:
            return False
        own = space.classifier
        return (own.identity, own.weights) == (self.identity, self.weights)

    def local_files(self) -> list[str]:
        kind, _, head = (self.head_weights or "").partition(":")
        heads = [head] if kind == "file" and self.weights != "random" else []
        return [*own_weights(self), *heads, *([self.class_list] if self.class_list else [])]


class SpaceTower(Tower):
    """A tower whose output is the embeddings of a space."""

    dim: int = Field(ge=1, le=WIDEST)  # width of the embeddings

    @property
    def untrained(self) -> bool:
        """Whether the texts of the space mean nothing."""
        return getattr(self, "weights", "") == "random"


class ConSEEntry(SpaceTower):
    """A space made of label sentences, weighted by a classifier's softmax."""

    _of_tower: ClassVar[Any] = {
        "source": True,
        "text": True,
        "temperature": True,
        "top": True,
        "classifier": OF_CLASSIFIER,
    }

    source: Literal["conse"]
    text: Annotated[str, Field(pattern=r"^package:.+$")]  # sentence encoder
    classifier: ModelEntry  # of ImageNet, whose softmax weights the sentences
    temperature: float = Field(ge=0.001, le=1000)  # divides the logits
    top: int = Field(ge=1, le=1000)  # classes that take part

    def with_weights(self, **changes: Any) -> Self:
        return self.model_copy(update={"classifier": self.classifier.with_weights(**changes)})

    def local_files(self) -> list[str]:
        return self.classifier.local_files()


class OpenCLIPEntry(SpaceTower):
    """An image tower and a text tower that open_clip builds."""

    _of_tower: ClassVar[Any] = {"source", "id", "transform"}

    source: Literal["open_clip"]
    # model/pretrained; model alone with file: or random
    id: Annotated[str, Field(pattern=r"^[\w-]+(/[\w-]+)?$")]
    weights: Weights = "hub"  # hub, random or file:<path>
    transform: Changes = None
    sha256: dict[str, str] = Field(default_factory=dict)  # of the local files, by resolve_space

    @model_validator(mode="after")
    def _consistent(self) -> "OpenCLIPEntry":
        model, _, pretrained = self.id.partition("/")
        if self.weights == "hub" and not pretrained:
            raise ValueError(
                f"id {self.id!r} must be model/pretrained, for example ViT-L-14-quickgelu/openai"
            )
        if self.weights.startswith("package:"):
            raise ValueError("weights of an open_clip space are hub, random or file:<path>")
        if pretrained == "openai" and not model.endswith("-quickgelu"):
            raise ValueError(
                f"id {self.id!r}: OpenAI's weights were trained with QuickGELU: write "
                f"{model}-quickgelu/openai"
            )
        return self


class TransformersEntry(SpaceTower):
    """A dual encoder of transformers, which has get_image_features and get_text_features."""

    _of_tower: ClassVar[Any] = {"source", "id", "transform", "config"}

    source: Literal["transformers"]
    id: str  # the hub's name
    revision: HubRevision | None = None  # branch, tag or commit in the hub; None: main
    weights: Weights = "hub"  # hub, random or file:<folder of save_pretrained>
    # The image processor and the configuration, where weights are random.
    transform: Changes = None
    config: dict[str, Any] | None = None
    sha256: dict[str, str] = Field(default_factory=dict)  # of the local files, by resolve_space

    @model_validator(mode="after")
    def _consistent(self) -> "TransformersEntry":
        pattern, form = ID_FORMS[self.source]
        if not re.fullmatch(pattern, self.id):
            raise ValueError(f"id {self.id!r} must be {form}")
        if self.weights.startswith("package:"):
            raise ValueError("weights of a transformers space are hub, random or file:<folder>")
        return self


class FeaturesEntry(SpaceTower):
    """A space without an image tower: its embeddings are imported, its texts are given."""

    _of_tower: ClassVar[Any] = {"source", "text"}

    source: Literal["features"]
    # a sentence encoder (package:<distribution>), or an .npz of embedded texts (file:<path>)
    text: Annotated[str, Field(pattern=r"^(package|file):.+$")]
    sha256: dict[str, str] = Field(default_factory=dict)  # of the local file, by resolve_space

    def with_weights(self, **changes: Any) -> Self:
        changes.pop("weights", None)
        return self.model_copy(update=changes)

    def local_files(self) -> list[str]:
        return [self.text.removeprefix("file:")] if self.text.startswith("file:") else []


SpaceEntry = ConSEEntry | OpenCLIPEntry | TransformersEntry | FeaturesEntry
Entry = TypeVar("Entry", bound=Tower)


class Registry(NamedTuple):
    """Entries by name, unchecked: the user's own, which take precedence, and the packaged ones."""

    path: Path  # the user's file
    own: dict[str, Any]
    packaged: dict[str, Any]

    @property
    def entries(self) -> dict[str, Any]:
        return self.packaged | self.own

    def named(self, name: str, otherwise: str = "") -> Any:
        """The content of an entry; InputError with the known names if there is none."""
        if name in self.entries:
            return self.entries[name]
        near = difflib.get_close_matches(name, map(str, self.entries))
        guess = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
        own = ", ".join(map(str, self.own)) or "none"
        raise InputError(
            f"{self.path}: no entry {name!r}: {guess}it has {own}; packaged are "
            f"{', '.join(self.packaged)}{otherwise}: name one of them, or write an entry of your "
            f"own into {self.path}"
        )


def read_registry(path: str | Path, default: Path) -> Registry:
    """The user's registry, whose file may be missing at the `default`, and the packaged one."""
    path = Path(path)
    own = {} if path == default and not path.exists() else read_yaml(path, may_be_empty=True)
    return Registry(path, own, read_yaml(PACKAGE_DATA / default.name))


def resolve_models(
    path: str | Path, names: list[str], weights: str = "registry", *, files: bool = True
) -> dict[str, ModelEntry]:
    """Registry entries of the named models. A name `<source>/<id>` needs no entry.

    A name that ends with CUT has the entry of the model before it, with few classes.

    weights: "random" replaces the weights of every entry. files: whether local files must exist.
    """
    registry = read_registry(path, MODELS)
    entries = {}
    for name in names:
        whole = name.removesuffix(CUT)
        source, _, identifier = whole.partition("/")
        if identifier:
            content, origin = {"source": source, "id": identifier}, f"models: {name}"
        else:
            otherwise = " or <source>/<id>, as in timm/resnet18.a1_in1k"
            content, origin = registry.named(whole, otherwise), f"{path}: {whole}"
        entry = _validated(content, ModelEntry, origin)
        if whole != name:
            entry = entry.model_copy(update=dict.fromkeys(REPORTED) | {"keep_classes": FEW})
        entries[name] = _settled(entry, origin, weights, files)
    return entries


def whole_of(models: Mapping[str, ModelEntry], name: str) -> str | None:
    """The model whose head this model has a part of, and whose features are its own; or None."""

    def network(entry: ModelEntry) -> dict[str, Any]:
        return entry.model_dump(exclude={"keep_classes", *REPORTED})

    if name not in models or models[name].keep_classes is None:
        return None
    wholes = (other for other, entry in models.items() if entry.keep_classes is None)
    return next((one for one in wholes if network(models[one]) == network(models[name])), None)


def resolve_spaces(
    path: str | Path, names: list[str], weights: str = "registry", *, files: bool = True
) -> dict[str, SpaceEntry]:
    """Registry entries of the named spaces; parameters as in resolve_models()."""
    registry = read_registry(path, SPACES)
    entries = {}
    for name in names:
        origin = f"{path}: {name}"
        entry = _space(registry.named(name), origin)
        entries[name] = _settled(entry, origin, weights, files)
    return entries


def objection(entry: SpaceEntry) -> str | None:
    """Why the generator cannot draw the embeddings of a space; None if it can."""
    reason = (
        "the generator's decoder was trained on the embeddings of OpenAI's CLIP ViT-L/14 "
        f"(open_clip {GENERATOR_SPACE['open_clip']}), "
    )
    own = getattr(entry, "id", entry.source)
    if own != GENERATOR_SPACE.get(entry.source):
        return (
            f"{reason}and vectors of another space, here {own}, would give pictures without meaning"
        )
    if entry.untrained:
        return f"{reason}and untrained towers (weights: random) give vectors without meaning"
    return None


def read_model(path: Path) -> ModelEntry:
    """Read the entry that the step resolve_model wrote."""
    return _validated(dict(read_json(path)), ModelEntry, str(path))


def read_space(path: Path) -> SpaceEntry:
    """Read the entry that the step resolve_space wrote."""
    return _space(dict(read_json(path)), str(path))


def _space(content: Any, origin: str) -> SpaceEntry:
    source = content.get("source") if isinstance(content, dict) else None
    kinds: dict[str, Any] = {
        "open_clip": OpenCLIPEntry,
        "transformers": TransformersEntry,
        "conse": ConSEEntry,
        "features": FeaturesEntry,
    }
    if not isinstance(source, str) or source not in kinds:
        raise InputError(f"{origin}: source: {source!r} is none of {', '.join(kinds)}")
    return _validated(content, kinds[source], origin)


def _validated(content: Any, schema: type[Entry], origin: str) -> Entry:
    try:
        return schema.model_validate(content, strict=True)
    except ValidationError as error:
        raise InputError(explain(error, schema, origin)) from None


def _settled(entry: Entry, origin: str, weights: str, files: bool) -> Entry:
    """The entry, with random weights if so wanted, whose local files were looked for."""
    if weights == "random":
        entry = entry.with_weights(weights="random")
    for file in entry.local_files() if files else []:
        parts = PurePosixPath(file).parts
        if parts[:1] != (LOCAL,) or len(parts) < 2 or ".." in parts:
            raise InputError(
                f"{origin}: {file!r} must lie under {LOCAL}/, the folder whose changes "
                "Snakemake and DVC notice: move or link it there"
            )
        if reason := too_long(file):
            raise InputError(f"{origin}: {file}: {reason}")
        if not Path(file).is_file():
            raise InputError(f"{origin}: {file}: no such file")
    return entry
