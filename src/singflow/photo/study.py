"""Reading a finished study for the analysis of single photos."""

import difflib
import hashlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from singflow.analyses.evidence import Words
from singflow.analyses.floor import Head
from singflow.analyses.geometry import complement
from singflow.analyses.metrics import share
from singflow.analyses.summary import said
from singflow.artifacts.files import MEND, Facts, read_json, read_names, sha256_of
from singflow.artifacts.shards import iterate_whole, read_manifest, shard_path
from singflow.artifacts.tables import iterate_row_groups, read_models
from singflow.artifacts.tensors import Tensors, read_null_basis, read_tensors
from singflow.cli import log
from singflow.config.reading import read_yaml
from singflow.config.registry import SpaceEntry, read_model, read_space
from singflow.data.images import read_unchanged
from singflow.data.manifest import data_root, head_classes, prompt_of
from singflow.data.vocabulary import read_class_list
from singflow.errors import InputError
from singflow.photo.analysis import Artifacts, Neighbour, Setting, Usual, stored_texts
from singflow.photo.fits import Settings, trained
from singflow.photo.texts import Texts, text_of
from singflow.photo.towers import CLASSES, Classifier
from singflow.pictures.neighbours import contents, nearest
from singflow.towers.ready_texts import read_ready
from singflow.translators.linear import Translator
from singflow.translators.reference import Paired, reference_folder, training_images

if TYPE_CHECKING:
    import torch
    from PIL import Image


def existing(path: Path) -> Path:
    """The same path; InputError, with the command that makes the file, if it does not exist."""
    if not path.is_file():
        raise InputError(f"{path}: no such file: make it with `snakemake --cores all {path}`")
    return path


def registry_entry(results: Path, kind: str, name: str) -> Path:
    """The file of the resolved entry of a model or space; `kind` is `model` or `space`."""
    folder = results / "registry" / f"{kind}s"
    known = sorted(
        path.relative_to(folder).as_posix().removesuffix(".json") for path in folder.rglob("*.json")
    )
    if not known:
        raise InputError(
            f"{folder}: holds no {kind}: run the study with `singflow run`, or name its folder "
            "with --results"
        )
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        guess = f"; did you mean {near[0]!r}?" if near else ""
        raise InputError(f"--{kind} {name!r}: the study in {results} has {', '.join(known)}{guess}")
    return folder / f"{name}.json"


@dataclass(frozen=True)
class Known:
    """All that an Analyzer needs for a model and a space.

    photos: searched for the nearest photos; None if there are none. seen: hashes of the images that
    the translator was fitted on.
    """

    classifier: Classifier
    texts: Texts
    artifacts: Artifacts
    photos: "Photos | None"
    seen: frozenset[str]


@dataclass
class Photos:
    """The photos of a study, with their embeddings in a space; embeddings and files may be missing.

    folder: holds the embeddings, in `shards` files. root: folder that the paths in the manifest are
    relative to; None if the files are not available.
    """

    manifest: pd.DataFrame
    folder: Path
    shards: int
    root: Path | None

    def nearest(self, sha256: str, points: np.ndarray) -> list[Neighbour]:
        """The photo nearest to each of the points (n, m), without photos of the given hash."""
        if not self.folder.is_dir():
            return []
        content = contents(self.manifest["sha256"])
        same = np.flatnonzero(self.manifest["sha256"] == sha256)
        own = np.full(len(points), same[0] if len(same) else -1)
        gallery = partial(iterate_whole, self.folder, "embeddings", self.shards, self.manifest)
        found = nearest(points, own, gallery, content, 1)
        pairs = zip(found.image_id[:, 0].tolist(), found.angle_deg[:, 0].tolist(), strict=True)
        return [
            Neighbour(number, self.manifest["path"][number], angle)
            for number, angle in pairs
            if number >= 0
        ]

    def picture(self, photo: Neighbour, max_pixels: int) -> "Image.Image | None":
        """The image, or None if its file is missing, has changed, or exceeds `max_pixels`."""
        if self.root is None:
            return None
        try:
            return read_unchanged(self.root, self.manifest.iloc[photo.image_id], max_pixels)
        except InputError:
            return None


def read_photos(results: Path, space: str) -> Photos:
    """The study's photos, with their embeddings in a space."""
    params = read_yaml(existing(results / "params.yaml"))
    data = params["data"]
    root = Path(data["root"]) if data["source"] != "packaged" else data_root("packaged", "")
    manifest = read_manifest(existing(results / "data/manifest.parquet"))
    return Photos(manifest, results / "embeddings" / space, params["extraction"]["shards"], root)


def read_texts(
    results: Path, space: str, entry: SpaceEntry, device: "torch.device", class_names: list[str]
) -> tuple[Texts, list[str], np.ndarray]:
    """The study's texts in a space, and its P concepts with their embeddings (P, m)."""
    path = existing(results / f"prompts/{space}.safetensors")
    names = read_names(existing(results / f"prompts/{space}.json"))
    kinds = [f"{kind[:-1]}_embeddings" for kind, texts in names.items() if texts]
    tensors, made = read_tensors(path, kinds)
    manifest = pd.concat(
        iterate_row_groups(
            existing(results / "data/manifest.parquet"), ["label", "prompt"], ["label", "prompt"]
        )
    )
    prompts = dict(manifest.astype(str).drop_duplicates("label").itertuples(index=False, name=None))
    if prompts.keys() != set(names["labels"]) or any(
        len(tensors[kind]) != len(names[f"{kind.split('_')[0]}s"]) for kind in kinds
    ):
        raise InputError(
            f"{path}: holds other texts than its names and the manifest: remove it and run the "
            "workflow again"
        )
    templates, of_concepts = (
        made.parsed(f"{kind}_templates", list) for kind in ("label", "concept")
    )
    labels: dict[int, tuple[str, np.ndarray]] = {}
    for label, row, embedding in zip(
        names["labels"],
        head_rows(names["labels"], class_names),
        tensors["label_embeddings"],
        strict=True,
    ):
        own = prompts[label] if prompts[label] != prompt_of(label) else text_of(label, templates)
        labels |= {int(row): (own, embedding)} if row >= 0 else {}
    stored = stored_texts(names, tensors, templates, of_concepts, prompts)
    texts = Texts(
        entry,
        device,
        templates,
        stored,
        read_ready(space, entry),
        labels,
        (path, made["weights_sha256"]),
    )
    return (
        texts,
        names["concepts"],
        tensors.get("concept_embeddings", np.empty((0, entry.dim), np.float32)),
    )


def head_rows(labels: list[str], class_names: list[str]) -> np.ndarray:
    """Rows of the head that labels name; -1 for a label that is not a class of the head."""
    return head_classes(pd.DataFrame({"label": labels}), class_names)


# Columns of tables/models.csv that the sentence of the verdict needs.
SAID = ["turn_deg", "unique_r2", "blind_unique_r2", "margin", "detectable"]


@dataclass(frozen=True)
class Stored:
    """The contents of a study's files for a model and a space.

    The widths of head, basis, translator and embeddings agree. rule: the rank rule. report:
    linear.json of the translator. quality: of the translator. said: the verdict as a sentence.
    """

    study: str
    head: Tensors
    weights_sha256: str
    class_names: list[str]
    basis: np.ndarray
    rule: str
    translator: Translator
    report: Facts
    quality: str
    verdict: str
    said: str
    texts: Texts
    concepts: list[str]
    concept_embeddings: np.ndarray
    scores: pd.DataFrame


def read_stored(
    results: Path, model: str, space: str, classes: Path | None, device: "torch.device"
) -> Stored:
    """Read a study's files for a model and a space; `classes` None means the study's class list."""
    head_path = existing(results / f"features/{model}/head.safetensors")
    head, made = read_tensors(head_path, ["weight", "bias"])
    classes = classes or Path(
        read_yaml(existing(results / "params.yaml"))["data"].get("classes", CLASSES)
    )
    class_names = made.parsed("class_names", list | None) or read_class_list(classes)
    if len(class_names) != len(head["weight"]):
        raise InputError(
            f"{classes}: holds {len(class_names)} classes, but {head_path} has "
            f"{len(head['weight'])}: name the study's with --classes"
        )
    basis_path = existing(results / f"projectors/{model}.safetensors")
    basis = read_null_basis(basis_path)
    folder = results / f"translators/{space}/{model}"
    translator = Translator.load(existing(folder / "linear.safetensors"))
    entry = read_space(registry_entry(results, "space", space))
    texts, concepts, embeddings = read_texts(results, space, entry, device, class_names)
    if (
        not translator.weight.shape[1] == len(basis) == head["weight"].shape[1]
        or len(translator.weight) != embeddings.shape[1]
    ):
        raise InputError(
            f"{head_path}, {basis_path}, {folder} and the prompts of {space} differ in width: run "
            "the study again"
        )
    table = existing(results / "tables/models.csv")
    models = read_models(table, ["translator", "verdict", *SAID])
    rows = models[(models["space"] == space) & (models["model"] == model)]
    if rows.empty:
        raise InputError(f"{table}: has no row for {space} and {model}: {MEND}")
    row = {str(name): value for name, value in rows.iloc[0].items()}
    try:
        sentence = said(row | {"marks": ""})
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{table}: its row of {space} and {model} is damaged ({error}): {MEND}"
        ) from None
    columns = ["is_deg", "null_energy"]
    return Stored(
        study=made["study"],
        head=head,
        weights_sha256=made["weights_sha256"],
        class_names=class_names,
        basis=basis,
        rule=read_json(existing(basis_path.with_name(f"{basis_path.stem}.json"))).of_kind(
            "rule", str
        ),
        translator=translator,
        report=read_json(existing(folder / "linear.json")),
        quality=str(row["translator"]),
        verdict=str(row["verdict"]),
        said=sentence,
        texts=texts,
        concepts=concepts,
        concept_embeddings=embeddings,
        scores=pd.concat(
            iterate_row_groups(existing(results / f"scores/{space}/{model}.parquet"), [], columns)
        )[columns],
    )


def read_study(
    results: Path,
    model: str,
    space: str,
    classes: Path | None,
    device: str,
    threads: int,
    cache: Path,
) -> Known:
    """Load a model and a space from a study.

    Without the study's features and embeddings there are no fits and no nearest photos: a warning
    says so. Raises InputError if the weights of the model have changed since the study.
    """
    from singflow.towers.device import pick_device

    entries = {
        kind: registry_entry(results, kind, name)
        for kind, name in (("model", model), ("space", space))
    }
    stored = read_stored(results, model, space, classes, pick_device(device))
    basis, names = stored.basis, stored.class_names
    entry = read_model(entries["model"]).model_copy(update={"class_names": names})
    classifier = Classifier.of(entry, model, CLASSES, device)
    if classifier.weights_sha256 != stored.weights_sha256:
        head_path = results / f"features/{model}/head.safetensors"
        raise InputError(
            f"{head_path}: was made with other weights than the model has now: restore them, or "
            "run the study again"
        )
    photos = read_photos(results, space)
    if not photos.folder.is_dir():
        log.warning(
            "%s: not here, so the nearest photos are left out: `make fetch` brings it",
            photos.folder,
        )
    images = study_images(results, model, photos)
    fits = None
    if images:
        path = existing(results / f"evidence/{space}/{model}.safetensors")
        tensors, _ = read_tensors(path, ["class_embeddings", "word_weights", "offset"])
        made_of = {"basis": hashlib.sha256(basis.tobytes()).hexdigest(), "words": sha256_of(path)}
        head = Head(stored.head["weight"], stored.head["bias"], complement(basis), basis)
        settings = study_settings(results, stored.report)
        fits = trained(
            *images,
            made_of,
            lambda: head,
            lambda _: (Words.read(tensors), {}),
            settings,
            cache,
            threads,
        )
    n = len(stored.scores)
    setting = Setting(
        model=model,
        space=space,
        source=f"study {stored.study}",
        rank_rule=stored.rule,
        null_dim=basis.shape[1],
        validation_r2=stored.report.of_kind("validation_r2", int | float),
        translator=stored.quality,
        images=f"study's {n} image{'s' if n != 1 else ''}",
        n_images=n,
        verdict=stored.verdict,
        said=stored.said,
    )
    artifacts = Artifacts(
        setting,
        stored.head,
        names,
        *stored.texts.of_classes(names),
        basis,
        stored.translator,
        share(stored.translator, basis),
        stored.concepts,
        stored.concept_embeddings,
        Usual(*stored.scores.to_numpy().T),
        fits,
    )
    seen = (
        frozenset(images[1].manifest["sha256"]) if images else frozenset(photos.manifest["sha256"])
    )
    return Known(classifier, stored.texts, artifacts, photos, seen)


def study_images(results: Path, model: str, photos: Photos) -> tuple[Path, Paired] | None:
    """The images that the translator is fitted on, and their results folder.

    None, with a warning, if the study's features or embeddings are missing.
    """
    own = Paired(photos.manifest, results / f"features/{model}", photos.folder, photos.shards)
    absent = [path for path in (own.features, own.embeddings) if not shard_path(path, 0).is_file()]
    if absent:
        log.warning(
            "%s: holds no shards, so it is not known what chance does: `make fetch` brings them",
            absent[0],
        )
        return None
    reference = read_yaml(results / "params.yaml")["translator"]["reference"]
    return reference_folder(reference) if reference else results, training_images(reference, own)


def study_settings(results: Path, report: Facts) -> Settings:
    """The settings of a study's fits; `report` is linear.json of the translator."""
    params = read_yaml(results / "params.yaml")
    translator = params["translator"]
    lambdas, fitted = tuple(translator["lambdas"]), report.of_kind("lambda", float | None)
    return Settings(
        translator["folds"], lambdas, fitted, params["evidence"]["draws"], params["seed"]
    )
