"""The one reader of a step: what was computed of a model, alone and in a space."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from singflow import cli
from singflow.analyses.metrics import NullRemoval, Removal, centred_texts
from singflow.artifacts.catalog import CATALOG
from singflow.artifacts.files import Facts, read_json, read_names
from singflow.artifacts.shards import (
    count_shards,
    iterate_whole,
    label_rows,
    read_index,
    shard_path,
)
from singflow.artifacts.tensors import Tensors, read_null_basis, read_tensors
from singflow.errors import InputError
from singflow.translators.copies import Kept, without
from singflow.translators.crossfit import CrossFitted
from singflow.translators.linear import read_crossfitted
from singflow.translators.reference import Paired, Pool, reference_folder, training_images

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Inputs:
    """Artifacts of a model, and with a space those of the model in the space; read when asked for.

    columns: of the manifest, beyond those that most analyses need. shards: of features and of
    embeddings; 0: as many as there are.
    """

    results: Path
    model: str = ""
    space: str = ""
    columns: tuple[str, ...] = ()
    shards: int = 0

    @classmethod
    def of(cls, flags: cli.ModelStep, *columns: str) -> Inputs:
        """The inputs of a step; with a reference, images are told apart by their hashes."""
        space = flags.space if isinstance(flags, cli.PairStep) else ""
        if getattr(flags, "reference", None) is not None and "sha256" not in columns:
            columns = (*columns, "sha256")
        return cls(flags.results, flags.model, space, columns, flags.shards)

    def path(self, artifact: str) -> Path:
        """Where an artifact lies."""
        return CATALOG[artifact].at(self.results, model=self.model, space=self.space, shard="00000")

    @cached_property
    def manifest(self) -> pd.DataFrame:
        """The images of the study, one row an image; with sha256, also their groups."""
        grouped = ["group"] if "sha256" in self.columns else []
        return read_index(self.path("manifest"), *self.columns, *grouped)

    @cached_property
    def head(self) -> Tensors:
        """weight (C, d) and bias (C,) of the head."""
        return read_tensors(self.path("head"), ["weight", "bias"])[0]

    @cached_property
    def head_facts(self) -> Facts:
        """Metadata of the head."""
        return read_tensors(self.path("head"), [])[1]

    @cached_property
    def null_basis(self) -> np.ndarray:
        """Orthonormal basis (d, k) of the null space."""
        return read_null_basis(self.path("projector"))

    @cached_property
    def translators(self) -> CrossFitted:
        """The linear translators: each image has the one that did not see it."""
        return read_crossfitted(self.path("translator"), self.manifest)

    @cached_property
    def fitted(self) -> tuple[float, float] | None:
        """Penalty of the translator, and R2 at this penalty; None for an imported translator."""
        report = read_json(self.path("translator_report"))
        penalty = report.of_kind("lambda", float | None)
        if penalty is None:
            return None
        curve = report["alpha_curve"]
        return penalty, next(p["validation_r2"] for p in curve if p["lambda"] == penalty)

    @cached_property
    def null_removal(self) -> NullRemoval:
        """Removal of the null component, each image by the translator that did not see it."""
        return NullRemoval(self.translators, self.null_basis)

    @cached_property
    def names(self) -> Facts:
        """Names of labels, concepts and targets."""
        return read_names(self.path("names"))

    @cached_property
    def labels(self) -> np.ndarray:
        """Names of the labels, in the order of their texts."""
        return np.array(self.names["labels"], dtype=object)

    @cached_property
    def label_of(self) -> np.ndarray:
        """For each image the position of its label among the labels."""
        return label_rows(self.manifest, self.names["labels"], self.path("names"))

    @cached_property
    def label_texts(self) -> np.ndarray:
        """Embeddings (L, m) of the texts of the labels."""
        return self.texts("label_embeddings")

    def texts(self, tensor: str) -> np.ndarray:
        """Embeddings of labels, concepts or targets."""
        return read_tensors(self.path("texts"), [tensor])[0][tensor]

    def targets(self, prompts: list[str]) -> dict[str, np.ndarray]:
        """Embeddings of the texts to steer toward, by text; they must be those of the study."""
        if self.names["targets"] != prompts:
            raise InputError(
                f"{self.path('names')}: its targets are {self.names['targets']}, not "
                f"steering.prompts {prompts}: run embed_prompts again"
            )
        return dict(zip(prompts, self.texts("target_embeddings"), strict=True)) if prompts else {}

    def features(
        self, *, size: int | None = None, images: np.ndarray | None = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """image_id and features of view 0 of images (truth values; by default all), in blocks."""
        return self._whole("features", size, images)

    def removals(self, *, size: int | None = None) -> Iterator[tuple[np.ndarray, Removal]]:
        """image_id and the removal of the null component of whole images, in blocks."""
        for image_id, features in self.features(size=size):
            yield image_id, self.null_removal(features, image_id)

    def embeddings(self, *, size: int | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """image_id and embeddings of whole images (view 0), in blocks."""
        return self._whole("embeddings", size, None)

    def _whole(
        self, tensor: str, size: int | None, images: np.ndarray | None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        folder = self.path(tensor).parent
        shards = self.shards or count_shards(folder)
        return iterate_whole(folder, tensor, shards, self.manifest, size=size, images=images)

    @cached_property
    def pairs(self) -> Paired:
        """Features of all views with the embeddings of the same views."""
        features, embeddings = (self.path(tensor).parent for tensor in ("features", "embeddings"))
        return Paired(self.manifest, features, embeddings, self.shards or count_shards(features))

    def training(self, reference: str | None) -> Paired:
        """The images that translators are fitted on: the reference, or else the study itself."""
        return training_images(reference, self.pairs)

    @cached_property
    def left_out(self) -> list[str] | None:
        """Paths of the reference's images that are near copies of the study's."""
        return read_json(self.path("translator_report")).of_kind("left_out", list | None)

    def fitted_on(self, reference: str | None) -> Any:
        """The images that the translator was fitted on: of a reference, those not left out."""
        images = self.training(reference)
        if reference is None or not self.left_out:
            return images
        return without(images, images.manifest["path"].isin(self.left_out).to_numpy())

    def pool(self, reference: str | None) -> Pool[Any]:
        """The images of the study, and those of the reference that are not left out."""
        return Pool(self.pairs, None if reference is None else self.fitted_on(reference))

    def asked(self, reference: str | None) -> tuple[pd.DataFrame, np.ndarray]:
        """Labels, concepts and a reference's other labels (text, kind), and embeddings (T, m).

        Labels are centred together, and concepts together, as their texts have other templates.
        """
        import pandas as pd

        labels, embeddings = self.labels.tolist(), [self.label_texts]
        kinds = ["label"] * len(labels)
        if reference is not None:
            names, tensors = (
                CATALOG[name].at(reference_folder(reference), space=self.space)
                for name in ("names", "texts")
            )
            if names.is_file() and tensors.is_file():
                theirs, own = read_names(names)["labels"], set(labels)
                new = [place for place, name in enumerate(theirs) if name not in own]
                held, _ = read_tensors(tensors, ["label_embeddings"])
                embeddings.append(held["label_embeddings"][new])
                labels += [theirs[place] for place in new]
                kinds += ["reference"] * len(new)
        concepts = self.names["concepts"]
        listed = {"text": labels + concepts, "kind": kinds + ["concept"] * len(concepts)}
        parts = np.concatenate(embeddings), self.texts("concept_embeddings")
        return pd.DataFrame(listed), np.concatenate([centred_texts(part) for part in parts])


def images_of(pool: Pool[Any]) -> pd.DataFrame:
    """Rows of the manifests for view 0 in the order of the shards; column own: of the study."""
    import pandas as pd

    parts = []
    for part in pool:
        paths = [shard_path(part.features, shard) for shard in range(part.shards)]
        shards = [read_tensors(path, ["image_id", "view"])[0] for path in paths]
        ids = np.concatenate([shard["image_id"][shard["view"] == 0] for shard in shards])
        ids = part.renumbered(ids) if isinstance(part, Kept) else ids
        parts.append(part.manifest.iloc[ids].assign(own=part is pool.scored))
    return pd.concat(parts, ignore_index=True)


def known_answer(weights_sha256: str | None, embeddings: Path, *, cut: bool) -> dict[str, bool]:
    """Whether the answer of the test of meaning is known in advance: known_zero and known_leak.

    The null space holds nothing if the space's image tower is a function of the logits of the
    classifier with these weights. It holds a leak if classes were cut off the head. `embeddings` is
    a shard of the space.
    """
    space = read_tensors(embeddings, [])[1]
    whole = not cut and weights_sha256 is not None
    zero = whole and weights_sha256 == space.get("classifier_sha256")
    return {"known_zero": zero, "known_leak": cut}
