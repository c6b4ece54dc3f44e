"""Analysis of single photos by a model, a space and evidence."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from singflow.analyses.geometry import logit_change, null_energy, null_space, remove_null
from singflow.analyses.maps import map_image
from singflow.analyses.metrics import angle_deg, remove, subspace_translator
from singflow.analyses.steering import NullDirections, null_directions, steer
from singflow.analyses.tables import ZERO
from singflow.artifacts.files import sha256_of
from singflow.artifacts.made import Made
from singflow.config.registry import MODELS, SPACES, resolve_models
from singflow.errors import InputError, printable
from singflow.evidence import Evidence
from singflow.markdown import as_list
from singflow.photo.analysis import (
    ABSENT,
    Analysis,
    Reach,
    Setting,
    Steered,
    angles_to_texts,
    beyond,
    chance_most,
    contrast_to_others,
    movements,
    nearest,
)
from singflow.photo.facts import conclude, describe
from singflow.sources import (
    CACHE,
    file_evidence,
    reference_evidence,
    reference_shards,
    study_classifier,
    study_evidence,
    study_space,
)
from singflow.towers.live import CLASSES, MAX_PIXELS, NO_POSITIONS, Classifier, Space, open_image
from singflow.towers.texts import checked_texts
from singflow.translators.reference import reference_folder
from singflow.translators.ridge import Affine

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

    from singflow.towers.live import Photo
    from singflow.translators.hub import Translator

LIKELIEST = 3  # classes that a photo is compared with where no text is asked for
IN_SAMPLE = "IN SAMPLE: this photo is among the images that the translator was fitted on"
WITHIN_CHANCE = "no maps: no text moved beyond the chance of this photo"
UNTOLD = (
    "whether the translator was fitted on this photo is not known, because it came without its file"
)


@dataclass(frozen=True, repr=False)
class Result(Analysis):
    """What a model's head ignores in one photo, with the scores of Analysis.

    image: the photo. sha256: hash of its file, if it has one. features: (1, d) float32.
    """

    name: str
    sha256: str | None
    image: Image.Image = field(compare=False)
    features: np.ndarray = field(compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Scores and their setting, as values that JSON can hold.

        Returns
        -------
        dict
            `image`, `conclusion` (a sentence), and the fields of Analysis, `setting` and `maps`
            among them.
        """
        scores = Analysis(**{item.name: getattr(self, item.name) for item in fields(Analysis)})
        said = {"image": self.name, "conclusion": conclude(self)}
        return said | asdict(scores, dict_factory=_of_lists)

    def figure(self) -> Figure:
        """The photo, its angles to texts, texts beyond chance, and where in the photo they move.

        A text has a map if its AS and the photo's IS are beyond chance; all maps share one scale.
        Without any, a line says why, as `no_maps` does.

        Returns
        -------
        matplotlib.figure.Figure
            As high as its parts need.
        """
        from singflow.figures.style import shown
        from singflow.photo.figure import draw

        return shown(draw(self.image, Path(self.name).name, self))

    def __repr__(self) -> str:
        return describe(self.name, self)

    def _repr_markdown_(self) -> str:
        return as_list(repr(self))


@dataclass(frozen=True)
class Analyzer:
    """A classifier, a space and evidence, for many photos; safe to call from several threads.

    Attributes
    ----------
    classifier : Classifier
        The model.
    space : Space
        The space, whose texts photos are compared with.
    evidence : Evidence
        Of this model in this space. `Evidence.of` makes one of a translator alone.

    Raises
    ------
    InputError
        When the three do not fit together.
    """

    classifier: Classifier
    space: Space
    evidence: Evidence

    def __post_init__(self) -> None:
        found = self.evidence.fitted.weight.shape
        wanted = self.space.entry.dim, self.classifier.weight.shape[1]
        basis = self.evidence.null_basis
        if found != wanted or not (basis is None or len(basis) == wanted[1]):
            raise InputError(
                f"{self.evidence.source}: has a translator of shape {found}, and a null space in "
                f"{found[1] if basis is None else len(basis)} dimensions, but "
                f"{self.classifier.name} -> {self.space.name} needs {wanted}: name its own"
            )

    @classmethod
    def load(
        cls,
        model: str | Classifier = "efficientnet_lite0",
        space: str | Space = "conse_minilm",
        *,
        reference: str = "packaged",
        results: str | Path | None = None,
        translator: str | Path | Translator | Evidence | None = None,
        models: str | Path = MODELS,
        spaces: str | Path = SPACES,
        classes: str | Path | None = None,
        device: str = "auto",
        threads: int = 1,
        cache: str | Path = CACHE,
    ) -> Self:
        """Load a classifier, a space, and the evidence of a reference or of a study.

        Parameters
        ----------
        model : str or Classifier
            Name in the registry, or in the study, or <source>/<id>, as in timm/resnet18.a1_in1k;
            or a classifier. One without an entry in a registry needs a translator.
        space : str or Space
            Name in the registry, or in the study; or a space.
        reference : str
            Results folder whose images the translator is fitted on; `packaged`: 507 images of
            ImageNet.
        results : str or Path, optional
            Results folder of a finished study, whose translator is used.
        translator : str, Path, Translator or Evidence, optional
            Linear translator, or the file of one, which is used. Evidence of the same model and
            space also gives the verdict, and what chance does.
        models, spaces : str or Path
            Registries of your own models and spaces, beside the packaged ones.
        classes : str or Path, optional
            Class list for a head without class names; by default the study's list, or ImageNet's.
        device : str
            auto, cpu or cuda.
        threads : int
            Number of parallel fits, if the cache has no fit yet.
        cache : str or Path
            Folder of earlier fits.

        Returns
        -------
        Analyzer
            Ready for photos.

        Raises
        ------
        InputError
            When files are missing or do not fit together, or when there is no translator for the
            model.
        """
        cache, given = Path(cache), Path(translator) if isinstance(translator, str) else translator
        if results is not None:
            if given is not None:
                raise InputError(
                    f"--results {results} and --translator {translator}: name one of them, whose "
                    "translator is taken"
                )
            if not isinstance(model, str) or not isinstance(space, str):
                raise InputError(
                    f"results {results}: model and space are names of the study: give their names"
                )
            folder, own = Path(results), None if classes is None else Path(classes)
            found = study_evidence(folder, model, space, threads, cache)
            into = study_space(folder, space, device)
            return cls(study_classifier(folder, model, own, device), into, found)
        into = Space.load(space, spaces=spaces, device=device) if isinstance(space, str) else space
        if isinstance(given, Path) and not given.is_file():
            raise InputError(
                f"--translator {given}: no such file: name an imported translator, or one of "
                "a study's"
            )
        folder = reference_folder(reference)
        if isinstance(model, str):
            entry = resolve_models(models, [model])[model]
            if given is None:
                reference_shards(folder, model, Made(entry.identity), into)
            listed = classes or CLASSES
            model = Classifier.load(model, models=models, classes=listed, device=device)
        if given is None:
            found, into = reference_evidence(folder, model, into, threads, cache)
        elif isinstance(given, Path):
            found = file_evidence(given, model, into)
        else:
            found = given if isinstance(given, Evidence) else Evidence.of(given)
        return cls(model, into, found)

    @cached_property
    def basis(self) -> np.ndarray:
        """V_0 (d, k)."""
        found, classifier = self.evidence.null_basis, self.classifier
        if found is not None:
            return found
        return null_space(classifier.weight, stored=classifier.weight_dtype).basis

    @cached_property
    def setting(self) -> Setting:
        """The model, the space and the translator."""
        names = self.classifier.name, self.space.name
        return Setting.of(self.evidence, *names, self.basis.shape[1], _known(self.classifier))

    @cached_property
    def of_classes(self) -> tuple[list[str], np.ndarray]:
        """One text per class, and their embeddings (C, m)."""
        return self.space.texts.of_classes(self.classifier.class_names)

    @cached_property
    def removed(self) -> Affine:
        """The map T V_0 V_0^T."""
        return subspace_translator(self.evidence.fitted, self.basis)

    @cached_property
    def _steering(self) -> tuple[Affine, np.ndarray]:
        """The translator T in float64, and T V_0 of shape (m, k)."""
        wide = self.evidence.fitted.astype(np.float64)
        return wide, wide.weight @ self.basis

    def _directions(self, features: np.ndarray, embedding: np.ndarray) -> NullDirections:
        """Directions from features toward a text inside the null space."""
        translator, of_null = self._steering
        return null_directions(features, translator, self.basis, of_null, embedding)

    def _null_norms(self, step: float, features: np.ndarray) -> float | None:
        """A step in norms of a feature's null component; None without a component or a step."""
        norm = float(np.linalg.norm(features.astype(np.float64) @ self.basis))
        return None if np.isnan(step) or not norm else float(step) / norm

    def analyze(
        self,
        image: Photo,
        texts: Sequence[str] | None = (),
        *,
        name: str = "",
        extremes: int = 8,
        max_pixels: int = MAX_PIXELS,
    ) -> Result:
        """Measure what the head ignores in a photo.

        Parameters
        ----------
        image : str, Path, bytes or PIL.Image.Image
            Path of a file, content of a file, or an image.
        texts : sequence of str or None
            Texts that the photo is compared with, word for word; None: those of the three most
            probable classes.
        name : str
            Name of the photo in the result; its path by default.
        extremes : int
            Maximal length of the lists of classes and concepts that are gained or lost.
        max_pixels : int
            Limit on width times height, in pixels; a larger image is refused.

        Returns
        -------
        Result
            Scores of the photo.

        Raises
        ------
        InputError
            When the image cannot be used.
        """
        photo, sha256 = open_image(image, max_pixels), _sha256(image)
        asked = None if texts is None else list(dict.fromkeys(checked_texts(texts)))
        located, classifier = self.classifier.locate(photo, max_pixels), self.classifier
        feature, evidence, setting = located.feature, self.evidence, self.setting
        removal, spelled = remove(feature, evidence.fitted, self.removed), self.space.texts
        (predictions,) = classifier.predict(feature)
        class_texts, class_embeddings = self.of_classes
        if asked is None:
            asked = list(dict.fromkeys(class_texts[each.index] for each in predictions[:LIKELIEST]))
        fits = evidence.fits if setting.null_dim else None
        unlike = fits.unlike(feature, self.basis) if fits else ""
        drawn = fits.chance_removal(feature) if fits and not unlike else None
        judged = drawn is not None and setting.verdict != ZERO
        is_deg, turned = float(removal.image_score()[0]), drawn.image_score() if drawn else None
        most = chance_most(turned) if judged and turned is not None else None
        moves = most is not None and is_deg > most
        listed = extremes if moves else 0

        def scored(embeddings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            """Angles before and after, and AS (3, p); AS of the draws of chance, if judged."""
            before, after = angles_to_texts(removal, embeddings)[:, 0]
            chance = np.empty((0, len(embeddings)))
            if drawn and judged:
                chance = np.subtract(*angles_to_texts(drawn, embeddings))
            return np.stack([before, after, before - after]), chance

        def place(score_name: str, score: float) -> float | None:
            """Percentage of known images with a score below; equal scores count half."""
            if evidence.images.empty or not setting.null_dim:
                return None
            known = evidence.images[score_name]
            return 50.0 * float(np.mean(known < score) + np.mean(known <= score))

        scores, chance = scored(class_embeddings)
        contrast, mean = contrast_to_others(scores[2][None])[0], scores[2].mean()
        classes = movements(classifier.class_names, scores, contrast, chance)
        classes_gained, classes_lost = beyond(classes, contrast, contrast_to_others(chance), listed)
        scores, chance = scored(spelled.concept_embeddings)
        concepts = movements(spelled.concepts, scores, scores[2] - mean, chance)
        gained, lost = beyond(concepts, scores[2], chance, listed)
        embeddings = spelled.embed(asked)
        scores, chance = scored(embeddings)
        moved = movements(asked, scores, scores[2] - mean, chance)
        energy = float(null_energy(feature, self.basis)[0])
        equivalent = remove_null(feature, self.basis)
        best = predictions[0].index
        rows = [row for row, text in enumerate(moved) if moves and text.beyond_chance]
        maps, no_maps = None, self._no_maps(located.parts is not None, asked, rows, judged, unlike)
        if not no_maps:
            named = [asked[row] for row in rows]
            maps = map_image(located, evidence.fitted, self.basis, named, embeddings[rows])
        note = UNTOLD if sha256 is None and evidence.seen else ""
        path = image if isinstance(image, str | Path) else "image"
        return Result(
            predictions=predictions,
            is_deg=is_deg,
            is_percentile=place("is_deg", is_deg),
            chance_is_deg=None if turned is None else float(turned.mean()),
            chance_most_deg=most,
            null_energy=energy,
            null_energy_percentile=place("null_energy", energy),
            logit_change=float(logit_change(classifier.weight, feature, equivalent)[0]),
            unlike=unlike,
            nearest=nearest([*classes, *concepts]),
            predicted=replace(classes[best], text=class_texts[best]),
            texts=moved,
            reach=[self._reach(feature, *pair) for pair in zip(asked, embeddings, strict=True)],
            judged=judged,
            classes_gained=classes_gained,
            classes_lost=classes_lost,
            gained=gained,
            lost=lost,
            note=IN_SAMPLE if sha256 in evidence.seen else note,
            setting=setting,
            maps=maps,
            no_maps=no_maps,
            name=printable(name or str(path)),
            sha256=sha256,
            image=photo,
            features=feature,
        )

    def _no_maps(
        self, positions: bool, asked: list[str], drawn: list[int], judged: bool, unlike: str
    ) -> str:
        """Why no text has a map; empty if one has. drawn: the places of those that have one."""
        fits = self.evidence.fits
        if not self.setting.null_dim:
            return "no maps: the head has no null space, so it ignores nothing"
        if not positions:
            return NO_POSITIONS
        if not asked:
            return "no maps: no text was named"
        if not judged:
            like = f"it is unlike the {len(fits.null_energy)} images" if fits and unlike else ""
            zero = "the model is a known zero" if self.setting.verdict == ZERO else ""
            return f"no maps: this photo cannot be judged, because {like or zero or ABSENT}"
        return "" if drawn else WITHIN_CHANCE

    def _reach(self, features: np.ndarray, text: str, embedding: np.ndarray) -> Reach:
        """How far a photo with features (1, d) can be steered toward a text, in closed form."""
        directions = self._directions(features, embedding)
        (turn,), (near,) = directions.closest_approach(embedding)
        return Reach(
            text=text,
            angle_deg=float(angle_deg(directions.embeddings, embedding)[0]),
            nearest_deg=float(near),
            is_deg=float(turn),
            limit_deg=float(directions.limit_deg()[0]),
            step=self._null_norms(directions.step(float(turn))[0], features),
        )

    def steer(self, photo: Result, text: str, is_deg: float) -> Steered:
        """Steer a photo's feature toward a text inside the null space; the logits do not change.

        Parameters
        ----------
        photo : Result
            Result of analyze().
        text : str
            Text to steer toward.
        is_deg : float
            Target IS, in degrees; `photo.reach` has the limit, for the texts given to analyze().

        Returns
        -------
        Steered
            Feature and embedding after steering, and what changed, measured in float32.
        """
        features = photo.features
        (embedding,) = self.space.embed_texts([text])
        directions = self._directions(features, embedding)
        step = directions.step(is_deg)
        reachable = not np.isnan(step[0])
        step = np.where(np.isnan(step), 0.0, step)
        moved = steer(features, directions.vectors, step)
        before, after = directions.embeddings, self._steering[0](moved.astype(np.float64))
        first, last = (float(angle_deg(point, embedding)[0]) for point in (before, after))
        head = Affine(self.classifier.weight, self.classifier.bias).astype(np.float64)
        logits = [head(point.astype(np.float64))[0] for point in (features, moved)]
        return Steered(
            text=text,
            target_is_deg=is_deg,
            reachable=reachable,
            limit_deg=float(directions.limit_deg()[0]),
            is_deg=float(angle_deg(before, after)[0]),
            angle_original_deg=first,
            angle_deg=last,
            as_deg=first - last,
            step=self._null_norms(step[0], features) or 0.0,
            logit_change=float(np.abs(logits[1] - logits[0]).max()),
            top1_changed=bool(logits[0].argmax() != logits[1].argmax()),
            feature=moved[0],
            embedding=after[0],
        )


def _known(classifier: Classifier) -> str:
    """Which classes a head knows that has only some of a head's; empty for other heads."""
    names, entry = classifier.class_names, classifier.entry
    if entry is None or entry.kept is None:
        return ""
    *some, last = names[:: -(-len(names) // 3)]
    return (
        f"the head knows {len(names)} of {entry.head_classes:,} classes alone, such as "
        f"{', '.join(some)} and {last}"
    )


def _sha256(image: Photo) -> str | None:
    """Hash of the file of an image; None for an image without a file."""
    if isinstance(image, bytes):
        return hashlib.sha256(image).hexdigest()
    path = Path(image if isinstance(image, str | Path) else getattr(image, "filename", ""))
    return sha256_of(path) if path.is_file() else None


def _of_lists(items: list[tuple[str, Any]]) -> dict[str, Any]:
    """A dictionary for JSON, with arrays as lists."""
    return {name: v.tolist() if isinstance(v, np.ndarray) else v for name, v in items}


def analyze(
    image: Photo,
    model: str | Classifier = "efficientnet_lite0",
    texts: Sequence[str] = (),
    **options: Any,
) -> Result:
    """Measure what a model's head ignores in one photo; for many photos, load an Analyzer once.

    Parameters
    ----------
    image : str, Path, bytes or PIL.Image.Image
        Path of a file, content of a file, or an image.
    model : str or Classifier
        Name in the registry, or <source>/<id>; or a classifier.
    texts : sequence of str
        Texts that the photo is compared with.
    **options : Any
        Further options of Analyzer.load(): space, reference, results, translator, ...

    Returns
    -------
    Result
        Scores of the photo.
    """
    open_image(image)  # it is refused before a model is loaded, as texts are
    asked = checked_texts(texts)
    return Analyzer.load(model, **options).analyze(image, asked)
