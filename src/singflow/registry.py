"""The registries: models.yaml and spaces.yaml, where a new classifier or space is one entry and no code."""

import difflib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Field, ValidationError, model_validator

from singflow.config import Section, explain, read_yaml
from singflow.errors import InputError


def _weights(value: str) -> str:
    kind, _, target = value.partition(":")
    if value in ("hub", "random") or (kind in ("package", "file") and target):
        return value
    raise ValueError("must be hub, random, package:<distribution> or file:<path>")


def _pinned(value: str) -> str:
    name, _, tag = value.partition(".")
    if not name or not tag:
        raise ValueError("must be pinned as name.tag, for example resnet50.a1_in1k")
    return value


Weights = Annotated[str, AfterValidator(_weights)]


class ModelEntry(Section):
    """A classifier."""

    source: Literal["timm"] = Field(description="library that builds the architecture")
    id: Annotated[str, AfterValidator(_pinned)] = Field(description="name.tag")
    weights: Weights = Field("hub", description="hub, random, package:<distribution> or file:<path>")
    head: str | None = Field(None, description="path of the head inside the model; None: what the library says")
    feature_dim: int | None = Field(None, ge=1, description="width of the feature, checked when given")
    classes: int = Field(1000, ge=2, description="classes of the head")
    reported_top1: float | None = Field(None, ge=0, le=100, description="published top-1 accuracy, percent")
    reported_by: str | None = Field(None, description="who published it")


class SpaceEntry(Section):
    """A vision-language space."""

    source: Literal["conse"] = Field(description="conse: label sentences weighted by a classifier's softmax")
    dim: int = Field(ge=1, description="width of the embeddings")
    text: Annotated[str, Field(pattern=r"^package:.+$")] = Field(description="sentence encoder, as package:<distribution>")
    classifier: ModelEntry = Field(description="classifier whose softmax weights the sentences")
    temperature: float = Field(gt=0, description="divides the logits")
    top: int = Field(ge=1, description="classes that take part")

    @model_validator(mode="after")
    def _top_fits(self) -> "SpaceEntry":
        if self.top > self.classifier.classes:
            raise ValueError(f"top is {self.top}, but the classifier has {self.classifier.classes} classes")
        return self


Entry = TypeVar("Entry", ModelEntry, SpaceEntry)


def resolve_models(path: str | Path, names: list[str]) -> dict[str, ModelEntry]:
    """Entries of the named models; `timm/<name.tag>` needs none. Raises InputError for an unknown name."""
    registry = read_yaml(path)
    return {
        name: _validated({"source": "timm", "id": name.removeprefix("timm/")}, ModelEntry, f"models: {name}")
        if name.startswith("timm/")
        else _validated(_named(registry, name, path, "or timm/<name.tag>"), ModelEntry, f"{path}: {name}")
        for name in names
    }


def resolve_spaces(path: str | Path, names: list[str]) -> dict[str, SpaceEntry]:
    """Entries of the named spaces. Raises InputError for an unknown name."""
    registry = read_yaml(path)
    return {name: _validated(_named(registry, name, path, ""), SpaceEntry, f"{path}: {name}") for name in names}


def read_entry(path: Path, schema: type[Entry]) -> Entry:
    """The resolved entry that resolve_model or resolve_space wrote."""
    try:
        return _validated(json.loads(path.read_text(encoding="utf-8")), schema, str(path))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a registry entry ({error}): remove it and run the workflow again") from None


def _named(registry: dict[str, Any], name: str, path: str | Path, otherwise: str) -> Any:
    if name not in registry:
        known = [str(each) for each in registry]
        near = difflib.get_close_matches(name, known, n=1)
        guess = f"; did you mean {near[0]!r}?" if near else ""
        raise InputError(f"{path}: no entry {name!r}; it has {', '.join(known)} {otherwise}".rstrip() + guess)
    return registry[name]


def _validated(content: Any, schema: type[Entry], origin: str) -> Entry:
    try:
        return schema.model_validate(content, strict=True)
    except ValidationError as error:
        raise InputError(explain(error, schema, origin)) from None
